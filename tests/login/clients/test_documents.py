"""Documents: what they must say, whose log-ins they name, and how they are looked up."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.login.clients.documents import Documents, document_host, read_document
from authz.login.clients.faults import DocumentFault
from authz.login.clients.fetching import Fetched, FetchError
from authz.login.clients.identity import identify
from authz.login.clients.lookup import LONGEST_AGE, PAUSE, SHORTEST_AGE, DocumentError
from authz.login.clients.redirects import RedirectRules
from authz.login.protocol.values import ClientKind, OAuthClient
from authz.tokens.bulkhead import Bulkhead, TokenBucket
from tests.login.clients.assertion_kit import EC_KEY, public_jwk
from tests.tokens.opaque import settled

HOST = "client.example.test"
URL = f"https://{HOST}/client.json"
CURSOR = "cursor://anysphere.cursor-mcp/oauth/callback"
RULES = RedirectRules(frozenset({CURSOR}))
CALLBACK = f"https://{HOST}/cb"


def document(**changes: Any) -> bytes:
    said = {"client_id": URL, "client_name": "A client", "redirect_uris": [CALLBACK], **changes}
    return json.dumps({name: value for name, value in said.items() if value != "absent"}).encode()


def read(**changes: Any) -> OAuthClient:
    return read_document(URL, HOST, document(**changes), RULES)


# --- the URL -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        URL,
        "https://claude.ai/oauth/mcp-oauth-client-metadata",
        "https://vscode.dev/oauth/client-metadata.json",
        "https://xn--bcher-kva.example/a/b/",
    ],
)
def test_a_url_of_one_spelling_can_be_an_id(url: str) -> None:
    """https, a name of the open Internet, a path, and nothing else."""
    assert document_host(url) == url.split("/")[2]


@pytest.mark.attack("document-url")
@pytest.mark.parametrize(
    "url",
    [
        "https://client.example.test",
        "https://client.example.test/",
        "http://client.example.test/c",
        "HTTPS://client.example.test/c",
        "https://Client.example.test/c",
        "https://client.example.test:443/c",
        "https://client.example.test:8443/c",
        "https://client.example.test./c",
        "https://user@client.example.test/c",
        "https://user:pw@client.example.test/c",
        "https://client.example.test/c?x",
        "https://client.example.test/c?",
        "https://client.example.test/c#x",
        "https://client.example.test/./c",
        "https://client.example.test/a/../c",
        "https://client.example.test/a/..",
        "https://client.example.test/%2e%2e/c",
        "https://client.example.test//c",
        "https://client.example.test/a//c",
        "https://client.example.test\\c",
        "https://client.example.test/c\n",
        "https://client.example.test/c d",
        "https://client.example.test/ü",
        "https://clіent.example.test/c",  # noqa: RUF001 - a Cyrillic letter
        "https://client_x.example.test/c",
        "https://-client.example.test/c",
        "https://localhost/c",
        "https://metadata/c",
        "https://127.0.0.1/c",
        "https://127.1/c",
        "https://2130706433/c",
        "https://0x7f.0x1/c",
        "https://a.0x1/c",
        "https://[::1]/c",
        "https:///c",
        "https://client.example.test/" + "a" * 512,
        "https://" + "a." * 130 + "test/c",
        "https://" + "a" * 64 + ".test/c",
    ],
)
def test_any_other_url_is_no_id(url: str) -> None:
    """What parsers could read in two ways never reaches one."""
    assert document_host(url) is None


# --- what it says --------------------------------------------------------------------------------


def test_a_document_describes_a_client() -> None:
    """Its host is its name."""
    assert read(token_endpoint_auth_method="none", scope="x", logo_uri="https://evil/") == (
        OAuthClient(URL, ClientKind.DOCUMENT, "A client", HOST, (CALLBACK,), None)
    )
    assert read(client_name="absent").client_name == HOST
    assert read(client_name="\u202e").client_name == HOST


def test_log_ins_may_end_elsewhere_and_what_no_client_may_have_is_left_out() -> None:
    """Gemini's end at another host than its documents': admitted, and named by that host."""
    own = [CALLBACK, f"https://{HOST}:443/x"]
    foreign = [
        "https://redirect.example/cb",
        f"https://{HOST}.evil.example/cb",
        f"https://x.{HOST}/cb",
        f"https://{HOST}:8443/cb",
        "http://127.0.0.1/cb",
        CURSOR,
    ]
    refused = [f"https://{HOST}@evil.example/cb", f"http://{HOST}/cb", "evil://x"]
    client = read(redirect_uris=[*refused, *foreign, *own])

    assert client.redirect_uris == (*foreign, *own)
    assert {identify(client, uri).name for uri in own} == {f"https://{HOST}"}
    assert [identify(client, uri).name for uri in foreign] == [
        "dynamic/redirect.example",
        f"dynamic/{HOST}.evil.example",
        f"dynamic/x.{HOST}",
        f"dynamic/{HOST}",
        "dynamic/loopback",
        "dynamic/cursor",
    ]


@pytest.mark.attack("document-of-another")
@pytest.mark.parametrize(
    "changes",
    [
        {"client_id": "absent"},
        {"client_id": None},
        {"client_id": URL + "/"},
        {"client_id": URL.upper()},
        {"client_id": "https://claude.ai/oauth/mcp-oauth-client-metadata"},
        {"client_id": [URL]},
        {"redirect_uris": ["javascript:alert(1)"]},
        {"redirect_uris": []},
        {"redirect_uris": "absent"},
        {"redirect_uris": CALLBACK},
        {"redirect_uris": [f"{CALLBACK}/{n}{'x' * 400}" for n in range(20)]},
        {"client_secret": "x"},
        {"client_secret": None},
        {"client_secret_expires_at": 0},
        {"token_endpoint_auth_method": "client_secret_post"},
        {"token_endpoint_auth_method": "private_key_jwt"},
        {"token_endpoint_auth_method": ["none"]},
        {"token_endpoint_auth_method": "private_key_jwt", "jwks": {"keys": []}},
        {
            "token_endpoint_auth_method": "private_key_jwt",
            "token_endpoint_auth_methods_supported": "none",
        },
        {"grant_types": ["client_credentials"]},
        {"response_types": ["token"]},
        {"client_name": 7},
    ],
)
def test_a_document_that_cannot_be_its_urls_is_refused(changes: dict[str, Any]) -> None:
    """Another id, log-ins that end elsewhere, secrets, keys, or no way to log in here."""
    with pytest.raises(DocumentError):
        read(**changes)


KEYS = {"keys": [public_jwk(EC_KEY, "k1")]}
KEY_AT = {"token_endpoint_auth_method": "private_key_jwt", "jwks_uri": f"https://{HOST}/jwks.json"}
KEY_IN = {"token_endpoint_auth_method": "private_key_jwt", "jwks": KEYS}


@pytest.mark.parametrize("said", [KEY_AT, KEY_IN])
def test_a_client_whose_document_names_keys_has_to_authenticate(said: dict[str, Any]) -> None:
    """The declared method counts, whatever else it lists (ChatGPT's lists `none` besides)."""
    for more in ({}, {"token_endpoint_auth_methods_supported": ["none", "private_key_jwt"]}):
        how = read(**said, **more).authentication
        assert how is not None
        assert how.jwks_uri == said.get("jwks_uri", "")
        assert json.loads(how.jwks or "null") == said.get("jwks")
        assert "RS256" in how.algorithms
    narrow = read(**said, token_endpoint_auth_signing_alg="ES256").authentication
    assert narrow is not None
    assert narrow.algorithms == {"ES256"}


@pytest.mark.parametrize(
    ("said", "keyed"),
    [
        ({}, False),
        ({"token_endpoint_auth_method": "none", "jwks": KEYS}, False),
        ({"token_endpoint_auth_methods_supported": ["none", "private_key_jwt"]}, False),
        ({"token_endpoint_auth_method": "client_secret_post",
          "token_endpoint_auth_methods_supported": ["none"]}, False),
        ({"token_endpoint_auth_methods_supported": ["private_key_jwt"], "jwks": KEYS}, True),
        ({"token_endpoint_auth_method": "client_secret_basic", "jwks": KEYS,
          "token_endpoint_auth_methods_supported": ["private_key_jwt"]}, True),
    ],
)  # fmt: skip
def test_of_several_ways_the_one_without_a_key_is_taken(said: dict[str, Any], keyed: bool) -> None:
    """Where the client does not declare that it authenticates."""
    assert (read(**said).authentication is not None) is keyed


@pytest.mark.attack("document-keys")
@pytest.mark.parametrize(
    "changes",
    [
        {"jwks_uri": "absent"},
        {"jwks": KEYS},
        {"jwks_uri": "http://client.example.test/jwks.json"},
        {"jwks_uri": "https://127.0.0.1/jwks.json"},
        {"jwks_uri": "https://localhost/jwks.json"},
        {"jwks_uri": "https://client.example.test:8443/jwks.json"},
        {"jwks_uri": "https://client.example.test/jwks.json?x"},
        {"jwks_uri": 7},
        {"token_endpoint_auth_signing_alg": "HS256"},
        {"token_endpoint_auth_signing_alg": "none"},
        {"token_endpoint_auth_signing_alg": ["RS256"]},
        {"jwks_uri": "absent", "jwks": {"keys": []}},
        {"jwks_uri": "absent", "jwks": "x"},
        {"jwks_uri": "absent", "jwks": {"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}},
        {"jwks_uri": "absent", "jwks": {"keys": [public_jwk(EC_KEY, f"k{n}") for n in range(9)]}},
        {"jwks_uri": "absent", "jwks": {**KEYS, "x": "y" * 9000}},
        {"jwks_uri": "absent", "jwks": KEYS, "token_endpoint_auth_signing_alg": "RS256"},
    ],
)
def test_keys_that_prove_nothing_make_no_client(changes: dict[str, Any]) -> None:
    """None, two places, a place inside, a shared secret, another algorithm, too many."""
    with pytest.raises(DocumentError) as caught:
        read(**{**KEY_AT, **changes})
    assert caught.value.fault is DocumentFault.UNUSABLE


@pytest.mark.attack("document-hostile")
@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"null", b"<html>", b"\xff", b"[" * 9999, document() * 2, b"\xef\xbb\xbf{}"],
)
def test_what_is_no_strict_json_is_no_document(body: bytes) -> None:
    """Two documents, HTML, another encoding, a tower."""
    with pytest.raises(DocumentError):
        read_document(URL, HOST, body, RULES)


@given(
    st.dictionaries(
        st.sampled_from(["client_name", "redirect_uris", "grant_types", "response_types"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text() | st.just(CALLBACK),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=8,
        ),
    )
)
def test_any_document_is_a_client_of_its_host_or_none(changes: dict[str, Any]) -> None:
    """And nothing else comes out of it."""
    try:
        client = read(**changes)
    except DocumentError:
        return
    assert client.document_host == HOST
    assert set(client.redirect_uris) <= {CALLBACK}


# --- looking up --------------------------------------------------------------------------------

AuthorizationResponse = Fetched | FetchError | DocumentError | Exception
AWAY = FetchError(DocumentFault.UNREACHABLE)
GONE = FetchError(DocumentFault.NOT_FOUND)
GOOD = Fetched(document(), None)


@dataclass
class DocumentDesk:
    """Documents over a web that answers as it is told, at a time that stands still."""

    answer: AuthorizationResponse = GOOD
    hosts: tuple[str, ...] | None = None
    bulkhead: Bulkhead | None = None
    capacity: int = 100
    now: float = 1000.0
    open: asyncio.Event | None = None
    # Hosts that begin with `slow` answer when this is set.
    slow: asyncio.Event | None = None
    requester: str = ""
    asked: list[str] = field(default_factory=list)
    busy: int = 0
    busiest: int = 0
    documents: Documents = field(init=False)

    def __post_init__(self) -> None:
        self.documents = Documents(
            self._fetch,
            RULES,
            self.hosts,
            bulkhead=self.bulkhead,
            capacity=self.capacity,
            patience=0.05 if self.slow is None else 60,
            requester=lambda: self.requester,
            clock=lambda: self.now,
        )

    async def _fetch(self, url: str, host: str) -> Fetched:
        self.asked.append(url)
        self.busy += 1
        self.busiest = max(self.busiest, self.busy)
        try:
            if self.open is not None:
                await self.open.wait()
            if self.slow is not None and host.startswith("slow"):
                await self.slow.wait()
        finally:
            self.busy -= 1
        if isinstance(self.answer, Exception):
            raise self.answer
        if url == URL:
            return self.answer
        own = document(client_id=url, redirect_uris=[f"https://{host}/cb"])
        return Fetched(own, self.answer.max_age)

    def ask(self, requester: str, *urls: str) -> list[asyncio.Task[OAuthClient | str]]:
        """Begin look-ups from an address."""

        async def asking(url: str) -> OAuthClient | str:
            self.requester = requester
            return await self.outcome(url)

        return [asyncio.create_task(asking(url)) for url in urls]

    async def outcome(self, url: str = URL) -> OAuthClient | str:
        try:
            return await self.documents.find(url)
        except DocumentError as error:
            return error.description


def play(scene: Callable[[DocumentDesk], Awaitable[None]], **how: Any) -> DocumentDesk:
    desk = DocumentDesk(**how)

    async def played() -> None:
        try:
            await scene(desk)
        finally:
            await desk.documents.aclose()

    asyncio.run(played())
    return desk


def test_a_thousand_who_name_one_url_are_one_fetch() -> None:
    """Who comes while it is fetched waits for the same answer."""

    async def scene(desk: DocumentDesk) -> None:
        desk.open = asyncio.Event()
        waiting = [asyncio.create_task(desk.outcome()) for _ in range(1000)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        desk.open.set()
        assert len(set(await asyncio.gather(*waiting))) == 1

    assert play(scene).asked == [URL]


@pytest.mark.parametrize(
    ("said", "holds"),
    [(None, SHORTEST_AGE), (0, SHORTEST_AGE), (600, 600), (1 << 30, LONGEST_AGE)],
)
def test_a_document_holds_as_long_as_its_server_says_within_bounds(
    said: int | None, holds: float
) -> None:
    """Five minutes at least, a day at most."""

    async def scene(desk: DocumentDesk) -> None:
        await desk.outcome()
        desk.now += holds - 1
        await desk.outcome()
        assert len(desk.asked) == 1
        desk.now += 1
        await desk.outcome()
        assert len(desk.asked) == 2

    play(scene, answer=Fetched(document(), said))


@pytest.mark.parametrize("answer", [GONE, AWAY, Fetched(b"[]", 86_400), RuntimeError("x")])
def test_what_is_no_document_is_not_fetched_for_a_minute(answer: AuthorizationResponse) -> None:
    """Whatever is wrong with it; then it is tried again."""

    async def scene(desk: DocumentDesk) -> None:
        for _ in range(3):
            assert isinstance(await desk.outcome(), str)
        assert len(desk.asked) == 1
        desk.now += PAUSE
        desk.answer = GOOD
        assert isinstance(await desk.outcome(), OAuthClient)

    play(scene, answer=answer)


def test_a_client_stays_known_while_its_host_is_away() -> None:
    """For a day from when it was seen last, with a try a minute; not a second longer."""

    async def scene(desk: DocumentDesk) -> None:
        await desk.outcome()
        desk.answer = AWAY
        desk.now += SHORTEST_AGE
        for _ in range(3):
            assert isinstance(await desk.outcome(), OAuthClient)
        assert len(desk.asked) == 2
        desk.now = 1000 + LONGEST_AGE - 1
        assert isinstance(await desk.outcome(), OAuthClient)
        desk.now += 1
        assert isinstance(await desk.outcome(), str)
        assert isinstance(await desk.outcome(), str)

    assert len(play(scene).asked) == 4


@pytest.mark.parametrize("answer", [GONE, Fetched(b"[]", None), Fetched(document(), None)])
def test_what_a_host_says_now_counts(answer: AuthorizationResponse) -> None:
    """A document that was taken away or changed ends what was known."""

    async def scene(desk: DocumentDesk) -> None:
        await desk.outcome()
        desk.now += SHORTEST_AGE
        desk.answer = answer
        outcome = await desk.outcome()
        assert isinstance(outcome, OAuthClient) == (answer == GOOD)

    play(scene)


def test_only_listed_hosts_are_asked() -> None:
    """Where the operator lists hosts; an empty list is none."""

    async def scene(desk: DocumentDesk) -> None:
        assert isinstance(await desk.outcome(), OAuthClient) == (HOST in (desk.hosts or ()))
        assert isinstance(await desk.outcome(f"https://x.{HOST}/c"), str)

    assert play(scene, hosts=(HOST,)).asked == [URL]
    assert play(scene, hosts=()).asked == []
    assert play(scene, hosts=("example.test",)).asked == []


@pytest.mark.attack("document-url")
def test_what_is_no_url_of_a_document_is_not_fetched() -> None:
    """It never reaches the resolver."""

    async def scene(desk: DocumentDesk) -> None:
        assert isinstance(await desk.outcome("https://localhost/c"), str)
        assert isinstance(await desk.outcome(URL + "?x"), str)

    assert play(scene).asked == []


@pytest.mark.attack("document-flood")
def test_a_flood_of_urls_is_a_few_fetches_and_bounded() -> None:
    """Ten thousand names: no more fetches than the bulkhead lets through; nobody waits for ever."""

    async def scene(desk: DocumentDesk) -> None:
        desk.open = asyncio.Event()
        flood = [
            asyncio.create_task(desk.outcome(f"https://h{n}.example.test/c")) for n in range(10_000)
        ]
        outcomes = await asyncio.gather(*flood)
        assert set(outcomes) == {"it cannot be fetched right now; try again in a minute"}
        assert len(desk.documents._searches) <= 8 + 8 * 16

    desk = play(scene)

    assert desk.busiest <= 8
    assert len(desk.asked) <= 9


SLOW = tuple(f"https://slow{n}.example.test/c" for n in range(12))


@pytest.mark.attack("document-starvation")
def test_hosts_that_never_answer_keep_no_other_address_waiting() -> None:
    """One address names twelve, two of which are asked at a time; another's look-up goes through
    meanwhile, and those of ten more.
    """

    async def scene(desk: DocumentDesk) -> None:
        assert desk.slow is not None
        slow = desk.ask("stranger", *SLOW)
        await settled()
        assert desk.asked == list(SLOW[:2])

        for n in range(10):
            (other,) = desk.ask(f"person-{n}", f"https://h{n}.example.test/c")
            assert isinstance(await other, OAuthClient)
        assert not any(task.done() for task in slow)
        desk.slow.set()
        assert all(isinstance(each, OAuthClient) for each in await asyncio.gather(*slow))

    play(
        scene,
        slow=asyncio.Event(),
        bulkhead=Bulkhead(8, TokenBucket(1e9, 1e9, lambda: 0.0), share=2),
    )


@pytest.mark.attack("document-starvation")
def test_nobody_waits_in_the_line_of_another_address() -> None:
    """Where a stranger with a long line is in it for the URL that somebody else asks for: it is
    fetched once, at the turn of the other, and both have it.
    """

    async def scene(desk: DocumentDesk) -> None:
        assert desk.slow is not None
        slow = desk.ask("stranger", *SLOW, URL)
        await settled()
        (other,) = desk.ask("person", URL)
        assert isinstance(await other, OAuthClient)
        assert isinstance(await slow.pop(), OAuthClient)
        assert desk.asked == [*SLOW[:2], URL]

        desk.slow.set()
        await asyncio.gather(*slow)
        assert desk.asked == [*SLOW[:2], URL, *SLOW[2:]]
        assert desk.documents._searches == {}

    play(
        scene,
        slow=asyncio.Event(),
        bulkhead=Bulkhead(8, TokenBucket(1e9, 1e9, lambda: 0.0), share=2),
    )


@pytest.mark.attack("document-starvation")
def test_known_documents_that_become_slow_keep_no_other_address_waiting() -> None:
    """Renewals have no pace: a share bounds them all the same."""

    async def scene(desk: DocumentDesk) -> None:
        assert desk.slow is not None
        desk.slow.set()
        await asyncio.gather(*desk.ask("stranger", *SLOW))
        desk.slow.clear()
        desk.now += SHORTEST_AGE
        desk.asked.clear()
        slow = desk.ask("stranger", *SLOW)
        await settled()
        (other,) = desk.ask("person", URL)
        assert isinstance(await other, OAuthClient)
        assert desk.asked == [*SLOW[:2], URL]
        desk.slow.set()
        await asyncio.gather(*slow)

    play(
        scene,
        slow=asyncio.Event(),
        bulkhead=Bulkhead(8, TokenBucket(1e9, 1e9, lambda: 0.0), share=2),
    )


@pytest.mark.attack("document-starvation")
def test_who_is_turned_away_is_told_so_and_leaves_no_place_taken() -> None:
    """A line that is full makes room for another address; whoever had to leave may try again."""

    async def scene(desk: DocumentDesk) -> None:
        assert desk.slow is not None
        many = desk.ask("stranger", *(f"https://slow{n}.example.test/c" for n in range(17)))
        await settled()
        (other,) = desk.ask("person", URL)
        await settled()
        assert await many[-1] == "it cannot be fetched right now; try again in a minute"
        assert not other.done()

        desk.slow.set()
        assert isinstance(await other, OAuthClient)
        await asyncio.gather(*many)
        assert len(desk.asked) == 17
        assert desk.documents._searches == {}
        assert isinstance(
            await desk.ask("stranger", "https://slow16.example.test/c")[0], OAuthClient
        )

    play(
        scene,
        slow=asyncio.Event(),
        bulkhead=Bulkhead(1, TokenBucket(1e9, 1e9, lambda: 0.0), share=1),
    )


@pytest.mark.attack("document-flood")
def test_strangers_keep_to_a_pace() -> None:
    """As many at once as there may be, and then so many a second."""
    desk_bulkhead = Bulkhead(100, TokenBucket(4, 8, lambda: 1000.0))

    async def scene(desk: DocumentDesk) -> None:
        await asyncio.gather(*(desk.outcome(f"https://h{n}.example.test/c") for n in range(100)))

    assert len(play(scene, bulkhead=desk_bulkhead).asked) == 8


@pytest.mark.attack("document-flood")
def test_who_is_known_waits_for_no_stranger() -> None:
    """While strangers stand in line, a known document is renewed before them."""

    async def scene(desk: DocumentDesk) -> None:
        await desk.outcome()
        desk.now += SHORTEST_AGE
        desk.open = asyncio.Event()
        flood = [
            asyncio.create_task(desk.outcome(f"https://h{n}.example.test/c")) for n in range(50)
        ]
        await asyncio.sleep(0)
        again = asyncio.create_task(desk.outcome())
        await asyncio.sleep(0)
        desk.open.set()
        assert isinstance(await again, OAuthClient)
        await asyncio.gather(*flood)
        assert desk.asked.count(URL) == 2
        assert desk.asked.index(URL, 1) <= 9

    play(scene)


@pytest.mark.attack("document-flood")
def test_what_is_remembered_has_bounds() -> None:
    """So many documents, and so many that were no use."""
    free = Bulkhead(1000, TokenBucket(1e9, 1e9, lambda: 0.0))

    async def scene(desk: DocumentDesk) -> None:
        for n in range(50):
            await desk.outcome(f"https://good{n}.example.test/c")
            await desk.outcome("https://good0.example.test/c")
        desk.answer = GONE
        for n in range(50):
            await desk.outcome(f"https://bad{n}.example.test/c")
        assert len(desk.documents._known) == 10
        assert len(desk.documents._refused) == 10
        assert isinstance(await desk.outcome("https://good0.example.test/c"), OAuthClient)

    play(scene, bulkhead=free, capacity=10)


def test_ending_ends_fetches() -> None:
    """Nothing runs on."""

    async def scene(desk: DocumentDesk) -> None:
        desk.open = asyncio.Event()
        await desk.outcome()
        assert desk.busy == 1

    assert play(scene).busy == 0
