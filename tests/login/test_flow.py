"""The flow of the front door, end to end: its happy paths, and what they leave behind."""

import asyncio
import json
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv6Address, IPv6Network

import httpx
import pytest

from authz.cli.connections import collect
from authz.core.ledger import UnavailableError
from authz.core.principal import LoginRecord, Person
from authz.ledger.keys import RedisKeys as Names
from authz.ledger.keys import grant_field, person_digest
from authz.ledger.login_records import LoginRecords
from authz.login.protocol.values import UpstreamError
from authz.login.store.sealed import open_refresh, seal_refresh
from authz.telemetry.connection_advice import advise
from authz.telemetry.connection_events import Stage
from authz_demo.person import BrowserUser
from tests.demo.kit import ISSUER, JOHN, claims
from tests.login.conftest import Play
from tests.login.front import CLAUDE, GATEWAY, NOTES, FrontDoorClient, FrontDoorStage, bob, john
from tests.login.upstream.upstream_kit import asked


async def record(found: FrontDoorStage, token: str) -> LoginRecord | None:
    return await LoginRecords(found.ledger.command, Names(found.deployment)).get(token)


async def grants(found: FrontDoorStage, subject: str = JOHN) -> list[str]:
    return [grant.id for grant in await found.built.grants.of(subject)]


def test_a_client_that_knows_the_url_alone_logs_in(play: Play) -> None:
    """Register, consent, TOTP, code, tokens, refresh; and the check finds who logged in how."""

    async def scene(found: FrontDoorStage) -> None:
        client = FrontDoorClient(found)
        assert (await client.register()).status_code == 201
        back = await client.log_in()
        assert back.keys() == {"code", "state", "iss"}
        assert (back["state"], back["iss"]) == (client.state, GATEWAY)
        answer = await client.exchange(back["code"])
        tokens = answer.json()
        assert answer.status_code == 200, tokens
        assert answer.headers["cache-control"] == "no-store"
        assert tokens.keys() == {
            "access_token", "token_type", "expires_in", "scope", "refresh_token"
        }  # fmt: skip
        assert (tokens["token_type"], tokens["scope"]) == ("Bearer", "mcp:tools")
        assert 3590 <= tokens["expires_in"] <= 3600
        held = await record(found, tokens["access_token"])
        assert held is not None
        assert (held.client, held.subject, held.account) == ("dynamic/loopback", JOHN, "john")
        assert held.client_id == client.client_id
        assert held.amr == {"pwd", "kba", "otp", "mfa"}
        said = claims(tokens["access_token"])
        assert (said["client_id"], said["sub"]) == ("authz-two-factor", JOHN)
        assert said["aud"] == ["https://mcp.example.test/files"]

    play(scene)


def test_a_person_has_a_name_for_as_long_as_a_session_of_a_page(play: Play) -> None:
    """`authz revoke --user` ends sessions that outlive the grants of a short consent."""

    async def scene(found: FrontDoorStage) -> None:
        client = FrontDoorClient(found)
        await client.register()
        await client.tokens()
        name = person_digest(Person(ISSUER, JOHN))
        left = await found.ledger.command("PTTL", Names(found.deployment).record("person", name))
        assert left / 1000 > 7 * 86_400

    def change(text: str) -> str:
        return text.replace("front_door: {", "front_door: {page_session: 7d, grant_max_age: 1h, ")

    play(scene, change)


def test_a_refresh_keeps_the_grant_and_ends_the_old_record_soon(play: Play) -> None:
    """A new token with a record of its own; the old record lives for a minute at most."""

    async def scene(found: FrontDoorStage) -> None:
        client = FrontDoorClient(found)
        await client.register()
        tokens = await client.tokens()
        answer = await client.refresh(tokens["refresh_token"])
        renewed = answer.json()
        assert answer.status_code == 200, renewed
        assert renewed["scope"] == "mcp:tools"
        before, after = (
            await record(found, tokens["access_token"]),
            await record(found, renewed["access_token"]),
        )
        assert before is not None
        assert after is not None
        assert before.grant == after.grant
        assert await grants(found) == [after.grant]
        ttls = [found.valkey.command("TTL", key) for key in found.keys("log-in:")]
        assert min(ttls) <= 60
        assert max(ttls) > 3500
        # And on.
        assert (await client.refresh(renewed["refresh_token"])).status_code == 200

    play(scene)


def test_a_server_that_wants_no_second_factor(play: Play) -> None:
    """The log-in goes through the client under `one_factor`: a password is enough, and recorded."""

    async def scene(found: FrontDoorStage) -> None:
        client = FrontDoorClient(found, resource=NOTES)
        await client.register()
        tokens = await client.tokens(BrowserUser("john", "password", None))
        assert claims(tokens["access_token"])["client_id"] == "authz-one-factor"
        held = await record(found, tokens["access_token"])
        assert held is not None
        assert held.amr == {"pwd", "kba"}

    play(scene)


def test_a_configured_client_is_counted_by_its_own_name(play: Play) -> None:
    """Its name is its key in authz.yaml, and its log-in ends at its own address alone."""

    async def scene(found: FrontDoorStage) -> None:
        client = FrontDoorClient(found, "claude", CLAUDE)
        tokens = await client.tokens(scope="mcp:tools mcp:admin")
        held = await record(found, tokens["access_token"])
        assert held is not None
        assert held.client == held.client_id == "claude"
        # It may have less than the server has, and is told so.
        assert tokens["scope"] == "mcp:tools"

    play(scene)


def test_everything_in_redis_ends(play: Play) -> None:
    """Every key has a TTL, and none holds a token, a code or a state in the clear."""

    async def scene(found: FrontDoorStage) -> None:
        client = FrontDoorClient(found)
        await client.register()
        tokens = await client.tokens()
        renewed = (await client.refresh(tokens["refresh_token"])).json()
        await client.log_in(state="s" * 20)
        secrets = [tokens["access_token"], tokens["refresh_token"], renewed["access_token"]]
        names = found.keys()
        assert {name.split(":")[1] for name in names} >= {"code", "state", "grants", "log-in"}
        for name in names:
            assert found.valkey.command("TTL", name) > 0, name
            kind = found.valkey.command("TYPE", name)
            held = found.valkey.command(
                *(("GET", name) if kind == b"string" else ("HGETALL", name))
            )
            text = name.encode() + (held if isinstance(held, bytes) else repr(held).encode())
            assert not any(secret.encode() in text for secret in secrets)
            assert b"authelia_" not in text
            assert b"ssssssss" not in text

    play(scene)


@pytest.mark.attack("Authelia's tokens, codes, secrets in logs, in Referer, in error pages")
def test_no_secret_reaches_the_log(play: Play) -> None:
    """Every step has a line with names; none has a token, a code, a state or a verifier."""

    async def scene(found: FrontDoorStage) -> None:
        client = FrontDoorClient(found)
        await client.register()
        back = await client.log_in()
        tokens = (await client.exchange(back["code"])).json()
        renewed = (await client.refresh(tokens["refresh_token"])).json()
        await client.exchange(back["code"])
        await client.post("/revoke", token=renewed["refresh_token"])
        log = found.log.getvalue()
        for secret in (
            tokens["access_token"], tokens["refresh_token"],
            renewed["access_token"], renewed["refresh_token"],
            back["code"], client.state, client.verifier, client.client_id, "authelia_",
        ):  # fmt: skip
            assert secret not in log
        steps = [
            (line["step"], line["outcome"]) for line in found.lines() if line["event"] == "log_in"
        ]
        assert steps[:6] == [
            ("register", "ok"),
            ("authorize", "ok"),
            ("consent", "ok"),
            ("callback", "ok"),
            ("token", "ok"),
            ("refresh", "ok"),
        ]
        assert all(line["request_id"] == "r-1" for line in found.lines() if "step" in line)

    play(scene)


def test_the_log_tells_a_log_in_as_one_story(play: Play) -> None:
    """What the pages log of a log-in, a second one of the same client, and a stranger's guess is
    three stories; digests tie them, and none is of a secret that could be tried out.
    """

    async def scene(found: FrontDoorStage) -> None:
        client = FrontDoorClient(found)
        await client.register()
        await client.exchange((await client.log_in())["code"])
        await client.log_in(code_challenge="c" * 43)
        lines = [json.dumps(line).encode() for line in found.lines()]
        done, begun = collect(lines, 0).stories()

        assert [event.stage for event in done.events] == [
            Stage.REGISTER, Stage.AUTHORIZE, Stage.CONSENT, Stage.CALLBACK, Stage.TOKEN,
        ]  # fmt: skip
        assert {event.outcome for event in done.events} == {"ok"}
        assert done.guessed == begun.guessed == set()
        assert [event.stage for event in begun.events] == [
            Stage.AUTHORIZE, Stage.CONSENT, Stage.CALLBACK,
        ]  # fmt: skip
        assert "never came for the tokens" in advise(begun.reached()).missing
        assert done.grant != begun.grant

    play(scene)


def test_several_tabs_at_once(play: Play) -> None:
    """Two transactions of one browser end each with its own client, whatever their order."""

    async def scene(found: FrontDoorStage) -> None:
        one, two = (
            FrontDoorClient(found),
            FrontDoorClient(found, redirect_uri="http://127.0.0.1:5555/callback"),
        )
        two.browser = one.browser
        await one.register(client_name="One")
        await two.register(client_name="Two")
        first, second = await asyncio.gather(one.log_in(), two.log_in())
        assert (first["state"], second["state"]) == (one.state, two.state)
        assert (await two.exchange(second["code"])).status_code == 200
        assert (await one.exchange(first["code"])).status_code == 200

    play(scene)


def test_two_people_have_grants_of_their_own(play: Play) -> None:
    """What one has, the other does not see."""

    async def scene(found: FrontDoorStage) -> None:
        one, two = FrontDoorClient(found), FrontDoorClient(found, address="192.0.2.99")
        await one.register()
        two.client_id = one.client_id
        mine, theirs = await one.tokens(john()), await two.tokens(bob())
        first, second = (
            await record(found, mine["access_token"]),
            await record(found, theirs["access_token"]),
        )
        assert first is not None
        assert second is not None
        assert first.subject != second.subject
        assert first.grant != second.grant
        assert await grants(found) == [first.grant]

    play(scene)


def test_the_metadata_is_true(play: Play) -> None:
    """RFC 8414: the issuer is the gateway, readable by every page; it is no OpenID provider."""

    async def scene(found: FrontDoorStage) -> None:
        browser = found.browser()
        answer = await browser.get(f"{GATEWAY}/.well-known/oauth-authorization-server")
        assert answer.headers["access-control-allow-origin"] == "*"
        document = answer.json()
        assert document["issuer"] == GATEWAY
        assert document["code_challenge_methods_supported"] == ["S256"]
        for endpoint in ("token", "revocation"):
            ways = document[f"{endpoint}_endpoint_auth_methods_supported"]
            signed = document[f"{endpoint}_endpoint_auth_signing_alg_values_supported"]
            assert ways == ["none", "private_key_jwt"]
            assert {"RS256", "ES256"} <= set(signed)
            assert not any(each in ("none", "HS256", "HS384", "HS512") for each in signed)
        openid = await browser.get(f"{GATEWAY}/.well-known/openid-configuration")
        assert openid.status_code == 404

    play(scene)


@pytest.mark.attack("issuer-buckets")
def test_the_address_that_authelia_counts_by_is_the_persons(play: Play) -> None:
    """Where they log in: the browser's. Then one that nobody else has, wherever the client is."""

    async def scene(found: FrontDoorStage) -> None:
        client = FrontDoorClient(found, address="198.51.100.7")
        await client.register()
        tokens = await client.tokens()
        client.browser = found.browser("203.0.113.200")
        log_in = found.upstream.sent.copy()
        tokens = (await client.refresh(tokens["refresh_token"])).json()
        await client.refresh(tokens["refresh_token"])
        tokens = (await client.refresh(tokens["refresh_token"])).json()
        await client.post("/revoke", token=tokens["access_token"])
        ours = [each for each in found.upstream.sent[len(log_in) :] if each.method == "POST"]
        neighbour = FrontDoorClient(found, address="198.51.100.7")
        await neighbour.register()
        begun = len(found.upstream.sent)
        theirs = await neighbour.tokens(bob())
        await neighbour.post("/revoke", token=theirs["refresh_token"])
        ended = found.upstream.sent[begun:][-1]

        assert addresses(log_in) == {"198.51.100.7"}
        (alias,) = addresses(ours)
        assert IPv6Address(alias) in IPv6Network("fd00::/8")
        assert ended.url.path.endswith("/revocation")
        assert addresses([ended]) != {alias}
        assert IPv6Address(*addresses([ended])) in IPv6Network("fd00::/8")

    play(scene)


def test_a_refresh_token_of_an_older_version_has_the_persons_address(play: Play) -> None:
    """It was sealed with the browser's, which strangers may share."""

    async def scene(found: FrontDoorStage) -> None:
        client = FrontDoorClient(found, address="198.51.100.7")
        await client.register()
        tokens = await client.tokens()
        sealer = found.built.sealer
        token = open_refresh(sealer, tokens["refresh_token"], ISSUER)
        old = seal_refresh(sealer, replace(token, address="198.51.100.7"), 60.0)
        assert open_refresh(sealer, old, ISSUER).address == token.address
        assert IPv6Address(token.address) in IPv6Network("fd00::/8")

    play(scene)


@pytest.mark.attack("issuer-buckets")
def test_a_stranger_at_the_same_address_ends_no_refresh(play: Play) -> None:
    """What Authelia no longer takes of an address does not concern who is logged in there."""

    async def scene(found: FrontDoorStage) -> None:
        client = FrontDoorClient(found, address="198.51.100.7")
        await client.register()
        tokens = await client.tokens()
        for _ in range(31):
            with suppress(UpstreamError, UnavailableError):
                await found.built.upstream.exchange(
                    two_factor=False,
                    code="authelia_ac_" + "a" * 43 + "." + "b" * 43,
                    verifier="v" * 43,
                    redirect_uri=f"{GATEWAY}/authz/callback",
                    nonce="n",
                    address="198.51.100.7",
                )
        with pytest.raises(UnavailableError, match="too many failures of this address"):
            await found.built.upstream.push(asked(), "198.51.100.7")
        assert "access_token" in (await client.refresh(tokens["refresh_token"])).json()

    play(scene)


def addresses(sent: Sequence[httpx.Request]) -> set[str]:
    return {each.headers["x-forwarded-for"] for each in sent if each.method == "POST"}


def test_what_is_revoked_is_refused_by_all_workers(play: Play) -> None:
    """Either token ends the grant: revoked for the check, its record gone, revoked upstream."""

    async def scene(found: FrontDoorStage) -> None:
        for which in ("access_token", "refresh_token"):
            client = FrontDoorClient(found)
            await client.register()
            tokens = await client.tokens()
            held = await record(found, tokens["access_token"])
            assert held is not None
            answer = await client.post("/revoke", token=tokens[which])
            assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
            revoked = (await found.ledger.revocations())[grant_field(ISSUER, held.grant)]
            assert revoked.issued_until is None
            assert revoked.until is not None
            assert revoked.until > time.time() + 3600
            assert await record(found, tokens["access_token"]) is None
            assert held.grant not in await grants(found)
            assert len(found.upstream.calls("revocation")) >= 1
            again = await client.refresh(tokens["refresh_token"])
            assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")

    play(scene)


def test_a_person_has_a_hundred_grants_at_most(play: Play) -> None:
    """The one unused for longest makes room, and its tokens pass no more."""

    async def scene(found: FrontDoorStage) -> None:
        client = FrontDoorClient(found)
        await client.register()
        first = await client.tokens()
        held = await record(found, first["access_token"])
        assert held is not None
        key = found.built.grants.key(JOHN)
        raw = json.loads(found.valkey.command("HGET", key, held.grant))
        now = int(time.time())
        for number in range(99):
            one = raw | {"id": f"{number:032x}", "used_at": now + 100 + number, "access": "aa"}
            found.valkey.command("HSET", key, one["id"], json.dumps(one))
        await client.tokens()
        assert len(await grants(found)) == 100
        assert held.grant not in await grants(found)
        assert grant_field(ISSUER, held.grant) in await found.ledger.revocations()
        assert await record(found, first["access_token"]) is None

    play(scene)
