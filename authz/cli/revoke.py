"""`authz revoke`: take tokens back, at once and on every worker."""

import json
import sys
from collections.abc import Iterator
from typing import Final, NamedTuple

import click

from authz.cli.common import DONE, CommandError, command, read_token_file
from authz.cli.revocation_commands import (
    DeploymentOptions,
    LedgerRequest,
    deployment_options,
    lifting,
    names_of_entry,
    note_options,
    read_moment,
    record_in_trail,
    run_on_ledger,
    shown_moment,
    shown_tokens,
)
from authz.core.principal import Client, Person
from authz.core.request import RefusedError
from authz.ledger import revocations
from authz.ledger.redis import RedisLedger
from authz.ledger.revocations import (
    CLOCK_MARGIN,
    MAX_LIFETIME,
    MAX_NAME,
    RevocationEntry,
    RevocationTarget,
)
from authz.tokens.naming import name_token

_EXAMPLES: Final = """\
examples:
  authz revoke --token-file - --reason 'pasted into a chat' < token
  authz revoke --user 71909b80-c6b2-4490-b157-a7cf10eb4136 --reason 'laptop stolen'
  authz revoke --client claude --issued-before 2026-08-01T12:00:00Z
  authz revoke --grant 5Qx0aVbnJ2k8Yw3d --reason 'that assistant is not mine'
  authz revoke --everything --issued-before now
A token is never an argument: every user of a machine may read those. A user is named as tokens and
the decision log name it, by `sub`; `authelia storage user identifiers export` tells whose it is. A
log-in at the front door is named as the log's `grant`.
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
@click.option("--user", metavar="SUBJECT", help="A person's, by `sub`.")
@click.option("--client", metavar="CLIENT_ID", help="A client's, whoever uses it.")
@click.option("--grant", metavar="ID", help="One log-in's at the front door, refreshed ones too.")
@click.option("--everything", is_flag=True, help="Everybody's.")
@click.option("--issued-before", metavar="MOMENT", help=_MOMENT)
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
    by: str,
    reason: str,
) -> int:
    """Revoke, and say what survives."""
    whose = _Whose(token_file, user, client, grant, everything)
    if sum(each is not None and each is not False for each in whose) != 1:
        raise click.UsageError(
            "one of --token-file, --user, --client, --grant and --everything is needed"
        )

    async def work(
        ledger: RedisLedger, request: LedgerRequest
    ) -> tuple[RevocationEntry, list[str]]:
        target, issued_until, until = _wanted(whose, issued_before, request)
        note = request.note(by, reason)
        entry = await revocations.revoke(ledger, target, issued_until, until, note)
        await revocations.list_revocations(ledger, request.now)  # so that what expired goes
        await record_in_trail(request, "revoke", entry.id, note, **names_of_entry(entry))
        return entry, list(_survives(entry, request))

    entry, survives = run_on_ledger(deployment, work)
    if deployment.as_json:
        print(json.dumps({"revoked": entry.to_json(), "survives": survives}, indent=2))
        return DONE
    print(f"revoked, from the next request on: {shown_tokens(entry)}")
    print(f"undo it with: {lifting(entry)}{deployment.options()}")
    for words in survives:
        print(f"- {words}")
    return DONE


def _wanted(
    whose: _Whose, issued_before: str | None, request: LedgerRequest
) -> tuple[RevocationTarget, int | None, int | None]:
    """Return whose tokens, up to which moment, and how long the record is needed.

    Raises:
        CommandError: where the arguments make no sense.
    """
    if whose.token_file is not None:
        if issued_before is not None:
            raise CommandError("--issued-before has no meaning for one token")
        return _token(whose.token_file, request)
    given = issued_before or ("now" if whose.everything else None)
    moment = None if given is None else read_moment(given, request.moment)
    until = None if moment is None else moment + MAX_LIFETIME
    return _target(whose, request), moment, until


def _target(whose: _Whose, request: LedgerRequest) -> RevocationTarget:
    issuer = request.settings.config.issuer.url
    if whose.everything:
        return revocations.everything_target()
    if whose.user is not None:
        return revocations.person_target(Person(issuer, _name("--user", whose.user)))
    if whose.grant is not None:
        return revocations.grant_target(issuer, _name("--grant", whose.grant))
    client_id = _name("--client", whose.client or "")
    known = request.settings.config.named
    strangers = request.settings.config.strangers is not None
    if known and client_id not in known and not strangers:
        print("authz: authz.yaml names no such client, and refuses it anyway", file=sys.stderr)
    return revocations.client_target(Client(issuer, client_id))


def _name(option: str, name: str) -> str:
    """Return a name that a token can have (authz.tokens.claims)."""
    if not (0 < len(name) <= MAX_NAME and name.isprintable() and name == name.strip()):
        raise CommandError(f"{option}: no token has such a name")
    return name


def _token(file: str, request: LedgerRequest) -> tuple[RevocationTarget, int | None, int | None]:
    try:
        named = name_token(read_token_file(file).strip(), request.settings.config.issuer.url)
    except RefusedError as refused:
        raise CommandError(
            f"--token-file: no access token that could pass here ({refused.detail})"
        ) from None
    # What an opaque token says is known to the issuer alone: it lives no longer than any may.
    until = request.moment + MAX_LIFETIME if named.expires_at is None else named.expires_at
    if until + CLOCK_MARGIN < request.now:
        raise CommandError("--token-file: the token has expired long ago, and is refused for that")
    return revocations.token_target(named.token_id), None, until


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
