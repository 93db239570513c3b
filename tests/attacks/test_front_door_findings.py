"""What a reviewer found in the front door, each as it was found.

Whoever has no login costs Authelia nothing beyond the pace of an address, and whoever has one
cannot spend more of Authelia or of Redis than a person's use of it.
"""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast
from urllib.parse import parse_qsl

import httpx
import pytest
from starlette.requests import Request
from starlette.types import Message

from authz.core.second_factor import Method, StepUpNeed
from authz.core.step_up import StepUpTicket
from authz.ledger.keys import RedisKeys as Names
from authz.ledger.keys import grant_field
from authz.ledger.login_records import LoginRecords
from authz.ledger.records import Revocation
from authz.login.clients.fetching import Fetched
from authz.login.clients.identity import identify
from authz.login.protocol.values import ClientKind, OAuthClient
from authz.login.service.rate_limits import LOG_INS, PAGES, LoginRateLimiter
from authz.login.store.blocklist import BlocklistEntry
from authz.login.store.known_clients import block
from authz.login.web.app import EACH
from authz.login.web.client_description import Trust, describe_place, trust_of
from authz.login.web.cookies import read_form
from authz.tokens.tickets import seal_ticket
from tests.demo.kit import ISSUER, JOHN
from tests.login.conftest import Play, keys, play, store, world
from tests.login.front import GATEWAY, FrontDoorClient, FrontDoorStage, bob

__all__ = ["keys", "play", "store", "world"]

FROM_OUR_PAGE = {"Origin": GATEWAY, "Sec-Fetch-Site": "same-origin"}
TICKET = StepUpTicket(
    issuer=ISSUER,
    subject=JOHN,
    grant="g",
    client="claude",
    account="john",
    server="files",
    tool="admin_all",
    need=StepUpNeed(Method.TOTP, None),
    at=0,
)


async def registered(found: FrontDoorStage, **changes: Any) -> FrontDoorClient:
    client = FrontDoorClient(found, **changes)
    await client.register()
    return client


def form_token(page: httpx.Response) -> str:
    found = re.search(r'name="form_token" value="([^"]+)"', page.text)
    assert found is not None, page.text
    return found[1]


# --- what costs Authelia something ------------------------------------------------------------


def own_log_ins(_: FrontDoorStage) -> str:
    return "/authz/log-ins"


def step_up(found: FrontDoorStage) -> str:
    return f"/authz/step-up?ticket={seal_ticket(found.built.sealer, TICKET)}"


@pytest.mark.parametrize("page", [own_log_ins, step_up])
def test_a_form_that_goes_to_authelia_is_paced_whatever_it_is_for(
    play: Play, page: Callable[[FrontDoorStage], str]
) -> None:
    """A stranger's form, sent again and again, is a request at Authelia twenty times a minute."""

    async def scene(found: FrontDoorStage) -> None:
        browser = found.browser()
        url = f"{GATEWAY}{page(found)}"
        token = form_token(await browser.get(url))
        statuses = [
            (await browser.post(url, data={"form_token": token}, headers=FROM_OUR_PAGE)).status_code
            for _ in range(22)
        ]
        assert [status == 429 for status in statuses] == [False] * 20 + [True] * 2
        assert len(found.upstream.calls("pushed-authorization-request")) == 20

    play(scene)


async def spent_code(
    found: FrontDoorStage, client: FrontDoorClient
) -> Callable[[], Awaitable[httpx.Response]]:
    back = await client.log_in()
    await client.exchange(back["code"])
    return lambda: client.exchange(back["code"])


async def ended_token(
    found: FrontDoorStage, client: FrontDoorClient
) -> Callable[[], Awaitable[httpx.Response]]:
    tokens = await client.tokens()
    return lambda: client.post("/revoke", token=tokens["refresh_token"])


@pytest.mark.parametrize("again", [spent_code, ended_token])
def test_what_is_ended_at_authelia_is_not_ended_again(play: Play, again: Any) -> None:
    """A code that was used, or a token that was revoked, tells Authelia once, however often."""

    async def scene(found: FrontDoorStage) -> None:
        client = await registered(found)
        send = await again(found, client)
        for _ in range(20):
            await send()
        assert len(found.upstream.calls("revocation")) == 1

    play(scene)


def test_what_authelia_did_not_hear_is_told_again(play: Play) -> None:
    """Only what it has ended is remembered."""

    async def scene(found: FrontDoorStage) -> None:
        client = await registered(found)
        tokens = await client.tokens()
        found.upstream.away = True
        await client.post("/revoke", token=tokens["refresh_token"])
        found.upstream.away = False
        await client.post("/revoke", token=tokens["refresh_token"])
        before = len(found.upstream.calls("revocation"))
        await client.post("/revoke", token=tokens["refresh_token"])
        assert len(found.upstream.calls("revocation")) == before

    play(scene)


def test_refreshes_of_one_grant_are_paced(play: Play) -> None:
    """A client that refreshes without end costs Authelia twenty a minute, and keeps its log-in."""

    async def scene(found: FrontDoorStage) -> None:
        client = await registered(found)
        tokens = await client.tokens()
        statuses = []
        for _ in range(22):
            answer = await client.refresh(tokens["refresh_token"])
            statuses.append(answer.status_code)
            if answer.status_code == 200:
                tokens = answer.json()
        assert statuses == [200] * 20 + [503] * 2
        assert int(answer.headers["retry-after"]) > 0
        other = await registered(found)
        theirs = await other.tokens()
        assert (await other.refresh(theirs["refresh_token"])).status_code == 200

    play(scene)


def test_log_ins_of_one_person_are_paced(play: Play) -> None:
    """Each leaves something in Redis for a month: the 121st of an hour is told to come later."""

    async def scene(found: FrontDoorStage) -> None:
        attempts, client = found.built.limiter, await registered(found)
        for _ in range(119):
            attempts.count_attempt_of(LOG_INS, JOHN)
        assert "code" in await client.log_in()
        kept = found.keys("code")
        told = await client.log_in()
        assert (told["error"], told["state"]) == ("temporarily_unavailable", client.state)
        assert found.keys("code") == kept
        assert len(found.upstream.calls("revocation")) == 1
        other = await registered(found, address="198.51.100.1")
        assert "code" in await other.log_in(bob())

    play(scene)


def test_a_flood_of_addresses_pushes_no_person_out() -> None:
    """Memory is bounded for each limit by itself."""
    attempts = LoginRateLimiter(lambda: 1_700_000_000.0, largest=10)
    for _ in range(LOG_INS.quota):
        assert attempts.count_attempt_of(LOG_INS, JOHN) == 0
    for number in range(100):
        attempts.count_attempt(PAGES, f"2001:db8:0:{number:x}::1")
    assert attempts.count_attempt_of(LOG_INS, JOHN) > 0


# --- what one address can hold ----------------------------------------------------------------


def asked(app: Any, path: str, address: str, receive: Any) -> "asyncio.Task[int]":
    """Ask the pages as Envoy would; the task's result is the status."""
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [
            (b"x-forwarded-for", address.encode()),
            (b"content-type", b"application/x-www-form-urlencoded"),
            (b"origin", GATEWAY.encode()),
        ],
    }
    statuses: list[int] = []

    async def send(message: Any) -> None:
        statuses.extend([message["status"]] if "status" in message else [])

    async def ask() -> int:
        await app(scope, receive, send)
        return statuses[0]

    return asyncio.create_task(ask())


def test_documents_that_one_address_makes_us_fetch_are_paced(play: Play) -> None:
    """A fetch can hold a place for seconds: twelve unknown ones a minute; known ones as ever."""

    async def scene(found: FrontDoorStage) -> None:
        fetched: list[str] = []

        async def fetch(url: str, host: str) -> Fetched:
            fetched.append(url)
            said = {"client_id": url, "redirect_uris": [f"https://{host}/cb"]}
            return Fetched(json.dumps(said).encode(), 600)

        found.built._documents._fetch = fetch
        browser = found.browser()

        async def ask(url: str) -> int:
            answer = await browser.get(f"{GATEWAY}/authorize", params={"client_id": url})
            return answer.status_code

        urls = [f"https://app{number}.example/c" for number in range(14)]
        assert [await ask(url) for url in urls] == [400] * 12 + [429] * 2
        assert fetched == urls[:12]
        assert [await ask(url) for url in urls[:12]] == [400] * 12
        assert await ask("claude") == 400
        browser.headers["X-Forwarded-For"] = "198.51.100.1"
        assert await ask(urls[13]) == 400
        assert fetched == [*urls[:12], urls[13]]

    play(scene)


@pytest.mark.attack("document-starvation")
def test_documents_of_slow_hosts_keep_no_other_address_waiting(play: Play) -> None:
    """Ten that hang, named by one address (of IPv6: one /64), have two of the eight fetches."""

    async def scene(found: FrontDoorStage) -> None:
        fetched: list[str] = []
        two, go_on = asyncio.Event(), asyncio.Event()

        async def fetch(url: str, host: str) -> Fetched:
            fetched.append(host)
            if len(fetched) == 2:
                two.set()
            if host.startswith("slow"):
                await go_on.wait()
            said = {"client_id": url, "redirect_uris": [f"https://{host}/cb"]}
            return Fetched(json.dumps(said).encode(), 600)

        async def ask(address: str, host: str) -> int:
            browser = found.browser(address)
            url = f"{GATEWAY}/authorize"
            answer = await browser.get(url, params={"client_id": f"https://{host}/c"})
            return answer.status_code

        found.built._documents._fetch = fetch
        slow = [
            asyncio.create_task(ask(f"2001:db8:0:1::{n:x}", f"slow{n}.example")) for n in range(10)
        ]
        await two.wait()
        assert await ask("198.51.100.1", "app.example") == 400
        assert fetched == ["slow0.example", "slow1.example", "app.example"]
        go_on.set()
        assert await asyncio.gather(*slow) == [400] * 10

    play(scene)


@pytest.mark.parametrize("path", ["/token", "/authz/consent", "/authz/log-ins"])
def test_one_address_does_not_hold_all_there_is(play: Play, path: str) -> None:
    """Bodies that never come are a bounded part of the pages' places; a neighbour has others."""

    async def scene(found: FrontDoorStage) -> None:
        end = asyncio.Event()

        async def never() -> dict[str, Any]:
            await end.wait()
            return {"type": "http.disconnect"}

        async def at_once() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        app = found.built.app
        slow = [asked(app, path, f"2001:db8::{number:x}", never) for number in range(EACH)]
        await asyncio.sleep(0)
        assert await asked(app, path, "2001:db8::ffff:1", at_once) == 429
        assert await asked(app, path, "2001:db8:0:1::1", at_once) in (400, 403)
        end.set()
        assert not {429, 500} & set(await asyncio.gather(*slow))
        assert await asked(app, path, "2001:db8::ffff:1", at_once) in (400, 403)

    play(scene)


def test_a_form_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The forms of pages have the time of every other body."""
    monkeypatch.setattr("authz.login.web.cookies.PATIENCE", 0.0)

    async def never() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    kind = (b"content-type", b"application/x-www-form-urlencoded")
    scope = {"type": "http", "method": "POST", "headers": [kind]}

    async def read() -> Mapping[str, str]:
        async with asyncio.timeout(30):
            return await read_form(Request(scope, never))

    assert asyncio.run(read()) == {}


# --- what a person is shown, and what is really ended --------------------------------------------


@pytest.mark.parametrize(
    "uri", ["https://app.localhost/cb", "https://127.0.0.2/cb", "https://[::ffff:7f00:1]/cb"]
)
@pytest.mark.parametrize("kind", [ClientKind.DOCUMENT, ClientKind.CONFIGURED])
def test_no_spelling_of_this_machine_is_vouched_for(uri: str, kind: ClientKind) -> None:
    """Whatever program listens there; a document at some host says nothing of that."""
    host = "good.example" if kind is ClientKind.DOCUMENT else ""
    client = identify(OAuthClient("c", kind, "Good", host, (uri,)), uri)
    assert trust_of(client) is Trust.UNVERIFIED
    assert describe_place(client.ends_at) == "a program on your computer"


@pytest.mark.parametrize("host", ["mcp.example.test", "auth.example.test"])
def test_nobody_says_that_he_is_the_gateway_or_the_issuer(play: Play, host: str) -> None:
    """A consent page that names our own host, or the log-in's, would be believed."""

    async def scene(found: FrontDoorStage) -> None:
        answer = await FrontDoorClient(found).register(redirect_uris=[f"https://{host}:8443/cb"])
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_redirect_uri")

    play(scene)


def test_a_token_is_revoked_though_its_grant_is_past_its_age(play: Play) -> None:
    """200 is the truth: no worker lets the token pass any more."""

    async def scene(found: FrontDoorStage) -> None:
        client = await registered(found)
        tokens = await client.tokens()
        names = Names(found.deployment)
        (key,) = found.keys("grants")
        assert found.valkey.command("DEL", key) == 1
        log_in = await LoginRecords(found.ledger.command, names).get(tokens["access_token"])
        assert log_in is not None
        assert (await client.post("/revoke", token=tokens["access_token"])).status_code == 200
        assert grant_field(ISSUER, log_in.grant) in await found.ledger.revocations()
        assert await LoginRecords(found.ledger.command, names).get(tokens["access_token"]) is None

    play(scene)


def test_an_end_weakens_no_revocation(play: Play) -> None:
    """What the operator revoked for good stays so when the person ends it too."""

    async def scene(found: FrontDoorStage) -> None:
        client = await registered(found)
        tokens = await client.tokens()
        log_in = await LoginRecords(found.ledger.command, Names(found.deployment)).get(
            tokens["access_token"]
        )
        assert log_in is not None
        field, forever = grant_field(ISSUER, log_in.grant), Revocation(metadata="for good")
        await found.ledger.revoke(field, forever)
        await client.post("/revoke", token=tokens["refresh_token"])
        assert (await found.ledger.revocations())[field] == forever
        await found.ledger.revoke(field, Revocation(1, 2, "of long ago"))
        await client.post("/revoke", token=tokens["refresh_token"])
        assert (await found.ledger.revocations())[field].issued_until is None

    play(scene)


def test_who_is_blocked_while_a_code_is_traded_in_gets_nothing_that_lasts(play: Play) -> None:
    """The block found no grant to end, since it had not begun: it ends as it begins."""

    async def scene(found: FrontDoorStage) -> None:
        client, built = await registered(found), found.built
        back = await client.log_in()
        begin = built.grants.begin

        async def late(*words: Any) -> bool:
            one = BlocklistEntry(client.client_id, 0, "an operator", "")
            assert await block(built.grants, built.blocks, one) == 0
            return await begin(*words)

        cast("Any", built.grants).begin = late
        answer = await client.exchange(back["code"])
        assert answer.json()["error"] == "unauthorized_client"
        assert found.keys("grants") == found.keys("log-in") == []
        assert len(await found.ledger.revocations()) == 1
        assert len(found.upstream.calls("revocation")) == 1

    play(scene)


def test_redis_holds_no_secret_in_the_clear(play: Play) -> None:
    """No token, code, state, verifier or ticket: not in a name and not in a value."""

    async def scene(found: FrontDoorStage) -> None:
        client = await registered(found)
        back = await client.log_in()
        held = everything(found)
        tokens = (await client.exchange(back["code"])).json()
        held += everything(found)
        renewed = (await client.refresh(tokens["refresh_token"])).json()
        held += everything(found)
        await client.exchange(back["code"])
        held += everything(found)
        sent = [parameter for each in found.upstream.sent for parameter in parse_qsl(each.content)]
        theirs = [
            value.decode()
            for name, value in sent
            if name in (b"code", b"code_verifier", b"state", b"nonce", b"refresh_token", b"token")
        ]
        secrets = [*theirs, back["code"], client.state, client.verifier]
        secrets += [each[name] for each in (tokens, renewed) for name in _TOKENS]
        assert len(secrets) > 10
        log = found.log.getvalue()
        for secret in secrets:
            assert secret.encode() not in held
            assert secret not in log

    play(scene)


_TOKENS = ("access_token", "refresh_token")


def everything(found: FrontDoorStage) -> bytes:
    kinds = {"string": ("GET",), "hash": ("HGETALL",)}
    parts = []
    for key in sorted(found.keys()):
        command = kinds[found.valkey.command("TYPE", key).decode()]
        parts.append(key.encode() + repr(found.valkey.command(*command, key)).encode())
    return b"\n".join(parts)
