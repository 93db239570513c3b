"""The stand-in against what two releases of Authelia did with `audience`, `resource` and consent.

Recorded from 4.39.20 and from the master of 2026-08-22, which behaves as 4.39.21 and 4.39.22 do: a
confidential client whose requests are pushed (`door`), public ones under either
`requested_audience_mode`, and machines.
"""

from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx
import pytest

from authz_demo.issuer import RegisteredClient
from authz_demo.issuer.values import Release
from authz_demo.login_drivers import Credentials, FormDriver
from tests.demo.kit import FILES, ISSUER, NOTES, App, DemoWorld, claims, config, recorded

RECORDED: dict[str, dict[str, Any]] = recorded("audience")
RELEASES: dict[str, Release] = {"4.39.20": "4.39.20", "master of 2026-08-22": "4.39.21"}
# The stand-in knows the consent mode `implicit` alone, in which our clients are registered.
UNKNOWN = ("remember:",)
CASES = [
    pytest.param(recording, name, id=f"{RELEASES[recording]} {name}")
    for recording, cases in RECORDED.items()
    for name in cases
    if not name.startswith(UNKNOWN)
]


def clients(world: DemoWorld) -> tuple[RegisteredClient, ...]:
    """The recorded clients."""
    known = {client.client_id: client for client in config(world.clock).clients}
    public = replace(
        known["mcp-1fa"],
        scopes=("openid", "offline_access", "profile", "groups", "mcp:tools"),
        audience=(FILES, NOTES),
    )
    machine = known["machine"]
    return (
        replace(
            public,
            client_id="door",
            token_endpoint_auth_method="private_key_jwt",
            public_key=known["authz-stepup"].public_key,
            require_pushed=True,
        ),
        replace(public, client_id="explicit"),
        replace(public, client_id="implicit", requested_audience_mode="implicit"),
        replace(public, client_id="one", requested_audience_mode="implicit", audience=(FILES,)),
        replace(
            public,
            client_id="norefresh",
            grant_types=("authorization_code",),
            scopes=("openid", "profile", "mcp:tools"),
            access_token_lifetime=8 * 3600,
        ),
        replace(machine, client_id="machine", requested_audience_mode="explicit"),
        replace(machine, client_id="machine-implicit"),
    )


@dataclass
class Consents(FormDriver):
    """Answer as a person does, and count the pages that ask for consent."""

    shown: int = 0

    async def answer(
        self, browser: httpx.AsyncClient, person: Credentials, page: httpx.Response
    ) -> str:
        self.shown += 'name="decision"' in page.text
        return await super().answer(browser, person, page)


def given(answer: httpx.Response) -> dict[str, Any]:
    """What is recorded of a token answer."""
    body = answer.json()
    if answer.status_code != 200:
        return {"error": body["error"]}
    said = claims(body["access_token"])
    return {
        "aud": said["aud"],
        "lifetime": said["exp"] - said["iat"],
        "members": sorted(body),
        "scope": body.get("scope"),
    }


def code_of(app: App, asked: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """What comes of an authorization request, and its code; empty where there is none."""
    url = app.url(**asked)
    if app.client.require_pushed:
        parameters = app.parameters(**asked)
        pushed = app.post("/api/oidc/pushed-authorization-request", **parameters)
        if pushed.status_code != 201:
            return {"pushed": pushed.json()["error"]}, ""
        reference = {"client_id": app.client_id, "request_uri": pushed.json()["request_uri"]}
        url = f"{ISSUER}/api/oidc/authorization?{urlencode(reference)}"
    portal = Consents()
    back = app.world.runner.run(app.world.person().log_in(app.browser, url, portal))
    query = dict(parse_qsl(urlsplit(back).query))
    if "error" in query:
        return {"consents": portal.shown, "callback": query["error"]}, ""
    return {"consents": portal.shown}, query["code"]


@pytest.mark.slow
@pytest.mark.parametrize(("recording", "name"), CASES)
def test_the_stand_in_does_as_that_release_did(world: DemoWorld, recording: str, name: str) -> None:
    """Errors, consent, audience and members: of the request, the token and its refresh."""
    expected = RECORDED[recording][name]
    world.issuer.config = replace(
        world.issuer.config, clients=clients(world), release=RELEASES[recording]
    )
    app = App(world, expected["client"])
    if "revocation" in expected:
        _, code = code_of(app, {"scope": "openid mcp:tools", "audience": FILES})
        token = app.exchange(code).json()["access_token"]
        assert app.active(token) is expected["active_before"]
        answer = app.post("/api/oidc/revocation", token=token)
        assert answer.status_code == expected["revocation"]
        assert app.active(token) is expected["active_after"]
        return
    if expected["client"].startswith("machine"):
        answer = app.post(
            "/api/oidc/token",
            grant_type="client_credentials",
            scope="mcp:tools",
            **expected["ask"],
        )
        assert given(answer) == expected["token"]
        return
    found, code = code_of(app, expected["ask"])
    if code:
        answer = app.exchange(code, **expected.get("token_request", {}))
        found["token"] = given(answer)
        if "refresh" in expected:
            token = answer.json()["refresh_token"]
            found["refresh"] = given(app.refresh(token, **expected.get("refresh_request", {})))
    told = ("client", "ask", "token_request", "refresh_request")
    assert found == {each: value for each, value in expected.items() if each not in told}


def test_what_our_front_door_asks_for_is_granted_alike_by_both() -> None:
    """`audience` alone, and nothing at the token endpoint; `resource` is not."""
    old, new = RECORDED.values()
    for name in ("door: audience", "door: no offline_access", "door: revoked access token"):
        assert old[name] == new[name]
    assert old["door: audience"]["refresh"]["aud"] == [FILES]
    assert new["door: resource"]["token"]["aud"] == []
    assert old["door: both"] == {**old["door: both"], "pushed": "invalid_request"}
