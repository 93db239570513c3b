"""Turn what Python and libraries would print into events: one line each, bounded in number.

Covers logging of libraries (asyncio's "exception was never retrieved" among it), warnings,
exceptions that nobody caught in a thread, a finaliser or the main thread. Messages are left out,
since they may quote what a caller sent; the place in the library's source names the text.

Invariant: of one place there is one event a minute at most, with the number of what was left out
(tests/telemetry/test_library_output.py).
"""

import contextlib
import logging
import os
import sys
import threading
import time
import warnings
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Final, TextIO

from authz.telemetry.recorder import Recorder, places

_PERIOD: Final = 60.0  # seconds
_PLACES: Final = 256  # that are remembered
_LONGEST_NAME: Final = 64
# Of all places together in a period: a library may have many.
_AT_ONCE: Final = 30
# gRPC's C core writes to the descriptor of stderr itself (grpc, doc/environment_variables.md).
# What matters comes back as an exception.
_GRPC: Final = {"GRPC_VERBOSITY": "NONE", "GLOG_minloglevel": "3"}


@dataclass(slots=True)
class _Place:
    until: float
    left_out: int = 0


class LibraryOutput(logging.Handler):
    """Record what libraries say."""

    def __init__(self, recorder: Recorder, clock: Callable[[], float] = time.monotonic) -> None:
        """Take what records, and seconds that never go back."""
        super().__init__(logging.WARNING)
        self._recorder = recorder
        self._clock = clock
        self._places: OrderedDict[str, _Place] = OrderedDict()
        self._period_ends = 0.0
        self._in_period = 0
        self._left_out = 0  # of places that were not recorded at all

    def emit(self, record: logging.LogRecord) -> None:
        """Record one call of a library's logger; raise nothing."""
        error = record.exc_info[1] if record.exc_info else None
        place = f"{record.filename}:{record.lineno}"
        self._record("logging", record.name, record.levelname.lower(), place, error)

    def warning(  # noqa: PLR0917 - the signature of warnings.showwarning
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        """Record a warning (`warnings.showwarning`)."""
        del message, file, line
        place = f"{filename.rpartition('/')[2]}:{lineno}"
        self._record("warnings", category.__name__, "warning", place, None)

    def uncaught(
        self, kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        """Record what ends the program (`sys.excepthook`)."""
        del trace
        if not issubclass(kind, KeyboardInterrupt):
            self._record("main", kind.__name__, "error", _raised_at(error), error)

    def in_thread(self, found: threading.ExceptHookArgs) -> None:
        """Record what ends a thread (`threading.excepthook`)."""
        if found.exc_value is not None and not isinstance(found.exc_value, SystemExit):
            name = found.exc_type.__name__
            self._record("thread", name, "error", _raised_at(found.exc_value), found.exc_value)

    def unraisable(self, found: "sys.UnraisableHookArgs") -> None:
        """Record what a finaliser raised (`sys.unraisablehook`)."""
        error = found.exc_value
        place = "?" if error is None else _raised_at(error)
        self._record("finaliser", found.exc_type.__name__, "error", place, error)

    def _record(
        self, origin: str, name: str, level: str, place: str, error: BaseException | None
    ) -> None:
        with contextlib.suppress(Exception):  # an event that cannot be written is no defect
            # The handler's own lock: threads come here, too.
            with self.lock or contextlib.nullcontext():
                left_out = self._admit(f"{origin} {name} {place}")
                if left_out is None:
                    return
            fields: dict[str, object] = {
                "origin": origin,
                "label": name[:_LONGEST_NAME],
                "level": level,
                "place": place[-_LONGEST_NAME:],
            }
            if error is not None:
                fields |= {"error": type(error).__name__, "where": places(error)}
            if left_out:
                fields["left_out"] = left_out
            self._recorder.event("library", **fields)

    def _admit(self, key: str) -> int | None:
        """Return how many events were left out before this one; None where this one is."""
        now = self._clock()
        if now >= self._period_ends:
            self._period_ends, self._in_period = now + _PERIOD, 0
        place = self._places.get(key)
        if (place is not None and now < place.until) or self._in_period >= _AT_ONCE:
            if place is None:
                self._left_out += 1
            else:
                place.left_out += 1
            return None
        self._in_period += 1
        left_out = self._left_out if place is None else place.left_out
        if place is None:
            self._left_out = 0
        self._places[key] = _Place(now + _PERIOD)
        self._places.move_to_end(key)
        if len(self._places) > _PLACES:
            self._places.popitem(last=False)
        return left_out


def _raised_at(error: BaseException) -> str:
    return next(reversed(places(error)), "?")


def silence_grpc() -> None:
    """Keep gRPC's C core from writing to stderr, unless the environment says how much it may.

    Has to be called before grpc is imported.
    """
    for name, value in _GRPC.items():
        os.environ.setdefault(name, value)


def capture_library_output(recorder: Recorder) -> LibraryOutput:
    """Record from now on, for the life of this process, what libraries would print."""
    output = LibraryOutput(recorder)
    silence_grpc()
    logging.raiseExceptions = False
    root = logging.getLogger()
    for handler in [each for each in root.handlers if isinstance(each, LibraryOutput)]:
        root.removeHandler(handler)
    root.addHandler(output)
    warnings.showwarning = output.warning
    sys.excepthook = output.uncaught
    threading.excepthook = output.in_thread
    sys.unraisablehook = output.unraisable
    return output
