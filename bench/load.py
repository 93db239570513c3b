"""A load for gRPC servers: so many unary calls in flight, each answer looked at.

A client in Python that costs less than the servers that it measures: frames of HTTP/2 (RFC 9113)
are written once and patched with the stream's number; of the answers it reads no header, only
messages. An answer without its message, a reset or a connection that ends is an error. `run` keeps
so many in flight, `each_once` too, of different messages; `paced` sends at given moments,
whatever the answers take.
"""

import select
import socket
import struct
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

_HEAD = struct.Struct(">I B I")  # length (24 bits) and type share the first four bytes
_DATA, _HEADERS, _RST, _SETTINGS, _PING, _GOAWAY, _WINDOW = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _ACK, _END_HEADERS = 1, 1, 4
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_LARGE = 2**31 - 1
_PATIENCE = 30.0  # seconds without an answer


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return _HEAD.pack(len(payload) << 8 | kind, flags, stream) + payload


def _headers(fields: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Encode literals that are never indexed (RFC 7541, section 6.2.3): no state, no table."""
    block = b""
    for name, value in fields:
        block += b"\x10" + bytes([len(name)]) + name + bytes([len(value)]) + value
    return block


def _framed(message: bytes) -> bytes:
    """Put a message into gRPC's frame: not compressed, its length."""
    return struct.pack(">BI", 0, len(message)) + message


class Disturbed(RuntimeError):  # noqa: N818 - what happened; the caller measures again
    """Say that an answer was not good: what was measured does not count."""


T = TypeVar("T")


def undisturbed(measure: Callable[..., T], *args: object) -> T:
    """Measure again where answers were not good: other programs of the machine make Redis late."""
    for _ in range(20):
        with suppress(Disturbed):
            return measure(*args)
        time.sleep(0.5)
    return measure(*args)


@dataclass
class LoadConnection:
    socket: socket.socket
    received: bytearray = field(default_factory=bytearray)
    next_stream: int = 1
    window: int = 65535
    messages: dict[int, bytes] = field(default_factory=dict)
    begun: dict[int, float] = field(default_factory=dict)


class Load:
    """Ask one method of one server on a Unix socket, over a few connections."""

    def __init__(
        self, path: str, method: str, message: bytes, good: Callable[[bytes], bool], size: int = 4
    ) -> None:
        """Connect.

        Args:
            path: the socket.
            method: `/<service>/<method>`.
            message: what to send.
            good: tells whether an answer's message is right.
            size: connections.
        """
        fields = [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", method.encode()),
            (b":authority", b"authz"),
            (b"content-type", b"application/grpc"),
            (b"te", b"trailers"),
        ]
        self._block = _headers(fields)
        self._body = _framed(message)
        self._good = good
        self._connections = [self._connect(path) for _ in range(size)]
        self.latencies: list[float] = []
        self.sent: list[float] = []

    def _connect(self, path: str) -> LoadConnection:
        one = socket.socket(socket.AF_UNIX)
        one.connect(path)
        settings = struct.pack(">HIHI", 4, _LARGE, 3, 0)
        one.sendall(_PREFACE + _frame(_SETTINGS, 0, 0, settings))
        one.sendall(_frame(_WINDOW, 0, 0, struct.pack(">I", _LARGE - 65535)))
        return LoadConnection(one)

    def close(self) -> None:
        """Close the connections."""
        for each in self._connections:
            each.socket.close()

    def run(self, calls: int, in_flight: int) -> float:
        """Make the calls, and return the seconds that they took.

        Raises:
            Disturbed: where an answer was not good; all have come by then.
            RuntimeError: where a connection is of no use any more.
        """
        width = len(self._connections) if in_flight > 1 else 1
        active = self._connections[:width]
        by_number = {each.socket.fileno(): each for each in active}
        poll = select.epoll()
        for number in by_number:
            poll.register(number, select.EPOLLIN)
        self._left, self._pending, self._bad = calls, calls, b""
        self.latencies, self.sent = [], []
        begin = time.perf_counter()
        for each in active:
            self._ask(each, in_flight // width)
        while self._pending:
            ready = poll.poll(30)
            if not ready:
                raise RuntimeError("no answer in 30 seconds")
            for number, _ in ready:
                self._ask(by_number[number], self._receive(by_number[number]))
        seconds = time.perf_counter() - begin
        poll.close()
        if self._bad:
            raise Disturbed(f"not the answer that was expected: {self._bad!r}")
        return seconds

    def paced(
        self, messages: Sequence[bytes], moments: Sequence[float], begin: float
    ) -> list[tuple[float, float]]:
        """Send each message at its moment, over the connections in turn.

        Args:
            messages: what to send.
            moments: seconds after the beginning, in order; one for each message.
            begin: when that is, of `time.perf_counter`, which all processes of Linux share.

        Returns:
            Of each answer, when its message was sent, after the beginning, and how long it took.

        Raises:
            Disturbed: where an answer was not good; all have come by then.
            RuntimeError: where a connection is of no use any more.
        """

        def wait(at: int) -> float:
            return moments[at] - (time.perf_counter() - begin)

        self._send_each(messages, wait)
        return [(sent - begin, took) for sent, took in zip(self.sent, self.latencies, strict=True)]

    def each_once(self, messages: Sequence[bytes], in_flight: int) -> float:
        """Send each message once, so many in flight, and return the seconds that it took.

        Raises:
            Disturbed, RuntimeError: as `run`.
        """

        def wait(at: int) -> float:
            answered = len(messages) - self._pending
            return 0.0 if at - answered < in_flight else _PATIENCE

        begin = time.perf_counter()
        self._send_each(messages, wait)
        return time.perf_counter() - begin

    def _send_each(self, messages: Sequence[bytes], wait: Callable[[int], float]) -> None:
        """Send each message when it is due, over the connections in turn, and take all answers.

        Args:
            messages: what to send.
            wait: the seconds until a message, by its place, is due, if no answer comes before.
        """
        by_number = {each.socket.fileno(): each for each in self._connections}
        poll = select.epoll()
        for number in by_number:
            poll.register(number, select.EPOLLIN)
        at, total = 0, len(messages)
        self._pending, self._bad, self.latencies, self.sent = total, b"", [], []
        while self._pending:
            pause = _PATIENCE
            while at < total and (pause := wait(at)) <= 0:
                self._send(self._connections[at % len(self._connections)], _framed(messages[at]))
                at, pause = at + 1, _PATIENCE
            ready = poll.poll(pause)
            if not ready and pause == _PATIENCE:
                raise RuntimeError("no answer in 30 seconds")
            for number, _ in ready:
                self._receive(by_number[number])
        poll.close()
        if self._bad:
            raise Disturbed(f"not the answer that was expected: {self._bad!r}")

    def _send(self, one: LoadConnection, body: bytes) -> None:
        stream = one.next_stream
        one.next_stream += 2
        one.begun[stream] = time.perf_counter()
        one.window -= len(body)
        headers = _frame(_HEADERS, _END_HEADERS, stream, self._block)
        one.socket.sendall(headers + _frame(_DATA, _END_STREAM, stream, body))

    def _ask(self, one: LoadConnection, count: int) -> None:
        count = min(count, self._left, max(0, one.window // len(self._body)))
        if count <= 0:
            return
        out = bytearray()
        now = time.perf_counter()
        for _ in range(count):
            stream = one.next_stream
            one.next_stream += 2
            one.begun[stream] = now
            out += _frame(_HEADERS, _END_HEADERS, stream, self._block)
            out += _frame(_DATA, _END_STREAM, stream, self._body)
        one.window -= count * len(self._body)
        self._left -= count
        one.socket.sendall(out)

    def _receive(self, one: LoadConnection) -> int:
        """Read what is there, and return how many calls were answered."""
        data = one.socket.recv(262144)
        if not data:
            raise RuntimeError("the server closed the connection")
        one.received += data
        buffer, at, answered = one.received, 0, 0
        while len(buffer) - at >= 9:
            packed, flags, stream = _HEAD.unpack_from(buffer, at)
            length, kind = packed >> 8, packed & 255
            if len(buffer) - at - 9 < length:
                break
            payload = bytes(buffer[at + 9 : at + 9 + length])
            at += 9 + length
            self._frame_came(one, kind, flags, stream, payload)
            if flags & _END_STREAM and kind in (_DATA, _HEADERS):
                answered += 1
                self._answered(one, stream)
        del buffer[:at]
        return answered

    def _frame_came(
        self, one: LoadConnection, kind: int, flags: int, stream: int, payload: bytes
    ) -> None:
        if kind == _DATA:
            one.messages[stream] = one.messages.get(stream, b"") + payload
        elif kind == _WINDOW and stream == 0:
            one.window += struct.unpack(">I", payload)[0]
        elif kind in (_SETTINGS, _PING) and not flags & _ACK:
            one.socket.sendall(_frame(kind, _ACK, 0, payload if kind == _PING else b""))
        elif kind in (_RST, _GOAWAY):
            raise RuntimeError(f"the server ended it: {payload!r}")

    def _answered(self, one: LoadConnection, stream: int) -> None:
        framed = one.messages.pop(stream, b"")
        if len(framed) < 5 or not self._good(framed[5:]):
            self._bad = framed[:400] or b"nothing"
        sent = one.begun.pop(stream)
        self.sent.append(sent)
        self.latencies.append(time.perf_counter() - sent)
        self._pending -= 1
