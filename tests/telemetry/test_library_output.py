"""What Python and libraries would print becomes events."""

import asyncio
import contextlib
import gc
import io
import json
import logging
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator

import pytest

from authz.telemetry.audit import EventLog
from authz.telemetry.library_output import LibraryOutput, capture_library_output
from authz.telemetry.metrics import Metrics
from authz.telemetry.recorder import Recorder

SECRET = "t0k3n-of-somebody"


@contextlib.contextmanager
def captured(recorder: Recorder) -> Iterator[LibraryOutput]:
    """Record what libraries would print as long as the block lasts."""
    raising, root = logging.raiseExceptions, logging.getLogger()
    before = warnings.showwarning, sys.excepthook, threading.excepthook, sys.unraisablehook
    output = capture_library_output(recorder)
    try:
        yield output
    finally:
        root.removeHandler(output)
        logging.raiseExceptions = raising
        (
            warnings.showwarning, sys.excepthook, threading.excepthook, sys.unraisablehook,
        ) = before  # fmt: skip


class Heard:
    """Hold what was captured.

    Attributes:
        output: what captures.
    """

    def __init__(self, output: LibraryOutput, stream: io.StringIO) -> None:
        self.output, self._stream = output, stream

    @property
    def events(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self._stream.getvalue().splitlines()]


@pytest.fixture
def heard() -> Iterator[Heard]:
    gc.collect()  # what tests before left behind is not ours
    stream = io.StringIO()
    with captured(Recorder(Metrics(), EventLog("json", stream))) as output:
        yield Heard(output, stream)


def fail() -> None:
    raise RuntimeError(SECRET)


def test_an_exception_that_nobody_awaits_is_one_event(
    heard: Heard, capfd: pytest.CaptureFixture[str]
) -> None:
    """Asyncio's own text, with the exception's words in it, is not printed."""

    async def forgotten() -> None:
        asyncio.get_running_loop().call_soon(fail)
        task = asyncio.ensure_future(asyncio.to_thread(fail))
        await asyncio.wait({task})
        del task
        gc.collect()

    asyncio.run(forgotten())

    assert {(each["origin"], each["label"]) for each in heard.events} == {("logging", "asyncio")}
    assert {each["error"] for each in heard.events} == {"RuntimeError"}
    assert all("test_library_output.py" in str(each["where"]) for each in heard.events)
    assert SECRET not in json.dumps(heard.events)
    assert capfd.readouterr() == ("", "")


class Broken:
    """Raise when it is collected."""

    def __del__(self) -> None:
        fail()


@pytest.mark.filterwarnings("always", "ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_every_way_that_python_prints_is_an_event(
    heard: Heard, capfd: pytest.CaptureFixture[str]
) -> None:
    """Warnings, threads, finalisers, libraries' loggers and the main thread's last exception."""
    warnings.showwarning(SECRET, DeprecationWarning, "/lib/x.py", 7)
    sys.unraisablehook(unraisable())
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    logging.getLogger("some.library").warning("of %s", SECRET)
    logging.getLogger("some.library").info("not %s", SECRET)
    try:
        fail()
    except RuntimeError as error:
        sys.excepthook(type(error), error, error.__traceback__)

    assert [(each["event"], each["origin"], each["label"]) for each in heard.events] == [
        ("library", "warnings", "DeprecationWarning"),
        ("library", "finaliser", "RuntimeError"),
        ("library", "thread", "RuntimeError"),
        ("library", "logging", "some.library"),
        ("library", "main", "RuntimeError"),
    ]
    assert SECRET not in json.dumps(heard.events)
    assert capfd.readouterr() == ("", "")


def unraisable() -> "sys.UnraisableHookArgs":
    """Return what Python gives the hook of an object that raises when it is collected."""
    found = list["sys.UnraisableHookArgs"]()
    hook, sys.unraisablehook = sys.unraisablehook, found.append
    try:
        Broken()
        gc.collect()
    finally:
        sys.unraisablehook = hook
    return found[0]


def test_a_flood_is_bounded_and_counted() -> None:
    """Of one place one a minute, of all places thirty; then how many were left out."""
    stream, now = io.StringIO(), [0.0]
    output = LibraryOutput(Recorder(Metrics(), EventLog("json", stream)), lambda: now[0])
    for line in range(1000):
        for _ in range(3):
            output.warning("", UserWarning, "x.py", line)
    first = stream.getvalue().splitlines()
    now[0] = 61.0
    output.warning("", UserWarning, "x.py", 0)
    output.warning("", UserWarning, "x.py", 999)
    *_, known, new = map(json.loads, stream.getvalue().splitlines())

    assert len(first) == 30
    assert (known["place"], known["left_out"]) == ("x.py:0", 2)
    assert (new["place"], new["left_out"]) == ("x.py:999", 970 * 3)


def test_a_thread_may_write_while_the_loop_does(tmp_path_factory: pytest.TempPathFactory) -> None:
    """No line is lost or cut where a library speaks in a thread of its own."""
    path = tmp_path_factory.mktemp("log") / "log"
    with path.open("w") as stream:
        log = EventLog("json", stream)

        async def both() -> None:
            def speak() -> None:
                for _ in range(2000):
                    log.write({"event": "b"})

            other = asyncio.ensure_future(asyncio.to_thread(speak))
            while not other.done():
                log.write({"event": "a"})
                log.write({"event": "a"})
                await asyncio.sleep(0)
            await other

        asyncio.run(both())
        log.flush()
    events = [json.loads(line)["event"] for line in path.read_text().splitlines()]

    assert events.count("b") == 2000
    assert log.lost == 0


def test_grpc_writes_nothing_to_stderr() -> None:
    """Its C core writes to the descriptor itself, past Python; what failed is an exception."""
    program = (
        "from authz.telemetry.library_output import silence_grpc; silence_grpc();"
        "import grpc; from concurrent.futures import ThreadPoolExecutor as P\n"
        "try: grpc.server(P(1)).add_insecure_port('unix:/nonexistent/x')\n"
        "except RuntimeError: print('raised')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )

    assert (done.stdout, done.stderr) == ("raised\n", "")
