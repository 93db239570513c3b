"""The real service and a real Envoy before MCP servers whose lists are filtered.

`files` answers what a test puts down, byte by byte; `sdk` is a Unix socket on which a test serves
an official MCP server.
"""

import json
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from authz.config.addresses import worker_addresses
from authz.config.endpoints import Tcp, Unix
from authz.envoy.render import Topology, render
from tests.support import edge
from tests.support.envoy import RunningEnvoy, running_envoy
from tests.support.gateway import GATEWAY, tls
from tests.support.service import ServiceProcess, running_issuer, running_service
from tests.support.wild_client import WildAnswer, WildClient
from tests.tokens.token_factory import rsa_signer

_CONFIG: Final = """\
issuer: {{url: https://auth.example.test, internal: {issuer}, deadline: 30s}}
gateway:
  url: https://mcp.example.test
  listen: 127.0.0.1:0
  http_listen: 127.0.0.1:0
  tls: {{certificate: {folder}/tls/tls.crt, key: {folder}/tls/tls.key}}
  max_body: 64KiB
  max_list: 4MiB
telemetry: {{log: json}}
service: {{transport: {transport}, {service}}}
servers:
  files:
    upstream: http://files:8000/mcp
    limits: []
    tools:
      read_*: {{}}
      delete_*: {{scopes: [mcp:files:write]}}
      burn_*: {{second_factor: totp}}
      staff_*: {{groups: [staff]}}
  sdk:
    upstream: http://sdk:8000/sdk
    limits: []
    tools: {{read_*: {{}}, delete_*: {{scopes: [mcp:files:write]}}}}
  open:
    upstream: http://files:8000/mcp
    limits: []
    filter_lists: false
    tools: {{read_*: {{}}}}
"""
_RESOURCES: Final = [f"https://mcp.example.test/{name}" for name in ("files", "sdk", "open")]
_PATIENCE: Final = 120


class RawServer:
    """An HTTP server that answers with the bytes it is given, and closes the connection.

    Attributes:
        pieces: the whole response, in pieces that are sent one by one.
        choose: which pieces answer a request, by its head; `pieces` where it is None.
        requests: the head of each request that came.
        go_on: waited for before each piece but the first.
    """

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.choose: Callable[[bytes], list[bytes]] | None = None
        self.requests: list[bytes] = []
        self.go_on = threading.Event()
        self.go_on.set()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.go_on.set()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.settimeout(_PATIENCE)
            head = b""
            while b"\r\n\r\n" not in head:
                head += connection.recv(65536)
            self.requests.append(head)
            pieces = self.pieces if self.choose is None else self.choose(head)
            for number, piece in enumerate(list(pieces)):
                if number:
                    self.go_on.wait(_PATIENCE)
                connection.sendall(piece)


@dataclass(frozen=True, slots=True)
class ListEdge:
    """Hold the running parts.

    Attributes:
        envoy, service: the processes.
        raw: the server `files`, and `open`.
        folder: of the socket `sdk`.
        client: of the gateway, over HTTP/1.1.
    """

    envoy: RunningEnvoy
    service: ServiceProcess
    raw: RawServer
    folder: Path
    client: WildClient = field(repr=False)

    @property
    def url(self) -> str:
        """Return where the gateway is, whatever it is called."""
        return f"https://127.0.0.1:{self.client.port}"

    def answers(self, media: str, body: bytes, status: str = "200 OK", **more: str) -> None:
        """Let the server answer with a body of known length."""
        headers = {"content-length": str(len(body)), "content-type": media}
        headers |= {name.replace("_", "-"): value for name, value in more.items()}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items() if value)
        self.raw.pieces = [f"HTTP/1.1 {status}\r\n{lines}connection: close\r\n\r\n".encode() + body]

    def streams(self, media: str, *chunks: bytes) -> None:
        """Let the server answer with a chunked body."""
        head = f"HTTP/1.1 200 OK\r\ncontent-type: {media}\r\ntransfer-encoding: chunked\r\n\r\n"
        pieces = [b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks]
        self.raw.pieces = [head.encode() + pieces[0], *pieces[1:], b"0\r\n\r\n"]

    def ask(
        self,
        method: str = "tools/list",
        server: str = "files",
        *,
        http: str = "POST",
        rpc_id: object = 7,
        more: tuple[tuple[str, str], ...] = (),
        **claims: object,
    ) -> WildAnswer:
        """Send one request as a legacy client does."""
        self.raw.requests.clear()
        headers = _headers(token(**claims), *more)
        if http != "POST":
            return self.client(http, f"/{server}", *headers)
        body = json.dumps({"jsonrpc": "2.0", "id": rpc_id, "method": method}).encode()
        return self.client("POST", f"/{server}", *headers, body=body)

    def raw_request(self, *more: tuple[str, str]) -> bytes:
        """Return the same request for a tools/list as bytes."""
        body = b'{"jsonrpc":"2.0","id":7,"method":"tools/list"}'
        fields = [("host", GATEWAY), ("content-length", str(len(body))), ("connection", "close")]
        fields += [*_headers(token(), *more)]
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
        return f"POST /files HTTP/1.1\r\n{lines}\r\n".encode() + body


def _headers(bearer: str, *more: tuple[str, str]) -> list[tuple[str, str]]:
    return [
        ("authorization", f"Bearer {bearer}"),
        ("accept", "application/json, text/event-stream"),
        ("accept-encoding", "gzip"),
        ("content-type", "application/json"),
        *more,
    ]


def token(**claims: object) -> str:
    """Return a token of john for all servers."""
    now = int(time.time())
    times = {"iat": now - 5, "nbf": now - 5, "exp": now + 600}
    return rsa_signer().token({**times, "aud": _RESOURCES, "scp": ["mcp:files"], **claims})


@contextmanager
def running_list_edge(
    transport: str, service_settings: str = "drain_notice: 0s", *, workers: int = 1, redis: str = ""
) -> Iterator[ListEdge]:
    """Run all of it; ports are the system's choice.

    Args:
        transport: of the service.
        service_settings: of `service` in authz.yaml.
        workers: what these say of them.
        redis: the URL of one that the workers share.
    """
    with ExitStack() as stack:
        # Short: the path of a Unix socket has 108 bytes at most.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="l")))
        for inner in ("tls", "service"):
            (folder / inner).mkdir()
        edge.certificate(folder / "tls", 1, GATEWAY, swap=False)
        issuer = stack.enter_context(running_issuer())
        raw = RawServer()
        stack.callback(raw.close)
        config = _CONFIG.format(
            issuer=issuer.address, folder=folder, transport=transport, service=service_settings
        )
        if redis:
            config += f"redis: {{url: '{redis}'}}\n"
        service = stack.enter_context(
            running_service(folder / "service", config, {"PATH": os.environ["PATH"]}, workers)
        )
        service.wait_ready()
        where = Topology(
            authz=worker_addresses(Unix(f"{folder}/service/check.sock"), workers),
            admin=f"{folder}/admin",
            folder=str(folder),
            upstreams={
                "files": Tcp("127.0.0.1", raw.port),
                "open": Tcp("127.0.0.1", raw.port),
                "sdk": Unix(f"{folder}/sdk"),
            },
        )
        rendered = render(edge.patient_settings(config), where)
        envoy = stack.enter_context(running_envoy(rendered, folder, folder / "admin"))
        client = WildClient(envoy.port("gateway"), GATEWAY, tls("http/1.1"))
        yield ListEdge(envoy, service, raw, folder, client)
