"""What `revoke` and `revocations` share: where to write, moments, and the words.

Law: nothing that is printed here is a token, and nothing of a record reaches a terminal unescaped
(authz.ledger.revocations).
"""

import argparse
import asyncio
import os
import shlex
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeVar

from authz.cli.common import FAILED, WRONG
from authz.config.load import Settings, load
from authz.core.ledger import UnavailableError
from authz.ledger.faults import RedisFault, fault_of
from authz.ledger.redis import RedisLedger, RedisOptions
from authz.ledger.revocations import (
    MAX_BY,
    MAX_LIFETIME,
    MAX_REASON,
    RevocationEntry,
    RevocationNote,
)

T = TypeVar("T")
# What a person is told where the ledger's own words do not say what mends it.
_TROUBLES: Final[Mapping[RedisFault, str]] = {
    RedisFault.NOT_LOGGED_IN: "it refuses the user or the password",
    RedisFault.NOT_PERMITTED: "its user may not do this: docs/operations.md has the commands it "
    "needs",
    RedisFault.READ_ONLY: "it is a replica: revocations are written to the primary",
    RedisFault.OUT_OF_MEMORY: "it is full",
    # redis-py says the same of both.
    RedisFault.CLOSED: "nobody answers there, or it refuses the user or the password",
    RedisFault.LATE: "it does not answer",
}
_HERE: Final = Path("authz.yaml")
_DIGEST: Final = 12  # characters of an id in the table: enough to tell one from another


class WrongError(Exception):
    """Say in words what was asked wrongly."""


@dataclass(frozen=True, slots=True)
class LedgerRequest:
    """Hold what every one of these commands is asked with.

    Attributes:
        settings: of authz.yaml.
        options: where Redis is.
        now: seconds since the epoch.
        arguments: all that was asked.
    """

    settings: Settings
    options: RedisOptions
    now: float
    arguments: argparse.Namespace

    @property
    def moment(self) -> int:
        """Return the second up to which tokens exist, by the clock of any issuer we trust.

        The issuer's clock may be `issuer.leeway` ahead of ours, and what it signs then is good
        now.
        """
        return int(self.now + self.settings.config.issuer.leeway)

    def note(self) -> RevocationNote:
        """Return who asks, and why.

        Raises:
            WrongError: for words that are too long or cannot be shown.
        """
        by = self.arguments.by or os.environ.get("USER", "")
        reason = self.arguments.reason
        for name, words, longest in (
            ("--by", by, MAX_BY),
            ("--reason", reason, MAX_REASON),
        ):
            if len(words) > longest or not (words.isprintable() or not words):
                raise WrongError(f"{name} takes up to {longest} printable characters")
        return RevocationNote(int(self.now), by, reason)


def place_options(parser: argparse.ArgumentParser, *, inner: bool = False) -> None:
    """Let a command find Redis, and print JSON; `inner` for a command of a command."""
    # The parser of a command's command must not put its defaults in place of what was given.
    file, state, as_json = (argparse.SUPPRESS,) * 3 if inner else (_HERE, None, False)
    parser.add_argument(
        "-c", "--config", type=Path, metavar="FILE", default=file, help="default: authz.yaml"
    )
    parser.add_argument(
        "--state",
        type=Path,
        metavar="DIR",
        default=state,
        help="the state of `authz up`, whose Valkey is meant where authz.yaml names no Redis"
        " (default: .authz beside authz.yaml)",
    )
    parser.add_argument("--json", action="store_true", default=as_json, help="the answer as JSON")


def same_place(arguments: argparse.Namespace) -> str:
    """Return the options of `place_options` that were given, for a command that undoes this one."""
    given = [("-c", arguments.config)] if arguments.config != _HERE else []
    given += [("--state", arguments.state)] if arguments.state is not None else []
    return "".join(f" {option} {shlex.quote(str(value))}" for option, value in given)


def remark_options(parser: argparse.ArgumentParser) -> None:
    """Let a command be told who asks, and why."""
    parser.add_argument("--reason", default="", metavar="WORDS", help="why, for the list")
    parser.add_argument(
        "--by", default="", metavar="WHO", help="who, for the list (default: $USER)"
    )


def run_on_ledger(
    arguments: argparse.Namespace,
    now: float,
    work: Callable[[RedisLedger, LedgerRequest], Awaitable[T]],
) -> T | int:
    """Do work on the ledger of a deployment; return its result, or an exit status.

    Raises:
        ConfigError: where authz.yaml is wrong.
        OSError: where a password file cannot be read.
    """
    from authz.local.redis_location import shared_redis  # noqa: PLC0415 - keeps other commands quick
    from authz.local.state import SetupError  # noqa: PLC0415 - as above
    from authz.local.up import default_folder  # noqa: PLC0415 - as above

    settings = load(arguments.config, os.environ)
    try:
        folder = arguments.state or default_folder(arguments.config)
        options = shared_redis(settings, os.environ, folder)
        return asyncio.run(_connected(work, LedgerRequest(settings, options, now, arguments)))
    except SetupError as error:
        return _told(str(error), error.code)
    except (WrongError, ValueError) as error:
        return _told(str(error), WRONG)
    except UnavailableError as error:
        return _told(f"Redis at {options.url} did not do it: {_trouble(error)}", FAILED)


def _trouble(error: UnavailableError) -> str:
    cause = error.__cause__
    return error.detail if cause is None else _TROUBLES.get(fault_of(cause), error.detail)


async def _connected(
    work: Callable[[RedisLedger, LedgerRequest], Awaitable[T]], request: LedgerRequest
) -> T:
    ledger = RedisLedger(request.options)
    try:
        return await work(ledger, request)
    finally:
        await ledger.aclose()


def _told(words: str, code: int) -> int:
    print(f"authz: {words}", file=sys.stderr)
    return code


def read_moment(text: str, now: int) -> int:
    """Return the second that a person names.

    Args:
        text: `now`, seconds since the epoch, or ISO 8601 with its zone.
        now: what `now` means: the second up to which tokens exist.

    Raises:
        WrongError: for anything else; for what lies ahead, because a revocation without a moment
            is there for what is yet to be issued; and for what no token is as old as.
    """
    if text == "now":
        return now
    try:
        moment = int(text) if text.isascii() and text.isdigit() else _iso(text)
    except (ValueError, OverflowError):
        raise WrongError(
            "--issued-before takes now, seconds since the epoch, or a moment with its zone such"
            " as 2026-08-01T12:00:00Z"
        ) from None
    if moment > now:
        raise WrongError("--issued-before lies in the future")
    if moment < now - MAX_LIFETIME:
        raise WrongError("--issued-before lies so far back that every token from then has expired")
    return moment


def _iso(text: str) -> int:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("without a zone it is several moments")
    return int(moment.timestamp() // 1)


def shown_moment(moment: int | None) -> str:
    """Return a moment for people, in UTC; nothing for none."""
    if moment is None:
        return ""
    try:
        return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return str(moment)  # in the year 30000, for one


def shown_id(entry: RevocationEntry) -> str:
    """Return as much of an id as tells it from others."""
    kind, colon, digest = entry.id.partition(":")
    return kind + colon + digest[:_DIGEST]


def lifting(entry: RevocationEntry) -> str:
    """Return the command that lifts an entry."""
    kept = entry.revocation.issued_until is not None and entry.kind != "token"
    return f"authz revocations lift {shown_id(entry)}" + (" --restore" if kept else "")


def shown_tokens(entry: RevocationEntry) -> str:
    """Return which tokens an entry revokes."""
    name = entry.target.name or "?"
    whose = {
        "token": "one token",
        "person": f"all of the person {name}",
        "client": f"all of the client {name}",
        "grant": f"all of the log-in {name}",
        "everything": "everybody's",
    }.get(entry.kind, "none: the ledger does not know this record")
    moment = entry.revocation.issued_until
    return whose if moment is None else f"{whose}, issued up to {shown_moment(moment)}"
