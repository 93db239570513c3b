"""Real sentinels for tests: three of them watch a primary and its replicas, and fail over."""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.support.ports import held_port
from tests.support.valkey import ValkeyServer, binaries, valkey

SERVICE: Final = "house"
DOWN_AFTER: Final = 1.0  # seconds without an answer after which a sentinel takes a node for down
_LONG: Final = 60.0


class Sentinel(ValkeyServer):
    """One sentinel; it keeps its configuration in a file of its own."""

    def start(self, *, wait: bool = True) -> None:
        """Start it; its answers to PING are awaited in any case."""
        self.spawn([self.directory / "sentinel.conf", "--sentinel"])
        self.await_pong()

    def command(self, *words: Any, password: str = "") -> Any:
        """Send one command over TCP, and return the answer as bytes."""
        client = redis.Redis(
            port=self.port, password=password or None, retry=Retry(NoBackoff(), 0), socket_timeout=5
        )
        client.response_callbacks.clear()  # they leave fields out
        try:
            return client.execute_command(*words)  # type: ignore[no-untyped-call]
        finally:
            client.close()

    def fields(self) -> dict[str, str]:
        """Return what it says of the primary."""
        found = self.command("SENTINEL", "MASTER", SERVICE)
        return {name.decode(): value.decode() for name, value in found.items()}


@dataclass(frozen=True)
class WatchedService:
    """A primary, its replicas, and the sentinels that watch them.

    Attributes:
        nodes: the first primary, then its replicas.
        sentinels: three.
    """

    nodes: tuple[ValkeyServer, ...]
    sentinels: tuple[Sentinel, ...]

    @property
    def url(self) -> str:
        """Return where the ledger finds it."""
        hosts = ",".join(f"127.0.0.1:{each.port}" for each in self.sentinels)
        return f"redis+sentinel://{hosts}/{SERVICE}"

    def await_failover(self, old: ValkeyServer) -> ValkeyServer:
        """Return the new primary, once most sentinels name another one than the old."""
        asked = [each for each in self.sentinels if each.process is not None]

        def named() -> list[int]:
            ports = [int(each.fields()["port"]) for each in asked]
            return [port for port in ports if port != old.port]

        await_that(lambda: 2 * len(named()) > len(self.sentinels))
        (port,) = {*named()}
        return next(each for each in self.nodes if each.port == port)


def await_that(condition: Callable[[], bool]) -> None:
    """Return once it holds; servers say nothing of it by themselves."""
    deadline = time.monotonic() + _LONG
    while time.monotonic() < deadline:
        try:
            if condition():
                return
        except (redis.RedisError, OSError):
            pass
        time.sleep(0.02)
    raise AssertionError("it does not come to hold")


@contextmanager
def watched_service(name: str = "valkey", *, replicas: int = 1) -> Iterator[WatchedService]:
    """Run a primary with replicas and three sentinels for as long as the block does.

    Args:
        name: a name of `binaries`.
        replicas: how many.
    """
    with ExitStack() as stack:
        nodes = [stack.enter_context(valkey(name, tcp=True, repl_diskless_sync_delay="0"))]
        (primary,) = nodes
        for _ in range(replicas):
            node = stack.enter_context(valkey(name, tcp=True, repl_diskless_sync_delay="0"))
            node.config["replicaof"] = f"127.0.0.1 {primary.port}"
            node.restart()
            nodes.append(node)
        await_that(lambda: _replicas(primary) == replicas)
        sentinels = [stack.enter_context(sentinel(name, primary.port)) for _ in range(3)]
        await_that(lambda: all(_knows(each, replicas) for each in sentinels))
        yield WatchedService((*nodes,), (*sentinels,))


def _replicas(primary: ValkeyServer) -> int:
    info = primary.command("INFO", "replication")
    return sum(info[f"slave{n}"]["state"] == "online" for n in range(int(info["connected_slaves"])))


def _knows(sentinel: Sentinel, replicas: int) -> bool:
    fields = sentinel.fields()
    return (int(fields["num-slaves"]), int(fields["num-other-sentinels"])) == (replicas, 2)


@contextmanager
def sentinel(name: str, primary: int, *, users: str = "") -> Iterator[Sentinel]:
    """Run one sentinel.

    Args:
        name: a name of `binaries`.
        primary: the port of what it watches.
        users: lines of its own configuration.
    """
    binary = binaries()[name]
    assert binary is not None, f"no {name} on this machine"
    directory = Path(tempfile.mkdtemp(prefix="se-"))
    port = held_port()
    lines = [
        f"port {port}",
        "bind 127.0.0.1",
        f"dir {directory}",
        f"sentinel monitor {SERVICE} 127.0.0.1 {primary} 2",
        f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER * 1000:.0f}",
        f"sentinel failover-timeout {SERVICE} 3000",
    ]
    (directory / "sentinel.conf").write_text("\n".join(lines) + f"\n{users}")
    found = Sentinel(binary, directory, port)
    try:
        found.start()
        yield found
    finally:
        found.kill()
        shutil.rmtree(directory, ignore_errors=True)
