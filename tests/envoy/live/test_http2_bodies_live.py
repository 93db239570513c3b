"""Unfinished bodies over HTTP/2: many streams on few connections of one address.

They are refused before they take the memory from which Envoy refuses everybody.
"""

import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)

from tests.envoy.live.test_strangers_live import ATTACKER, SETTINGS, StrangersSite, running
from tests.support.gateway import GATEWAY, GOOD
from tests.support.wild_client import WildClient, http2

CONNECTIONS = 10
STREAMS = 100
SENT = 480 * 1024
BEGUN = 240  # the default of address_bodies
# What an address may begin takes 113 MiB of it; all thousand would take 469.
MEMORY = 256 << 20
_FRAME = 16 * 1024
_CHUNK = bytes(_FRAME)
# Seconds in which Envoy opens no window and answers nothing: what it will read, it has read.
_SILENCE = 1.0


@pytest.fixture
def site() -> Iterator[StrangersSite]:
    # Of an hour, and never given up, so that nothing here depends on how fast this machine is.
    figures = f"  address_bodies: {BEGUN}/hour\n  request_timeout: 5m\nservers"
    with running(SETTINGS.replace("servers", figures), memory=MEMORY) as site:
        yield site


class Flood:
    """One connection of the attacker: a hundred POSTs with bodies that will never be whole."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._h2 = H2Connection(H2Configuration(header_encoding="latin-1"))
        self.held: dict[int, int] = {}  # streams that wait, and how much of each was sent
        self.answered = Counter[str]()

    def begin(self) -> None:
        """Send the heads, and of each body as much as Envoy takes."""
        head = [(":method", "POST"), (":scheme", "http"), (":authority", GATEWAY)]
        head += [(":path", "/files"), ("authorization", "Bearer made.up")]
        self._h2.initiate_connection()
        for _ in range(STREAMS):
            stream = self._h2.get_next_available_stream_id()
            self._h2.send_headers(stream, head)
            self.held[stream] = 0
        self._sock.settimeout(_SILENCE)
        while any(sent < SENT for sent in self.held.values()):
            self._send()
            if not self._receive():
                return

    def _send(self) -> None:
        for stream in self.held:
            while size := self._takes(stream):
                self._h2.send_data(stream, _CHUNK[:size])
                self.held[stream] += size
        self._flush()

    def _takes(self, stream: int) -> int:
        window = self._h2.local_flow_control_window(stream)
        return max(0, min(SENT - self.held[stream], _FRAME, window))

    def _flush(self) -> None:
        while waiting := self._h2.data_to_send():
            self._sock.sendall(waiting)

    def _receive(self) -> bool:
        """Take what Envoy says; return whether it says anything."""
        try:
            received = self._sock.recv(1 << 16)
        except TimeoutError:
            return False
        if not received:
            return False
        for event in self._h2.receive_data(received):
            self._on(event)
        self._flush()
        return True

    def _on(self, event: Event) -> None:
        assert not isinstance(event, ConnectionTerminated), event
        if isinstance(event, ResponseReceived):
            self.answered[dict(event.headers)[":status"]] += 1  # type: ignore[index]  # texts here
            self.held.pop(event.stream_id or 0, None)
        elif isinstance(event, DataReceived) and event.flow_controlled_length:
            self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id or 0)
        elif isinstance(event, StreamEnded | StreamReset):
            self.held.pop(event.stream_id or 0, None)


def honest(site: StrangersSite) -> list[int]:
    """Ask from another address, over both versions of HTTP, also with a large body."""
    fields = {":method": "POST", ":scheme": "http", ":authority": GATEWAY, ":path": "/files"}
    fields |= {GOOD[0]: GOOD[1]}
    over_h2 = http2(WildClient(site.port, GATEWAY), *fields.items(), body=b"{}")
    large = [site.client("POST", "/files", GOOD, body=b"x" * 200_000) for _ in range(5)]
    return [over_h2.status, *(answer.status for answer in large)]


@pytest.mark.attack("unfinished-bodies")
def test_unfinished_streams_of_one_address_stop_nobody_else(site: StrangersSite) -> None:
    """A thousand streams of 480 KiB each on ten connections: another address is answered while
    they are held, and Envoy does not come near the memory from which it refuses.
    """
    with ExitStack() as stack:
        floods = [
            Flood(
                stack.enter_context(
                    socket.create_connection(
                        ("127.0.0.1", site.port), timeout=10, source_address=(ATTACKER, 0)
                    )
                )
            )
            for _ in range(CONNECTIONS)
        ]
        for flood in floods:
            flood.begin()
        assert honest(site) == [200] * 6
        held = [sent for flood in floods for sent in flood.held.values()]
        refused = sum((flood.answered for flood in floods), Counter[str]())

    assert held == [SENT] * len(held)
    assert BEGUN <= len(held) < 2 * BEGUN
    assert refused == {"429": CONNECTIONS * STREAMS - len(held)}
    assert site.overloaded() == 0
