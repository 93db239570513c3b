"""HTTP/2 of our own, against another implementation (h2): every answer is whole, or no OK."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from authz.envoy import codec
from authz.envoy.pb.health_pb2 import HealthCheckResponse
from authz.server.framing import (
    CANCELLED,
    INTERNAL,
    RESOURCE_EXHAUSTED,
    UNIMPLEMENTED,
    frame,
    read_message,
)
from authz.server.grpc_calls import (
    CHECK,
    HEALTH_CHECK,
    HEALTH_WATCH,
    PROCESS,
    Calls,
    CheckBytes,
)
from authz.server.health import Health
from authz.server.processing import ResponseProcessor
from tests.server.broken_messages import BROKEN_MESSAGES

pytest.importorskip("ngh2")

from authz.server.http2 import Http2Connection

MAX_BODY = 1024
Fields = Mapping[str, bytes]
NO_FIELDS: Fields = MappingProxyType({})
TURNS = 20  # of the loop: more than any answer takes


class Wire:
    """An asyncio transport without a socket, and h2 at its other end."""

    def __init__(self) -> None:
        self.client = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        self.events: list[Event] = []
        self.writes = 0
        self.closed = False
        self.reading = True
        self.takes = True
        self._unread = b""

    def write(self, data: bytes) -> None:
        self.writes += 1
        self._unread += data
        self.read()

    def read(self) -> None:
        if self.takes:
            data, self._unread = self._unread, b""
            self.events += self.client.receive_data(data)

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def close(self) -> None:
        self.closed = True

    abort = close


class Caller:
    """One connection and what h2 knows of it."""

    def __init__(self, calls: Calls) -> None:
        self.wire = Wire()
        self.idle = 0
        self.wire.client.initiate_connection()
        self.http2 = Http2Connection(calls, self.wire, self._on_idle)
        self.flush()

    def _on_idle(self) -> None:
        self.idle += 1

    @property
    def client(self) -> H2Connection:
        return self.wire.client

    def flush(self) -> None:
        """Hand the server all that the client has to send."""
        data = self.client.data_to_send()
        if data:
            self.http2.receive(data)

    def begin(self, path: str = CHECK, more: Fields = NO_FIELDS) -> int:
        number = int(self.client.get_next_available_stream_id())
        fields = {b":method": b"POST", b":path": path.encode(), b":scheme": b"http"}
        fields |= {b":authority": b"authz", b"content-type": b"application/grpc"}
        fields |= {name.replace("_", "-").encode(): value for name, value in more.items()}
        self.client.send_headers(number, list(fields.items()))
        return number

    def ask(self, body: bytes, path: str = CHECK, more: Fields = NO_FIELDS) -> int:
        number = self.begin(path, more)
        self.client.send_data(number, body, end_stream=True)
        self.flush()
        return number

    def of(self, number: int, kind: type[Any]) -> list[Any]:
        return [
            event
            for event in self.wire.events
            if isinstance(event, kind) and getattr(event, "stream_id", None) == number
        ]

    def body(self, number: int) -> bytes:
        return b"".join(event.data for event in self.of(number, DataReceived))

    def status(self, number: int) -> int | None:
        """The gRPC status; None where the request was not ended with one."""
        for event in (*self.of(number, ResponseReceived), *self.of(number, TrailersReceived)):
            for name, value in event.headers:
                if name == b"grpc-status":
                    assert self.of(number, StreamEnded)
                    return int(value)
        return None

    async def turn(self) -> None:
        for _ in range(TURNS):
            await asyncio.sleep(0)
            self.flush()


async def echo(raw: bytes) -> bytes:
    return b"answer to " + raw


async def never(_: bytes) -> bytes:
    raise AssertionError


def calls(check: CheckBytes = echo, health: Health | None = None, **more: Any) -> Calls:
    return Calls(check, health or Health(), MAX_BODY, **more)


def play(scene: Callable[[Caller], Awaitable[None]], of: Calls | None = None) -> Caller:
    """Run a scene on one connection, which is lost at its end."""

    async def run() -> Caller:
        caller = Caller(of or calls())
        await scene(caller)
        await caller.turn()
        caller.http2.lost()
        await caller.turn()
        assert caller.http2.running == 0
        return caller

    return asyncio.run(run())


def asked(
    body: bytes, check: CheckBytes = echo, path: str = CHECK, more: Fields = NO_FIELDS
) -> Caller:
    async def scene(caller: Caller) -> None:
        assert caller.ask(body, path, more) == 1

    return play(scene, calls(check))


def test_a_check_is_answered() -> None:
    """The check gets the message's bytes, the caller the answer's, then the status OK."""
    caller = asked(frame(b"question"))

    assert read_message(caller.body(1), 99) == b"answer to question"
    assert caller.status(1) == 0
    assert dict(caller.of(1, ResponseReceived)[0].headers)[b":status"] == b"200"
    assert caller.idle == 1


@pytest.mark.parametrize(("parts", "status"), BROKEN_MESSAGES)
def test_a_broken_message_reaches_no_check(parts: Sequence[bytes], status: int) -> None:
    """It gets a gRPC status that is not OK, and no message."""
    caller = asked(b"".join(parts), never)

    assert (caller.status(1), caller.body(1)) == (status, b"")


@pytest.mark.attack("empty-check-response")
@pytest.mark.parametrize("failure", [RuntimeError("x"), ValueError("x"), None])
def test_a_check_without_an_answer_is_never_ok(failure: Exception | None) -> None:
    """An exception or an empty answer ends with a status that is not OK."""

    async def broken(_: bytes) -> bytes:
        if failure is not None:
            raise failure
        return b""

    caller = asked(frame(b"x"), broken)

    assert (caller.status(1), caller.body(1)) == (INTERNAL, b"")


@pytest.mark.parametrize(
    ("changes", "http"),
    [
        ({"content_type": b"application/json"}, b"415"),
        ({"content_type": b"application/grpc-web"}, b"415"),
    ],
)
def test_what_is_no_grpc_is_no_answer(changes: dict[str, bytes], http: bytes) -> None:
    """Another content type gets 415, and no gRPC status."""
    caller = asked(frame(b"x"), never, more=changes)

    assert dict(caller.of(1, ResponseReceived)[0].headers)[b":status"] == http
    assert caller.status(1) is None


def test_another_method_of_grpc_is_unimplemented() -> None:
    """Nothing answers under a path that nobody serves, the filter's without a filter neither."""
    assert asked(frame(b"x"), never, "/other.Service/Check").status(1) == UNIMPLEMENTED
    assert asked(frame(b"x"), never, PROCESS).status(1) == UNIMPLEMENTED


@pytest.mark.attack("empty-check-response")
def test_answers_are_never_mixed() -> None:
    """Whoever is answered first gets his own; all that end in one turn are one write."""
    gates = {b"%d" % n: asyncio.Event() for n in range(50)}

    async def gated(raw: bytes) -> bytes:
        await gates[raw].wait()
        return b"answer to " + raw

    async def scene(caller: Caller) -> None:
        numbers = {raw: caller.ask(frame(raw)) for raw in gates}
        await caller.turn()
        before = caller.wire.writes
        for raw in reversed(gates):
            gates[raw].set()
        await caller.turn()
        assert caller.wire.writes == before + 1
        for raw, number in numbers.items():
            assert read_message(caller.body(number), 99) == b"answer to " + raw
            assert caller.status(number) == 0

    play(scene, calls(gated))


def test_a_request_that_is_reset_is_given_up() -> None:
    """Its check is cancelled, and nothing is answered; the connection goes on."""
    ended = list[str]()

    async def waits(raw: bytes) -> bytes:
        if raw == b"other":
            return raw
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise
        return b""

    async def scene(caller: Caller) -> None:
        number = caller.ask(frame(b"x"))
        await caller.turn()
        caller.client.reset_stream(number, ErrorCodes.CANCEL)
        await caller.turn()
        other = caller.ask(frame(b"other"))
        await caller.turn()
        assert ended == ["cancelled"]
        assert caller.body(number) == b""
        assert caller.status(other) == 0

    play(scene, calls(waits))


@pytest.mark.attack("empty-check-response")
def test_trailers_of_a_request_are_no_end_of_a_message() -> None:
    """No caller of gRPC sends any: the request is reset, and no check sees what it held."""

    async def scene(caller: Caller) -> None:
        number = caller.begin()
        caller.client.send_data(number, frame(b"x"))
        caller.client.send_headers(number, [(b"more", b"x")], end_stream=True)
        await caller.turn()
        assert caller.of(number, StreamReset)

    play(scene, calls(never))


def test_no_more_is_held_than_a_message_may_have() -> None:
    """A body without an end is refused after the longest message, the connection goes on."""

    async def scene(caller: Caller) -> None:
        number = caller.begin()
        caller.flush()
        for _ in range(20):
            caller.client.send_data(number, b"\0" * 16_000)
            await caller.turn()
            if caller.status(number) is not None:
                break
        assert caller.status(number) == RESOURCE_EXHAUSTED
        other = caller.ask(frame(b"other"))
        await caller.turn()
        assert caller.status(other) == 0

    play(scene)


def test_header_fields_are_bounded_for_each_request() -> None:
    """One request with too many, or too long ones, is refused; the others are not touched."""

    async def scene(caller: Caller) -> None:
        many = caller.ask(frame(b"x"), more={f"x{n}": b"y" for n in range(200)})
        long = caller.ask(frame(b"x"), more={"tracestate": b"y" * 40_000})
        fine = caller.ask(frame(b"x"))
        await caller.turn()
        assert caller.status(many) == caller.status(long) == RESOURCE_EXHAUSTED
        assert caller.status(fine) == 0

    play(scene)


def test_who_reads_nothing_is_not_read_either() -> None:
    """While the transport's buffer is full nothing is taken or written; then it goes on."""

    async def scene(caller: Caller) -> None:
        number = caller.ask(frame(b"x"))
        caller.http2.pause()
        assert not caller.wire.reading
        await caller.turn()
        assert caller.status(number) is None
        caller.http2.resume()
        assert caller.wire.reading
        assert caller.status(number) == 0

    play(scene)


@pytest.mark.parametrize(
    "junk", [b"GET / HTTP/1.1\r\n\r\n", b"\0" * 64, b"PRI * HTTP/2.0\r\n\r\nXX\r\n"]
)
def test_what_is_no_http2_loses_the_connection(junk: bytes) -> None:
    """It is closed, and whoever goes on sending changes nothing."""

    async def run() -> None:
        wire = Wire()
        wire.takes = False
        http2 = Http2Connection(calls(never), wire, lambda: None)
        http2.receive(junk)
        http2.receive(junk)
        assert wire.closed

    asyncio.run(run())


@pytest.mark.attack("empty-check-response")
def test_a_flood_of_resets_loses_the_connection() -> None:
    """Requests that are opened and reset without end (CVE-2023-44487) end with the connection."""

    async def scene(caller: Caller) -> None:
        for _ in range(3_000):
            number = caller.begin()
            caller.client.reset_stream(number)
            caller.flush()
            if caller.wire.closed:
                break
        assert caller.wire.closed
        assert caller.http2.running == 0

    play(scene, calls(never))


def test_who_goes_away_answers_what_still_comes() -> None:
    """GOAWAY names no last request; one that comes after it is answered."""

    async def scene(caller: Caller) -> None:
        first = caller.ask(frame(b"x"))
        late = caller.begin()
        data = caller.client.data_to_send()
        caller.http2.go_away()
        caller.http2.receive(data)
        assert [
            event.last_stream_id
            for event in caller.wire.events
            if isinstance(event, ConnectionTerminated)
        ]
        await asyncio.sleep(0)
        assert (first, late) == (1, 3)

    play(scene)


def test_readiness_is_told_and_watched() -> None:
    """Check says how it is, Watch says each change, to the same words as on other transports."""
    health = Health()

    async def scene(caller: Caller) -> None:
        asked_once = caller.ask(frame(codec.encode_health(serving=True)), HEALTH_CHECK)
        watching = caller.ask(frame(b"\n\0"), HEALTH_WATCH)
        await caller.turn()
        health.set("keys", "")
        await caller.turn()
        assert caller.status(asked_once) == 0
        not_serving = HealthCheckResponse.NOT_SERVING
        assert HealthCheckResponse.FromString(caller.body(asked_once)[5:]).status == not_serving
        told = caller.of(watching, DataReceived)
        states = [HealthCheckResponse.FromString(event.data[5:]).status for event in told]
        assert states == [not_serving, HealthCheckResponse.SERVING]
        assert caller.status(watching) is None
        caller.client.reset_stream(watching)
        await caller.turn()

    play(scene, calls(health=health))


class Parts:
    """A processor that answers each part, and is whole after so many."""

    def __init__(self, whole: int, fails: bool = False) -> None:
        self.seen = list[bytes]()
        self.closed = 0
        self._whole = whole
        self._fails = fails

    @property
    def ended(self) -> bool:
        return len(self.seen) >= self._whole

    async def answer(self, raw: bytes) -> bytes:
        if self._fails:
            raise RuntimeError
        self.seen.append(raw)
        return b"answer to " + raw

    def close(self) -> None:
        self.closed += 1


def processed(parts: Parts, *frames: bytes, end: bool = True, split: int = 7) -> Caller:
    def make(_: str) -> ResponseProcessor:
        return parts

    async def scene(caller: Caller) -> None:
        number = caller.begin(PROCESS)
        body = b"".join(frames)
        for at in range(0, len(body), split):
            caller.client.send_data(number, body[at : at + split])
            await caller.turn()
        if end:
            caller.client.end_stream(number)
        await caller.turn()

    return play(scene, calls(never, process=make))


def test_each_part_of_a_response_is_answered() -> None:
    """One by one and in order, however they were cut; then the status OK."""
    parts = Parts(2)

    caller = processed(parts, frame(b"one"), frame(b"two"))

    assert caller.body(1) == frame(b"answer to one") + frame(b"answer to two")
    assert caller.status(1) == 0
    assert parts.closed == 1


def test_a_response_that_is_not_whole_is_never_ok() -> None:
    """Cut short, failed or broken: on OK Envoy would pass on the rest unfiltered."""
    assert processed(Parts(2), frame(b"one")).status(1) == CANCELLED
    assert processed(Parts(1, fails=True), frame(b"one")).status(1) == INTERNAL
    assert processed(Parts(1), b"\1\0\0\0\1x").status(1) == UNIMPLEMENTED
    assert processed(Parts(1), b"\0\x7f\0\0\0").status(1) == RESOURCE_EXHAUSTED


def test_a_caller_that_goes_leaves_no_processor() -> None:
    """A connection that is lost in the middle of a response closes what held it, once."""
    parts = Parts(2)

    processed(parts, frame(b"one"), end=False)

    assert (len(parts.seen), parts.closed) == (1, 1)


@pytest.mark.attack("empty-check-response")
@pytest.mark.parametrize("path", [CHECK, PROCESS])
def test_what_is_sent_and_reset_at_once_costs_the_others_nothing(path: str) -> None:
    """A request that is gone when its bytes are read raises nothing; the connection goes on."""
    parts = Parts(1)

    async def scene(caller: Caller) -> None:
        number = caller.begin(path)
        caller.client.send_data(number, frame(b"x"), end_stream=True)
        caller.client.reset_stream(number)
        await caller.turn()
        other = caller.ask(frame(b"other"))
        await caller.turn()
        assert caller.body(number) == b""
        assert caller.status(other) == 0

    play(scene, calls(process=lambda _: parts))


def test_responses_that_are_reset_leave_the_window_to_the_others() -> None:
    """What they sent and nobody read is given back: else a connection that many share stands still
    once its window, 16 MiB, is used up.
    """

    class Hanging(Parts):
        async def answer(self, raw: bytes) -> bytes:
            await asyncio.Event().wait()
            return raw

    async def scene(caller: Caller) -> None:
        for _ in range(40):
            number = caller.begin(PROCESS)
            caller.client.send_data(number, frame(b"first"))
            await caller.turn()
            for _ in range(32):
                assert caller.client.local_flow_control_window(number) >= 16_000
                caller.client.send_data(number, b"x" * 16_000)
            caller.flush()
            caller.client.reset_stream(number)
            await caller.turn()
        other = caller.ask(frame(b"other"))
        await caller.turn()
        assert caller.status(other) == 0

    play(scene, calls(process=lambda _: Hanging(2)))


def test_who_reads_no_answers_has_no_further_part_read() -> None:
    """What waits to be sent is bounded: the next part is read when the last answers are gone."""
    parts = Parts(1_000)

    def make(_: str) -> ResponseProcessor:
        return parts

    async def scene(caller: Caller) -> None:
        number = caller.begin(PROCESS)
        part = frame(b"x" * 15_000)
        sent = 0
        while sent < 60 and caller.client.local_flow_control_window(number) >= len(part):
            caller.client.send_data(number, part)
            sent += 1
            await caller.turn()
        # h2's window is 65,535 bytes, and nothing acknowledges what it was sent.
        assert len(parts.seen) < 11
        seen = len(parts.seen)
        caller.client.increment_flow_control_window(1 << 20, number)
        caller.client.increment_flow_control_window(1 << 20)
        for _ in range(sent):
            await caller.turn()
        assert len(parts.seen) == sent > seen

    play(scene, calls(never, process=make))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=8),
    st.lists(st.integers(1, 40), min_size=1, max_size=30),
)
def test_however_the_bytes_are_cut_the_answers_are_the_same(
    messages: Sequence[bytes], cuts: Sequence[int]
) -> None:
    """TCP may cut anywhere: each request gets the answer to its own message."""

    async def scene(caller: Caller) -> None:
        numbers = []
        for message in messages:
            number = caller.begin()
            caller.client.send_data(number, frame(message), end_stream=True)
            numbers.append(number)
        data, turn = caller.client.data_to_send(), 0
        while data:
            size = cuts[turn % len(cuts)]
            caller.http2.receive(data[:size])
            data, turn = data[size:], turn + 1
        await caller.turn()
        for number, message in zip(numbers, messages, strict=True):
            assert read_message(caller.body(number), 999) == b"answer to " + message
            assert caller.status(number) == 0

    play(scene)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_bytes_make_an_answer_or_a_fault(data: st.DataObject) -> None:
    """Frames that were changed anywhere end a request or the connection, and raise nothing."""

    async def run() -> None:
        caller = Caller(calls())
        caller.wire.takes = False
        number = caller.begin()
        caller.client.send_data(number, frame(b"question"), end_stream=True)
        sent = bytearray(caller.client.data_to_send())
        for _ in range(data.draw(st.integers(1, 6))):
            sent[data.draw(st.integers(0, len(sent) - 1))] = data.draw(st.integers(0, 255))
        caller.http2.receive(bytes(sent))
        for _ in range(TURNS):
            await asyncio.sleep(0)
        caller.http2.lost()
        for _ in range(TURNS):
            await asyncio.sleep(0)
        assert caller.http2.running == 0

    asyncio.run(run())
