"""Redis set up wrongly, each in one way; a real Valkey every time."""

import asyncio
import time
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest

from authz.doctor import other_client, redis
from authz.doctor.finding import Finding
from authz.ledger.cluster import key_slot
from authz.ledger.connections import TlsFiles
from authz.ledger.keys import RedisKeys
from authz.ledger.redis import RedisOptions
from authz.login.protocol.granted_audience import TokenFault
from tests.doctor.kit import diagnoses, problems, the
from tests.support.cluster import cluster
from tests.support.sentinels import SERVICE, sentinel
from tests.support.valkey import ValkeyServer, valkey


def examine(server: ValkeyServer, *, ahead: float = 0.0, **options: Any) -> list[Finding]:
    asked = replace(RedisOptions(server.url), **options)
    return asyncio.run(redis.examine(asked, lambda: time.time() - ahead))


def wrong(found: list[Finding]) -> list[str]:
    """The problems, but for what a busy machine may add."""
    return [each for each in problems(found) if each != "slow"]


def test_a_sound_one() -> None:
    """A Redis that keeps what it is given has no problems, and nothing is left in it."""
    with valkey(appendonly="yes", maxmemory="100mb") as server:
        found = examine(server)

        assert wrong(found) == []
        assert {"rights", "clock"} <= set(diagnoses(found))
        assert server.command("EXISTS", "{authz}:revocations") == 0


def test_one_that_evicts() -> None:
    """A policy that forgets is a problem, with the line of redis.conf."""
    with valkey(maxmemory_policy="allkeys-lru") as server:
        found = examine(server)

    assert wrong(found) == ["evicts"]
    assert the(found, "evicts").fix == "maxmemory-policy noeviction in redis.conf"


def test_one_that_forgets_at_restart() -> None:
    """Without an append-only file, and without a bound of memory, there is a word of each."""
    with valkey() as server:
        found = examine(server)

    assert {"no_persistence", "no_maxmemory"} <= set(diagnoses(found))
    assert wrong(found) == []


@pytest.mark.parametrize(
    ("rights", "lacking"),
    [
        pytest.param("+@all -evalsha", "+evalsha", id="evalsha"),
        pytest.param("+@all -setrange -hset", "+setrange +hset", id="writes"),
        pytest.param("+@all -info", "+info", id="info"),
        pytest.param("+@all -script", "+script|load", id="script"),
        pytest.param("+@all -time", "+time", id="time"),
        pytest.param("-@all", "+ping", id="nothing"),
    ],
)
def test_a_user_without_rights(rights: str, lacking: str) -> None:
    """Each command that the user may not run is named, in the words of an ACL."""
    with valkey() as server:
        server.command("ACL", "SETUSER", "authz", "on", ">secret", "~*", "&*", *rights.split())
        found = examine(server, username="authz", password="secret")

    assert wrong(found) == ["no_rights"]
    for word in lacking.split():
        assert word in the(found, "no_rights").fix
    assert "secret" not in "\n".join(map(str, found))


def test_a_user_of_other_keys() -> None:
    """A user whose keys begin otherwise is told the pattern of this deployment."""
    with valkey() as server:
        server.command("ACL", "SETUSER", "authz", "on", ">secret", "~other:*", "+@all")
        found = examine(server, username="authz", password="secret")

    assert "~{authz}:*" in the(found, "no_rights").fix


@pytest.mark.parametrize(
    ("required", "options", "said"),
    [
        pytest.param("right", {"username": "authz", "password": "wrong"}, "WRONGPASS", id="wrong"),
        pytest.param("right", {}, "none is written", id="none"),
        pytest.param("", {"password": "wrong"}, "it has no password", id="one too many"),
    ],
)
def test_a_wrong_password(required: str, options: dict[str, Any], said: str) -> None:
    """The three ways to be refused are told apart, without the password."""
    with valkey() as server:
        server.command("CONFIG", "SET", "requirepass", required)
        found = examine(server, **options)

    assert problems(found) == ["authentication"]
    assert said in found[0].message
    assert "wrong" not in "\n".join(map(str, found))


def test_one_that_is_full() -> None:
    """OOM is named with maxmemory, though everything else about it is in order."""
    with valkey(appendonly="yes") as server:
        server.command("CONFIG", "SET", "maxmemory", "1")
        found = examine(server)

    assert wrong(found) == ["out_of_memory"]
    assert "maxmemory" in found[0].fix


def test_one_that_is_nearly_full() -> None:
    """Told before it takes no more writes."""
    with valkey(appendonly="yes") as server:
        used = int(server.command("INFO", "memory")["used_memory"])
        server.command("CONFIG", "SET", "maxmemory", str(int(used * 1.08)))
        found = examine(server)

    assert "nearly_full" in diagnoses(found)
    assert "out_of_memory" not in diagnoses(found)


def test_one_that_still_reads_its_data() -> None:
    """LOADING is no outage to be searched for: it is to be waited for."""
    with valkey(appendonly="no", save="") as server:
        server.command("EVAL", "for i=1,9000 do redis.call('SET', i, i) end", 0)
        server.command("SAVE")
        server.kill()
        server.config |= {
            "key-load-delay": "2000",
            "loading-process-events-interval-bytes": "1024",
        }
        server.start(wait=False)
        found = _until_it_listens(server)

    assert problems(found) == ["loading"]
    assert "loading_eta_seconds" in found[0].fix


def _until_it_listens(server: ValkeyServer) -> list[Finding]:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        found = examine(server)
        if problems(found) != ["unreachable"]:
            return found
    raise AssertionError("it never listened")


def test_a_replica_whose_primary_is_away() -> None:
    """MASTERDOWN."""
    with valkey(replica_serve_stale_data="no") as server:
        server.command("REPLICAOF", "127.0.0.1", "1")
        found = examine(server)

    assert problems(found) == ["master_down"]
    assert "primary" in found[0].fix


def test_nobody_there() -> None:
    """A server that does not run is told with the line that names it."""
    with valkey(start=False) as server:
        found = examine(server)

    assert problems(found) == ["unreachable"]
    assert "redis.url" in found[0].fix


def test_a_replica() -> None:
    """A replica takes no charges, and redis.url should lead to the primary."""
    with valkey(tcp=True) as primary, valkey() as server:
        server.command("REPLICAOF", "127.0.0.1", str(primary.port))
        found = examine(server)

    assert problems(found).count("replica") == 1


def test_sentinels() -> None:
    """The primary that they name is told; so is each reason for which they name none."""
    with valkey(tcp=True, appendonly="yes") as server, sentinel("valkey", server.port) as guard:
        url = f"redis+sentinel://127.0.0.1:{guard.port},127.0.0.1:1/"
        found = examine(server, url=url + SERVICE)
        unknown = examine(server, url=f"{url}other")
    nobody = examine(server, url=url + SERVICE)

    assert wrong(found) == []
    told = f"the primary of {SERVICE} is 127.0.0.1:{server.port}; 1 of 2 sentinels answer"
    assert told in the(found, "answers").message
    assert problems(unknown) == ["no_service"]
    assert "sentinel monitor" in unknown[0].fix
    assert problems(nobody) == ["no_sentinel"]
    assert "26379" in nobody[0].fix


def test_a_sentinel_in_place_of_redis() -> None:
    """A sentinel knows none of our commands: told with the form that its URL has."""
    with valkey(tcp=True) as server, sentinel("valkey", server.port) as guard:
        found = examine(server, url=f"redis://127.0.0.1:{guard.port}")

    assert problems(found) == ["unknown_command"]
    assert "redis+sentinel://" in found[0].fix


def test_tls_with_one_that_speaks_none() -> None:
    """It waits for more of what it takes for a command."""
    with valkey(tcp=True) as server:
        found = examine(server, url=f"rediss://127.0.0.1:{server.port}")

    assert problems(found) == ["late"]
    assert "rediss://" in found[0].fix


def test_another_client_at_another_server() -> None:
    """Where sentinels disagree, redis-py takes the first one's word, and doctor says so."""
    with ExitStack() as stack:
        servers = [stack.enter_context(valkey(tcp=True)) for _ in range(2)]
        guards = [stack.enter_context(sentinel("valkey", each.port)) for each in servers]
        found = [
            examine(servers[0], url=f"redis+sentinel://{order}/{SERVICE}")
            for order in (
                ",".join(f"127.0.0.1:{each.port}" for each in guards),
                ",".join(f"127.0.0.1:{each.port}" for each in reversed(guards)),
            )
        ]
    # Ours takes the same of both, whoever is named first.
    assert [diagnoses(each).count("another_server") for each in found] in ([0, 1], [1, 0])


def test_redis_py_reaches_what_authz_does() -> None:
    """At one server, at one of sentinels and in a cluster, it finds the same process."""

    async def found(options: RedisOptions) -> str | None:
        return await other_client.run_id(options, 5)

    with valkey(tcp=True) as server, sentinel("valkey", server.port) as guard:
        expected = server.command("INFO", "server")["run_id"]
        url = f"redis+sentinel://127.0.0.1:{guard.port}/{SERVICE}"
        for each in (server.url, f"redis://127.0.0.1:{server.port}", url):
            assert asyncio.run(found(RedisOptions(each))) == expected
        # Of no use without TLS, and no reason to end in a traceback.
        plain = RedisOptions(f"redis://127.0.0.1:{server.port}", tls=TlsFiles("/nowhere"))
        assert asyncio.run(found(plain)) == expected
    assert asyncio.run(found(RedisOptions(server.url))) is None
    slot = key_slot("authz")
    with cluster("valkey", slot) as nodes:
        expected = nodes.owner.command("INFO", "server")["run_id"]
        assert asyncio.run(found(RedisOptions(nodes.url))) == expected


@pytest.mark.parametrize("form", ["{}", "+sentinel{}/name", "+cluster{}"])
def test_a_file_of_tls_that_is_not_there(form: str) -> None:
    """Told as a file, not as a Redis that is away."""
    url = "rediss" + form.format("://127.0.0.1:1")
    found = asyncio.run(redis.examine(RedisOptions(url, tls=TlsFiles("/nowhere")), time.time))

    assert problems(found) == ["tls_files"]
    assert "ca_file" in found[0].fix


def test_a_cluster() -> None:
    """The owner of the slot is told; a node that is asked as if it were all is named one."""
    slot = key_slot("authz")
    with cluster("valkey", slot) as nodes:
        nodes.await_gossip()
        found = examine(nodes.owner, url=nodes.url)
        one = examine(nodes.other, url=f"redis://127.0.0.1:{nodes.other.port}")
    nobody = examine(nodes.other, url=nodes.url)

    assert wrong(found) == []
    told = f"127.0.0.1:{nodes.owner.port} owns slot {slot} of a cluster of 4 nodes"
    assert told in the(found, "answers").message
    assert "moved" in problems(one)
    assert "redis+cluster" in the(one, "moved").fix
    assert problems(nobody) == ["no_node"]


@pytest.mark.parametrize("ahead", [60.0, -60.0])
def test_clock_skew(ahead: float) -> None:
    """A Redis whose clock differs shifts every limit and revocation."""
    with valkey() as server:
        found = examine(server, ahead=ahead)

    assert wrong(found) == ["clock_skew"]


def test_something_that_is_no_redis_script_host() -> None:
    """Where the ledger's own script cannot run, that is told, whatever the reason is."""
    with valkey() as server:
        server.command("SET", "{authz}:revocations", "a string")
        found = examine(server)

    assert wrong(found) == ["script"]


@pytest.mark.parametrize(
    ("held", "told"),
    [
        pytest.param(b"1795380700 the issuer's token is for no server", True, id="a fault"),
        pytest.param(b"no moment", False, id="no moment"),
        pytest.param(b"99999999999 x", False, id="after all time"),
        pytest.param(b"\xff\xfe", False, id="no text"),
    ],
)
def test_a_log_in_that_the_front_door_had_to_end(held: bytes, told: bool) -> None:
    """What the pages left behind for the operator is a problem, with its moment and its cause."""
    with valkey(appendonly="yes", maxmemory="100mb") as server:
        server.command("SET", RedisKeys("authz").login_fault, held)
        asked = RedisOptions(server.url)
        found = asyncio.run(redis.examine(asked, front_door=True))

    assert wrong(found) == (["log_in_audience"] if told else [])
    if told:
        message = the(found, "log_in_audience").message
        assert "2026-11-22" in message
        assert "for no server" in message


def test_an_opaque_token_of_the_front_door_is_told_with_its_setting() -> None:
    """The remedy names the setting of our clients at Authelia."""
    with valkey(appendonly="yes", maxmemory="100mb") as server:
        server.command("SET", RedisKeys("authz").login_fault, f"1795380700 {TokenFault.OPAQUE}")
        found = asyncio.run(redis.examine(RedisOptions(server.url), front_door=True))

    assert wrong(found) == ["log_in_opaque"]
    assert "access_token_signed_response_alg: RS256" in the(found, "log_in_opaque").fix


def test_the_audit_trail_is_looked_at() -> None:
    """How long it is and how far it reaches; missing rights; a key that is no stream."""
    with valkey(appendonly="yes", maxmemory="100mb") as server:

        def audited(**options: Any) -> list[Finding]:
            asked = replace(RedisOptions(server.url), **options)
            return asyncio.run(redis.examine(asked, audit=True))

        found = audited()
        assert wrong(found) == []
        assert "empty" in diagnoses(found)
        assert server.command("KEYS", "{authz}:doctor:*") == []
        server.command(
            "XADD", "{authz}:audit", f"{int((time.time() - 2 * 86_400) * 1000)}-0", "r", "x"
        )
        assert "1 records and reaches back 2.0 days" in the(audited(), "reaches").message
        rights = ("+@all", "-xadd", "-lpush")
        server.command("ACL", "SETUSER", "authz", "on", ">secret", "~*", "&*", *rights)
        found = audited(username="authz", password="secret")
        assert wrong(found) == ["no_rights"]
        assert "+xadd +lpush" in (the(found, "no_rights").fix or "")
        server.command("DEL", "{authz}:audit")
        server.command("SET", "{authz}:audit", "x")
        assert wrong(audited()) == ["no_stream"]
