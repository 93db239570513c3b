"""Grants in Redis: one consent of a person for one client and one server, and its state.

Invariant: a person has a hundred at most, and the one unused for longest makes room; ending one
revokes it in the same step, so that no worker admits its tokens and no refresh under way restores
it (tests/login/test_flow.py, tests/login/store/test_store.py). A grant past its age issues nothing,
but is kept while its last access token lives, so that ending it still revokes that token.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final, NamedTuple

from authz.core.ledger import Query
from authz.core.limits import digest
from authz.core.principal import Client, LoginRecord, Person
from authz.ledger import login_records
from authz.ledger.bounded_scan import ScanPage, scan_page
from authz.ledger.keys import RedisKeys, grant_field, person_digest
from authz.ledger.login_records import REFRESHED_RECORD_TTL, Command, scan
from authz.ledger.records import Revocation, read_revocation, revocation_fields
from authz.ledger.revocations import RevocationNote, RevocationTarget, encode_metadata
from authz.ledger.script import run_script
from authz.login.protocol.grant import Grant, decode, encode
from authz.login.store import scripts

MAX_GRANTS: Final = 100
_LEEWAY: Final = 60  # seconds: the most that `issuer.leeway` can be
# Ends that wait to be told at Authelia; what is more is not told, and is ended here all the same.
_MOST_WAITING: Final = 10_000
_TRIES: Final = 3
_KIND: Final = "grants"


class StoredGrant(NamedTuple):
    """Hold a grant, and the bytes of which it was read."""

    grant: Grant
    raw: bytes


class GrantRenewal(NamedTuple):
    """Hold what a refresh changes.

    Attributes:
        before: the grant as it was read.
        grant: what it is now.
        record: the record of the new access token, with its lifetime in seconds.
        answer_key, answer: where the sealed answer is kept, for how many seconds.
        replaced_key: where it is kept when the token of this refresh was replaced.
        latest: the sealed answer as the newest of its grant.
        stale_lifetime: seconds that the token which was replaced stands for the newest one.
    """

    before: StoredGrant
    grant: Grant
    record: LoginRecord
    lifetime: int
    answer_key: bytes
    answer: str
    answer_lifetime: int
    replaced_key: bytes
    latest: str
    stale_lifetime: int


class GrantStore:
    """Keep the grants of one deployment.

    Attributes:
        issuer: whose people these are.
        kept: seconds that a grant is kept from its last use.
    """

    def __init__(
        self,
        command: Command,
        keys: RedisKeys,
        issuer: str,
        *,
        max_age: int,
        max_lifetime: int,
        clock: Callable[[], float],
    ) -> None:
        """Take Redis and names, and how long grants and access tokens live at most.

        Args:
            command: sends one command to Redis.
            keys: names of the deployment.
            issuer: whose people these are.
            max_age: seconds from the consent.
            max_lifetime: seconds that an access token lives at most, from now.
            clock: seconds since the epoch.
        """
        self._command = command
        self._keys = keys
        self.issuer: Final = issuer
        self._max_age = max_age
        self._max_lifetime = max_lifetime
        # Seconds from its last use: a grant may be younger than an access token of its last moment.
        self.kept: Final = max_age + max_lifetime
        self._clock = clock

    def key(self, subject: str) -> bytes:
        """Return where a person's grants are kept."""
        return self._keys.record(_KIND, person_digest(Person(self.issuer, subject)))

    def key_of_name(self, name: str) -> bytes:
        """Return where the grants of a person are kept, by the digest that names the person."""
        return self._keys.record(_KIND, name)

    def person_name(self, key: bytes) -> str:
        """Return the digest that names the person whose grants are kept at a key.

        It is the digest in the field of a revocation of that person, too.
        """
        return key.removeprefix(self._keys.record(_KIND, "")).decode("ascii", "replace")

    async def begin(
        self, subject: str, grant: Grant, log_in: LoginRecord, lifetime: int, code_key: bytes
    ) -> bool:
        """Keep a new grant with the record of its access token.

        Returns:
            whether it began; not where its code was used a second time meanwhile.

        Raises:
            UnavailableError: where Redis did not confirm it.
        """
        key = self.key(subject)
        for _ in range(_TRIES):
            await self._make_room(key)
            answer = await run_script(
                self._command,
                scripts.BEGIN,
                (key, self._keys.login_record(grant.access), code_key),
                grant.id,
                encode(grant),
                MAX_GRANTS,
                self.kept,
                login_records.encode(log_in),
                lifetime,
            )
            if answer != b"full":
                return bool(answer == b"begun")
        return False

    async def find(self, subject: str, grant_id: str) -> StoredGrant | None:
        """Return a grant that is alive.

        Raises:
            UnavailableError: where Redis did not answer.
        """
        raw = await self._command("HGET", self.key(subject), grant_id)
        held = _held(raw)
        if held is None or not self._lives(held.grant):
            return None
        return held

    async def revoked(self, subject: str, grant: Grant) -> bool:
        """Tell whether a revocation names a grant: its own, its person's, its client's, or all.

        One of what was issued up to a moment takes the consents of that time with it, as it does
        the step-ups: a thief's copy must not be refreshed into a new token.

        Raises:
            UnavailableError: where Redis did not answer.
        """
        # As the check asks for its tokens: what is refused there must not be refreshed here.
        query = Query(
            token_id="",
            person=Person(self.issuer, subject),
            client=Client(self.issuer, grant.client),
            issued_at=grant.created_at,
            step_up_key=None,
            step_up=None,
            takes=(),
            grant=grant.id,
            registered_client=Client(self.issuer, grant.client_id),
        )
        fields = (field for field, _ in revocation_fields(query))
        found = await self._command("HMGET", self._keys.revocations, *fields)
        return any(
            each is not None and read_revocation(each).covers(grant.created_at) for each in found
        )

    async def of(self, subject: str) -> tuple[Grant, ...]:
        """Return a person's grants, the latest used first.

        Raises:
            UnavailableError: where Redis did not answer.
        """
        return await self._all(self.key(subject))

    async def renew(self, subject: str, renewal: GrantRenewal) -> bool:
        """Keep what a refresh gave; tell whether the grant was still as it was read.

        Raises:
            UnavailableError: where Redis did not confirm it.
        """
        before, grant = renewal.before, renewal.grant
        # Authelia may give the same access token twice; its record does not end then.
        old = before.grant.access if before.grant.access != grant.access else ""
        answer = await run_script(
            self._command,
            scripts.RENEW,
            (
                self.key(subject),
                self._keys.login_record(grant.access),
                self._keys.login_record(old),
                renewal.answer_key,
                renewal.replaced_key,
                latest_key(self._keys, grant.id),
            ),
            grant.id,
            before.raw,
            encode(grant),
            self.kept,
            REFRESHED_RECORD_TTL,
            login_records.encode(renewal.record),
            renewal.lifetime,
            renewal.answer,
            renewal.answer_lifetime,
            renewal.latest,
            renewal.stale_lifetime,
            int(self._clock()),
        )
        return bool(answer == 1)

    async def end(self, subject: str, grant_id: str, why: str) -> Grant | None:
        """End a grant: revoked for all workers, its record gone; return it, if there was one.

        Authelia is told of it afterwards (`revocation_outbox`).

        Raises:
            UnavailableError: where Redis did not confirm it.
        """
        return await self.end_at(self.key(subject), grant_id, why)

    async def end_at(self, key: bytes, grant_id: str, why: str) -> Grant | None:
        """End a grant of those kept at a key, as `end` does."""
        now = int(self._clock())
        field = grant_field(self.issuer, grant_id)
        metadata = encode_metadata(
            RevocationTarget(field, self.issuer, grant_id), RevocationNote(now, "authz", why)
        )
        # No access token of it is younger than this moment: a refresh under way finds no grant.
        revocation = Revocation(None, now + self._max_lifetime, metadata)
        raw = await run_script(
            self._command,
            scripts.END,
            (
                key,
                self._keys.revocations,
                outbox_key(self._keys, self.issuer),
                latest_key(self._keys, grant_id),
            ),
            grant_id,
            field,
            revocation.encode(),
            _MOST_WAITING,
            self.kept,
        )
        held = _held(raw)
        if held is None:
            return None
        await self._command("DEL", self._keys.login_record(held.grant.access))
        return held.grant

    async def all_grants(self) -> AsyncIterator[tuple[bytes, Grant]]:
        """Yield every grant with the key that it is kept at, past its age too; for commands.

        Raises:
            UnavailableError: where Redis did not answer.
        """
        async for found in scan(self._command, self._keys.record(_KIND, "*")):
            for key in found:
                for grant in await self._kept_at(key):
                    yield key, grant

    async def usable_at(self, key: bytes) -> list[Grant]:
        """Return the grants kept at a key that are of any use, the latest used first.

        Raises:
            UnavailableError: where Redis did not answer.
        """
        found = filter(self.is_usable, await self._kept_at(key))
        return sorted(found, key=lambda grant: grant.used_at, reverse=True)

    async def page(self, cursor: int, most: int) -> ScanPage:
        """Return the keys of a part of all grants (`authz.ledger.bounded_scan`).

        Raises:
            UnavailableError: where Redis did not answer.
        """
        return await scan_page(self._command, self._keys.record(_KIND, "*"), cursor, most)

    def is_usable(self, grant: Grant) -> bool:
        """Tell whether a grant still gives tokens, or its newest access token may still pass."""
        return self._lives(grant) or self._clock() < grant.expires_at + _LEEWAY

    async def _all(self, key: bytes) -> tuple[Grant, ...]:
        grants = filter(self._lives, await self._kept_at(key))
        return tuple(sorted(grants, key=lambda grant: grant.used_at, reverse=True))

    async def _kept_at(self, key: bytes) -> list[Grant]:
        return _grants(await self._command("HGETALL", key))

    async def _make_room(self, key: bytes) -> None:
        """End the grants that have no room beside one more, and remove what is left of others.

        One past its age goes first: it has an access token at most.
        """
        if int(await self._command("HLEN", key)) < MAX_GRANTS:
            return
        found = await self._command("HGETALL", key)
        usable = sorted(
            filter(self.is_usable, _grants(found)),
            key=lambda grant: (self._lives(grant), grant.used_at),
            reverse=True,
        )
        gone = {name.decode("ascii", "replace") for name in found}
        gone -= {grant.id for grant in usable}
        if gone:
            await self._command("HDEL", key, *gone)
        for grant in usable[MAX_GRANTS - 1 :]:
            await self.end_at(key, grant.id, "a hundred newer log-ins")

    def _lives(self, grant: Grant) -> bool:
        return self._clock() < self.expiry(grant)

    def expiry(self, grant: Grant) -> int:
        """Return when a grant expires, or its access token where it has no refresh token."""
        if not grant.refresh:
            return grant.expires_at
        return grant.created_at + self._max_age


def latest_key(keys: RedisKeys, grant_id: str) -> bytes:
    """Return where the newest answer to a refresh of a grant is kept, sealed."""
    return keys.record("latest", digest(grant_id))


def outbox_key(keys: RedisKeys, issuer: str) -> bytes:
    """Return where ended grants wait to be told at their issuer (`revocation_outbox`), by grant.

    Each issuer has its own: what one has given is shown to no other.
    """
    return keys.record("untold", digest(issuer))


def _held(raw: Any) -> StoredGrant | None:
    grant = decode(raw) if isinstance(raw, bytes) else None
    return None if grant is None else StoredGrant(grant, raw)


def _grants(found: Mapping[bytes, bytes]) -> list[Grant]:
    return [held.grant for raw in found.values() if (held := _held(raw)) is not None]
