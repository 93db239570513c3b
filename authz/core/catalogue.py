"""What MCP servers say of their tools: definitions, annotations, and those that were approved.

Invariant: two definitions have the same canonical text exactly where they are the same JSON value,
in whatever order their members came; what nobody has seen is taken for the strictest
(tests/core/test_catalogue.py).

The canonical text is compared with texts of ours alone, so it is not that of RFC 8785: that one
refuses integers past 2**53, which schemas hold, and writes 1 and 1.0 alike.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from hashlib import sha256
from types import MappingProxyType
from typing import Final, NamedTuple

from authz.core.strict_json import StrictJsonError, has_surrogate, loads

MAX_DEFINITION: Final = 128 * 1024  # characters of the canonical text
_UNREADABLE: Final = "authz:unreadable"
MAX_NAME: Final = 256  # characters; MCP 2026-07-28 asks servers for 128 at most
# Seconds for which an earlier definition still counts beside the newest one: servers that are
# replaced one by one, or that answer people differently, show both in turns.
OVERLAP: Final = 300


class Annotation(Enum):
    """Name what an MCP server says of a tool (`ToolAnnotations`), by its section in authz.yaml."""

    READ_ONLY = "read_only"
    DESTRUCTIVE = "destructive"
    OPEN_WORLD = "open_world"


STRICTEST: Final = frozenset({Annotation.DESTRUCTIVE, Annotation.OPEN_WORLD})


class DefinitionError(ValueError):
    """Say in fixed words why something is no definition of a tool."""


@dataclass(frozen=True, slots=True)
class ToolDefinition:
    """Hold what a server says of one tool.

    Attributes:
        name: the tool's.
        text: the definition as canonical JSON: sorted, without blanks, ASCII.
        digest: the SHA-256 of the text, in hex.
        annotations: what it says of itself, MCP's defaults filled in.
    """

    name: str
    text: str
    digest: str
    annotations: frozenset[Annotation]

    @property
    def is_stand_in(self) -> bool:
        """Tell whether it stands for a definition that was not kept; nobody can approve it."""
        return self.text == canonical({"name": self.name, _UNREADABLE: True})

    @property
    def value(self) -> Mapping[str, object]:
        """Return the definition as JSON."""
        found: Mapping[str, object] = json.loads(self.text)
        return found


def parse_definition(data: bytes) -> ToolDefinition:
    """Read a definition as a server sent it.

    Raises:
        DefinitionError: where it is none, or no strict JSON.
    """
    try:
        return read_definition(loads(data))
    except StrictJsonError as error:
        raise DefinitionError(error.detail.value) from None


def read_definition(value: object) -> ToolDefinition:
    """Read a definition that was parsed strictly; of one that is too long, its stand-in.

    Raises:
        DefinitionError: where it is none.
    """
    if not isinstance(value, dict):
        raise DefinitionError("not an object")
    name = value.get("name")
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME or has_surrogate(name):
        raise DefinitionError("no name of 1 to 256 characters")
    text = canonical(value)
    if len(text) > MAX_DEFINITION:
        return stand_in(name)
    digest = sha256(text.encode("ascii")).hexdigest()
    return ToolDefinition(name, text, digest, _annotations(value.get("annotations")))


def stand_in(name: str) -> ToolDefinition:
    """Return what is kept in place of a definition that is not: strictest, and approved by nobody.

    Without it a server could replace an approved definition by one that nobody here can read.

    Raises:
        DefinitionError: where no tool can have the name.
    """
    return read_definition({"name": name, _UNREADABLE: True})


def canonical(value: object) -> str:
    """Return a JSON value as its one text: sorted members, no blanks, printable ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _annotations(value: object) -> frozenset[Annotation]:
    """Return what a tool is, by MCP's defaults where it does not say, or says no boolean."""
    hints: Mapping[str, object] = value if isinstance(value, dict) else {}
    found = set[Annotation]()
    if hints.get("readOnlyHint") is True:
        found.add(Annotation.READ_ONLY)
    elif hints.get("destructiveHint") is not False:  # means nothing of a read-only tool
        found.add(Annotation.DESTRUCTIVE)
    if hints.get("openWorldHint") is not False:
        found.add(Annotation.OPEN_WORLD)
    return frozenset(found)


def strictest(every: Iterable[frozenset[Annotation]]) -> frozenset[Annotation]:
    """Return what a tool is that several say different things of; of none, the strictest."""
    all_of = list(every)
    if not all_of:
        return STRICTEST
    found = frozenset[Annotation]().union(*all_of)
    read_only = all(Annotation.READ_ONLY in each for each in all_of)
    return found if read_only else found - {Annotation.READ_ONLY}


class Sighting(NamedTuple):
    """Say that a server listed a tool, and when last: in seconds since the epoch."""

    definition: ToolDefinition
    seen: int


class KnownTool(NamedTuple):
    """Hold what the definitions of a tool say together that were seen lately.

    Attributes:
        annotations: the strictest of them.
        digests: of the definitions.
    """

    annotations: frozenset[Annotation]
    digests: frozenset[str]


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Hold the tools that a server has listed, by name."""

    tools: Mapping[str, KnownTool]

    def annotations(self, tool: str) -> frozenset[Annotation]:
        """Return what a tool is; one that was never listed is the strictest."""
        known = self.tools.get(tool)
        return STRICTEST if known is None else known.annotations


UNLISTED: Final = Catalogue(MappingProxyType({}))


def catalogue_of(sightings: Iterable[Sighting]) -> Catalogue:
    """Return what sightings say of the tools of a server.

    Of each tool the newest definition counts, and those seen within `OVERLAP` before it.
    """
    by_name: dict[str, list[Sighting]] = {}
    for sighting in sightings:
        by_name.setdefault(sighting.definition.name, []).append(sighting)
    tools = dict[str, KnownTool]()
    for name, every in by_name.items():
        oldest = max([each.seen for each in every]) - OVERLAP
        lately = [each.definition for each in every if each.seen >= oldest]
        tools[name] = KnownTool(
            strictest([each.annotations for each in lately]),
            frozenset([each.digest for each in lately]),
        )
    return Catalogue(MappingProxyType(tools))


# --- approved definitions ------------------------------------------------------------------------


class PinMode(Enum):
    """Name what happens to a tool whose definition is not the approved one."""

    ENFORCE = "enforce"  # it is hidden and refused
    REPORT = "report"  # it is let through and told


@dataclass(frozen=True, slots=True)
class Pins:
    """Hold the approved definitions of a server's tools.

    Attributes:
        mode: what happens to others.
        digests: of the approved definitions, by tool.
    """

    mode: PinMode
    digests: Mapping[str, str]


class PinState(Enum):
    """Name how a tool stands to its approved definition."""

    APPROVED = "approved"
    NOT_APPROVED = "not_approved"  # nobody has approved any
    CHANGED = "changed"  # the server has listed another one
    NOT_LISTED = "not_listed"  # the server has listed none yet


def pin_state(pins: Pins, catalogue: Catalogue, tool: str) -> PinState:
    """Return how a tool stands to its approved definition, by all that was seen lately."""
    approved, known = pins.digests.get(tool), catalogue.tools.get(tool)
    if approved is None:
        return PinState.NOT_APPROVED
    if known is None:
        return PinState.NOT_LISTED
    return PinState.APPROVED if known.digests == {approved} else PinState.CHANGED
