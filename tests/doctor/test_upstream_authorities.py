"""When the authorities end by which Envoy trusts servers, as Envoy and the servers say."""

import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from socket import AF_UNIX
from socketserver import UnixStreamServer

import pytest

from authz.doctor.finding import Severity
from authz.doctor.upstream_authorities import examine
from authz.envoy.files import statistics
from authz.setup.certificates import write_certificates
from tests.doctor.kit import diagnoses, settings, the

DAY = 86400.0
NOW = 1_800_000_000.0
STAT = "cluster.mcp_{}.ssl.certificate.unnamed_ca_cert_e3b0c442.expiration_unix_time_seconds"
HTTPS = "  files: {upstream: 'https://127.0.0.1:1/mcp'}\n  notes: {upstream: 'http://notes/mcp'}\n"


class _Statistics(UnixStreamServer):
    """Answer each request with one text."""

    address_family = AF_UNIX
    text = b""


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, _Statistics)
        self.send_response(200)
        self.send_header("content-length", str(len(self.server.text)))
        self.end_headers()
        self.wfile.write(self.server.text)

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def address_string(self) -> str:
        return ""


@contextmanager
def telling(place: Path, text: str) -> Iterator[Path]:
    """Say these statistics at a socket."""
    with _Statistics(str(place), _Answer) as server:
        server.text = text.encode()
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield place
        finally:
            server.shutdown()
            thread.join()


def said(ends: Mapping[str, object]) -> str:
    return "".join(f"{STAT.format(name)}: {end}\n" for name, end in ends.items())


@pytest.mark.parametrize(
    ("left", "diagnosis", "severity"),
    [
        (-1, "authority_ended", Severity.PROBLEM),
        (0, "authority_ended", Severity.PROBLEM),
        (13 * DAY, "authority_ends", Severity.WARNING),
        (15 * DAY, "authorities_last", Severity.OK),
    ],
)
def test_what_envoy_says(tmp_path: Path, left: float, diagnosis: str, severity: Severity) -> None:
    """Of the server with https alone; of a socket that is not there nothing is expected."""
    config = settings(servers=HTTPS)
    with telling(tmp_path / "stats", said({"files": int(NOW + left), "notes": 1})) as place:
        found = list(examine(config, [tmp_path / "none", place], NOW))

    assert diagnoses(found) == [diagnosis]
    assert found[0].severity is severity
    assert "notes" not in found[0].message


@pytest.mark.parametrize("text", ["", "x", said({"files": "x"}), said({"files": "9" * 400})])
def test_what_is_no_answer(tmp_path: Path, text: str) -> None:
    """Nothing is said where nobody knows."""
    with telling(tmp_path / "stats", text) as place:
        assert list(examine(settings(servers=HTTPS), [place], NOW)) == []


def test_the_authority_of_the_servers_own_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is looked for in the whole file: Envoy tells of the first one alone."""
    now = datetime.now(UTC)
    (tmp_path / "other").mkdir()
    (tmp_path / "own").mkdir()
    other = write_certificates(tmp_path / "other", ["elsewhere.test"], now)
    paths = write_certificates(tmp_path / "own", ["127.0.0.1"], now - timedelta(days=5))
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(other.authority.read_bytes() + paths.authority.read_bytes())
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))

    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(paths.certificate, paths.key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        upstream = f"https://127.0.0.1:{server.server_port}/mcp"
        config = settings(servers=f"  files: {{upstream: '{upstream}'}}\n")
        try:
            with telling(
                tmp_path / "s", said({"files": int(now.timestamp() + 999 * DAY)})
            ) as place:
                found = list(examine(config, [place], now.timestamp()))
        finally:
            server.shutdown()
            thread.join()

    assert "ends in 47 hours" in the(found, "authority_ends").message


def test_statistics_that_are_too_long_are_none(tmp_path: Path) -> None:
    """A number that is cut would be another number: the end of an authority, or a count."""
    padding = "a: " + "1" * ((1 << 20) - len("a: \nb: 12")) + "\n"

    with telling(tmp_path / "stats", f"{padding}b: 12345\n") as place:
        assert statistics(place, ".") == {}
    with telling(tmp_path / "short", "b: 12345\n") as place:
        assert statistics(place, ".") == {"b": "12345"}
