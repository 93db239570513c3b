"""`authz revocations`: what is taken back, and giving it back."""

import argparse
import json
import time
from collections.abc import Sequence
from typing import Final

from authz.cli.common import DONE, command
from authz.cli.revocation_commands import (
    LedgerRequest,
    place_options,
    remark_options,
    run_on_ledger,
    shown_id,
    shown_moment,
    shown_tokens,
)
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

Lifted = tuple[tuple[RevocationEntry, RevocationEntry | None], ...]


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    words = "list what was taken back, and lift it"
    parser = command(commands, "revocations", words, run, _EXAMPLES)
    place_options(parser)
    actions = parser.add_subparsers(metavar="lift")
    lifting = command(actions, "lift", "lift revocations", run_lift, _LIFTING)
    lifting.add_argument("ids", nargs="+", metavar="ID", help="as listed")
    lifting.add_argument(
        "--restore", action="store_true", help="let what was taken back pass again"
    )
    place_options(lifting, inner=True)
    remark_options(lifting)


def run(arguments: argparse.Namespace) -> int:
    """List."""

    async def work(ledger: RedisLedger, request: LedgerRequest) -> tuple[RevocationEntry, ...]:
        return await list_revocations(ledger, request.now)

    found = run_on_ledger(arguments, time.time(), work)
    if isinstance(found, int):
        return found
    if arguments.json:
        print(json.dumps([entry.to_json() for entry in found], indent=2))
    elif found:
        _print_table(found)
        print("\nLift one: authz revocations lift ID [--restore]")
    else:
        print("nothing is revoked")
    return DONE


def run_lift(arguments: argparse.Namespace) -> int:
    """Lift what is named, all or nothing."""

    async def work(ledger: RedisLedger, request: LedgerRequest) -> Lifted:
        return await lift(
            ledger, arguments.ids, request.moment, request.note(), restore=arguments.restore
        )

    done = run_on_ledger(arguments, time.time(), work)
    if isinstance(done, int):
        return done
    if arguments.json:
        answer = [
            {"lifted": before.to_json(), "left": None if left is None else left.to_json()}
            for before, left in done
        ]
        print(json.dumps(answer, indent=2))
        return DONE
    for before, left in done:
        print(f"lifted {shown_id(before)}: {shown_tokens(before)}")
        if left is not None:
            print(f"  new log-ins pass; still revoked: {shown_tokens(left)}")
    return DONE


def _print_table(found: Sequence[RevocationEntry]) -> None:
    rows = [_HEAD, *(_row(entry) for entry in found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())


def _row(entry: RevocationEntry) -> tuple[str, ...]:
    until = entry.revocation.until
    kept = "lifted" if until is None else shown_moment(until)
    note = entry.note
    when = shown_moment(note.at)
    return (shown_id(entry), shown_tokens(entry), kept, when, note.by, note.reason)
