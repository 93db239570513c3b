"""Read the events of log-ins out of log lines: of authz, its pages, and Envoy's access log."""

import re
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import Final

from authz.core.limits import network
from authz.telemetry.audit import Record
from authz.telemetry.log_reader import LineKind, LoggedLine

OK: Final = "ok"
_LONGEST: Final = 256  # characters of a value
# What authz and Envoy name things by that nobody else names: digests, grants, requests. In other
# lines of a log anything may stand there, which would be printed, and copied into a shell.
_ID: Final = re.compile(r"[0-9A-Za-z._-]{1,128}")
# Reasons of refusals that send a client to log in (RFC 6750, section 3.1).
_CHALLENGES: Final = frozenset(
    {"token_missing", "token_expired", "token_invalid", "log_in_unknown"}
)
_NO_DOCUMENT: Final = "no-document"
_DOCUMENTS: Final = ("metadata:", "server-metadata", _NO_DOCUMENT)


class Stage(IntEnum):
    """Name the stages of a connection, in their order."""

    CHALLENGE = 1
    DOCUMENT = 2
    REGISTER = 3
    CLIENT_DOCUMENT = 4  # that the client's id is the URL of
    AUTHORIZE = 5
    CONSENT = 6
    CALLBACK = 7
    TOKEN = 8
    CALL = 9
    REFRESH = 10


_STEPS: Final = {
    "register": Stage.REGISTER,
    "client_document": Stage.CLIENT_DOCUMENT,
    "authorize": Stage.AUTHORIZE,
    "consent": Stage.CONSENT,
    "callback": Stage.CALLBACK,
    "token": Stage.TOKEN,
    "refresh": Stage.REFRESH,
}


@dataclass(frozen=True, slots=True)
class ConnectionEvent:
    """One event of a connection.

    Attributes:
        time: seconds since the epoch.
        stage: which.
        outcome: `ok`, or an error code or reason; text of ours, or of who wrote the log.
        network: an address, of IPv6 the /64.
        client: the client's name, as rules have it.
        client_key, attempt: digests of the client's id and of its authorization request.
        grant: of the log-in, from the person's consent on.
        server: its name.
        subject: the person, where a decision names one.
        detail: more words of the log.
        request_id: of the request.
        is_page: whether a person saw an error page.
    """

    time: float
    stage: Stage
    outcome: str
    network: str = ""
    client: str = ""
    client_key: str = ""
    attempt: str = ""
    grant: str = ""
    server: str = ""
    subject: str = ""
    detail: str = ""
    request_id: str = ""
    is_page: bool = False


def read_event(line: LoggedLine) -> ConnectionEvent | None:
    """Return the event that a line tells of; None where it tells of none, or has no time."""
    record = line.record
    match line.kind:
        case LineKind.DECISION:
            return _decision(record)
        case LineKind.LOG_IN:
            stage = _STEPS.get(_text(record, "step"))
            # A document is fetched for a refresh, too, which begins no connection.
            if stage is None or (stage is Stage.CLIENT_DOCUMENT and not _id(record, "attempt")):
                return None
            return _login(record, stage, _text(record, "outcome"))
        case LineKind.PAGE:
            stage = Stage.AUTHORIZE
            event = _login(record, stage, _text(record, "detail"))
            return None if event is None else _as_page(event)
        case LineKind.ACCESS:
            return _access(record)
    return None


def _decision(record: Record) -> ConnectionEvent | None:
    time, reason = _seconds(record), _text(record, "reason")
    if time is None or record.get("http_method") == "OPTIONS":
        return None
    grant = _id(record, "grant")
    if not grant and reason not in _CHALLENGES:
        return None
    return ConnectionEvent(
        time,
        Stage.CALL if grant else Stage.CHALLENGE,
        OK if record.get("verdict") == "allow" else reason,
        network=network(_text(record, "address")),
        client=_text(record, "client_id"),
        grant=grant,
        server=_text(record, "server"),
        subject=_text(record, "subject"),
        detail=_text(record, "mcp_method"),
        request_id=_id(record, "request_id"),
    )


def _login(record: Record, stage: Stage, outcome: str) -> ConnectionEvent | None:
    time = _seconds(record)
    if time is None or not outcome:
        return None
    return ConnectionEvent(
        time,
        stage,
        outcome,
        network=_text(record, "network"),
        client=_text(record, "client"),
        client_key=_id(record, "client_key"),
        attempt=_id(record, "attempt"),
        grant=_id(record, "grant"),
        server=_text(record, "server"),
        detail=_text(record, "detail"),
        request_id=_id(record, "request_id"),
    )


def _as_page(event: ConnectionEvent) -> ConnectionEvent:
    return ConnectionEvent(
        event.time,
        event.stage,
        event.outcome,
        network=event.network,
        client_key=event.client_key,
        attempt=event.attempt,
        request_id=event.request_id,
        is_page=True,
    )


def _access(record: Record) -> ConnectionEvent | None:
    route, time = _text(record, "route"), _seconds(record)
    if time is None or not route.startswith(_DOCUMENTS):
        return None
    kind, _, server = route.partition(":")
    return ConnectionEvent(
        time,
        Stage.DOCUMENT,
        "not_found" if kind == _NO_DOCUMENT else OK,
        network=network(_text(record, "address")),
        server=server,
        detail=_text(record, "path"),
        request_id=_id(record, "request_id"),
    )


def _text(record: Record, name: str) -> str:
    value = record.get(name)
    return value[:_LONGEST] if isinstance(value, str) else ""


def _id(record: Record, name: str) -> str:
    """Return an id; empty for what is none of ours."""
    found = _text(record, name)
    return found if _ID.fullmatch(found) else ""


def _seconds(record: Record) -> float | None:
    """Return when it was: a number of authz, a text of Envoy's (%START_TIME%)."""
    time = record.get("time")
    if isinstance(time, int | float) and not isinstance(time, bool):
        return float(time) if 0 <= time < 2**40 else None
    try:
        return datetime.fromisoformat(time).timestamp() if isinstance(time, str) else None
    except (ValueError, OverflowError):
        return None
