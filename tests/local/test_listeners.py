"""Addresses that cannot be had are said before anything starts."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from authz.config.load import Settings, read
from authz.local.listeners import check_free
from authz.local.state import FAILED, MISCONFIGURED, SetupError

_FILE = """\
issuer: {{url: https://auth.example.test}}
gateway: {{url: https://mcp.example.test, listen: "{gateway}"}}
telemetry: {{metrics: "{metrics}"}}
servers: {{files: {{upstream: http://127.0.0.1:8000/mcp}}}}
"""


def _settings(gateway: str = "127.0.0.1:0", metrics: str = "127.0.0.1:1") -> Settings:
    return read(_FILE.format(gateway=gateway, metrics=metrics), "authz.yaml", {})


@contextmanager
def taken(*, shared: bool = False) -> Iterator[int]:
    """Listen on a port, as Envoy does where it is shared."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(
    ("name", "field"), [("gateway", "gateway.listen"), ("metrics", "telemetry.metrics")]
)
def test_taken(name: str, field: str, shared: bool) -> None:
    """A taken address is named, also one that Envoy could share with another Envoy."""
    with taken(shared=shared) as port:
        place = f"127.0.0.1:{port}"
        settings = _settings(**{name: place})
        with pytest.raises(SetupError, match=f"{field}: {place} is taken") as refused:
            check_free(settings.config)
    assert refused.value.code == FAILED


def test_not_ours() -> None:
    """An address that the machine does not have is a wrong configuration."""
    with pytest.raises(SetupError, match=r"192\.0\.2\.1:8443 is no address") as refused:
        check_free(_settings(gateway="192.0.2.1:8443").config)
    assert refused.value.code == MISCONFIGURED


def test_metrics_port() -> None:
    """Readiness is asked at a known port."""
    with pytest.raises(SetupError, match=r"telemetry\.metrics: write a port"):
        check_free(_settings(metrics="127.0.0.1:0").config)


def test_free_stays_free() -> None:
    """Looking at an address does not take it."""
    with taken() as port:
        pass
    settings = _settings(metrics=f"127.0.0.1:{port}")
    check_free(settings.config)
    check_free(settings.config)
