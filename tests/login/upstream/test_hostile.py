"""Our OIDC client and an Authelia that is away, late, broken, or somebody else's; over HTTP."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.ledger import UnavailableError
from authz.login.protocol.values import UpstreamError, UpstreamLogin
from authz.login.upstream.client import Authelia, OurClient
from authz.login.upstream.id_token import TokenResponseVerifier
from authz.login.upstream.limits import ConcurrencyLimit, Lockouts
from authz.login.upstream.transport import ERRORS, known_error
from authz.tokens.client_auth import PrivateKeyJwt
from authz.tokens.issuer import IssuerAddress
from authz.tokens.issuer_http import issuer_client
from authz.tokens.keys import SigningKeys
from tests.login.upstream.test_id_token import ACCESS, NONCE, identifying, proofs
from tests.login.upstream.upstream_kit import CALLBACK, HOME, NAMES, asked
from tests.support.introspection import IntrospectionSite, site
from tests.tokens.test_client_auth import pem
from tests.tokens.test_introspection_endpoint import _drip, _flood, _hang_up, _say_nothing
from tests.tokens.test_issuer import HTML, REDIRECT, TRUST, ZIPPED, Play, answer, document, metadata
from tests.tokens.token_factory import (
    ISSUER,
    NOW,
    RULES,
    Source,
    TokenClock,
    ec_signer,
    key_set,
    unhurried,
)

CODE: Final = f"authelia_ac_{'a' * 43}.{'b' * 43}"
REFRESH: Final = f"authelia_rt_{'a' * 43}.{'b' * 43}"
REQUEST_URI: Final = "urn:ietf:params:oauth:request_uri:cJuTJp2ohpjc4JKk8Z1eU-2rWE246dx7eVApnJC_IC4"
NAMED: Final = metadata(
    authorization_response_iss_parameter_supported=True,
    authorization_endpoint=f"{ISSUER}/api/oidc/authorization",
    pushed_authorization_request_endpoint=f"{ISSUER}/api/oidc/pushed-authorization-request",
    token_endpoint=f"{ISSUER}/api/oidc/token",
    revocation_endpoint=f"{ISSUER}/api/oidc/revocation",
)
TOKENS: Final = {
    "access_token": ACCESS,
    "id_token": identifying(),
    "refresh_token": REFRESH,
    "expires_in": 3599,
    "token_type": "bearer",
}

Call = Callable[[Authelia], Awaitable[object]]


@asynccontextmanager
async def asking(
    url: str, *, total: float = 5.0, read: float = 5.0, checker: TokenResponseVerifier | None = None
) -> AsyncIterator[Authelia]:
    auth = PrivateKeyJwt(NAMES[True], pem(ec_signer().key), ISSUER)
    us = OurClient(NAMES[True], auth)
    async with issuer_client(timeout=read, verify=TRUST, connections=8, kept=8) as client:
        yield Authelia(IssuerAddress(ISSUER, url), us, us, checker or proofs(), client, total=total)


async def push(authelia: Authelia) -> object:
    return await authelia.push(asked(), HOME)


async def exchange(authelia: Authelia) -> UpstreamLogin:
    return await authelia.exchange(
        two_factor=True,
        code=CODE,
        verifier="v" * 43,
        redirect_uri=CALLBACK,
        nonce=NONCE,
        address=HOME,
    )


async def refresh(authelia: Authelia) -> object:
    return await authelia.refresh(
        two_factor=True, refresh_token=REFRESH, subject="52b134ec", address=HOME
    )


async def revoke(authelia: Authelia) -> object:
    await authelia.revoke(two_factor=True, token=REFRESH, address=HOME)
    return None


CALLS: Final = {"push": push, "exchange": exchange, "refresh": refresh, "revoke": revoke}


def told(
    page: bytes | Play,
    call: Call = exchange,
    names: bytes | Play = NAMED,
    *,
    total: float = 5.0,
    read: float = 5.0,
    checker: TokenResponseVerifier | None = None,
) -> tuple[object, IntrospectionSite]:
    """Make one call of such an Authelia: what came of it, and what it saw."""

    async def run() -> tuple[object, IntrospectionSite]:
        async with site(page) as served:
            served.metadata = names
            async with asking(served.url, total=total, read=read, checker=checker) as authelia:
                try:
                    return await call(authelia), served
                except UpstreamError as refused:
                    return refused.error, served
                except UnavailableError as fault:
                    return f"{fault.dependency}: {fault.detail}", served

    return asyncio.run(run())


def error(name: object, status: str = "400 Bad Request") -> bytes:
    return answer(json.dumps({"error": name, "error_description": "x"}).encode(), status=status)


HOSTILE: Final[dict[str, tuple[str, bytes | Play]]] = {
    "redirect": ("status 302", REDIRECT),
    "redirect-that-keeps-the-form": (
        "status 307",
        answer(b"", status="307 Temporary Redirect", more="location: http://127.0.0.1:1/\r\n"),
    ),
    "server-error": ("status 500", error("server_error", "500 Internal Server Error")),
    "tokens-with-a-500": (
        "status 500",
        answer(json.dumps(TOKENS).encode(), status="500 Internal Server Error"),
    ),
    "tokens-with-a-400": (
        "status 400 without an error",
        answer(json.dumps(TOKENS).encode(), status="400 Bad Request"),
    ),
    "bad-gateway": ("status 502", answer(HTML, status="502 Bad Gateway")),
    "not-found": ("status 404", answer(HTML, status="404 Not Found")),
    "empty-400": ("status 400 without an error", answer(b"", status="400 Bad Request")),
    "html-with-401": ("not strict JSON", answer(HTML, status="401 Unauthorized")),
    "html-with-200": ("not strict JSON", answer(HTML)),
    "array": ("not a JSON object", answer(b"[]")),
    "member-twice": ("not strict JSON", answer(b'{"access_token":"a","access_token":"b"}')),
    "two-documents": ("not strict JSON", answer(b"{}{}")),
    "deep": ("not strict JSON", answer(b'{"x":' + b"[" * 60_000)),
    "bad-utf-8": ("not strict JSON", answer(b'{"x":"\xff"}')),
    "compressed": ("compressed, though asked not to be", ZIPPED),
    "64-KiB": ("longer than 64 KiB", answer(b'{"x":"' + b"x" * (64 << 10) + b'"}')),
    "50-MB-unannounced": ("longer than 64 KiB", _flood),
    "hangs-up": ("RemoteProtocolError", _hang_up),
    "not-http": ("RemoteProtocolError", b"\x16\x03\x01 hello\r\n\r\n"),
    "header-flood": ("RemoteProtocolError", answer(b"{}", more=f"x: {'y' * 200_000}\r\n")),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
@pytest.mark.parametrize(("words", "page"), HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.attack("authelia-hostile")
def test_a_hostile_answer_is_a_fault(words: str, page: bytes | Play, call: Call) -> None:
    """Whatever is neither a success nor an OAuth error is Authelia's fault, asked for once."""
    found, served = told(page, call)

    assert found == f"issuer: {words}"
    assert len(served.forms) == 1


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
@pytest.mark.parametrize("play", [_drip, _say_nothing])
@pytest.mark.attack("authelia-late")
def test_a_slow_answer_is_given_up(play: Play, call: Call) -> None:
    """The whole call has a bound, whatever each single read takes."""
    assert told(play, call, total=0.3)[0] == "issuer: no whole answer in time"


def test_a_silent_authelia_is_given_up_at_the_read_time_out() -> None:
    """A read that takes too long ends the call."""
    assert told(_say_nothing, read=0.2)[0] == "issuer: ReadTimeout"


def test_nobody_there_is_a_fault() -> None:
    """An Authelia that is away is one."""

    async def run() -> None:
        async with asking("http://127.0.0.1:1") as authelia:
            with pytest.raises(UnavailableError):
                await exchange(authelia)

    asyncio.run(run())


@pytest.mark.parametrize("play", [_drip, _say_nothing])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_slow_metadata_is_given_up_too(play: Play, call: Call) -> None:
    """Nothing is sent where it is not known where to."""
    found, served = told(answer(b"{}"), call, names=play, total=0.3)

    assert str(found).startswith("issuer: no ")
    assert served.forms == []


def test_after_a_fault_the_metadata_is_read_again() -> None:
    """An Authelia that has moved is found again; after an OAuth error it has not."""

    async def twice(authelia: Authelia) -> object:
        with pytest.raises((UnavailableError, UpstreamError)):
            await exchange(authelia)
        return await exchange(authelia)

    _, moved = told(answer(HTML, status="404 Not Found"), twice)
    _, refused = told(error("invalid_grant"), twice)

    assert [path.split()[0] for path in moved.paths] == ["GET", "POST"] * 2
    assert [path.split()[0] for path in refused.paths] == ["GET", "POST", "POST"]


@pytest.mark.parametrize(
    "names",
    [
        answer(HTML),
        answer(b"{}"),
        metadata(issuer="https://evil.example"),
        metadata(),
        answer(b"", status="500 Internal Server Error"),
    ],
)
@pytest.mark.attack("metadata-elsewhere")
def test_another_issuers_metadata_is_not_believed(names: bytes) -> None:
    """Nothing is sent in its name."""
    found, served = told(answer(b"{}"), names=names)

    assert str(found).startswith("issuer: ")
    assert served.forms == []


# --- OAuth errors -----------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["400 Bad Request", "401 Unauthorized", "403 Forbidden"])
@pytest.mark.parametrize("name", sorted(ERRORS))
def test_a_known_error_is_told_by_its_name(name: str, status: str) -> None:
    """RFC 6749, section 5.2: the code travels, its description never."""
    assert told(error(name, status))[0] == name


@given(
    st.text() | st.none() | st.integers() | st.lists(st.sampled_from(sorted(ERRORS)), max_size=2)
)
def test_any_other_is_a_server_error(name: object) -> None:
    """No word of somebody else's travels on."""
    assert known_error(name) == (
        name if isinstance(name, str) and name in ERRORS else "server_error"
    )


# --- tokens -----------------------------------------------------------------------------------


def test_good_tokens_are_good_here() -> None:
    """What follows is about what is changed in these."""
    found, _ = told(document(**TOKENS))

    assert isinstance(found, UpstreamLogin)
    assert found.tokens.expires_at == NOW + 3600


WRONG: Final[dict[str, tuple[str, dict[str, object]]]] = {
    "no-access-token": ("access_token is missing or malformed", {"access_token": None}),
    "access-token-in-a-list": ("access_token is missing or malformed", {"access_token": [ACCESS]}),
    "no-id-token": ("id_token is missing or malformed", {"id_token": None}),
    "huge-id-token": ("id_token is missing or malformed", {"id_token": "x" * 8193}),
    "refresh-token-number": ("the refresh token is malformed", {"refresh_token": 7}),
    "refresh-token-is-a-code": ("the refresh token is malformed", {"refresh_token": CODE}),
    "no-access-token-of-its-kind": (
        "a token is not good: not three base64url segments",
        {"access_token": "a.b+.c"},
    ),
    "id-token-as-access-token": (
        "a token is not good: typ is JWT, as of an ID token",
        {"access_token": identifying()},
    ),
    "expired-id-token": (
        "a claim of the ID token is not as it must be",
        {"id_token": identifying({"exp": NOW - 60})},
    ),
}


@pytest.mark.parametrize(("words", "changes"), WRONG.values(), ids=WRONG.keys())
@pytest.mark.attack("authelia-hostile")
def test_tokens_that_prove_nothing_are_a_fault(words: str, changes: dict[str, object]) -> None:
    """Nobody is logged in by them, and no caller is told that the grant is bad."""
    assert told(document(**{**TOKENS, **changes}))[0] == f"issuer: {words}"


@pytest.mark.parametrize(
    "changes",
    [{"aud": "another"}, {"nonce": "another"}, {"sub": "another"}, {"iss": "https://evil.example"}],
)
@pytest.mark.attack("callback-swapped-nonce")
def test_tokens_of_another_log_in_are_a_bad_grant(changes: dict[str, object]) -> None:
    """An injected code is refused to whoever brought it."""
    page = document(**{**TOKENS, "id_token": identifying(changes)})

    assert told(page)[0] == "invalid_grant"


def test_keys_that_do_not_come_are_a_fault() -> None:
    """Within the same time as the rest."""
    source = Source(key_set(ec_signer().jwk()))

    async def never() -> object:
        return await asyncio.Event().wait()

    source.fetch = never  # type: ignore[method-assign,assignment]
    checker = TokenResponseVerifier(SigningKeys(source), RULES, clock=lambda: NOW)

    assert told(document(**TOKENS), total=0.3, checker=checker)[0] == "issuer: no keys in time"


@pytest.mark.parametrize(
    "request_uri",
    [
        None,
        7,
        "",
        "https://evil.example/",
        REQUEST_URI.replace(":request_uri:", ":other:"),
        REQUEST_URI + "\n",
        REQUEST_URI + " x",
        REQUEST_URI + "é",
        REQUEST_URI + "x" * 600,
    ],
)
def test_a_reference_that_is_none_sends_nobody_anywhere(request_uri: object) -> None:
    """RFC 9126, section 2.2: what comes back is a request URI of Authelia's."""
    found, _ = told(document(request_uri=request_uri, expires_in=300), push)

    assert found == "issuer: request_uri is malformed"


def test_a_cookie_of_somebody_in_between_is_not_kept() -> None:
    """Whoever stands before Authelia marks nobody."""
    page = answer(json.dumps(TOKENS).encode(), more="set-cookie: a=b; Path=/\r\n")

    async def twice(authelia: Authelia) -> object:
        await exchange(authelia)
        return await exchange(authelia)

    _, served = told(page, twice)

    assert all("cookie" not in headers for headers, _ in served.forms)


# --- 429 --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("after", "seconds"),
    [("60", 60), ("1", 1), ("0", 1), ("999999", 3600), ("soon", 60), ("-5", 60), ("1e9", 60)],
)
def test_retry_after_is_kept_within_bounds(after: str, seconds: int) -> None:
    """An hour at most, whatever is said; a minute where nothing sensible is."""
    clock = TokenClock(0.0)
    page = answer(b"", status="429 Too Many Requests", more=f"retry-after: {after}\r\n")

    async def run() -> int:
        async with site(page, NAMED) as served, asking(served.url) as authelia:
            authelia._lockouts = Lockouts(clock)
            for moment in (0.0, seconds - 0.5, seconds):
                clock.now = moment
                with pytest.raises(UnavailableError):
                    await exchange(authelia)
            return len(served.forms)

    assert asyncio.run(run()) == 2


@unhurried
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["token", "pushed"]),
            st.sampled_from(["192.0.2.1", "192.0.2.2", "2001:db8::1"]),
            st.none() | st.floats(-10, 10_000),
            st.floats(0, 2000),
        ),
        max_size=30,
    )
)
def test_locks_are_as_a_list_of_all_would_say(
    events: list[tuple[str, str, float | None, float]],
) -> None:
    """Locked until the last 429's time is over, per endpoint and address, and no longer."""
    clock, until = TokenClock(0.0), dict[tuple[str, str], float]()
    locks = Lockouts(clock)
    for endpoint, address, seconds, pause in events:
        locks.lock(endpoint, address, seconds)
        wait = 60.0 if seconds is None else min(max(seconds, 1.0), 3600.0)
        until[endpoint, address] = clock.now + wait
        clock.now += pause
        for key, end in until.items():
            if clock.now < end:
                with pytest.raises(UnavailableError):
                    locks.check(*key)
            else:
                locks.check(*key)


@pytest.mark.attack("one-person-locks-all")
def test_a_flood_of_addresses_is_bounded() -> None:
    """Who comes with many addresses has the oldest forgotten; memory stays."""
    locks = Lockouts(lambda: 0.0)
    for number in range(20_000):
        locks.lock("token", f"2001:db8::{number:x}", 3600)

    assert len(locks._until) == 10_000
    locks.check("token", "2001:db8::0")


def test_a_slot_is_given_back_however_a_call_ends() -> None:
    """Errors and cancelled calls leave no slot taken."""

    async def run() -> None:
        limit = ConcurrencyLimit(1, 1)

        async def hold(gate: asyncio.Event) -> None:
            async with limit.slot():
                await gate.wait()

        for _ in range(5):
            tasks = [asyncio.create_task(hold(asyncio.Event())) for _ in range(2)]
            await asyncio.sleep(0)
            with pytest.raises(UnavailableError):
                await hold(asyncio.Event())
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            with pytest.raises(KeyError):
                async with limit.slot():
                    raise KeyError
        async with limit.slot():
            pass

    asyncio.run(run())
