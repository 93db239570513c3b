"""`authz connections`: where each connection of a client stopped, as the logs tell it."""

import json
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Final

import click

from authz.cli.common import (
    DONE,
    FAILED,
    FILE,
    CommandError,
    command,
    describe_os_error,
    print_table,
)
from authz.cli.log_services import service_option, warn_of_writers
from authz.cli.moments import read_since
from authz.cli.revocation_commands import (
    DeploymentOptions,
    LedgerRequest,
    deployment_options,
    run_on_ledger,
    shown_text,
)
from authz.cli.revocation_names import NamedTarget, NameResolver
from authz.core.limits import network
from authz.ledger.redis import RedisLedger
from authz.process.output import printable
from authz.telemetry.connection_advice import advise
from authz.telemetry.connection_events import OK, ConnectionEvent, Stage, read_event
from authz.telemetry.connections import Connections, Story
from authz.telemetry.log_reader import LoggedLine, bounded_lines, read_line
from authz.telemetry.log_writers import LineTrust

_EXAMPLES: Final = """\
examples:
  docker compose logs --since 2h | authz connections
  docker compose logs --since 2h | authz connections --client claude
  docker compose logs --since 2h | authz connections --person ada -c deploy
  docker compose logs --since 2h | authz connections 3f1c09a77be2d410
  kubectl logs --prefix --since=2h -l app=authz | authz connections --json
  authz connections --log authz.log --log pages.log --log envoy.log --since 1d
A person is named by subject, as the logs have it; by user name or e-mail address where authz.yaml
(-c) leads to the Redis that knows them, as for `authz revoke`.
Give the logs of authz serve, authz pages and Envoy together: each knows a part. What is tied by the
address alone is marked with ?: people behind one address, and an assistant's servers, share it.
exit status: 0 found, 1 nothing found, 2 asked wrongly or several are called so, 3 nobody is
called so
"""
_GRANT: Final = re.compile(rb'\\?"grant\\?": ?\\?"([0-9a-f]{1,64})')
# What a line of interest has; a log has many others, and parsing costs.
_MARKS: Final = (b"log_in", b"page", b"metadata", b"no-document", b"deny")
_NO_LOGS: Final = (
    "give the logs: `docker compose logs --since 2h | authz connections`, `kubectl logs …`, "
    "`journalctl -u authz …`, or --log FILE, once for each"
)


@command("connections", _EXAMPLES)
@click.argument("story", required=False, metavar="[ID]")
@click.option(
    "--log",
    "logs",
    type=FILE,
    metavar="FILE",
    multiple=True,
    help="A log of authz, its pages or Envoy, as JSON; - for standard input.",
)
@service_option
@click.option("--since", metavar="WHEN", help="A moment with its zone, or how long ago: 2h, 1d.")
@click.option("--client", default="", metavar="TEXT", help="In the client's name.")
@click.option("--address", default="", metavar="IP", help="That took part.")
@click.option(
    "--person",
    default="",
    metavar="WHO",
    help="Whose calls were seen: subject (`sub`), user name or e-mail address.",
)
@click.option("--stopped", is_flag=True, help="Only those that did not get through.")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="The latest."
)
@deployment_options
def run(
    *,
    deployment: DeploymentOptions,
    story: str | None,
    logs: tuple[Path, ...],
    services: tuple[str, ...],
    since: str | None,
    client: str,
    address: str,
    person: str,
    stopped: bool,
    limit: int,
) -> int:
    """List connections, or tell one."""
    as_json = deployment.as_json
    begin = read_since("--since", since, time.time()) or 0.0
    trust = LineTrust(frozenset(services))
    found = _read(logs, begin, trust)
    warn_of_writers(trust, logs)
    subject = _subject(person, found, deployment) if person else ""
    stories = [
        each
        for each in found.stories()
        if (story is None or each.id == story)
        and client.lower() in each.client.lower()
        and (not address or network(address) in each.networks)
        and (not subject or each.subject == subject)
        and not (stopped and _is_connected(each))
    ][-limit:]
    if as_json:
        told = {"connections": [_as_json(each) for each in stories], "left_out": found.left_out}
        print(json.dumps(told, indent=2))
    elif story is not None:
        for each in stories:
            _print_story(each)
    else:
        _print_list(stories)
    if found.left_out and not as_json:
        print(f"{found.left_out} older ones were left out: --since bounds what is read")
    if not stories and not as_json:
        print("no connection in these logs", file=sys.stderr)
    return DONE if stories else FAILED


def _subject(who: str, found: Connections, deployment: DeploymentOptions) -> str:
    """Return the subject of a person; what is one in the logs is taken as it is.

    So nobody is taken for the person whose subject a user name repeats.

    Raises:
        CommandError: where several people are called so, nobody is, or Redis does not answer.
    """
    if any(each.subject == who for each in found.stories()) or not deployment.config.exists():
        return who

    async def work(ledger: RedisLedger, request: LedgerRequest) -> NamedTarget:
        names = NameResolver(
            ledger, request, force=False, option="--person", outcome="none is shown", forcing=""
        )
        return await names.person(who)

    named = run_on_ledger(deployment, work)
    if named.person is None or not named.person.subject:
        raise CommandError(f"--person: the subject of {shown_text(who)} is not known any more")
    return named.person.subject


def _read(logs: Sequence[Path], begin: float, trust: LineTrust) -> Connections:
    """Return the stories of logs.

    Raises:
        CommandError: where one cannot be read, or there is none.
    """
    if not logs and sys.stdin.isatty():
        raise CommandError(_NO_LOGS)
    try:
        with ExitStack() as stack:
            streams = [
                sys.stdin.buffer if str(log) == "-" else stack.enter_context(log.open("rb"))
                for log in logs or (Path("-"),)
            ]
            lines = chain.from_iterable(map(bounded_lines, streams))
            return collect(lines, begin, trust.takes)
    except OSError as error:
        raise CommandError(describe_os_error(error)) from None


def collect(
    lines: Iterable[bytes], begin: float, takes: Callable[[LoggedLine], bool] = lambda _: True
) -> Connections:
    """Return the stories of lines, in any order: collectors print one container after the other.

    Args:
        lines: of logs; the latest million of their events is held, to be sorted by time.
        begin: seconds since the epoch; what was before is left out.
        takes: tells whether a line counts.
    """
    found = Connections()
    for event in sorted(_latest(_events(lines, begin, takes)), key=lambda event: event.time):
        if event.stage is not Stage.CALL or found.wants_calls(event.grant):
            found.add(event)
    return found


_HELD: Final = 1_000_000


def _latest(events: Iterator[ConnectionEvent]) -> list[ConnectionEvent]:
    held = list[ConnectionEvent]()
    for event in events:
        held.append(event)
        if len(held) >= 2 * _HELD:
            held = sorted(held, key=lambda each: each.time)[_HELD:]
    return held


def _events(
    lines: Iterable[bytes], begin: float, takes: Callable[[LoggedLine], bool]
) -> Iterator[ConnectionEvent]:
    allowed = set[bytes]()  # grants under which a call was allowed: further ones are no news
    for line in lines:
        called = None
        if not any(mark in line for mark in _MARKS):
            grant = _GRANT.search(line)
            if grant is None or grant[1] in allowed:
                continue
            called = grant[1]
        try:
            found = read_line(line)
        except ValueError:
            continue
        event = read_event(found)
        if event is None or event.time < begin or not takes(found):
            continue
        if called is not None and event.outcome == OK and len(allowed) < _HELD:
            allowed.add(called)
        yield event


def _is_connected(story: Story) -> bool:
    return any(event.stage is Stage.CALL and event.outcome == OK for event in story.events)


def _status(story: Story) -> str:
    reached = story.reached()
    if _is_connected(story) and reached.outcome == OK:
        return "connected"
    place = "page" if reached.is_page else reached.stage.name.lower()
    return f"stopped: {place}" + ("" if reached.outcome == OK else f" {_text(reached.outcome)}")


def _text(value: str) -> str:
    """Return a value of a log as it can stand in a line: a caller may have chosen it."""
    return printable(value)


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _print_list(stories: Sequence[Story]) -> None:
    if not stories:
        return
    rows = [("WHEN", "ID", "CLIENT", "SERVER", "FROM", "STATUS")]
    rows += [
        (
            _clock(story.last),
            story.id,
            _text(story.client) or "?",
            _text(story.server) or "?",
            " ".join(map(_text, story.networks[:3])),
            _status(story),
        )
        for story in stories
    ]
    print_table(rows)


def _print_story(story: Story) -> None:
    print(f"{_text(story.id)}: {_status(story)}")
    for label, value in (
        ("client", story.client),
        ("server", story.server),
        ("person", story.subject),
        ("grant", story.grant),
    ):
        print(f"  {label:<8}{_text(value) or 'not known from these logs'}")
    for event in sorted(story.events, key=lambda each: each.time):
        guess = "?" if event.stage in story.guessed else " "
        stage = "page" if event.is_page else event.stage.name.lower()
        more = story.repeated[event.stage, event.outcome]
        words = [event.outcome, event.detail, f"from {event.network}" if event.network else ""]
        words += [f"and {more} more like it" if more else ""]
        request = f"  request {_text(event.request_id)}" if event.request_id else ""
        shown = "  ".join(_text(word) for word in words if word)
        print(f"{guess} {_clock(event.time)}  {stage:<10}{shown}{request}")
    advice = advise(story.reached())
    print(f"  what was missing: {_text(advice.missing)}")
    print(f"  what to do:       {_text(advice.fix)}")
    if story.guessed:
        print("  ? tied by the address alone: it may be of somebody else behind it")


def _as_json(story: Story) -> Mapping[str, object]:
    advice = advise(story.reached())
    return {
        "id": story.id,
        "status": "connected" if _status(story) == "connected" else "stopped",
        "stage": story.reached().stage.name.lower(),
        "outcome": story.reached().outcome,
        "client": story.client,
        "server": story.server,
        "person": story.subject,
        "grant": story.grant,
        "networks": story.networks,
        "began": story.began,
        "last": story.last,
        "missing": advice.missing,
        "fix": advice.fix,
        "events": [
            {
                "time": event.time,
                "stage": "page" if event.is_page else event.stage.name.lower(),
                "outcome": event.outcome,
                "detail": event.detail,
                "network": event.network,
                "request_id": event.request_id,
                "guessed": event.stage in story.guessed,
            }
            for event in story.events
        ],
    }
