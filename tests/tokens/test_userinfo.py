"""Groups by the issuer's userinfo endpoint, and whatever else may come from there."""

import asyncio
from collections.abc import AsyncIterator, Mapping

import httpx
import pytest

from authz.core.ledger import UnavailableError
from authz.tokens.issuer import IssuerAddress
from authz.tokens.userinfo import TokenEndedError, UserInfo

ISSUER = "https://auth.example.test"
METADATA = {"issuer": ISSUER, "userinfo_endpoint": f"{ISSUER}/api/oidc/userinfo"}
ADA = {"sub": "s-ada", "groups": ["admins", "staff"]}


def streamed(answer: httpx.Response) -> httpx.Response:
    """Return an answer whose body is still to come."""

    async def body() -> AsyncIterator[bytes]:
        yield answer.content

    return httpx.Response(answer.status_code, headers=answer.headers, content=body())


def groups(
    answer: httpx.Response,
    metadata: Mapping[str, object] = METADATA,
    sent: list[httpx.Request] | None = None,
) -> frozenset[str]:
    """Ask for Ada's groups of an issuer that answers so."""

    def respond(request: httpx.Request) -> httpx.Response:
        if sent is not None:
            sent.append(request)
        is_metadata = request.url.path == "/.well-known/openid-configuration"
        return streamed(httpx.Response(200, json=metadata) if is_metadata else answer)

    async def ask() -> frozenset[str]:
        async with httpx.AsyncClient(transport=httpx.MockTransport(respond)) as client:
            source = UserInfo(IssuerAddress(ISSUER), client)
            return await source.groups("token-1", "s-ada", "192.0.2.10")

    return asyncio.run(ask())


def test_groups_are_asked_with_the_persons_token_and_address() -> None:
    """The token goes to the issuer's own endpoint, in the name of the person's address; a person
    without groups is in none.
    """
    sent = list[httpx.Request]()
    assert groups(httpx.Response(200, json=ADA), sent=sent) == {"admins", "staff"}
    assert sent[-1].headers["authorization"] == "Bearer token-1"
    assert sent[-1].headers["x-forwarded-for"] == "192.0.2.10"
    for none in (
        {"sub": "s-ada"},
        {"sub": "s-ada", "groups": None},
        {"sub": "s-ada", "groups": []},
    ):
        assert groups(httpx.Response(200, json=none)) == frozenset()


def test_a_token_that_the_issuer_takes_no_more_is_told_apart() -> None:
    """An answer 401 ends the session; it is no fault of the issuer's."""
    with pytest.raises(TokenEndedError):
        groups(httpx.Response(401))


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(httpx.Response(200, json={**ADA, "sub": "s-bob"}), id="another person"),
        pytest.param(httpx.Response(200, json={"groups": ["admins"]}), id="nobody"),
        pytest.param(httpx.Response(200, json={**ADA, "groups": "admins"}), id="no list"),
        pytest.param(httpx.Response(200, json={**ADA, "groups": {"admins": 1}}), id="an object"),
        pytest.param(httpx.Response(200, json={**ADA, "groups": ["admins", 1]}), id="a number"),
        pytest.param(httpx.Response(200, json={**ADA, "groups": ["a\nb"]}), id="controls"),
        pytest.param(httpx.Response(200, json={**ADA, "groups": [""]}), id="an empty name"),
        pytest.param(
            httpx.Response(200, json={**ADA, "groups": [f"g{n}" for n in range(257)]}), id="many"
        ),
        pytest.param(httpx.Response(200, text="<html>"), id="HTML"),
        pytest.param(httpx.Response(200, json=[ADA]), id="an array"),
        pytest.param(httpx.Response(200, content=b'{"sub":"s-ada"}' + b" " * 70_000), id="long"),
        pytest.param(
            httpx.Response(302, headers={"location": "https://evil.example"}), id="a redirect"
        ),
        pytest.param(httpx.Response(500), id="a fault"),
    ],
)
def test_what_is_no_answer_about_the_person_is_none(answer: httpx.Response) -> None:
    """It is a fault of the issuer's, and nobody is in a group by it."""
    with pytest.raises(UnavailableError):
        groups(answer)


@pytest.mark.parametrize(
    "metadata",
    [
        {**METADATA, "issuer": "https://evil.example"},
        {**METADATA, "userinfo_endpoint": "http://evil.example/userinfo"},
        {"issuer": ISSUER},
    ],
)
def test_a_token_goes_nowhere_but_where_the_issuer_says(metadata: Mapping[str, object]) -> None:
    """Metadata of another issuer, or an endpoint elsewhere without TLS, gets no token."""
    sent = list[httpx.Request]()
    with pytest.raises(UnavailableError):
        groups(httpx.Response(200, json=ADA), metadata, sent)
    assert not [request for request in sent if "authorization" in request.headers]
