"""What a flood of bad tokens costs: CPU a request, and the p99 of those with good tokens.

First the CPU of the service for a request of each kind, at 500 a second, against one with a good
token. Then 50 good requests a second, in slices in turns: alone, beside 500 bad ones a second, and
beside 500 good ones of another person, which tells what is the load's and what is theirs. A bad one
has a random kid, a forged signature of a known kid or is a junk opaque token; half of them come
from the address of the good ones. One worker; gRPC over a Unix socket; both loads are open, with
random gaps, each in a process of its own, and make their tokens before. Answers are checked: every
good one is allowed, no other.

    python -m bench.flood [rounds] [seconds]

Beside other work the p99 is the other work's; the CPU of a request holds better.
"""

import json
import multiprocessing
import os
import random
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

from authz.envoy.pb import external_auth_pb2 as wire
from bench.load import Load
from bench.result import Found, compare, show
from bench.transports import METHOD, TRANSPORTS, allowed, cpu_seconds, worker
from tests.support.service import running_issuer, running_service
from tests.support.valkey import valkey
from tests.support.values import request, rpc
from tests.support.wire import check_request
from tests.tokens.token_factory import CLAIMS, b64, rsa_signer

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
GOOD, BAD, SLICE, SETTLES = 50, 500, 0.5, 0.05
HOME = "192.0.2.7"


KINDS: dict[str, Callable[[], str]] = {
    "good": lambda: _signed("john"),
    "junk opaque": lambda: f"authelia_at_{secrets.token_urlsafe(32)}",
    "random kid": lambda: _forged(secrets.token_hex(8)),
    "forged": lambda: _forged("mcp-rs256"),
}
BAD_KINDS = tuple(KINDS)[1:]


def _signed(subject: str) -> str:
    now = int(time.time())
    claims = {"sub": subject, "iat": now - 5, "nbf": now - 5, "exp": now + 86_400}
    return rsa_signer().token(claims)


def _forged(kid: str) -> str:
    """Return a token with a made-up signature, which costs as much to verify as a stranger's."""
    now = int(time.time())
    claims = {**CLAIMS, "jti": secrets.token_hex(8), "iat": now - 5, "nbf": now - 5}
    parts = (rsa_signer().header(kid=kid), claims | {"exp": now + 600})
    signed = ".".join(b64(json.dumps(part).encode()) for part in parts)
    return f"{signed}.{b64(bytes(1) + secrets.token_bytes(255))}"


def _check(token: str, address: str = HOME) -> bytes:
    return check_request(request(rpc(), authorization=f"Bearer {token}", address=address))


def bad(kind: str) -> bytes:
    """Return a request with a bad token, from the address of the good ones or from another."""
    elsewhere = f"198.51.{secrets.randbelow(256)}.{secrets.randbelow(256)}"
    return _check(KINDS[kind](), random.choice((HOME, elsewhere)))


def refused(raw: bytes) -> bool:
    """Tell whether an answer is a refusal, as Envoy reads it."""
    return wire.CheckResponse.FromString(raw).HasField("denied_response")


class Caller:
    """A process of its own that calls when it is told to."""

    def __init__(self, path: str, good: Callable[[bytes], bool], size: int) -> None:
        """Start it; what it is answered has to be good."""
        context = multiprocessing.get_context("fork")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=self._run, args=(theirs, path, good, size))
        self._process.start()

    def prepare(self, messages: Sequence[bytes], moments: Sequence[float]) -> None:
        """Hand over what to send, and when, after the beginning."""
        self._pipe.send((messages, moments))
        self._pipe.recv()

    def begin(self, at: float) -> None:
        """Tell it when the beginning is."""
        self._pipe.send(at)

    def end(self) -> list[tuple[float, float]]:
        """Return when each was sent, and how long its answer took."""
        found: list[tuple[float, float]] | Exception = self._pipe.recv()
        if isinstance(found, Exception):
            raise found
        return found

    def close(self) -> None:
        """End it."""
        self._pipe.send(None)
        self._process.join()

    @staticmethod
    def _run(pipe: Connection, path: str, good: Callable[[bytes], bool], size: int) -> None:
        load = Load(path, METHOD, b"", good, size)
        while (told := pipe.recv()) is not None:
            messages, moments = told
            pipe.send("ready")
            try:
                pipe.send(load.paced(messages, moments, pipe.recv()))
            except RuntimeError as error:
                pipe.send(error)
        load.close()


def moments(rate: float, slices: Sequence[int], length: float = SLICE) -> list[float]:
    """Return moments with random gaps inside some slices of time."""
    found = list[float]()
    for each in slices:
        at = each * length + random.expovariate(rate)
        while at < (each + 1) * length:
            found.append(at)
            at += random.expovariate(rate)
    return found


def together(*callers: Caller) -> list[list[tuple[float, float]]]:
    """Let callers that are prepared begin at once, and wait for all."""
    at = time.perf_counter() + 0.2
    for each in callers:
        each.begin(at)
    return [each.end() for each in callers]


def cpu(pid: int, callers: dict[bool, Caller], rounds: int, seconds: float) -> list[Found]:
    """Return the service's CPU for a request of each kind, at the rate of the flood."""
    rows: dict[str, list[list[float]]] = {kind: [] for kind in KINDS}
    known = _check(_signed("jane"))
    for _ in range(rounds):
        for kind, found in rows.items():
            when = moments(BAD, [0], seconds)
            messages = [known if kind == "good" else bad(kind) for _ in when]
            caller = callers[kind == "good"]
            caller.prepare(messages, when)
            before = cpu_seconds(pid)
            together(caller)
            found.append([(cpu_seconds(pid) - before) / len(when) * 1e6])
    return compare(f"a request of {BAD} a second", ["CPU µs"], rows, "good")


def p99(times: Sequence[float]) -> float:
    return sorted(times)[int(len(times) * 0.99)] * 1000


CASES = ("alone", "bad", "good")


def measure(
    good: Caller, strangers: Caller, others: Caller, rounds: int, seconds: float
) -> list[list[float]]:
    """Return the p99 of the good ones of each round, in each case."""
    count = int(seconds / SLICE) * len(CASES)
    john, jane = _check(_signed("john")), _check(_signed("jane"))
    found = list[list[float]]()
    for _ in range(rounds):
        times: list[list[float]] = [[] for _ in CASES]
        sent = moments(GOOD, range(count))
        good.prepare([john] * len(sent), sent)
        flood = moments(BAD, range(1, count, len(CASES)))
        strangers.prepare([bad(random.choice(BAD_KINDS)) for _ in flood], flood)
        crowd = moments(BAD, range(2, count, len(CASES)))
        others.prepare([jane] * len(crowd), crowd)
        for at, took in together(good, strangers, others)[0]:
            if at % SLICE > SETTLES:  # what the slice before has left is done
                times[int(at / SLICE) % len(CASES)].append(took)
        found.append([p99(each) for each in times])
        alone, beside, load = found[-1]
        print(
            f"p99 alone {alone:.2f} ms, beside bad ones {beside:.2f} ({beside / alone:.2f}), "
            f"beside good ones {load:.2f} ({load / alone:.2f})",
            flush=True,
        )
    return found


def run(path: str, pid: int, rounds: int, seconds: float) -> None:
    good, strangers = Caller(path, allowed, 1), Caller(path, refused, 4)
    others = Caller(path, allowed, 4)
    try:
        show(cpu(pid, {True: others, False: strangers}, max(2, rounds // 2), 2))
        found = measure(good, strangers, others, rounds, seconds)
        for case, name in enumerate(CASES[1:], 1):
            ratio = statistics.median(each[case] / each[0] for each in found)
            budget = ", budget 2" if name == "bad" else ""
            print(f"median ratio beside {name} ones {ratio:.2f}{budget}")
    finally:
        for each in (good, strangers, others):
            each.close()


def main() -> None:
    rounds = int(sys.argv[1]) if sys.argv[1:] else 5
    seconds = float(sys.argv[2]) if sys.argv[2:] else 6
    with tempfile.TemporaryDirectory() as folder, running_issuer() as issuer, valkey() as redis:
        for transport in TRANSPORTS:
            place = Path(folder) / transport
            place.mkdir()
            text = CONFIG.format(issuer=issuer.address, redis=redis.url, transport=transport)
            with running_service(place, text, {"PATH": os.environ["PATH"]}) as service:
                service.wait_ready()
                print(f"\n{transport}")
                run(f"{place}/check.sock", worker(service.process.pid), rounds, seconds)


if __name__ == "__main__":
    main()
