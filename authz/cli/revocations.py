"""`authz revocations`: what is taken back, and giving it back."""

import json
from typing import Final

import click

from authz.cli.common import DONE, LeafCommand, command_group, print_table
from authz.cli.revocation_commands import (
    DeploymentOptions,
    LedgerRequest,
    deployment_options,
    names_of_entry,
    note_options,
    record_in_trail,
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

    async def work(ledger: RedisLedger, request: LedgerRequest) -> Lifted:
        note = request.note(by, reason)
        done = await lift(ledger, ids, request.moment, note, restore=restore)
        for before, _ in done:
            await record_in_trail(request, "lift", before.id, note, **names_of_entry(before))
        return done

    done = run_on_ledger(deployment, work)
    if deployment.as_json:
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


def _row(entry: RevocationEntry) -> tuple[str, ...]:
    until = entry.revocation.until
    kept = "lifted" if until is None else shown_moment(until)
    note = entry.note
    when = shown_moment(note.at)
    return (shown_id(entry), shown_tokens(entry), kept, when, note.by, note.reason)
