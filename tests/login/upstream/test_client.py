"""Our OIDC client against the stand-in, which answers as the recorded Authelia does."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import pytest

from authz.core.ledger import UnavailableError
from authz.login.protocol.values import UpstreamError
from authz.login.upstream import client
from authz.login.upstream.transport import known_error
from authz.tokens.issuer import read_metadata
from tests.demo.kit import BOB, FILES, ISSUER, JOHN, DemoWorld, claims
from tests.login.upstream.upstream_kit import (
    CALLBACK,
    HOME,
    NAMES,
    SCOPES,
    UpstreamKit,
    asked,
    refused,
    standing,
    step_up,
)

JUNK_CODE = f"authelia_ac_{'a' * 43}.{'b' * 43}"
JUNK_REFRESH = f"authelia_rt_{'a' * 43}.{'b' * 43}"
LOCKED = "issuer: too many failures of this address"


@pytest.fixture
def stand(world: DemoWorld) -> Iterator[UpstreamKit]:
    with standing(world) as stand:
        yield stand


# --- pushed -----------------------------------------------------------------------------------


def test_a_browser_is_sent_to_authelias_own_name(stand: UpstreamKit) -> None:
    """The URL has nothing but our client's id and the reference of what was pushed."""
    url = urlsplit(stand.push(asked()))

    assert f"{url.scheme}://{url.netloc}{url.path}" == f"{ISSUER}/api/oidc/authorization"
    query = parse_qs(url.query)
    assert set(query) == {"client_id", "request_uri"}
    assert query["client_id"] == [NAMES[True]]


def test_what_is_pushed(stand: UpstreamKit) -> None:
    """The whole request, proven, in the person's own name; the verifier and `prompt` never."""
    request = asked(max_age=300)
    stand.push(request, "2001:DB8::7")

    sent = stand.transport.sent[-1]
    form = {name: values[0] for name, values in parse_qs(sent.content.decode()).items()}
    assert sent.url.host == "authelia"
    assert sent.headers["x-forwarded-for"] == "2001:db8::7"
    assert sent.headers["x-forwarded-host"] == "auth.example.test"
    assert form.pop("client_assertion")
    assert form.pop("client_assertion_type")
    assert form.pop("code_challenge") != request.verifier
    assert form == {
        "client_id": NAMES[True],
        "code_challenge_method": "S256",
        "max_age": "300",
        "nonce": request.nonce,
        "redirect_uri": CALLBACK,
        "audience": FILES,
        "response_type": "code",
        "scope": " ".join(sorted(SCOPES)),
        "state": request.state,
    }


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"scopes": frozenset({"openid", "mcp:other"})}, "invalid_scope"),
        ({"resource": "https://mcp.example.test/other"}, "invalid_target"),
        ({"redirect_uri": "https://evil.example/"}, "invalid_request"),
        ({"state": "short"}, "server_error"),
    ],
)
def test_what_authelia_refuses_is_told_in_the_known_words(
    stand: UpstreamKit, changes: dict[str, Any], error: str
) -> None:
    """An error of Authelia's own (`invalid_state`) is `server_error`."""
    assert refused(lambda: stand.push(asked(**changes))) == error


@pytest.mark.parametrize(
    "address", ["", "192.0.2.10, 192.0.2.11", "192.0.2.10\r\nX: y", "unknown", "[::1]", "1"]
)
def test_nothing_but_an_address_is_sent_as_one(stand: UpstreamKit, address: str) -> None:
    """Whose failures Authelia counts is not for a caller's text to say."""
    with pytest.raises(ValueError, match="address"):
        stand.push(asked(), address)
    assert stand.transport.sent == []


def test_an_address_has_no_zone(stand: UpstreamKit) -> None:
    """A zone (RFC 4007) is this machine's business, and may be any text."""
    stand.push(asked(), "fe80::1%eth0 x")

    assert stand.transport.sent[-1].headers["x-forwarded-for"] == "fe80::1"


# --- logged in --------------------------------------------------------------------------------


def test_a_log_in_with_totp(stand: UpstreamKit) -> None:
    """Tokens, person, methods, time and name of one log-in."""
    found = stand.log_in()

    assert found.identity.subject == JOHN
    assert found.identity.amr == {"pwd", "kba", "otp", "mfa"}
    assert found.identity.auth_time == int(stand.world.clock())
    assert found.identity.account == "john"
    assert found.tokens.scopes == SCOPES
    token = claims(found.tokens.access_token)
    assert (token["aud"], token["client_id"]) == ([FILES], NAMES[True])
    assert found.tokens.expires_at == token["exp"]
    assert found.tokens.refresh_token is not None


def test_a_log_in_with_a_password_only(stand: UpstreamKit) -> None:
    """The client under `one_factor` proves what was typed, no more."""
    found = stand.log_in(asked(two_factor=False), totp_secret=None)

    assert found.identity.amr == {"pwd", "kba"}
    assert claims(found.tokens.access_token)["client_id"] == NAMES[False]


def test_no_secret_is_in_a_repr(stand: UpstreamKit) -> None:
    """Tokens are never told by accident."""
    request = asked()
    found = stand.log_in(request)
    told = repr((request, found))

    for secret in (
        request.state,
        request.nonce,
        request.verifier,
        found.tokens.access_token,
        found.tokens.refresh_token,
    ):
        assert secret is not None
        assert secret not in told


def test_a_step_up_types_the_password_again(stand: UpstreamKit) -> None:
    """With `max_age` an old log-in is renewed; without it, it is told as it is."""
    browser = stand.world.browser()
    stand.log_in(browser=browser)
    began = stand.world.clock.at
    stand.world.clock.at += 600

    old = stand.log_in(step_up(), browser=browser)
    new = stand.log_in(step_up(max_age=300), browser=browser)

    assert old.identity.auth_time == int(began)
    assert new.identity.auth_time == int(began) + 600
    assert new.identity.amr >= {"otp"}
    assert (new.tokens.refresh_token, new.identity.account) == (None, "")


def test_an_age_of_nothing_is_a_second(stand: UpstreamKit) -> None:
    """Authelia never meets `max_age=0`: the person would type for ever."""
    assert stand.log_in(step_up(max_age=0)).identity.amr >= {"otp"}


def test_whoever_declines_at_authelia_comes_back_with_an_error(stand: UpstreamKit) -> None:
    """For `offline_access` Authelia asks too, whatever its consent mode; the answer names it."""
    answer = stand.callback(asked(), consents=False)

    stand.authelia.check_iss(answer["iss"])
    assert known_error(answer["error"]) == "access_denied"
    assert known_error("<script>") == "server_error"


@pytest.mark.parametrize(
    "iss", [None, "", "https://evil.example", f"{ISSUER}/", ISSUER.upper(), f"{ISSUER} ", "\ud800"]
)
@pytest.mark.attack("callback-mix-up")
def test_an_answer_of_somebody_else_is_refused(stand: UpstreamKit, iss: str | None) -> None:
    """`iss` is there and equal (RFC 9207), or the code goes nowhere."""
    with pytest.raises(UpstreamError):
        stand.authelia.check_iss(iss)


# --- codes ------------------------------------------------------------------------------------


@pytest.mark.attack("code-replayed")
def test_a_code_is_good_once(stand: UpstreamKit) -> None:
    """The second use is refused, and ends the tokens of the first."""
    request = asked()
    code = stand.callback(request)["code"]
    found = stand.exchange(request, code)

    assert refused(lambda: stand.exchange(request, code)) == "invalid_grant"
    assert refused(lambda: stand.refresh(found)) == "invalid_grant"


@pytest.mark.parametrize(
    "changes",
    [
        {"two_factor": False},
        {"verifier": "x" * 60},
        {"redirect_uri": "https://mcp.example.test/other"},
        {"nonce": "of another transaction"},
    ],
)
@pytest.mark.attack("code-of-another-transaction")
def test_a_code_belongs_to_its_transaction(stand: UpstreamKit, changes: dict[str, Any]) -> None:
    """Another client of ours, verifier, redirect URI or nonce: refused."""
    request = asked()
    code = stand.callback(request)["code"]

    assert refused(lambda: stand.exchange(request, code, **changes)) == "invalid_grant"


@pytest.mark.parametrize(
    "code",
    [
        "",
        "junk",
        JUNK_REFRESH,
        JUNK_CODE.upper(),
        JUNK_CODE + "\n",
        JUNK_CODE + " ",
        "authelia_ac_" + "a" * 43,
        "authelia_ac_" + "é" * 43 + "." + "b" * 43,
        "authelia_ac_" + "a" * 9000 + "." + "b" * 43,
    ],
)
@pytest.mark.attack("junk-upstream")
def test_what_is_no_code_is_not_sent(stand: UpstreamKit, code: str) -> None:
    """Junk would fill Authelia's failure limit."""
    assert refused(lambda: stand.exchange(asked(), code)) == "invalid_grant"
    assert stand.transport.sent == []


# --- refreshed --------------------------------------------------------------------------------


def test_a_refresh_repeats_who_and_how(stand: UpstreamKit) -> None:
    """The new tokens are new; person, methods and time are the log-in's."""
    first = stand.log_in()
    stand.world.clock.at += 1800

    second = stand.refresh(first)

    assert second.identity == first.identity
    assert second.tokens.access_token != first.tokens.access_token
    assert second.tokens.refresh_token != first.tokens.refresh_token
    assert second.tokens.expires_at > first.tokens.expires_at
    assert second.tokens.scopes == first.tokens.scopes


@pytest.mark.attack("refresh-reused")
def test_an_old_refresh_token_ends_the_family(stand: UpstreamKit) -> None:
    """Authelia's own defence works through us."""
    first = stand.log_in()
    second = stand.refresh(first)

    assert refused(lambda: stand.refresh(first)) == "invalid_grant"
    assert refused(lambda: stand.refresh(second)) == "invalid_grant"


def test_a_refresh_is_for_the_client_and_person_it_is_of(stand: UpstreamKit) -> None:
    """Another of our clients, or a grant of another person: refused."""
    first = stand.log_in()

    assert refused(lambda: stand.refresh(first, two_factor=False)) == "invalid_grant"
    assert refused(lambda: stand.refresh(first, subject=BOB)) == "invalid_grant"


@pytest.mark.parametrize("token", ["", "junk", JUNK_CODE, "authelia_at_" + "a" * 43 + ".b", "eyJ"])
@pytest.mark.attack("junk-upstream")
def test_what_is_no_refresh_token_is_not_sent(stand: UpstreamKit, token: str) -> None:
    """Only what looks like Authelia's goes there."""
    call = stand.authelia.refresh(two_factor=True, refresh_token=token, subject=JOHN, address=HOME)

    assert refused(lambda: stand.run(call)) == "invalid_grant"
    assert stand.transport.sent == []


# --- ended ------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["access_token", "refresh_token"])
def test_revoking_either_token_ends_both(stand: UpstreamKit, which: str) -> None:
    """What a client of ours revokes is ended at Authelia."""
    found = stand.log_in()
    stand.revoke(getattr(found.tokens, which))

    assert refused(lambda: stand.refresh(found)) == "invalid_grant"
    stand.revoke(getattr(found.tokens, which))


def test_revoking_the_other_clients_token_is_refused(stand: UpstreamKit) -> None:
    """Each of our clients ends its own tokens."""
    token = stand.log_in().tokens.access_token

    assert refused(lambda: stand.revoke(token, two_factor=False)) == "unauthorized_client"


@pytest.mark.parametrize("token", ["", "x" * 9000, "é"])
def test_what_is_no_token_is_ended_already(stand: UpstreamKit, token: str) -> None:
    """RFC 7009, section 2.2: nothing to do, and nothing sent."""
    stand.revoke(token)

    assert stand.transport.sent == []


def test_logging_out_leads_back(stand: UpstreamKit) -> None:
    """After Authelia's log-out page the person is back, and the next log-in begins anew."""
    browser = stand.world.browser()
    stand.log_in(browser=browser)
    back = "https://mcp.example.test/authz/step-up?x=1&y=2"

    answer = stand.run(browser.get(stand.authelia.log_out_url(back)))
    stand.world.clock.at += 60
    found = stand.log_in(step_up(), browser=browser)

    assert answer.headers["location"] == back
    assert found.identity.auth_time == int(stand.world.clock.at)


# --- Authelia's failure limit -----------------------------------------------------------------


def fail(stand: UpstreamKit, address: str, times: int) -> list[str]:
    def once() -> None:
        stand.run(
            stand.authelia.refresh(
                two_factor=True, refresh_token=JUNK_REFRESH, subject=JOHN, address=address
            )
        )

    return [refused(once) for _ in range(times)]


@pytest.mark.attack("one-person-locks-all")
def test_fifty_failures_of_one_lock_nobody_else(stand: UpstreamKit) -> None:
    """After the 429 nothing more is sent for that address; everybody else logs in as before."""
    told = fail(stand, "192.0.2.66", 50)

    assert told == ["invalid_grant"] * 30 + [LOCKED] * 20
    assert stand.transport.paths().count("token") == 31
    assert stand.log_in().identity.subject == JOHN


@pytest.mark.attack("one-person-locks-all")
def test_whoever_waited_is_not_sent_once_the_address_is_locked(world: DemoWorld) -> None:
    """Many at once of one address: what is in line when the 429 comes stays here."""
    with standing(world, at_once=10) as stand:

        async def once() -> str:
            try:
                await stand.authelia.refresh(
                    two_factor=True, refresh_token=JUNK_REFRESH, subject=JOHN, address=HOME
                )
            except UpstreamError as error:
                return error.error
            except UnavailableError as fault:
                return fault.detail
            return ""

        async def flood() -> list[str]:
            return await asyncio.gather(*(once() for _ in range(50)))

        told = stand.run(flood())

        assert told.count("invalid_grant") == 30
        assert stand.transport.paths().count("token") <= 30 + 10


def test_who_is_locked_is_not_sent_to_log_in(stand: UpstreamKit) -> None:
    """The code could not be traded in; so nobody types for nothing. Revoking still works."""
    found = stand.log_in()
    fail(stand, HOME, 31)
    sent = len(stand.transport.sent)

    assert refused(lambda: stand.push(asked())) == LOCKED
    assert refused(lambda: stand.refresh(found)) == LOCKED
    assert len(stand.transport.sent) == sent
    stand.revoke(found.tokens.access_token)
    assert stand.transport.paths()[-1] == "revocation"


def test_after_retry_after_the_address_is_heard_again(stand: UpstreamKit) -> None:
    """Authelia's own time counts, and then one more is asked."""
    found = stand.log_in()
    fail(stand, HOME, 31)
    stand.world.clock.at += 60
    stand.monotonic[0] += 59
    assert refused(lambda: stand.refresh(found)) == LOCKED

    stand.monotonic[0] += 1
    assert stand.refresh(found).identity == found.identity


# --- together ---------------------------------------------------------------------------------


def test_metadata_is_read_once_for_all(stand: UpstreamKit) -> None:
    """Eight first log-ins at once read it once; an hour later once more."""

    async def all_at_once() -> None:
        await asyncio.gather(*(stand.authelia.push(asked(), HOME) for _ in range(8)))

    stand.run(all_at_once())
    stand.monotonic[0] += 3600
    stand.run(all_at_once())

    assert stand.transport.paths().count("oauth-authorization-server") == 2
    assert stand.transport.paths().count("pushed-authorization-request") == 16


def test_two_people_and_clients_at_once_are_not_mixed(stand: UpstreamKit) -> None:
    """Interleaved log-ins each end with their own person, methods and tokens."""
    requests = [asked(two_factor=index % 2 == 0) for index in range(6)]
    people = [stand.world.person("john" if index % 3 else "bob") for index in range(6)]

    async def one(index: int) -> tuple[str, str]:
        request = requests[index]
        url = await stand.authelia.push(request, HOME)
        back = await people[index].log_in(stand.world.browser(), url)
        code = dict(parse_qsl(urlsplit(back).query))["code"]
        found = await stand.authelia.exchange(
            two_factor=request.two_factor,
            code=code,
            verifier=request.verifier,
            redirect_uri=request.redirect_uri,
            nonce=request.nonce,
            address=HOME,
        )
        return found.identity.subject, claims(found.tokens.access_token)["client_id"]

    async def all_at_once() -> list[tuple[str, str]]:
        return await asyncio.gather(*(one(index) for index in range(6)))

    assert stand.run(all_at_once()) == [
        (JOHN if index % 3 else BOB, NAMES[index % 2 == 0]) for index in range(6)
    ]


def test_what_is_too_much_at_once_is_turned_away(world: DemoWorld) -> None:
    """A flood waits in a short line; the rest is told at once, and the line empties."""
    with standing(world, at_once=1) as stand:

        async def flood() -> list[str]:
            answers = await asyncio.gather(
                *(stand.authelia.push(asked(), HOME) for _ in range(20)), return_exceptions=True
            )
            return ["good" if isinstance(each, str) else str(each) for each in answers]

        told = stand.run(flood())

        assert told.count("good") == 5
        assert all("too many log-ins" in each for each in told if each != "good")
        assert isinstance(stand.push(asked()), str)


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document.pop("authorization_response_iss_parameter_supported"),
        lambda document: document.update(authorization_response_iss_parameter_supported="true"),
        lambda document: document.update(authorization_endpoint="https://evil.example/authorize"),
        lambda document: document.update(authorization_endpoint=f"{ISSUER}.evil.example/a"),
        lambda document: document.update(authorization_endpoint=f"{ISSUER}/a?client_id=x"),
        lambda document: document.update(authorization_endpoint=f"{ISSUER}/a#x"),
        lambda document: document.update(authorization_endpoint=[ISSUER]),
        lambda document: document.update(token_endpoint="http://evil.example/token"),
        lambda document: document.pop("pushed_authorization_request_endpoint"),
        lambda document: document.pop("revocation_endpoint"),
    ],
)
@pytest.mark.attack("metadata-elsewhere")
def test_metadata_that_leads_elsewhere_is_not_followed(
    stand: UpstreamKit, monkeypatch: pytest.MonkeyPatch, change: Callable[[dict[str, object]], None]
) -> None:
    """No browser and no secret goes where Authelia is not; and `iss` has to be promised."""

    async def changed(*arguments: object) -> dict[str, object]:
        document = dict(await read_metadata(*arguments))  # type: ignore[arg-type]
        change(document)
        return document

    monkeypatch.setattr(client, "read_metadata", changed)

    with pytest.raises(UnavailableError):
        stand.push(asked())
    assert "pushed-authorization-request" not in stand.transport.paths()
