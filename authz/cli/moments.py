"""Moments as people type them at a command."""

import re
from datetime import datetime
from typing import Final

from authz.cli.common import CommandError
from authz.ledger.revocations import MAX_LIFETIME

_AGO: Final = re.compile(r"([0-9]{1,6})([smhd])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def read_since(option: str, text: str | None, now: float) -> float | None:
    """Return the moment that an option names, in seconds since the epoch; None where it is not set.

    Args:
        option: its name, for the message.
        text: ISO 8601 with a zone, or how long before now.
        now: seconds since the epoch.

    Raises:
        CommandError: for anything else.
    """
    if text is None:
        return None
    ago = _AGO.fullmatch(text)
    if ago is not None:
        return now - int(ago[1]) * _SECONDS[ago[2]]
    try:
        return _iso(text)
    except (ValueError, OverflowError):
        raise CommandError(
            f"{option} takes a moment with its zone such as 2026-08-01T12:00:00Z, or how long ago"
            " such as 30m or 2d"
        ) from None


def read_issued_before(text: str, now: int) -> int:
    """Return the second that a person names.

    Args:
        text: `now`, seconds since the epoch, or ISO 8601 with its zone.
        now: what `now` means: the second up to which tokens exist.

    Raises:
        CommandError: for anything else; for what lies ahead, because a revocation without a moment
            is there for what is yet to be issued; and for what no token is as old as.
    """
    if text == "now":
        return now
    try:
        moment = int(text) if text.isascii() and text.isdigit() else int(_iso(text) // 1)
    except (ValueError, OverflowError):
        raise CommandError(
            "--issued-before takes now, seconds since the epoch, or a moment with its zone such"
            " as 2026-08-01T12:00:00Z"
        ) from None
    if moment > now:
        raise CommandError("--issued-before lies in the future")
    if moment < now - MAX_LIFETIME:
        raise CommandError(
            "--issued-before lies so far back that every token from then has expired"
        )
    return moment


def _iso(text: str) -> float:
    """Return what a moment with its zone is in seconds since the epoch.

    Raises:
        ValueError: where it is none, or has no zone and so is several moments.
        OverflowError: where it is beyond what can be counted.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("without a zone it is several moments")
    return moment.timestamp()
