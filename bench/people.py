"""What a person costs beside the calls: a log-in, a refresh, and what is kept of them in Redis.

The whole runs as `authz up` does, with the official client (SDK 2.x) and a browser for each log-in.
Where the variable AUTHELIA names a real Authelia, it is the issuer, and passwords are hashed as it
does by default (argon2id, 64 MiB); else the stand-in is, whose figures are left out. CPU is that of
each part's processes, from /proc; bytes are `used_memory` of the Valkey.

    AUTHELIA=... python -m bench.people [log-ins] [--json FILE]
"""

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from redis import Redis

from authz.config.load import load
from authz.local.redis_location import shared_redis
from bench.result import Found, as_json, show
from bench.transports import cpu_seconds
from tests.e2e.authelia import RealAuthelia, binary_of_the_environment
from tests.support.door import Assistant, Door, assistant, running_door

SERVER: Final = "notes"
LOG_IN: Final = "a log-in"
REFRESH: Final = "a refresh"
CALL: Final = "connect and call"
# Authelia's own defaults of authentication_backend.file.password.
ARGON2: Final = ("argon2", "--variant", "argon2id", "--memory", "65536", "--iterations", "3")
# What the command line of each part's first process holds, or one of these.
PARTS: Final[Mapping[str, tuple[str, ...]]] = {
    "Authelia": ("authelia\0--config",),
    "pages": ("\0pages\0-c",),
    "worker": ("\0serve\0-c", "authz.server.worker_program"),
    "Envoy": ("envoy\0-c",),
    "Valkey": ("valkey-server",),
}


def children(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for each in tasks for child in (each / "children").read_text().split()]


def tree(pid: int) -> list[int]:
    """Return a process, those that it has started, and so on."""
    return [pid, *(each for child in children(pid) for each in tree(child))]


@dataclass(frozen=True)
class Parts:
    """The processes of the whole, by part."""

    pids: Mapping[str, tuple[int, ...]]

    def cpu(self) -> dict[str, float]:
        """Return the seconds of processor time that each part has used."""
        return {part: sum(map(cpu_seconds, pids)) for part, pids in self.pids.items()}


def parts_of(pid: int) -> Parts:
    """Find the parts among what a process has started.

    Raises:
        RuntimeError: where a part is not there once.
    """
    lines = {each: Path(f"/proc/{each}/cmdline").read_text() for each in children(pid)}
    found = dict[str, tuple[int, ...]]()
    for part, words in PARTS.items():
        chosen = [each for each, line in lines.items() if any(word in line for word in words)]
        if part == "Authelia" and not chosen:
            continue
        if len(chosen) != 1:
            raise RuntimeError(f"{len(chosen)} processes are {part}: {list(lines.values())}")
        found[part] = tuple(tree(chosen[0]))
    return Parts(found)


class Kept:
    """What the Valkey of the whole keeps."""

    def __init__(self, door: Door) -> None:
        running = door.running
        settings = load(running.environment.configuration, {}, secrets=False)
        options = shared_redis(settings, {}, running.state)
        path = urlsplit(options.url).path
        self._redis = Redis(
            unix_socket_path=path, username=options.username, password=options.password
        )

    def bytes(self) -> int:
        """Return the memory that its data takes."""
        memory = self._redis.info("memory")
        return int(memory["used_memory"]) - int(memory["mem_clients_normal"])


async def log_ins(door: Door, number: int) -> list[Assistant]:
    """Log in so many times, each with a new application and a new browser."""
    made = list[Assistant]()
    for each in range(number):
        async with assistant(door, door.john, f"bench {each}") as client:
            await client.whoami(SERVER)
            made.append(client)
    return made


async def refreshes(clients: Sequence[Assistant]) -> None:
    """Have each refresh its token once, and call."""
    for client in clients:
        before = client.token
        client.let_it_expire(SERVER)
        await client.whoami(SERVER)
        assert client.token != before


async def calls(clients: Sequence[Assistant]) -> None:
    """Have each connect and call once more, as both of the others do at their end."""
    for client in clients:
        await client.whoami(SERVER)


async def measure(door: Door, number: int) -> tuple[list[Found], list[Found]]:
    """Return what each part spends on a log-in, a refresh and a call, and what Valkey keeps.

    Both of the others end with a connection and a call, which is taken off.
    """
    parts, kept = parts_of(os.getpid()), Kept(door)
    await log_ins(door, 2)  # what happens once
    before, held = parts.cpu(), kept.bytes()
    clients = await log_ins(door, number)
    logged_in, holds = parts.cpu(), kept.bytes()
    await calls(clients)
    called = parts.cpu()
    await refreshes(clients)
    refreshed = parts.cpu()
    found = list[Found]()
    for part in parts.pids:
        call = called[part] - logged_in[part]
        log_in = logged_in[part] - before[part] - call
        spent = {LOG_IN: log_in, REFRESH: refreshed[part] - called[part] - call, CALL: call}
        found += [
            Found(
                "people", f"{part}: {case}", "CPU ms", 1000 * each / number, LOG_IN, each / log_in
            )
            for case, each in spent.items()
        ]
    bytes_of_one = (holds - held) / number
    return found, [Found("people", LOG_IN, "Valkey bytes", bytes_of_one, LOG_IN, 1.0)]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.people", description=__doc__)
    parser.add_argument("log_ins", nargs="?", type=int, default=20)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    chosen = parser.parse_args(arguments)
    binary = binary_of_the_environment()
    issuer = RealAuthelia(binary, hashing=ARGON2) if binary else None
    with (
        tempfile.TemporaryDirectory(prefix="p") as folder,
        running_door(Path(folder), issuer) as door,
    ):
        tables = asyncio.run(measure(door, chosen.log_ins))
    for found in tables:
        show(found)
    if chosen.json is not None:
        chosen.json.write_text(as_json([*chain(*tables)]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
