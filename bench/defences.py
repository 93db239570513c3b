"""CPU cost of the defences per person (sessions, streams, identity): with each against without.

The check in this process, without transport: bytes in, bytes out, a log line, one limit in a real
Redis, 64 in flight. Each case differs from its baseline in one thing, and is taken in turns with it
in one run; every answer has to be an Allow.

    python -m bench.defences [rounds [checks]]
"""

import asyncio
import io
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from cryptography.hazmat.primitives import serialization

from authz.config.compile import compile_policy
from authz.core.answers import SUBJECT, UpstreamChanges
from authz.core.policy import OperationRule, Policy, Rule, Server
from authz.core.principal import Principal
from authz.envoy import codec
from authz.ledger.batch import BatchedLedger
from authz.ledger.deadline import Deadline
from authz.ledger.redis import RedisLedger, RedisOptions
from authz.server.check import Check, Snapshot
from authz.server.refusal_limiter import RefusalLimiter
from authz.telemetry.audit import EventLog
from authz.telemetry.metrics import Metrics
from authz.telemetry.recorder import Recorder
from authz.tokens.identity import IdentitySigner
from bench.load import Disturbed
from bench.result import Found, compare, show
from bench.transports import allowed
from tests.support.edge import settings
from tests.support.valkey import ValkeyServer, valkey
from tests.support.values import call, policy, principal, request, rpc
from tests.support.wire import check_request
from tests.tokens.token_factory import ec_signer

PEOPLE, IN_FLIGHT = 200, 64
CONFIG = """\
issuer: {url: https://auth.example.test}
gateway: {url: https://mcp.example.test, streams_per_user: 4096, calls_per_user: 4096}
servers:
  files:
    upstream: http://127.0.0.1:9/mcp
    limits: [{per: user, rate: 1000000/minute}]
"""
MODERN = {"mcp_protocol_version": "2026-07-28", "mcp_method": "tools/call"}


@dataclass(frozen=True)
class Case:
    """One decision: the server's rules, and what is sent."""

    server: Server
    raw: Sequence[bytes]


class KnownTokens:
    """Know everybody's token: what is measured is what comes after it."""

    def __init__(self) -> None:
        end = int(time.time()) + 86_400
        self.known = {
            f"a.b.{n}": principal(
                subject=f"person-{n}", issued_at=end - 90_000, expires_at=end, token_id=f"{n:064}"
            )
            for n in range(PEOPLE)
        }

    def cached(self, token: str) -> Principal | None:
        return self.known[token]


def sent(body: bytes | None, method: str = "POST", **headers: str) -> list[bytes]:
    """Return the same request of everybody; `{n}` in a header is the person's number."""
    return [
        check_request(
            request(
                body,
                method,
                authorization=f"Bearer a.b.{n}",
                context=None,
                **{name: value.format(n=n) for name, value in headers.items()},
            )
        )
        for n in range(PEOPLE)
    ]


def modern(tool: str) -> list[bytes]:
    """Return a tools/call of 2026-07-28."""
    about = "io.modelcontextprotocol/"
    meta = {f"{about}protocolVersion": "2026-07-28", f"{about}clientCapabilities": {}}
    body = rpc("tools/call", name=tool, arguments={}, _meta=meta)
    return sent(body, **MODERN, mcp_name=tool)


def tables() -> dict[str, tuple[str, dict[str, Case]]]:
    """Return for each table its baseline and its cases."""
    bounded = compile_policy(settings(CONFIG).config).servers["files"]
    plain = replace(bounded, streams=None, meters=MappingProxyType({}))
    legacy = {"mcp_protocol_version": "2025-11-25"}
    tool, listen = call("read_file"), {**legacy, "mcp_session_id": "session-{n}"}
    return {
        "a call of 2025-11-25": (
            "without a session",
            {
                "without a session": Case(plain, sent(tool, **legacy)),
                "bound to its session": Case(plain, sent(tool, **listen)),
            },
        ),
        "a stream of 2025-11-25": (
            "not counted",
            {
                "not counted": Case(plain, sent(None, "GET", **listen)),
                "counted, with its time": Case(bounded, sent(None, "GET", **listen)),
            },
        ),
        "a call of 2026-07-28": (
            "nothing of it",
            {
                "nothing of it": Case(plain, modern("read_file")),
                "allow-list of methods": Case(
                    replace(plain, tools=(OperationRule("*", Rule()),)), modern("read_file")
                ),
                "judged headers sent": Case(plain, modern("read,file")),
                "a call's time by its count": Case(bounded, modern("read_file")),
                "signed identity": Case(replace(plain, signed_identity=True), modern("read_file")),
            },
        ),
    }


class DefenceBench:
    """A check of one case, and what it costs."""

    def __init__(self, case: Case, redis: ValkeyServer) -> None:
        self._raw, self._redis = case.raw, redis
        self._remote = RedisLedger(RedisOptions(redis.url, deployment="bench", timeout=20))
        self._ledger = BatchedLedger(self._remote)
        log = EventLog("json", io.StringIO())
        pem = ec_signer().key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        signer = IdentitySigner(pem.decode(), "https://mcp.example.test", time.time)
        rules: Policy = policy(case.server)
        self._check = Check(
            Snapshot(
                rules,
                KnownTokens(),  # type: ignore[arg-type]  # nobody's token is unknown
                self._ledger,
                Deadline(20.0),
                identity=signer,
            ),
            Recorder(Metrics(), log),
            RefusalLimiter(),
        )

    def _redis_cpu(self) -> float:
        found = self._redis.command("INFO", "CPU")
        return float(found["used_cpu_user"]) + float(found["used_cpu_sys"])

    async def cost(self, checks: int) -> list[float]:
        """Return microseconds of a decision: of our CPU, of Redis' CPU, of both."""

        async def caller(first: int) -> None:
            for n in range(first, checks, IN_FLIGHT):
                answer = await self._check(self._raw[n % PEOPLE])
                if not allowed(answer):
                    raise Disturbed(f"not an Allow: {answer!r}")

        redis, ours = self._redis_cpu(), time.process_time()
        await asyncio.gather(*(caller(first) for first in range(IN_FLIGHT)))
        ours, redis = time.process_time() - ours, self._redis_cpu() - redis
        return [each / checks * 1e6 for each in (ours, redis, ours + redis)]

    async def close(self) -> None:
        await self._ledger.aclose()
        await self._remote.aclose()


def answers(rounds: int, count: int) -> list[Found]:
    """Measure how an Allow is written, with the time after which Envoy ends the exchange."""
    plain = UpstreamChanges(((SUBJECT, "somebody"),), ("authorization", "cookie"))
    cases = {"no end of it": plain, "with its end": replace(plain, lasts=30_000)}
    rows: dict[str, list[list[float]]] = {case: [] for case in cases}
    for _ in range(rounds):
        for case, changes in cases.items():
            begin = time.process_time()
            for _ in range(count):
                codec.encode_allow(changes)
            rows[case].append([(time.process_time() - begin) / count * 1e6])
    return compare("defences, an answer", ["our CPU µs"], rows, "no end of it")


async def run(rounds: int, checks: int) -> list[list[Found]]:
    """Measure every case once in every round, after one that does not count."""
    found = []
    with valkey() as redis:
        for name, (baseline, cases) in tables().items():
            benches = {case: DefenceBench(each, redis) for case, each in cases.items()}
            rows: dict[str, list[list[float]]] = {case: [] for case in cases}
            for number in range(rounds + 1):
                for case, bench in benches.items():
                    figures = await bench.cost(checks)
                    if number:
                        rows[case].append(figures)
            for bench in benches.values():
                await bench.close()
            figures_of = ["our CPU µs", "Redis CPU µs", "CPU µs"]
            found.append(compare(f"defences, {name}", figures_of, rows, baseline))
    return [*found, answers(rounds, checks)]


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:]]
    for each in asyncio.run(run(*(numbers + [15, 6400][len(numbers) :]))):
        show(each)
