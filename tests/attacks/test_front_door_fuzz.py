"""Any bytes at any endpoint of the front door: a proper answer, and nowhere to go but home.

No exception, no 500, no redirect but to the issuer, to ourselves, or to a redirect URI that
its client has; and nothing that strangers send is heard of at Authelia.
"""

import asyncio
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.login.web import paths, sessions, step_up
from authz.login.web.error_pages import PATH as PROBLEM
from authz_demo.issuer.keys import StandInKeys
from tests.demo.kit import FILES
from tests.login.conftest import keys, store
from tests.login.front import CLAUDE, GATEWAY, LOOPBACK, FrontDoorClient, FrontDoorStage, stage
from tests.support.examples import examples
from tests.support.valkey import ValkeyServer

__all__ = ["keys", "store"]

PATHS = (
    paths.AUTHORIZE, paths.TOKEN, paths.REVOKE, paths.REGISTER, paths.CONSENT, paths.CALLBACK,
    paths.METADATA, step_up.PATH, f"{step_up.PATH}/callback", f"{step_up.PATH}/done",
    f"{step_up.PATH}/end", sessions.PATH, f"{sessions.PATH}/callback",
    f"{sessions.PATH}/end", f"{sessions.PATH}/leave", PROBLEM, "/",
)  # fmt: skip
NAMES = (
    "client_id", "redirect_uri", "state", "code", "code_verifier", "code_challenge",
    "code_challenge_method", "resource", "scope", "response_type", "grant_type", "refresh_token",
    "token", "form_token", "decision", "ticket", "of", "iss", "error", "prompt", "request",
)  # fmt: skip
HOMES = (f"{GATEWAY}/", "https://auth.example.test/", f"{LOOPBACK}?", f"{CLAUDE}?")


@dataclass
class Target:
    """A stage that stands, what was had of it, and the loop that it lives in."""

    runner: asyncio.Runner
    stage: FrontDoorStage
    good: list[bytes]
    cookies: bytes
    asked: int

    def ask(
        self, method: str, path: str, query: bytes, body: bytes, headers: list[tuple[bytes, bytes]]
    ) -> tuple[int, dict[bytes, bytes]]:
        messages: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            messages.append(message)

        self.asked += 1
        address = b"10.%d.%d.1" % divmod(self.asked % 65536, 256)
        scope = {
            "type": "http", "http_version": "1.1", "method": method, "scheme": "http",
            "path": path, "raw_path": path.encode(), "query_string": query, "root_path": "",
            "headers": [(b"x-forwarded-for", address), (b"host", b"mcp.example.test"), *headers],
        }  # fmt: skip
        self.runner.run(self.stage.built.app(scope, receive, send))
        return messages[0]["status"], dict(messages[0]["headers"])


@pytest.fixture(scope="module")
def target(store: ValkeyServer, keys: StandInKeys) -> Iterator[Target]:
    """The front door, with one client that has been through it."""
    with tempfile.TemporaryDirectory() as folder, asyncio.Runner() as runner:
        whole = stage(store, keys, Path(folder))
        found = runner.run(whole.__aenter__())
        client = FrontDoorClient(found)
        runner.run(client.register())
        tokens = runner.run(client.tokens())
        page = runner.run(client.authorize())
        form = page.text.partition('name="form_token" value="')[2].partition('"')[0]
        held = client.browser.cookies.jar
        good = [
            client.client_id, "claude", LOOPBACK, FILES, "S256", "code", "approve", "v" * 43,
            "authorization_code", "refresh_token", "mcp:tools", "https://auth.example.test",
            tokens["access_token"], form, *client.parameters().values(),
        ]  # fmt: skip
        yield Target(
            runner,
            found,
            [each.encode() for each in good],
            "; ".join(f"{each.name}={each.value}" for each in held).encode(),
            0,
        )
        runner.run(whole.__aexit__(None, None, None))


MEDIA = [b"application/x-www-form-urlencoded"] * 6 + [b"application/json", b"text/plain", b"\xff"]
PIECES = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [
            b"\x00",
            b"\r\nX: y",
            b"https://evil.example",
            b"javascript:x",
            b"a.b.c.d.e",
            b"W1tb" * 900,
        ]
    ),
    st.integers(0, 99),
)


@dataclass
class Sent:
    """What somebody sends."""

    method: str
    path: str
    pairs: list[tuple[str, bytes | int]]
    junk: bytes
    media: bytes
    browser: bool
    cookie: bytes


SENT = st.builds(
    Sent,
    method=st.sampled_from(["GET", "POST", "POST", "HEAD", "OPTIONS", "PUT", "\u00e9"]),
    path=st.sampled_from(PATHS),
    pairs=st.lists(st.tuples(st.sampled_from(NAMES), PIECES), max_size=9),
    junk=st.one_of(st.just(b""), st.binary(max_size=60)),
    media=st.sampled_from(MEDIA),
    browser=st.booleans(),
    cookie=st.binary(max_size=40),
)


@examples(300)
@given(sent=SENT)
def test_any_bytes_have_a_proper_answer(target: Target, sent: Sent) -> None:
    """Whatever it is: neither an exception nor a way out, and Authelia hears nothing of it."""
    before = len(target.stage.upstream.sent)
    said = b"&".join(
        f"{name}={quote_from_bytes(_text(target, each))}".encode() for name, each in sent.pairs
    )
    said += sent.junk
    headers = [(b"content-type", sent.media)]
    headers += [(b"cookie", target.cookies if sent.browser else sent.cookie)]
    headers += [(b"origin", GATEWAY.encode())] if sent.browser else []
    query, body = (said, b"") if sent.method in ("GET", "HEAD") else (b"", said)
    status, answer = target.ask(sent.method, sent.path, query, body, headers)
    assert status < 500, status
    location = answer.get(b"location", b"").decode("ascii")
    assert not location or location.startswith(HOMES), location
    approved = sent.path == paths.CONSENT and status == 303
    assert approved or len(target.stage.upstream.sent) == before
    assert not [line for line in target.stage.lines() if line["event"] == "crash"]


def _text(target: Target, piece: bytes | int) -> bytes:
    """One of the good values, for a number."""
    return target.good[piece % len(target.good)] if isinstance(piece, int) else piece
