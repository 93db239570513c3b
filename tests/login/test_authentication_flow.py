"""Clients that authenticate with `private_key_jwt`, through the whole front door."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from authz.login.clients.fetching import Fetched
from tests.login.clients.assertion_kit import EC_KEY, OTHER_KEY, TYPE, assertion, public_jwk
from tests.login.front import (
    GATEWAY,
    LOOPBACK,
    NOTES,
    FrontDoorClient,
    FrontDoorStage,
    john,
    onward,
)
from tests.login.test_attacks import consent_page, decide, told
from tests.login.test_identity_flow import record

Play = Callable[..., Any]
HOST = "client.example.test"
URL = f"https://{HOST}/client.json"
OWN = f"https://{HOST}/cb"
FOREIGN = "https://redirect.example/cb"
KEYS = {"keys": [public_jwk(EC_KEY, "k1")]}


def publish(found: FrontDoorStage, *uris: str, **said: Any) -> list[str]:
    """Let a document and its key set be there; return what is fetched."""
    fetched: list[str] = []

    async def fetch(url: str, host: str) -> Fetched:
        fetched.append(url)
        body = {
            "client_id": URL,
            "client_name": "ChatGPT",
            "redirect_uris": list(uris or (OWN,)),
            "token_endpoint_auth_method": "private_key_jwt",
            "token_endpoint_auth_methods_supported": ["none", "private_key_jwt"],
            "jwks_uri": f"https://{HOST}/jwks.json",
            **said,
        }
        return Fetched(json.dumps(body if url == URL else KEYS).encode(), 600)

    found.built._documents._fetch = fetch
    found.built._key_sets._fetch = fetch
    return fetched


def proof(audience: str = GATEWAY, **how: Any) -> dict[str, str]:
    text = assertion(URL, audience, **how)
    return {"client_assertion_type": TYPE, "client_assertion": text}


def keyed(found: FrontDoorStage, uri: str = OWN) -> FrontDoorClient:
    return FrontDoorClient(found, client_id=URL, redirect_uri=uri, resource=NOTES)


def error(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]


INVALID = (401, "invalid_client")


def test_a_client_proves_itself_at_token_refresh_and_revocation(play: Play) -> None:
    """With an assertion for each request; its host is its name."""

    async def scene(found: FrontDoorStage) -> None:
        fetched = publish(found)
        client = keyed(found)
        back = await client.log_in()
        answer = await client.exchange(back["code"], **proof())
        assert answer.status_code == 200, answer.text
        tokens = answer.json()
        assert (await record(found, tokens["access_token"])).client == f"https://{HOST}"
        tokens = (await client.refresh(tokens["refresh_token"], **proof(f"{GATEWAY}/token"))).json()
        ended = await client.post("/revoke", token=tokens["refresh_token"], **proof())
        assert ended.status_code == 200
        assert found.keys("grants") == []
        assert fetched == [URL, f"https://{HOST}/jwks.json"]

    play(scene)


def test_a_client_may_leave_its_id_to_the_assertion(play: Play) -> None:
    """RFC 7521, section 4.2: `client_id` is not needed where the assertion names the client."""

    async def scene(found: FrontDoorStage) -> None:
        publish(found)
        client = keyed(found)
        back = await client.log_in()
        answer = await client.exchange(back["code"], client_id=None, **proof())
        assert answer.status_code == 200, answer.text

    play(scene)


@pytest.mark.attack("client-authentication-missing")
def test_a_client_that_has_to_prove_itself_is_never_taken_for_a_public_one(play: Play) -> None:
    """Neither at hand nor after a restart of ours; the code and the grant live on."""

    async def scene(found: FrontDoorStage) -> None:
        publish(found)
        client = keyed(found)
        back = await client.log_in()
        assert error(await client.exchange(back["code"])) == INVALID
        tokens = (await client.exchange(back["code"], **proof())).json()
        refreshed = len(found.upstream.calls("token"))
        for known in (True, False):
            if not known:
                found.built._documents._known.clear()
            assert error(await client.refresh(tokens["refresh_token"])) == INVALID
            if not known:
                found.built._documents._known.clear()
            for name in ("refresh_token", "access_token"):
                assert error(await client.post("/revoke", token=tokens[name])) == INVALID
        assert len(found.upstream.calls("token")) == refreshed
        assert (await client.refresh(tokens["refresh_token"], **proof())).status_code == 200

    play(scene)


@pytest.mark.attack("client-authentication-missing")
def test_a_code_without_proof_is_lost_where_the_document_was_forgotten(play: Play) -> None:
    """Whoever has a stolen code gains nothing by waiting for a restart."""

    async def scene(found: FrontDoorStage) -> None:
        publish(found)
        client = keyed(found)
        back = await client.log_in()
        found.built._documents._known.clear()
        assert error(await client.exchange(back["code"])) == INVALID
        assert found.keys("log-in") == found.keys("grants") == []

    play(scene)


@pytest.mark.attack("client-assertion-forged")
def test_a_forged_or_foreign_proof_is_no_client(play: Play) -> None:
    """Before the grant is looked at: the code is still good afterwards."""

    async def scene(found: FrontDoorStage) -> None:
        publish(found)
        client = keyed(found)
        back = await client.log_in()
        wrong: list[dict[str, str]] = [
            proof(key=OTHER_KEY),
            proof("https://evil.example"),
            proof(sub="https://client.example.test/other"),
            {**proof(), "client_assertion_type": "urn:ietf:params:oauth:grant-type:jwt-bearer"},
            {"client_assertion": proof()["client_assertion"]},
            {"client_assertion_type": TYPE},
            {**proof(), "client_secret": "x"},
        ]
        for each in wrong:
            assert error(await client.exchange(back["code"], **each)) == INVALID
        assert (await client.exchange(back["code"], **proof())).status_code == 200

    play(scene)


@pytest.mark.attack("client-assertion-replayed")
def test_an_assertion_counts_once(play: Play) -> None:
    """Whatever it was used for, and whether that was any good; what remembers it ends by itself."""

    async def scene(found: FrontDoorStage) -> None:
        publish(found)
        client = keyed(found)
        tokens = (await client.exchange((await client.log_in())["code"], **proof())).json()
        once = proof()
        assert error(await client.refresh("junk", **once)) == (400, "invalid_grant")
        assert error(await client.refresh(tokens["refresh_token"], **once)) == INVALID
        revoked = await client.post("/revoke", token=tokens["refresh_token"], **once)
        assert error(revoked) == INVALID
        for key in found.keys("assertion"):
            assert 0 < int(found.valkey.command("TTL", key)) <= 360

    play(scene)


def test_a_public_client_is_told_that_it_is(play: Play) -> None:
    """One that registered, one of the file, one whose document names no keys: no proof is taken."""

    async def scene(found: FrontDoorStage) -> None:
        publish(found, token_endpoint_auth_method="none")
        registered = FrontDoorClient(found, resource=NOTES)
        await registered.register()
        for client_id in (registered.client_id, "claude", URL):
            answer = await registered.refresh("junk", client_id=client_id, **proof())
            assert error(answer) == INVALID
            assert "public" in answer.json()["error_description"]

    play(scene)


@pytest.mark.attack("document-foreign-redirect")
@pytest.mark.parametrize(
    ("uri", "name", "badge"),
    [
        (OWN, f"https://{HOST}", "Host checked"),
        (FOREIGN, f"https://{HOST}", "Host checked"),
        (LOOPBACK, "dynamic/loopback", "Unverified"),
    ],
)
def test_a_client_that_proves_its_key_is_shown_as_what_it_is(
    play: Play, uri: str, name: str, badge: str
) -> None:
    """Wherever on the web its log-in ends; a key in a program on a computer proves nothing."""

    async def scene(found: FrontDoorStage) -> None:
        publish(found, OWN, FOREIGN, LOOPBACK)
        client = keyed(found, uri)
        page = (await client.authorize()).text
        assert f'<p class="badge">{badge}</p>' in page
        assert ("with a key of that description" in page) == (uri == FOREIGN)
        answer = await client.exchange((await client.log_in())["code"], **proof())
        assert (await record(found, answer.json()["access_token"])).client == name

    play(scene)


@pytest.mark.attack("client-assertion-flood")
def test_strangers_assertions_make_us_ask_few_hosts(play: Play) -> None:
    """An address names twelve unknown documents a minute, at the token endpoint too."""

    async def scene(found: FrontDoorStage) -> None:
        fetched = publish(found)
        client = keyed(found)
        answers = []
        for number in range(20):
            url = f"https://app{number}.example/c"
            form = {"client_assertion_type": TYPE, "client_assertion": assertion(url, GATEWAY)}
            answers.append(await client.refresh("junk", client_id=url, **form))
        assert [each.status_code for each in answers].count(429) == 8
        assert answers[-1].json()["error"] == "temporarily_unavailable"
        assert len(fetched) == 12

    play(scene)


def becomes_public(found: FrontDoorStage) -> None:
    """The document stops naming keys, so nothing says any more where its log-in may end."""
    found.built._documents._known.clear()
    publish(found, FOREIGN, token_endpoint_auth_method="none")


@pytest.mark.attack("document-changed-after-consent")
def test_a_client_that_is_no_longer_what_the_page_said_gets_nothing_at_the_click(
    play: Play,
) -> None:
    """The person saw that it proves itself with a key: Authelia is not asked."""

    async def scene(found: FrontDoorStage) -> None:
        publish(found, FOREIGN)
        client = keyed(found, FOREIGN)
        page, token = await consent_page(client)
        assert "Host checked" in page.text
        becomes_public(found)
        assert told(await decide(client, token))["error"] == "access_denied"
        assert found.upstream.calls("pushed-authorization-request") == []

    play(scene)


@pytest.mark.attack("document-changed-after-consent")
def test_a_client_that_is_no_longer_what_the_page_said_gets_no_code(play: Play) -> None:
    """Nor after the log-in: what was consented to is what is given."""

    async def scene(found: FrontDoorStage) -> None:
        publish(found, FOREIGN)
        client = keyed(found, FOREIGN)
        _, token = await consent_page(client)
        url = onward(await decide(client, token))
        callback = await john().log_in(client.browser, url)
        becomes_public(found)
        answer = told(await client.browser.get(callback))
        assert answer["error"] == "access_denied"
        assert "code" not in answer
        assert found.keys("code") == []

    play(scene)
