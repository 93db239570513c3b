"""`authz limits`: who has used how much of which limit, and the reset of one."""

import json
from typing import Final

import click

from authz.audit.store import TrailStore
from authz.cli.common import DONE, FAILED, CommandError, LeafCommand, command_group, print_table
from authz.cli.login_stores import login_stores
from authz.cli.revocation_commands import (
    DeploymentOptions,
    LedgerRequest,
    deployment_options,
    note_options,
    recorded,
    run_on_ledger,
    shown_text,
)
from authz.ledger.limit_usage import LimitUse, read_usage, reset_limit
from authz.ledger.redis import RedisLedger
from authz.login.store.callers import recent_callers

_EXAMPLES: Final = """\
examples:
  authz limits
  authz limits --person ada
  authz limits --json
  authz limits reset 4f1e0c77a2b9 --reason 'a loop that has ended'
Who may have used a limit is known by the last 2,000 records of the audit trail and by who is logged
in at the front door; limits by address and by claim are not listed, of those by group the groups
that rules and overrides name. An id may be cut where no other begins so.
exit status: 0 done, 1 there is no such limit in use or Redis does not answer,
2 asked wrongly
"""
_HEAD: Final = ("ID", "PERSON", "CLIENT", "ON", "USED", "OF", "BACK IN")
_SHORT: Final = 12
_SHORTEST: Final = 6  # characters of an id
_TIMEOUT: Final = 5.0


@command_group("limits", _EXAMPLES, "reset")
@click.option("--person", default="", metavar="WHO", help="The subject, or the account's name.")
@deployment_options
def run(*, deployment: DeploymentOptions, person: str) -> int:
    """List."""
    found = run_on_ledger(deployment, _used, _TIMEOUT)
    if person:
        found = tuple(
            each
            for each in found
            if person == each.subject or person.casefold() == each.person.casefold()
        )
    if deployment.as_json:
        print(json.dumps([each.to_json() for each in found], indent=2))
    elif found:
        print_table([_HEAD, *map(_row, found)])
        print("\nReset one: authz limits reset ID")
    else:
        print("nobody has used any of a limit lately")
    return DONE


@run.command("reset", cls=LeafCommand, help="Forget what a limit has counted.")
@click.argument("wanted", metavar="ID")
@deployment_options
@note_options
def run_reset(*, deployment: DeploymentOptions, wanted: str, by: str, reason: str) -> int:
    """Reset one."""

    async def work(ledger: RedisLedger, request: LedgerRequest) -> LimitUse | None:
        note = request.note(by, reason)
        use = _named(wanted, await _used(ledger, request))
        keys = request.options.keys
        if use is None:
            return None
        what, names = f"{use.limit.name} {use.id}", {"subject": use.subject}
        async with recorded(
            request, "reset_limit", what, note, client_id=use.client, **names
        ) as effect:
            effect.happened = await reset_limit(ledger.command, keys, use.id)
        return use if effect.happened else None

    use = run_on_ledger(deployment, work, _TIMEOUT)
    if deployment.as_json:
        print(json.dumps({"reset": None if use is None else use.to_json()}))
    elif use is None:
        print("nothing is counted under that id")
    else:
        print(f"reset {use.id[:_SHORT]}: the whole quota of {use.limit.quota} is there again")
    return FAILED if use is None else DONE


async def _used(ledger: RedisLedger, request: LedgerRequest) -> tuple[LimitUse, ...]:
    stores, policy = login_stores(ledger, request), request.settings.policy
    keys = request.options.keys
    callers = await recent_callers(
        policy,
        TrailStore(ledger.command, keys),
        None if stores is None else stores.grants,
        None if stores is None else stores.people,
    )
    issuer = request.settings.config.issuer.url
    return await read_usage(ledger.command, keys, policy, issuer, callers)


def _named(wanted: str, found: tuple[LimitUse, ...]) -> LimitUse | None:
    """Return the one that an id means; None for none.

    Raises:
        CommandError: where it is too short, or several begin so.
    """
    if len(wanted) < _SHORTEST:
        raise CommandError(f"an id has {_SHORTEST} characters at least")
    named = [each for each in found if each.id.startswith(wanted)]
    if len(named) > 1:
        raise CommandError("several begin so: give more of it")
    return named[0] if named else None


def _row(use: LimitUse) -> tuple[str, ...]:
    return (
        use.id[:_SHORT],
        shown_text(use.person) or (shown_text(use.whose) if not use.client else "-"),
        shown_text(use.client) or "-",
        shown_text(use.limit.place) or "every server",
        str(use.used),
        f"{use.limit.quota} in {_window(use)}{', shadow' if use.limit.shadow else ''}",
        f"{use.reset} s",
    )


def _window(use: LimitUse) -> str:
    calendar = use.limit.calendar
    return f"{use.limit.window} s" if calendar is None else f"a {calendar}"
