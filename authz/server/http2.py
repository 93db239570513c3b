"""One HTTP/2 connection of Envoy's: ext_authz, ext_proc and grpc.health.v1 over a byte stream.

Framing, HPACK, flow control and the rules of RFC 9113 are nghttp2's (the package ngh2, which has no
I/O). The bounds on what a peer may hold, and every gRPC status, are here.

Invariant: the status OK follows a whole message and nothing else, and every request is ended here:
to Envoy an empty CheckResponse with the status OK is an Allow.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Final, Protocol

from ngh2 import (
    Configuration,
    Connection,
    DataReceived,
    Event,
    NGH2Error,
    RequestReceived,
    Role,
    Setting,
    StreamClosed,
    StreamReset,
    TrailersReceived,
)

from authz.envoy import codec
from authz.server.framing import (
    CANCELLED,
    INTERNAL,
    OK,
    PREFIX,
    RESOURCE_EXHAUSTED,
    UNAVAILABLE,
    UNIMPLEMENTED,
    FrameError,
    frame,
    read_message,
    take_message,
)
from authz.server.grpc_calls import (
    CHECK,
    CHECK_OVERHEAD,
    CONTENT_TYPE,
    HEALTH_CHECK,
    HEALTH_WATCH,
    MAX_HEALTH,
    MAX_PART,
    PROCESS,
    Calls,
    is_grpc,
    traceparent,
)
from authz.server.processing import ResponseProcessor

# Requests at once on a connection; Envoy's own bound is lower, by its circuit breakers.
_STREAMS: Final = 10_000
# Header fields of a request: what Envoy's tracer passes on of a caller's. A request that has more
# is refused alone. nghttp2's own bounds, wider, end the connection.
_FIELDS: Final = 100
_FIELD_BYTES: Final = 32 * 1024
# Bytes of unfinished messages of a connection; the request that exceeds them is refused.
_HELD: Final = 64 << 20
# Bytes of answers on a stream that wait for its peer, until the next part is read.
_UNSENT: Final = 64 * 1024

_OK: Final = [(b"grpc-status", b"0")]
_START: Final = [(b":status", b"200"), CONTENT_TYPE]
_NOT_GRPC: Final = [(b":status", b"415")]

_SETTINGS: Final = {
    Setting.MAX_CONCURRENT_STREAMS: _STREAMS,
    # A part of a response in one go; longer messages as they are read.
    Setting.INITIAL_WINDOW_SIZE: MAX_PART + PREFIX,
}
_CONNECTION_WINDOW: Final = 16 << 20
_CONFIGURATION: Final = Configuration(
    auto_window_update=False,
    max_inbound_header_count=2_000,
    max_inbound_header_list_size=1 << 20,
)


class ByteTransport(Protocol):
    """Name what is needed of an asyncio transport."""

    def write(self, data: bytes) -> None:
        """Send bytes, now or later."""
        ...

    def pause_reading(self) -> None:
        """Read nothing more."""
        ...

    def resume_reading(self) -> None:
        """Read again."""
        ...

    def close(self) -> None:
        """Send what is left, and close."""
        ...

    def abort(self) -> None:
        """Close at once."""
        ...


class Stream:
    """Hold what has come of one request.

    Attributes:
        number: its stream identifier.
        path: the method that is called.
        longest: bytes of the longest message that it may send.
        traceparent: of the call; empty where there is none, or several.
        held: what has come and is not read yet.
        unread: bytes for which the peer has no window back yet; of Process.
        ended: whether the request is whole.
        task: what answers it; None while nothing has to be awaited.
        wakeup: set where something has come, or has been sent; of Process.
    """

    __slots__ = (
        "ended",
        "held",
        "longest",
        "number",
        "path",
        "task",
        "traceparent",
        "unread",
        "wakeup",
    )

    def __init__(self, number: int, path: str, longest: int, traceparent: str) -> None:
        """Begin without a message."""
        self.number = number
        self.path = path
        self.longest = longest
        self.traceparent = traceparent
        self.held = bytearray()
        self.unread = 0
        self.ended = False
        self.task: asyncio.Task[None] | None = None
        self.wakeup = asyncio.Event()


class Http2Connection:
    """Answer the requests of one connection.

    Attributes:
        running: checks and responses that are being answered.
    """

    def __init__(self, calls: Calls, transport: ByteTransport, on_idle: Callable[[], None]) -> None:
        """Begin with our settings.

        Args:
            calls: what answers.
            transport: where answers are written.
            on_idle: called whenever nothing is being answered any more.
        """
        self.running = 0
        self._calls = calls
        self._transport = transport
        self._on_idle = on_idle
        self._streams: dict[int, Stream] = {}
        self._waiting_for_room: list[Stream] = []
        self._held = 0
        self._is_flushing = False
        self._is_paused = False
        self._is_closed = False
        self._loop = asyncio.get_running_loop()
        self._longest = {
            CHECK: calls.max_body + CHECK_OVERHEAD,
            HEALTH_CHECK: MAX_HEALTH,
            HEALTH_WATCH: MAX_HEALTH,
            PROCESS: MAX_PART,
        }
        self._http2 = Connection(Role.SERVER, _CONFIGURATION)
        self._http2.initiate_connection(_SETTINGS)
        self._http2.set_local_window_size(_CONNECTION_WINDOW)
        self._flush()

    # --- the connection -----------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Take bytes of the peer; one that breaks RFC 9113 loses the connection."""
        if self._is_closed:
            return
        try:
            self._http2.receive_data(data)
        except NGH2Error:
            self.close()
            return
        for event in self._http2.events():
            self._on_event(event)
        self._flush()

    def pause(self) -> None:
        """Write nothing until `resume`, and read nothing: who reads no answers gets no more."""
        self._is_paused = True
        self._transport.pause_reading()

    def resume(self) -> None:
        """Go on after `pause`."""
        self._is_paused = False
        self._transport.resume_reading()
        self._flush()

    def go_away(self) -> None:
        """Tell the peer to send new requests elsewhere; those that still come are answered."""
        self._http2.send_shutdown_notice()
        self._flush()

    def close(self) -> None:
        """End the connection, once what was written has been sent."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._is_paused:
            self._transport.abort()  # who reads nothing would keep it open
        else:
            self._write()
            self._transport.close()
        self.lost()

    def lost(self) -> None:
        """Forget all requests: the connection is gone."""
        self._is_closed = True
        for number in tuple(self._streams):
            self._give_up(number)

    def _schedule_flush(self) -> None:
        """Write once for all that is answered in a turn of the loop."""
        if not self._is_flushing:
            self._is_flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flushing = False
        if self._is_paused or self._is_closed:
            return
        self._write()
        if not (self._http2.want_read or self._http2.want_write):
            self.close()

    def _write(self) -> None:
        try:
            data = self._http2.data_to_send()
        except NGH2Error:
            data = b""
        if data:
            self._transport.write(data)
            waiting, self._waiting_for_room = self._waiting_for_room, []
            for stream in waiting:
                stream.wakeup.set()

    # --- a request ----------------------------------------------------------------------------

    def _on_event(self, event: Event) -> None:
        if isinstance(event, DataReceived):
            self._on_data(event.stream_id, event.data)
            if event.end_stream:
                self._on_end(event.stream_id)
        elif isinstance(event, RequestReceived):
            self._on_request(event.stream_id, event.headers)
            if event.end_stream:
                self._on_end(event.stream_id)
        elif isinstance(event, (StreamClosed, StreamReset)):
            self._give_up(event.stream_id)
        elif isinstance(event, TrailersReceived):
            # No caller of gRPC has trailers to send.
            self._reset(event.stream_id)
            self._give_up(event.stream_id)

    def _on_request(self, number: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        if len(headers) > _FIELDS or _size(headers) > _FIELD_BYTES:
            return self._refuse(number, RESOURCE_EXHAUSTED)
        named = dict(headers)
        if named.get(b":method") != b"POST" or not is_grpc(headers):
            self._send(number, _NOT_GRPC)
            return None
        path = named.get(b":path", b"").decode("latin-1")
        longest = self._longest.get(path)
        if longest is None:
            return self._refuse(number, UNIMPLEMENTED)
        stream = Stream(number, path, longest, traceparent(headers))
        self._streams[number] = stream
        if path == PROCESS:
            self._begin(stream, self._process(stream))
        return None

    def _on_data(self, number: int, data: bytes) -> None:
        stream = self._streams.get(number)
        if stream is None:  # refused, or gone
            return self._acknowledge(number, len(data))
        stream.held += data
        if stream.path == PROCESS:
            stream.unread += len(data)
            stream.wakeup.set()
            return None
        self._held += len(data)
        if self._held > _HELD or len(stream.held) > PREFIX + stream.longest:
            self._refuse(number, RESOURCE_EXHAUSTED)
        return self._acknowledge(number, len(data))

    def _on_end(self, number: int) -> None:
        stream = self._streams.get(number)
        if stream is None:
            return
        stream.ended = True
        if stream.path == PROCESS:
            stream.wakeup.set()
            return
        self._held -= len(stream.held)
        body, stream.held = bytes(stream.held), bytearray()
        try:
            message = read_message(body, stream.longest)
        except FrameError as broken:
            self._refuse(number, broken.status)
            return
        if stream.path == CHECK:
            self._begin(stream, self._decide(stream, message))
        elif stream.path == HEALTH_CHECK:
            self._reply(number, frame(codec.encode_health(serving=self._calls.health.ready)))
        else:
            stream.task = self._loop.create_task(self._watch(stream))

    def _begin(self, stream: Stream, work: Coroutine[None, None, None]) -> None:
        self.running += 1
        stream.task = self._loop.create_task(work)
        stream.task.add_done_callback(self._on_done)

    def _on_done(self, _: object) -> None:
        self.running -= 1
        if not self.running:
            self._on_idle()

    def _give_up(self, number: int) -> None:
        """Forget a request that nobody waits for, and cancel what answers it."""
        stream = self._forget(number)
        if stream is not None and stream.task is not None:
            stream.task.cancel()

    def _forget(self, number: int) -> Stream | None:
        """Forget a request, and return it where it was known; what still comes is not read."""
        stream = self._streams.pop(number, None)
        if stream is None:
            return None
        if stream.path != PROCESS:
            self._held -= len(stream.held)
        # The connection's window is everybody's: what was not read of this one is given back.
        unread, stream.unread = stream.unread, 0
        self._acknowledge(number, unread)
        return stream

    def _acknowledge(self, number: int, length: int) -> None:
        """Give the peer its window back."""
        if length and not self._is_closed:
            self._http2.acknowledge_received_data(length, number)
            self._schedule_flush()

    # --- answers ------------------------------------------------------------------------------

    async def _decide(self, stream: Stream, message: bytes) -> None:
        calls, status, answer = self._calls, OK, b""
        # Nothing is awaited in an `except`: compiled by mypyc, coroutines that wait there share one
        # current exception.
        try:
            if calls.traced is None:
                answer = frame(await calls.check(message))
            else:
                answer = frame(await calls.traced(message, stream.traceparent))
        except asyncio.CancelledError:
            # Nobody waits any more, or the service has no time left.
            status = UNAVAILABLE
        except Exception:  # noqa: BLE001 - the check raises nothing; whatever this is, it is no OK
            status = INTERNAL
        if status == OK:
            self._reply(stream.number, answer)
        else:
            self._refuse(stream.number, status)

    async def _watch(self, stream: Stream) -> None:
        """Tell readiness now and whenever it changes, as long as the caller listens."""
        number = stream.number
        try:
            self._http2.send_response(number, _START)
            async for ready in self._calls.health.watch():
                self._http2.send_data(number, frame(codec.encode_health(serving=ready)))
                self._schedule_flush()
        except NGH2Error:
            pass  # it is gone

    async def _process(self, stream: Stream) -> None:
        """Answer part by part; what ends before its response is whole ends with an error."""
        # Made here: a task that is cancelled before it runs has nothing to close.
        make = self._calls.process
        processing = None if make is None else make(stream.traceparent)
        if processing is None:
            self._refuse(stream.number, UNIMPLEMENTED)
            return
        status = INTERNAL
        try:
            self._http2.send_response(stream.number, _START)
            self._schedule_flush()
            await self._answer_parts(stream, processing)
            # On status OK Envoy forwards the rest unfiltered (seen on 1.39.3).
            status = OK if processing.ended else CANCELLED
        except FrameError as broken:
            status = broken.status
        except asyncio.CancelledError:
            status = UNAVAILABLE
        except Exception:  # noqa: BLE001 - recorded where it arose
            status = INTERNAL
        processing.close()
        self._end(stream.number, status)

    async def _answer_parts(self, stream: Stream, processing: ResponseProcessor) -> None:
        """Answer each part of a stream as it comes, until the caller ends it."""
        while True:
            stream.wakeup.clear()
            # Who reads no answers has no further part read, and gets no window for one.
            if self._http2.queued_body_size(stream.number) > _UNSENT:
                self._waiting_for_room.append(stream)
                await stream.wakeup.wait()
                continue
            part = take_message(stream.held, stream.longest)
            if part is not None:
                answer = frame(await processing.answer(part))
                self._http2.send_data(stream.number, answer)
                self._schedule_flush()
            elif stream.ended:
                return
            else:
                unread, stream.unread = stream.unread, 0
                self._acknowledge(stream.number, unread)
                await stream.wakeup.wait()

    def _reply(self, number: int, framed: bytes) -> None:
        """Answer with one message and the status OK."""
        try:
            self._http2.send_response(number, _START)
            self._http2.send_data(number, framed)
            self._http2.send_trailers(number, _OK)
        except NGH2Error:
            self._reset(number)  # it is gone, or was answered in part
        self._finish(number)

    def _refuse(self, number: int, status: int) -> None:
        """Answer with a status and no message: Trailers-Only, or trailers where it has begun."""
        self._send(number, [*_START, (b"grpc-status", b"%d" % status)])

    def _send(self, number: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        try:
            self._http2.send_response(number, headers, end_stream=True)
        except NGH2Error:
            self._reset(number)
        self._finish(number)

    def _end(self, number: int, status: int) -> None:
        """End an answer that has begun."""
        try:
            self._http2.send_trailers(number, [(b"grpc-status", b"%d" % status)])
        except NGH2Error:
            self._reset(number)
        self._finish(number)

    def _finish(self, number: int) -> None:
        """Forget a request that is answered, and have the answer sent."""
        self._forget(number)
        self._schedule_flush()

    def _reset(self, number: int) -> None:
        with suppress(NGH2Error):  # it is gone
            self._http2.reset_stream(number)


def _size(headers: Sequence[tuple[bytes, bytes]]) -> int:
    return sum(len(name) + len(value) for name, value in headers)
