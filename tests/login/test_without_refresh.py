"""Log-ins with and without a refresh token: which client gets one, and what its lack changes."""

from typing import Any
from urllib.parse import parse_qs

import pytest

from authz.core.principal import Person
from authz.login.web.own_grants import PersonsGrants
from tests.demo.kit import ISSUER, JOHN
from tests.login.conftest import Play
from tests.login.front import CLAUDE, FrontDoorClient, FrontDoorStage, john

BOTH = ["authorization_code", "refresh_token"]
NEVER = "front_door: {refresh_tokens: never, "


def setting(mode: str) -> Any:
    """Set `front_door.refresh_tokens`."""
    return lambda text: text.replace("front_door: {", f"front_door: {{refresh_tokens: {mode}, ")


def asked(found: FrontDoorStage) -> list[str]:
    """The scopes of the last request that was pushed."""
    sent = found.upstream.calls("pushed-authorization-request")[-1]
    return parse_qs(sent.content.decode())["scope"][0].split(" ")


@pytest.mark.parametrize(
    ("mode", "grant_types", "scope", "refreshes"),
    [
        ("unless_declined", BOTH, None, True),
        # RFC 7591's default is the code alone, but such clients take what they get.
        ("unless_declined", None, "mcp:tools", True),
        ("unless_declined", ["authorization_code"], "mcp:tools offline_access", False),
        ("on_request", BOTH, "mcp:tools", False),
        ("on_request", BOTH, "mcp:tools offline_access", True),
        ("on_request", BOTH, " offline_access", True),
        ("on_request", ["authorization_code"], "offline_access", False),
        ("never", BOTH, "mcp:tools offline_access", False),
    ],
)
def test_which_client_gets_a_refresh_token(
    play: Play, mode: str, grant_types: list[str] | None, scope: str | None, refreshes: bool
) -> None:
    """`offline_access`, for which Authelia asks the person again, is asked for then alone."""

    async def scene(found: FrontDoorStage) -> None:
        client = FrontDoorClient(found)
        more = {} if grant_types is None else {"grant_types": grant_types}
        registered = (await client.register(**more)).json()
        assert ("refresh_token" in registered["grant_types"]) is (
            grant_types is None or "refresh_token" in grant_types
        )
        page = await client.authorize(scope=scope)
        assert ("asks once more" in page.text) is refreshes
        tokens = await client.tokens(scope=scope)
        assert ("offline_access" in asked(found)) is refreshes
        assert ("refresh_token" in tokens) is refreshes

    play(scene, setting(mode))


def test_a_configured_client_gets_one(play: Play) -> None:
    """Nothing says that it cannot use it."""

    async def scene(found: FrontDoorStage) -> None:
        assert "refresh_token" in await FrontDoorClient(found, "claude", CLAUDE).tokens()

    play(scene)


def test_people_see_one_page_where_there_are_no_refresh_tokens(play: Play) -> None:
    """The stand-in asks for consent as Authelia does: here it does not."""

    async def scene(found: FrontDoorStage) -> None:
        client = FrontDoorClient(found)
        await client.register()
        # Whoever disagrees on a page of Authelia's would get no further.
        back = await client.log_in(john())
        assert "code" in back
        assert not any("/consent" in str(each.url) for each in found.upstream.sent)
        assert "offline_access" not in asked(found)

    play(scene, lambda text: text.replace("front_door: {", NEVER))


@pytest.mark.parametrize("how", ["person", "client"])
def test_an_end_without_a_refresh_token_ends_the_access_token_at_authelia(
    play: Play, how: str
) -> None:
    """It waits to be told like any other, with the access token in its place."""

    async def scene(found: FrontDoorStage) -> None:
        client = FrontDoorClient(found)
        await client.register(grant_types=["authorization_code"])
        tokens = await client.tokens()
        (grant,) = await found.built.grants.of(JOHN)
        if how == "person":
            person = Person(ISSUER, JOHN)
            await PersonsGrants(found.built.grants, found.built.ender).end(person, grant.id)
        else:
            await client.post("/revoke", token=tokens["access_token"])
        await found.built._outbox.revoke_all()
        assert found.keys("untold") == []
        told = [each.content.decode() for each in found.upstream.calls("revocation")]
        assert any(tokens["access_token"] in each for each in told)
        assert found.issuer.memory.tokens[tokens["access_token"]].grant.revoked

    play(scene)


def test_a_log_in_without_a_refresh_token_ends_with_its_access_token(play: Play) -> None:
    """It is not shown for the whole age of grants, nor found, when nothing of it passes."""

    async def scene(found: FrontDoorStage) -> None:
        client = FrontDoorClient(found)
        await client.register(grant_types=["authorization_code"])
        await client.tokens()
        grants = found.built.grants
        (grant,) = await grants.of(JOHN)
        (shown,) = await PersonsGrants(found.built.grants, found.built.ender).of(
            Person(ISSUER, JOHN)
        )
        assert shown.ends == grant.expires_at
        grants._clock = lambda: grant.expires_at + 1
        assert await grants.of(JOHN) == ()
        assert await grants.find(JOHN, grant.id) is None

    play(scene)


def test_where_the_setting_changes_tokens_of_before_are_refused(play: Play) -> None:
    """Authelia's client may not refresh any more: it is not asked, and the client logs in again."""

    async def scene(found: FrontDoorStage) -> None:
        client = FrontDoorClient(found)
        await client.register()
        tokens = await client.tokens()
        calls = len(found.upstream.calls("token"))
        found.built.refresh._refresh_tokens = "never"
        answer = await client.refresh(tokens["refresh_token"])
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")
        assert len(found.upstream.calls("token")) == calls

    play(scene)
