"""What a program of ours costs to start and to keep: CPU, time, memory, and what it does idle.

Each program is started in each tree in turns, with authz.yaml of a front door and an issuer that
answers. Memory is proportional (smaps_rollup): what processes share is counted once, also with
those of other people, so that one Envoy more on the machine makes ours smaller. Idle are seconds in
which nobody asks anything; a switch is a voluntary context switch of any thread.

    python -m bench.start [--rounds N] [--idle SECONDS] [--only NAME]... [--python FILE] [TREE...]

With several trees (checkouts), ratios are to the first. `--python` is the interpreter of an
environment as users have it: packages that only tests need are memory, too.
"""

import argparse
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from authz.config.key_files import make_key
from tests.support.service import running_issuer
from tests.support.valkey import valkey

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 240.0
CONFIG = """\
issuer: {{url: https://auth.example.test, internal: {issuer}, serve: true}}
gateway: {{url: https://mcp.example.test, listen: "127.0.0.1:{gateway}"}}
{redis}
front_door: {{key_file: {key}}}
telemetry: {{log: json, metrics: "127.0.0.1:{metrics}"}}
service: {{transport: {transport}, workers: {workers}}}
servers: {{files: {{upstream: http://127.0.0.1:9/mcp}}}}
"""


@dataclass(frozen=True)
class Program:
    """One program.

    Attributes:
        words: its command line after `authz`.
        stays: whether it runs until it is stopped; else it ends by itself.
        transport, workers: of `service`.
        redis: whether there is one; `authz up` brings its own.
    """

    words: Sequence[str]
    stays: bool = True
    transport: str = "auto"
    workers: int = 1
    redis: bool = True


SERVE = ("serve", "-c", "{config}", "--check", "unix:{folder}/check.sock")
PAGES = ("pages", "-c", "{config}", "--listen", "unix:{folder}/pages.sock")
PROGRAMS = {
    "help": Program(("--help",), stays=False),
    "check-config": Program(("check-config", "{config}"), stays=False),
    "status": Program(("status", "{config}"), stays=False),
    "serve ngh2": Program(SERVE, transport="ngh2"),
    "serve pyvoy": Program(SERVE, transport="pyvoy"),
    "serve grpcio": Program(SERVE, transport="grpcio"),
    "pool ngh2": Program(SERVE, workers=2, transport="ngh2"),
    "pool pyvoy": Program(SERVE, workers=2, transport="pyvoy"),
    "pool grpcio": Program(SERVE, workers=2, transport="grpcio"),
    "pages": Program(PAGES),
    "up": Program(("up", "-c", "{config}", "--state", "{folder}/state"), redis=False),
}


@dataclass(frozen=True)
class Around:
    """The addresses of an issuer and a Redis, and what runs the programs."""

    issuer: str
    redis: str
    python: str


@dataclass
class Cost:
    """What a program costs; lists have a figure a round."""

    figures: dict[str, list[float]] = field(default_factory=dict)
    processes: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, value: float) -> None:
        self.figures.setdefault(name, []).append(value)


def tree_of(pid: int) -> list[int]:
    """Return a process and all that it has begun."""
    found = [pid]
    for one in found:
        for task in Path(f"/proc/{one}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


def proportional(pid: int) -> float:
    """Return the proportional memory of a process in MiB."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(re.findall(r"^Pss:\s+(\d+)", text, re.MULTILINE)[0]) / 1024


def cpu(pid: int) -> float:
    """Return the seconds of processor time of all threads that a process has."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((each / "schedstat").read_text().split()[0]) for each in threads) / 1e9


def used(pid: int) -> float:
    """Return the seconds of processor time of a process, its threads and children that ended."""
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


def switches(pid: int) -> int:
    """Return the voluntary context switches of all threads of a process."""
    statuses = (each / "status" for each in Path(f"/proc/{pid}/task").iterdir())
    texts = [each.read_text() for each in statuses]
    return sum(
        int(re.findall(r"^voluntary_ctxt_switches:\s+(\d+)", t, re.MULTILINE)[0]) for t in texts
    )


def named(pid: int, first: int) -> str:
    """Return what a process is, in a word or two."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    if "python" in words[0]:
        skipped = [word for word in words[1:] if word not in {"-P", "-m", ""}]
        name = " ".join(skipped[:2])
    else:
        name = Path(words[0]).name
        if name == "envoy":
            name += " (worker)" if "--config-yaml" in words else ""
    return f"{name}{' *' if pid == first else ''}"


def wait(true: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        if time.monotonic() > end:
            raise RuntimeError("a program did not start")
        time.sleep(0.005)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


@contextmanager
def started(
    python: str, words: Sequence[str], tree: Path, log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command of a tree, its output in a file."""
    env = dict(os.environ, PYTHONPATH=str(tree))
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [python, "-m", "authz", *words]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, cwd=tree, env=env)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait()


def is_ready(program: Program, log: Path) -> bool:
    text = log.read_text()
    if program.words[0] == "up":
        return "authz is up" in text
    return '"started"' in text


def measure(program: Program, tree: Path, idle: float, cost: Cost, around: Around) -> None:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="s")))
        config, log = folder / "authz.yaml", folder / "log"
        text = CONFIG.format(
            issuer=around.issuer,
            redis=f"redis: {{url: '{around.redis}'}}" if program.redis else "",
            gateway=free_port(),
            metrics=free_port(),
            key=folder / "key.pem",
            transport=program.transport,
            workers=program.workers,
        )
        config.write_text(text)
        make_key(folder / "key.pem")
        words = [word.format(config=config, folder=folder) for word in program.words]
        begun = time.monotonic()
        process = stack.enter_context(started(around.python, words, tree, log))
        if not program.stays:
            _, _, usage = os.wait4(process.pid, 0)
            process.returncode = 0
            cost.add("start s", time.monotonic() - begun)
            cost.add("start CPU s", usage.ru_utime + usage.ru_stime)
            return
        wait(lambda: is_ready(program, log) or process.poll() is not None)
        if process.poll() is not None:
            raise RuntimeError(log.read_text())
        cost.add("start s", time.monotonic() - begun)
        pids = tree_of(process.pid)
        cost.add("start CPU s", sum(used(pid) for pid in pids))
        time.sleep(min(idle, 3.0))
        pids = tree_of(process.pid)
        names = {pid: named(pid, process.pid) for pid in pids}
        before = {pid: (cpu(pid), switches(pid)) for pid in pids}
        time.sleep(idle)
        memory = {pid: proportional(pid) for pid in pids}
        cost.add("MiB", sum(memory.values()))
        cost.add("processes", len(pids))
        spent, switched = 0.0, 0.0
        for pid in pids:
            core, turns = cpu(pid) - before[pid][0], switches(pid) - before[pid][1]
            spent, switched = spent + core, switched + turns
            row = [memory[pid], 100 * core / idle, turns / idle]
            cost.processes[f"{names[pid]} {pids.index(pid)}"] = row
        # Of the last round alone, which waits for long.
        cost.figures |= {"idle %": [100 * spent / idle], "idle switches/s": [switched / idle]}


def show(costs: dict[str, list[Cost]]) -> None:
    """Print a line a program and tree, ratios to the first tree, and then every process."""
    columns = ["start s", "start CPU s", "MiB", "processes", "idle %", "idle switches/s"]
    print(f"{'':18}" + "".join(f"{name:>18}" for name in columns))
    for name, trees in costs.items():
        for number, cost in enumerate(trees):
            cells = []
            for column in columns:
                if column not in cost.figures:
                    cells.append("")
                    continue
                value = statistics.median(cost.figures[column])
                first = statistics.median(trees[0].figures[column])
                ratio = f" ({value / first:4.2f})" if number and first else " " * 7
                cells.append(f"{value:10.2f}{ratio}")
            print(f"{name if not number else '':18}" + "".join(f"{each:>18}" for each in cells))
    print("\none process: MiB, % of a core idle, switches a second idle")
    for name, trees in costs.items():
        for number, cost in enumerate(trees):
            for process, (memory, core, turns) in cost.processes.items():
                print(f"  {name:14} {number} {process:34} {memory:7.1f} {core:6.2f} {turns:6.1f}")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.start", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--idle", type=float, default=10.0, metavar="SECONDS")
    parser.add_argument("--only", action="append", choices=PROGRAMS, metavar="NAME")
    parser.add_argument("--python", default=sys.executable, metavar="FILE")
    parser.add_argument("trees", nargs="*", type=Path, default=[ROOT])
    chosen = parser.parse_args(arguments)
    trees = [tree.resolve() for tree in chosen.trees]
    costs = {name: [Cost() for _ in trees] for name in chosen.only or PROGRAMS}
    with running_issuer() as issuer, valkey() as redis:
        around = Around(issuer.address, redis.url, chosen.python)
        # The first round compiles and warms: it does not count.
        for number in range(chosen.rounds + 1):
            for name, each in costs.items():
                for tree, cost in zip(trees, each, strict=True):
                    kept = cost if number else Cost()
                    idle = chosen.idle if number == chosen.rounds else 0.5
                    measure(PROGRAMS[name], tree, idle, kept, around)
    show(costs)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
