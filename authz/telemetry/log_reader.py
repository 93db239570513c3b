"""Read decisions back from the log: one line, or that of one request."""

from collections.abc import Iterable
from typing import Final

from authz.core.strict_json import StrictJsonError, loads
from authz.telemetry.audit import Record

_MAX_LINE: Final = 64 * 1024


def read_decision(line: bytes) -> Record:
    """Return the fields of one line of the decision log.

    Raises:
        ValueError: where it is none.
    """
    if len(line) > _MAX_LINE:
        raise ValueError("the line is longer than any of the decision log")
    if not line.strip():
        raise ValueError("there is no line on standard input: tail -1 LOG | authz explain --line")
    try:
        record = loads(line.strip())
    except StrictJsonError as error:
        raise ValueError("that is not a line of JSON; set telemetry.log to json") from error
    if not isinstance(record, dict) or record.get("event") != "decision":
        raise ValueError("that is not a decision; its `event` would say so")
    return record


def find_decision(lines: Iterable[bytes], request_id: str) -> Record:
    """Return the last decision about a request.

    Raises:
        ValueError: where there is none.
    """
    found = None
    for line in lines:
        # Cheaper than parsing: a log has many lines.
        if request_id.encode() in line:
            try:
                record = read_decision(line)
            except ValueError:
                continue
            if record.get("request_id") == request_id:
                found = record
    if found is None:
        raise ValueError("the log has no decision about that request")
    return found
