"""A load of HTTP/1.1: connections with one request each in flight, each answer looked at."""

import select
import socket
import time

from bench.load import Disturbed


class WebLoad:
    """Send one request again and again."""

    def __init__(self, place: tuple[str, int], request: bytes, width: int) -> None:
        self._request = request
        self._sockets = [socket.create_connection(place) for _ in range(width)]
        for one in self._sockets:
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
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
        begun: dict[int, float] = {}
        received = dict.fromkeys(active, b"")
        for number in active:
            poll.register(number, select.EPOLLIN)
        self.latencies = []
        left, bad = requests, b""
        begin = time.perf_counter()
        for number, one in active.items():
            begun[number] = time.perf_counter()
            one.sendall(self._request)
            left -= 1
        answered = 0
        while answered < requests:
            ready = poll.poll(30)
            if not ready:
                raise RuntimeError("no answer in 30 seconds")
            for number, _ in ready:
                data = received[number] + active[number].recv(65536)
                if not data:
                    raise RuntimeError("the connection was closed")
                if not _is_whole(data):
                    received[number] = data
                    continue
                if not data.startswith(b"HTTP/1.1 200"):
                    bad = data[:300]
                received[number] = b""
                now = time.perf_counter()
                self.latencies.append(now - begun[number])
                answered += 1
                if left > 0:
                    left -= 1
                    begun[number] = now
                    active[number].sendall(self._request)
        seconds = time.perf_counter() - begin
        poll.close()
        if bad:
            raise Disturbed(f"not the answer that was expected: {bad!r}")
        return seconds


def _is_whole(data: bytes) -> bool:
    head, end, body = data.partition(b"\r\n\r\n")
    length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
    return bool(end) and len(body) == int(length or b"0")
