"""What stands around the real Envoy in these tests: authz, MCP servers, clients.

Each records what reached it, so that a test asserts what happened rather than what was answered.
"""

import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import TCPServer, ThreadingMixIn, UnixStreamServer

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from authz.config import load
from authz.config.load import Settings
from authz.core.answers import FORM, ORIGIN, REQUEST_ID, RPC_ID, Form, HttpAnswer
from authz.core.answers import UpstreamChanges as Changes
from authz.core.request import HttpRequest, RefusedError
from authz.envoy import codec

GOOD = ("authorization", "Bearer good")
_TIMEOUT = 30
_LONGEST_DEADLINE = 30.0  # seconds that authz.yaml allows


_ALLOW = Changes((("x-authz-subject", "from-authz"),), ("x-authz-groups",))
_DENY = codec.encode_deny(
    HttpAnswer(
        401,
        (("content-type", "application/json"), ("www-authenticate", "Bearer")),
        b'{"said by": "authz"}',
    )
)


# Denied with HTTP 200, and let through with what Envoy needs to answer a request itself.
REFUSED = ("authorization", "Bearer refused")
KNOWN = {
    f"Bearer {form.value}": Changes(
        (), metadata=((RPC_ID, "9007199254740991"), (FORM, form.value), (REQUEST_ID, "r-1"))
    )
    for form in Form
}
_REFUSE = codec.encode_deny(
    HttpAnswer(200, (("content-type", "application/json"),), b'{"refused by": "authz"}'),
    "tool_not_allowed",
)


@dataclass(slots=True)
class Authz:
    """Answer Check in place of authz: allow good tokens, deny anything else.

    Attributes:
        checks: what it was asked, None for what the codec refused.
        hold: where set to an event, answers wait for it.
        allow: what an Allow changes, where it is not the usual.
        origins: the web origins that it allows.
    """

    checks: list[HttpRequest | None] = field(default_factory=list)
    hold: threading.Event | None = None
    allow: Changes | None = None
    origins: frozenset[str] = frozenset({"https://inspector.example.test"})

    @property
    def last(self) -> HttpRequest:
        found = self.checks[-1]
        assert found is not None
        return found

    def check(self, raw: bytes, _: object) -> bytes:
        try:
            asked = codec.decode(raw)
        except RefusedError:
            self.checks.append(None)
            return _DENY
        self.checks.append(asked)
        if self.hold is not None:
            self.hold.wait(_TIMEOUT)
        sent, origin = asked.headers.get(GOOD[0], ""), asked.headers.get("origin")
        if sent == REFUSED[1]:
            return _REFUSE
        changes = _ALLOWED.get(sent)
        if sent == GOOD[1] and self.allow is not None:
            changes = self.allow
        # Whoever sends a foreign one is refused, and who sends none is not spoken of.
        if changes is None or origin not in {None, *self.origins}:
            return _DENY
        told = () if origin is None else ((ORIGIN, origin),)
        return codec.encode_allow(replace(changes, metadata=(*changes.metadata, *told)))


_ALLOWED = {GOOD[1]: _ALLOW, **KNOWN}


@contextmanager
def authz(place: str) -> Iterator[Authz]:
    """Serve Check and health at a gRPC address."""
    stub = Authz()
    server = grpc.server(futures.ThreadPoolExecutor(8))
    services: tuple[tuple[str, Callable[[bytes, object], bytes]], ...] = (
        (codec.AUTHORIZATION, stub.check),
        (codec.HEALTH, lambda _raw, _context: codec.encode_health(serving=True)),
    )
    for service, handler in services:
        methods: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            "Check": grpc.unary_unary_rpc_method_handler(handler)
        }
        generic = grpc.method_handlers_generic_handler(service, methods)
        server.add_generic_rpc_handlers((generic,))
    server.add_insecure_port(place)
    server.start()
    try:
        yield stub
    finally:
        server.stop(None).wait()


@dataclass(frozen=True, slots=True)
class Arrived:
    """Hold a request that reached an upstream."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name]


@dataclass(slots=True)
class EdgeUpstream:
    """Be an HTTP server that sends hostile headers, and streams where it is asked to.

    Attributes:
        arrived: what reached it.
        go_on: streams go on once it is set.
        status, more: the status of its answers, and headers besides the usual ones.
        raw: where there is something, the bytes of its answer.
    """

    arrived: list[Arrived] = field(default_factory=list)
    go_on: threading.Event = field(default_factory=threading.Event)
    status: int = 200
    more: tuple[tuple[str, str], ...] = ()
    raw: bytes = b""


class _TcpServer(ThreadingMixIn, TCPServer):
    daemon_threads = True
    allow_reuse_address = True


class _PipeServer(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True


@contextmanager
def upstream(place: tuple[str, int] | Path) -> Iterator[tuple[EdgeUpstream, int]]:
    """Serve HTTP/1.1 and yield what arrives and the port (0 for a socket file)."""
    state = EdgeUpstream()

    class EdgeHandler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one_request(self) -> None:
            self.client_address = ("", 0)
            super().handle_one_request()

        def __getattr__(self, name: str) -> Callable[[], None]:
            """Answer any method: http.server looks for do_GET and so on."""
            if not name.startswith("do_"):
                raise AttributeError(name)
            return self.answer

        def answer(self) -> None:
            headers = tuple(self.headers.items())
            state.arrived.append(Arrived(self.command, self.path, headers, read_body(self)))
            if "stream" in self.path:
                _stream(self, state)
            else:
                _hostile(self, state)

        def log_message(self, *_: object) -> None:
            pass

    server: _PipeServer | _TcpServer
    if isinstance(place, Path):
        server = _PipeServer(str(place), EdgeHandler)
    else:
        server = _TcpServer(place, EdgeHandler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield state, server.socket.getsockname()[1] if isinstance(server, _TcpServer) else 0
    finally:
        state.go_on.set()
        server.shutdown()
        server.server_close()
        thread.join()


def read_body(handler: BaseHTTPRequestHandler) -> bytes:
    if handler.headers.get("transfer-encoding") != "chunked":
        return handler.rfile.read(int(handler.headers.get("content-length") or 0))
    body = b""
    while size := int(handler.rfile.readline(), 16):
        body += handler.rfile.read(size)
        handler.rfile.readline()
    handler.rfile.readline()
    return body


def _hostile(handler: BaseHTTPRequestHandler, state: EdgeUpstream) -> None:
    if state.raw:
        handler.wfile.write(state.raw)
        handler.close_connection = True
        return
    handler.send_response(state.status)
    for name, value in (
        ("content-length", "2"),
        ("content-type", "application/json"),
        ("set-cookie", "authelia_session=stolen; Domain=example.test"),
        ("access-control-allow-origin", "https://evil.example"),
        ("access-control-allow-credentials", "true"),
        *state.more,
    ):
        handler.send_header(name, value)
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(b"{}")


def _stream(handler: BaseHTTPRequestHandler, state: EdgeUpstream) -> None:
    handler.send_response(200)
    handler.send_header("content-type", "text/event-stream")
    handler.send_header("transfer-encoding", "chunked")
    handler.end_headers()
    for event in (b"data: first\n\n", b"data: second\n\n", b""):
        if event != b"data: first\n\n":
            state.go_on.wait(_TIMEOUT)
        try:
            handler.wfile.write(b"%x\r\n%b\r\n" % (len(event), event))
        except OSError:
            return


def settings(text: str) -> Settings:
    """Read the text of an authz.yaml without its secrets."""
    return load.read(text, "authz.yaml", {}, secrets=False)


def patient_settings(text: str) -> Settings:
    """Read as `settings`, for a real Envoy: where no deadline is named it is the longest.

    Envoy gives up a question to authz soon after it, and on a busy machine every part may be late.
    """
    found = settings(text)
    issuer = found.config.issuer
    if "deadline" not in issuer.model_fields_set:
        issuer = issuer.model_copy(update={"deadline": _LONGEST_DEADLINE})
        found = replace(found, config=found.config.model_copy(update={"issuer": issuer}))
    return found


def certificate(folder: Path, serial: int, *names: str, swap: bool) -> None:
    """Write tls.crt and tls.key as a renewal does.

    Args:
        folder: where they are found.
        serial: the serial number, to tell certificates apart.
        names: whom it is for.
        swap: the way of the kubelet with a secret of cert-manager's: the files are links into a
            folder, which is a link that is replaced, and the folder of before is removed;
            otherwise each file is renamed into place.
    """
    home = folder / f"..{serial}" if swap else folder
    before = sorted(folder.glob("..[0-9]*"))
    home.mkdir(exist_ok=True)
    for file, content in _pair(serial, names):
        (home / f"{file}.new").write_bytes(content)
        (home / f"{file}.new").rename(home / file)
    if swap:
        _link(folder / "..data", home.name)
        for file in ("tls.crt", "tls.key"):
            if not (folder / file).is_symlink():
                _link(folder / file, f"..data/{file}")
        for each in before:
            shutil.rmtree(each)


def _link(place: Path, target: str) -> None:
    new = place.with_name(f"{place.name}.new")
    new.symlink_to(target)
    new.rename(place)


def _pair(serial: int, names: Sequence[str]) -> tuple[tuple[str, bytes], ...]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test")])
    now = datetime.now(UTC)
    alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(alternatives, critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return ("tls.crt", signed.public_bytes(pem)), ("tls.key", private)
