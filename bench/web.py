"""A load of HTTP/1.1: connections with one request each in flight, each answer looked at.

`run` keeps so many in flight, `paced` sends at given moments, whatever the answers take.
"""

import select
import socket
import time
from collections import deque

from bench.load import Disturbed


class WebLoad:
    """Send one request again and again."""

    def __init__(self, place: tuple[str, int], request: bytes, width: int) -> None:
        self._request = request
        self._sockets = [socket.create_connection(place) for _ in range(width)]
        for one in self._sockets:
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received: dict[int, bytes] = {}
        self._bad = b""
        self.latencies: list[float] = []

    def close(self) -> None:
        for one in self._sockets:
            one.close()

    def run(self, requests: int, width: int) -> float:
        """Send so many, and return the seconds.

        Raises:
            Disturbed: where an answer was not the upstream's; all have come by then.
            RuntimeError: where a connection was closed.
        """
        poll = select.epoll()
        active = {one.fileno(): one for one in self._sockets[:width]}
        self._received = dict.fromkeys(active, b"")
        self._bad, self.latencies = b"", []
        left, begun = requests - width, dict.fromkeys(active, time.perf_counter())
        begin = time.perf_counter()
        for number, one in active.items():
            poll.register(number, select.EPOLLIN)
            one.sendall(self._request)
        while len(self.latencies) < requests:
            ready = poll.poll(30)
            if not ready:
                raise RuntimeError("no answer in 30 seconds")
            for number, _ in ready:
                if not self._answered(number, active[number].recv(65536)):
                    continue
                now = time.perf_counter()
                self.latencies.append(now - begun[number])
                if left > 0:
                    left -= 1
                    begun[number] = now
                    active[number].sendall(self._request)
        seconds = time.perf_counter() - begin
        poll.close()
        if self._bad:
            raise Disturbed(f"not the answer that was expected: {self._bad!r}")
        return seconds

    def paced(self, requests: int, rate: float) -> float:
        """Send so many a second, and return the seconds.

        The time of an answer counts from the moment when its request was to be sent: one that
        waits for a free connection is late.

        Raises:
            Disturbed, RuntimeError: as `run`.
        """
        poll = select.epoll()
        by_number = {one.fileno(): one for one in self._sockets}
        for number in by_number:
            poll.register(number, select.EPOLLIN)
        self._received = dict.fromkeys(by_number, b"")
        self._bad, self.latencies = b"", []
        free, begun, sent = deque(by_number), dict[int, float](), 0
        begin = time.perf_counter()
        while len(self.latencies) < requests:
            now = time.perf_counter() - begin
            while sent < requests and sent / rate <= now and free:
                number = free.popleft()
                begun[number] = sent / rate
                by_number[number].sendall(self._request)
                sent += 1
            due = sent / rate - now if sent < requests and free else 30.0
            ready = poll.poll(max(0.0, due))
            if not ready and due == 30.0:
                raise RuntimeError("no answer in 30 seconds")
            for number, _ in ready:
                if self._answered(number, by_number[number].recv(65536)):
                    self.latencies.append(time.perf_counter() - begin - begun.pop(number))
                    free.append(number)
        seconds = time.perf_counter() - begin
        poll.close()
        if self._bad:
            raise Disturbed(f"not the answer that was expected: {self._bad!r}")
        return seconds

    def _answered(self, number: int, data: bytes) -> bool:
        """Take what came, and tell whether the answer is whole."""
        if not data:
            raise RuntimeError("the connection was closed")
        whole = self._received[number] + data
        if not _is_whole(whole):
            self._received[number] = whole
            return False
        self._received[number] = b""
        if not whole.startswith(b"HTTP/1.1 200"):
            self._bad = whole[:300]
        return True


def _is_whole(data: bytes) -> bool:
    head, end, body = data.partition(b"\r\n\r\n")
    fields = head.lower()
    if b"transfer-encoding: chunked" in fields:
        return body.endswith(b"\r\n0\r\n\r\n")
    length = fields.partition(b"content-length:")[2].partition(b"\r\n")[0]
    return bool(end) and len(body) == int(length or b"0")
