"""Addresses that cannot be had are said before anything starts."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from authz.config.load import Settings, read
from authz.local.listeners import check_certificate, check_free
from authz.local.state import FAILED, MISCONFIGURED, SetupError
from authz.setup.certificates import write_certificates

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


def _with_certificate(certificate: Path, key: Path) -> Settings:
    text = _FILE.format(gateway="127.0.0.1:0", metrics="127.0.0.1:1")
    tls = f"tls: {{certificate: {certificate}, key: {key}}}, listen"
    return read(text.replace("listen", tls), "authz.yaml", {})


def test_a_certificate_with_its_key(tmp_path: Path) -> None:
    """What Envoy can read is no obstacle."""
    made = write_certificates(tmp_path, ["mcp.example.test"])

    check_certificate(_with_certificate(made.certificate, made.key).config)


def test_a_certificate_that_is_not_there(tmp_path: Path) -> None:
    """Envoy would listen without it and serve nobody: said before anything starts."""
    settings = _with_certificate(tmp_path / "tls.crt", tmp_path / "tls.key")

    with pytest.raises(SetupError, match=r"gateway\.tls\.certificate: .*No such file") as caught:
        check_certificate(settings.config)
    assert caught.value.code == MISCONFIGURED


def test_a_certificate_of_another_key_or_none(tmp_path: Path) -> None:
    """Junk, and a key that is another's, are no certificate."""
    one, other = (
        write_certificates(tmp_path / "a", ["a.test"]),
        write_certificates(tmp_path / "b", ["b.test"]),
    )
    junk = tmp_path / "junk"
    junk.write_text("no PEM")

    for certificate, key, wrong in (
        (one.certificate, other.key, "does not fit the key"),
        (junk, one.key, "holds no certificate in PEM"),
        (one.certificate, junk, "key: .* holds no private key in PEM"),
    ):
        with pytest.raises(SetupError, match=wrong):
            check_certificate(_with_certificate(certificate, key).config)
