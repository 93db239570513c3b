"""What a flood of bad tokens costs those with good ones: their p99 with the flood against without.

50 good requests a second of one token, then the same beside 500 a second with random kids, forged
signatures of a known kid or junk opaque tokens, half of them from the address of the good ones,
over real gRPC on one worker, in turns. Answers are checked: every good one is allowed, no other.

    python -m bench.flood [rounds] [seconds]

Beside other work its figures say nothing: both p99 are then the other work's.
"""

import asyncio
import os
import secrets
import statistics
import sys
import tempfile
import time
from pathlib import Path

import grpc.aio

from authz.envoy import codec
from tests.support.service import running_issuer, running_service
from tests.support.valkey import valkey
from tests.support.values import request, rpc
from tests.support.wire import answer, check_request
from tests.tokens.token_factory import rsa_signer

CONFIG = """\
issuer: {{url: https://auth.example.test, internal: {issuer}, max_lifetime: 30d}}
gateway: {{url: https://mcp.example.test}}
redis: {{url: '{redis}'}}
telemetry: {{log: json}}
service: {{drain_notice: 0s, transport: {transport}}}
servers:
  files:
    upstream: http://127.0.0.1:9/mcp
    limits: [{{per: user, rate: 1000000/minute}}]
"""
GOOD, BAD = 50, 500
HOME = "192.0.2.7"


def good() -> bytes:
    now = int(time.time())
    token = rsa_signer().token({"iat": now - 5, "nbf": now - 5, "exp": now + 600})
    return check_request(request(rpc(), authorization=f"Bearer {token}", address=HOME))


def bad() -> bytes:
    token = f"authelia_at_{secrets.token_urlsafe(32)}"
    kind = secrets.randbelow(3)
    if kind == 0:
        now = int(time.time())
        token = rsa_signer().token({"iat": now}, {"kid": secrets.token_hex(8)})
    elif kind == 1:  # forged with a known kid: its signature is verified before anything is limited
        token = rsa_signer("stranger").token({"jti": secrets.token_hex(8)}, {"kid": "mcp-rs256"})
    address = f"198.51.{secrets.randbelow(256)}.{secrets.randbelow(256)}"
    if secrets.randbelow(2):
        address = HOME
    return check_request(request(rpc(), authorization=f"Bearer {token}", address=address))


async def paced(call, bodies, rate: int, seconds: float, allowed: bool) -> list[float]:
    """Send at a rate, whatever the answers take; return their times."""

    async def one(body: bytes) -> float:
        begin = time.perf_counter()
        found = answer(await call(body, timeout=10))
        assert found.allowed is allowed, found
        return time.perf_counter() - begin

    begin, tasks = time.perf_counter(), []
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, begin + number / rate - time.perf_counter()))
        tasks.append(asyncio.create_task(one(bodies[number % len(bodies)])))
    return list(await asyncio.gather(*tasks))


def p99(times: list[float]) -> float:
    return sorted(times)[int(len(times) * 0.99)] * 1000


async def measure(target: str, rounds: int, seconds: float) -> None:
    ours, theirs, ratios = [good()], [bad() for _ in range(2000)], []
    async with grpc.aio.insecure_channel(target) as a, grpc.aio.insecure_channel(target) as b:
        path = f"/{codec.AUTHORIZATION}/Check"
        calm, flooded = a.unary_unary(path), b.unary_unary(path)
        await paced(calm, ours, GOOD, 1, allowed=True)
        for _ in range(rounds):
            alone = p99(await paced(calm, ours, GOOD, seconds, allowed=True))
            both = await asyncio.gather(
                paced(calm, ours, GOOD, seconds, allowed=True),
                paced(flooded, theirs, BAD, seconds, allowed=False),
            )
            beside = p99(both[0])
            ratios.append(beside / alone)
            figures = f"alone {alone:.2f} ms, beside the flood {beside:.2f} ms"
            print(f"p99 {figures}, ratio {ratios[-1]:.2f}")
    print(f"median ratio {statistics.median(ratios):.2f}, budget 2")


def main() -> None:
    rounds = int(sys.argv[1]) if sys.argv[1:] else 5
    seconds = float(sys.argv[2]) if sys.argv[2:] else 6
    with tempfile.TemporaryDirectory() as folder, running_issuer() as issuer, valkey() as redis:
        for transport in ("grpcio", "pyvoy"):
            place = Path(folder) / transport
            place.mkdir()
            text = CONFIG.format(issuer=issuer.address, redis=redis.url, transport=transport)
            with running_service(place, text, {"PATH": os.environ["PATH"]}) as service:
                service.wait_ready()
                print(transport)
                asyncio.run(measure(f"unix:{place}/check.sock", rounds, seconds))


if __name__ == "__main__":
    main()
