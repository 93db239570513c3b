"""The real service as a child process, an issuer that can be taken away, and Envoy's side."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import grpc

from authz.config.addresses import worker_addresses
from authz.config.endpoints import Unix
from authz.envoy import codec
from tests.support.wire import WireAnswer, answer
from tests.tokens.token_factory import rsa_signer

PATIENCE = 120.0
# What is told of a Redis that has not answered within 50 ms; on a busy machine a sound one may not.
LATE = "no answer in time"


def until(true: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
    """Wait for a condition of another process, looking often at first.

    Less often later: to look costs the other process time, too.

    Raises:
        AssertionError: where it does not come true in time.
    """
    end, pause = time.monotonic() + patience, 0.01
    while not true():
        assert time.monotonic() < end, f"waited in vain: {what}"
        time.sleep(pause)
        pause = min(pause * 1.2, 0.1)


class KeyIssuer:
    """An issuer of one RSA key, on a port of its own, that counts what it is asked."""

    def __init__(self, url: str = "https://auth.example.test") -> None:
        self.url = url
        self.asked: list[str] = []
        self.keys: list[dict[str, object]] = [rsa_signer().jwk()]
        self.broken = False
        self.hold = threading.Event()
        self.hold.set()
        issuer = self

        class IssuerHandler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked.append(self.path)
                issuer.hold.wait(PATIENCE)
                document: Mapping[str, object] = {
                    "issuer": issuer.url,
                    "jwks_uri": f"{issuer.url}/jwks.json",
                }
                if self.path == "/jwks.json":
                    document = {"keys": issuer.keys}
                body = json.dumps(document).encode()
                self.send_response(500 if issuer.broken else 200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                with suppress(OSError):
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), IssuerHandler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.hold.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def running_issuer() -> Iterator[KeyIssuer]:
    """Run an issuer as long as the block does."""
    issuer = KeyIssuer()
    try:
        yield issuer
    finally:
        issuer.close()


@dataclass
class ServiceProcess:
    """A running `authz serve`."""

    process: "subprocess.Popen[str]"
    config: Path
    channel: grpc.Channel
    channels: Sequence[grpc.Channel] = ()
    lines: list[dict[str, object]] = field(default_factory=list)
    status_port: int = 0

    def check(self, raw: bytes, timeout: float = PATIENCE, worker: int = 0) -> WireAnswer:
        """Ask as Envoy asks."""
        return answer(self.begin(raw, timeout, worker).result())

    def begin(self, raw: bytes, timeout: float = PATIENCE, worker: int = 0) -> "grpc.Future[bytes]":
        """Ask without waiting for the answer."""
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self.channels[worker].unary_unary(
            f"/{codec.AUTHORIZATION}/Check"
        )
        future: grpc.Future[bytes] = call.future(raw, timeout=timeout)
        return future

    def get(self, path: str) -> tuple[int, str]:
        """Ask the status listener."""
        connection = HTTPConnection("127.0.0.1", self.status_port, timeout=PATIENCE)
        try:
            connection.request("GET", path)
            found = connection.getresponse()
            return found.status, found.read().decode()
        finally:
            connection.close()

    def events(self, name: str, after: int = 0) -> list[dict[str, object]]:
        """Return the lines of one kind so far, without the first `after` lines of all kinds."""
        return [line for line in self.lines[after:] if line.get("event") == name]

    def wait_for(self, name: str, count: int = 1, after: int = 0) -> dict[str, object]:
        """Return the count-th line of one kind as soon as it is written.

        Args:
            name: of the kind.
            count: how many such lines are waited for.
            after: how many lines of all kinds are of before, and do not count: of a service that
                tests share, `len(lines)` when the test begins.
        """
        until(lambda: len(self.events(name, after)) >= count, f"the line {name!r}")
        return self.events(name, after)[count - 1]

    def redis_was_late(self) -> bool:
        """Tell whether Redis was ever late: requests were then decided without it."""
        return any(line["detail"] == LATE for line in self.events("fault"))

    def port(self) -> int | None:
        """Return the port of the status listener as soon as it is told.

        One of several workers has a socket in its place.
        """
        told = (line["status"] for line in self.events("started"))
        return next((port for port in told if isinstance(port, int)), None)

    def wait_ready(self) -> None:
        """Wait until every part is ready."""
        until(lambda: self.get("/readyz")[0] == 200, "readiness")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(json.loads(line))


@contextmanager
def running_service(  # noqa: PLR0917 - tests name them
    folder: Path,
    config: str,
    env: Mapping[str, str],
    workers: int = 1,
    program: Sequence[str] = ("-m", "authz"),
    options: Sequence[str] = (),
) -> Iterator[ServiceProcess]:
    """Run the service as long as the block does; what it wrote to stderr must be nothing.

    Args:
        folder: of its files and sockets.
        config: the text of authz.yaml.
        env: its environment.
        workers: what the text says of them.
        program: what Python runs, in place of authz.
        options: of the command, besides the usual ones.
    """
    path = folder / "authz.yaml"
    path.write_text(config)
    socket = folder / "check.sock"
    command = [sys.executable, *program, "serve", "-c", str(path)]
    command += ["--check", f"unix:{socket}", "--status", "127.0.0.1:0", *options]
    errors = (folder / "stderr").open("w")
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=errors, text=True, env=dict(env)
    )
    channels = [
        grpc.insecure_channel(str(at)) for at in worker_addresses(Unix(str(socket)), workers)
    ]
    service = ServiceProcess(process, path, channels[0], channels)
    reader = threading.Thread(target=service._read, daemon=True)
    reader.start()
    try:
        until(lambda: service.port() is not None, "the line 'started'")
        service.status_port = service.port() or 0
        yield service
    finally:
        for channel in channels:
            channel.close()
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        reader.join()
        assert process.stdout is not None
        process.stdout.close()
        errors.close()


def told_once(told: Sequence[object], fault: str) -> bool:
    """Tell whether a fault of Redis was told as often as it began.

    Redis of a busy machine may have answered late besides, and again after it was back: that is
    another fault, which is told as well, and after which the first begins again.
    """
    return (
        fault in told
        and set(told) <= {fault, LATE}
        and all((one, other) != (fault, fault) for one, other in pairwise(told))
    )
