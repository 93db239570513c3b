"""Issuers that are broken, each in one way, and what is said of them."""

import json
import time
from pathlib import Path
from typing import Any, Final

import pytest

from authz.doctor import issuer
from authz.doctor.issuer import IssuerReport
from tests.demo.kit import ISSUER
from tests.doctor.kit import (
    against,
    answering,
    diagnoses,
    problems,
    saying,
    settings,
    stand_in,
    the,
)

FIXTURES: Final = Path(__file__).parents[1] / "fixtures" / "authelia"


def examine(app: Any, *, ahead: float = 0.0, **changes: Any) -> IssuerReport:
    async def look(url: str) -> IssuerReport:
        asked = settings(url, **changes).config.issuer
        return await issuer.examine(asked, lambda: time.time() - ahead)

    found: IssuerReport = against(app, look)
    return found


def test_a_sound_issuer() -> None:
    """Of the stand-in, which answers as the recorded Authelia, there is nothing to complain."""
    found = examine(stand_in())

    assert diagnoses(found.findings) == ["metadata", "clock", "keys"]
    assert found.keys is not None
    assert found.metadata["issuer"] == ISSUER


def test_nobody_there() -> None:
    """An address where nobody listens is told with the line that names it."""

    async def look(url: str) -> IssuerReport:
        return await issuer.examine(settings().config.issuer)

    found = against(stand_in(), look)

    assert problems(found.findings) == ["unreachable"]
    assert "issuer.internal" in found.findings[0].fix


def test_forwarded_headers_that_do_not_arrive() -> None:
    """Plain HTTP without X-Forwarded-Proto and -Host is a 400 of Authelia's, and is told so."""
    whole = stand_in()

    async def stripping(scope: Any, receive: Any, send: Any) -> None:
        kept = [h for h in scope.get("headers", []) if not h[0].startswith(b"x-forwarded-")]
        await whole({**scope, "headers": kept}, receive, send)

    found = examine(stripping)

    assert problems(found.findings) == ["unknown_url"]
    assert "X-Forwarded-Proto" in found.findings[0].fix


def test_an_issuer_url_that_authelia_does_not_know() -> None:
    """As recorded: 400 to everything; the key of Authelia's configuration is named."""
    recorded = json.loads((FIXTURES / "requests.json").read_text())["discovery plain http"]
    app = answering((recorded["status"], recorded["body"].encode()), **recorded["headers"])
    found = examine(app)

    assert problems(found.findings) == ["unknown_url"]
    assert "session.cookies[].authelia_url" in found.findings[0].message
    assert ISSUER in found.findings[0].message


def test_a_proxy_that_writes_http() -> None:
    """A metadata that says http:// of an https issuer tells of a lost X-Forwarded-Proto."""
    found = examine(answering(saying(issuer="http://auth.example.test")))

    assert problems(found.findings) == ["forwarded_headers"]


@pytest.mark.parametrize("said", [f"{ISSUER}/", "https://Auth.example.test"])
def test_an_issuer_spelled_otherwise(said: str) -> None:
    """A slash or a capital is another issuer; the spelling to write is shown."""
    found = examine(answering(saying(issuer=said)))

    assert problems(found.findings) == ["wrong_issuer"]
    assert f'issuer.url: "{said}"' in found.findings[0].fix


@pytest.mark.parametrize("said", ["https://other.example.test", None, 7])
def test_another_issuer(said: object) -> None:
    """Another issuer's metadata, or nobody's, is not believed."""
    found = examine(answering(saying(issuer=said)))

    assert problems(found.findings) == ["wrong_issuer"]
    assert not found.metadata


@pytest.mark.parametrize(
    ("answer", "diagnosis"),
    [
        pytest.param((302, b""), "redirect", id="redirect"),
        pytest.param((200, b"<html>"), "no_metadata", id="html"),
        pytest.param((500, b""), "no_metadata", id="500"),
    ],
)
def test_no_metadata(answer: tuple[int, bytes], diagnosis: str) -> None:
    """A portal, a redirect and a broken server are told apart from metadata."""
    assert problems(examine(answering(answer)).findings) == [diagnosis]


@pytest.mark.parametrize("path", ["", "/auth"])
def test_an_authelia_that_does_not_know_its_path(path: str) -> None:
    """It answers with its page, as to whatever it does not know: the line that is missing there is
    named.
    """
    found = examine(answering((200, b"<html>")), url=f"https://mcp.example.test{path}")

    fix = the(found.findings, "no_metadata").fix
    assert ("server.address: 'tcp://:9091/auth'" in fix) == bool(path)


@pytest.mark.parametrize("ahead", [120.0, -120.0])
def test_clock_skew(ahead: float) -> None:
    """A clock that differs by more than issuer.leeway is told by how much, and which way."""
    found = the(examine(stand_in(), ahead=ahead).findings, "clock_skew")

    assert ("ahead of" if ahead > 0 else "behind") in found.message
    assert "issuer.leeway" in found.message


def test_no_usable_key() -> None:
    """Keys of another algorithm than issuer.algorithms are named, with both ways out."""
    found = examine(stand_in(), issuer=", algorithms: [PS512]")

    assert problems(found.findings) == ["no_usable_key"]
    assert "RS256" in the(found.findings, "no_usable_key").message
    assert found.keys is None


def test_no_key_set() -> None:
    """A key set that cannot be had is told."""
    assert problems(examine(answering(saying(), (500, b""))).findings) == ["no_keys"]


def test_no_pkce() -> None:
    """An issuer that does not name S256 keeps official clients out."""
    found = examine(answering(saying(code_challenge_methods_supported=["plain"]), (500, b"")))

    assert "no_s256" in diagnoses(found.findings)


def test_an_issuer_cannot_write_lines_of_the_report() -> None:
    """What an issuer says of itself is shown short and printable."""
    found = examine(answering(saying(issuer="https://x\n\x1b[2J" + "y" * 1000)))

    assert found.findings[0].message.isprintable()
    assert len(found.findings[0].message) < 250
