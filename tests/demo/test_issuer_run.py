"""The stand-in as a server: configured by JSON, on a port or a Unix socket, loud about itself."""

import asyncio
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from pydantic import ValidationError

from authz_demo.issuer import IssuerConfig, StandInIssuer, from_json, run, to_json
from authz_demo.issuer.keys import SigningKeys
from authz_demo.issuer.pages import WARNING
from authz_demo.serving import Address
from tests.demo.kit import Clock, config


def test_a_configuration_survives_its_json_form() -> None:
    """What is written for a child process is read back equal, but for the clock."""
    written = config(Clock())

    assert from_json(to_json(written)) == written


@pytest.mark.parametrize(
    "url", ["http://auth.example.test", "https://auth.example.test/", "https://", "auth"]
)
def test_an_issuer_is_an_origin_over_tls(url: str) -> None:
    """A URL that Authelia could not have is refused at once."""
    with pytest.raises(ValueError, match="issuer_url"):
        IssuerConfig(url)
    with pytest.raises(ValidationError):
        from_json(f'{{"issuer_url": "{url}"}}')


def test_it_runs_in_process_on_a_free_port(keys: SigningKeys) -> None:
    """Two of them run side by side, and each answers with its forwarded headers."""

    async def both() -> list[int]:
        async with run(config(Clock()), keys=keys) as one, run(config(Clock()), keys=keys) as two:
            assert one.url != two.url
            async with httpx.AsyncClient() as browser:
                answers = [
                    await browser.get(f"{it.url}/jwks.json", headers=it.headers)
                    for it in (one, two)
                ]
        return [answer.status_code for answer in answers]

    assert asyncio.run(both()) == [200, 200]


def test_replaced_keys_are_published_at_once(keys: SigningKeys) -> None:
    """A test can withdraw the keys of a running stand-in."""
    issuer = StandInIssuer(config(Clock()), keys)
    before = issuer.keys.jwks()

    issuer.keys = SigningKeys.generate()

    assert issuer.keys.jwks() != before


def test_a_taken_port_is_an_error(keys: SigningKeys) -> None:
    """A port that is taken is told, not waited for."""

    async def twice() -> None:
        async with run(config(Clock()), keys=keys) as first:
            port = httpx.URL(first.url).port or 0
            async with run(config(Clock()), Address(port), keys):
                pass

    with pytest.raises(OSError, match="in use"):
        asyncio.run(twice())


@pytest.fixture
def child(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """The stand-in as the demonstration starts it."""
    file, socket = tmp_path / "issuer.json", tmp_path / "issuer.sock"
    file.write_text(to_json(config(Clock())), encoding="utf-8")
    command = [sys.executable, "-m", "authz_demo.issuer", "--config", str(file)]
    command += ["--uds", str(socket)]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        yield process, socket
        process.kill()


def test_a_child_process_warns_serves_and_ends(
    child: tuple[subprocess.Popen[bytes], Path],
) -> None:
    """It warns before it answers, answers on a socket that is its owner's, ends when told to."""
    process, socket = child
    assert process.stderr is not None
    lines = [process.stderr.readline().decode().strip() for _ in range(3)]
    assert WARNING in lines

    async def document() -> httpx.Response:
        transport = httpx.AsyncHTTPTransport(uds=str(socket), retries=0)
        forwarded = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "auth.example.test"}
        async with httpx.AsyncClient(transport=transport, headers=forwarded) as browser:
            deadline = asyncio.get_running_loop().time() + 30
            while True:
                try:
                    return await browser.get("http://issuer/.well-known/openid-configuration")
                except httpx.ConnectError:
                    assert asyncio.get_running_loop().time() < deadline
                    assert process.poll() is None
                    await asyncio.sleep(0.05)

    assert asyncio.run(document()).json()["issuer"] == "https://auth.example.test"
    assert stat.S_IMODE(socket.stat().st_mode) == 0o600
    process.terminate()
    assert process.wait(30) is not None
