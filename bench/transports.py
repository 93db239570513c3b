"""What a full decision costs on each transport, against an empty call on the same transport.

Everything is on: strict body, a tool's rule, revocation and step-up looked up, three limits in a
real Valkey, metrics, a log line to a file. All servers run at once and are asked in turns, so that
a noisy machine disturbs all alike; every answer has to be an Allow. Ratios travel, figures of one
machine do not. Where `make compiled` has been, the compiled files are measured too, full against
an empty call whose transport is compiled as well.

    python -m bench.transports [rounds [calls]]
"""

import asyncio
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from authz.core.ledger import StepUpKey
from authz.core.principal import Person
from authz.core.second_factor import Method
from authz.envoy import codec
from authz.envoy.pb import external_auth_pb2 as wire
from authz.ledger.redis import RedisLedger, RedisOptions
from bench.load import Load, undisturbed
from bench.result import Found, compare, show
from tests.support.service import running_issuer
from tests.support.valkey import valkey
from tests.support.values import call, request
from tests.support.wire import check_request
from tests.tokens.token_factory import CLAIMS, rsa_signer

ROOT = Path(__file__).resolve().parent.parent
METHOD = f"/{codec.AUTHORIZATION}/Check"
TRANSPORTS = ("grpcio", "ngh2", "pyvoy")
COMPILED = ROOT / "build" / "compiled"
IN_FLIGHT = 64
CONFIG = """\
issuer: {{url: https://auth.example.test, internal: {issuer}, max_lifetime: 30d}}
gateway: {{url: https://mcp.example.test}}
redis: {{url: '{redis}'}}
telemetry: {{log: json}}
service: {{transport: {transport}}}
clients: {{mcp-2fa: {{login: direct, scopes: ['mcp:tools']}}}}
servers:
  files:
    upstream: http://127.0.0.1:9/mcp
    scopes: ['mcp:tools']
    limits:
      - {{per: [client, user], rate: 100000000/minute}}
      - {{per: user, rate: 100000000/hour}}
    tools:
      read_*:
        second_factor: totp
        limits: [{{per: client, rate: 100000000/minute}}]
"""


@dataclass(frozen=True)
class BenchServer:
    """A running server and the process that does its work."""

    path: str
    pid: int

    def cpu(self) -> float:
        """Return the seconds of processor time that it has used."""
        return cpu_seconds(self.pid)


def trees() -> dict[str, Path]:
    """Return where servers are started, by how their cases are called."""
    return {"": ROOT} | ({"compiled ": COMPILED} if COMPILED.is_dir() else {})


def cpu_seconds(pid: int) -> float:
    """Return the seconds of processor time of all threads of a process, to the nanosecond."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((each / "schedstat").read_text().split()[0]) for each in threads) / 1e9


@contextmanager
def started(
    command: list[str], folder: Path, name: str, tree: Path = ROOT
) -> Iterator[BenchServer]:
    """Run a server on a socket in the folder, its output in files there."""
    path = folder / f"{name}.sock"
    with (folder / f"{name}.log").open("w") as out, (folder / f"{name}.err").open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", *command, str(path)], stdout=out, stderr=errors, cwd=tree
        )
    try:
        wait(lambda: path.exists() or process.poll() is not None)
        time.sleep(1)
        yield BenchServer(str(path), worker(process.pid))
    finally:
        process.terminate()
        process.wait()


def worker(pid: int) -> int:
    """Return the process that serves, where another watches it."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0]) if children else pid


def wait(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not true():
        if time.monotonic() > end:
            raise RuntimeError("a server did not start")
        time.sleep(0.02)


def allowed(raw: bytes) -> bool:
    """Tell whether an answer lets the request go on, as Envoy reads it."""
    message = wire.CheckResponse.FromString(raw)
    return message.HasField("ok_response") and message.status.code == 0


def token() -> str:
    now = int(time.time())
    return rsa_signer().token({"iat": now - 5, "nbf": now - 5, "exp": now + 86_400})


async def step_up(url: str) -> None:
    """Record the step-up that the tool's rule looks for."""
    ledger = RedisLedger(RedisOptions(url, timeout=5))
    person = Person("https://auth.example.test", str(CLAIMS["sub"]))
    key = StepUpKey(person, "mcp-2fa", "files")
    await ledger.record_step_up(key, Method.TOTP, int(time.time()) - 10, 86_400)
    await ledger.aclose()


@dataclass(frozen=True)
class Figures:
    """What one round measured, per call: seconds of the server's CPU, of the wall, and the p50."""

    cpu: float
    wall: float
    p50: float


def measure(server: BenchServer, load: Load, calls: int) -> Figures:
    used = server.cpu()
    seconds = load.run(calls, IN_FLIGHT)
    used = server.cpu() - used
    load.run(calls // 10, 1)
    return Figures(used / calls, seconds / calls, statistics.median(load.latencies))


def run(rounds: int, calls: int) -> list[list[Found]]:
    """Measure, and return a table for each transport and one across them."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        issuer = stack.enter_context(running_issuer())
        redis = stack.enter_context(valkey())
        asyncio.run(step_up(redis.url))
        servers = dict[str, BenchServer]()
        for (kind, tree), transport in itertools.product(trees().items(), TRANSPORTS):
            case = f"{kind}{transport}"
            name = case.replace(" ", "-")
            servers[f"{case} empty"] = stack.enter_context(
                started(["bench.empty", transport], folder, f"{name}-e", tree)
            )
            path = folder / f"{name}.yaml"
            path.write_text(
                CONFIG.format(issuer=issuer.address, redis=redis.url, transport=transport)
            )
            socket = folder / f"{name}-f.sock"
            command = ["authz", "serve", "-c", str(path), "--status", "127.0.0.1:0", "--check"]
            servers[f"{case} full"] = stack.enter_context(
                started_full(command, folder, f"{name}-f", socket, tree)
            )
        message = check_request(request(call("read_file"), authorization=f"Bearer {token()}"))
        loads = {name: Load(each.path, METHOD, message, allowed) for name, each in servers.items()}
        assert redis.process is not None
        found: dict[str, list[Figures]] = {name: [] for name in servers}
        shared: dict[str, list[float]] = {name: [] for name in servers}
        for load in loads.values():
            undisturbed(load.run, calls // 5, IN_FLIGHT)
        for _ in range(rounds):
            for name, load in loads.items():
                before = cpu_seconds(redis.process.pid)
                found[name].append(undisturbed(measure, servers[name], load, calls))
                shared[name].append((cpu_seconds(redis.process.pid) - before) / (calls * 1.1))
        for load in loads.values():
            load.close()
        return report(found, shared)


@contextmanager
def started_full(
    command: list[str], folder: Path, name: str, socket: Path, tree: Path = ROOT
) -> Iterator[BenchServer]:
    """Run the whole service; it names its socket with a scheme."""
    with (folder / f"{name}.log").open("w") as out, (folder / f"{name}.err").open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", *command, f"unix:{socket}"],
            stdout=out,
            stderr=errors,
            cwd=tree,
            env=dict(os.environ, PYTHONPATH=str(tree)),
        )
    log = folder / f"{name}.log"
    try:
        wait(lambda: '"started"' in log.read_text() or process.poll() is not None)
        if process.poll() is not None:
            raise RuntimeError((folder / f"{name}.err").read_text())
        time.sleep(1.5)
        yield BenchServer(str(socket), worker(process.pid))
    finally:
        process.terminate()
        process.wait()


def report(
    found: Mapping[str, list[Figures]], shared: Mapping[str, list[float]]
) -> list[list[Found]]:
    rows = {
        name: [
            [each.cpu * 1e6, redis * 1e6, each.wall * 1e6, each.p50 * 1e6]
            for each, redis in zip(figures, shared[name], strict=True)
        ]
        for name, figures in found.items()
    }
    names = ["CPU µs", "Redis CPU µs", "wall µs", "p50 of one µs"]

    def table(title: str, baseline: str, *cases: str) -> list[Found]:
        chosen = {case: rows[case] for case in (baseline, *cases)}
        return compare(f"transports, {title}", names, chosen, baseline)

    cases = [f"{kind}{transport}" for kind in trees() for transport in TRANSPORTS]
    fastest = f"{[*trees()][-1]}{TRANSPORTS[1]}"
    others = [each for each in cases if each != fastest]
    return [
        *(table(each, f"{each} empty", f"{each} full") for each in cases),
        table("full decisions", f"{fastest} full", *(f"{each} full" for each in others)),
        table("empty calls", f"{fastest} empty", *(f"{each} empty" for each in others)),
    ]


if __name__ == "__main__":
    os.environ.setdefault("PYTHONDONTWRITEBYTECODE", "1")
    numbers = [int(word) for word in sys.argv[1:]]
    for each in run(*(numbers + [7, 8000][len(numbers) :])):
        show(each)
