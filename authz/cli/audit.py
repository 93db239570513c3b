"""`authz audit`: what was decided, who did what, and whether the trail is whole."""

import asyncio
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from authz.audit.chain import TrailKeys
from authz.audit.query import (
    AuditFilter,
    as_json_line,
    as_text,
    matching_record,
    read_heads,
    read_json_line,
)
from authz.audit.record import ChainLink, InvalidRecordError
from authz.audit.store import TrailEntry, TrailStore
from authz.audit.trail import trail_keys
from authz.audit.verify import TrailFinding, TrailVerifier
from authz.cli.common import DONE, FAILED, FILE, command
from authz.cli.moments import read_since
from authz.cli.revocation_commands import (
    DeploymentOptions,
    LedgerRequest,
    deployment_options,
    run_on_ledger,
)
from authz.ledger.redis import RedisLedger

_EXAMPLES: Final = """\
examples:
  authz audit --person ada --since 2d
  authz audit --outcome deny --reason insufficient_scope --limit 200
  authz audit --tool delete_file --since 2026-11-01T00:00:00Z --json
  authz audit --follow
  authz audit --verify --log /var/log/authz.json
  authz audit --json --all --limit 0 > trail.jsonl; authz audit --verify --file trail.jsonl
exit status: 0 done (--verify: whole), 1 failed (--verify: something is wrong), 2 asked wrongly
"""
_TIMEOUT: Final = 10.0
_POLL: Final = 1.0
_MOST: Final = 100_000  # that are held to be printed in their order
_NONE: Final = ChainLink(-1, "")
_TOLD: Final = 50  # findings that are told one by one


@dataclass(frozen=True, slots=True)
class _Source:
    """Hold where records come from, and what is known beside them.

    Attributes:
        file: lines of `--json`; None for Redis.
        log: says where chains end; None for none.
        since: seconds since the epoch: of what the log said before, nothing need be left.
    """

    file: Path | None
    log: Path | None
    since: float


@command("audit", _EXAMPLES)
@click.option("--person", default="", metavar="WHO", help="The subject, or the account's name.")
@click.option("--client", default="", metavar="ID", help="The client, as rules name it.")
@click.option("--server", default="", metavar="NAME", help="The server.")
@click.option("--tool", default="", metavar="NAME", help="The tool.")
@click.option("--reason", default="", metavar="REASON", help="As docs/reasons.md names it.")
@click.option("--outcome", type=click.Choice(["allow", "deny"]), help="The verdict.")
@click.option("--request-id", default="", metavar="ID", help="One request.")
@click.option("--since", metavar="WHEN", help="A moment with its zone, or how long ago: 2d, 30m.")
@click.option("--until", metavar="WHEN", help="As --since.")
@click.option(
    "--limit",
    type=click.IntRange(0, _MOST),
    default=50,
    show_default=True,
    help="The latest so many; 0 for all, the oldest first.",
)
@click.option("--all", "every", is_flag=True, help="Also records that only serve --verify.")
@click.option("--follow", is_flag=True, help="Go on with what comes, until stopped.")
@click.option("--verify", is_flag=True, help="Say whether records were changed or removed.")
@click.option("--file", type=FILE, metavar="FILE", help="Read lines of --json in place of Redis.")
@click.option(
    "--log",
    type=FILE,
    metavar="FILE",
    help="With --verify: the log in JSON, whose events audit_head say where chains end.",
)
@deployment_options
def run(
    *,
    deployment: DeploymentOptions,
    person: str,
    client: str,
    server: str,
    tool: str,
    reason: str,
    outcome: str | None,
    request_id: str,
    since: str | None,
    until: str | None,
    limit: int,
    every: bool,
    follow: bool,
    verify: bool,
    file: Path | None,
    log: Path | None,
) -> int:
    """Query or verify."""
    now = time.time()
    wanted = AuditFilter(
        person=person,
        client=client,
        server=server,
        tool=tool,
        reason=reason,
        outcome=outcome or "",
        request_id=request_id,
        since=read_since("--since", since, now),
        until=read_since("--until", until, now),
        with_chains=every,
    )
    if log is not None and not verify:
        raise click.UsageError("--log is for --verify")
    if follow and (verify or file is not None):
        raise click.UsageError("--follow reads what comes, from Redis")
    if verify and wanted != AuditFilter(with_chains=every):
        raise click.UsageError("--verify looks at the whole trail: it takes no filter")

    async def work(ledger: RedisLedger, request: LedgerRequest) -> int:
        store = TrailStore(ledger.command, request.options.keys)
        if request.settings.config.audit.to == "off" and file is None:
            words = "authz.yaml has audit: {to: off}: nothing is recorded; this is from before"
            print(f"authz: {words}", file=sys.stderr)
        if verify:
            since = now - request.settings.config.audit.keep
            return await _verify(store, trail_keys(request.settings), _Source(file, log, since))
        if file is not None:
            return await _show(_reversed(file), wanted, limit, as_json=deployment.as_json)
        last = await _show_stored(store, wanted, limit, as_json=deployment.as_json)
        while follow:
            await asyncio.sleep(_POLL)
            last = await _show_new(store, wanted, last, as_json=deployment.as_json)
        return DONE

    return run_on_ledger(deployment, work, _TIMEOUT)


# --- query ---------------------------------------------------------------------------------------


async def _show_stored(store: TrailStore, wanted: AuditFilter, limit: int, *, as_json: bool) -> str:
    """Print what is asked for, and return the id of the latest entry, for --follow."""
    last = "0-0"
    async for entry in store.backwards():
        last = entry.id
        break
    if limit == 0:
        async for entry in store.forwards(wanted.since or 0.0):
            _print(wanted, entry, as_json=as_json)
    else:
        await _show(_recent(store, wanted), wanted, limit, as_json=as_json)
    return last


async def _recent(store: TrailStore, wanted: AuditFilter) -> AsyncIterator[TrailEntry]:
    async for entry in store.backwards():
        if wanted.since is not None and entry.written < wanted.since:
            return  # written before: what it tells of happened before, too
        yield entry


async def _show(
    newest_first: AsyncIterator[TrailEntry], wanted: AuditFilter, limit: int, *, as_json: bool
) -> int:
    """Print the latest that are asked for, the oldest first."""
    found = list[TrailEntry]()
    async for entry in newest_first:
        if matching_record(wanted, entry) is not None:
            found.append(entry)
            if len(found) == (limit or _MOST):
                break
    for entry in reversed(found):
        _print(wanted, entry, as_json=as_json)
    if not found:
        print("no such record", file=sys.stderr)
    return DONE


async def _show_new(store: TrailStore, wanted: AuditFilter, last: str, *, as_json: bool) -> str:
    async for entry in store.forwards(after=last):
        _print(wanted, entry, as_json=as_json)
        last = entry.id
    sys.stdout.flush()
    return last


def _print(wanted: AuditFilter, entry: TrailEntry, *, as_json: bool) -> None:
    record = matching_record(wanted, entry)
    if record is not None:
        print(as_json_line(entry) if as_json else as_text(record))


async def _reversed(file: Path) -> AsyncIterator[TrailEntry]:
    """Yield the last entries of a file, the latest first; memory is bounded, whatever it holds."""
    for entry in reversed(deque(_entries(file), _MOST)):
        yield entry


def _entries(file: Path) -> Iterator[TrailEntry]:
    with file.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                yield read_json_line(line)
            except InvalidRecordError:
                yield TrailEntry("", line.encode("utf-8", "replace"), "")


# --- verify --------------------------------------------------------------------------------------


async def _verify(store: TrailStore, keys: TrailKeys, source: _Source) -> int:
    """Verify all, and print what is wrong.

    The ends of the chains are read before, and what the bound removed after, so that a trail which
    is written and trimmed meanwhile is whole all the same.
    """
    heads = await store.heads()
    if source.log is not None and not _add_heads(heads, source.log, source.since):
        print(
            f"authz: {source.log} has no event audit_head: it must be the log in JSON, one object a"
            " line (telemetry.log: json; docker compose logs --no-log-prefix)",
            file=sys.stderr,
        )
        return FAILED
    verifier = TrailVerifier(keys, heads)
    findings = _Findings()
    if source.file is None:
        async for entry in store.forwards():
            findings.add(verifier.add(entry.id, entry.text, entry.mac))
    else:
        for entry in _entries(source.file):
            findings.add(verifier.add(entry.id, entry.text, entry.mac))
    floors = await store.floors(keys)
    findings.add(verifier.finish(floors))
    report = verifier.report(floors)
    print(
        f"{report.records} records in {report.chains} chains; {report.trimmed} removed by the"
        f" bound, {report.lost} never written, {report.open} chains without an end (their process"
        " runs, or was killed)"
    )
    if not keys.secret:
        print(
            "authz: there is no sealing key: this shows damage, but not what somebody forged",
            file=sys.stderr,
        )
    if findings.count:
        print(f"{findings.count} finding(s): the trail is not whole")
        return FAILED
    print("the trail is whole" + ("" if source.log else ", as far as Redis itself says: see --log"))
    return DONE


class _Findings:
    """Print findings, the first ones in full, and count them all."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, found: Iterator[TrailFinding]) -> None:
        """Take more."""
        for each in found:
            self.count += 1
            if self.count <= _TOLD:
                print(_described(each))


def _described(finding: TrailFinding) -> str:
    """Return a finding for a terminal; the name of a chain may be anybody's."""
    chain = finding.chain if finding.chain.isalnum() and finding.chain.isascii() else "?"
    where = f" at {finding.id}" if finding.id else ""
    many = f" and {finding.count - 1} more" if finding.count > 1 else ""
    return f"{finding.fault.value}: chain {chain}, record {finding.number}{many}{where}"


def _add_heads(heads: dict[str, ChainLink], log: Path, since: float) -> int:
    """Take the later end of each chain; return how many ends the log has, of any time."""
    count = 0
    with log.open(encoding="utf-8", errors="replace") as lines:
        for said in read_heads(iter(lines)):
            count += 1
            if said.time >= since and said.link.number > heads.get(said.chain, _NONE).number:
                heads[said.chain] = said.link
    return count
