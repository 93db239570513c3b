"""The stand-in as a server: configured by JSON, on a port or a Unix socket, loud about itself."""

import asyncio
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from authz_demo.issuer import from_json, to_json
from authz_demo.issuer.pages import WARNING
from tests.demo.kit import DemoClock, config


def test_a_configuration_survives_its_json_form() -> None:
    """What is written for a child process is read back equal, but for the clock."""
    written = config(DemoClock())

    assert from_json(to_json(written)) == written


@pytest.fixture
def child(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """The stand-in as the demonstration starts it."""
    file, socket = tmp_path / "issuer.json", tmp_path / "issuer.sock"
    file.write_text(to_json(config(DemoClock())), encoding="utf-8")
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
