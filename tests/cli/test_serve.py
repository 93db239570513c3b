"""`authz serve`: what cannot be listened on is said in words, before anything starts."""

import socket
from pathlib import Path

import pytest

from authz.cli.main import main

CONFIG = """\
issuer: {url: https://auth.example.test}
gateway: {url: https://mcp.example.test}
servers: {files: {upstream: http://127.0.0.1:8000/mcp}}
"""


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "authz.yaml"
    path.write_text(CONFIG)
    return str(path)


@pytest.mark.parametrize("option", ["--check", "--status"])
@pytest.mark.parametrize(
    "address", ["127.0.0.1", ":9000", "nowhere", "127.0.0.1:x", "127.0.0.1:65536", "h:²"]
)
def test_an_address_without_a_port_is_asked_wrongly(
    config: str, option: str, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a port nothing is guessed: gRPC would listen on 443."""
    assert main(["serve", "-c", config, option, address]) == 2
    assert f"{option}: {address} has no port" in capsys.readouterr().err


def test_a_taken_port_is_named(
    config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A port of somebody else is no reason for another transport, and is told by its field."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]

        check = f"unix:{tmp_path}/check.sock"
        status = f"127.0.0.1:{port}"

        assert main(["serve", "-c", config, "--check", check, "--status", status]) == 1
    assert f"telemetry.metrics: 127.0.0.1:{port}" in capsys.readouterr().err


def test_a_folder_that_is_not_there_is_named(
    config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A socket needs its folder."""
    socket_path = f"unix:{tmp_path}/no/check.sock"

    assert main(["serve", "-c", config, "--check", socket_path, "--status", "127.0.0.1:0"]) == 1
    assert f"the folder {tmp_path}/no does not exist" in capsys.readouterr().err
