"""Questions over real HTTP: to an issuer that behaves, and to hostile ones."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final

import jwt
import pytest

from authz.core.principal import Principal
from authz.tokens.client_auth import ClientAuth, ClientSecretBasic, ClientSecretPost, PrivateKeyJwt
from authz.tokens.introspection_cache import Ages, IntrospectionCache
from authz.tokens.introspection_endpoint import IntrospectionEndpoint
from authz.tokens.introspector import Introspector
from authz.tokens.issuer import IssuerAddress
from authz.tokens.issuer_http import IssuerError, IssuerFault, issuer_client
from tests.support.introspection import ASK, IntrospectionSite, named, site
from tests.tokens.opaque import ANSWER, TOKEN, UNAVAILABLE, junk, said
from tests.tokens.test_client_auth import pem
from tests.tokens.test_issuer import (
    HTML,
    OAUTH,
    REDIRECT,
    TRUST,
    ZIPPED,
    Play,
    Writer,
    answer,
    document,
    metadata,
)
from tests.tokens.token_factory import ISSUER, NOW, RULES, ec_signer, outcome_of

AUTH: Final = PrivateKeyJwt("authz", pem(ec_signer().key), ISSUER)


@asynccontextmanager
async def asking(
    url: str, auth: ClientAuth = AUTH, *, total: float = 5.0
) -> AsyncIterator[IntrospectionEndpoint]:
    async with issuer_client(timeout=5.0, verify=TRUST, connections=8, kept=8) as client:
        yield IntrospectionEndpoint(IssuerAddress(ISSUER, url), auth, client, total=total)


GOOD: Final = document(**ANSWER)


def asked(
    page: bytes | Play,
    names: bytes | None = None,
    *,
    auth: ClientAuth = AUTH,
    total: float = 5.0,
    times: int = 1,
) -> tuple[list[Mapping[str, object] | IssuerFault], IntrospectionSite]:
    """Ask an issuer so many times: what it answered, and what it saw."""

    async def run() -> tuple[list[Mapping[str, object] | IssuerFault], IntrospectionSite]:
        found: list[Mapping[str, object] | IssuerFault] = []
        async with site(page, names) as served, asking(served.url, auth, total=total) as endpoint:
            for _ in range(times):
                try:
                    found.append(await endpoint.ask(TOKEN))
                except IssuerError as error:
                    found.append(error.fault)
        return found, served

    return asyncio.run(run())


# --- what is sent -----------------------------------------------------------------------------


def test_a_question_goes_inside_under_the_name_outside() -> None:
    """The endpoint of the metadata is asked at the internal address, with forwarded headers."""
    found, served = asked(GOOD, times=3)

    assert found == [ANSWER] * 3
    assert served.paths == [f"GET {OAUTH}", *[f"POST {ASK}"] * 3]
    headers, form = served.forms[0]
    assert headers["x-forwarded-proto"] == "https"
    assert headers["x-forwarded-host"] == "auth.example.test"
    assert headers["content-type"] == "application/x-www-form-urlencoded"
    assert headers["accept-encoding"] == "identity"
    assert "authorization" not in headers
    assert form["token"] == [TOKEN]
    assert form["token_type_hint"] == ["access_token"]


def test_each_question_has_an_assertion_of_its_own() -> None:
    """No two questions carry one `jti`: Authelia refuses the second."""
    _, served = asked(GOOD, times=5)

    assertions = {form["client_assertion"][0] for _, form in served.forms}
    claims = [
        jwt.decode(each, ec_signer().key.public_key(), ["ES256"], audience=ISSUER)
        for each in assertions
    ]
    assert len({each["jti"] for each in claims}) == 5


@pytest.mark.parametrize(
    ("auth", "header", "form"),
    [
        (ClientSecretBasic("a", "b"), "basic ytpi", None),
        (ClientSecretPost("a", "b"), None, ["b"]),
    ],
)
def test_a_secret_is_sent_where_it_belongs(
    auth: ClientAuth, header: str | None, form: list[str] | None
) -> None:
    """Basic in the header alone, post in the form alone."""
    _, served = asked(GOOD, auth=auth)

    headers, sent = served.forms[0]
    assert headers.get("authorization") == header
    assert sent.get("client_secret") == form


def test_the_metadata_is_read_once_for_all_who_ask() -> None:
    """Eight first questions at once read the metadata once."""

    async def run() -> IntrospectionSite:
        async with site(GOOD) as served, asking(served.url) as endpoint:
            await asyncio.gather(*(endpoint.ask(junk()) for _ in range(8)))
        return served

    paths = asyncio.run(run()).paths

    assert paths.count(f"GET {OAUTH}") == 1
    assert paths.count(f"POST {ASK}") == 8


def test_after_a_fault_the_metadata_is_read_again() -> None:
    """An issuer that has moved its endpoint is found again."""
    _, served = asked(answer(b"", status="404 Not Found"), times=2)

    assert served.paths == [f"GET {OAUTH}", f"POST {ASK}"] * 2


# --- what comes back --------------------------------------------------------------------------


async def _drip(writer: Writer) -> None:
    """Send a byte now and then, so that no single read ever times out."""
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.01)


async def _say_nothing(_: Writer) -> None:
    await asyncio.sleep(3600)


async def _flood(writer: Writer) -> None:
    """Send 50 MB without saying how much it will be."""
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    for _ in range(50):
        writer.write(b" " * (1 << 20))
        await writer.drain()


async def _hang_up(writer: Writer) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{")
    await writer.drain()


UNAUTHORIZED: Final = answer(b'{"error":"request_unauthorized"}', status="401 Unauthorized")
BUSY: Final = answer(b"", status="429 Too Many Requests", more="retry-after: 60\r\n")
HOSTILE: Final[dict[str, tuple[IssuerFault, bytes | Play]]] = {
    "redirect": (IssuerFault.STATUS, REDIRECT),
    "redirect-that-keeps-the-form": (
        IssuerFault.STATUS,
        answer(b"", status="307 Temporary Redirect", more="location: http://127.0.0.1:1/\r\n"),
    ),
    "wrong-credentials": (IssuerFault.UNAUTHORIZED, UNAUTHORIZED),
    "server-error": (
        IssuerFault.STATUS,
        answer(b'{"active":true}', status="500 Internal Server Error"),
    ),
    "active-with-a-403": (IssuerFault.STATUS, answer(json.dumps(ANSWER).encode(), status="403 No")),
    "too-many": (IssuerFault.STATUS, BUSY),
    "html-with-200": (IssuerFault.MALFORMED, answer(HTML)),
    "empty": (IssuerFault.MALFORMED, answer(b"")),
    "array": (IssuerFault.MALFORMED, answer(b'[{"active":true}]')),
    "true": (IssuerFault.MALFORMED, answer(b"true")),
    "active-twice": (IssuerFault.MALFORMED, answer(b'{"active":false,"active":true}')),
    "two-documents": (IssuerFault.MALFORMED, answer(b'{"active":false}{"active":true}')),
    "100000-deep": (IssuerFault.MALFORMED, answer(b'{"active":true,"x":' + b"[" * 60_000)),
    "bad-utf-8": (IssuerFault.MALFORMED, answer(b'{"active":true,"sub":"\xff"}')),
    "compressed": (IssuerFault.MALFORMED, ZIPPED),
    "a-signed-answer": (IssuerFault.MALFORMED, answer(b"eyJhbGciOiJub25lIn0.e30.")),
    "64-KiB": (IssuerFault.TOO_LARGE, answer(b'{"active":true,"x":"' + b"x" * (64 << 10) + b'"}')),
    "50-MB-unannounced": (IssuerFault.TOO_LARGE, _flood),
    "hangs-up": (IssuerFault.UNREACHABLE, _hang_up),
    "not-http": (IssuerFault.UNREACHABLE, b"\x16\x03\x01 hello\r\n\r\n"),
    "header-flood": (IssuerFault.UNREACHABLE, answer(b"{}", more=f"x: {'y' * 200_000}\r\n")),
}


@pytest.mark.parametrize(("fault", "page"), HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.attack("introspection-hostile")
def test_a_hostile_answer_is_a_fault(fault: IssuerFault, page: bytes | Play) -> None:
    """Redirects, HTML, giants, errors that say `active`: a fault of the issuer, and bounded."""
    found, served = asked(page)

    assert found == [fault]
    assert len(served.forms) == 1


@pytest.mark.parametrize("play", [_drip, _say_nothing])
@pytest.mark.attack("introspection-late")
def test_a_slow_issuer_is_given_up(play: Play) -> None:
    """The whole question has a bound, whatever each single read takes."""
    assert asked(play, total=0.3)[0] == [IssuerFault.LATE]


@pytest.mark.parametrize("play", [_drip, _say_nothing])
def test_slow_metadata_is_given_up_too(play: Play) -> None:
    """Who waits for where to ask waits no longer, and asks nobody."""

    async def run() -> None:
        async with site(GOOD) as served, asking(served.url, total=0.3) as endpoint:
            served.metadata = play
            for _ in range(2):
                with pytest.raises(IssuerError) as raised:
                    await endpoint.ask(TOKEN)
                assert raised.value.fault is IssuerFault.LATE
            assert served.forms == []

    asyncio.run(run())


@pytest.mark.parametrize(
    ("names", "fault"),
    [
        (metadata(), IssuerFault.FOREIGN_ADDRESS),
        (named(None), IssuerFault.FOREIGN_ADDRESS),
        (named("http://evil.example/introspect"), IssuerFault.FOREIGN_ADDRESS),
        (named("file:///etc/passwd"), IssuerFault.FOREIGN_ADDRESS),
        (named(7), IssuerFault.FOREIGN_ADDRESS),
        (
            metadata(issuer=f"{ISSUER}/", introspection_endpoint=f"{ISSUER}{ASK}"),
            IssuerFault.WRONG_ISSUER,
        ),
        (answer(HTML), IssuerFault.MALFORMED),
    ],
)
@pytest.mark.attack("introspection-elsewhere")
def test_no_token_goes_just_anywhere(names: bytes, fault: IssuerFault) -> None:
    """Tokens and credentials go to the issuer's own origin or over https; else nowhere."""
    found, served = asked(GOOD, names)

    assert found == [fault]
    assert served.forms == []


# --- together ---------------------------------------------------------------------------------


async def introspected(
    page: bytes | Play,
    scene: Callable[[Introspector, IntrospectionSite], Awaitable[None]],
    ages: Ages,
) -> None:
    async with site(page) as served, asking(served.url, total=5.0) as endpoint:
        lookups = IntrospectionCache(endpoint, RULES, ages, clock=lambda: NOW)
        introspector = Introspector(lookups, clock=lambda: NOW)
        try:
            await scene(introspector, served)
        finally:
            await introspector.aclose()


@pytest.mark.attack("introspection-coalesced")
def test_a_thousand_at_once_are_one_request() -> None:
    """Over a real connection too: a thousand with one token, one question upstream."""

    async def scene(introspector: Introspector, served: IntrospectionSite) -> None:
        found = await asyncio.gather(*(introspector.principal(TOKEN) for _ in range(1000)))
        assert isinstance(found[0], Principal)
        assert len(set(found)) == 1
        assert served.paths.count(f"POST {ASK}") == 1

    asyncio.run(introspected(GOOD, scene, Ages(deadline=5.0)))


@pytest.mark.parametrize(
    "page", [document(**said(active="true")), answer(HTML), UNAUTHORIZED, _say_nothing, REDIRECT]
)
@pytest.mark.attack("introspection-hostile")
def test_a_broken_issuer_lets_nobody_in_and_throws_nothing_away(page: bytes | Play) -> None:
    """What no issuer should answer is a 503 for the caller, within its deadline."""

    async def scene(introspector: Introspector, _: IntrospectionSite) -> None:
        assert await outcome_of(introspector.principal(TOKEN)) == UNAVAILABLE

    asyncio.run(introspected(page, scene, Ages(deadline=0.2)))
