"""Load through the real Envoy: a fixed number in flight, each answer checked.

Nothing is sent twice. A connection that breaks under a request is a failed request; one that Envoy
has announced to close is replaced, as any client does.
"""

import asyncio
import json
import os
import re
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from authz.config.endpoints import Unix
from authz.envoy.render import Topology, render
from tests.support import edge
from tests.support.envoy import RunningEnvoy, running_envoy
from tests.support.service import ServiceProcess
from tests.support.values import rpc
from tests.tokens.token_factory import rsa_signer

HOST = "mcp.example.test"
ENV = {"PATH": os.environ["PATH"]}
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
_REFUSED = frozenset({401, 403, 429})
_EXPLAINED = 20  # failed requests
# Lines of the log: decisions are told with their requests.
_OF_NO_FAILURE = frozenset({"decision", "config_warning", "security", "audit_head"})


@dataclass(frozen=True, slots=True)
class LoadAnswer:
    """One answer.

    Attributes:
        status: 0 is a broken connection.
        request_id: of the request; empty where no answer names it.
        text: the body, or how the connection broke.
    """

    status: int
    request_id: str
    text: str


@dataclass(slots=True)
class LoadResult:
    """Count what came back.

    Attributes:
        good, bad: statuses of requests with a good and with a bad token; 0 is a broken connection.
        times: seconds of each good request.
        failing: when each good request failed that did, by time.perf_counter.
        failures: their answers, and those to bad tokens that are no refusals.
        longest_failing: seconds between the first and the last good request that failed.
    """

    good: Counter[int] = field(default_factory=Counter)
    bad: Counter[int] = field(default_factory=Counter)
    times: list[float] = field(default_factory=list)
    failing: list[float] = field(default_factory=list)
    failures: list[LoadAnswer] = field(default_factory=list)

    @property
    def failed(self) -> int:
        """Good requests that were not answered by the upstream."""
        return self.good.total() - self.good[200]

    @property
    def longest_failing(self) -> float:
        return self.failing[-1] - self.failing[0] if self.failing else 0.0

    def explain(self, envoy: RunningEnvoy, *services: ServiceProcess) -> str:
        """Say of each failed request what its answer, Envoy and the services say of it."""
        told = explain_failures(self.failures, envoy, *services)
        return f"good {dict(self.good)}, bad {dict(self.bad)}\n{told}"


def explain_failures(
    failures: Sequence[LoadAnswer], envoy: RunningEnvoy, *services: ServiceProcess
) -> str:
    """Return failed requests as text: their answers, lines of the access log and decisions.

    After them: what else the services told, and what Envoy counted of authz.
    """
    entries = [("Envoy", entry) for entry in envoy.access_entries()]
    entries += [("authz", line) for each in services for line in each.lines]
    lines = []
    for each in failures[:_EXPLAINED]:
        lines.append(f"{each.status} request {each.request_id or 'without an id'}: {each.text}")
        lines += _about(entries, each.request_id) if each.request_id else ()
    if len(failures) > _EXPLAINED:
        lines.append(f"and {len(failures) - _EXPLAINED} more")
    lines.append("besides decisions:")
    lines += (
        f"  authz: {json.dumps(line)}"
        for each in services
        for line in each.lines
        if line.get("event") not in _OF_NO_FAILURE
    )
    lines.append(envoy.ask(r"/stats?usedonly&filter=^cluster\.authz\."))
    return "\n".join(lines)


def _about(entries: Iterable[tuple[str, Mapping[str, object]]], request_id: str) -> Iterator[str]:
    for source, entry in entries:
        if entry.get("request_id") == request_id:
            yield f"  {source}: {json.dumps(entry)}"


def post(token: str) -> bytes:
    """Return a whole HTTP/1.1 request."""
    body = rpc("tools/call", name="read_file", arguments={})
    head = (
        f"POST /files HTTP/1.1\r\nhost: {HOST}\r\ncontent-type: application/json\r\n"
        "accept: application/json, text/event-stream\r\n"
        f"authorization: Bearer {token}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def token(**claims: object) -> str:
    now = int(time.time())
    return rsa_signer().token({"iat": now - 5, "nbf": now - 5, "exp": now + 3600, **claims})


class LoadClient:
    """Send requests over one connection at a time."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, raw: bytes) -> LoadAnswer:
        """Return the answer; its status is 0 where the connection broke."""
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection("127.0.0.1", self.port)
            reader, writer = self._streams
            writer.write(raw)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0] or b"0")
            body = await reader.readexactly(length)
        except (OSError, asyncio.IncompleteReadError) as error:
            self.close()
            return LoadAnswer(0, "", repr(error))
        if b"connection: close" in head:
            self.close()
        named = re.search(rb"^x-request-id: *(\S+)", head, re.MULTILINE)
        request_id = named[1].decode() if named else ""
        return LoadAnswer(int(head[9:12]), request_id, body.decode(errors="replace").strip())

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def run_load(
    port: int, until: asyncio.Event, least: int, width: int = 16, pause: float = 0.0
) -> LoadResult:
    """Send requests until the event is set, and at least so many.

    Every tenth has a token for another server.

    Args:
        port: of Envoy.
        until: when to end.
        least: requests.
        width: clients, each with one request at a time.
        pause: seconds that a client waits after each answer.
    """
    found, sent = LoadResult(), 0
    # Of somebody else: who is refused often has to wait, and neighbours wait for new tokens.
    good = post(token())
    bad = post(token(sub="somebody else", aud=["https://mcp.example.test/notes"]))

    async def one_after_another() -> None:
        nonlocal sent
        client = LoadClient(port)
        while sent < least or not until.is_set():
            sent += 1
            await asyncio.sleep(pause)
            if sent % 10 == 0:
                answer = await client.send(bad)
                found.bad[answer.status] += 1
                if answer.status not in _REFUSED:
                    found.failures.append(answer)
                continue
            begin = time.perf_counter()
            answer = await client.send(good)
            found.good[answer.status] += 1
            found.times.append(time.perf_counter() - begin)
            if answer.status != 200:
                found.failing.append(time.perf_counter())
                found.failures.append(answer)
        client.close()

    await asyncio.gather(*(one_after_another() for _ in range(width)))
    return found


@contextmanager
def upstream(folder: Path) -> Iterator[Path]:
    """Answer every request on a socket at once, from a process of its own."""
    path = folder / "upstream"
    pid = os.fork()
    if not pid:
        with suppress(BaseException):
            asyncio.run(_answer(path))
        os._exit(0)
    try:
        while not path.exists():
            time.sleep(0.01)
        yield path
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


async def _answer(path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
                await reader.readexactly(int(length or b"0"))
                writer.write(ANSWER)

    server = await asyncio.start_unix_server(serve, path)
    await server.serve_forever()


@dataclass(frozen=True, slots=True)
class LoadedEdge:
    """Hold a running Envoy in front of workers."""

    envoy: RunningEnvoy
    port: int

    def wait_healthy(self, workers: int) -> None:
        """Wait until Envoy knows that so many workers are well."""
        self.envoy.wait_for("cluster.authz.membership_healthy", workers)


@contextmanager
def running_edge(config: str, checks: Sequence[Path]) -> Iterator[LoadedEdge]:
    """Run the real Envoy in front of workers, with an upstream that answers at once."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="r")))
        where = Topology(
            authz=tuple(Unix(str(each)) for each in checks),
            admin=f"{folder}/admin",
            folder=str(folder),
            upstreams={"files": Unix(str(stack.enter_context(upstream(folder))))},
        )
        files = render(edge.patient_settings(config), where)
        envoy = stack.enter_context(running_envoy(files, folder, folder / "admin"))
        yield LoadedEdge(envoy, envoy.port("gateway"))
