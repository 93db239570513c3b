"""What the front door keeps in Redis, on a real one: once, bounded, sealed, with an end."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

import pytest

from authz.core.principal import LoginRecord
from authz.ledger.keys import grant_field
from authz.login.clients.operator_names import called
from authz.login.protocol.authorization_code import AuthorizationCode
from authz.login.protocol.grant import Grant, decode, encode
from authz.login.protocol.issued import Issued
from authz.login.store.blocklist import BlocklistEntry
from authz.login.store.grants import MAX_GRANTS, GrantRenewal
from authz.login.store.known_clients import block, known_clients
from tests.login.service.flow_kit import Flow
from tests.support.values import ISSUER

Scene = Callable[[Flow], Awaitable[None]]
LOG_IN = LoginRecord("one", "one", "g1", "john", frozenset({"pwd"}), 1_700_000_000, "john")
GRANT = Grant(
    id="g1",
    account="john",
    client="one",
    client_id="one",
    title="One",
    server="files",
    resource="https://mcp.example.test/files",
    scopes=("mcp:tools",),
    two_factor=True,
    created_at=2_000_000_000,
    used_at=2_000_000_000,
    amr=("pwd",),
    auth_time=2_000_000_000,
    expires_at=2_000_003_600,
    access="a" * 64,
    refresh="b" * 64,
)


CODE: Final = AuthorizationCode(
    grant_id="g",
    subject="john",
    two_factor=True,
    upstream_token="rt",
    address="192.0.2.7",
    client="one",
    client_digest="d" * 64,
    redirect_uri="http://127.0.0.1/callback",
    code_challenge="c" * 43,
    server="files",
    resource="https://mcp.example.test/files",
    scopes=("mcp:tools",),
    access_token="a.b.c",
    refresh_token="rt",
    expires_at=2_000_003_600,
    account="john",
    amr=("pwd",),
    auth_time=2_000_000_000,
    consented_at=2_000_000_000,
)


async def begun(found: Flow, grant: Grant = GRANT, subject: str = "john") -> bool:
    code = grant.id.rjust(43, "c")
    await found.codes.issue(code, CODE)
    await found.codes.take(code)
    key = found.codes.key(code)
    log_in = replace(LOG_IN, grant=grant.id)
    return await found.grants.begin(subject, grant, log_in, 3600, key)


def test_a_code_is_taken_once(run: Callable[[Scene], None]) -> None:
    """First what it stands for, then for ever what it was; another code is none."""

    async def scene(found: Flow) -> None:
        codes = found.codes
        await codes.issue("c" * 43, CODE)
        assert await codes.take("d" * 43) is None
        assert await codes.take("c" * 43) == CODE
        assert await codes.take("c" * 43) == CODE.used
        assert await codes.take("c" * 43) == CODE.used
        (key,) = found.keys("code")
        assert b"c" * 43 not in key
        assert found.valkey.command("TTL", key) > 29 * 86_400

    run(scene)


def test_what_is_not_of_our_making_is_no_code(run: Callable[[Scene], None]) -> None:
    """Whoever can write into Redis still cannot write a code: it has to be sealed."""

    async def scene(found: Flow) -> None:
        codes = found.codes
        for junk in (b"", b"f", b"f{}\n{}", b"x", b"u", b"\xff\xfe", b"fa.b.c.d.e\na.b.c.d.e"):
            found.valkey.command("SET", codes.key("c" * 43), junk)
            assert await codes.take("c" * 43) is None

    run(scene)


def test_a_value_of_one_purpose_is_none_for_another(run: Callable[[Scene], None]) -> None:
    """A sealed answer is no code, nor a code an answer."""

    async def scene(found: Flow) -> None:
        codes, refreshes = found.codes, found.refreshes
        answer = refreshes.sealed(Issued("a.b.c", "r", 2_000_003_600, ()))
        found.valkey.command("SET", codes.key("c" * 43), f"f{answer}\n{answer}")
        assert await codes.take("c" * 43) is None
        await codes.issue("d" * 43, CODE)
        held = found.valkey.command("GET", codes.key("d" * 43))
        found.valkey.command("SET", refreshes.key("n"), held[1:].split(b"\n")[0])
        assert await refreshes.answer("n") is None

    run(scene)


def test_a_state_is_used_once(run: Callable[[Scene], None]) -> None:
    """And remembered a minute longer than the ten for which it opens: a replica whose clock is
    behind opens it as long, too.
    """

    async def scene(found: Flow) -> None:
        states = found.states
        results = await asyncio.gather(*(states.use("s") for _ in range(5)))
        assert sorted(results) == [False] * 4 + [True]
        (key,) = found.keys("state")
        assert 600 < found.valkey.command("TTL", key) <= 660

    run(scene)


def test_a_lock_is_its_holders_and_ends(run: Callable[[Scene], None]) -> None:
    """Nobody else unlocks it; a lost holder keeps nobody out for longer than half a minute."""

    async def scene(found: Flow) -> None:
        refreshes = found.refreshes
        assert await refreshes.lock("n", "me")
        assert not await refreshes.lock("n", "you")
        await refreshes.unlock("n", "you")
        assert not await refreshes.lock("n", "you")
        (key,) = found.keys("refreshing")
        assert 0 < found.valkey.command("TTL", key) <= 30
        await refreshes.unlock("n", "me")
        assert await refreshes.lock("n", "you")

    run(scene)


def test_a_grant_begins_only_with_a_code_that_was_used_once(
    run: Callable[[Scene], None],
) -> None:
    """A fresh one, one used twice, and none at all begin nothing, the record neither."""

    async def scene(found: Flow) -> None:
        key = found.codes.key("c" * 43)
        assert not await found.grants.begin("john", GRANT, LOG_IN, 3600, key)
        await found.codes.issue("c" * 43, CODE)
        assert not await found.grants.begin("john", GRANT, LOG_IN, 3600, key)
        await found.codes.take("c" * 43)
        await found.codes.take("c" * 43)
        assert not await found.grants.begin("john", GRANT, LOG_IN, 3600, key)
        assert found.keys("log-in") == []
        assert await begun(found)
        assert [grant.id for grant in await found.grants.of("john")] == ["g1"]
        assert len(found.keys("log-in")) == 1

    run(scene)


def test_a_grant_is_its_persons(run: Callable[[Scene], None]) -> None:
    """Another person neither finds nor ends it."""

    async def scene(found: Flow) -> None:
        assert await begun(found)
        grants = found.grants
        assert await grants.find("bob", "g1") is None
        assert await grants.end("bob", "g1", "why") is None
        assert await grants.find("john", "g1") is not None

    run(scene)


def test_a_grant_past_its_age_is_none(run: Callable[[Scene], None]) -> None:
    """However often it was used; and it makes room."""

    async def scene(found: Flow) -> None:
        old = replace(GRANT, created_at=1_000_000_000)
        assert await begun(found, old)
        assert await found.grants.find("john", "g1") is None
        assert await found.grants.of("john") == ()
        for number in range(MAX_GRANTS):
            assert await begun(found, replace(GRANT, id=f"n{number}", used_at=number))
        assert len(await found.grants.of("john")) == MAX_GRANTS
        assert await begun(found, replace(GRANT, id="last"))
        names = {grant.id for grant in await found.grants.of("john")}
        assert len(names) == MAX_GRANTS
        assert "n0" not in names
        assert "last" in names

    run(scene)


def test_a_renewal_meets_the_grant_as_it_was_read(run: Callable[[Scene], None]) -> None:
    """Renewed or ended by another meanwhile, nothing of it happens."""

    async def scene(found: Flow) -> None:
        assert await begun(found)
        grants, refreshes = found.grants, found.refreshes
        held = await grants.find("john", "g1")
        assert held is not None
        grant = replace(GRANT, access="n" * 64)
        renewal = GrantRenewal(
            before=held,
            grant=grant,
            record=LOG_IN,
            lifetime=3600,
            answer_key=refreshes.key("n"),
            answer="sealed",
            answer_lifetime=30,
            replaced_key=refreshes.replaced_key("n"),
            latest="sealed",
            stale_lifetime=60,
        )
        assert await grants.renew("john", renewal)
        assert not await grants.renew("john", renewal)
        again = await grants.find("john", "g1")
        assert again is not None
        await grants.end("john", "g1", "why")
        before = found.keys()
        assert not await grants.renew("john", renewal._replace(before=again))
        assert found.keys() == before

    run(scene)


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"{}", b"[]", b"\xff", encode(GRANT)[:-1], encode(GRANT).replace(b"true", b"1"),
        encode(GRANT).replace(b'["pwd"]', b"[1]"), encode(GRANT).replace(b'"g1"', b"7"),
        encode(GRANT).replace(b"2000003600", b'"x"'), encode(GRANT).replace(b'"id"', b'"ID"'),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_no_grant(raw: bytes) -> None:
    """Read strictly: what `encode` does not write is nobody's."""
    assert decode(raw) is None
    assert decode(encode(GRANT)) == GRANT


def test_a_blocked_client_has_nothing_left(run: Callable[[Scene], None]) -> None:
    """Its grants end, whoever's they are; other clients keep theirs; it can be let in again."""

    async def scene(found: Flow) -> None:
        grants, blocks = found.grants, found.blocks
        await begun(found)
        await begun(found, replace(GRANT, id="g2", account=""), "bob")
        other = replace(GRANT, id="g3", client="two", client_id="two")
        await begun(found, other)
        known = await known_clients(grants, blocks)
        (one,) = [client for client in known if client.name == "one"]
        assert one.log_ins == 2
        assert "john" in one.people
        assert called(one.id[:6], [each.called for each in known], ()) == "one"
        assert await block(grants, blocks, BlocklistEntry("one", 7, "me", "why")) == 2
        assert [grant.id for grant in await grants.of("john")] == ["g3"]
        assert await blocks.blocked("one", frozenset({"any"}))
        assert await blocks.blocked("any", frozenset({"x", "one"}))
        assert not await blocks.blocked("two", frozenset({"two"}))
        assert [each.reason for each in await blocks.all()] == ["why"]
        assert len(await found.ledger.revocations()) == 2
        assert await blocks.unblock("one")
        assert not await blocks.unblock("one")
        assert not await blocks.blocked("one", frozenset({"one"}))

    run(scene)


def test_a_block_ends_what_is_past_its_age(run: Callable[[Scene], None]) -> None:
    """Its last access token may live on: it is revoked, and counted; what has ended is not."""

    async def scene(found: Flow) -> None:
        grants, blocks = found.grants, found.blocks
        long_ago, soon = 1_000_000_000, int(time.time()) + 600
        await begun(found, replace(GRANT, created_at=long_ago, expires_at=soon))
        await begun(found, replace(GRANT, id="g2", created_at=long_ago, expires_at=long_ago))
        assert await grants.of("john") == ()
        (one,) = await known_clients(grants, blocks)
        assert one.log_ins == 1
        assert await block(grants, blocks, BlocklistEntry("one", 7, "me", "why")) == 1
        revoked = await found.ledger.revocations()
        assert {grant_field(ISSUER, each) for each in ("g1", "g2")} == set(revoked)
        assert await known_clients(grants, blocks) == ()

    run(scene)


def test_a_grant_is_kept_for_as_long_as_its_last_access_token(
    run: Callable[[Scene], None],
) -> None:
    """Else nothing could end that token: not the age, and not the room that others need."""

    async def scene(found: Flow) -> None:
        grants = found.grants
        soon = int(time.time()) + 600
        await begun(found, replace(GRANT, created_at=1_000_000_000, expires_at=soon))
        (key,) = found.keys("grants")
        kept = 30 * 86_400 + 43_210
        assert kept - 60 < found.valkey.command("TTL", key) <= kept
        for number in range(MAX_GRANTS):
            assert await begun(found, replace(GRANT, id=f"n{number}", used_at=number))
        assert grant_field(ISSUER, "g1") in await found.ledger.revocations()
        assert len(await grants.of("john")) == MAX_GRANTS

    run(scene)


def test_scripts_are_loaded_where_redis_has_lost_them(run: Callable[[Scene], None]) -> None:
    """After a restart of Redis the first call loads its script, and nothing runs twice."""

    async def scene(found: Flow) -> None:
        await found.codes.issue("c" * 43, CODE)
        found.valkey.command("SCRIPT", "FLUSH")
        assert await found.codes.take("c" * 43) == CODE

    run(scene)
