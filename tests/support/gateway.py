"""The rendered configuration in a running Envoy, with stand-ins all around.

Envoy runs exactly what `render` returns; every part is reached as settings and topology say.
"""

import secrets
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
from ruamel.yaml import YAML

from authz.config.endpoints import Tcp, Unix
from authz.envoy.render import Topology, render
from tests.support import edge
from tests.support.envoy import RunningEnvoy, running_envoy
from tests.support.wild_client import WildAnswer, WildClient, http2

GATEWAY = "mcp.example.test"
PORTAL = "auth.example.test"
ORIGIN = "https://inspector.example.test"
MAX_BODY = 65536
SERVERS = {"files", "notes"}
GOOD = edge.GOOD
SETTINGS = """
issuer:
  url: https://auth.example.test
  internal: http://issuer:9091
  serve: true
gateway:
  url: https://mcp.example.test
  listen: 127.0.0.1:0
  http_listen: 127.0.0.1:0
  tls: {{certificate: {folder}/tls/tls.crt, key: {folder}/tls/tls.key}}
  origins: [https://inspector.example.test]
  max_body: 64KiB
{gateway}servers:
  files:
    upstream: http://files:8000/mcp
    scopes: [mcp:files]
    tools: {{read_*: {{}}, delete_*: {{scopes: [mcp:files:write]}}}}
  notes: {{upstream: http://notes:8000/mcp, scopes: ["%REQ(COOKIE)%"]}}
  gone: {{upstream: http://gone:8000}}
"""

_UNLIMITED = """\
  address_rate: 1000000/second
  address_calls: 1000000/second
  address_passwords: 1000000/second
"""


@dataclass(frozen=True, slots=True)
class Gateway:
    """Hold the running parts, and how to talk to them.

    Attributes:
        envoy: the process.
        folder: of every file and socket.
        authz: the stand-in of the service.
        servers: what stands behind, by name; `issuer` is the portal, `pages` the front door where
            there is one. `gone` does not exist.
        send: a client of the gateway.
        portal: a client of the issuer's pages.
        plain: a client of the listener without TLS.
        text: the rendered configuration.
    """

    envoy: RunningEnvoy
    folder: Path
    authz: edge.Authz
    servers: dict[str, edge.EdgeUpstream]
    send: WildClient
    portal: WildClient
    plain: WildClient
    text: str = field(repr=False)

    @property
    def table(self) -> Any:
        """Return the rendered configuration, read: half a second of CPU."""
        return YAML(typ="safe").load(self.text)

    def arrived(self) -> dict[str, int]:
        """Return how many requests reached whom."""
        return {name: len(server.arrived) for name, server in self.servers.items()}

    def forget(self) -> None:
        """Forget what reached anybody."""
        self.authz.checks.clear()
        self.authz.allow = None
        for server in self.servers.values():
            server.arrived.clear()
            server.status, server.more, server.raw = 200, (), b""

    @contextmanager
    def logged(self) -> Iterator[list[dict[str, object]]]:
        """Yield a list that holds, after the block, the access log of what the block did."""
        mark, entries = secrets.token_hex(8), list[dict[str, object]]()
        self.send("GET", f"/begin-{mark}")
        yield entries
        (request_id,) = self.send("GET", f"/end-{mark}").values("x-request-id")
        log = self.envoy.access_log(request_id)
        paths = [entry["path"] for entry in log]
        entries += log[paths.index(f"/begin-{mark}") + 1 : paths.index(f"/end-{mark}")]

    def over_h2(self, *changes: tuple[str, str]) -> WildAnswer:
        """POST to /files over HTTP/2, with fields changed or, where they are new, added."""
        fields = {":method": "POST", ":scheme": "https", ":authority": GATEWAY, ":path": "/files"}
        fields |= {GOOD[0]: GOOD[1], **dict(changes)}
        return http2(replace(self.send, tls=tls("h2")), *fields.items(), body=b"{}")

    def well_behaved(self) -> httpx.Client:
        """Return an ordinary client that speaks HTTP/2."""
        return httpx.Client(
            http1=False,
            http2=True,
            verify=tls("h2"),
            base_url=f"https://127.0.0.1:{self.send.port}",
            headers={"host": GATEWAY},
            timeout=30,
        )


def tls(*alpn: str) -> ssl.SSLContext:
    """Return a client's TLS that takes any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(list(alpn))
    return context


@contextmanager
def running_gateway(
    more: str = "",
    *,
    pages: bool = True,
    gateway: str = _UNLIMITED,
    settings: str = SETTINGS,
) -> Iterator[Gateway]:
    """Start everything; ports are the system's choice.

    Args:
        more: what authz.yaml says besides.
        pages: whether the pages answer.
        gateway: what it says of the gateway besides.
        settings: what it says before.
    """
    with ExitStack() as stack:
        # Short: the path of a Unix socket has 108 bytes at most.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="e")))
        # Not beside the configuration: Envoy must watch this folder for its own sake.
        (folder / "tls").mkdir()
        edge.certificate(folder / "tls", 1, GATEWAY, PORTAL, swap=True)
        authz = stack.enter_context(edge.authz(f"unix:{folder}/check"))
        files, port = stack.enter_context(edge.upstream(("127.0.0.1", 0)))
        notes, _ = stack.enter_context(edge.upstream(folder / "notes"))
        front = [stack.enter_context(edge.upstream(folder / "pages"))[0]] if more and pages else []
        issuer, issuer_port = stack.enter_context(edge.upstream(("127.0.0.1", 0)))
        where = Topology(
            authz=(Unix(f"{folder}/check"),),
            admin=f"{folder}/admin",
            folder=str(folder),
            upstreams={
                "files": Tcp("127.0.0.1", port),
                "notes": Unix(f"{folder}/notes"),
                "gone": Unix(f"{folder}/gone"),
            },
            issuer=Tcp("127.0.0.1", issuer_port),
            pages=(Unix(f"{folder}/pages"),),
        )
        servers = {"files": files, "notes": notes, "issuer": issuer}
        servers |= zip(("pages",), front, strict=False)
        rendered = render(
            edge.patient_settings(settings.format(folder=folder, gateway=gateway) + more), where
        )
        envoy = stack.enter_context(running_envoy(rendered, folder, folder / "admin"))
        port = envoy.port("gateway")
        yield Gateway(
            envoy,
            folder,
            authz,
            servers,
            WildClient(port, GATEWAY, tls("http/1.1")),
            WildClient(port, PORTAL, tls("http/1.1")),
            WildClient(envoy.port("redirect"), GATEWAY),
            rendered["envoy.yaml"],
        )
