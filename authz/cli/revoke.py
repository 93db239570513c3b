"""`authz revoke`: take tokens back, at once and on every worker."""

import json
import sys
from collections.abc import Iterator
from typing import Final, NamedTuple

import click

from authz.cli.common import DONE, FAILED, CommandError, command, read_token_file
from authz.cli.moments import read_issued_before
from authz.cli.revocation_commands import (
    UNREAD,
    DeploymentOptions,
    LedgerRequest,
    deployment_options,
    is_read,
    lifting,
    names_of_target,
    note_options,
    recorded,
    run_on_ledger,
    shown_moment,
    shown_text,
    shown_tokens,
)
from authz.cli.revocation_names import NamedTarget, NameResolver, describe_person
from authz.core.request import RefusedError
from authz.ledger import revocations
from authz.ledger.redis import RedisLedger
from authz.ledger.revocations import (
    CLOCK_MARGIN,
    MAX_LIFETIME,
    MAX_NAME,
    RevocationEntry,
)
from authz.login.protocol.people import KnownPerson
from authz.tokens.naming import name_token

_EXAMPLES: Final = """\
examples:
  authz revoke --token-file - --reason 'pasted into a chat' < token
  authz revoke --user ada --reason 'laptop stolen'
  authz revoke --user 71909b80-c6b2-4490-b157-a7cf10eb4136
  authz revoke --client claude --issued-before 2026-08-01T12:00:00Z
  authz revoke --grant 5Qx0aVbnJ2k8Yw3d --reason 'that assistant is not mine'
  authz revoke --everything --issued-before now
A token is never an argument: every user of a machine may read those. A user is found among the
log-ins at the front door (`authz clients` lists them) and in the audit trail: by the user name or
e-mail address that Authelia states, or by subject, as the decision log has it. A log-in at the
front door is named as the log's `grant`.
exit status: 0 revoked, 1 failed, 2 asked wrongly or several are called so, 3 nobody is called so
(nothing was changed; --force revokes that very name all the same)
"""
_MOMENT: Final = (
    "Take back what was issued up to then: now, seconds since the epoch, or ISO 8601 with its zone."
    " Without it a user's or a client's tokens are refused until that is lifted; for --everything"
    " it is now."
)


class _Whose(NamedTuple):
    """Say whose tokens are taken back: exactly one of these is given."""

    token_file: str | None
    user: str | None
    client: str | None
    grant: str | None
    everything: bool


@command("revoke", _EXAMPLES)
@click.option(
    "--token-file", metavar="FILE", help="One access token, from a file; - for standard input."
)
@click.option(
    "--user", metavar="WHO", help="A person's: user name, e-mail address or subject (`sub`)."
)
@click.option(
    "--client",
    metavar="CLIENT",
    help="A client's, whoever uses it: client_id, name, or id of `authz clients`.",
)
@click.option("--grant", metavar="ID", help="One log-in's at the front door, refreshed ones too.")
@click.option("--everything", is_flag=True, help="Everybody's.")
@click.option("--issued-before", metavar="MOMENT", help=_MOMENT)
@click.option("--force", is_flag=True, help="Also where nobody is known by that name.")
@deployment_options
@note_options
def run(
    *,
    deployment: DeploymentOptions,
    token_file: str | None,
    user: str | None,
    client: str | None,
    grant: str | None,
    everything: bool,
    issued_before: str | None,
    force: bool,
    by: str,
    reason: str,
) -> int:
    """Revoke, and say what survives."""
    whose = _Whose(token_file, user, client, grant, everything)
    if sum(each is not None and each is not False for each in whose) != 1:
        raise click.UsageError(
            "one of --token-file, --user, --client, --grant and --everything is needed"
        )

    async def work(ledger: RedisLedger, request: LedgerRequest) -> _Outcome:
        note, names = request.note(by, reason), NameResolver(ledger, request, force=force)
        named, issued_until, until = await _wanted(names, whose, issued_before)
        target = named.target
        what = target.field.decode("ascii", "backslashreplace")
        async with recorded(request, "revoke", what, note, **names_of_target(target)):
            entry = await revocations.revoke(ledger, target, issued_until, until, note)
        await revocations.list_revocations(ledger, request.now)  # so that what expired goes
        return await _outcome(names, whose, named, entry)

    outcome = run_on_ledger(deployment, work)
    survives = list(_survives(outcome.entry, outcome.request))
    if deployment.as_json:
        print(json.dumps(_to_json(outcome, survives), indent=2))
    else:
        _print(outcome, survives, deployment)
    for words in outcome.warnings:
        print(f"authz: {words}", file=sys.stderr)
    return DONE if outcome.is_in_force else FAILED


class _Outcome(NamedTuple):
    """What a revocation has come to.

    Attributes:
        named: whose tokens.
        entry: the record as it stands.
        is_in_force: whether Redis refuses such a token now, as a decision asks it.
        warnings: what may make it useless all the same.
        request: of the command.
    """

    named: NamedTarget
    entry: RevocationEntry
    is_in_force: bool
    warnings: tuple[str, ...]
    request: LedgerRequest


async def _outcome(
    names: NameResolver, whose: _Whose, named: NamedTarget, entry: RevocationEntry
) -> _Outcome:
    """Look at what a revocation has done."""
    moment = entry.revocation.issued_until
    issued_at = names.request.moment if moment is None else moment
    is_in_force = await revocations.is_in_force(names.ledger, entry.target, issued_at)
    warnings = list[str]()
    if not is_in_force:
        warnings.append("Redis lets such a token pass: another has changed the record meanwhile")
    if not named.is_known:
        warnings.append(
            "forced: nobody is known by that name, so that nothing which is known ended"
        )
    if whose.user is not None and named.person is not None:
        warnings += await _renamed(names, whose.user, named.person)
    if not await is_read(names.ledger, names.request):
        warnings.append(UNREAD.format(url=names.request.options.url))
    return _Outcome(named, entry, is_in_force, tuple(warnings), names.request)


async def _renamed(names: NameResolver, name: str, person: KnownPerson) -> Iterator[str]:
    """Yield a warning where the name has become another's while this command ran."""
    try:
        now = (await names.person(name)).person
    except CommandError:
        now = None
    same = now is not None and now.name == person.name
    return iter(() if same else (f"{shown_text(name)} names somebody else by now: look again",))


def _to_json(outcome: _Outcome, survives: list[str]) -> dict[str, object]:
    person = outcome.named.person
    return {
        "revoked": outcome.entry.to_json(),
        "person": None if person is None else person.to_json(),
        "log_ins": outcome.named.log_ins,
        "known": outcome.named.is_known,
        "in_force": outcome.is_in_force,
        "warnings": list(outcome.warnings),
        "survives": survives,
    }


def _print(outcome: _Outcome, survives: list[str], deployment: DeploymentOptions) -> None:
    entry, named = outcome.entry, outcome.named
    whose = shown_tokens(entry, named.description and f"all of {named.description}")
    done = "revoked, from the next request on" if outcome.is_in_force else "not revoked"
    print(f"{done}: {whose}")
    if named.log_ins:
        print(f"log-ins at the front door that this refuses: {named.log_ins}")
    print(f"undo it with: {lifting(entry)}{deployment.options()}")
    for words in survives:
        print(f"- {words}")


async def _wanted(
    names: NameResolver, whose: _Whose, issued_before: str | None
) -> tuple[NamedTarget, int | None, int | None]:
    """Return whose tokens, up to which moment, and how long the record is needed.

    Raises:
        CommandError: where the arguments make no sense, or name nobody.
    """
    request = names.request
    if whose.token_file is not None:
        if issued_before is not None:
            raise CommandError("--issued-before has no meaning for one token")
        return await _token(names, whose.token_file)
    given = issued_before or ("now" if whose.everything else None)
    moment = None if given is None else read_issued_before(given, request.moment)
    until = None if moment is None else moment + MAX_LIFETIME
    return await _target(names, whose), moment, until


async def _target(names: NameResolver, whose: _Whose) -> NamedTarget:
    if whose.user is not None:
        return await names.person(_name("--user", whose.user))
    if whose.client is not None:
        return await names.client(_name("--client", whose.client))
    if whose.grant is not None:
        return await names.grant(_name("--grant", whose.grant))
    return NamedTarget(revocations.everything_target(), "", None, 0, is_known=True)


def _name(option: str, name: str) -> str:
    """Return a name that a token can have (authz.tokens.claims)."""
    if not (0 < len(name) <= MAX_NAME and name.isprintable() and name == name.strip()):
        raise CommandError(f"{option}: no token has such a name")
    return name


async def _token(names: NameResolver, file: str) -> tuple[NamedTarget, int | None, int | None]:
    request, text = names.request, read_token_file(file).strip()
    try:
        token = name_token(text, request.settings.config.issuer.url)
    except RefusedError as refused:
        raise CommandError(
            f"--token-file: no access token that could pass here ({refused.detail})"
        ) from None
    # What an opaque token says is known to the issuer alone: it lives no longer than any may.
    until = request.moment + MAX_LIFETIME if token.expires_at is None else token.expires_at
    if until + CLOCK_MARGIN < request.now:
        raise CommandError("--token-file: the token has expired long ago, and is refused for that")
    person = await names.token(text)
    whose = "" if person is None else f"one token of {describe_person(person)}"
    target = revocations.token_target(token.token_id)
    # A token that the front door has not issued is known to the issuer alone.
    return NamedTarget(target, whose, person, 0, is_known=True), None, until


def _survives(entry: RevocationEntry, request: LedgerRequest) -> Iterator[str]:
    """Yield what this does not end, and what does."""
    config = request.settings.config
    seconds = int(config.gateway.max_stream)
    yield f"A stream that is open goes on for {seconds} s at most (gateway.max_stream)."
    moment = entry.revocation.issued_until
    if entry.kind == "token":
        until = shown_moment(entry.revocation.until)
        yield (
            f"The record is kept until {until}, when the token has expired: a signed one says so"
            " itself (unverified), an opaque one cannot live longer."
        )
        yield (
            "Its client may hold a refresh token at Authelia, and gets a new access token with it."
            " To stop that, revoke the user or the client."
        )
    elif moment is not None:
        yield (
            "A refresh token at Authelia gives a new access token, which passes. To stop that,"
            + (" revoke users or clients" if entry.kind == "everything" else " revoke")
            + " without --issued-before, or end the refresh tokens."
        )
        yield "Step-ups of log-ins up to that moment count no more."
    else:
        yield "New tokens are refused too, refreshed ones among them, until this is lifted."
        yield (
            "When it is lifted, what was issued until then stays refused and step-ups made until"
            " then stay void; but a refresh token at Authelia gives new tokens again."
        )
    if config.front_door is not None and entry.kind != "token":
        yield (
            "A log-in at the front door ends when its client comes to refresh, at Authelia too;"
            " `authz clients block` ends all of a client's at once."
        )
    yield (
        "Refresh tokens end at Authelia, where their client logs out of them (RFC 7009); Authelia"
        " has no command for it: its database has them in oauth2_refresh_token_session, by subject"
        " and client_id. A session at Authelia ends in its portal."
    )
