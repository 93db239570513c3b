"""The exact call that a person approves: a canonical text of everything that it asks the server.

Invariant: two calls have one text only where every reader reads the same call in both, and the text
is all that a page needs to show (tests/core/test_exact_call.py). A call that readers could take for
different ones has no text and is refused.

The text is JSON with sorted members, as RFC 8785 (JCS) has it, and stricter with numbers: JCS gives
`1` and `1.0` one text, which a Python server tells apart. What no double holds exactly as it is
written is refused: a reader of decimals and a reader of doubles would see different calls.
"""

import hashlib
import json
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from authz.core.detail import Detail
from authz.core.parameter_headers import parameter_headers
from authz.core.reason import Reason
from authz.core.request import HttpRequest, RefusedError
from authz.core.strict_json import has_surrogate

# What a person can be expected to read, in bytes of the text; and how deep its members may lie.
LONGEST: Final = 16 * 1024
DEEPEST: Final = 16
# Blanks and escapes take more than what they stand for.
_LONGEST_BODY: Final = 8 * LONGEST
_MAX_INTEGER: Final = 2**53 - 1  # RFC 7493, section 2.2
_MAX_DIGITS: Final = 40  # of a fraction, before arithmetic is done with it

# The members of `_meta` that differ between a call and its repetition, and ask nothing of a tool:
# where progress is reported to (MCP), and the trace that it belongs to (W3C Trace Context).
_PER_REQUEST: Final = frozenset({"progressToken", "traceparent", "tracestate"})


@dataclass(frozen=True, slots=True)
class ExactCall:
    """Hold the canonical text of one call.

    Attributes:
        text: a JSON object: `params`, without what differs between a call and its repetition;
            `version`, the protocol's; `query` and `headers`, where there are such.
    """

    text: str = field(repr=False)

    @property
    def digest(self) -> str:
        """Return the SHA-256 of the text, in hex."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def exact_call(request: HttpRequest, questions: frozenset[str]) -> ExactCall:
    """Return the exact call of a tools/call, whose body was read strictly before.

    Not part of it are the JSON-RPC id, the session, and answers to questions of ours. Everything
    else that a tools/call can say is.

    Args:
        request: the POST.
        questions: the names of our own questions among `inputResponses`.

    Raises:
        RefusedError: APPROVAL_IMPOSSIBLE where readers could differ about the call, or where it is
            too large to be shown.
    """
    if len(request.body) > _LONGEST_BODY:
        raise _too_large()
    members = _READER.decode(request.body.decode())
    call: dict[str, object] = {
        "params": _lasting(members["params"], questions),
        "version": request.headers.get("mcp-protocol-version"),
    }
    query = request.path.partition("?")[2]
    if query:
        call["query"] = query
    # A server might read these instead.
    headers = parameter_headers(request.headers)
    if headers:
        call["headers"] = headers
    if _depth(call, DEEPEST + 1) > DEEPEST:
        raise _too_large()
    text = _WRITER.encode(call)
    if has_surrogate(text):
        raise RefusedError(Reason.APPROVAL_IMPOSSIBLE, Detail.AMBIGUOUS_CALL)
    if len(text.encode()) > LONGEST:
        raise _too_large()
    return ExactCall(text)


def _lasting(params: dict[str, Any], questions: frozenset[str]) -> dict[str, Any]:
    """Return what a repetition of the call repeats of its params."""
    kept = dict(params)
    if isinstance(kept.get("_meta"), dict):
        kept["_meta"] = {
            name: value for name, value in kept["_meta"].items() if name not in _PER_REQUEST
        }
        if not kept["_meta"]:
            del kept["_meta"]
    # A client that shows the link itself says here that it was followed (MCP 2026-07-28).
    answers = kept.get("inputResponses")
    if isinstance(answers, dict):
        others = {name: value for name, value in answers.items() if name not in questions}
        kept["inputResponses"] = others
        if not others:
            del kept["inputResponses"]
    return kept


def _depth(value: object, most: int) -> int:
    """Return how deep a value is nested; at most one more than `most`."""
    if most < 0 or not isinstance(value, dict | list):
        return 0
    inner = value.values() if isinstance(value, dict) else value
    return 1 + max((_depth(each, most - 1) for each in inner), default=0)


def _too_large() -> RefusedError:
    return RefusedError(Reason.APPROVAL_IMPOSSIBLE, Detail.CALL_TOO_LARGE)


def _integer(text: str) -> int:
    # Few digits first: reading many takes quadratic time. A negative zero is another number where
    # numbers are doubles.
    if len(text) > len("-9007199254740991") or text == "-0" or abs(int(text)) > _MAX_INTEGER:
        raise RefusedError(Reason.APPROVAL_IMPOSSIBLE, Detail.AMBIGUOUS_CALL)
    return int(text)


def _fraction(text: str) -> float:
    number = float(text)
    try:
        exact = len(text) <= _MAX_DIGITS and Decimal(text) == Decimal(repr(number))
    except InvalidOperation:  # its exponent is beyond that of any Decimal
        exact = False
    if not exact:
        raise RefusedError(Reason.APPROVAL_IMPOSSIBLE, Detail.AMBIGUOUS_CALL)
    return number


_READER: Final = json.JSONDecoder(parse_int=_integer, parse_float=_fraction)
_WRITER: Final = json.JSONEncoder(
    ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False
)
