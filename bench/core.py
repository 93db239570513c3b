"""The decision alone: from a request to its verdict, without transport, codec, Redis and log.

Baseline: the same body read by Python's own JSON parser, which checks nothing.

    python -m bench.core [rounds]
"""

import asyncio
import json
import sys
import time

from authz.core import mcp
from authz.tokens.claims import ClaimRules
from authz.tokens.verifier import TokenVerifier
from bench.result import Found, compare, show
from bench.token_cache import BATCH, NoLedger, decide
from tests.support.values import call, request, rpc
from tests.tokens.token_factory import ISSUER, TokenBench, rsa_signer

LONG = rpc(
    "tools/call", name="read_file", arguments={"text": "x" * 10_000, "list": [1, 2, 3] * 100}
)


async def run(rounds: int) -> list[Found]:
    verifier = TokenVerifier(TokenBench().keys, ClaimRules(ISSUER, leeway=30, max_lifetime=7200))
    now = int(time.time())
    token = rsa_signer().token({"iat": now, "nbf": now, "exp": now + 3600})
    await verifier.verify(token)
    ledger = NoLedger()
    rows: dict[str, list[list[float]]] = {}

    def add(case: str, seconds: float) -> None:
        rows.setdefault(case, []).append([seconds / BATCH * 1e6])

    for number in range(rounds + 1):
        if number == 1:
            rows.clear()  # the first does not count
        for name, body in (("", call("read_file")), (", 10 KB", LONG)):
            sent = request(body, authorization=f"Bearer {token}")
            begin = time.process_time()
            for _ in range(BATCH):
                json.loads(body)
            add(f"json.loads{name}", time.process_time() - begin)
            begin = time.process_time()
            for _ in range(BATCH):
                mcp.read(sent.body, sent.headers, max_body=1 << 20)
            add(f"strict message{name}", time.process_time() - begin)
            begin = time.process_time()
            for _ in range(BATCH):
                assert await decide(verifier, sent, ledger)
            add(f"whole decision{name}", time.process_time() - begin)
    return compare("core", ["µs"], rows, "json.loads")


if __name__ == "__main__":
    show(asyncio.run(run(int(sys.argv[1]) if sys.argv[1:] else 50)))
