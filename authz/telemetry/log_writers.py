"""Whose lines of a log count: those that a collector says are of authz, its pages or Envoy.

An MCP server prints what it likes, whole lines of ours too. `docker compose logs` and others put in
front of each line which service wrote it, which a server cannot choose.

Invariant: a line that the outermost collector says is another's counts as nothing, whatever stands
in it (tests/telemetry/test_log_writers.py). What no collector names is believed as whoever hands it
over says; `unnamed` tells that there was such a line.
"""

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from authz.telemetry.log_reader import LineKind, LoggedLine

AUTHZ: Final = frozenset({"authz", "authz-2", "authz-pages"})
ENVOY: Final = frozenset({"envoy"})
_MOST: Final = 8  # foreign services that are named
# Containers are numbered: authz-1, authz_1.
_NUMBERED: Final = re.compile(r"(.+?)[-_]\d{1,4}\Z")


@dataclass(slots=True)
class LineTrust:
    """Judge whose lines are taken, and remember what was not.

    Attributes:
        services: whose lines are taken besides.
        foreign: how many lines of ours other services have written.
        unnamed: whether a line was taken that no collector says the writer of.
    """

    services: frozenset[str] = frozenset()
    foreign: Counter[str] = field(default_factory=Counter[str])
    unnamed: bool = False

    def takes(self, line: LoggedLine) -> bool:
        """Tell whether a line counts; what is about no request is nobody's."""
        if line.writer is None:
            self.unnamed = True
            return True
        ours = self.services | (ENVOY if line.kind is LineKind.ACCESS else AUTHZ)
        if not _names(line.writer).isdisjoint(ours):
            return True
        if line.kind is not None and (line.writer in self.foreign or len(self.foreign) < _MOST):
            self.foreign[line.writer] += 1
        return False


def _names(writer: str) -> frozenset[str]:
    """Return what a service may be called: as it is, and without the number of its container."""
    numbered = _NUMBERED.match(writer)
    return frozenset({writer} if numbered is None else {writer, numbered[1]})
