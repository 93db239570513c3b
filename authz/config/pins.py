"""Files of approved tool definitions: readable JSON beside authz.yaml, to be reviewed like it.

Invariant: a file is read as it was written, or a fault says what is wrong with it; every character
outside of ASCII stands in it as an escape, so that nothing in it looks like something else
(tests/config/test_pins.py).
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from authz.config.files import IrregularFileError, read_regular
from authz.config.model import Config
from authz.config.problems import Fault, WrongValueError, quoted, warning
from authz.core.catalogue import DefinitionError, ToolDefinition, read_definition
from authz.core.strict_json import StrictJsonError, loads

LONGEST: Final = 4 << 20  # bytes
_MAX_WORK: Final = 2_000_000_000
_MEMBERS: Final = frozenset({"server", "approved", "tools"})


@dataclass(frozen=True, slots=True)
class PinFile:
    """Hold what was approved of a server.

    Attributes:
        server: its name.
        at: when the file was written last, ISO 8601.
        by: who wrote it.
        tools: the approved definitions, by tool.
    """

    server: str
    at: str = ""
    by: str = ""
    tools: Mapping[str, ToolDefinition] = field(default_factory=dict)

    @property
    def digests(self) -> Mapping[str, str]:
        """Return the digest of each definition, by tool."""
        return {name: each.digest for name, each in self.tools.items()}


def write_pins(pins: PinFile) -> str:
    """Return the text of a file."""
    tools = {name: pins.tools[name].value for name in sorted(pins.tools)}
    approved = {"at": pins.at, "by": pins.by}
    members = {"server": pins.server, "approved": approved, "tools": tools}
    # Members of definitions come sorted out of their canonical text.
    return json.dumps(members, indent=2) + "\n"


def parse_pins(data: bytes) -> PinFile:
    """Read the text of a file.

    Raises:
        WrongValueError: where it is none.
    """
    right = "write it with `authz tools SERVER --pin`"
    if len(data) > LONGEST:
        raise WrongValueError("the file is longer than 4 MiB", right)
    try:
        members = loads(data, max_work=_MAX_WORK)
        if not isinstance(members, dict) or members.keys() != _MEMBERS:
            raise WrongValueError("the file is no list of approved tools", right)
        approved, tools, server = members["approved"], members["tools"], members["server"]
        if not isinstance(tools, dict) or not isinstance(server, str):
            raise WrongValueError("the file is no list of approved tools", right)
        found = {name: read_definition(each) for name, each in tools.items()}
    except StrictJsonError as error:
        raise WrongValueError(f"the file is no strict JSON: {error.detail.value}", right) from None
    except DefinitionError as error:
        raise WrongValueError(f"the file has a tool that is none: {error}", right) from None
    for name, definition in found.items():
        if definition.name != name:
            raise WrongValueError(f"the file has another tool under {quoted(name)}", right)
        if definition.is_stand_in:
            raise WrongValueError(f"the file has a definition too long: {quoted(name)}", right)
    at, by = ("", "") if not isinstance(approved, dict) else map(approved.get, ("at", "by"))
    return PinFile(
        server, at if isinstance(at, str) else "", by if isinstance(by, str) else "", found
    )


def read_pins(config: Config) -> tuple[dict[str, PinFile], list[Fault]]:
    """Read the files that the servers name; one that is missing approves nothing."""
    found, faults = dict[str, PinFile](), list[Fault]()
    for name, server in config.servers.items():
        if server.pins is None:
            continue
        path = ("servers", name, "pins", "file")
        try:
            pins = read_file(Path(server.pins.file))
        except FileNotFoundError:
            words = "there is no such file, so that no tool is approved"
            faults.append(warning(path, words, f"write it with `authz tools {name} --pin`"))
            continue
        except OSError as error:
            words = f"the file cannot be read: {error.strerror}"
            faults.append(Fault(path, words, "give it to this user"))
            continue
        except WrongValueError as error:
            faults.append(Fault(path, error.wrong, error.right))
            continue
        if pins.server != name:
            words = f"the file is of the server {quoted(pins.server)}"
            faults.append(Fault(path, words, "give every server a file of its own"))
        found[name] = pins
    return found, faults


def read_file(path: Path) -> PinFile:
    """Read a file.

    Raises:
        OSError: where it cannot be read.
        WrongValueError: where it holds something else.
    """
    try:
        data = read_regular(path, LONGEST)
    except IrregularFileError as error:
        raise WrongValueError(f"{error.strerror}", "name a file") from None
    return parse_pins(data)


def approve(pins: PinFile, definitions: Iterable[ToolDefinition], at: str, by: str) -> PinFile:
    """Return pins with these definitions in place of what was approved of their tools."""
    tools = dict(pins.tools) | {each.name: each for each in definitions}
    return PinFile(pins.server, at, by, tools)
