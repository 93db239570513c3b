"""A log-in from a terminal at the stand-in issuer: whole, and everything that can be swapped."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx
import pytest

from authz.cli.oauth_login import loopback
from authz.cli.oauth_login.log_in import Granted, log_in
from authz.cli.oauth_login.loopback import Loopback
from authz.cli.oauth_login.request import OAuthLoginError, Wanted
from authz.tokens.issuer import IssuerAddress
from tests.demo.kit import FILES, ISSUER, JOHN, DemoWorld, claims

WANTED = Wanted("mcp-2fa", FILES, ("mcp:tools",))
Visit = Callable[[str], Awaitable[None]]


class Terminal:
    """One log-in, with a person at a browser who may be told to do other things."""

    def __init__(self, world: DemoWorld) -> None:
        self.world = world
        self.pages: list[httpx.Response] = []
        self.visits: list[asyncio.Task[None]] = []

    async def get(self, url: str, **headers: str) -> httpx.Response:
        """Open a page of the loopback."""
        async with httpx.AsyncClient(trust_env=False, timeout=30) as browser:
            page = await browser.get(url, headers=headers)
        self.pages.append(page)
        return page

    async def callback(self, link: str, *, consents: bool = True) -> str:
        """Log in as john, up to the callback, which is not opened."""
        john = self.world.person(consents=consents)
        return await john.log_in(self.world.browser(), link)

    async def usual(self, link: str) -> None:
        await self.get(await self.callback(link))

    def run(
        self, visit: Visit | None = None, wanted: Wanted = WANTED, patience: float = 20.0
    ) -> Granted:
        async def flow() -> Granted:
            def show(link: str) -> None:
                self.visits.append(asyncio.ensure_future((visit or self.usual)(link)))

            address = IssuerAddress(ISSUER)
            try:
                return await log_in(wanted, address, self.world.browser(), show, patience)
            finally:
                await asyncio.gather(*self.visits)

        return self.world.runner.run(flow())

    def failed(self, visit: Visit | None = None, **more: object) -> str:
        with pytest.raises(OAuthLoginError) as caught:
            self.run(visit, **more)  # type: ignore[arg-type]  # as run takes them
        return str(caught.value)


@pytest.fixture
def terminal(world: DemoWorld) -> Terminal:
    return Terminal(world)


def changed(url: str, **members: str | None) -> str:
    query = dict(parse_qsl(urlsplit(url).query)) | members
    kept = {name: value for name, value in query.items() if value is not None}
    return urlsplit(url)._replace(query=urlencode(kept)).geturl()


def test_a_person_is_logged_in_for_one_server(terminal: Terminal) -> None:
    """The token is this person's, for this server, with these scopes."""
    granted = terminal.run()

    said = claims(granted.token)
    assert said["sub"] == JOHN
    assert said["aud"] == [FILES]
    assert said["scp"] == ["mcp:tools"]
    assert granted.seconds
    assert granted.token not in repr(granted)


def test_the_page_tells_that_it_can_be_closed_and_repeats_nothing(terminal: Terminal) -> None:
    """The code is in no page, no cache and no Referer."""
    terminal.run()
    (page,) = terminal.pages

    assert page.status_code == 200
    assert "You can close this page" in page.text
    assert "code" not in page.text
    assert page.headers["cache-control"] == "no-store"
    assert page.headers["referrer-policy"] == "no-referrer"


def test_the_request_has_pkce_a_state_and_one_resource(terminal: Terminal) -> None:
    """S256 and nothing weaker; the redirect URI is 127.0.0.1 with a port of the system's."""
    links: list[str] = []

    async def look(link: str) -> None:
        links.append(link)
        await terminal.usual(link)

    terminal.run(look)
    terminal.visits.clear()
    terminal.run(look)

    first, second = (dict(parse_qsl(urlsplit(link).query)) for link in links)
    assert first["code_challenge_method"] == "S256"
    assert first["resource"] == FILES
    assert urlsplit(first["redirect_uri"]).hostname == "127.0.0.1"
    assert first["state"] != second["state"]
    assert first["code_challenge"] != second["code_challenge"]


@pytest.mark.attack("login-state-swapped")
@pytest.mark.parametrize("state", ["x" * 43, "", None])
def test_an_answer_with_another_state_changes_nothing(
    state: str | None, terminal: Terminal
) -> None:
    """A page that sends a code of its own is refused, and the person's answer still counts."""

    async def swap(link: str) -> None:
        url = await terminal.callback(link)
        assert (await terminal.get(changed(url, state=state, code="evil"))).status_code == 400
        await terminal.get(url)

    assert claims(terminal.run(swap).token)["sub"] == JOHN


@pytest.mark.attack("login-iss-swapped")
@pytest.mark.parametrize("iss", ["https://evil.example.test", "", None])
def test_an_answer_of_another_issuer_ends_the_log_in(iss: str | None, terminal: Terminal) -> None:
    """Mix-up (RFC 9207): no code is sent anywhere; `iss` that was promised cannot be left out."""

    async def swap(link: str) -> None:
        await terminal.get(changed(await terminal.callback(link), iss=iss))

    assert "iss" in terminal.failed(swap)
    assert terminal.world.issuer.memory.codes  # not exchanged


def test_a_second_answer_is_too_late(terminal: Terminal) -> None:
    """The first answer counts; the next is told so."""

    async def twice(link: str) -> None:
        url = await terminal.callback(link)
        first, second = await asyncio.gather(terminal.get(url), terminal.get(url))
        assert 200 in (first.status_code, second.status_code)

    assert claims(terminal.run(twice).token)["sub"] == JOHN


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"path": "/other"}, id="path"),
        pytest.param({"headers": {"host": "evil.example.test"}}, id="host"),
        pytest.param({"twice": True}, id="state-twice"),
    ],
)
def test_what_is_no_answer_is_refused(change: dict[str, object], terminal: Terminal) -> None:
    """Another path, another name for this machine (rebinding), a parameter twice."""

    async def odd(link: str) -> None:
        url = await terminal.callback(link)
        sent = url + "&code=x" if "twice" in change else url
        if "path" in change:
            sent = urlsplit(url)._replace(path="/other").geturl()
        headers = {"host": "evil.example.test"} if "headers" in change else {}
        assert (await terminal.get(sent, **headers)).status_code in (400, 404)
        await terminal.get(url)

    assert terminal.run(odd).token


def test_a_connection_that_says_nothing_keeps_no_terminal(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log-in ends with its answer, whoever else is connected."""
    monkeypatch.setattr(loopback, "_PATIENCE", 300.0)

    async def scene() -> None:
        async with asyncio.timeout(60):
            async with Loopback("/callback", lambda _: True) as page:
                at = urlsplit(page.redirect_uri)
                _, silent = await asyncio.open_connection(at.hostname, at.port)
                assert (await terminal.get(f"{page.redirect_uri}?code=x")).status_code == 200
                assert await page.answer() == {"code": "x"}
            silent.close()

    asyncio.run(scene())


@pytest.mark.parametrize(
    "data", [b"", b"GET /callback", b"GET http://[ HTTP/1.1\r\n\r\n", b"x" * 20_000 + b"\r\n\r\n"]
)
def test_half_a_request_ends_nothing(data: bytes, terminal: Terminal) -> None:
    """What is no HTTP is dropped, and the log-in goes on."""

    async def odd(link: str) -> None:
        url = await terminal.callback(link)
        port = urlsplit(url).port
        assert port is not None
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(data)
        writer.close()
        await terminal.get(url)

    assert terminal.run(odd).token


def test_a_person_who_does_not_agree_is_told_as_such(terminal: Terminal) -> None:
    """access_denied, in words."""

    async def decline(link: str) -> None:
        await terminal.get(await terminal.callback(link, consents=False))

    wanted = replace(WANTED, scopes=("mcp:tools", "offline_access"))
    assert "access_denied" in terminal.failed(decline, wanted=wanted)


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (replace(WANTED, scopes=("nonsense",)), "invalid_scope; scopes of"),
        (replace(WANTED, resource="https://x.example.test"), "invalid_target; audience of"),
    ],
)
def test_what_the_issuer_does_not_allow_is_told_with_its_remedy(
    wanted: Wanted, words: str, terminal: Terminal
) -> None:
    """An error of the issuer comes with the key of Authelia's configuration that mends it."""
    assert words in terminal.failed(wanted=wanted)


def test_an_unknown_client_ends_by_time_out_with_a_hint(terminal: Terminal) -> None:
    """The issuer shows such errors on its own page; the terminal says where to look."""

    async def nothing(_: str) -> None:
        return

    told = terminal.failed(nothing, wanted=replace(WANTED, client_id="nobody"), patience=0.01)

    assert "client" in told
    assert "http://127.0.0.1/callback" in told


def test_an_issuer_without_metadata_is_told(terminal: Terminal) -> None:
    """Nothing is opened where nobody knows where to."""

    async def flow() -> None:
        transport = httpx.MockTransport(lambda _: httpx.Response(404))
        async with httpx.AsyncClient(transport=transport) as client:
            await log_in(WANTED, IssuerAddress(ISSUER), client, pytest.fail, 1)

    with pytest.raises(OAuthLoginError, match="metadata"):
        terminal.world.runner.run(flow())


@pytest.mark.parametrize(
    ("status", "answer", "words"),
    [
        (400, b'{"error":"invalid_grant"}', "invalid_grant"),
        (401, b'{"error":"invalid_client"}', "confidential"),
        (400, b'{"error":"\\u001b[2J"}', "an unknown error"),
        (500, b"<html>", "no JSON"),
        (200, b"[]", "no JSON object"),
        (200, b'{"token_type":"bearer"}', "no access token"),
        (200, b'{"access_token":"a b","token_type":"bearer"}', "no access token"),
        (200, b'{"access_token":"a\\r\\nb","token_type":"bearer"}', "no access token"),
        (200, b'{"access_token":"a","token_type":"DPoP"}', "no bearer token"),
        (200, b" " * 70_000, "too long"),
    ],
)
def test_a_bad_token_answer_is_refused(
    status: int, answer: bytes, words: str, terminal: Terminal
) -> None:
    """What is not one bearer token is never written down."""
    real = terminal.world.browser()

    async def reply(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            return httpx.Response(status, stream=httpx.ByteStream(answer))
        document = await real.get(str(request.url))
        return httpx.Response(200, stream=httpx.ByteStream(document.content))

    async def flow() -> None:
        def show(link: str) -> None:
            terminal.visits.append(asyncio.ensure_future(terminal.usual(link)))

        async with httpx.AsyncClient(transport=httpx.MockTransport(reply)) as client:
            try:
                await log_in(WANTED, IssuerAddress(ISSUER), client, show, 20)
            finally:
                await asyncio.gather(*terminal.visits)

    with pytest.raises(OAuthLoginError, match=words):
        terminal.world.runner.run(flow())
