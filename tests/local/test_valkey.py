"""The embedded Valkey, the real one: private, restricted, and persistent."""

import asyncio
import os
import re
import signal
import stat
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio as redis_client
from redis.exceptions import ConnectionError as RefusedConnection
from redis.exceptions import NoPermissionError, ResponseError

from authz.core.ledger import OverLimit, Query, Revoked, StepUpKey, Taken, UnavailableError
from authz.core.limits import Limit, Per, Take
from authz.core.principal import Client, Person
from authz.core.second_factor import Method, StepUpNeed
from authz.ledger.keys import token_field
from authz.ledger.records import Revocation
from authz.ledger.redis import RedisLedger, RedisOptions
from authz.ledger.script import TAKE_ALL
from authz.local.state import State
from authz.local.valkey import COMMANDS, FRONT_DOOR_COMMANDS, Valkey, valkey
from authz.process.group import ServiceGroup
from tests.process.stage import ServiceStage, listens, until

ENV = {"PATH": os.environ["PATH"]}


@asynccontextmanager
async def running(state: State, stage: ServiceStage) -> AsyncIterator[Valkey]:
    """Run the server under a supervisor."""
    server = valkey(state, ENV)
    supervisor = ServiceGroup([server.spec], state.logs, stage.lines.append, signals=stage.signals)
    up = asyncio.Event()

    async def when_ready() -> None:
        up.set()

    run = asyncio.create_task(supervisor.run(when_ready))
    try:
        await until(lambda: up.is_set() or run.done())
        yield server
    finally:
        supervisor.stop()
        assert await run == 0, stage.lines


@asynccontextmanager
async def client(server: Valkey, **changes: str) -> AsyncIterator["redis_client.Redis"]:
    """Connect as the service does: URL, user name, password file."""
    password = server.password_file.read_text().strip()
    given = {"username": server.user, "password": password} | changes
    connection = redis_client.Redis.from_url(
        server.url, username=given["username"], password=given["password"]
    )
    try:
        yield connection
    finally:
        await connection.aclose()


def test_socket(state: State, stage: ServiceStage) -> None:
    """It listens on one socket that only this user can connect to, and on no port."""

    async def play() -> None:
        async with running(state, stage):
            path = state.socket("valkey")
            mode = path.stat().st_mode
            assert stat.S_ISSOCK(mode)
            assert mode & 0o077 == 0
            pid = int(_field((state.logs / "valkey.log").read_text(), "pid="))
            assert listens(pid) == {str(path)}

    asyncio.run(play())


def test_allocator(state: State, stage: ServiceStage) -> None:
    """Free memory is handed out again while it is warm: the process is told so at its start."""

    async def play() -> None:
        async with running(state, stage):
            pid = int(_field((state.logs / "valkey.log").read_text(), "pid="))
            environment = _given(pid)[1].split(b"\0")
            assert b"GLIBC_TUNABLES=glibc.malloc.tcache_count=1000" in environment

    asyncio.run(play())


def _field(text: str, name: str) -> str:
    return text.partition(name)[2].partition(",")[0]


@pytest.mark.attack("embedded-redis-password")
def test_password_is_needed(state: State, stage: ServiceStage) -> None:
    """Who reaches the socket without the password may do nothing at all."""

    async def play() -> None:
        async with running(state, stage) as server:
            reader, writer = await asyncio.open_unix_connection(state.socket("valkey"))
            writer.write(b"PING\r\nGET {authz}:x\r\nAUTH guess\r\nHELLO 3\r\nINFO\r\n")
            answers = [await reader.readline() for _ in range(5)]
            writer.close()
            await writer.wait_closed()
            assert {answer[:7] for answer in answers} <= {b"-NOAUTH", b"-WRONGP"}
            for changes in ({"password": "guess"}, {"username": "default"}):
                async with client(server, **changes) as stranger:
                    with pytest.raises(RefusedConnection, match="invalid username"):
                        await stranger.ping()

    asyncio.run(play())


FORBIDDEN = [
    "CONFIG GET maxmemory",
    "CONFIG SET dir /tmp",
    "CONFIG SET dbfilename x",
    "ACL LIST",
    "ACL SETUSER default on nopass",
    "FUNCTION LOAD x",
    "EVAL return 0",
    "SCRIPT FLUSH",
    "FLUSHALL",
    "FLUSHDB",
    "KEYS *",
    "SCAN 0",
    "MONITOR",
    "SAVE",
    "BGREWRITEAOF",
    "SHUTDOWN",
    "REPLICAOF 192.0.2.1 6379",
    "MIGRATE 192.0.2.1 6379 k 0 1",
    "SLAVEOF 192.0.2.1 6379",
    "CLIENT LIST",
    "CLIENT KILL TYPE normal",
    "PUBLISH c m",
    "SUBSCRIBE c",
    "RENAME {authz}:a {authz}:b",
    "GET other",
    "SET {other}:x 1",
    "HSET revocations a b",
]


@pytest.mark.attack("embedded-redis-commands")
def test_only_the_ledgers_commands(state: State, stage: ServiceStage) -> None:
    """The service's own user can neither change the server nor leave the deployment's keys."""

    async def play() -> None:
        async with running(state, stage) as server, client(server) as connection:
            execute: Callable[..., Awaitable[Any]] = connection.execute_command
            for command in FORBIDDEN:
                with pytest.raises(NoPermissionError):
                    await execute(*command.split(" "))
            for command in ("DEBUG SLEEP 0", "MODULE LOAD /tmp/x.so"):
                with pytest.raises(ResponseError, match="not allowed"):
                    await execute(*command.split(" "))

    asyncio.run(play())


def test_what_the_ledger_does(state: State, stage: ServiceStage) -> None:
    """A script that does what the ledger's may, and what readiness asks, is allowed."""
    script = """
        redis.call('TIME')
        redis.call('SET', KEYS[1], 'x', 'PX', 60000)
        redis.call('EXISTS', KEYS[1])
        redis.call('PEXPIRE', KEYS[1], 60000)
        redis.call('HMGET', KEYS[2], 'a', 'b')
        return redis.call('PTTL', KEYS[1])
    """

    async def play() -> None:
        async with running(state, stage) as server, client(server) as connection:
            digest = await connection.script_load(script)
            left = await connection.evalsha(digest, 2, "{authz}:limit:1", "{authz}:revocations")
            assert 0 < left <= 60000
            await connection.hset("{authz}:revocations", "token:1", "2|x")
            assert await connection.hgetall("{authz}:revocations") == {b"token:1": b"2|x"}
            await connection.hdel("{authz}:revocations", "token:1")
            memory = await connection.info("memory")
            assert memory["maxmemory_policy"] == "noeviction"
            assert memory["maxmemory"] == 512 << 20

    asyncio.run(play())


def test_survives(state: State, stage: ServiceStage) -> None:
    """What was written is there after a stop, and after the server was killed."""

    async def play() -> None:
        async with running(state, stage) as server, client(server) as connection:
            await connection.set("{authz}:a", "1", px=3_600_000)
        password = state.redis_password.read_text()
        async with running(state, stage) as server, client(server) as connection:
            assert await connection.mget("{authz}:a") == [b"1"]
            await connection.set("{authz}:b", "2", px=3_600_000)
            first = (await connection.info("server"))["process_id"]
            os.kill(first, signal.SIGKILL)
            await until(
                lambda: stage.said("killed by SIGKILL") and stage.lines[-1:] == ["valkey  ready"]
            )
            assert await connection.mget("{authz}:a") == [b"1"]
            assert await connection.mget("{authz}:b") == [b"2"]
        assert state.redis_password.read_text() == password

    asyncio.run(play())


def test_password_is_nowhere_else(state: State, stage: ServiceStage) -> None:
    """The password stands in its own file alone: not in the configuration, a log or a command."""

    async def play() -> list[bytes]:
        async with running(state, stage) as server, client(server) as connection:
            await connection.ping()
            pid = (await connection.info("server"))["process_id"]
            return _given(pid)

    seen = asyncio.run(play())
    password = state.redis_password.read_bytes().strip()
    files = [path for path in state.folder.rglob("*") if path.is_file()]
    holding = [path.name for path in files if password in path.read_bytes()]

    assert holding == ["redis-password"]
    assert not any(password in text for text in seen)
    assert (state.valkey / "valkey.conf").stat().st_mode & 0o777 == 0o600


def _given(pid: int) -> list[bytes]:
    """Return what a process was started with, as everybody may see it."""
    return [Path(f"/proc/{pid}/{name}").read_bytes() for name in ("cmdline", "environ")]


def test_commands_are_the_ledgers() -> None:
    """Exactly what the ledger and its script run is allowed, besides redis-py's greeting."""
    script = TAKE_ALL.source.replace("call('", 'call("')
    text = (files("authz.ledger") / "redis.py").read_text() + script
    run = re.findall(r"""(?:call|command|_execute)\("([A-Z ]+)[\"']""", text)

    expected = {name.lower().replace(" ", "|") for name in run} | {"evalsha", "client|setinfo"}
    # What only the front door has it run is the next test's.
    assert set(COMMANDS) == expected - set(FRONT_DOOR_COMMANDS)


def test_what_the_front_door_runs_is_allowed() -> None:
    """No command of the log-in's scripts or records is missing for its user."""
    rooms = [Path(str(files(name))) for name in ("authz.login", "authz.ledger")]
    texts = [
        file.read_text()
        for room in rooms
        for file in room.rglob("*")
        if file.suffix in {".py", ".lua"}
    ]
    run = re.findall(
        r"""(?:call\(|command\(\s*)["']([A-Z]{3,}(?: [A-Z]+)?)["']""", "\n".join(texts)
    )

    assert {"GET", "EXPIRE"} <= set(run)
    # AUTH needs no right, and SELECT is for who names another database in the URL. The others are
    # of sentinels and clusters, which this server is none of.
    needed = set(run) - {"AUTH", "SELECT", "SENTINEL MASTER", "CLUSTER SLOTS", "ASKING"}
    assert {name.lower().replace(" ", "|") for name in needed} <= {*COMMANDS, *FRONT_DOOR_COMMANDS}
    assert not set(COMMANDS) & set(FRONT_DOOR_COMMANDS)


def test_the_ledger_itself(state: State, stage: ServiceStage) -> None:
    """The ledger does all that it can do with the rights that it has."""
    asyncio.run(_play(state, stage, _use))


@pytest.mark.attack("flood-against-revocations")
def test_a_flood_pushes_out_no_revocation_and_no_step_up(
    state: State, stage: ServiceStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server full of strangers' counts takes no more of them, and forgets neither who was revoked
    nor who has stepped up.
    """
    monkeypatch.setattr("authz.local.valkey._MEGABYTES", 4)

    asyncio.run(_play(state, stage, _flood))


async def _play(
    state: State, stage: ServiceStage, scene: Callable[[RedisLedger], Awaitable[None]]
) -> None:
    """Play a scene with the ledger, which has the rights that it has in the embedded server."""
    async with running(state, stage) as server:
        password = server.password_file.read_text().strip()
        # Patient: this is about rights and room, and the machine may be busy.
        ledger = RedisLedger(RedisOptions(server.url, server.user, password, timeout=10))
        try:
            await scene(ledger)
        finally:
            await ledger.aclose()


async def _flood(ledger: RedisLedger) -> None:
    now = int(time.time())
    person, client_ = Person("https://i", "john"), Client("https://i", "claude")
    keys = [StepUpKey(person, f"grant-{number}", "files") for number in range(20)]
    for key in keys:
        await ledger.record_step_up(key, Method.TOTP, now, 3600)
        await ledger.revoke(token_field(f"stolen-{key.grant}"), Revocation())
    limit = Limit("l", Per.ADDRESS, quota=2, window=3600)
    charged, full = 0, False
    while not full and charged < 2_000:
        takes = tuple(Take(f"{charged}-{number}", limit) for number in range(20))
        try:
            await ledger.take(Query("", None, client_, now, None, None, takes))
        except UnavailableError:
            full = True
        charged += 1

    assert full
    assert charged > 100
    need = StepUpNeed(Method.TOTP, None)
    for key in keys:
        stolen = Query(f"stolen-{key.grant}", person, client_, now, None, None, ())
        proved = Query(f"good-{key.grant}", person, client_, now, key, need, ())
        assert await ledger.take(stolen) == Revoked("token")
        assert isinstance(await ledger.take(proved), Taken)


async def _use(ledger: RedisLedger) -> None:
    await ledger.ping()
    facts = await ledger.facts()
    assert facts.writable
    assert not facts.may_evict
    person, client_ = Person("https://i", "john"), Client("https://i", "claude")
    key = StepUpKey(person, "grant", "files")
    await ledger.record_step_up(key, Method.TOTP, int(time.time()), 60)
    take = Take("bucket", Limit("l", Per.USER, quota=2, window=60))
    need = StepUpNeed(Method.TOTP, 300)
    query = Query("t", person, client_, int(time.time()), key, need, (take,))
    assert isinstance(await ledger.take(query), Taken)
    await ledger.revoke(token_field("t"), Revocation())
    assert isinstance(await ledger.take(query), Revoked)
    assert len(await ledger.revocations()) == 1
    await ledger.lift(token_field("t"))
    assert isinstance(await ledger.take(query), Taken)
    assert isinstance(await ledger.take(query), OverLimit)
