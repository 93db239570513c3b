"""The service as a part: how it is started, when it counts as ready, and what people read."""

import asyncio
import http.server
import json
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from authz.config.endpoints import Tcp
from authz.local.services import CHECK, check_service, readable
from authz.local.state import State
from authz.process.service import ServiceSpec

T = TypeVar("T")


@contextmanager
def status(code: int, body: bytes) -> Iterator[Tcp]:
    """Serve /readyz."""

    class ServiceHandler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(code)
            self.end_headers()
            self.wfile.write(body if self.path == "/readyz" else b"")

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), ServiceHandler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield Tcp("127.0.0.1", server.server_port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def answer(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask, in a loop of its own."""

    async def play() -> T:
        return await ask()

    return asyncio.run(play())


def _part(state: State, metrics: Tcp, *, patient: bool = True) -> ServiceSpec:
    return check_service(state, Path("/etc/authz.yaml"), metrics, {"A": "b"}, patient=patient)


def test_command(state: State) -> None:
    """It is this very program with this authz.yaml, and the working folder shadows no module."""
    spec = _part(state, Tcp("127.0.0.1", 9464))

    expected = (sys.executable, "-P", "-m", "authz", "serve", "-c", "/etc/authz.yaml", "--check")
    socket, files = f"unix:{state.folder}/run/check.sock", str(state.envoy)
    stats = str(state.socket("stats"))
    assert spec.argv == (*expected, socket, "--envoy", files, "--envoy-stats", stats)
    assert spec.env == {"A": "b"}
    assert spec.reloads


@pytest.mark.parametrize(
    ("code", "listening", "expected"),
    [(200, True, True), (503, True, False)],
    ids=["ready", "not-ready"],
)
def test_ready(state: State, code: int, listening: bool, expected: bool) -> None:
    """It is ready when it says so, and answers Check."""

    async def play() -> bool:
        path = state.socket("check")
        async with await asyncio.start_unix_server(lambda _, writer: writer.close(), path):
            return await spec.ready()

    with status(code, b"{}") as metrics:
        spec = _part(state, metrics)
        assert asyncio.run(play()) is expected


def test_ready_with_several_workers(state: State) -> None:
    """Every worker answers on a socket of its own, and all of them have to."""

    async def play() -> tuple[bool, bool]:
        first, second = (state.socket(CHECK).with_name(f"check-{n}.sock") for n in (0, 1))
        async with await asyncio.start_unix_server(lambda _, writer: writer.close(), first):
            with pytest.raises(FileNotFoundError):
                await spec.ready()
            async with await asyncio.start_unix_server(lambda _, writer: writer.close(), second):
                return await spec.ready(), True

    with status(200, b"{}") as metrics:
        spec = check_service(state, Path("/a.yaml"), metrics, {}, patient=True, workers=2)
        assert asyncio.run(play()) == (True, True)


def test_ready_without_check(state: State) -> None:
    """One that says it is ready and does not answer Check is not."""
    with status(200, b"{}") as metrics, pytest.raises(FileNotFoundError):
        answer(_part(state, metrics).ready)


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1"])
def test_asked_over_loopback(state: State, host: str) -> None:
    """A service that listens on every address is asked on loopback."""
    with status(503, b"{}") as metrics:
        assert answer(_part(state, Tcp(host, metrics.port)).ready) is False


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            {"ready": False, "parts": {"keys": "no keys yet", "redis": "", "drain": "x"}},
            "keys: no keys yet; drain: x",
        ),
        ({"ready": False}, "it does not say why"),
        ({"parts": ["keys"]}, "it does not say why"),
        ([], "it does not say why"),
    ],
)
def test_late(state: State, body: object, expected: str) -> None:
    """What it waits for is read from /readyz, whatever stands there."""
    with status(503, json.dumps(body).encode()) as metrics:
        late = _part(state, metrics).waits_for
        assert late is not None
        assert answer(late) == expected


def test_impatient(state: State) -> None:
    """Where somebody waits for everything, a service that is not ready is a failure."""
    assert _part(state, Tcp("127.0.0.1", 1), patient=False).required
    assert not _part(state, Tcp("127.0.0.1", 1)).required


def test_late_nobody(state: State) -> None:
    """A service that cannot even be asked is no reason to fall over."""
    late = _part(state, Tcp("127.0.0.1", 1)).waits_for
    assert late is not None
    assert answer(late) == "it does not say why"


def test_readable() -> None:
    """A decision is shown in words, and its values obey nobody."""
    line = json.dumps({"time": 0, "event": "decision", "verdict": "deny", "tool": "x\x1b[2J\n"})

    assert readable(line).endswith('deny  tool="x\\u001b[2J\\n"')


@pytest.mark.parametrize("line", ["", "Traceback", "{}", "[1]", '{"time": "x"}', "null", '"a"'])
def test_readable_as_it_is(line: str) -> None:
    """What is no record is shown as it is."""
    assert readable(line) == line
