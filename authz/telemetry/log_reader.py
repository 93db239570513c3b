"""Read log lines back: as written, or with what Docker, journald or Kubernetes put around them.

Invariant: only a whole line is a record. Text inside a line is none, however it looks, so that what
a caller chose never becomes one; what a collector put in front has one of a few known forms
(tests/telemetry/test_log_reader.py).
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import BinaryIO, Final

from authz.core.strict_json import StrictJsonError, loads
from authz.telemetry.audit import Record

MAX_LINE: Final = 64 * 1024
_MAX_PREFIX: Final = 512  # bytes
_MAX_LAYERS: Final = 4  # a unit that runs `docker compose up` has two
_MAX_STEPS: Final = 32  # of one request

_TIME: Final = rb"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)? "
_SYSLOG_TIME: Final = rb"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d(?:\.\d+)? "
_COLOUR: Final = re.compile(rb"\x1b\[[0-9;]*m")
# The units and programs under which a journal has the output of `docker compose up`.
_DOCKER: Final = re.compile(r"(?:docker|dockerd|docker-compose|compose|podman-compose)\Z")
_INTERPRETER: Final = re.compile(r"(?:python|uvicorn)[\d.]*\Z")  # names no service
_LABEL: Final = re.compile(
    r'\b(?:compose_service|container|container_name|service|service_name|app|unit)="([^"]*)"'
)


def _unnamed(_: str) -> str | None:
    return None


def _of_compose(source: str) -> str | None:
    name = source.strip("[]").partition("@")[0]
    # Of a swarm's task, STACK_SERVICE.NUMBER.ID.
    task = re.fullmatch(r"(?:[\w-]*_)?([\w-]+)\.\d+\.\w+", name)
    return name if task is None else task[1]


def _of_journal(source: str) -> str | None:
    name = source.rpartition(" ")[2].partition("[")[0].removesuffix(".service")
    return None if _INTERPRETER.match(name) else name


def _of_labels(source: str) -> str | None:
    found = _LABEL.search(source)
    return None if found is None else found[1].removesuffix(".service")


def _last(source: str) -> str | None:
    return re.split(r"[/ ]", source)[-1]


# What stands before a line, by who writes it there; `source` is what it says of where the line
# comes from, and the function which service that is.
_PREFIXES: Final[tuple[tuple[re.Pattern[bytes], Callable[[str], str | None]], ...]] = tuple(
    (re.compile(form), writer)
    for form, writer in (
        # docker compose logs [--timestamps], docker service logs
        (rb"(?P<source>[A-Za-z0-9][\w.@-]*|\[[\w.-]+\]) *\| (?:" + _TIME + rb")?", _of_compose),
        # CRI: the kubelet's files
        (_TIME + rb"(?P<source>stdout|stderr) [FP](?::[^ ]*)? ", _unnamed),
        # journalctl -o short, short-iso, with-unit, short-unix, short-monotonic, short-delta;
        # syslog (RFC 3164). A time as programs write it themselves is none of these.
        (rb"(?:(?:<\d{1,3}>)?" + _SYSLOG_TIME + rb"|[A-Z][a-z]{2} " + _TIME + rb"(?:[A-Z]{3,5} )?"
        + rb"|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?[+-]\d\d:?\d\d |\d{9,11}\.\d{6} "
        + rb"|\[ *\d+\.\d{6}(?: +| <[ .\d]+>)?\] )(?P<source>\S+ [\w@.:/\\-]+(?:\[\d+\])?): ",
         _of_journal),
        # journalctl --no-hostname
        (_SYSLOG_TIME + rb"(?P<source>[\w@.:/\\-]+\[\d+\]): ", _of_journal),
        # journalctl -o verbose, export
        (rb"(?P<source>)MESSAGE=", _unnamed),
        # kubectl logs --prefix [--timestamps]
        (rb"\[(?P<source>[\w./-]+)\] (?:" + _TIME + rb")?", _last),
        # logcli: time, labels
        (_TIME + rb"(?P<source>\{[^{}]*\}) ", _of_labels),
        # stern: pod, container; looked for ahead, or a line of dashes would take quadratic time
        (rb"(?P<source>(?=[a-z0-9.]+-[a-z0-9])[a-z0-9.-]+ [a-z0-9.-]+) ", _last),
        # docker logs --timestamps, kubectl logs --timestamps
        (_TIME + rb"(?P<source>)", _unnamed),
    )
)  # fmt: skip
# The member of a collector's own JSON object that holds the line, by another member that no line
# of ours has; and the member that says where the line comes from.
_ENVELOPES: Final = (
    ("stream", "log", ""),  # Docker's json-file driver
    ("__REALTIME_TIMESTAMP", "MESSAGE", "_SYSTEMD_UNIT"),  # journalctl -o json
    ("podName", "message", "podName"),  # stern -o json
    ("kubernetes", "log", ""),  # Fluent Bit
)


class LineKind(Enum):
    """Tell the lines apart that are about one request."""

    DECISION = "decision"
    ACCESS = "access"
    PAGE = "page"
    LOG_IN = "log_in"
    CRASH = "crash"
    LIST_NOT_SHOWN = "list_not_shown"


@dataclass(frozen=True, slots=True)
class LoggedLine:
    """One line of a log.

    Attributes:
        record: its fields.
        source: what a collector says of where it comes from; empty where nothing does.
        kind: None for what is about no request.
        writer: the service that wrote it, as the outermost collector says; None where it does not.
            What stands further in is of the writer's own choice.
    """

    record: Record
    source: str
    kind: LineKind | None
    writer: str | None = None


@dataclass(frozen=True, slots=True)
class RequestLines:
    """What a log says of one request.

    Attributes:
        decision, access, page, crash, not_shown: the last line of each kind; None without one.
        steps: of its log-in.
    """

    decision: LoggedLine | None = None
    access: LoggedLine | None = None
    page: LoggedLine | None = None
    crash: LoggedLine | None = None
    not_shown: LoggedLine | None = None
    steps: tuple[LoggedLine, ...] = ()


def bounded_lines(stream: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of a stream; what is longer than any of ours is left out."""
    whole = True
    while piece := stream.readline(MAX_LINE):
        ended = piece.endswith(b"\n")
        if whole and (ended or len(piece) < MAX_LINE):
            yield piece
        whole = ended


def read_line(line: bytes) -> LoggedLine:
    """Return one line of a log, without what stands around it.

    Raises:
        ValueError: where it is none.
    """
    if len(line) > MAX_LINE:
        raise ValueError("the line is longer than any of the log")
    text, sources, writer, is_outermost = line.strip(), list[str](), None, True
    for _ in range(_MAX_LAYERS):
        text = text.strip()
        if text.startswith(b"{"):
            record = _object(text)
            envelope = _opened(record)
            if envelope is None:
                source = " ".join(filter(None, sources))
                return LoggedLine(record, source, _kind(record), writer)
            text, source, said = envelope
        else:
            text, source, said = _without_prefix(text)
        if is_outermost:
            # A unit that runs `docker compose up` is no writer; whatever it prints has one.
            is_outermost = said is not None and _DOCKER.match(said) is not None
            writer = said
        sources.append(source)
    raise ValueError(_NO_LINE)


_UNREAD: Final = (
    ". The id stands in a line that cannot be read: take journalctl -o cat (-o json leaves out what"
    " is longer than 4,096 bytes, but with --all), docker logs without --details"
)
_NO_LINE: Final = (
    "that is not a line of JSON, alone or behind what Docker, journald or Kubernetes put before it;"
    " set telemetry.log to json"
)


def _object(text: bytes) -> Record:
    try:
        record = loads(text)
    except StrictJsonError as error:
        raise ValueError(_NO_LINE) from error
    if isinstance(record, dict):
        return record
    raise ValueError(_NO_LINE)


def _opened(record: Record) -> tuple[bytes, str, str | None] | None:
    """Return the line within a collector's object, its source and writer; None for a line."""
    for mark, member, source in _ENVELOPES:
        text = record.get(member)
        if mark in record and "event" not in record and isinstance(text, str):
            writer = _writer_of(record)
            return text.encode("utf-8", "replace"), str(record.get(source, "")), writer
    return None


def _writer_of(record: Record) -> str | None:
    """Return which service a collector's object says wrote its line."""
    pod = record.get("kubernetes")
    named = [
        *(record.get(each) for each in ("CONTAINER_NAME", "containerName")),
        pod.get("container_name") if isinstance(pod, dict) else None,
    ]
    container = next((each for each in named if isinstance(each, str)), None)
    unit = record.get("_SYSTEMD_UNIT")
    if container is None and isinstance(unit, str):
        return _of_journal(unit)
    return container


def _without_prefix(text: bytes) -> tuple[bytes, str, str | None]:
    head = _COLOUR.sub(b"", text[:_MAX_PREFIX])
    for form, writer in _PREFIXES:
        found = form.match(head)
        if found is not None and found.end() > 0:
            rest = head[found.end() :] + text[_MAX_PREFIX:]
            source = found["source"].decode("utf-8", "replace")
            return rest, source, writer(source)
    raise ValueError(_NO_LINE)


def _kind(record: Record) -> LineKind | None:
    event = record.get("event")
    if event is None and {"details", "flags", "status"} <= record.keys():
        return LineKind.ACCESS
    return next((kind for kind in LineKind if kind.value == event), None)


def read_request_line(line: bytes) -> LoggedLine:
    """Return one line that is about a request: a decision, of the pages, or Envoy's access log.

    Raises:
        ValueError: where it is none.
    """
    if not line.strip():
        raise ValueError("there is no line on standard input: tail -1 LOG | authz explain --line")
    found = read_line(line)
    if found.kind is None:
        raise ValueError("that is not a decision, nor another line about a request")
    return found


def find_request(
    lines: Iterable[bytes],
    request_id: str,
    takes: Callable[[LoggedLine], bool] = lambda _: True,
) -> RequestLines:
    """Return what a log says of a request.

    Args:
        lines: of logs.
        request_id: of the request.
        takes: tells whether a line counts (`log_writers.LineTrust`).

    Raises:
        ValueError: where there is nothing.
    """
    last, steps, is_unread = dict[LineKind, LoggedLine](), list[LoggedLine](), False
    for line in lines:
        # Cheaper than parsing: a log has many lines.
        if not request_id or request_id.encode() not in line:
            continue
        try:
            found = read_line(line)
        except ValueError:
            is_unread = True
            continue
        if found.kind is None or found.record.get("request_id") != request_id:
            continue
        if not takes(found):
            continue
        if found.kind is LineKind.LOG_IN:
            steps = [*steps[1 - _MAX_STEPS :], found]
        last[found.kind] = found
    if not last:
        raise ValueError(
            "the log has no line about that request. The logs of authz serve, authz pages and"
            " Envoy each have their own: give them all (docker compose logs), or with --log once"
            " for each file" + (_UNREAD if is_unread else "")
        )
    return _request_lines(last, tuple(steps))


def lines_of(line: LoggedLine) -> RequestLines:
    """Return what one line says, as `find_request` returns what several do."""
    last = {} if line.kind is None else {line.kind: line}
    return _request_lines(last, (line,) if line.kind is LineKind.LOG_IN else ())


def _request_lines(
    last: Mapping[LineKind, LoggedLine], steps: tuple[LoggedLine, ...]
) -> RequestLines:
    return RequestLines(
        last.get(LineKind.DECISION),
        last.get(LineKind.ACCESS),
        last.get(LineKind.PAGE),
        last.get(LineKind.CRASH),
        last.get(LineKind.LIST_NOT_SHOWN),
        steps,
    )
