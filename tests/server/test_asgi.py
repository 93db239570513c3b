"""gRPC through ASGI: the status OK follows a whole message, and every request is ended."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import pytest

from authz.envoy import codec
from authz.envoy.pb.health_pb2 import HealthCheckResponse
from authz.server.asgi import AsgiTransport
from authz.server.framing import (
    INTERNAL,
    RESOURCE_EXHAUSTED,
    UNAVAILABLE,
    UNIMPLEMENTED,
    frame,
    read_message,
)
from authz.server.grpc_calls import Calls
from authz.server.health import Health
from tests.server.broken_messages import BROKEN_MESSAGES

CHECK = f"/{codec.AUTHORIZATION}/Check"
HEALTH = f"/{codec.HEALTH}/Check"
WATCH = f"/{codec.HEALTH}/Watch"
Event = Mapping[str, Any]


class AsgiCaller:
    """An ASGI server with one request, which keeps what the application sent."""

    def __init__(self, *body: bytes, gone_after: int | None = None, lives: bool = False) -> None:
        self.sent: list[Event] = []
        self.told = asyncio.Semaphore(0)
        self.leave = asyncio.Event()
        self._gone_after = gone_after
        self._lives = lives
        last = len(body) - 1
        self._events: list[Event] = [
            {"type": "http.request", "body": part, "more_body": number < last}
            for number, part in enumerate(body)
        ]

    async def receive(self) -> Event:
        if self._events:
            return self._events.pop(0)
        if self._lives:
            await self.leave.wait()
        return {"type": "http.disconnect"}

    async def send(self, event: Event) -> None:
        if self._gone_after is not None and len(self.sent) >= self._gone_after:
            raise OSError("the caller has gone away")
        self.sent.append(event)
        self.told.release()

    @property
    def status(self) -> int | None:
        """The gRPC status; None where the request was not ended with one."""
        for event in self.sent:
            for name, value in event.get("headers", ()):
                if name == b"grpc-status":
                    return int(value)
        return None

    @property
    def body(self) -> bytes:
        return b"".join(event.get("body", b"") for event in self.sent)


def scope(path: str, **changes: Any) -> dict[str, Any]:
    return {
        "type": "http",
        "method": "POST",
        "path": path,
        "headers": [(b"content-type", b"application/grpc"), (b"te", b"trailers")],
        **changes,
    }


async def echo(raw: bytes) -> bytes:
    return b"answer to " + raw


def transport(
    check: Callable[[bytes], Awaitable[bytes]] = echo, health: Health | None = None
) -> AsgiTransport:
    return AsgiTransport(Calls(check, health or Health(), max_body=1024))


def ask(
    caller: AsgiCaller,
    check: Callable[[bytes], Awaitable[bytes]] = echo,
    path: str = CHECK,
    **changes: Any,
) -> AsgiCaller:
    asyncio.run(transport(check)(scope(path, **changes), caller.receive, caller.send))
    return caller


def test_a_check_is_answered() -> None:
    """The check gets the message's bytes, the caller the answer's, then the status OK."""
    caller = ask(AsgiCaller(frame(b"question")))

    assert read_message(caller.body, 99) == b"answer to question"
    assert caller.status == 0
    assert [event["type"] for event in caller.sent] == [
        "http.response.start",
        "http.response.body",
        "http.response.trailers",
    ]


def test_a_message_may_come_in_pieces() -> None:
    """However HTTP/2 cut it, it is one message."""
    whole = frame(b"question")

    caller = ask(AsgiCaller(*(whole[n : n + 1] for n in range(len(whole))), b""))

    assert read_message(caller.body, 99) == b"answer to question"


@pytest.mark.parametrize(("parts", "status"), BROKEN_MESSAGES)
def test_a_broken_message_reaches_no_check(parts: Sequence[bytes], status: int) -> None:
    """It gets a gRPC status that is not OK, and no message."""

    async def never(_: bytes) -> bytes:
        raise AssertionError

    caller = ask(AsgiCaller(*parts), never)

    assert (caller.status, caller.body) == (status, b"")


def test_no_more_is_read_than_a_message_may_have() -> None:
    """A stream without an end is left after the longest message, not kept in memory."""
    caller = AsgiCaller(*([b"\0" * 65536] * 1000))

    ask(caller)

    assert caller.status == RESOURCE_EXHAUSTED
    assert len(caller._events) > 990


@pytest.mark.attack("empty-check-response")
@pytest.mark.parametrize("failure", [RuntimeError("x"), ValueError("x"), None])
def test_a_check_without_an_answer_is_never_ok(failure: Exception | None) -> None:
    """An exception or an empty answer ends with a status that is not OK."""

    async def broken(_: bytes) -> bytes:
        if failure is not None:
            raise failure
        return b""

    caller = ask(AsgiCaller(frame(b"x")), broken)

    assert (caller.status, caller.body) == (INTERNAL, b"")


@pytest.mark.attack("empty-check-response")
def test_a_cancelled_check_is_never_ok() -> None:
    """Cancelled from outside, the request is ended as unavailable."""

    async def main() -> AsgiCaller:
        caller = AsgiCaller(frame(b"x"))
        task = asyncio.create_task(
            transport(lambda _: asyncio.Event().wait())(  # type: ignore[arg-type, return-value]  # it never answers
                scope(CHECK), caller.receive, caller.send
            )
        )
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        assert task.cancelled()
        return caller

    caller = asyncio.run(main())

    assert (caller.status, caller.body) == (UNAVAILABLE, b"")


class Slow(AsgiCaller):
    """An ASGI server that takes turns over what it is sent."""

    async def send(self, event: Event) -> None:
        for _ in range(3):
            await asyncio.sleep(0)
        await super().send(event)


def test_requests_that_are_cancelled_together_all_end() -> None:
    """Each ends with its own cancellation, while the answers of others are still being sent.

    Compiled by mypyc, they raised one another's exception, or none: asyncio could not end such a
    task, and it stayed for ever.
    """

    async def never(_: bytes) -> bytes:
        await asyncio.Event().wait()
        raise AssertionError("nobody sets the event")

    async def scene() -> None:
        transport = AsgiTransport(Calls(never, Health(), max_body=100))
        callers = [Slow(frame(b"x"), lives=True) for _ in range(8)]
        tasks = [
            asyncio.create_task(
                transport(scope(CHECK if number % 2 else WATCH), each.receive, each.send)
            )
            for number, each in enumerate(callers)
        ]
        for _ in range(9):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
            await asyncio.sleep(0)
        _, left = await asyncio.wait(tasks, timeout=60)
        assert not left
        assert all(task.cancelled() for task in tasks)
        assert [each.status for each in callers[1::2]] == [UNAVAILABLE] * 4

    asyncio.run(scene())


@pytest.mark.parametrize("events", [0, 1, 2])
def test_a_caller_that_goes_away_breaks_nothing(events: int) -> None:
    """Whenever it goes, nothing is raised into the server, which would answer for us."""
    one = transport()
    caller = AsgiCaller(frame(b"x"), gone_after=events)

    async def main() -> None:
        await one(scope(CHECK), caller.receive, caller.send)
        await asyncio.wait_for(one.idle(60), 30)

    asyncio.run(main())

    assert len(caller.sent) == events


@pytest.mark.attack("pages-on-another-listener")
@pytest.mark.parametrize(
    "path",
    ["/a.B/C", "/", "/metrics", "/healthz", "/readyz", "/authorize", "/token", "/register",
     "/authz/consent", "/authz/step-up", "/files", f"{CHECK}/", f"/{CHECK}", CHECK.lower()],
)  # fmt: skip
def test_another_path_is_unimplemented(path: str) -> None:
    """There are three methods; no page, metric or server of the product answers beside them."""
    asked: list[bytes] = []

    async def check(raw: bytes) -> bytes:
        asked.append(raw)
        return raw

    assert ask(AsgiCaller(frame(b"x")), check, path=path).status == UNIMPLEMENTED
    assert asked == []


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "GET"},
        {"headers": []},
        {"headers": [(b"content-type", b"application/json")]},
        {"headers": [(b"content-type", b"application/grpc-web")]},
    ],
)
def test_what_is_not_grpc_is_415(changes: Mapping[str, Any]) -> None:
    """Another method or content type reaches no check."""
    caller = ask(AsgiCaller(frame(b"x")), **changes)

    assert caller.sent[0]["status"] == 415
    assert caller.body == b""


@pytest.mark.parametrize("ready", [True, False])
def test_health_is_told(ready: bool) -> None:
    """Check of the health service answers as readiness is."""
    health = Health()
    health.set("part", "" if ready else "broken")
    # An empty HealthCheckRequest is five zero bytes.
    caller = AsgiCaller(b"\0\0\0\0\0")

    asyncio.run(transport(health=health)(scope(HEALTH), caller.receive, caller.send))

    found = HealthCheckResponse.FromString(read_message(caller.body, 99))
    assert found.status == (
        HealthCheckResponse.SERVING if ready else HealthCheckResponse.NOT_SERVING
    )


def test_a_watcher_is_told_until_it_leaves() -> None:
    """Watch tells every change, and ends with its caller."""

    async def main() -> list[bytes]:
        health = Health()
        health.set("part", "")
        caller = AsgiCaller(b"\0\0\0\0\0", lives=True)
        task = asyncio.create_task(
            transport(health=health)(scope(WATCH), caller.receive, caller.send)
        )
        for _ in range(2):
            await caller.told.acquire()
        health.set("part", "stopping")
        await caller.told.acquire()
        caller.leave.set()
        await asyncio.wait_for(task, 30)
        return [event["body"] for event in caller.sent[1:]]

    bodies = asyncio.run(main())

    states = [HealthCheckResponse.FromString(read_message(each, 99)).status for each in bodies]
    assert states == [HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING]


def test_idle_waits_for_what_is_being_decided() -> None:
    """A check in flight is waited for, at most as long as is said."""

    async def main() -> list[str]:
        said: list[str] = []
        hold = asyncio.Event()

        async def slow(raw: bytes) -> bytes:
            await hold.wait()
            said.append("answered")
            return raw

        one = transport(slow)
        caller = AsgiCaller(frame(b"x"))
        task = asyncio.create_task(one(scope(CHECK), caller.receive, caller.send))
        await asyncio.sleep(0)
        await one.idle(0.001)
        said.append("not waited for")
        hold.set()
        await one.idle(10)
        said.append("idle")
        await task
        return said

    assert asyncio.run(main()) == ["not waited for", "answered", "idle"]
