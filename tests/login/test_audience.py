"""The audience of what Authelia gives: the consented server's alone, or the log-in ends."""

from dataclasses import replace
from typing import Any, get_args
from urllib.parse import parse_qsl

import pytest

from authz.ledger.keys import RedisKeys
from authz.login.protocol.granted_audience import TokenFault, audience_fault
from authz_demo.issuer.state import IssuerGrant
from authz_demo.issuer.values import Release
from tests.demo.kit import FILES, JOHN, NOTES, claims
from tests.login.conftest import Play
from tests.login.front import FrontDoorClient, FrontDoorStage

WRONG = [
    pytest.param((), TokenFault.EMPTY, id="empty"),
    pytest.param((NOTES,), TokenFault.FOREIGN, id="another server"),
    pytest.param((f"{FILES}/../notes",), TokenFault.FOREIGN, id="dot segments"),
    pytest.param((FILES, NOTES), TokenFault.WIDE, id="two servers"),
]


def granted(found: FrontDoorStage) -> list[IssuerGrant]:
    """What the stand-in remembers of log-ins."""
    return [code.grant for code in found.issuer.memory.codes.values()]


def spoil(found: FrontDoorStage, audience: tuple[str, ...]) -> None:
    """Let the stand-in grant another audience than was asked for, from the next code on."""

    class Codes(dict[str, Any]):
        def __setitem__(self, name: str, code: Any) -> None:
            code.grant.audience = audience
            super().__setitem__(name, code)

    found.issuer.memory.codes = Codes(found.issuer.memory.codes)


@pytest.mark.parametrize("release", get_args(Release))
def test_a_log_in_and_its_refreshes_are_for_the_server_with_any_release(
    play: Play, release: Release
) -> None:
    """`audience` is asked for once, when the request is pushed; `resource` is never sent."""

    async def scene(found: FrontDoorStage) -> None:
        found.issuer.config = replace(found.issuer.config, release=release)
        client = FrontDoorClient(found)
        await client.register()
        tokens = await client.tokens()
        renewed = (await client.refresh(tokens["refresh_token"])).json()
        for each in (tokens, renewed):
            assert claims(each["access_token"])["aud"] == [FILES]
        (pushed,) = found.upstream.calls("pushed-authorization-request")
        assert dict(parse_qsl(pushed.content.decode()))["audience"] == FILES
        for sent in found.upstream.sent:
            assert b"resource=" not in sent.content
        for sent in found.upstream.calls("token"):
            assert b"audience=" not in sent.content

    play(scene)


@pytest.mark.parametrize(("audience", "fault"), WRONG)
@pytest.mark.attack("a front-door token with an empty audience, or with another server's")
def test_a_log_in_with_another_audience_gives_no_code(
    play: Play, audience: tuple[str, ...], fault: str
) -> None:
    """Client and person are told that it is the log-in service, the log says what; all is ended."""

    async def scene(found: FrontDoorStage) -> None:
        spoil(found, audience)
        client = FrontDoorClient(found)
        await client.register()
        back = await client.log_in()
        assert back["error"] == "server_error"
        assert "not for this server" in back["error_description"]
        (line,) = [each for each in found.lines() if each.get("step") == "callback"]
        assert (line["outcome"], line["detail"]) == ("server_error", fault)
        assert len(found.upstream.calls("revocation")) == 1
        assert [grant.revoked for grant in granted(found)] == [True]
        assert await found.built.grants.of(JOHN) == ()
        assert found.keys("code") == []
        kept = found.valkey.command("GET", RedisKeys(found.deployment).login_fault)
        assert kept.decode().partition(" ")[2] == fault

    play(scene)


def test_an_opaque_access_token_is_told_with_its_cause(play: Play) -> None:
    """Authelia's default for a client: the log names the setting, so does what the doctor reads;
    client and person hear that it is the log-in service.
    """

    async def scene(found: FrontDoorStage) -> None:
        opaque = tuple(replace(each, access_token="opaque") for each in found.issuer.config.clients)
        found.issuer.config = replace(found.issuer.config, clients=opaque)
        client = FrontDoorClient(found)
        await client.register()
        back = await client.log_in()
        assert back["error"] == "server_error"
        assert "cannot read" in back["error_description"]
        (line,) = [each for each in found.lines() if each.get("step") == "callback"]
        # The outcome is a label of a metric.
        assert (line["outcome"], line["detail"]) == ("server_error", TokenFault.OPAQUE)
        assert "access_token_signed_response_alg" in line["detail"]
        assert (line["client"], line["server"]) == ("dynamic/loopback", "files")
        kept = found.valkey.command("GET", RedisKeys(found.deployment).login_fault)
        assert kept.decode().partition(" ")[2] == TokenFault.OPAQUE

    play(scene)


@pytest.mark.parametrize(("audience", "fault"), WRONG)
def test_a_refresh_that_gives_another_audience_ends_the_grant(
    play: Play, audience: tuple[str, ...], fault: str
) -> None:
    """The client is told to log in again, in words that name the log-in service."""

    async def scene(found: FrontDoorStage) -> None:
        client = FrontDoorClient(found)
        await client.register()
        tokens = await client.tokens()
        for grant in granted(found):
            grant.audience = audience
        answer = await client.refresh(tokens["refresh_token"])
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")
        assert "not for this server" in answer.json()["error_description"]
        (line,) = [each for each in found.lines() if each.get("step") == "refresh"]
        assert (line["outcome"], line["detail"]) == ("invalid_grant", fault)
        assert [grant.revoked for grant in granted(found)] == [True]
        assert await found.built.grants.of(JOHN) == ()

    play(scene)


@pytest.mark.parametrize(("audience", "fault"), WRONG)
def test_what_is_wrong_with_an_audience(audience: tuple[str, ...], fault: str) -> None:
    """One server, spelled as it is configured; a trailing slash is tolerated as elsewhere."""
    assert audience_fault(audience, FILES) == fault
    for good in ((FILES,), (f"{FILES}/",), (FILES, f"{FILES}/")):
        assert audience_fault(good, FILES) == ""
