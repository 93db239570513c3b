"""What is thrown at the front door: rows of the attack list, each against the whole of it."""

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.ledger import UnavailableError
from authz.core.principal import Client as Named
from authz.core.principal import LoginRecord, Person
from authz.envoy.codec import AUTHORIZATION
from authz.ledger.keys import EVERYTHING, client_field, grant_field, person_field
from authz.ledger.keys import RedisKeys as Names
from authz.ledger.login_records import LoginRecords
from authz.ledger.records import Revocation
from authz.login.clients.faults import DocumentFault
from authz.login.clients.fetching import Fetched, FetchError
from authz.login.clients.redirects import RedirectRules
from authz.login.clients.registration import Registrations
from authz.login.protocol.resources import ResourceServer, read_scopes
from authz.login.protocol.values import ClientKind, OAuthClient, OAuthError, UpstreamLogin
from authz.login.store.blocklist import BlocklistEntry
from authz.tokens.sealing import Sealer
from tests.demo.kit import BOB, ISSUER, JOHN, NOTES, claims
from tests.login.conftest import Play
from tests.login.front import (
    CLAUDE,
    GATEWAY,
    LOOPBACK,
    OPEN,
    FrontDoorClient,
    FrontDoorStage,
    bob,
    john,
    onward,
)
from tests.login.web.pages_kit import another_nonce

REPLAYED = "code replayed (the tokens of the first use are revoked)"


async def record(found: FrontDoorStage, token: str) -> LoginRecord | None:
    return await LoginRecords(found.ledger.command, Names(found.deployment)).get(token)


async def registered(found: FrontDoorStage, **changes: Any) -> FrontDoorClient:
    client = FrontDoorClient(found, **changes)
    await client.register()
    return client


def told(answer: httpx.Response) -> Mapping[str, str]:
    """The parameters that a client is told by way of the browser."""
    return dict(parse_qsl(urlsplit(onward(answer)).query))


def oauth(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]


async def consent_page(client: FrontDoorClient, **changes: Any) -> tuple[httpx.Response, str]:
    page = await client.authorize(**changes)
    assert page.status_code == 200, page.text
    found = re.search(r'name="form_token" value="([^"]+)"', page.text)
    assert found is not None
    return page, found[1]


async def decide(
    client: FrontDoorClient,
    token: str,
    decision: str = "approve",
    ticked: Sequence[str] = (),
    **headers: str,
) -> httpx.Response:
    sent = {"Origin": GATEWAY, "Sec-Fetch-Site": "same-origin"} | headers
    return await client.browser.post(
        f"{GATEWAY}/authz/consent",
        data={"form_token": token, "decision": decision, **dict.fromkeys(ticked, "on")},
        headers=sent,
    )


# --- consent ----------------------------------------------------------------------------------


@pytest.mark.attack("a page drives the browser to our authorize endpoint: the consent page, always")
def test_consent_is_asked_every_time_before_authelia(play: Play) -> None:
    """An open session at Authelia and a consent of a moment ago change nothing."""

    async def scene(found: FrontDoorStage) -> None:
        client = await registered(found)
        await client.log_in()
        pushed = len(found.upstream.calls("pushed-authorization-request"))
        for prompt in (None, "login", "consent"):
            page, _ = await consent_page(client, prompt=prompt)
            assert "Allow and log in" in page.text
            assert not any("authz-tx" in name for name in page.headers.get_list("set-cookie"))
        assert len(found.upstream.calls("pushed-authorization-request")) == pushed
        answer = await client.authorize(prompt="none")
        assert told(answer)["error"] == "interaction_required"

    play(scene)


def test_who_denies_is_not_sent_to_authelia(play: Play) -> None:
    """`access_denied` for the client, and Authelia hears nothing; so for any other word."""

    async def scene(found: FrontDoorStage) -> None:
        client = await registered(found)
        for decision in ("deny", "", "Approve", "approve "):
            _, token = await consent_page(client)
            answer = told(await decide(client, token, decision))
            assert answer["error"] == "access_denied"
            assert (answer["state"], answer["iss"]) == (client.state, GATEWAY)
        assert found.upstream.calls("pushed-authorization-request") == []

    play(scene)


@pytest.mark.attack("forged Host, forwarded headers or redirect targets; framing; cross-site POST")
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Origin": "http://mcp.example.test"},
    ],
)
def test_a_consent_from_another_site_counts_nothing(play: Play, headers: dict[str, str]) -> None:
    """403, no transaction, nothing pushed."""

    async def scene(found: FrontDoorStage) -> None:
        client = await registered(found)
        _, token = await consent_page(client)
        answer = await decide(client, token, **headers)
        assert answer.status_code == 403
        assert "set-cookie" not in answer.headers
        assert found.upstream.calls("pushed-authorization-request") == []

    play(scene)


def test_a_consent_form_of_another_browser_counts_nothing(play: Play) -> None:
    """An attacker's own form, with his own request in it, posted in the victim's browser."""

    async def scene(found: FrontDoorStage) -> None:
        attacker, victim = await registered(found), await registered(found)
        _, stolen = await consent_page(attacker)
        await consent_page(victim)
        assert (await decide(victim, stolen)).status_code == 403

    play(scene)


@pytest.mark.attack("consent given in the attacker's browser, Authelia's URL opened by the victim")
def test_the_callback_belongs_to_the_browser_that_began(play: Play) -> None:
    """403, no code, and the state is not used up for the one who has the cookie."""

    async def scene(found: FrontDoorStage) -> None:
        attacker, victim = await registered(found), FrontDoorClient(found, address="192.0.2.50")
        _, token = await consent_page(attacker)
        url = onward(await decide(attacker, token))
        callback = await bob().log_in(victim.browser, url)
        answer = await victim.browser.get(callback)
        assert answer.status_code == 403
        assert found.keys("code") == []
        assert found.keys("state") == []
        assert (await attacker.browser.get(callback)).status_code == 303

    play(scene)


def test_a_callback_counts_once(play: Play) -> None:
    """The second is told so, and gets no code."""

    async def scene(found: FrontDoorStage) -> None:
        client = await registered(found)
        _, token = await consent_page(client)
        url = onward(await decide(client, token))
        callback = await john().log_in(client.browser, url)
        kept = {each.name: each.value for each in client.browser.cookies.jar}
        assert "code" in told(await client.browser.get(callback))
        cookie = "; ".join(f"{name}={value}" for name, value in kept.items())
        again = await found.browser().get(callback, headers={"Cookie": cookie})
        # Told at an address of its own, without the code; never at the client's.
        assert again.status_code == 303
        assert again.headers["location"].startswith(f"{GATEWAY}/authz/problem?of=")
        assert len(found.upstream.calls("token")) == 1

    play(scene)


@pytest.mark.attack("`state` or `iss` swapped between two authorization servers (mix-up)")
@pytest.mark.parametrize("iss", [None, "https://evil.example", ISSUER + "/", GATEWAY])
def test_an_answer_of_somebody_else_is_not_believed(play: Play, iss: str | None) -> None:
    """Nothing of it, an error neither; and the true answer still counts."""

    async def scene(found: FrontDoorStage) -> None:
        client = await registered(found)
        _, token = await consent_page(client)
        url = onward(await decide(client, token))
        callback = httpx.URL(await john().log_in(client.browser, url))
        for forged in ({}, {"error": "access_denied"}):
            wrong = callback.copy_merge_params(forged).copy_remove_param("iss")
            if iss is not None:
                wrong = wrong.copy_set_param("iss", iss)
            assert (await client.browser.get(wrong)).status_code == 403
        assert found.upstream.calls("token") == []
        assert "code" in told(await client.browser.get(callback))

    play(scene)


@pytest.mark.attack("`state` or `iss` swapped between two authorization servers (mix-up)")
def test_an_id_token_of_another_transaction_is_not_believed(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its nonce is not of this one: the client hears an error, and there is no code."""

    async def scene(found: FrontDoorStage) -> None:
        another_nonce(found.upstream, monkeypatch)
        client = await registered(found)
        _, token = await consent_page(client)
        url = onward(await decide(client, token))
        callback = await john().log_in(client.browser, url)
        assert told(await client.browser.get(callback))["error"] == "server_error"
        assert found.keys("code") == []

    play(scene)


def test_a_state_of_another_transaction_is_not_taken(play: Play) -> None:
    """Each state opens the cookie of its own name only."""

    async def scene(found: FrontDoorStage) -> None:
        client = await registered(found)
        _, token = await consent_page(client)
        url = onward(await decide(client, token))
        callback = httpx.URL(await john().log_in(client.browser, url))
        wrong = callback.copy_set_param("state", "x" * 43)
        assert (await client.browser.get(wrong)).status_code == 403
        twice = httpx.URL(str(callback) + "&state=" + "x" * 43)
        assert (await client.browser.get(twice)).status_code == 400

    play(scene)


# --- the request ------------------------------------------------------------------------------


@pytest.mark.attack("redirect URI not exact, missing, changed between authorize and token")
@pytest.mark.parametrize(
    "uri",
    [
        None,
        "",
        CLAUDE + "/",
        CLAUDE + "/../evil",
        CLAUDE + "?x=1",
        CLAUDE + "#x",
        CLAUDE.replace("claude.ai", "evil.claude.ai"),
        CLAUDE.replace("claude.ai", "claude.ai:444"),
        CLAUDE.replace("claude.ai", "claude.ai@evil.example"),
        CLAUDE.replace("https", "http"),
        CLAUDE.upper(),
        "javascript:alert(1)",
        "https://evil.example/",
        "http://127.0.0.1/callback",
        "h" * 3000,
    ],
)
def test_a_redirect_uri_that_is_not_the_clients(play: Play, uri: str | None) -> None:
    """An error page, never a redirect, nothing of the URI on it."""

    async def scene(found: FrontDoorStage) -> None:
        client = FrontDoorClient(found, "claude", CLAUDE)
        # Errors of other parameters, too: until the URI is good nothing goes there.
        for more in ({}, {"response_type": "token"}, {"scope": "nonsense"}):
            answer = await client.authorize(redirect_uri=uri, **more)
            assert answer.status_code == 400
            assert "location" not in answer.headers
            assert "evil" not in answer.text

    play(scene)


def test_an_unknown_client_is_told_on_a_page(play: Play) -> None:
    """Whatever it calls itself; also when parameters come twice."""

    async def scene(found: FrontDoorStage) -> None:
        for name in (None, "nobody", "dyn.x.y", "https://mcp.example.test", "x" * 3000, "a\x00b"):
            client = FrontDoorClient(found, name or "")
            answer = await client.authorize(client_id=name)
            assert answer.status_code == 400
            assert "location" not in answer.headers
        client = await registered(found)
        for name in ("client_id", "redirect_uri"):
            url = f"{client.url()}&{name}=x"
            assert (await client.browser.get(url)).status_code == 400

    play(scene)


@pytest.mark.attack("no PKCE, `plain`; `resource` of no server of ours, of two; scopes beyond")
@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"response_type": None}, "invalid_request"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_type": "code id_token"}, "unsupported_response_type"),
        ({"response_mode": "fragment"}, "invalid_request"),
        ({"response_mode": "form_post"}, "invalid_request"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": "s256"}, "invalid_request"),
        ({"code_challenge": "a" * 42}, "invalid_request"),
        ({"code_challenge": "a" * 44}, "invalid_request"),
        ({"code_challenge": "a" * 42 + "="}, "invalid_request"),
        ({"request": "x.y.z"}, "request_not_supported"),
        ({"request_uri": "https://evil.example/r"}, "request_uri_not_supported"),
        ({"resource": None}, "invalid_target"),
        ({"resource": "https://mcp.example.test/"}, "invalid_target"),
        ({"resource": "https://mcp.example.test/files/../notes"}, "invalid_target"),
        ({"resource": "https://mcp.example.test/files//"}, "invalid_target"),
        ({"resource": "https://mcp.example.test/files?x"}, "invalid_target"),
        ({"resource": "https://evil.example/files"}, "invalid_target"),
        (
            {"resource": ["https://mcp.example.test/files", "https://mcp.example.test/notes"]},
            "invalid_target",
        ),
        (
            {"resource": ["https://mcp.example.test/files", "https://evil.example"]},
            "invalid_target",
        ),
        ({"scope": ["mcp:tools", "mcp:admin"]}, "invalid_request"),
        ({"state": "x" * 1025}, "invalid_request"),
        ({"state": "caf\u00e9"}, "invalid_request"),
        ({"prompt": "none"}, "interaction_required"),
        ({"prompt": "login none"}, "interaction_required"),
    ],
)
def test_what_is_wrong_with_a_request_is_told_to_its_client(
    play: Play, changes: dict[str, Any], error: str
) -> None:
    """By redirect, with state and iss, before any page is shown."""

    async def scene(found: FrontDoorStage) -> None:
        client = await registered(found)
        answer = told(await client.authorize(**changes))
        assert (answer["error"], answer["iss"]) == (error, GATEWAY)
        assert answer.get("state") == (None if "state" in changes else client.state)
        assert "code" not in answer
        assert found.upstream.calls("pushed-authorization-request") == []

    play(scene)


def test_a_client_is_told_in_words_without_plus_signs(play: Play) -> None:
    """Blanks are `%20` in all that is appended to a redirect URI, errors and codes alike; and what
    the client sent as its state it gets back to the letter.
    """

    async def scene(found: FrontDoorStage) -> None:
        client = await registered(found)
        client.state = "a b+c/d=e&f ~"
        refused = await client.authorize(code_challenge_method=None)
        _, token = await consent_page(client)
        denied = await decide(client, token, "deny")
        allowed = await john().log_in(client.browser, client.url())
        for url in (onward(refused), onward(denied), allowed):
            assert "+" not in url
            assert " " not in url
            assert dict(parse_qsl(urlsplit(url).query))["state"] == client.state
        assert "error_description=code_challenge_method%20has%20to%20be%20S256" in onward(refused)

    play(scene)


def test_what_authelia_refuses_is_told_with_server_and_scopes(play: Play) -> None:
    """A scope that our client there lacks: the client hears which server and what Authelia said,
    the log has the scopes.
    """

    async def scene(found: FrontDoorStage) -> None:
        ours = (replace(each, scopes=("openid",)) for each in found.issuer.config.clients)
        found.issuer.config = replace(found.issuer.config, clients=tuple(ours))
        client = await registered(found)
        _, token = await consent_page(client)
        answer = told(await decide(client, token))
        assert answer["error"] == "server_error"
        assert answer["error_description"].endswith("for the server files: invalid_scope")
        line = found.lines()[-1]
        assert (line["step"], line["outcome"]) == ("consent", "server_error")
        assert (line["client"], line["server"]) == ("dynamic/loopback", "files")
        assert (line["scopes"], line["detail"]) == (["mcp:tools"], "invalid_scope")

    play(scene)


def test_a_callback_that_is_loaded_again_was_used_already(play: Play) -> None:
    """The person is told so, as often as it is loaded; in another browser it belongs to nothing."""

    async def scene(found: FrontDoorStage) -> None:
        client = await registered(found)
        _, token = await consent_page(client)
        url = onward(await decide(client, token))
        callback = await john().log_in(client.browser, url)
        back = onward(await client.browser.get(callback))
        assert "code=" in back
        for _ in range(2):
            page = await client.browser.get(callback)
            assert page.status_code == 403
            assert "This answer was used already" in page.text
            assert "just close the page" in page.text
        elsewhere = await found.browser().get(callback)
        assert "does not belong to anything that you began" in elsewhere.text
        code = parse_qs(urlsplit(back).query)["code"][0]
        assert (await client.exchange(code)).status_code == 200

    play(scene)


def test_many_tabs_lose_nothing_silently(play: Play) -> None:
    """Of thirty log-ins begun at once in one browser as many end as fit; the others say why."""

    async def scene(found: FrontDoorStage) -> None:
        clients = [FrontDoorClient(found) for _ in range(30)]
        callbacks = []
        for number, client in enumerate(clients):
            # One browser on the move: its approvals are paced by address.
            client.browser = clients[0].browser
            client.browser.headers["X-Forwarded-For"] = f"198.51.100.{number}"
            await client.register(client_name="T" * 90)
            _, token = await consent_page(client, state="s" * 200)
            callbacks.append((await decide(client, token)).headers["refresh"])
        ended = Counter[str]()
        for client, refresh in zip(clients, callbacks, strict=True):
            callback = await john().log_in(client.browser, refresh.partition("url=")[2])
            answer = await client.browser.get(callback)
            url = onward(answer)
            page = "" if "code=" in url else (await client.browser.get(url)).text
            told = "This log-in made room for newer ones" in page
            ended["code" if not page else "told" if told else page] += 1
        assert ended.keys() == {"code", "told"}
        assert ended["code"] > 8

    play(scene)


@pytest.mark.parametrize(
    ("changes", "granted"),
    [
        ({}, "mcp:tools"),
        ({"scope": "mcp:tools offline_access openid"}, "mcp:tools"),
        ({"scope": "offline_access"}, "mcp:tools"),
        ({"scope": "mcp:admin"}, "mcp:admin"),
        ({"scope": "mcp:admin mcp:tools"}, "mcp:admin mcp:tools"),
        ({"resource": "https://mcp.example.test/files/"}, "mcp:tools"),
        ({"resource": ["https://mcp.example.test/files"] * 2}, "mcp:tools"),
        # What the server does not have is ignored (RFC 6749, section 3.3).
        ({"scope": " offline_access"}, "mcp:tools"),
        ({"scope": "claudeai"}, "mcp:tools"),
        ({"scope": "openid profile email mcp:tools"}, "mcp:tools"),
        ({"scope": "openid profile email mcp:admin"}, "mcp:admin"),
        ({"scope": "mcp:tools mcp:other groups"}, "mcp:tools"),
        ({"scope": "groups"}, "mcp:tools"),
        # However it is blanked.
        ({"scope": "  mcp:admin   mcp:tools "}, "mcp:admin mcp:tools"),
        ({"scope": " "}, "mcp:tools"),
        # And what is no scope by its characters is none of ours.
        ({"scope": "mcp:admin\tmcp:tools"}, "mcp:tools"),
        ({"scope": "mcp:admin\n"}, "mcp:tools"),
        ({"scope": 'mcp:tools "mcp:admin"'}, "mcp:tools"),
        ({"scope": "mcp:tools \u00e9"}, "mcp:tools"),
    ],
)
def test_what_is_granted(play: Play, changes: dict[str, Any], granted: str) -> None:
    """The consented scopes and no others; `openid` and what else went upstream stay inside."""

    async def scene(found: FrontDoorStage) -> None:
        client = await registered(found)
        back = await client.log_in(**changes)
        answer = await client.exchange(back["code"], resource=None)
        assert answer.json()["scope"] == granted
        # Authelia is asked for nothing that a client made up.
        (pushed,) = found.upstream.calls("pushed-authorization-request")
        asked = set(parse_qs(pushed.content.decode())["scope"][0].split(" "))
        assert asked == {*granted.split(), "openid", "offline_access", "profile"}

    play(scene)


def shown(page: httpx.Response) -> list[str]:
    """The scopes that a consent page asks for."""
    return re.findall(r'<span class="line"><code><bdi>([^<]+)</bdi>', page.text)


@pytest.mark.attack("a permission that the consent page does not show")
@pytest.mark.parametrize("scope", ["profile", "openid", "groups"])
def test_what_every_token_has_is_consented_to_where_it_permits_something(
    play: Play, scope: str
) -> None:
    """Authelia is asked for `profile` and the like at every log-in. Where a tool needs one, the
    token opens that tool: so the person reads it on the page, but of a client that may not use it.
    """

    async def scene(found: FrontDoorStage) -> None:
        client = await registered(found)
        page, _ = await consent_page(client, scope="mcp:tools")
        assert shown(page) == sorted(["mcp:tools", scope])
        tokens = await client.tokens(scope="mcp:tools")
        assert set(tokens["scope"].split()) == {"mcp:tools", scope}
        assert scope in claims(tokens["access_token"])["scp"]
        narrow = FrontDoorClient(found, client_id="narrow")
        assert (await narrow.tokens(scope="mcp:tools"))["scope"] == "mcp:tools"

    def asking(text: str) -> str:
        rule = f"read_*: {{scopes: [{scope}], groups: [staff]}}"
        return text.replace("read_*: {}", rule)

    play(scene, asking)


def with_open(text: str) -> str:
    """Add a server without scopes."""
    return text + "  open: {upstream: 'http://open:8000/mcp'}\n"


@pytest.mark.parametrize(
    ("scope", "named"),
    [
        (None, None),
        ("", None),
        (" offline_access", ""),
        ("claudeai", ""),
        ("openid profile email mcp:notes", ""),
        ("mcp:tools mcp:admin offline_access", ""),
    ],
)
def test_a_server_without_scopes_beside_servers_with_scopes(
    play: Play, scope: str | None, named: str | None
) -> None:
    """Whatever a client asks for, it gets in and has no scope of another server; where it asked
    for something the answer says that it has none, since silence would mean all of it.
    """

    async def scene(found: FrontDoorStage) -> None:
        client = await registered(found, resource=OPEN)
        tokens = await client.tokens(scope=scope)
        assert tokens.get("scope") == named
        assert set(claims(tokens["access_token"])["scp"]).isdisjoint({"mcp:tools", "mcp:admin"})
        renewed = (await client.refresh(tokens["refresh_token"], scope=scope)).json()
        assert "scope" not in renewed

    play(scene, with_open)


@pytest.mark.parametrize("scope", ["mcp:tools", "mcp:admin mcp:tools", "openid nonsense", " "])
def test_a_refresh_gives_what_was_consented_to(play: Play, scope: str) -> None:
    """Clients repeat at a refresh what they asked for at the log-in; what they have is named."""

    async def scene(found: FrontDoorStage) -> None:
        client = await registered(found)
        tokens = await client.tokens(scope="mcp:tools")
        answer = await client.refresh(tokens["refresh_token"], scope=scope)
        assert (answer.status_code, answer.json()["scope"]) == (200, "mcp:tools")

    play(scene)


@pytest.mark.attack("scope-ceiling")
@pytest.mark.parametrize("scope", [None, "mcp:tools", "mcp:admin", "claudeai"])
def test_a_client_that_may_have_nothing_of_a_server_is_told_why(
    play: Play, scope: str | None
) -> None:
    """`invalid_scope` is left for the client whose ceiling leaves nothing; client, page and log
    name scope, server and client, and what changes it.
    """

    async def scene(found: FrontDoorStage) -> None:
        client = await registered(found)
        answer = told(await client.authorize(scope=scope))
        words = (
            "the server files needs mcp:tools, which the operator does not let the client "
            "dynamic/loopback have"
        )
        assert (answer["error"], answer["error_description"]) == ("invalid_scope", words)
        line = next(each for each in found.lines() if each.get("outcome") == "invalid_scope")
        assert line["client"] == "dynamic/loopback"
        assert (line["server"], line["scopes"], line["detail"]) == ("files", ["mcp:tools"], words)
        # On a page, where nobody is sent to a stranger's site without a click.
        stranger = await registered(found, redirect_uri="https://client.example/callback")
        page = await stranger.authorize(scope=scope)
        assert page.status_code == 400
        assert "The people who run this gateway can allow it" in page.text
        assert "the server files needs mcp:tools" in page.text

    def narrowed(text: str) -> str:
        every = (
            "  every: {redirect_uris: ['http://127.0.0.1/x'], scopes: ['mcp:tools', 'mcp:admin']}\n"
        )
        return text.replace("clients:\n", f"clients:\n  default: {{scopes: ['mcp:x']}}\n{every}")

    play(scene, narrowed)


@pytest.mark.attack("scope-ceiling")
@given(
    own=st.frozensets(st.sampled_from("abcd")),
    tools=st.frozensets(st.sampled_from("abcd")),
    ceiling=st.none() | st.frozensets(st.sampled_from("abcdef")),
    asked=st.text('abcdef \t"', max_size=12),
)
def test_nothing_beyond_server_and_ceiling_is_ever_granted(
    own: frozenset[str], tools: frozenset[str], ceiling: frozenset[str] | None, asked: str
) -> None:
    """And what a client is granted it would be granted again: so the consent page and what is
    begun after the click read the same request the same way.
    """
    target = ResourceServer("s", NOTES, own, own | tools, two_factor=False, groups=False)
    client = OAuthClient("x", ClientKind.CONFIGURED, "", "", (), ceiling)
    wanted = read_scopes(asked)
    assert wanted == {each for each in asked.split(" ") if each}
    if own and not client.allowed(own) and not client.allowed(wanted & target.scopes):
        with pytest.raises(OAuthError, match="invalid_scope"):
            target.grantable(wanted, client, "x")
        return
    granted = target.grantable(wanted, client, "x")
    assert granted <= target.scopes
    assert ceiling is None or granted <= ceiling
    assert granted <= wanted or granted == client.allowed(own)
    assert target.grantable(granted, client, "x") == granted


@pytest.mark.attack("scope-left-out")
@pytest.mark.parametrize(
    ("ticked", "scopes"),
    [
        ((), ["mcp:tools"]),
        (("scope-1", "scope-7", "scope", "mcp:admin", "scope-00"), ["mcp:tools"]),
        (("scope-0",), ["mcp:admin", "mcp:tools"]),
        (("scope-0", "scope-1", "scope-9"), ["mcp:admin", "mcp:tools"]),
    ],
)
def test_a_scope_that_was_left_out_is_not_in_the_token(
    play: Play, ticked: Sequence[str], scopes: list[str]
) -> None:
    """Authelia is not asked for it, the client is told so, a refresh does not bring it back; and
    the client may ask anew.
    """

    async def scene(found: FrontDoorStage) -> None:
        client = await registered(found)
        both = "mcp:admin mcp:tools"
        _, token = await consent_page(client, scope=both)
        callback = await john().log_in(
            client.browser, onward(await decide(client, token, ticked=ticked))
        )
        pushed = found.upstream.calls("pushed-authorization-request")[-1]
        sent = dict(parse_qsl(pushed.content.decode()))["scope"].split()
        assert sorted(each for each in sent if each.startswith("mcp:")) == scopes
        back = told(await client.browser.get(callback))
        answer = await client.exchange(back["code"])
        tokens = answer.json()
        assert answer.status_code == 200, tokens
        assert tokens["scope"].split() == scopes
        assert [each for each in claims(tokens["access_token"])["scp"] if each[:4] == "mcp:"] == (
            scopes
        )
        renewed = (await client.refresh(tokens["refresh_token"], scope=both)).json()
        assert renewed["scope"].split() == scopes
        consent = next(each for each in found.lines() if each.get("step") == "consent")
        assert consent["scopes"] == scopes
        assert consent.get("detail", "") == (
            "the person left scopes out" if scopes == ["mcp:tools"] else ""
        )
        assert (await client.tokens(scope=both))["scope"].split() == ["mcp:admin", "mcp:tools"]

    play(scene)


def test_whoever_can_register_makes_no_redirector_of_us(play: Play) -> None:
    """RFC 9700, section 4.11.2: nobody is sent to a stranger's site without a click."""

    async def scene(found: FrontDoorStage) -> None:
        client = await registered(found, redirect_uri="https://evil.example/login")
        answer = await client.authorize(code_challenge=None)
        assert answer.status_code == 400
        assert "location" not in answer.headers
        assert "evil.example" not in answer.text
        # With one, of the person's own, the stranger hears it.
        _, token = await consent_page(client)
        assert told(await decide(client, token, "deny"))["error"] == "access_denied"

    play(scene)


# --- codes ------------------------------------------------------------------------------------


@pytest.mark.attack("no PKCE, verifier missing or of another transaction, of another client")
@pytest.mark.parametrize(
    "changes",
    [
        {"code_verifier": None},
        {"code_verifier": "a" * 43},
        {"code_verifier": "short"},
        {"code_verifier": "a" * 129},
        {"redirect_uri": "http://127.0.0.1:43211/callback"},
        {"redirect_uri": "http://localhost:43210/callback"},
        {"client_id": "claude"},
        {"resource": "https://mcp.example.test/notes"},
    ],
)
def test_a_wrong_guess_costs_the_code(play: Play, changes: dict[str, Any]) -> None:
    """Refused, the right one afterwards too, and Authelia's tokens are revoked."""

    async def scene(found: FrontDoorStage) -> None:
        client = await registered(found)
        back = await client.log_in()
        status, error = oauth(await client.exchange(back["code"], **changes))
        assert (status, error) in {(400, "invalid_grant"), (400, "invalid_target")}
        line = found.lines()[-1]
        assert (line["step"], line["outcome"]) == ("token", error)
        assert (line["client"], line["server"]) == ("dynamic/loopback", "files")
        assert line["detail"]
        assert len(found.upstream.calls("revocation")) == 1
        assert oauth(await client.exchange(back["code"])) == (400, "invalid_grant")
        assert found.keys("log-in") == []
        assert found.keys("grants") == []

    play(scene)


@pytest.mark.attack(REPLAYED)
def test_a_code_that_comes_twice_ends_what_it_gave(play: Play) -> None:
    """Also from who has the right verifier: its tokens and their refreshes pass no more."""

    async def scene(found: FrontDoorStage) -> None:
        client = await registered(found)
        back = await client.log_in()
        answer = await client.exchange(back["code"])
        tokens = answer.json()
        assert answer.status_code == 200, tokens
        held = await record(found, tokens["access_token"])
        assert held is not None
        renewed = (await client.refresh(tokens["refresh_token"])).json()
        assert oauth(await client.exchange(back["code"])) == (400, "invalid_grant")
        assert grant_field(ISSUER, held.grant) in await found.ledger.revocations()
        assert await record(found, renewed["access_token"]) is None
        for each in (tokens, renewed):
            answer = await client.refresh(each["refresh_token"])
            assert oauth(answer) == (400, "invalid_grant")

    play(scene)


def test_a_code_twice_at_the_same_moment_gives_nothing_that_lasts(play: Play) -> None:
    """Whichever is first: the other ends it, or nothing began."""

    async def scene(found: FrontDoorStage) -> None:
        client = await registered(found)
        for _ in range(5):
            back = await client.log_in()
            answers = await asyncio.gather(*(client.exchange(back["code"]) for _ in range(4)))
            assert sum(answer.status_code == 200 for answer in answers) <= 1
            assert await found.built.grants.of(JOHN) == ()
            for answer in answers:
                if answer.status_code == 200:
                    token = answer.json()["access_token"]
                    assert await record(found, token) is None

    play(scene)


def test_a_code_lives_for_a_minute(play: Play) -> None:
    """Redis forgets it then; and what is not there is not good."""

    async def scene(found: FrontDoorStage) -> None:
        client = await registered(found)
        back = await client.log_in()
        (key,) = found.keys("code")
        assert 0 < found.valkey.command("TTL", key) <= 60
        found.valkey.command("DEL", key)
        assert oauth(await client.exchange(back["code"])) == (400, "invalid_grant")

    play(scene)


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ({"grant_type": None}, (400, "invalid_request")),
        ({"grant_type": "password"}, (400, "unsupported_grant_type")),
        ({"grant_type": "client_credentials"}, (400, "unsupported_grant_type")),
        ({"client_id": None}, (400, "invalid_request")),
        ({"code": None}, (400, "invalid_request")),
        ({"client_secret": "x"}, (401, "invalid_client")),
        ({"client_assertion": "x"}, (401, "invalid_client")),
        ({"code": ["a" * 43, "b" * 43]}, (400, "invalid_request")),
        ({"code": "a" * 43}, (400, "invalid_grant")),
        ({"code": "../" * 20}, (400, "invalid_grant")),
    ],
)
def test_malformed_token_requests(
    play: Play, form: dict[str, Any], expected: tuple[int, str]
) -> None:
    """JSON with the right code (RFC 6749, section 5.2), never kept, and Authelia not asked."""

    async def scene(found: FrontDoorStage) -> None:
        client = await registered(found)
        sent = {"grant_type": "authorization_code", "code": "c" * 43, "code_verifier": "v" * 43}
        answer = await client.post("/token", **(sent | form))
        assert oauth(answer) == expected
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["access-control-allow-origin"] == "*"
        assert found.upstream.calls("token") == []

    play(scene)


def foreign_registration() -> str:
    """The id of a client that registered under a sealing key of another time."""
    keys = Sealer(("another" * 8,), time.time).mac_key("client")
    answer = Registrations(keys, RedirectRules(), time.time).register(
        json.dumps({"redirect_uris": [LOOPBACK]}).encode()
    )
    return str(answer["client_id"])


UNKNOWN: Mapping[str, Callable[[FrontDoorClient], str]] = {
    "nobody": lambda _: "nobody",
    "an altered registration": lambda client: f"{client.client_id[:-2]}AA",
    "a registration under another sealing key": lambda _: foreign_registration(),
    "a machine": lambda _: "nightly",
    "a client of the issuer itself": lambda _: "script",
    "a URL that is no document's": lambda _: "https://192.0.2.1/client.json",
}


@pytest.mark.attack("unknown-client-first")
@pytest.mark.parametrize("what", UNKNOWN)
def test_an_unknown_client_is_told_first(play: Play, what: str) -> None:
    """`invalid_client` (401; RFC 6749, section 5.2) at token and revocation endpoint, whatever
    else is missing, malformed or good: nothing else is looked at, so a code and a token stay.
    """

    async def scene(found: FrontDoorStage) -> None:
        client = await registered(found)
        tokens = await client.tokens()
        code = (await client.log_in())["code"]
        unknown = UNKNOWN[what](client)
        refresh = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
        forms: tuple[dict[str, Any], ...] = (
            {},
            {"grant_type": "password"},
            {"grant_type": ["a", "b"]},
            {"client_secret": "x"},
            {"grant_type": "refresh_token", "refresh_token": "junk"},
            refresh,
        )
        for form in forms:
            answer = await client.post("/token", client_id=unknown, **form)
            assert oauth(answer) == (401, "invalid_client"), form
            assert answer.headers["cache-control"] == "no-store"
        assert oauth(await client.exchange(code, client_id=unknown)) == (401, "invalid_client")
        for token in (None, "junk", tokens["access_token"], tokens["refresh_token"]):
            answer = await client.post("/revoke", client_id=unknown, token=token)
            assert oauth(answer) == (401, "invalid_client"), token
        assert found.upstream.calls("revocation") == []
        assert (await client.exchange(code)).status_code == 200
        assert (await client.refresh(tokens["refresh_token"])).status_code == 200
        outcomes = {line["outcome"] for line in found.lines() if line.get("step") == "revoke"}
        assert outcomes == {"invalid_client"}

    def named(text: str) -> str:
        machine, direct = "  nightly: {machine: true}\n", "  script: {login: direct}\n"
        return text.replace("servers:\n", f"{machine}{direct}servers:\n", 1)

    play(scene, named)


@pytest.mark.attack("unknown-client-first")
def test_who_a_client_is_has_to_be_plain(play: Play) -> None:
    """No client, or two of them, is a malformed request and nobody's client."""

    async def scene(found: FrontDoorStage) -> None:
        client = await registered(found)
        for path in ("/token", "/revoke"):
            for named in (None, ["nobody", client.client_id], [client.client_id] * 2):
                answer = await client.post(path, client_id=named)
                assert oauth(answer) == (400, "invalid_request")

    play(scene)


@pytest.mark.attack("unknown-client-first")
def test_a_document_that_is_out_of_reach_is_no_unknown_client(play: Play) -> None:
    """While a stranger's host does not answer, its client keeps what it knows of itself, and is
    told to come again; its host is not asked for what is none of its own.
    """
    url = "https://client.example.test/client.json"
    asked: list[str] = []

    async def scene(found: FrontDoorStage) -> None:
        async def fetch(url: str, _host: str) -> Fetched:
            asked.append(url)
            if len(asked) > 1:
                raise FetchError(DocumentFault.UNREACHABLE)
            said = {"client_id": url, "redirect_uris": [LOOPBACK]}
            return Fetched(json.dumps(said).encode(), None)

        documents = found.built._documents
        documents._fetch = fetch
        client = FrontDoorClient(found, url)
        tokens = await client.tokens()
        assert oauth(await client.exchange("c" * 43)) == (400, "invalid_grant")
        assert oauth(await client.refresh("junk")) == (400, "invalid_grant")
        assert (await client.post("/revoke", token="junk")).status_code == 200
        # A good one stays good for a day, whatever its host does.
        renewed = (await client.refresh(tokens["refresh_token"])).json()
        assert asked == [url]
        # And after a restart of ours nothing is known of it.
        documents._known.clear()
        answer = await client.refresh(renewed["refresh_token"])
        assert oauth(answer) == (503, "temporarily_unavailable")
        assert answer.headers["retry-after"] == "60"
        assert (await client.post("/revoke", token=renewed["refresh_token"])).status_code == 200
        assert len(asked) == 2

    play(scene)


def test_what_is_no_form_is_not_read(play: Play) -> None:
    """Another type, too long, or with credentials in a header."""

    async def scene(found: FrontDoorStage) -> None:
        client = await registered(found)
        url = f"{GATEWAY}/token"
        assert oauth(await client.browser.post(url, json={"grant_type": "x"})) == (
            400, "invalid_request",
        )  # fmt: skip
        form = {"content-type": "application/x-www-form-urlencoded"}
        long = await client.browser.post(url, content=b"a=" + b"x" * 70_000, headers=form)
        assert oauth(long) == (413, "invalid_request")
        basic = await client.browser.post(url, data={"grant_type": "x"}, auth=("a", "b"))
        assert oauth(basic) == (401, "invalid_client")
        assert basic.headers["www-authenticate"].startswith("Basic ")
        bad = await client.browser.post(url, content=b"a=%ff&grant_type=x", headers=form)
        assert oauth(bad) == (400, "invalid_request")

    play(scene)


# --- refresh tokens ---------------------------------------------------------------------------


@pytest.mark.attack("refresh token of one client used by another, altered, raw from Authelia")
def test_a_refresh_token_is_good_for_its_client_alone(play: Play) -> None:
    """What is not ours, or another's, is refused without asking Authelia, and ends nothing."""

    async def scene(found: FrontDoorStage) -> None:
        client, other = await registered(found), await registered(found)
        tokens = await client.tokens()
        refresh = tokens["refresh_token"]
        raw = f"authelia_rt_{'a' * 43}.{'b' * 43}"
        asked = len(found.upstream.calls("token"))
        middle = len(refresh) // 2
        altered = (
            refresh[:middle] + ("A" if refresh[middle] != "A" else "B") + refresh[middle + 1 :]
        )
        for text in (altered, raw, refresh + "A", tokens["access_token"], "x", "." * 4000):
            assert oauth(await client.refresh(text)) == (400, "invalid_grant")
        assert oauth(await other.refresh(refresh)) == (400, "invalid_grant")
        answer = await client.refresh(refresh, resource="https://mcp.example.test/notes")
        assert oauth(answer) == (400, "invalid_target")
        assert len(found.upstream.calls("token")) == asked
        assert (await client.refresh(refresh, scope="mcp:tools")).status_code == 200

    play(scene)


@pytest.mark.attack("refresh token twice at once: two at once are one refresh")
def test_two_refreshes_at_once_are_one(play: Play) -> None:
    """One call of Authelia, one answer; and the lost answer can be had again for a while."""

    async def scene(found: FrontDoorStage) -> None:
        client = await registered(found)
        tokens = await client.tokens()
        asked = len(found.upstream.calls("token"))
        answers = await asyncio.gather(*(client.refresh(tokens["refresh_token"]) for _ in range(6)))
        again = await client.refresh(tokens["refresh_token"])
        for answer in (*answers, again):
            assert answer.status_code == 200, answer.text
        assert len({answer.json()["refresh_token"] for answer in (*answers, again)}) == 1
        assert len({answer.json()["access_token"] for answer in (*answers, again)}) == 1
        assert len(found.upstream.calls("token")) == asked + 1
        (key,) = found.keys("refreshed")
        assert 0 < found.valkey.command("TTL", key) <= 30
        assert found.keys("refreshing") == []

    play(scene)


def test_an_old_refresh_token_ends_the_grant(play: Play) -> None:
    """RFC 9700, section 4.14.2: somebody has a copy; Authelia is not asked to refresh."""

    async def scene(found: FrontDoorStage) -> None:
        client = await registered(found)
        tokens = await client.tokens()
        renewed = (await client.refresh(tokens["refresh_token"])).json()
        # As after a day (tests/login/test_stale_refresh.py has what is before).
        found.valkey.command("DEL", *found.keys("refreshed"), *found.keys("replaced"))
        asked = len(found.upstream.calls("token"))
        assert oauth(await client.refresh(tokens["refresh_token"])) == (400, "invalid_grant")
        assert oauth(await client.refresh(renewed["refresh_token"])) == (400, "invalid_grant")
        assert len(found.upstream.calls("token")) == asked
        assert await found.built.grants.of(JOHN) == ()

    play(scene)


@pytest.mark.attack("refresh token after revocation of its access token")
def test_revocation_reaches_the_refresh_token(play: Play) -> None:
    """And a client revokes what is its own alone: the answer never says whose it was."""

    async def scene(found: FrontDoorStage) -> None:
        client, other = await registered(found), await registered(found)
        tokens = await client.tokens()
        for text in (tokens["access_token"], tokens["refresh_token"], "junk", "." * 5000):
            answer = await other.post("/revoke", token=text, token_type_hint="access_token")
            assert (answer.status_code, answer.content) == (200, b"{}")
        assert await record(found, tokens["access_token"]) is not None
        renewed = (await client.refresh(tokens["refresh_token"])).json()
        await client.post("/revoke", token=renewed["access_token"])
        assert oauth(await client.refresh(renewed["refresh_token"])) == (400, "invalid_grant")
        assert oauth(await client.post("/revoke")) == (400, "invalid_request")

    play(scene)


@pytest.mark.attack("fifty failing refreshes or codes by one person: everybody else logs in")
def test_fifty_failures_of_one_person_lock_nobody_out(play: Play) -> None:
    """Junk never reaches Authelia; a grant that it refuses is asked for once and never again."""

    async def scene(found: FrontDoorStage) -> None:
        client = await registered(found)
        tokens = await client.tokens()
        asked = len(found.upstream.calls("token"))
        for number in range(50):
            await client.exchange(f"{number:043d}")
            await client.refresh(tokens["refresh_token"][:-4] + "AAAA")
            await client.refresh(f"authelia_rt_{number:043d}.{'b' * 43}")
        assert len(found.upstream.calls("token")) == asked
        # Authelia lost its sessions: one question, in the name of the person's own address.
        found.issuer.memory.tokens.clear()
        for _ in range(50):
            assert oauth(await client.refresh(tokens["refresh_token"])) == (400, "invalid_grant")
        assert len(found.upstream.calls("token")) == asked + 1
        # The same person at the same address, and another one.
        assert "access_token" in await client.tokens()
        neighbour = await registered(found, address="192.0.2.77")
        assert "access_token" in await neighbour.tokens(bob())

    play(scene)


@pytest.mark.parametrize("moment", [None, 0])
@pytest.mark.parametrize("what", ["grant", "person", "client", "client_id", "everything"])
def test_what_the_operator_revoked_is_not_refreshed(
    play: Play, what: str, moment: int | None
) -> None:
    """Of whatever kind, for good or up to now: Authelia is not asked, and the grant ends.

    A client is revoked by the name that rules count by, or by its client_id.
    """

    async def scene(found: FrontDoorStage) -> None:
        client = await registered(found)
        tokens = await client.tokens()
        held = await record(found, tokens["access_token"])
        assert held is not None
        fields = {
            "grant": grant_field(ISSUER, held.grant),
            "person": person_field(Person(ISSUER, JOHN)),
            "client": client_field(Named(ISSUER, "dynamic/loopback")),
            "client_id": client_field(Named(ISSUER, client.client_id)),
            "everything": EVERYTHING,
        }
        until = None if moment is None else int(time.time())
        revocation = Revocation(until, None, "the operator's words")
        await found.ledger.revoke(fields[what], revocation)
        asked = len(found.upstream.calls("token"))
        assert oauth(await client.refresh(tokens["refresh_token"])) == (400, "invalid_grant")
        assert len(found.upstream.calls("token")) == asked
        assert await found.built.grants.of(JOHN) == ()
        kept = (await found.ledger.revocations())[fields[what]]
        assert kept.issued_until == (None if what == "grant" else until)
        if moment is None:
            assert kept.metadata == "the operator's words"

    play(scene)


async def block(found: FrontDoorStage, what: str) -> None:
    await found.built.blocks.block(BlocklistEntry(what, 1, "root", "test"))


async def change(found: FrontDoorStage, **changes: Any) -> None:
    targets = found.built.refresh._servers._targets
    targets["notes"] = replace(targets["notes"], **changes)


async def say(found: FrontDoorStage, **changes: Any) -> None:
    """Find clients as ever, and say something else of them."""
    clients: Any = found.built.clients
    find = clients.find

    async def changed(client_id: str) -> OAuthClient:
        found_again: OAuthClient = replace(await find(client_id), **changes)
        return found_again

    clients.find = changed


LATER: Mapping[str, Callable[[FrontDoorStage, FrontDoorClient], Awaitable[None]]] = {
    "the server has another URL": lambda found, _: change(found, resource=f"{GATEWAY}/other"),
    "the server has no such scope": lambda found, _: change(found, scopes=frozenset()),
    "the server wants a second factor": lambda found, _: change(found, two_factor=True),
    "the client was blocked": lambda found, client: block(found, client.client_id),
    "its name was blocked": lambda found, _: block(found, "dynamic/loopback"),
    "the client has another name": lambda found, _: say(found, kind=ClientKind.CONFIGURED),
    "the client may not have the scope": lambda found, _: say(found, scopes=frozenset()),
}


@pytest.mark.parametrize("later", LATER)
def test_a_refresh_looks_at_the_rules_of_now(play: Play, later: str) -> None:
    """What was consented to is not had for ever: Authelia is not asked, and nothing is given."""

    async def scene(found: FrontDoorStage) -> None:
        client = await registered(found, resource=NOTES)
        tokens = await client.tokens()
        asked = len(found.upstream.calls("token"))
        await LATER[later](found, client)
        assert oauth(await client.refresh(tokens["refresh_token"])) == (400, "invalid_grant")
        assert len(found.upstream.calls("token")) == asked

    play(scene)


def test_a_refresh_is_of_the_same_person(play: Play) -> None:
    """Tokens of somebody else, whatever Authelia meant by them, end the grant."""

    async def scene(found: FrontDoorStage) -> None:
        client = await registered(found)
        tokens = await client.tokens()
        upstream = found.built.upstream
        refresh = upstream.refresh

        async def other(**asked: Any) -> UpstreamLogin:
            got = await refresh(**asked)
            return replace(got, identity=replace(got.identity, subject=BOB))

        upstream.refresh = other  # type: ignore[method-assign]  # Authelia, gone mad
        assert oauth(await client.refresh(tokens["refresh_token"])) == (400, "invalid_grant")
        assert await found.built.grants.of(JOHN) == ()
        assert await found.built.grants.of(BOB) == ()

    play(scene)


def test_who_is_blocked_comes_no_further(play: Play) -> None:
    """At whichever step it happens: no page, no request to Authelia, no code, no token."""

    async def scene(found: FrontDoorStage) -> None:
        client = await registered(found)
        blocks = found.built.blocks
        _, waiting = await consent_page(client)
        _, token = await consent_page(client)
        at_authelia = await john().log_in(client.browser, onward(await decide(client, token)))
        code = (await client.log_in())["code"]
        pushed = len(found.upstream.calls("pushed-authorization-request"))
        traded = len(found.upstream.calls("token"))
        codes = found.keys("code")

        await block(found, client.client_id)
        for answer in (
            await client.authorize(),
            await decide(client, waiting),
            await client.browser.get((await client.browser.get(at_authelia)).headers["location"]),
        ):
            assert answer.status_code == 403
            assert "was blocked" in answer.text
        assert oauth(await client.exchange(code)) == (400, "unauthorized_client")
        assert len(found.upstream.calls("pushed-authorization-request")) == pushed
        assert len(found.upstream.calls("token")) == traded
        assert found.keys("code") == codes
        assert found.keys("log-in") == found.keys("grants") == []

        await blocks.unblock(client.client_id)
        assert "access_token" in await client.tokens()

    play(scene)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"resource": f"{GATEWAY}/other"}, "invalid_target"),
        ({"scopes": frozenset()}, "invalid_scope"),
    ],
)
def test_a_consent_is_for_the_server_as_it_is(
    play: Play, changes: dict[str, Any], error: str
) -> None:
    """What changed while the page was open is told to the client, and Authelia is not asked."""

    async def scene(found: FrontDoorStage) -> None:
        client = await registered(found, resource=NOTES)
        _, token = await consent_page(client)
        await change(found, **changes)
        assert told(await decide(client, token))["error"] == error
        assert found.upstream.calls("pushed-authorization-request") == []

    play(scene)


def test_a_second_factor_that_is_asked_for_meanwhile_is_asked_of_the_person(play: Play) -> None:
    """The click sends the person through the client that the rule of now wants."""

    async def scene(found: FrontDoorStage) -> None:
        client = await registered(found, resource=NOTES)
        _, token = await consent_page(client)
        await change(found, two_factor=True)
        await decide(client, token)
        (pushed,) = found.upstream.calls("pushed-authorization-request")
        assert "authz-two-factor" in pushed.content.decode()

    play(scene)


def test_a_code_is_of_the_client_under_its_name(play: Play) -> None:
    """Rules and limits go by the name: whose name has changed since logs in anew."""

    async def scene(found: FrontDoorStage) -> None:
        client = await registered(found)
        back = await client.log_in()
        await say(found, kind=ClientKind.CONFIGURED)
        assert oauth(await client.exchange(back["code"])) == (400, "invalid_grant")
        assert len(found.upstream.calls("revocation")) == 1
        assert found.keys("log-in") == found.keys("grants") == []

    play(scene)


# --- Authelia ---------------------------------------------------------------------------------


def test_authelia_away(play: Play) -> None:
    """The person reads it at the consent; the client hears `temporarily_unavailable` after it."""

    async def scene(found: FrontDoorStage) -> None:
        client = await registered(found)
        tokens = await client.tokens()
        _, token = await consent_page(client)
        url = onward(await decide(client, token))
        callback = await john().log_in(client.browser, url)
        _, second = await consent_page(client)
        found.upstream.away = True
        page = await decide(client, second)
        assert (page.status_code, page.headers["retry-after"]) == (503, "30")
        assert told(await client.browser.get(callback))["error"] == "temporarily_unavailable"
        answer = await client.refresh(tokens["refresh_token"])
        assert oauth(answer) == (503, "temporarily_unavailable")
        assert answer.headers["retry-after"] == "5"
        found.upstream.away = False
        assert (await client.refresh(tokens["refresh_token"])).status_code == 200

    play(scene)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ("access_denied", "access_denied"),
        ("temporarily_unavailable", "temporarily_unavailable"),
        ("invalid_scope", "server_error"),
        ("<script>", "server_error"),
    ],
)
def test_authelias_errors_are_told_in_our_words(play: Play, error: str, expected: str) -> None:
    """Of a closed set: what Authelia's answer says does not travel on."""

    async def scene(found: FrontDoorStage) -> None:
        client = await registered(found)
        _, token = await consent_page(client)
        url = httpx.URL(onward(await decide(client, token)))
        callback = httpx.URL(await john().log_in(client.browser, str(url)))
        failed = callback.copy_remove_param("code").copy_set_param("error", error)
        answer = told(await client.browser.get(failed))
        assert answer["error"] == expected
        assert (answer["state"], answer["iss"]) == (client.state, GATEWAY)

    play(scene)


def test_redis_away(play: Play) -> None:
    """Nothing is given: a page for people, 503 for programs."""

    async def scene(found: FrontDoorStage) -> None:
        client = await registered(found)
        tokens = await client.tokens()
        _, token = await consent_page(client)
        built = found.built
        for part in (built.codes, built.states, built.grants, built.blocks, built.records):
            part._command = _away
        assert (await client.authorize()).status_code == 503
        assert (await decide(client, token)).status_code == 503
        for answer in (
            await client.exchange("a" * 43),
            await client.refresh(tokens["refresh_token"]),
            await client.post("/revoke", token=tokens["access_token"]),
        ):
            assert oauth(answer) == (503, "temporarily_unavailable")

    play(scene)


async def _away(*_: object) -> object:
    raise UnavailableError("redis", "away")


# --- clients ----------------------------------------------------------------------------------


@pytest.mark.attack("DCR: 100,000 registrations, 1 MB of metadata: bounded, nothing stored")
def test_registrations_store_nothing(play: Play) -> None:
    """Many of them, and too long ones, leave no key in Redis."""

    async def scene(found: FrontDoorStage) -> None:
        for number in range(50):
            client = FrontDoorClient(found)
            assert (await client.register(client_name=f"c{number}")).status_code == 201
            await client.authorize()
        big = await client.browser.post(
            f"{GATEWAY}/register", content=b'{"client_name": "' + b"x" * 1_000_000 + b'"}',
            headers={"content-type": "application/json"},
        )  # fmt: skip
        assert big.status_code == 413
        assert found.keys() == []

    play(scene)


def test_approvals_of_one_address_are_paced(play: Play) -> None:
    """Each is a request at Authelia: the 21st in a minute waits, and a neighbour does not."""

    async def scene(found: FrontDoorStage) -> None:
        client = await registered(found)
        _, token = await consent_page(client)
        statuses = [(await decide(client, token)).status_code for _ in range(22)]
        assert statuses[:20] == [200] * 20
        assert statuses[20:] == [429, 429]
        assert len(found.upstream.calls("pushed-authorization-request")) == 20
        neighbour = await registered(found, address="198.51.100.1")
        _, other = await consent_page(neighbour)
        assert (await decide(neighbour, other)).status_code == 200

    play(scene)


def test_preflights_are_answered(play: Play) -> None:
    """Any origin, no cookies, the endpoints of programs alone."""

    async def scene(found: FrontDoorStage) -> None:
        browser = found.browser()
        for path in ("/token", "/revoke", "/register", "/.well-known/oauth-authorization-server"):
            answer = await browser.options(GATEWAY + path)
            assert answer.status_code == 204
            assert answer.headers["access-control-allow-origin"] == "*"
            assert "access-control-allow-credentials" not in answer.headers
        for path in ("/authorize", "/authz/consent", "/authz/callback"):
            answer = await browser.options(GATEWAY + path)
            assert answer.status_code == 405
            assert "access-control-allow-origin" not in answer.headers

    play(scene)


def test_nothing_is_made_of_a_forged_host(play: Play) -> None:
    """Every URL is the gateway's, whatever Host and forwarded headers say."""

    async def scene(found: FrontDoorStage) -> None:
        client = await registered(found)
        forged = {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "http"}
        client.browser.headers.update({"Host": "evil.example", **forged})
        page, token = await consent_page(client)
        assert "evil.example" not in page.text
        answer = await decide(client, token)
        assert "evil.example" not in onward(answer) + answer.text
        assert "evil" not in str(found.upstream.sent[-1].content)
        assert (await client.browser.get(f"{GATEWAY}/authorize/")).status_code == 404

    play(scene)


@pytest.mark.attack("pages-on-another-listener")
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_pages_are_all_that_is_here(play: Play, method: str) -> None:
    """Check, metrics, probes and MCP servers answer on listeners of their own."""

    async def scene(found: FrontDoorStage) -> None:
        browser = found.browser()
        kinds = {"content-type": "application/grpc"} if method == "POST" else {}
        for path in (f"/{AUTHORIZATION}/Check", "/metrics", "/healthz", "/readyz", "/files", "/"):
            answer = await browser.request(method, GATEWAY + path, headers=kinds)
            assert answer.status_code == 404, path
            assert "authz_" not in answer.text

    play(scene)


@pytest.mark.parametrize("address", ["", "junk", "1.2.3.4, 5.6.7.8"])
def test_without_envoys_address_nothing_is_done(play: Play, address: str) -> None:
    """Whoever comes past Envoy gets a page that says so."""

    async def scene(found: FrontDoorStage) -> None:
        client = await registered(found)
        client.browser.headers["X-Forwarded-For"] = address
        assert (await client.authorize()).status_code == 400

    play(scene)


def test_the_port_of_loopback_is_the_programs_own(play: Play) -> None:
    """RFC 8252, section 7.3: registered without or with another port, used with its own."""

    async def scene(found: FrontDoorStage) -> None:
        client = FrontDoorClient(found)
        await client.register(redirect_uris=["http://127.0.0.1/callback"])
        assert client.redirect_uri == LOOPBACK
        assert "access_token" in await client.tokens()

    play(scene)


def test_programs_read_json_whatever_goes_wrong(play: Play) -> None:
    """A method that is not taken, and too much at once, are OAuth errors where programs ask."""

    async def scene(found: FrontDoorStage) -> None:
        browser = found.browser()
        for path in ("/token", "/revoke", "/register"):
            answer = await browser.put(f"{GATEWAY}{path}")
            assert (answer.status_code, answer.json()["error"]) == (405, "invalid_request")
            assert answer.headers["access-control-allow-origin"] == "*"
            assert "POST" in answer.headers["allow"]
        page = await browser.put(f"{GATEWAY}/authorize")
        assert (page.status_code, page.headers["x-frame-options"]) == (405, "DENY")

    play(scene)
