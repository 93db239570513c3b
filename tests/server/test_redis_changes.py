"""`authz serve`, as a process, and a Redis whose name moves or that comes back with older data."""

import json
import os
import struct
import time
from pathlib import Path

import pytest

from tests.support.relay import relayed
from tests.support.service import LATE, KeyIssuer, ServiceProcess, running_service, told_once, until
from tests.support.valkey import ValkeyServer, valkey
from tests.support.values import request as sent
from tests.support.values import rpc
from tests.support.wire import check_request
from tests.tokens.token_factory import rsa_signer

CONFIG = """\
issuer: {{url: https://auth.example.test, internal: {issuer}, max_lifetime: 30d, deadline: 30s}}
gateway: {{url: https://mcp.example.test, refusals: http_status}}
redis: {{url: '{redis}'}}
telemetry: {{log: json}}
service: {{transport: {transport}, drain_notice: 0s}}
servers:
  files: {{upstream: 'http://127.0.0.1:9/mcp', limits: [{{per: user, rate: 1000/hour}}]}}
"""
ENV = {"PATH": os.environ["PATH"]}
READONLY = "READONLY: it is a replica"
MASTERDOWN = "MASTERDOWN: it is a replica without its primary"


@pytest.fixture
def token() -> str:
    now = int(time.time())
    return rsa_signer().token({"iat": now - 5, "nbf": now - 5, "exp": now + 600})


def asking(token: str) -> bytes:
    return check_request(sent(rpc(), authorization=f"Bearer {token}"))


def notes(service: ServiceProcess) -> str:
    found = json.loads(service.get("/readyz")[1]).get("notes", {})
    return str(found.get("redis", ""))


def faults(service: ServiceProcess) -> list[str]:
    """Return what the log says of faults, in order."""
    return [str(line["detail"]) for line in service.events("fault")]


def counts(server: ValkeyServer) -> list[bytes]:
    """Return what a server has counted of people's limits."""
    keys = [key for key in server.command("KEYS", "*:limit:*") if b"probe" not in key]
    return [server.command("GET", key) for key in sorted(keys)]


def units(server: ValkeyServer) -> int:
    """Return how many requests that is."""
    return sum(sum(struct.unpack(">Q11I", each)[1:]) for each in counts(server))


@pytest.mark.attack("redis-failover")
@pytest.mark.parametrize("fault", [READONLY, MASTERDOWN], ids=["readonly", "masterdown"])
def test_a_failover_by_name_is_followed(
    issuer: KeyIssuer, tmp_path: Path, transport: str, token: str, fault: str
) -> None:
    """The old primary stays up as a replica, the name leads to another one: without a request
    readiness says within seconds what is wrong, the log says it once, and as soon as the new one
    is a primary it counts, in the same process, and what was admitted meanwhile too: once. (A Redis
    of a busy machine may have answered late, too: that is told as well, and once.)
    """
    stale = "yes" if fault is READONLY else "no"
    with (
        valkey(tcp=True) as first,
        valkey() as second,
        relayed(first.socket) as name,
    ):
        config = CONFIG.format(issuer=issuer.address, redis=name.url, transport=transport)
        with running_service(tmp_path, config, ENV) as service:
            service.wait_ready()
            second.command("REPLICAOF", "127.0.0.1", str(first.port))

            def replicated() -> bool:
                """Ask once more: of a busy machine's Redis an answer may come too late to count."""
                assert service.check(asking(token)).allowed
                return counts(second) == counts(first) != []

            until(replicated, "the replica")
            before = units(second)
            for each in (second, first):
                each.command("CONFIG", "SET", "replica-serve-stale-data", stale)
                each.command("REPLICAOF", "127.0.0.1", "1")
            name.target = second.socket
            until(lambda: notes(service) == f"Redis is away ({fault})", "the note")
            assert service.check(asking(token)).allowed  # counted here

            lines = len(service.lines)
            second.command("REPLICAOF", "NO", "ONE")
            service.wait_for("redis_back", after=lines)
            until(lambda: "away" not in notes(service), "no note")
            until(lambda: units(second) > before, "what was admitted meanwhile")
            after = units(second)
            # Where Redis was late, an earlier call may have been admitted here, too.
            assert after == before + 1 or LATE in faults(service)

            def counted() -> bool:
                assert service.check(asking(token)).allowed
                return units(second) > after

            until(counted, "the new one to count")
            assert service.process.poll() is None
        assert told_once(faults(service), fault), faults(service)


@pytest.mark.attack("redis-older-copy")
def test_an_older_copy_is_told_and_un_revokes_nothing(
    issuer: KeyIssuer, tmp_path: Path, transport: str, token: str
) -> None:
    """A backup that was made before a revocation is put back: the token stays refused, and log,
    metric and readiness say what happened.
    """
    with valkey(save="3600 1000000") as redis:
        config = CONFIG.format(issuer=issuer.address, redis=redis.url, transport=transport)
        with running_service(tmp_path, config, ENV) as service:
            service.wait_ready()
            assert service.check(asking(token)).allowed
            redis.command("SAVE")
            backup = (redis.directory / "dump.rdb").read_bytes()
            redis.command("HSET", "{authz}:revocations", "everything", "*||stolen")
            until(lambda: not service.check(asking(token)).allowed, "the revocation")
            marked = marks(redis)
            until(lambda: marks(redis) != marked, "a reading")

            redis.kill()
            (redis.directory / "dump.rdb").write_bytes(backup)
            redis.start()
            assert redis.command("HGETALL", "{authz}:revocations") in ({}, [])
            told = service.wait_for("redis_older_copy")
            assert not service.check(asking(token)).allowed
            assert redis.command("HGET", "{authz}:revocations", "everything") == b"*||stolen"
            assert told["revocations_restored"] == 1
            until(lambda: "an older copy of its data" in notes(service), "the note")
            assert service.get("/readyz")[0] == 200
            counted = 'authz_redis_data_losses_total{loss="older_copy"} 1.0'
            assert counted in service.get("/metrics")[1]


def marks(redis: ValkeyServer) -> list[bytes]:
    return [redis.command("GET", key) for key in sorted(redis.command("KEYS", "*:mark:*"))]
