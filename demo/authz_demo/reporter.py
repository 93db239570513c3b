"""What a scenario shows of each step, and what it requires of an answer."""

import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from authz.core.answers import REFUSAL

_SHOWN: Final = ("www-authenticate", "retry-after", "ratelimit", "allow")
_LONGEST: Final = 150
_LINK: Final = re.compile(
    r"(https://[^\s?]+\?[a-z]+=)\S+"
)  # a sealed link is long, and nobody's to read
_MODERN: Final = "2026-07-28"
_META: Final = "io.modelcontextprotocol"

WriteLine = Callable[[str], None]


class StepFailedError(Exception):
    """A step failed."""


@dataclass(slots=True)
class Reporter:
    """Print a scenario as it goes.

    Attributes:
        say: takes the lines.
        failed: the steps that failed.
        done: how many steps there were.
    """

    say: WriteLine
    failed: list[str] = field(default_factory=list)
    done: int = 0
    _colour: bool = field(default_factory=sys.stdout.isatty)

    def begin_step(self, text: str) -> None:
        """Begin a step."""
        self.done += 1
        self.say("")
        self.say(self._coloured("1", f"{self.done:2}. {text}"))

    def note(self, text: str) -> None:
        """Tell something of a step."""
        self.say(f"      {text}")

    def sent(self, text: str) -> None:
        """Tell what was sent."""
        self.say(f"    → {text}")

    def received(self, text: str) -> None:
        """Tell what came back."""
        self.say(f"    ← {text}")

    def passed(self) -> None:
        """End a step that passed."""
        self.say(self._coloured("32", "    ✓"))

    def fail(self, name: str, why: str) -> None:
        """End a step that failed."""
        self.failed.append(name)
        self.say(self._coloured("31", f"    ✗ {why}"))

    def _coloured(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour else text

    def answer(self, response: httpx.Response) -> None:
        """Tell an HTTP answer: status, the headers that matter, and its words."""
        self.received(f"{response.status_code} {_words(response)}")
        for name in _SHOWN:
            if name in response.headers:
                self.note(f"  {name}: {_cut(response.headers[name])}")


def expect(response: httpx.Response, status: int, reason: str = "", *headers: str) -> None:
    """Require a status, a reason and headers.

    Raises:
        StepFailedError: where one of them is another.
    """
    found = reason_of(response)
    if (response.status_code, found) != (status, reason):
        raise StepFailedError(
            f"expected {status} {reason or 'without a reason'}, "
            f"not {response.status_code} {found or 'without a reason'}"
        )
    for name in headers:
        if name not in response.headers:
            raise StepFailedError(f"expected the header {name}")


def require(condition: object, what: str) -> None:
    """Require a condition.

    Raises:
        StepFailedError: where it is not so.
    """
    if not condition:
        raise StepFailedError(f"expected {what}")


def refusal_of(response: httpx.Response) -> tuple[str, Mapping[str, Any]]:
    """Return the sentence and the data of a refusal, however it is told; nothing where it is none.

    It is a JSON-RPC error, or a tool's result with `isError` (docs/decisions/0011).
    """
    try:
        document = response.json()
        if "error" in document:
            return str(document["error"]["message"]), dict(document["error"]["data"])
        result = document["result"]
        return str(result["content"][0]["text"]), dict(result["_meta"][REFUSAL])
    except (ValueError, KeyError, TypeError, IndexError):
        return "", {}


def reason_of(response: httpx.Response) -> str:
    """Return the reason of a refusal; nothing where there is none."""
    return str(refusal_of(response)[1].get("reason", ""))


def _words(response: httpx.Response) -> str:
    sentence, data = refusal_of(response)
    if data:
        words = _LINK.sub(r"\1…", sentence)
        return f"{data.get('reason', '')}: {words}"
    try:
        return _cut(json.dumps(response.json()))
    except ValueError:
        return str(response.headers.get("content-type", ""))


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def message(method: str, params: Mapping[str, object] | None = None) -> dict[str, Any]:
    """Return a request of 2026-07-28 as its body."""
    meta = {f"{_META}/protocolVersion": _MODERN, f"{_META}/clientCapabilities": {}}
    return {
        "jsonrpc": "2.0",
        "id": 1,
        "method": method,
        "params": {**(params or {}), "_meta": meta},
    }


def headers(body: Mapping[str, Any], token: str | None = None) -> dict[str, str]:
    """Return the headers that mirror a body of 2026-07-28."""
    found = {
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": _MODERN,
        "mcp-method": body["method"],
    }
    if "name" in body["params"]:
        found["mcp-name"] = body["params"]["name"]
    if token is not None:
        found["authorization"] = f"Bearer {token}"
    return found
