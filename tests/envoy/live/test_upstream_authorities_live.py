"""Servers with https under a private authority: whom the real Envoy trusts, and what others say."""

import asyncio
import json
import re
import ssl
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509

from authz.cli import main
from authz.config.endpoints import Unix
from authz.config.load import load
from authz.doctor import servers, upstream_authorities
from authz.envoy.apply import apply
from authz.envoy.files import replace_files
from authz.envoy.render import Topology, render_watched
from authz.server.envoy_statistics import PATH, envoy_pages
from tests.support import edge
from tests.support.certificates import MadeCertificate, made
from tests.support.envoy import RunningEnvoy, running_envoy
from tests.support.gateway import GATEWAY, GOOD
from tests.support.wild_client import WildClient

# Of three servers at one address: one is trusted by its authority, one by another, one as any.
CONFIG = """\
issuer: {{url: https://auth.example.test, internal: 'http://127.0.0.1:1'}}
gateway: {{url: https://mcp.example.test, listen: '127.0.0.1:0'}}
servers:
  own: {{upstream: 'https://127.0.0.1:{port}/mcp', upstream_ca: {folder}/own.crt}}
  other: {{upstream: 'https://127.0.0.1:{port}/mcp', upstream_ca: {folder}/other.crt}}
  public: {{upstream: 'https://127.0.0.1:{port}/mcp'}}
"""


class _McpHandler(BaseHTTPRequestHandler):
    """List one tool, whatever is asked, on a connection each."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        tool = {"name": "read", "inputSchema": {"type": "object"}}
        answer = {"jsonrpc": "2.0", "id": asked.get("id"), "result": {"tools": [tool]}}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Say nothing of clients that do not trust it."""


@dataclass(frozen=True, slots=True)
class PrivateEdge:
    """Hold an Envoy before a server whose authority is private.

    Attributes:
        tls: of the server: loaded anew it serves another certificate.
    """

    envoy: RunningEnvoy
    folder: Path
    tls: ssl.SSLContext

    @property
    def config(self) -> Path:
        return self.folder / "authz.yaml"

    def ask(self, server: str) -> int:
        client = WildClient(self.envoy.port("gateway"), GATEWAY)
        return client("POST", f"/{server}", GOOD, body=b"{}").status

    def serve(self, signer: MadeCertificate) -> None:
        """Have the server show a new certificate from now on."""
        leaf = made(by=signer, extra=[x509.IPAddress(ip_address("127.0.0.1"))])
        (self.folder / "pair.pem").write_bytes(leaf.pem + leaf.key_pem)
        self.tls.load_cert_chain(self.folder / "pair.pem")

    def trust(self, *authorities: MadeCertificate) -> None:
        """Have these in the file of `own`, and Envoy follow, as a reload of the service does."""
        (self.folder / "own.crt").write_bytes(b"".join(each.pem for each in authorities))
        update = apply(self.folder / "envoy", self.config.read_text())
        assert update.confirmed
        assert update.changed == ("clusters.yaml", "rendered.json")


def authority(name: str, days: int = 400) -> MadeCertificate:
    now = datetime.now(UTC)
    lives = now - timedelta(days=1), now + timedelta(days=days)
    return made(is_authority=True, lives=lives, subject=name)


@contextmanager
def https_server(folder: Path) -> Iterator[tuple[int, ssl.SSLContext]]:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with _QuietServer(("127.0.0.1", 0), _McpHandler) as server:
        # The handshake is the thread's own: one that is broken off holds up nobody.
        server.socket = tls.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_port, tls
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def signer() -> MadeCertificate:
    return authority("the first authority")


@pytest.fixture(scope="module")
def running(signer: MadeCertificate) -> Iterator[PrivateEdge]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="e")))
        port, tls = stack.enter_context(https_server(folder))
        stack.enter_context(edge.authz(f"unix:{folder}/check"))
        (folder / "own.crt").write_bytes(signer.pem)
        (folder / "other.crt").write_bytes(authority("another authority", 10).pem)
        (folder / "system.crt").write_bytes(authority("an authority of the system").pem)
        (folder / "authz.yaml").write_text(CONFIG.format(port=port, folder=folder))
        where = Topology(
            authz=(Unix(f"{folder}/check"),),
            admin=f"{folder}/admin",
            stats=f"{folder}/stats",
            folder=f"{folder}/envoy",
            trusted_ca=f"{folder}/system.crt",
        )
        settings = load(folder / "authz.yaml", {}, secrets=False, authorities=True)
        replace_files(folder / "envoy", render_watched(settings, where), None)
        envoy = stack.enter_context(running_envoy({}, folder / "envoy", folder / "admin"))
        found = PrivateEdge(envoy, folder, tls)
        found.serve(signer)
        yield found


def explained(
    running: PrivateEdge, server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> str:
    """Return what `authz explain` says of a request for a server, by its id."""
    client = WildClient(running.envoy.port("gateway"), GATEWAY)
    answer = client("POST", f"/{server}", GOOD, body=b"{}")
    assert answer.status == 503
    (request_id,) = answer.values("x-request-id")
    log = running.envoy.access_log(request_id)
    (tmp_path / "log").write_text("".join(json.dumps(each) + "\n" for each in log))
    main(["explain", "--request-id", request_id, "--log", str(tmp_path / "log")])
    return capsys.readouterr().out


@pytest.mark.attack("upstream-authority")
def test_a_server_is_trusted_by_its_own_authority_alone(
    running: PrivateEdge, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under another one, or the system's, no request reaches it, and the answer's id says why."""
    assert running.ask("own") == 200
    for server in ("other", "public"):
        said = explained(running, server, tmp_path, capsys)
        assert said.startswith("refused: server_certificate_refused, HTTP 503")
        assert f"servers.{server}.upstream_ca" in said


def test_a_renewed_authority_is_followed(running: PrivateEdge, signer: MadeCertificate) -> None:
    """In three steps no request fails; the old one counts no more once it is taken out."""
    following = authority("the next authority", 200)
    running.trust(signer, following)
    assert running.ask("own") == 200
    running.serve(following)
    assert running.ask("own") == 200
    running.trust(following)
    assert running.ask("own") == 200
    running.trust(signer)
    assert running.ask("own") == 503
    running.serve(signer)
    assert running.ask("own") == 200


def test_the_authority_that_ends_first_is_told(
    running: PrivateEdge, signer: MadeCertificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By Envoy, as the alert reads it, and by doctor, who looks for the server's very own."""
    monkeypatch.setenv("SSL_CERT_FILE", str(running.folder / "system.crt"))
    soon = authority("an authority that ends", 5)
    running.trust(signer, soon)
    body = envoy_pages(f"{running.folder}/stats")[PATH]()[2].decode()
    name = "envoy_cluster_ssl_certificate_expiration_unix_time_seconds"
    told = re.findall(rf'^{name}\{{.*envoy_cluster_name="mcp_own".*\}} (\d+)$', body, re.MULTILINE)
    assert told == [str(int(soon.certificate.not_valid_after_utc.timestamp()))]

    settings = load(running.config, {}, secrets=False, authorities=True)
    places, now = [running.folder / "stats"], datetime.now(UTC).timestamp()
    found = list(upstream_authorities.examine(settings, places, now))
    (other,) = [each for each in found if each.diagnosis == "authority_ends"]
    assert other.message.startswith("other: ")  # of what Envoy says: it signed nothing here
    assert "servers.other.upstream_ca" in str(other.fix)
    running.serve(soon)
    found = list(upstream_authorities.examine(settings, places, now))
    assert [each.message.partition(":")[0] for each in found] == ["own", "other"]
    running.serve(signer)
    running.trust(signer)


def test_tools_and_doctor_verify_as_envoy_does(
    running: PrivateEdge, capsys: pytest.CaptureFixture[str]
) -> None:
    """The list comes under the own authority alone; doctor names the file of another."""
    assert main(["tools", "own", str(running.config)]) == 0
    assert "read" in capsys.readouterr().out
    for server in ("other", "public"):
        assert main(["tools", server, str(running.config)]) == 1

    settings = load(running.config, {}, secrets=False, authorities=True)
    found = asyncio.run(servers.examine(settings))
    said = {each.message.partition(":")[0]: each for each in found}
    assert said["own"].diagnosis == "lists"
    assert said["other"].diagnosis == said["public"].diagnosis == "untrusted"
    assert "another authority than that of servers.other.upstream_ca" in said["other"].message
    assert "name the file of its authority" in str(said["public"].fix)
