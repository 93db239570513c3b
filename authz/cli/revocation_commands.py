"""What `revoke`, `revocations` and `clients` share: their options, the ledger, moments, texts.

Invariant: no token is printed, and nothing of a record reaches a terminal unescaped
(authz.ledger.revocations, tests/cli/test_revocation_commands.py).
"""

import asyncio
import json
import os
import shlex
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import click

from authz.audit.query import format_moment
from authz.audit.record import Fields
from authz.audit.store import LostRecordsError
from authz.audit.trail import record_operator
from authz.cli.common import (
    AUTHZ_YAML,
    FILE,
    CommandError,
    F,
    OutOfReachError,
    config_option,
    json_option,
    keep_config,
)
from authz.config.load import Settings, load
from authz.config.location import find_configuration
from authz.core.ledger import UnavailableError
from authz.ledger.faults import ReplyError, fault_of
from authz.ledger.readers import QUIET, seconds_since_reading
from authz.ledger.redis import RedisLedger, RedisOptions
from authz.ledger.remedies import remedy
from authz.ledger.revocations import (
    MAX_BY,
    MAX_REASON,
    NotLiftedError,
    RevocationEntry,
    RevocationNote,
    RevocationTarget,
)
from authz.local.redis_location import shared_redis
from authz.local.state import SetupError, default_folder

T = TypeVar("T")
_DIGEST: Final = 12  # characters of an id in the table: enough to tell one from another


@dataclass(frozen=True, slots=True)
class DeploymentOptions:
    """Tell which ledger is meant, and how to print.

    Attributes:
        config: authz.yaml.
        state: of `authz up`; None for the one beside authz.yaml.
        as_json: whether the answer is printed as JSON.
    """

    config: Path
    state: Path | None
    as_json: bool

    def options(self) -> str:
        """Return the options that mean this one, for a command that undoes another."""
        given = [("-c", self.config)] if self.config != AUTHZ_YAML else []
        given += [("--state", self.state)] if self.state is not None else []
        return "".join(f" {option} {shlex.quote(str(value))}" for option, value in given)


@dataclass(frozen=True, slots=True)
class LedgerRequest:
    """Hold what every one of these commands works with.

    Attributes:
        settings: of authz.yaml.
        options: where Redis is.
        now: seconds since the epoch.
    """

    settings: Settings
    options: RedisOptions
    now: float

    @property
    def moment(self) -> int:
        """Return the second up to which tokens exist, by the clock of any issuer we trust.

        The issuer's clock may be `issuer.leeway` ahead of ours, and what it signs then is good
        now.
        """
        return int(self.now + self.settings.config.issuer.leeway)

    def note(self, by: str, reason: str) -> RevocationNote:
        """Return who asks, and why.

        Raises:
            CommandError: for words that are too long or cannot be shown.
        """
        by = by or os.environ.get("USER", "")
        for name, words, longest in (("--by", by, MAX_BY), ("--reason", reason, MAX_REASON)):
            if len(words) > longest or not (words.isprintable() or not words):
                raise CommandError(f"{name} takes up to {longest} printable characters")
        return RevocationNote(int(self.now), by, reason)


def deployment_options(function: F) -> F:
    """Pass `deployment`; what a command of a command is not told, it takes from the one before."""

    @config_option
    @click.option(
        "--state",
        type=FILE,
        metavar="DIR",
        help="The state of `authz up`, whose Valkey is meant where authz.yaml names no Redis"
        " (default: .authz beside authz.yaml).",
    )
    @json_option("The answer as JSON.")
    @wraps(function)
    def wrapped(*, config: Path | None, state: Path | None, as_json: bool, **rest: Any) -> int:
        ctx = click.get_current_context()
        before = (
            ctx.obj
            if isinstance(ctx.obj, DeploymentOptions)
            else DeploymentOptions(AUTHZ_YAML, None, False)
        )
        ctx.obj = DeploymentOptions(
            find_configuration(config or before.config),
            state or before.state,
            as_json or before.as_json,
        )
        keep_config(ctx.obj.config)
        if isinstance(ctx.command, click.Group) and ctx.invoked_subcommand is not None:
            return 0
        status: int = function(deployment=ctx.obj, **rest)
        return status

    return cast("F", wrapped)


def note_options(function: F) -> F:
    """Pass `by` and `reason`: who asks, and why."""
    reason = click.option("--reason", default="", metavar="WORDS", help="Why, for the list.")
    by = click.option("--by", default="", metavar="WHO", help="Who, for the list (default: $USER).")
    return reason(by(function))


def run_on_ledger(
    deployment: DeploymentOptions,
    work: Callable[[RedisLedger, LedgerRequest], Awaitable[T]],
    timeout: float | None = None,
) -> T:
    """Do work on the ledger of a deployment, and return its result.

    Args:
        deployment: which.
        work: what is done.
        timeout: seconds for each call of Redis; None for those of a decision.

    Raises:
        CommandError: where it was asked wrongly, or the ledger did not do it.
        ConfigError: where authz.yaml is wrong.
        OSError: where a password file cannot be read.
    """
    settings = load(deployment.config, os.environ)
    try:
        folder = deployment.state or default_folder(deployment.config)
        options = shared_redis(settings, os.environ, folder)
        request = LedgerRequest(settings, options, time.time())
        return asyncio.run(_connected(work, request, timeout))
    except SetupError as error:
        raise CommandError(str(error), error.code) from None
    except ValueError as error:
        raise CommandError(str(error)) from None
    except UnavailableError as error:
        message = f"Redis at {options.url} did not do it: {_trouble(error)}"
        raise OutOfReachError(message) from None


UNREAD: Final = (
    "no worker of the service has read the revocations in {url} within the last minute. If the"
    " service runs, it asks another Redis or another redis.deployment, and goes on as before; if it"
    " does not, it will read this one when it starts"
)


async def is_read(ledger: RedisLedger, request: LedgerRequest) -> bool:
    """Tell whether a worker reads what is written here; True where that cannot be told."""
    try:
        since = await seconds_since_reading(ledger.command, request.options.keys)
    except UnavailableError:  # its user may not SCAN
        return True
    return since is not None and since <= QUIET


@dataclass(slots=True)
class RecordedEffect:
    """Say whether there is anything to record; a command that changed nothing clears it."""

    happened: bool = True


@asynccontextmanager
async def recorded(
    request: LedgerRequest, action: str, what: str, note: RevocationNote, **names: str
) -> AsyncIterator[RecordedEffect]:
    """Record in the audit trail what is done in the block, and that it failed halfway.

    Nothing is recorded of what was refused before it began (CommandError, NotLiftedError). Any
    other failure leaves a record with `outcome: unknown`: all of it may be done, or a part. Where
    the record cannot be written that is said on stderr: it is done all the same.

    Args:
        request: with the deployment.
        action: `revoke`, `lift`, `block`, `unblock` or `reset_limit`.
        what: the id of the entry, or the client.
        note: who, and why.
        names: further fields, by which the record is found.
    """
    effect = RecordedEffect()
    fields = (("action", action), ("what", what), ("by", note.by), ("why", note.reason))
    try:
        yield effect
    except (CommandError, NotLiftedError):
        raise
    except BaseException:
        await _record(request, (*fields, ("outcome", "unknown"), *names.items()))
        raise
    if effect.happened:
        await _record(request, (*fields, *names.items()))


async def _record(request: LedgerRequest, fields: Fields) -> None:
    try:
        await record_operator(request.settings, request.options, fields)
    except (UnavailableError, LostRecordsError) as error:
        print(f"authz: the audit trail has no record of it ({error})", file=sys.stderr)


def names_of_target(target: RevocationTarget) -> dict[str, str]:
    """Return the fields by which the record of a revocation is found."""
    kind = target.field.partition(b":")[0]
    field = {b"person": "subject", b"client": "client_id", b"grant": "grant"}.get(kind)
    return {} if field is None else {field: target.name or ""}


def _trouble(error: UnavailableError) -> str:
    cause = error.__cause__
    if cause is None:
        return error.detail
    reply = str(cause) if isinstance(cause, ReplyError) else ""
    found = remedy(fault_of(cause), reply)
    return error.detail if found is None else f"{found.message}; {found.fix}"


async def _connected(
    work: Callable[[RedisLedger, LedgerRequest], Awaitable[T]],
    request: LedgerRequest,
    timeout: float | None,  # noqa: ASYNC109 - of each call
) -> T:
    options = request.options
    ledger = RedisLedger(options if timeout is None else replace(options, timeout=timeout))
    try:
        return await work(ledger, request)
    finally:
        await ledger.aclose()


def shown_moment(moment: int | None) -> str:
    """Return a moment for people, in UTC; nothing for none."""
    return "" if moment is None else format_moment(moment)


def shown_text(text: str) -> str:
    """Return what a client, a person or an issuer chose, so that it cannot act on a terminal.

    What is not ASCII is shown as escapes: what looks alike may differ.
    """
    return json.dumps(text)[1:-1]


def shown_id(entry: RevocationEntry) -> str:
    """Return as much of an id as tells it from others."""
    kind, colon, digest = entry.id.partition(":")
    return kind + colon + digest[:_DIGEST]


def lifting(entry: RevocationEntry) -> str:
    """Return the command that lifts an entry."""
    kept = entry.revocation.issued_until is not None and entry.kind != "token"
    return f"authz revocations lift {shown_id(entry)}" + (" --restore" if kept else "")


def shown_tokens(entry: RevocationEntry, whose_tokens: str = "") -> str:
    """Return which tokens an entry revokes; `whose_tokens` where more is known than the entry."""
    name = entry.target.name or "?"
    whose = whose_tokens or {
        "token": "one token",
        "person": f"all of the person {name}",
        "client": f"all of the client {name}",
        "grant": f"all of the log-in {name}",
        "everything": "everybody's",
    }.get(entry.kind, "none: the ledger does not know this record")
    moment = entry.revocation.issued_until
    return whose if moment is None else f"{whose}, issued up to {shown_moment(moment)}"
