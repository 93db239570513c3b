"""Outbox of upstream revocations: sealed Authelia tokens of ended grants (RFC 7009).

Each is retried until Authelia confirms or refuses it, or the token has expired; one call is under
way at a time, and no request waits for it. The grant has ended here before, whatever Authelia says.
"""

from collections.abc import Callable
from typing import Final

from authz.core.ledger import UnavailableError
from authz.ledger.keys import RedisKeys
from authz.ledger.login_records import Command
from authz.login.protocol.values import UpstreamError
from authz.login.service import ports
from authz.login.store.grants import outbox_key
from authz.login.store.sealed import open_upstream
from authz.tokens.sealing import NotSealedError, Sealer

STEP: Final = "end_at_issuer"
FAILED: Final = "failed"
REFUSED_THERE: Final = "refused"
# Refusals in name only (RFC 6749, section 4.1.2.1): of this moment, not of what was asked.
_FAULTS: Final = frozenset({"server_error", "temporarily_unavailable"})
PAUSE: Final = 5.0  # seconds between two looks: what a command ended is revoked by the pages
_LONGEST_WAIT: Final = 300.0  # seconds until what failed is tried again, at most


class RevocationOutbox:
    """Revoke at Authelia what has ended here. Idempotent: two processes may do the same."""

    def __init__(
        self,
        command: Command,
        keys: RedisKeys,
        issuer: str,
        *,
        sealer: Sealer,
        upstream: ports.Upstream,
        log: ports.StepLog,
        clock: Callable[[], float],
    ) -> None:
        self._command = command
        self._key = outbox_key(keys, issuer)
        self._issuer = issuer
        self._sealer = sealer
        self._upstream = upstream
        self._log = log
        self._clock = clock
        self._failed: dict[bytes, tuple[float, float]] = {}  # when it is tried next; the pause

    async def revoke_all(self) -> int:
        """Revoke everything that waits, one after the other; return how many wait on.

        Raises:
            UnavailableError: where Redis does not answer.
            Exception: the last defect, once all the others are done.
        """
        defect: Exception | None = None
        found = await self._command("HGETALL", self._key)
        self._failed = {grant: each for grant, each in self._failed.items() if grant in found}
        waiting = len(found)
        for grant, sealed in found.items():
            due, _ = self._failed.get(grant, (0.0, 0.0))
            if due > self._clock():
                continue
            try:
                done = await self._revoke(grant, sealed)
            except Exception as error:  # noqa: BLE001 - a defect in one must not silence the rest
                self._wait(grant, type(error).__name__)
                done, defect = False, error
            if done:
                await self._command("HDEL", self._key, grant)
                waiting -= 1
        if defect is not None:
            raise defect
        return waiting

    async def _revoke(self, grant: bytes, sealed: bytes) -> bool:
        """Revoke one; return whether it is done with."""
        name = _name(grant)
        try:
            token = open_upstream(self._sealer, sealed.decode("ascii", "replace"), self._issuer)
            await self._upstream.revoke(
                two_factor=token.two_factor, token=token.token, address=token.address
            )
        except NotSealedError:
            # Its token has ended by itself, the key that it was sealed with is gone, or it is of
            # an issuer that this deployment had before.
            self._log(STEP, "lost", grant=name)
        except UpstreamError as refused:
            if refused.error in _FAULTS:
                self._wait(grant, refused.error)
                return False
            # It would say the same again: our client is not what it was.
            self._log(STEP, REFUSED_THERE, grant=name, detail=refused.error)
        except UnavailableError as away:
            self._wait(grant, away.detail)
            return False
        else:
            self._log(STEP, "ok", grant=name)
        return True

    def _wait(self, grant: bytes, why: str) -> None:
        before = self._failed.get(grant)
        if before is None:
            # Said once, and not for every try: who reads it cannot make Authelia come back.
            self._log(STEP, FAILED, grant=_name(grant), detail=why)
        pause = PAUSE if before is None else min(before[1] * 2, _LONGEST_WAIT)
        self._failed[grant] = self._clock() + pause, pause


def _name(grant: bytes) -> str:
    return grant.decode("ascii", "replace")
