"""The log: one line for every decision and event, as JSON or as text for a terminal.

Invariant: a line holds no token, secret, query, tool argument or body; a value that a caller chose
is cut to a bounded length and escaped, so that it never makes a second line
(tests/telemetry/test_audit.py).
"""

import asyncio
import atexit
import json
import os
import re
import stat
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Final, TextIO

from authz.core.approval import Approval
from authz.core.decision import Allow, Decision
from authz.core.identity_cache import IdentityCache
from authz.core.ledger import Mode
from authz.core.mcp import Message
from authz.core.policy import Server
from authz.core.principal import Principal
from authz.core.request import HttpRequest
from authz.core.resource_uris import is_strict_uri

_MAX_VALUE: Final = 256  # characters
# PIPE_BUF of pipe(7): workers share a pipe, and a longer line could have another worker's inside.
_MAX_WRITE: Final = 4096
_SHORT_VALUE: Final = 40  # characters of each value, where a line would be longer than that
_COLOURS: Final = {"allow": "\x1b[32m", "deny": "\x1b[33m"}
_PLAIN: Final = "\x1b[0m"
_WORD: Final = re.compile(r"[A-Za-z0-9._:/@*+-]+")

Record = Mapping[str, object]


# Names and values; empty values are left out.
_Fields = tuple[tuple[str, str], ...]


def describe(
    decision: Decision, request: HttpRequest | None, seconds: float, trace_id: str = ""
) -> dict[str, object]:
    """Return the fields of a decision's log line, without those that are not known."""
    record: dict[str, object] = {"event": "decision"}
    request_fields = _request_fields(decision, request)
    for fields in (_verdict(decision), request_fields, _principal_fields(decision.principal)):
        record |= {name: value[:_MAX_VALUE] for name, value in fields if value}
    record["ms"] = round(seconds * 1000, 3)
    if trace_id:
        record["trace_id"] = trace_id
    return record


def as_line(
    decision: Decision,
    request: HttpRequest | None,
    seconds: float,
    now: float,
    *,
    cache: IdentityCache | None = None,
    trace_id: str = "",
) -> str:
    """Return the JSON of what `describe` returns; its recurring parts are cached."""
    if (
        isinstance(decision, Allow)
        and decision.approval is None
        and not any(quota.exceeded or quota.is_near for quota in decision.quotas)
    ):
        verdict = _ALLOWED[decision.mode]
    else:
        verdict = _joined(_verdict(decision))
    principal = decision.principal
    what = _joined(_request_fields(decision, request))
    who = _joined_principal(principal) if cache is None else cache.get(_joined_principal, principal)
    time, ms = _three_decimals(now), _three_decimals(seconds * 1000)
    trace = f',"trace_id":"{trace_id}"' if trace_id else ""
    return f'{{"time":{time},"event":"decision"{verdict}{what}{who},"ms":{ms}{trace}}}'


def _three_decimals(number: float) -> str:
    """Format a number that is not negative; `repr` of a float costs three times as much."""
    thousandths = int(number * 1000 + 0.5)
    return f"{thousandths // 1000}.{str(1000 + thousandths % 1000)[1:]}"


def _verdict(decision: Decision) -> _Fields:
    if isinstance(decision, Allow):
        shadow = dict.fromkeys([each.limit.name for each in decision.quotas if each.exceeded])
        near = dict.fromkeys([each.limit.name for each in decision.quotas if each.is_near])
        return (
            *_allowed(decision.mode),
            ("approval", _approval(decision.approval)),
            ("shadow", ", ".join(shadow)),
            ("near", ", ".join(near)),
        )
    return ("verdict", "deny"), ("reason", decision.reason.label), ("detail", decision.detail)


def _approval(approval: Approval | None) -> str:
    """Return which approval a call needed and had; empty for none."""
    if approval is None:
        return ""
    return "each_call" if approval.each_call else "for_a_time"


def _allowed(mode: Mode) -> _Fields:
    return ("verdict", "allow"), ("reason", "allowed"), ("limiter", mode.value)


def _request_fields(decision: Decision, request: HttpRequest | None) -> _Fields:
    message, server = decision.message, decision.server
    return (
        ("request_id", "" if request is None else request.request_id),
        ("http_method", "" if request is None else request.method),
        ("address", "" if request is None else request.address),
        ("server", "" if server is None else server.name),
        ("mcp_method", "" if message is None else message.method),
        ("tool", "" if message is None else message.tool or ""),
        *named_fields(server, message),
    )


def named_fields(server: Server | None, message: Message | None) -> _Fields:
    """Return the prompt or resource, where those of its kind have rules.

    A URI in another spelling may hold a password, and the query of any may; neither is told.
    """
    if server is None or message is None or not server.names_operations:
        return ()
    if server.prompts and message.prompt:
        return (("prompt", message.prompt),)
    uri = message.resource if server.resources else None
    return (("resource", uri.partition("?")[0]),) if uri and is_strict_uri(uri) else ()


def _principal_fields(principal: Principal | None) -> _Fields:
    if principal is None:
        return ()
    return (
        ("issuer", principal.issuer),
        ("subject", principal.subject or ""),
        ("client_id", principal.client_id),
        ("grant", "" if principal.login is None else principal.login.grant),
    )


def _joined(fields: _Fields) -> str:
    """Return fields as members of a JSON object, each behind a comma."""
    return "".join([f',"{name}":{_escaped(value[:_MAX_VALUE])}' for name, value in fields if value])


def _joined_principal(principal: Principal | None) -> str:
    return _joined(_principal_fields(principal))


def as_json(record: Record, now: float) -> str:
    """Return one line of JSON, in which every control and non-ASCII character is escaped."""
    return _ENCODE({"time": round(now, 3), **record})


# json.dumps would make an encoder for every line.
_ENCODE: Final = json.JSONEncoder(separators=(",", ":")).encode
# As that encoder does for a string: printable ASCII only.
_escaped: Final = json.encoder.encode_basestring_ascii
_ALLOWED: Final = {mode: _joined(_allowed(mode)) for mode in Mode}


def as_colour(record: Record, now: float) -> str:
    """Return one readable line for a terminal, with allow and deny in different colours."""
    return as_text(record, now, _COLOURS)


def as_text(record: Record, now: float, colours: Mapping[str, str] = MappingProxyType({})) -> str:
    """Return one readable line."""
    clock = time.strftime("%H:%M:%S", time.localtime(now))
    verdict = str(record.get("verdict", record.get("event", "")))
    colour = colours.get(verdict, "")
    shown = " ".join(
        f"{name}={_quoted(value)}"
        for name, value in record.items()
        if name not in {"event", "verdict"}
    )
    return f"{clock} {colour}{verdict:5}{_PLAIN if colour else ''} {shown}"


def _quoted(value: object) -> str:
    """Return a value as one word, or in quotes, so that no value can add a field to a line."""
    text = str(value)
    return text if _WORD.fullmatch(text) else json.dumps(text)


class EventLog:
    """Write records to a stream, one line each, without waiting for its reader.

    Attributes:
        lost: lines that were not written, because the reader of a pipe has stopped reading or
            the stream is closed.
    """

    def __init__(
        self,
        form: str = "auto",
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Choose the format: `json`, `text`, or `auto` (text where the stream is a terminal)."""
        self._stream = sys.stdout if stream is None else stream
        terminal = self._stream.isatty()
        text = as_colour if terminal else as_text
        self._format = text if form == "text" or (form == "auto" and terminal) else as_json
        self._clock = clock
        self._descriptor = _descriptor(self._stream)
        # Another thread may write, too (`library_output`): what is appended is never swapped away.
        self._pending: deque[bytes] = deque()
        self._flushing = threading.Lock()
        self._unwritten = b""
        self.lost = 0
        self._copy: Callable[[str], None] | None = None
        # A process that ends before it serves has logged the reason.
        atexit.register(self.flush)

    def copy_to(self, copy: Callable[[str], None] | None) -> None:
        """Pass each line on as JSON from now on, too; what is told returns at once."""
        self._copy = copy

    def write(self, record: Record) -> None:
        """Write one record; where that is not possible at once, the line is lost.

        In an event loop it is written at the end of the turn, with the others of that turn: each
        system call releases the GIL, which a thread of Envoy waits for.
        """
        self._write(record, self._clock())

    def decision(
        self,
        decision: Decision,
        request: HttpRequest | None,
        seconds: float,
        cache: IdentityCache | None = None,
        *,
        trace_id: str = "",
    ) -> None:
        """Write the line of a decision, as `write` does.

        Args:
            decision: what was decided.
            request: what was asked; None where it could not be decoded.
            seconds: how long that took.
            cache: that of its policy.
            trace_id: 32 hex digits; empty where nothing is traced.
        """
        now = self._clock()
        if self._format is as_json:
            line = as_line(decision, request, seconds, now, cache=cache, trace_id=trace_id) + "\n"
            if len(line) <= _MAX_WRITE:
                if self._copy is not None:
                    self._copy(line)
                self._put(line)
                return
        self._write(describe(decision, request, seconds, trace_id), now)

    def _write(self, record: Record, now: float) -> None:
        line = self._format(record, now) + "\n"
        if len(line) > _MAX_WRITE:
            record = _shortened(record)
            line = self._format(record, now) + "\n"
        if self._copy is not None:
            self._copy(line if self._format is as_json else as_json(record, now))
        self._put(line)

    def _put(self, line: str) -> None:
        if self._descriptor is None:
            self._print(line)
            return
        self._pending.append(line.encode("ascii"))
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.flush()
            return
        if len(self._pending) == 1:
            loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write the lines that wait for the end of the turn."""
        if self._descriptor is None:
            return
        with self._flushing:
            pending = [self._pending.popleft() for _ in range(len(self._pending))]
            for lines in _writes(pending):
                try:
                    self._push(self._descriptor, b"".join(lines), len(lines))
                except (OSError, ValueError):  # BlockingIOError is an OSError
                    self.lost += len(lines)

    def _print(self, line: str) -> None:
        try:
            self._stream.write(line)
            self._stream.flush()
        except (OSError, ValueError):
            self.lost += 1

    def _push(self, descriptor: int, text: bytes, lines: int) -> None:
        """Write to a descriptor that does not block; the rest of a line that was cut goes first."""
        if self._unwritten:
            self._unwritten = self._unwritten[os.write(descriptor, self._unwritten) :]
        if self._unwritten:
            self.lost += lines
            return
        self._unwritten = text[os.write(descriptor, text) :]


def _writes(lines: list[bytes]) -> Iterator[list[bytes]]:
    """Group lines by write: as many as a pipe takes atomically."""
    group, length = list[bytes](), 0
    for line in lines:
        if group and length + len(line) > _MAX_WRITE:
            yield group
            group, length = [], 0
        group.append(line)
        length += len(line)
    if group:
        yield group


def _shortened(record: Record) -> Record:
    """Cut values once more, so that the line is short even with escapes."""
    return {
        name: value[:_SHORT_VALUE] if isinstance(value, str) else value
        for name, value in record.items()
    }


def _descriptor(stream: TextIO) -> int | None:
    """Return the descriptor of a file, or of a pipe or socket made non-blocking; else None.

    A file does not block, and a terminal's descriptor is shared with the shell.
    """
    try:
        stream.flush()
        descriptor = stream.fileno()
        mode = os.fstat(descriptor).st_mode
    except (OSError, ValueError):
        return None
    if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
        os.set_blocking(descriptor, False)
    elif not stat.S_ISREG(mode):
        return None
    return descriptor
