"""What the front door keeps in Redis for a short time: codes, used states, answers to refreshes.

Everything expires, is named by a digest, and holds tokens only sealed.

Invariant: a code is taken once, whoever comes at the same moment; afterwards its key names its
grant.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Final

from authz.core.ledger import UnavailableError
from authz.ledger.keys import RedisKeys
from authz.ledger.login_records import Command
from authz.ledger.script import run_script
from authz.login.protocol.authorization_code import AuthorizationCode, UsedCode
from authz.login.protocol.granted_audience import TokenFault
from authz.login.protocol.issued import Issued
from authz.login.protocol.members import digest
from authz.login.store import scripts
from authz.login.store.grants import latest_key
from authz.login.store.sealed import CODE, LATEST_ANSWER, REFRESH_ANSWER, USED, SealedValue
from authz.tokens.sealing import NotSealedError, Sealer

CODE_LIFETIME: Final = 60  # seconds (RFC 9700, section 2.1.1, RFC 6749, section 4.1.2)
STATE_LIFETIME: Final = 600
# What sealed a state may have a clock that is ahead of that of who opens it.
_LEEWAY: Final = 60
ANSWER_LIFETIME: Final = 30
# A refresh is over long before: its holder gives up (`refresh.PATIENCE`), and a lost holder
# keeps nobody out for longer.
LOCK_LIFETIME: Final = 30

_A_DAY: Final = 86_400


class CodeStore:
    """Keep our authorization codes."""

    def __init__(self, command: Command, keys: RedisKeys, sealer: Sealer, remember: int) -> None:
        """Take Redis, names, what seals, and the seconds that tokens of a code may live."""
        self._command = command
        self._keys = keys
        self._sealer = sealer
        self._remember = remember

    def key(self, code: str) -> bytes:
        """Return where a code is kept."""
        return self._keys.record("code", digest(code))

    async def issue(self, text: str, code: AuthorizationCode) -> None:
        """Keep a code with what it stands for, and with what remains of it once it was used.

        Raises:
            UnavailableError: where Redis did not confirm it.
        """
        fresh = CODE.seal(self._sealer, code, CODE_LIFETIME)
        used = USED.seal(self._sealer, code.used, self._remember + CODE_LIFETIME)
        await self._command("SET", self.key(text), f"f{fresh}\n{used}", "EX", CODE_LIFETIME, "NX")

    async def take(self, text: str) -> AuthorizationCode | UsedCode | None:
        """Return what a code stands for, once; None for what is no code, or none any more.

        Raises:
            UnavailableError: where Redis did not answer; the code may be used up.
        """
        stored = await run_script(
            self._command, scripts.TAKE_CODE, (self.key(text),), self._remember
        )
        if not isinstance(stored, bytes):
            return None
        kind, sealed = stored[:1], stored[1:].decode("ascii", "replace")
        fresh, _, used = sealed.partition("\n")
        try:
            if kind == b"f":
                return CODE.open(self._sealer, fresh)
            return USED.open(self._sealer, used or fresh)
        except NotSealedError:
            return None


class StateStore:
    """Remember which transactions came back from Authelia."""

    def __init__(self, command: Command, keys: RedisKeys) -> None:
        """Take Redis and names."""
        self._command = command
        self._keys = keys

    async def use(self, state: str) -> bool:
        """Use a state up; tell whether this was the first time.

        Raises:
            UnavailableError: where Redis did not confirm it.
        """
        name = self._keys.record("state", digest(state))
        lifetime = STATE_LIFETIME + _LEEWAY
        return await self._command("SET", name, b"1", "EX", lifetime, "NX") is not None


class LoginFaults:
    """Keep what the last log-in failed for that the operator has to mend; `authz doctor` reads it.

    It is for one day, and one for all: a flood of failures takes no room.
    """

    def __init__(self, command: Command, keys: RedisKeys, clock: Callable[[], float]) -> None:
        """Take Redis, names, and seconds since the epoch."""
        self._command = command
        self._key = keys.login_fault
        self._clock = clock

    async def keep(self, fault: TokenFault) -> None:
        """Keep a fault; where Redis does not answer the log has it alone."""
        with suppress(UnavailableError):
            await self._command("SET", self._key, f"{int(self._clock())} {fault}", "EX", _A_DAY)


class UsedAssertions:
    """Remember which assertions of clients were used (RFC 7523, section 3, `jti`)."""

    def __init__(self, command: Command, keys: RedisKeys) -> None:
        """Take Redis and names."""
        self._command = command
        self._keys = keys

    async def use(self, client_id: str, token_id: str, lifetime: int) -> bool:
        """Use an assertion up, for as long as it lives; tell whether this was the first time.

        Raises:
            UnavailableError: where Redis did not confirm it.
        """
        # A client_id has no blanks, so no two pairs are one text.
        name = self._keys.record("assertion", digest(f"{client_id} {token_id}"))
        return await self._command("SET", name, b"1", "EX", lifetime, "NX") is not None


class RefreshStore:
    """Let many refreshes with one token be one, and its answer be had again for a while."""

    def __init__(self, command: Command, keys: RedisKeys, sealer: Sealer) -> None:
        """Take Redis, names, and what seals."""
        self._command = command
        self._keys = keys
        self._sealer = sealer

    def key(self, name: str) -> bytes:
        """Return where the answer to a refresh token is kept, which is named by its digest."""
        return self._keys.record("refreshed", name)

    def replaced_key(self, name: str) -> bytes:
        """Return where it is kept when a refresh token was replaced, if that was lately."""
        return self._keys.record("replaced", name)

    def sealed(self, issued: Issued) -> str:
        """Return an answer as it is kept."""
        return REFRESH_ANSWER.seal(self._sealer, issued, ANSWER_LIFETIME)

    def sealed_latest(self, issued: Issued, lifetime: int) -> str:
        """Return an answer as it is kept while it is the newest of its grant."""
        return LATEST_ANSWER.seal(self._sealer, issued, lifetime)

    async def latest(self, name: str, grant_id: str, since: float) -> Issued | None:
        """Return the newest answer of a grant, if this token of it was replaced lately.

        Args:
            name: the token's.
            grant_id: whose answer.
            since: the moment before which it was replaced too long ago, seconds since the epoch.
                What is kept for longer is of a time when the setting was greater.

        Raises:
            UnavailableError: where Redis did not answer.
        """
        keys = self.replaced_key(name), latest_key(self._keys, grant_id)
        replaced, stored = await self._command("MGET", *keys)
        if not isinstance(replaced, bytes) or not isinstance(stored, bytes):
            return None
        if not replaced.isdigit() or int(replaced) < since:
            return None
        return self._opened(LATEST_ANSWER, stored)

    async def answer(self, name: str) -> Issued | None:
        """Return the answer that a refresh token had a moment ago.

        Raises:
            UnavailableError: where Redis did not answer.
        """
        stored = await self._command("GET", self.key(name))
        return self._opened(REFRESH_ANSWER, stored) if isinstance(stored, bytes) else None

    def _opened(self, kind: SealedValue[Issued], stored: bytes) -> Issued | None:
        try:
            return kind.open(self._sealer, stored.decode("ascii", "replace"))
        except NotSealedError:
            return None

    async def lock(self, name: str, holder: str) -> bool:
        """Begin to refresh; tell whether nobody else does.

        Raises:
            UnavailableError: where Redis did not confirm it.
        """
        key = self._lock(name)
        return await self._command("SET", key, holder, "EX", LOCK_LIFETIME, "NX") is not None

    async def unlock(self, name: str, holder: str) -> None:
        """End what this holder began, and nobody else's.

        Raises:
            UnavailableError: where Redis did not confirm it; then the lock ends by itself.
        """
        await run_script(self._command, scripts.UNLOCK, (self._lock(name),), holder)

    def _lock(self, name: str) -> bytes:
        return self._keys.record("refreshing", name)
