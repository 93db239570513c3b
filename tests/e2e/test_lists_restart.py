"""Lists while the service is restarted or reloaded: two workers behind one real Envoy."""

import json
import signal
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Final

import pytest

from tests.e2e.test_lists import EVENTS, JSON, NAMES, SEEN, event, listed
from tests.server.test_worker_pool import wait_all_ready
from tests.support.list_edge import ListEdge, running_list_edge
from tests.support.service import until
from tests.support.transports import installed
from tests.support.valkey import valkey

# What it takes Envoy to know (two health checks of one second), and a little.
SERVICE: Final = "workers: 2, drain_notice: 2500ms"
CLIENTS: Final = 4
# Of each client after an answer: it leaves time to start workers.
PAUSE: Final = 0.05
BODY: Final = listed(*NAMES)
NOTE: Final = event(b'{"jsonrpc":"2.0","method":"notifications/x"}')
CHUNKS: Final = {
    JSON: (BODY[:40], BODY[40:]),
    EVENTS: (NOTE, event(BODY)[:50], event(BODY)[50:]),
}
AS_EVENTS: Final = ("x-events", "1")
HELD: Final = ("x-held", "1")


def choose(head: bytes) -> list[bytes]:
    """Return a list as JSON or as events, at once or piece by piece, as the request asks for."""
    media = EVENTS if b"\nx-events:" in head.lower() else JSON
    fields = f"content-type: {media}\r\ntransfer-encoding: chunked\r\nconnection: close"
    pieces = [
        f"HTTP/1.1 200 OK\r\n{fields}\r\n\r\n".encode(),
        *(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in CHUNKS[media]),
        b"0\r\n\r\n",
    ]
    pieces[:2] = [pieces[0] + pieces[1]]
    return pieces if b"\nx-held:" in head.lower() else [b"".join(pieces)]


def outcome(body: bytes) -> str:
    """Return the names that a client is shown, or the error that it gets instead."""
    data = body.rpartition(b"data: ")[2]
    try:
        answer = json.loads(data)
    except ValueError:
        return repr(body)
    if "result" in answer:
        return " ".join(tool["name"] for tool in answer["result"]["tools"])
    return str(answer["error"]["data"]["reason"])


@pytest.fixture(scope="module", params=["grpcio", "ngh2"])
def edge(request: pytest.FixtureRequest) -> Iterator[ListEdge]:
    with (
        valkey() as redis,
        running_list_edge(installed(request.param), SERVICE, workers=2, redis=redis.url) as running,
    ):
        running.raw.choose = choose
        wait_all_ready(running.service, 2)
        running.envoy.wait_for("cluster.authz.membership_healthy", 2)
        yield running


@contextmanager
def load(edge: ListEdge) -> Iterator[Counter[str]]:
    """Ask for lists as long as the block does; give how often each outcome came."""
    done, ended = threading.Event(), Counter[str]()

    def ask(number: int) -> None:
        more = (AS_EVENTS,) if number % 2 else ()
        while not done.wait(PAUSE):
            ended[outcome(edge.ask(more=more).body)] += 1

    with ThreadPoolExecutor(CLIENTS) as threads:
        running = [threads.submit(ask, number) for number in range(CLIENTS)]
        try:
            until(lambda: ended.total() > CLIENTS, "the first lists")
            yield ended
        finally:
            done.set()
        for each in running:
            each.result()


def rest(connection: socket.socket) -> bytes:
    found = b""
    while piece := connection.recv(65536):
        found += piece
    return found


@pytest.mark.attack("list-unfiltered")
def test_a_rolling_restart_shows_each_list_filtered(edge: ListEdge) -> None:
    """Both workers are replaced while lists are asked for, as JSON and as events: each one is as it
    should be. A response that one worker has begun and that outlasts it is cut, never unfiltered.
    """
    edge.raw.go_on.clear()
    done = len(edge.service.events("rolling_restart_done"))
    with ExitStack() as stack:
        held = [stack.enter_context(edge.client.connect()) for _ in range(2 * CLIENTS)]
        for number, each in enumerate(held):
            each.settimeout(60)
            each.sendall(edge.raw_request(*(HELD, AS_EVENTS)[: 1 + number % 2]))
        until(lambda: len(edge.raw.requests) == len(held), "the requests")
        with load(edge) as ended:
            edge.service.signal(signal.SIGUSR2)
            until(lambda: len(edge.service.events("rolling_restart_done")) > done, "both workers")
        edge.raw.go_on.set()
        cut = [rest(each) for each in held]

    assert edge.service.events("rolling_restart_stopped") == []
    assert ended.keys() == {" ".join(SEEN)}, ended
    for answer in cut:
        assert b" 200 OK" in answer
        assert not answer.endswith(b"0\r\n\r\n"), "a whole response"
        assert b"tools" not in answer


@pytest.mark.attack("list-unfiltered")
def test_a_reload_shows_each_list_by_the_old_rules_or_the_new(edge: ListEdge) -> None:
    """No list is in between, and afterwards none is by the old rules; there and back."""
    text = edge.service.config.read_text()
    assert text.count("burn_*: {second_factor: totp}") == 1
    rules = text.replace("burn_*: {second_factor: totp}", "burn_*: {groups: [nobody]}")
    both = [" ".join(SEEN), "read_a"]
    with load(edge) as ended:
        for changed, before, after in ((rules, *both), (text, *reversed(both))):
            reloaded = len(edge.service.events("reloaded"))
            edge.service.config.write_text(changed)
            edge.service.signal(signal.SIGHUP)
            until(lambda: len(edge.service.events("reloaded")) >= reloaded + 2, "both workers")  # noqa: B023
            old = ended[before]
            new = ended[after]
            until(lambda: ended[after] > new + 2 * CLIENTS, "lists by the new rules")  # noqa: B023
            assert ended[before] <= old + CLIENTS, "more than were in flight"
    assert ended.keys() == set(both), ended
