"""What a hit in the cache of verified tokens costs, against a whole decision without transport.

Both in one run, in turns, so that a noisy machine disturbs both alike; ratios travel, figures of
one machine do not.

    python -m bench.token_cache [rounds]
"""

import asyncio
import sys
import time
from collections.abc import Callable, Mapping

from authz.core.decision import Allow, BearerRequest, PendingDecision, authorize, conclude, read
from authz.core.ledger import LedgerAnswer, Mode, Query, Taken
from authz.core.limits import Limit, Per
from authz.core.policy import DeclaredClient, Rule
from authz.tokens.claims import ClaimRules
from authz.tokens.introspection_cache import IntrospectionCache
from authz.tokens.introspector import Introspector
from authz.tokens.verifier import TokenVerifier
from bench.result import Found, compare, show
from tests.support.values import ISSUER, call, policy, request, server
from tests.tokens.token_factory import CLAIMS, TokenBench, ec_signer, rsa_signer

LIMITS = tuple(
    Limit(f"files:{per.value}:{quota}/minute", per, quota=quota, window=60, place="files")
    for per, quota in ((Per.CLIENT_USER, 600), (Per.USER, 1000), (Per.ADDRESS, 6000))
)
POLICY = policy(
    server(Rule(scopes=frozenset({"mcp:tools"}), limits=LIMITS), {"read_*": Rule(), "*": Rule()}),
    DeclaredClient("mcp-2fa", frozenset({"mcp:tools"})),
)
BATCH = 200
BUDGET = 0.2


class NoLedger:
    """A ledger that costs nothing: what is measured is ours."""

    async def take(self, _: Query) -> LedgerAnswer:
        return Taken((), Mode.REDIS)


class BenchIssuer:
    """An issuer that knows one opaque token."""

    async def ask(self, _: str) -> Mapping[str, object]:
        now = int(time.time())
        return {
            "active": True,
            "aud": CLAIMS["aud"],
            "client_id": "mcp-2fa",
            "exp": now + 3600,
            "iat": now,
            "scope": "openid mcp:tools",
            "sub": CLAIMS["sub"],
        }


async def decide(verifier: TokenVerifier, sent: object, ledger: NoLedger) -> bool:
    """Take one request from its headers to its verdict, as server/check.py does."""
    found = read(sent, POLICY)  # type: ignore[arg-type]
    assert isinstance(found, BearerRequest), found
    principal = verifier.cached(found.token)
    assert principal is not None
    waiting = authorize(found, principal, POLICY, time.time())
    assert isinstance(waiting, PendingDecision), waiting
    return isinstance(conclude(waiting, await ledger.take(waiting.query)), Allow)


def microseconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    for _ in range(BATCH):
        work()
    return (time.perf_counter() - began) / BATCH * 1e6


async def microseconds_of(verifier: TokenVerifier, sent: object, ledger: NoLedger) -> float:
    began = time.perf_counter()
    for _ in range(BATCH):
        await decide(verifier, sent, ledger)
    return (time.perf_counter() - began) / BATCH * 1e6


async def run(rounds: int) -> list[list[Found]]:
    """Measure hits of each kind of token, each against a whole decision with it."""
    keys = TokenBench().keys
    rules = ClaimRules(ISSUER, leeway=30, max_lifetime=7200)
    introspector = Introspector(IntrospectionCache(BenchIssuer(), rules))
    verifier = TokenVerifier(keys, rules, introspector=introspector)
    now = int(time.time())
    times = {"iat": now, "nbf": now, "exp": now + 3600}
    tokens = {
        "RS256": rsa_signer().token(times),
        "ES256": ec_signer().token(times),
        "opaque": f"authelia_at_{'S' * 43}.{'_' * 43}",
    }
    tables = [await measure(name, verifier, token, rounds) for name, token in tokens.items()]
    await introspector.aclose()
    return tables


async def measure(name: str, verifier: TokenVerifier, token: str, rounds: int) -> list[Found]:
    await verifier.verify(token)
    sent = request(call("read_file"), authorization=f"Bearer {token}")
    ledger = NoLedger()
    rows: dict[str, list[list[float]]] = {"whole decision": [], "hit": []}
    for _ in range(rounds):
        rows["hit"].append([microseconds(lambda: verifier.cached(token))])
        rows["whole decision"].append([await microseconds_of(verifier, sent, ledger)])
    return compare(f"token cache, {name}", ["µs"], rows, "whole decision")


def main(rounds: int) -> int:
    tables = asyncio.run(run(rounds))
    for each in tables:
        show(each)
    worst = max(each.ratio for table in tables for each in table if each.case == "hit")
    print(f"worst ratio {worst:.3f}, budget {BUDGET}: {'kept' if worst <= BUDGET else 'EXCEEDED'}")
    return 0 if worst <= BUDGET else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 200))
