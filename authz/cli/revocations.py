"""`authz revocations`: what is taken back, and giving it back."""

import json
import shlex
from collections.abc import Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final, NamedTuple

import click

from authz.cli.common import DONE, LeafCommand, command_group, print_table
from authz.cli.login_stores import login_stores
from authz.cli.revocation_commands import (
    DeploymentOptions,
    LedgerRequest,
    deployment_options,
    names_of_target,
    note_options,
    recorded,
    run_on_ledger,
    shown_id,
    shown_moment,
    shown_tokens,
)
from authz.ledger.keys import EVERYTHING
from authz.ledger.redis import RedisLedger
from authz.ledger.revocations import RevocationEntry, lift, list_revocations

_EXAMPLES: Final = """\
examples:
  authz revocations
  authz revocations --json
  authz revocations lift person:4f1e0c77a2b9
  authz revocations lift token:9c1d0a --restore
An id may be cut where no other begins like it.
"""
_LIFTING: Final = """\
Lifting a person or a client lets new log-ins pass. Tokens issued until then stay refused, and
step-ups made until then stay void: they may be in a thief's hands. --restore removes the record,
and what it took back passes again, as far as it has not expired. A token's record is always
removed.
"""
_HEAD: Final = ("ID", "TOKENS", "KEPT UNTIL", "WHEN", "BY", "WHY")


class _Lifted(NamedTuple):
    """What a lift has come to.

    Attributes:
        before: what was lifted.
        left: what is left of it; None for nothing.
        notes: why what it refused does not pass all the same.
    """

    before: RevocationEntry
    left: RevocationEntry | None
    notes: tuple[str, ...]


@command_group("revocations", _EXAMPLES, "lift")
@deployment_options
def run(*, deployment: DeploymentOptions) -> int:
    """List."""

    async def work(ledger: RedisLedger, request: LedgerRequest) -> tuple[RevocationEntry, ...]:
        return await list_revocations(ledger, request.now)

    found = run_on_ledger(deployment, work)
    if deployment.as_json:
        print(json.dumps([entry.to_json() for entry in found], indent=2))
    elif found:
        print_table([_HEAD, *map(_row, found)])
        print("\nLift one: authz revocations lift ID [--restore]")
    else:
        print("nothing is revoked")
    return DONE


@run.command("lift", cls=LeafCommand, help="Lift revocations.", epilog=_LIFTING)
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@click.option("--restore", is_flag=True, help="Let what was taken back pass again.")
@deployment_options
@note_options
def run_lift(
    *, deployment: DeploymentOptions, ids: tuple[str, ...], restore: bool, by: str, reason: str
) -> int:
    """Lift what is named, all or nothing."""

    async def work(ledger: RedisLedger, request: LedgerRequest) -> list[_Lifted]:
        note = request.note(by, reason)

        def in_trail(entry: RevocationEntry) -> AbstractAsyncContextManager[object]:
            return recorded(request, "lift", entry.id, note, **names_of_target(entry.target))

        done = await lift(ledger, ids, request.moment, note, restore=restore, around=in_trail)
        obstacles = await _Obstacles.read(ledger, request)
        return [_Lifted(before, left, tuple(obstacles.of(before))) for before, left in done]

    done = run_on_ledger(deployment, work)
    if deployment.as_json:
        answer = [
            {
                "lifted": each.before.to_json(),
                "left": None if each.left is None else each.left.to_json(),
                "still_refused": list(each.notes),
            }
            for each in done
        ]
        print(json.dumps(answer, indent=2))
        return DONE
    for each in done:
        print(f"lifted {shown_id(each.before)}: {shown_tokens(each.before)}")
        if each.left is not None:
            passes = "new log-ins pass; still" if not each.notes else "Still"
            print(f"  {passes} revoked: {shown_tokens(each.left)}")
        for words in each.notes:
            print(f"  but {words}")
    return DONE


@dataclass(frozen=True, slots=True)
class _Obstacles:
    """What else refuses that which a lift is to let pass.

    Attributes:
        entries: the revocations that stand.
        blocks: what is blocked at the front door.
        grants: the ids of log-ins there; None where there is no front door.
    """

    entries: Mapping[str, RevocationEntry]
    blocks: frozenset[str]
    grants: frozenset[str] | None

    @classmethod
    async def read(cls, ledger: RedisLedger, request: LedgerRequest) -> "_Obstacles":
        """Read them, after the lift."""
        entries = {each.id: each for each in await list_revocations(ledger, request.now)}
        stores = login_stores(ledger, request)
        if stores is None:
            return cls(entries, frozenset(), None)
        blocks = frozenset({each.what for each in await stores.blocks.all()})
        grants = frozenset({grant.id async for _, grant in stores.grants.all_grants()})
        return cls(entries, blocks, grants)

    def of(self, lifted: RevocationEntry) -> Iterator[str]:
        """Yield what still refuses the tokens of an entry that was lifted."""
        name = lifted.target.name
        if lifted.kind == "grant" and self.grants is not None and name not in self.grants:
            yield "that log-in has ended and does not come back: its client logs in again"
        if lifted.kind == "client" and name in self.blocks:
            yield f"the client is blocked: authz clients unblock {shlex.quote(name)}"
        everything = self.entries.get(EVERYTHING.decode())
        if everything is not None and lifted.kind != "everything":
            yield f"this stays revoked: {shown_tokens(everything)} ({shown_id(everything)})"


def _row(entry: RevocationEntry) -> tuple[str, ...]:
    until = entry.revocation.until
    kept = "lifted" if until is None else shown_moment(until)
    note = entry.note
    when = shown_moment(note.at)
    return (shown_id(entry), shown_tokens(entry), kept, when, note.by, note.reason)
