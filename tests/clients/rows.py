"""The rows of the matrix: what a client is made to do, and when that counts as working."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from tests.clients.driver import Driver, HangingError
from tests.clients.environment import Town

# Accents both ways, right to left, three bytes, a joined family, a line separator, a rocket.
UNICODE: Final = (
    "gr\u00fc\u00dfe e\u0301 \u202e\u0645\u0631\u062d\u0628\u0627\u202c \u65e5\u672c\u8a9e "
    "\U0001f469\u200d\U0001f469\u200d\U0001f467 \u2028 \U0001f680"
)
SIZE: Final = 500_000
_TRIES: Final = 3
_LINK: Final = re.compile(r"https://localhost:\d+/authz/step-up[^\s\"'<>)\\]+")
_CHANGING: Final = (
    (re.compile(r"localhost:\d+"), "localhost"),
    (re.compile(r"ticket=[\w.~-]+"), "ticket=…"),
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22}"), "…"),
    (re.compile(r"\(request [^)]*\)"), "(request …)"),
    (re.compile(r'"(retry_after|id)": ?\d+'), r'"\1": …'),
    (re.compile(r"\b\d+(?:\.\d+)? ?(?:s|seconds?)\b"), "… s"),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was seen.

    Attributes:
        works: whether the row's property holds.
        seen: what the client showed, or what went wrong, in one line.
    """

    works: bool
    seen: str = ""


def told(result: dict[str, Any]) -> str:
    """Return what a result says, without what changes from run to run."""
    text = str(result.get("error") or result.get("text") or result)
    for pattern, instead in _CHANGING:
        text = pattern.sub(instead, text)
    return " ".join(text.split())[:400]


class Visit:
    """One client at the whole: a driver for each server, kept as long as the client's rows run."""

    def __init__(self, town: Town, start: Callable[[str], Driver]) -> None:
        self.town = town
        self._start = start
        self._drivers: dict[str, Driver] = {}
        self._connected: dict[str, dict[str, Any]] = {}
        self._ended: set[str] = set()

    def close(self) -> None:
        for driver in self._drivers.values():
            driver.stop()

    def at(self, server: str) -> Driver:
        """Return the driver of a server, connected.

        Raises:
            NotConnectedError: where it cannot connect.
        """
        if server not in self._drivers:
            self._drivers[server] = self._start(server)
            try:
                self._connected[server] = self._drivers[server].do("connect", patience=300)
            except HangingError as error:
                self._connected[server] = {"error": str(error)}
        if not self._connected[server].get("ok"):
            pages = " / ".join(self._drivers[server].pages)
            raise ClientNotConnectedError(f"{told(self._connected[server])} {pages}".strip())
        if server in self._ended:
            # As an application does that notices that its session is over.
            self._ended.discard(server)
            self._drivers[server].do("connect", patience=300)
        return self._drivers[server]

    def begin_again(self) -> None:
        """Connect again where a session ended."""
        for server in tuple(self._ended):
            self.at(server)

    def call(self, server: str, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool; a client that hangs is started again the next time."""
        alive = self._connected.get(server, {}).get("ok")
        # Not `at`: whether a session goes on after a refusal is seen by not connecting anew.
        driver = self._drivers[server] if alive else self.at(server)
        try:
            for _ in range(_TRIES):
                result = driver.do("call", tool=tool, arguments=arguments)
                # A machine under load, where the ledger's answer came late; not what a row is of.
                if "ledger_unavailable" not in str(result):
                    break
        except HangingError as error:
            driver.stop()
            del self._drivers[server], self._connected[server]
            return {"error": str(error), "hangs": True}
        if result.get("ended"):
            self._ended.add(server)
        return result


class ClientNotConnectedError(Exception):
    """Say that a client did not get in."""


def _has(result: dict[str, Any], text: str) -> bool:
    return text in result.get("text", "") and not result.get("is_error")


def times(opened: int) -> str:
    """Return how often a client opened the browser, in words."""
    return f"{'once' if opened == 1 else f'{opened} times'} in the browser"


def log_in(visit: Visit) -> Outcome:
    """A URL is enough, at the README's smallest server."""
    driver = visit.at("plain")
    return Outcome(len(driver.opened) == 1, times(len(driver.opened)))


def log_in_scopes(visit: Visit) -> Outcome:
    """A URL is enough, at a server with a scope."""
    driver = visit.at("ruled")
    return Outcome(len(driver.opened) == 1, times(len(driver.opened)))


def list_tools(visit: Visit) -> Outcome:
    """It lists all tools."""
    result = visit.at("plain").do("list")
    return Outcome(set(result.get("tools", ())) >= {"echo", "big", "count", "ask"}, told(result))


def call(visit: Visit) -> Outcome:
    """It calls a tool."""
    result = visit.call("plain", "echo", text="hello")
    return Outcome(_has(result, "hello"), told(result))


def unicode(visit: Visit) -> Outcome:
    """A text outside ASCII arrives and comes back as it was."""
    result = visit.call("plain", "echo", text=UNICODE)
    return Outcome(_has(result, UNICODE), told(result))


def large(visit: Visit) -> Outcome:
    """A result of 500 kB arrives whole."""
    result = visit.call("plain", "big", size=SIZE)
    whole = len(result.get("text", "")) >= SIZE
    return Outcome(whole, "" if whole else told(result))


def progress(visit: Visit) -> Outcome:
    """Progress reaches the client while the tool works."""
    result = visit.call("plain", "count", to=4)
    seen = result.get("progress", 0)
    if not _has(result, "counted to 4"):
        return Outcome(works=False, seen=told(result))
    # The last may come after the result.
    return Outcome(seen >= 3, f"{seen} of 4 notifications")


def elicitation(visit: Visit) -> Outcome:
    """A server's question reaches the person, and the answer the server."""
    result = visit.call("plain", "ask")
    return Outcome(_has(result, "hello Ada"), told(result))


def _goes_on(visit: Visit, result: dict[str, Any], *words: str) -> Outcome:
    """Tell whether a refusal was shown in words, and the same session still works."""
    after = visit.call("ruled", "echo", text="still here")
    alive = _has(after, "still here")
    shown = any(each in told(result) for each in words)
    seen = told(result)
    if not alive:
        seen += f" — and then: {told(after)}"
    return Outcome(alive and shown, seen)


def refused(visit: Visit) -> Outcome:
    """A refused tool is told in words, and the session goes on."""
    # Some look into the list first, where it is not shown, and say so themselves.
    return _goes_on(visit, visit.call("ruled", "forbidden"), "not offered", "not found on server")


def limited(visit: Visit) -> Outcome:
    """An exhausted limit is told in words, and the session goes on."""
    first = visit.call("ruled", "limited")
    if not _has(first, "limited ran"):
        return Outcome(works=False, seen=told(first))
    for _ in range(2):
        result = visit.call("ruled", "limited")
    return _goes_on(visit, result, "Too many requests")


def wider(visit: Visit) -> Outcome:
    """A tool that needs a further scope leads to a log-in that gives it."""
    result = visit.call("ruled", "wider")
    return Outcome(_has(result, "wider ran"), told(result))


def step_up(visit: Visit) -> Outcome:
    """A step-up's link reaches the person; after it the call goes through."""
    driver = visit.at("ruled")
    visits = len(driver.pages)
    result = visit.call("ruled", "guarded")
    if _has(result, "guarded ran"):
        return Outcome(len(driver.pages) > visits, "the client opened the link and called again")
    link = _LINK.search(str(result))
    if link is None:
        return Outcome(works=False, seen=told(result))
    driver.visit(link.group())
    again = visit.call("ruled", "guarded")
    return Outcome(_has(again, "guarded ran"), f"{told(result)} → {told(again)}")


def away(visit: Visit) -> Outcome:
    """A server that goes away is told in words; when it is back, the client works again."""
    before = visit.call("away", "echo", text="here")
    if not _has(before, "here"):
        return Outcome(works=False, seen=told(before))
    visit.town.away.stop()
    try:
        during = visit.call("away", "echo", text="here")
    finally:
        visit.town.away.start()
    after = visit.call("away", "echo", text="here")
    again = ""
    if not _has(after, "here") and "hangs" not in during:
        again = told(after)
        try:
            visit.at("away").do("connect", patience=300)
            after = visit.call("away", "echo", text="here")
        except HangingError as error:
            after = {"error": str(error)}
    refused = "error" in during or bool(during.get("is_error"))
    works = "hangs" not in during and refused and _has(after, "here")
    seen = told(during)
    if again:
        seen += f" — back, and not connected anew: {again}"
    return Outcome(works, seen)


def run(row: str, visit: Visit) -> Outcome:
    """Run a row; where a session ended in an earlier one, it is begun again."""
    visit.begin_again()
    return ROWS[row](visit)


ROWS: Final[dict[str, Callable[[Visit], Outcome]]] = {
    "log in": log_in,
    "list": list_tools,
    "call": call,
    "unicode": unicode,
    "500 kB": large,
    "progress": progress,
    "elicitation": elicitation,
    "log in, with scopes": log_in_scopes,
    "refused tool": refused,
    "limit": limited,
    "wider scope": wider,
    "step-up link": step_up,
    "server away": away,
}
