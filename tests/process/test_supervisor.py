"""Parts are started in order, watched, started again, and never left behind."""

import asyncio
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from authz.process import parent_death
from authz.process.group import FAILED, STOPPED
from authz.process.service import ServiceTiming
from authz.process.supervisor import Backoff
from tests.process.stage import DEADLINE, ServiceStage, gone, until, wait_until

IGNORES = "signal.signal(signal.SIGTERM, signal.SIG_IGN); up(); rest()"
# A child in the same group that outlives everything but SIGKILL.
BREEDS = """
pid = os.fork()
if pid == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    note(str(os.getpid()), name + ".pids")
    up()
rest()
"""
TELLS = """
def told(number, frame):
    note(f"stop {name}", "order"); sys.exit(0)
signal.signal(signal.SIGTERM, told)
note(f"start {name}", "order"); up(); rest()
"""


# --- order -----------------------------------------------------------------------------------


def test_order(stage: ServiceStage) -> None:
    """Parts start in their order and stop in reverse."""

    async def play() -> int:
        async with stage.playing(*(stage.spec(name, TELLS) for name in "abc")) as run:
            await until(lambda: len(stage.read("order")) == 3)
            stage.send(signal.SIGTERM)
            return await run

    code = asyncio.run(play())

    assert code == STOPPED
    expected = ["start a", "start b", "start c", "stop c", "stop b", "stop a"]
    assert stage.read("order") == expected


def test_waits_until_ready(stage: ServiceStage) -> None:
    """No part starts before the one in front of it is ready."""
    asked = itertools.count()

    async def ready() -> bool:
        assert stage.pids("b") == []
        return next(asked) == 5

    async def play() -> None:
        async with stage.playing(stage.spec("a", ready=ready), stage.spec("b")):
            await until(lambda: stage.pids("b"))

    asyncio.run(play())

    assert next(asked) == 6


def test_starts_beside(stage: ServiceStage) -> None:
    """A part that does not need the one in front of it starts with it; the next waits for both."""
    asked = itertools.count()

    async def first() -> bool:
        return bool(stage.pids("b"))

    async def second() -> bool:
        assert stage.pids("c") == []
        return next(asked) == 5

    async def play() -> None:
        services = (
            stage.spec("a", ready=first),
            stage.spec("b", ready=second, beside=True),
            stage.spec("c"),
        )
        async with stage.playing(*services):
            await until(lambda: stage.pids("c"))

    asyncio.run(play())

    assert next(asked) == 6


def test_not_ready_in_time(stage: ServiceStage) -> None:
    """A part that is not ready in time ends the run with the last lines that it wrote."""
    script = "print('no luck today', flush=True); note('', 'spoke'); rest()"

    async def ready() -> bool:
        await until(lambda: stage.read("spoke"))
        return False

    async def play() -> int:
        async with stage.playing(stage.spec("a", script, ready=ready, ready_timeout=0.0)) as run:
            return await run

    assert asyncio.run(play()) == FAILED
    told = stage.lines[0]
    assert told.startswith("a could not start: not ready within 0 s")
    assert str(stage.folder / "a.log") in told
    assert told.endswith("\n    no luck today")


def test_probe_that_hangs(stage: ServiceStage) -> None:
    """A question that is never answered counts as no, so that waiting stays bounded."""

    async def ready() -> bool:
        await asyncio.Event().wait()
        return True

    async def play() -> int:
        timing = ServiceTiming(poll=0.01, probe_timeout=0.01)
        async with stage.playing(
            stage.spec("a", ready=ready, ready_timeout=0.1), timing=timing
        ) as run:
            return await run

    assert asyncio.run(play()) == FAILED


def test_late(stage: ServiceStage) -> None:
    """A part that may be late lets the others start, says what it waits for, and is ready later."""

    async def late() -> str:
        return "issuer: no keys yet"

    async def ready() -> bool:
        return bool(stage.pids("b"))

    async def play() -> None:
        first = stage.spec("a", ready=ready, ready_timeout=0.0, waits_for=late)
        timing = ServiceTiming(poll=0.01, slow_poll=0.01)
        async with stage.playing(first, stage.spec("b"), timing=timing):
            await until(lambda: "a  ready" in stage.lines and "b  ready" in stage.lines)

    asyncio.run(play())

    assert stage.lines[0] == "a  runs, but is not ready yet: issuer: no keys yet"


def test_needed(stage: ServiceStage) -> None:
    """A part that is needed says early what it waits for, once, and fails with the same words."""

    async def late() -> str:
        return "issuer: no keys yet"

    async def never() -> bool:
        return False

    first = stage.spec("a", ready=never, ready_timeout=1.0, waits_for=late, required=True)
    timing = ServiceTiming(poll=0.01, say_after=0.0)

    supervisor = stage.supervisor(first, stage.spec("b"), timing=timing)
    assert asyncio.run(supervisor.run()) == FAILED
    assert stage.said("a could not start: not ready within 1 s: issuer: no keys yet. It said")
    assert stage.lines.count("a  runs, but is not ready yet: issuer: no keys yet") == 1
    assert stage.pids("b") == []


def test_nothing_is_missing_any_more(stage: ServiceStage) -> None:
    """A part that becomes ready while it is asked what it waits for says that it is ready, only."""
    asked = list[str]()

    async def late() -> str:
        asked.append("late")
        return ""

    async def ready() -> bool:
        return bool(asked)

    async def walk() -> int:
        return 7

    first = stage.spec("a", ready=ready, ready_timeout=5.0, waits_for=late, required=True)
    supervisor = stage.supervisor(first, timing=ServiceTiming(poll=0.01, say_after=0.0))
    assert asyncio.run(supervisor.run(walk)) == 7
    assert stage.lines[0] == "a  ready"


def test_when_ready(stage: ServiceStage) -> None:
    """What runs when all is ready may end the run with a code of its own."""
    seen: list[list[str]] = []

    async def walk() -> int:
        seen.append(list(stage.lines))
        return 7

    code = asyncio.run(stage.supervisor(stage.spec("a"), stage.spec("b")).run(walk))

    assert code == 7
    assert seen == [["a  ready", "b  ready"]]
    assert all(gone(pid) for name in "ab" for pid in stage.pids(name))


def test_when_ready_may_go_on(stage: ServiceStage) -> None:
    """What runs when all is ready may leave everything running."""
    walked = asyncio.Event()

    async def walk() -> None:
        walked.set()

    async def play() -> int:
        supervisor = stage.supervisor(stage.spec("a"))
        run = asyncio.create_task(supervisor.run(walk))
        await until(walked.is_set)
        assert not gone(stage.pids("a")[0])
        supervisor.stop()
        return await run

    assert asyncio.run(play()) == STOPPED


def test_when_ready_raises(stage: ServiceStage) -> None:
    """What goes wrong in there is raised when every part has ended."""

    async def walk() -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(stage.supervisor(stage.spec("a")).run(walk))

    assert gone(stage.pids("a")[0])


# --- death and restart -----------------------------------------------------------------------


def test_restart(stage: ServiceStage) -> None:
    """A part that dies is started again, and one line says how it died."""

    async def play() -> None:
        async with stage.playing(stage.spec("a"), stage.spec("b")):
            await until(lambda: "b  ready" in stage.lines)
            os.kill(stage.pids("a")[0], signal.SIGKILL)
            await until(lambda: len(stage.pids("a")) == 2)

    asyncio.run(play())

    said = [line for line in stage.lines if "SIGKILL" in line]
    assert len(said) == 1
    assert said[0].startswith("a  killed by SIGKILL after ")
    assert said[0].endswith("starting it again in 0.01 s")
    assert len(stage.pids("b")) == 1


def test_restart_ends_what_the_dead_left(stage: ServiceStage) -> None:
    """Before a part starts again, the children of its dead process are ended."""

    async def play() -> None:
        async with stage.playing(stage.spec("a", BREEDS)):
            await until(lambda: len(stage.pids("a")) == 2 and "a  ready" in stage.lines)
            parent, child = stage.pids("a")
            os.kill(parent, signal.SIGKILL)
            await until(lambda: len(stage.pids("a")) > 2)
            await until(lambda: gone(child))

    asyncio.run(play())


def _waits(
    stage: ServiceStage,
    count: int,
    backoff: Backoff,
    clock: Callable[[], float] = time.monotonic,
) -> list[float]:
    """Return how long the supervisor waits between restarts of a part that dies at once."""
    waits: list[float] = []

    async def ready() -> bool:
        return True

    async def pause(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == count:
            stage.send(signal.SIGTERM)
            await asyncio.Event().wait()

    async def play() -> int:
        kept = ServiceTiming(backoff=backoff, clock=clock, sleep=pause)
        spec = stage.spec("a", "sys.exit(3)", ready=ready)
        async with stage.playing(spec, timing=kept) as run:
            return await run

    assert asyncio.run(play()) == STOPPED
    return waits


def test_back_off(stage: ServiceStage) -> None:
    """A part that keeps dying is started later and later, up to a bound, and never given up."""
    waits = _waits(stage, 8, Backoff(first=0.5, longest=10.0))

    assert waits == [0.5, 1, 2, 4, 8, 10, 10, 10]


def test_steady_run_is_forgiven(stage: ServiceStage) -> None:
    """A part that ran steadily is started again as soon as at its first death."""
    ages = itertools.count(step=100)

    waits = _waits(stage, 4, Backoff(first=0.5, steady=30.0), lambda: float(next(ages)))

    assert waits == [0.5, 0.5, 0.5, 0.5]


def test_crash_loop_at_start(stage: ServiceStage) -> None:
    """A part that dies again and again before it was ever ready ends the run, and says why."""
    script = "print('the disk is full'); sys.exit(3)"

    async def play() -> int:
        async with stage.playing(stage.spec("a"), stage.spec("b", script)) as run:
            return await run

    assert asyncio.run(play()) == FAILED
    assert stage.said("b could not start: exit status 3, 3 times in a row")
    assert stage.said("\n    the disk is full")
    assert len(stage.pids("b")) == 3
    assert gone(stage.pids("a")[0])


def test_no_program(stage: ServiceStage) -> None:
    """A program that is not there is said by name."""
    spec = stage.spec("a", argv=("/nowhere/valkey-server",))

    assert asyncio.run(stage.supervisor(spec).run()) == FAILED
    assert stage.said("cannot run /nowhere/valkey-server: No such file or directory")


# --- ends ------------------------------------------------------------------------------------


def _children() -> set[str]:
    """Return our children, zombies included."""
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_leaves_nothing(stage: ServiceStage, number: signal.Signals) -> None:
    """After a signal no process is left: no child, no grandchild, no zombie."""

    async def play() -> int:
        async with stage.playing(stage.spec("a", BREEDS), stage.spec("b")) as run:
            await until(lambda: "b  ready" in stage.lines)
            stage.send(number)
            return await run

    before = _children()
    assert asyncio.run(play()) == STOPPED
    assert _children() <= before
    assert stage.lines[-3:] == [
        "stopping; once more to wait for nobody",
        "b  stopped",
        "a  stopped",
    ]


def test_stop_while_starting(stage: ServiceStage) -> None:
    """A signal that comes before all is ready ends the run too."""

    async def play() -> int:
        async with stage.playing(stage.spec("a", "rest()"), stage.spec("b")) as run:
            await until(lambda: stage.pids("a"))
            stage.send(signal.SIGTERM)
            return await run

    assert asyncio.run(play()) == STOPPED
    assert stage.pids("b") == []


def test_grace(stage: ServiceStage) -> None:
    """What does not listen to its stop signal is killed when its grace is over."""

    async def play() -> int:
        async with stage.playing(stage.spec("a", IGNORES, stop_timeout=0.05)) as run:
            await until(lambda: "a  ready" in stage.lines)
            stage.send(signal.SIGTERM)
            return await run

    assert asyncio.run(play()) == STOPPED


def test_second_signal_hurries(stage: ServiceStage) -> None:
    """A second signal waits for nobody's grace."""

    async def play() -> int:
        async with stage.playing(stage.spec("a", IGNORES, stop_timeout=3600.0)) as run:
            await until(lambda: "a  ready" in stage.lines)
            stage.send(signal.SIGINT)
            await asyncio.wait({run}, timeout=0.05)
            assert not run.done()
            stage.send(signal.SIGINT)
            return await asyncio.wait_for(run, DEADLINE)

    assert asyncio.run(play()) == STOPPED


def test_drain_comes_first(stage: ServiceStage) -> None:
    """A part drains while it still works, and is asked to stop after that."""

    async def drain() -> None:
        assert not gone(stage.pids("a")[0])
        with (stage.folder / "order").open("a") as order:
            order.write("drained\n")

    async def play() -> None:
        async with stage.playing(stage.spec("a", TELLS, drain=drain)):
            await until(lambda: "a  ready" in stage.lines)

    asyncio.run(play())

    assert stage.read("order") == ["start a", "drained", "stop a"]


def test_cancelled(stage: ServiceStage) -> None:
    """A caller that is cancelled leaves nothing behind either."""

    async def play() -> None:
        async with stage.playing(stage.spec("a")) as run:
            await until(lambda: "a  ready" in stage.lines)
            run.cancel()

    asyncio.run(play())


# --- SIGHUP ----------------------------------------------------------------------------------

RELOADS = """
while not os.path.exists(f"{here}/go"):
    os.sched_yield()
signal.signal(signal.SIGHUP, lambda *_: note("reloaded", "reloads"))
up(); rest()
"""


def test_reload(stage: ServiceStage) -> None:
    """SIGHUP goes to the parts that reload, and does not touch the others."""
    reloaded: list[None] = []
    (stage.folder / "go").touch()

    async def play() -> None:
        services = stage.spec("a"), stage.spec("b", RELOADS, reloads=True)
        async with stage.playing(*services, reloaded=lambda: reloaded.append(None)):
            await until(lambda: "b  ready" in stage.lines)
            stage.send(signal.SIGHUP)
            await until(lambda: stage.read("reloads"))
            assert not gone(stage.pids("a")[0])

    asyncio.run(play())

    assert reloaded == [None]


RENEWS = """
signal.signal(signal.SIGUSR2, lambda *_: note("renewed", "renewals"))
up(); rest()
"""


def test_rolling_restart(stage: ServiceStage) -> None:
    """SIGUSR2 goes to the parts that reload; the others would die of it."""

    async def play() -> None:
        services = stage.spec("a"), stage.spec("b", RENEWS, reloads=True)
        async with stage.playing(*services):
            await until(lambda: "b  ready" in stage.lines)
            stage.send(signal.SIGUSR2)
            await until(lambda: stage.read("renewals"))
            assert not gone(stage.pids("a")[0])

    asyncio.run(play())


def test_reload_waits_for_ears(stage: ServiceStage) -> None:
    """A part that has no handler yet gets its SIGHUP when it has: it would die of it."""

    async def play() -> None:
        async with stage.playing(stage.spec("b", RELOADS, reloads=True)):
            await until(lambda: stage.pids("b"))
            stage.send(signal.SIGHUP)
            (stage.folder / "go").touch()
            await until(lambda: stage.read("reloads"))
            assert len(stage.pids("b")) == 1

    asyncio.run(play())


# --- the supervisor's own death --------------------------------------------------------------

_PROGRAM = """
import asyncio, sys
from pathlib import Path
sys.path[:0] = sys.argv[1:3]
from tests.process.stage import ServiceStage
stage = ServiceStage(Path(sys.argv[3]))
from authz.process.group import ServiceGroup
services = stage.spec("a"), stage.spec("b")
sys.exit(asyncio.run(ServiceGroup(services, stage.folder, stage.lines.append).run()))
"""


def _started(stage: ServiceStage) -> subprocess.Popen[bytes]:
    """Start a supervisor with two parts as a program of its own."""
    root = str(Path(__file__).parents[2])
    argv = [sys.executable, "-c", _PROGRAM, root, root, str(stage.folder)]
    program = subprocess.Popen(argv)
    wait_until(lambda: stage.read("b.up"))
    return program


@pytest.mark.attack("supervisor-killed")
def test_killed_supervisor_leaves_no_orphan(stage: ServiceStage) -> None:
    """Parts die with a supervisor that was killed and could end nothing."""
    program = _started(stage)
    program.kill()
    program.wait()

    wait_until(lambda: all(gone(pid) for name in "ab" for pid in stage.pids(name)))
    assert len(stage.pids("a")) == len(stage.pids("b")) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_real_signals(stage: ServiceStage, number: signal.Signals) -> None:
    """A supervisor that is a program of its own ends cleanly on real signals."""
    program = _started(stage)
    program.send_signal(number)

    assert program.wait(DEADLINE) == STOPPED
    assert all(gone(pid) for name in "ab" for pid in stage.pids(name))


def test_parent_gone_before_it_was_tied(stage: ServiceStage) -> None:
    """A part whose parent died before it was tied to it does not run at all."""
    argv = [
        sys.executable,
        "-I",
        "-S",
        parent_death.__file__,
        "1",
        "/bin/touch",
        str(stage.folder / "x"),
    ]
    done = subprocess.run(argv, check=False)

    assert done.returncode != 0
    assert not (stage.folder / "x").exists()


# --- what a part is given --------------------------------------------------------------------


def test_surroundings(stage: ServiceStage) -> None:
    """A part has its own session, its own environment, private files and default signals."""
    script = """
# Python sets LC_CTYPE where no locale is given (PEP 538).
env = sorted(set(os.environ) - {"LC_CTYPE"})
print("session", os.getsid(0) == os.getpid(), "env", env, "stdin", os.read(0, 1))
open(f"{here}/made", "w").close()
"""
    env = {"ONLY": "this"}
    asyncio.run(stage.supervisor(stage.spec("a", script, env=env)).run())

    assert f"session True env {sorted(env)} stdin b''" in stage.read("a.log")
    assert (stage.folder / "made").stat().st_mode & 0o777 == 0o600


def test_default_signals(stage: ServiceStage) -> None:
    """No signal is ignored in a part because Python ignores it."""
    spec = stage.spec("a", argv=("/bin/grep", "SigIgn", "/proc/self/status"))
    asyncio.run(stage.supervisor(spec).run())

    ignored = int(stage.read("a.log")[0].split()[1], 16)
    # Beyond 31 are the C library's own, which a shell may hand down and nobody can set.
    assert ignored & 0x7FFF_FFFF == 0


def test_echo(stage: ServiceStage) -> None:
    """Lines of a part that echoes stand behind its name, as it wants them shown."""
    script = "print('one\\ntwo', flush=True); up(); rest()"

    async def play() -> None:
        services = stage.spec("long", script, echo=str.upper), stage.spec("b", script)
        async with stage.playing(*services):
            await until(lambda: stage.said("b     ready"))

    asyncio.run(play())

    assert [line for line in stage.lines if "|" in line] == ["long | ONE", "long | TWO"]
    assert stage.read("long.log") == stage.read("b.log") == ["one", "two"]
