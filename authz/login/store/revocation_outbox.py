"""What Authelia is still to be told: refresh tokens of grants that ended here, sealed till then.

Law: a grant has ended before anything is told of it, and stays so whatever Authelia answers. Nobody
waits for it, one call is under way at a time, and what it did not hear is told again, for as long
as the token could live.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from authz.core.ledger import UnavailableError
from authz.ledger.keys import RedisKeys
from authz.ledger.login_records import Command
from authz.login.protocol.values import UpstreamError
from authz.login.service import ports
from authz.login.store.grants import untold_key
from authz.tokens.sealing import NotSealedError, Sealer

STEP: Final = "end_at_issuer"
FAILED: Final = "failed"
REFUSED_THERE: Final = "refused"
# Refusals in name only (RFC 6749, section 4.1.2.1): of this moment, not of what was asked.
_FAULTS: Final = frozenset({"server_error", "temporarily_unavailable"})
_PURPOSE: Final = "upstream-token"
PAUSE: Final = 5.0  # seconds between two looks: what a command ended is told by the pages
_LONGEST_WAIT: Final = 300.0  # seconds until what failed is tried again, at most
_LATE: Final = 86_400  # seconds: a grant may be ended in its last moment, while Authelia is away


def seal_upstream(
    sealer: Sealer, token: str, lifetime: float, *, issuer: str, two_factor: bool, address: str
) -> str:
    """Return Authelia's refresh token as a grant keeps it, with all that its end needs."""
    # Whose it is, too: a command ends grants of every issuer that this deployment has had.
    value = {"issuer": issuer, "token": token, "two_factor": two_factor, "address": address}
    return sealer.seal(_PURPOSE, value, lifetime + _LATE)


class RevocationOutbox:
    """Tell Authelia what has ended. One per process; two of them tell it twice, which is once."""

    def __init__(
        self,
        command: Command,
        keys: RedisKeys,
        issuer: str,
        *,
        sealer: Sealer,
        upstream: ports.Upstream,
        tell: ports.Tell,
        clock: Callable[[], float],
    ) -> None:
        """Take Redis and names, who is told, what opens, the log, and seconds that pass."""
        self._command = command
        self._key = untold_key(keys, issuer)
        self._issuer = issuer
        self._sealer = sealer
        self._upstream = upstream
        self._tell = tell
        self._clock = clock
        self._failed: dict[bytes, tuple[float, float]] = {}  # when it is tried next; the pause

    async def tell_all(self) -> None:
        """Tell everything that waits, one after the other.

        Raises:
            UnavailableError: where Redis does not answer.
            Exception: the last defect, once all the others are told.
        """
        defect: Exception | None = None
        found = await self._command("HGETALL", self._key)
        self._failed = {grant: each for grant, each in self._failed.items() if grant in found}
        for grant, sealed in found.items():
            due, _ = self._failed.get(grant, (0.0, 0.0))
            if due > self._clock():
                continue
            try:
                told = await self._told(grant, sealed)
            except Exception as error:  # noqa: BLE001 - a defect in one must not silence the rest
                self._wait(grant, type(error).__name__)
                told, defect = False, error
            if told:
                await self._command("HDEL", self._key, grant)
        if defect is not None:
            raise defect

    async def _told(self, grant: bytes, sealed: bytes) -> bool:
        """Tell one; return whether that was the last word on it."""
        name = _name(grant)
        try:
            held = self._sealer.open(_PURPOSE, sealed.decode("ascii", "replace"))
            await self._upstream.revoke(**_arguments(held, self._issuer))
        except NotSealedError:
            # Its token has ended by itself, the key that it was sealed with is gone, or it is of
            # an issuer that this deployment had before.
            self._tell(STEP, "lost", grant=name)
        except UpstreamError as refused:
            if refused.error in _FAULTS:
                self._wait(grant, refused.error)
                return False
            # It would say the same again: our client is not what it was.
            self._tell(STEP, REFUSED_THERE, grant=name, detail=refused.error)
        except UnavailableError as away:
            self._wait(grant, away.detail)
            return False
        else:
            self._tell(STEP, "ok", grant=name)
        return True

    def _wait(self, grant: bytes, why: str) -> None:
        before = self._failed.get(grant)
        if before is None:
            # Said once, and not for every try: who reads it cannot make Authelia come back.
            self._tell(STEP, FAILED, grant=_name(grant), detail=why)
        pause = PAUSE if before is None else min(before[1] * 2, _LONGEST_WAIT)
        self._failed[grant] = self._clock() + pause, pause


def _name(grant: bytes) -> str:
    return grant.decode("ascii", "replace")


def _arguments(held: Mapping[str, Any], issuer: str) -> Mapping[str, Any]:
    """Return what `revoke` takes.

    Raises:
        NotSealedError: where it is of another issuer, or another version of ours.
    """
    if held.get("issuer") != issuer:
        raise NotSealedError
    try:
        return {name: held[name] for name in ("token", "two_factor", "address")}
    except KeyError as error:
        raise NotSealedError from error
