"""`authz tools`: what a server says of its tools, the rules that each meets, and their approval.

Invariant: whatever a server says, nothing but printable ASCII reaches a terminal or a file
(tests/cli/test_tools.py).
"""

import asyncio
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from difflib import unified_diff
from pathlib import Path
from typing import Final

import click

from authz.cli.common import (
    DONE,
    FAILED,
    FILE,
    CommandError,
    OutOfReachError,
    command,
    config_argument,
    json_option,
    print_table,
    state_option,
)
from authz.cli.revocation_commands import shown_moment, shown_text
from authz.config.files import READABLE, write_atomically
from authz.config.load import Settings, load
from authz.config.model import PinsConfig
from authz.config.pins import PinFile, approve, read_file, write_pins
from authz.config.problems import ConfigError, WrongValueError
from authz.config.upstream_authorities import upstream_trust
from authz.core.catalogue import (
    Catalogue,
    PinMode,
    Pins,
    PinState,
    Sighting,
    ToolDefinition,
    catalogue_of,
    pin_state,
)
from authz.core.evaluation import is_offered
from authz.core.ledger import UnavailableError
from authz.core.policy import Server
from authz.ledger.redis import RedisLedger
from authz.ledger.sightings import RedisSightings
from authz.local.redis_location import shared_redis
from authz.local.state import SetupError, default_folder
from authz.server.tool_lists import ToolList, ToolListError, list_tools
from authz.server.tool_rules import (
    UnknownArgument,
    catalogue_of_list,
    nearest_tools,
    rules_of,
    unknown_arguments,
    unmatched_rules,
)

_MAX_BY: Final = 64
_EXAMPLES: Final = """\
examples:
  authz tools files                                each tool, what the server says, its rules
  authz tools files authz.yaml --json
  authz tools files --diff                         what differs from what was approved
  authz tools files --pin --by anna                approve all that is listed now
  authz tools files --pin --tool read_file         approve one, and keep the others
  authz tools files --pin -o - > new && mv new pins/files.json
                                                   where the configuration cannot be written
The server is asked without any identity, from where this runs; where that fails, what the workers
saw last is shown. Characters outside of ASCII are shown as escapes: what looks alike may differ.
exit status: 0 done, 1 failed or (--diff) something differs, 2 asked wrongly
"""


@command("tools", _EXAMPLES)
@click.argument("server")
@config_argument
@click.option("--diff", is_flag=True, help="Show what differs from the approved definitions.")
@click.option("--pin", is_flag=True, help="Approve what the server says now.")
@click.option("--tool", "only", multiple=True, metavar="NAME", help="Approve this tool alone.")
@click.option(
    "-o", "--output", type=FILE, metavar="FILE",
    help="Where to write what is approved (default: servers.<server>.pins.file; - to print it).",
)  # fmt: skip
@click.option("--by", default="", metavar="NAME", help="Who approves (default: $USER).")
@state_option
@json_option("The tools as one JSON object.")
def run(
    *,
    config: Path,
    server: str,
    diff: bool,
    pin: bool,
    only: tuple[str, ...],
    output: Path | None,
    by: str,
    state: Path | None,
    as_json: bool,
) -> int:
    """Show, compare or approve."""
    if diff + pin + as_json > 1:
        raise CommandError("--diff, --pin and --json are different questions: ask one")
    if (only or output is not None or by) and not pin:
        raise CommandError("--tool, --output and --by belong to --pin")
    settings = load(config, os.environ, secrets=False, authorities=True)
    rules = settings.policy.servers.get(server)
    if rules is None:
        raise CommandError(f"SERVER is one of: {', '.join(settings.policy.servers)}")
    pins = _pins(settings, server, output)
    listed = _listed(settings, config, server, state)
    for words in listed.rejected:
        print(f"authz: one that it lists is no tool: {words}", file=sys.stderr)
    if pin:
        return _approve(settings, server, pins, listed, only=only, output=output, by=by)
    if diff:
        return _print_differences(pins, listed)
    catalogue = catalogue_of_list(listed.definitions)
    compared = None if rules.pins is None else Pins(rules.pins.mode, pins.digests)
    rules = replace(rules, pins=compared)
    if as_json:
        print(json.dumps(_to_json(rules, listed, catalogue), indent=2))
    else:
        _print_tools(rules, listed, catalogue)
    return DONE


# --- what is there ------------------------------------------------------------------------------


def _pins(settings: Settings, server: str, output: Path | None) -> PinFile:
    """Return what was approved; nothing where no file is named, or there is none yet."""
    named = settings.config.servers[server].pins
    file = output or (None if named is None else Path(named.file))
    if file is None or str(file) == "-":
        file = None if named is None else Path(named.file)
    if file is None:
        return PinFile(server)
    try:
        found = read_file(file)
    except FileNotFoundError:
        return PinFile(server)
    except WrongValueError as error:
        raise CommandError(f"{file}: {error.wrong}; {error.right}") from None
    if found.server != server:
        raise CommandError(f"{file}: it is the file of another server")
    return found


def _listed(settings: Settings, config: Path, server: str, state: Path | None) -> ToolList:
    """Return what a server says to us, else what the workers saw last."""
    trust = upstream_trust(settings.authorities, server)
    try:
        found = asyncio.run(list_tools(settings.config.servers[server], verify=trust))
    except ToolListError as error:
        fault = str(error)
    else:
        return found
    seen = asyncio.run(_seen(config, server, state))
    if not seen:
        raise OutOfReachError(f"{server} gives no list: {fault}, and no worker has seen any")
    last = max(each.seen for each in seen)
    when = shown_moment(last)
    print(f"authz: {server} gives us no list: {fault}; as seen until {when}:", file=sys.stderr)
    # Of a tool with several definitions lately all are shown: rules are judged by the strictest.
    lately = catalogue_of(seen)
    definitions = (
        each.definition for each in seen
        if each.definition.digest in lately.tools[each.definition.name].digests
    )  # fmt: skip
    return ToolList(tuple(sorted(definitions, key=lambda each: (each.name, each.digest))))


async def _seen(config: Path, server: str, state: Path | None) -> list[Sighting]:
    """Return what the workers of the deployment have seen; nothing where that cannot be read."""
    try:
        settings = load(config, os.environ)
        options = shared_redis(settings, os.environ, state or default_folder(config))
    except (ConfigError, SetupError, OSError):
        return []
    ledger = RedisLedger(options)
    try:
        store = RedisSightings(ledger.command, options.keys)
        return list(await store.read(server))
    except UnavailableError:
        return []
    finally:
        await ledger.aclose()


# --- the table ----------------------------------------------------------------------------------


def _states(server: Server, catalogue: Catalogue) -> Mapping[str, PinState]:
    if server.pins is None:
        return {}
    names = [
        *catalogue.tools,
        *(each for each in server.pins.digests if each not in catalogue.tools),
    ]
    return {name: pin_state(server.pins, catalogue, name) for name in names}


def _to_json(server: Server, listed: ToolList, catalogue: Catalogue) -> dict[str, object]:
    states = _states(server, catalogue)
    tools: list[dict[str, object]] = [
        {
            "name": name,
            "annotations": sorted(each.value for each in known.annotations),
            "rules": rules_of(server, name, catalogue),
            "offered": is_offered(server, name, catalogue),
            "approval": states[name].value if name in states else None,
            "definitions": [each.value for each in listed.definitions if each.name == name],
        }
        for name, known in catalogue.tools.items()
    ]
    gone = [name for name, state in states.items() if state is PinState.NOT_LISTED]
    return {
        "server": server.name,
        "pins": None if server.pins is None else server.pins.mode.value,
        "tools": tools,
        "unmatched_rules": unmatched_rules(server, catalogue),
        "unknown_arguments": [
            {"rule": each.rule, "member": each.member, "pointer": each.pointer, "tool": each.tool}
            for each in unknown_arguments(server, listed.definitions)
        ],
        "approved_but_not_listed": gone,
        "rejected": list(listed.rejected),
    }


def _print_tools(server: Server, listed: ToolList, catalogue: Catalogue) -> None:
    states = _states(server, catalogue)
    rows: list[tuple[str, ...]] = [("TOOL", "THE SERVER SAYS", "RULES", "APPROVAL")]
    for name, known in catalogue.tools.items():
        says = ", ".join(sorted(each.value for each in known.annotations)) or "-"
        met = ", ".join(rules_of(server, name, catalogue)) or "the server's alone"
        rules = met if is_offered(server, name, catalogue) else "not offered"
        approval = states[name].value.replace("_", " ") if name in states else "-"
        rows.append((shown_text(name), says, rules, approval))
    print_table(rows)
    for rule in unmatched_rules(server, catalogue):
        near = ", ".join(map(shown_text, nearest_tools(rule, catalogue.tools)))
        print(f"matches no tool: {rule}" + (f" (did you mean {near}?)" if near else ""))
    for each in unknown_arguments(server, listed.definitions):
        print(_described_argument(each))
    for name, state in states.items():
        if state is PinState.NOT_LISTED:
            print(f"approved, but not listed: {shown_text(name)}")
    for name, count in Counter(each.name for each in listed.definitions).items():
        if count > 1:
            print(f"listed {count} times: {shown_text(name)}")


def _described_argument(found: UnknownArgument) -> str:
    near = ", ".join(map(shown_text, found.near))
    meant = f" (did you mean {near}?)" if near else ""
    what = f"{found.member}: {found.pointer} of {found.rule}"
    return f"no argument of {shown_text(found.tool)}: {what}{meant}"


# --- differences --------------------------------------------------------------------------------


def _print_differences(pins: PinFile, listed: ToolList) -> int:
    """Print a unified difference of each tool; fail where there is any."""
    found: dict[str, list[ToolDefinition | None]] = {}
    for definition in listed.definitions:
        found.setdefault(definition.name, []).append(definition)
    different = False
    for name in sorted(pins.tools.keys() | found.keys()):
        approved = pins.tools.get(name)
        before = [] if approved is None else list(_lines(approved.value))
        for after in found.get(name, [None]):
            if after == approved:
                continue
            different = True
            now = [] if after is None else list(_lines(after.value))
            shown = shown_text(name)
            labels = f"approved {shown}", f"listed {shown}"
            for line in unified_diff(before, now, *labels, lineterm=""):
                print(line)
    return FAILED if different else DONE


def _lines(value: object, path: str = "") -> Iterator[str]:
    """Yield a definition as lines, each with its path; texts of several lines one by one."""
    if isinstance(value, dict) and value:
        for name in sorted(value):
            shown = name if name.isidentifier() and name.isascii() else json.dumps(name)
            yield from _lines(value[name], f"{path}.{shown}" if path else shown)
    elif isinstance(value, list) and value:
        for index, each in enumerate(value):
            yield from _lines(each, f"{path}[{index}]")
    elif isinstance(value, str) and "\n" in value:
        yield f"{path}:"
        yield from (f"  | {shown_text(line)}" for line in value.split("\n"))
    else:
        yield f"{path}: {json.dumps(value)}"


# --- approval -----------------------------------------------------------------------------------


def _approve(
    settings: Settings,
    server: str,
    pins: PinFile,
    listed: ToolList,
    *,
    only: tuple[str, ...],
    output: Path | None,
    by: str,
) -> int:
    """Write what is approved now."""
    named = settings.config.servers[server].pins
    file = output or (None if named is None else Path(named.file))
    if file is None:
        raise CommandError(f"write servers.{server}.pins: {{file: ...}}, or give --output FILE")
    who = by or os.environ.get("USER", "")
    if len(who) > _MAX_BY or not (who.isprintable() or not who):
        raise CommandError(f"--by takes up to {_MAX_BY} printable characters")
    chosen = _chosen(listed, only)
    at = shown_moment(int(time.time()))
    before = pins if only else replace(pins, tools={})
    made = approve(before, chosen, at, who)
    text = write_pins(made)
    if str(file) == "-":
        print(text, end="")
    else:
        _write(file, text)
    _print_summary(pins, made, file)
    print(_effect(server, named, file), file=sys.stderr)
    return DONE


def _effect(server: str, named: PinsConfig | None, file: Path) -> str:
    """Return when what was written counts."""
    if named is None:
        return f"it counts with servers.{server}.pins in authz.yaml"
    if str(file) == "-" or not _is_same(Path(named.file), file):
        return f"it counts once it is {named.file}, which authz.yaml names"
    told = "" if named.mode == PinMode.ENFORCE.value else "; pins are told, not enforced"
    return f"it counts within seconds, or with service.watch_config off at SIGHUP{told}"


def _is_same(one: Path, other: Path) -> bool:
    return one.absolute() == other.absolute() or (one.exists() and one.samefile(other))


def _chosen(listed: ToolList, only: tuple[str, ...]) -> list[ToolDefinition]:
    """Return what is approved: nothing that two would be taken for, and nothing unread.

    Raises:
        CommandError: where there is such a thing.
    """
    counts = Counter(each.name for each in listed.definitions)
    missing = [name for name in only if name not in counts]
    if missing:
        raise CommandError(f"it lists no {', '.join(map(shown_text, missing))}", FAILED)
    chosen = [each for each in listed.definitions if not only or each.name in only]
    for definition in chosen:
        if counts[definition.name] > 1:
            raise CommandError(f"it lists several {shown_text(definition.name)}", FAILED)
        if definition.is_stand_in:
            raise CommandError(f"too long to be approved: {shown_text(definition.name)}", FAILED)
    return chosen


def _write(file: Path, text: str) -> None:
    """Put a file in place of another one, whole."""
    if not file.parent.exists():
        if not file.parent.parent.is_dir():
            raise CommandError(f"there is no folder {file.parent}: make it first", FAILED)
        file.parent.mkdir()
        print(f"authz: made the folder {file.parent}", file=sys.stderr)
    write_atomically(file, text, READABLE)


def _print_summary(before: PinFile, after: PinFile, file: Path) -> None:
    was, now = before.digests, after.digests
    changes: Iterable[tuple[str, list[str]]] = (
        ("new", [name for name in now if name not in was]),
        ("changed", [name for name in now if name in was and was[name] != now[name]]),
        ("removed", [name for name in was if name not in now]),
    )
    print(f"approved {len(now)} tool(s) in {file}", file=sys.stderr)
    for words, names in changes:
        if names:
            print(f"  {words}: {', '.join(map(shown_text, names))}", file=sys.stderr)
