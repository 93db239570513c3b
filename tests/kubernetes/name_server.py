"""A DNS server of one machine, as the one of a cluster: names whose addresses come and go."""

import socketserver
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address

_A = 1
_KIND = "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3"
_RESOLVER = "CaresDnsResolverConfig"
_HEAD = struct.Struct("!6H")
_ANSWER = 0x8400  # a response, authoritative, no error


class NameServer:
    """Answer A records of the names that it has, with nothing else (RFC 1035)."""

    def __init__(self) -> None:
        self.names: dict[str, tuple[str, ...]] = {}
        names = self.names

        class QueryHandler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                query, sock = self.request
                sock.sendto(_answer(query, names), self.client_address)

        self._server = socketserver.ThreadingUDPServer(("127.0.0.1", 0), QueryHandler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _answer(query: bytes, names: dict[str, tuple[str, ...]]) -> bytes:
    number = _HEAD.unpack_from(query)[0]
    labels, at = [], _HEAD.size
    while length := query[at]:
        labels.append(query[at + 1 : at + 1 + length].decode().lower())
        at += 1 + length
    question = query[_HEAD.size : at + 5]
    (kind,) = struct.unpack_from("!H", query, at + 1)
    found = names.get(".".join(labels), ()) if kind == _A else ()
    records = b"".join(
        # The name of the question, IN, no time to live.
        struct.pack("!HHHIH", 0xC00C, _A, 1, 0, 4) + IPv4Address(each).packed
        for each in found
    )
    return _HEAD.pack(number, _ANSWER, 1, len(found), 0, 0) + question + records


@contextmanager
def running_name_server() -> Iterator[NameServer]:
    """Run one as long as the block does."""
    found = NameServer()
    try:
        yield found
    finally:
        found.close()


def asks(port: int) -> str:
    """Return what has Envoy ask it, to be put at the end of envoy.yaml."""
    return f"""\
typed_dns_resolver_config:
  name: envoy.network.dns_resolver.cares
  typed_config:
    "@type": {_KIND}.{_RESOLVER}
    resolvers: [{{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}]
    dns_resolver_options: {{no_default_search_domain: true}}
"""
