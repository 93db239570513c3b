"""The filter of list responses: parts of a response in, their answers out, for any transport.

Envoy opens a stream for a response that Check has marked, and passes on what each answer says.

Invariant: a part that is not understood raises, and the stream then ends with an error; no list
reaches a client but as `ListMessage.filtered` returns it (tests/server/test_list_filter.py).
"""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from authz.core.answers import CALLER, LIST, REQUEST_ID, RPC_ID, SERVER_NAME
from authz.core.caller import CallerError, read_caller
from authz.core.catalogue import UNLISTED, ToolDefinition
from authz.core.decision import RESUMED
from authz.core.event_stream import (
    EventSplitter,
    EventTooLongError,
    event_data,
    is_ambiguous,
    with_data,
)
from authz.core.listing import (
    LISTS,
    Definition,
    FilteredMessage,
    ListError,
    ListFault,
    ListMessage,
    not_shown,
    visibility,
)
from authz.envoy import list_codec
from authz.envoy.list_codec import BodyChunk, PartError, ResponseHead
from authz.http.bounded import is_utf8, media_type
from authz.server.check import Snapshot
from authz.telemetry.decision_spans import FilteredList, record_list
from authz.telemetry.metrics import UNKNOWN
from authz.telemetry.recorder import Recorder
from authz.telemetry.traces import Trace

FILTERED: Final = "filtered"
JSON: Final = "application/json"
EVENTS: Final = "text/event-stream"
# Bytes that one worker holds of responses that are not whole yet.
MAX_HELD: Final = 64 << 20
# And of those of one server: one that never ends its lists stops no other's. It is the longest
# list that can be configured.
MAX_HELD_OF_SERVER: Final = 16 << 20
# Bytes of a message from which on it is read in a thread, so that nobody's check waits for it.
_LONG: Final = 32 * 1024
_DIGITS: Final = 15  # of a Content-Length
# Events after which the loop serves others: a chunk of 64 KiB may hold 30,000.
_TURN: Final = 64


class Observer(Protocol):
    """Take notice of what servers list, before it is decided what a client sees; raises nothing."""

    def read(self, server: str, definitions: tuple[Definition, ...]) -> tuple[ToolDefinition, ...]:
        """Return what matters of a list; in any thread."""
        ...

    def see(self, server: str, definitions: tuple[ToolDefinition, ...]) -> None:
        """Take notice of what was read; on the event loop, so it is quick."""
        ...


class ListFilter:
    """Filter the lists of MCP servers for their readers, for as many at once as Envoy sends."""

    def __init__(
        self,
        snapshot: Callable[[], Snapshot],
        recorder: Recorder,
        observer: Callable[[], Observer],
    ) -> None:
        """Take what is in force.

        Args:
            snapshot: returns the configuration that is in force.
            recorder: counts and logs.
            observer: returns who is told what servers list.
        """
        self.snapshot: Final = snapshot
        self.recorder: Final = recorder
        self.observer: Final = observer
        # Bytes of all responses that are not whole yet, and of those by server.
        self.held = 0
        self.held_of: Final = Counter[str]()
        # One at a time of each server: they would only take one another's time, not another's.
        self.threads: Final = defaultdict[str, asyncio.Lock](asyncio.Lock)

    def open(self, traceparent: str = "") -> "ListResponse":
        """Begin a response.

        Args:
            traceparent: what the call's metadata says of Envoy's own span; empty for nothing.
        """
        return ListResponse(self, traceparent)


class ListResponse:
    """Answer the parts of one response, in their order."""

    def __init__(self, of: ListFilter, traceparent: str = "") -> None:
        self._of = of
        tracer = of.recorder.tracer
        self._trace: Trace | None = None
        if tracer is not None:
            self._trace = tracer.begin(traceparent, time.perf_counter())
        self._busy = 0.0  # seconds; a response may be a stream that lasts
        self._fault = ""
        self._told: Mapping[str, str] = {}
        self._body: _Body | None = None
        self._held = 0
        self._broken = False
        self.ended = False

    async def answer(self, raw: bytes) -> bytes:
        """Return the answer to one part.

        Raises:
            ListError: where the response must not go on, which is recorded.
        """
        began = time.perf_counter()
        try:
            return await self._answer(raw)
        finally:
            self._busy += time.perf_counter() - began

    async def _answer(self, raw: bytes) -> bytes:
        try:
            part = list_codec.decode(raw)
            answer = self._head(part) if isinstance(part, ResponseHead) else await self._chunk(part)
        except ListError as error:
            wrong = error
        except PartError as broken:
            wrong = ListError(ListFault.INTERNAL, str(broken))
        else:
            self.ended = part.ended
            return answer
        self._broken = True
        self._record(wrong)
        raise wrong

    def close(self) -> None:
        """Forget what was held, end the span; to be called at the end, whatever happened."""
        self._hold(0)
        trace, tracer, self._trace = self._trace, self._of.recorder.tracer, None
        if trace is None or tracer is None:
            return
        known = self._of.snapshot().policy.servers
        name = self._told.get(SERVER_NAME, "")
        facts = FilteredList(
            name if name in known else UNKNOWN, self._told.get(LIST, ""), self._fault
        )
        try:
            record_list(tracer, trace, facts, self._told.get(REQUEST_ID, ""), self._busy)
        except Exception as error:  # noqa: BLE001 - a span costs no response
            self._of.recorder.crash(error)

    def _head(self, head: ResponseHead) -> bytes:
        if self._body is not None or self._broken:
            raise ListError(ListFault.INTERNAL, "a head out of place")
        self._told = head.told
        reader = _MessageFilter(self._of, head.told, self._record)
        self._body = _body(head, reader, self._of.snapshot().policy.max_list)
        return list_codec.encode_head(changes_body=not isinstance(self._body, _UnchangedBody))

    async def _chunk(self, chunk: BodyChunk) -> bytes:
        if self._body is None or self._broken or self.ended:
            raise ListError(ListFault.INTERNAL, "a chunk out of place")
        data = await self._body.chunk(chunk)
        self._hold(self._body.held)
        return list_codec.encode_body(data)

    def _hold(self, length: int) -> None:
        of, server = self._of, self._told.get(SERVER_NAME, "")
        of.held += length - self._held
        of.held_of[server] += length - self._held
        self._held = length
        if not of.held_of[server]:
            del of.held_of[server]
        if length and of.held > MAX_HELD:
            raise ListError(ListFault.OVERLOAD)
        if length and of.held_of[server] > MAX_HELD_OF_SERVER:
            raise ListError(ListFault.OVERLOAD, "too much of one server")

    def _record(self, error: ListError) -> None:
        told, known = self._told, self._of.snapshot().policy.servers
        name = told.get(SERVER_NAME, "")
        self._fault = error.fault.value
        self._of.recorder.list_not_shown(
            name if name in known else UNKNOWN,
            told.get(LIST, ""),
            told.get(REQUEST_ID, ""),
            error.fault.value,
            error.detail,
        )


class _MessageFilter:
    """Filter messages for the one who asked."""

    def __init__(
        self, of: ListFilter, told: Mapping[str, str], record: Callable[[ListError], None]
    ) -> None:
        self._of = of
        self._told = told
        self._record = record
        policy, asked = of.snapshot().policy, told.get(LIST, "")
        server = policy.servers.get(told.get(SERVER_NAME, ""))
        if server is None or not (asked == RESUMED or asked in LISTS):
            raise ListError(ListFault.UNKNOWN_CALLER, "no server or no list")
        self._server = server
        self._lists = tuple(LISTS.values()) if asked == RESUMED else (LISTS[asked],)
        try:
            self._principal = read_caller(told.get(CALLER, ""))
        except CallerError:
            raise ListError(ListFault.UNKNOWN_CALLER, "no principal") from None

    def error(self, wrong: ListError) -> bytes:
        """Record what is wrong and return the error to the request.

        Raises:
            ListError: what is wrong, not recorded, where the request's id is not known.
        """
        rpc_id = self._told.get(RPC_ID)
        if rpc_id is None:
            raise wrong
        self._record(wrong)
        return not_shown(rpc_id, self._told.get(REQUEST_ID, ""))

    async def filtered(self, message: bytes) -> FilteredMessage:
        """Return a message without what is not shown.

        Raises:
            ListError: as `ListMessage`.
        """
        if len(message) < _LONG:
            found, observer, tools = self._read(message)
            self._see(found, observer, tools)
            shown = self._show(found)
        else:
            async with self._of.threads[self._server.name]:
                found, observer, tools = await asyncio.to_thread(self._read, message)
                self._see(found, observer, tools)
                shown = await asyncio.to_thread(self._show, found)
        if found.definitions:
            self._of.recorder.metrics.lists.labels(self._server.name, FILTERED).inc()
        return shown

    def _read(self, message: bytes) -> tuple[ListMessage, Observer, tuple[ToolDefinition, ...]]:
        """Read a message, and its tools by the observer that is in force."""
        found = ListMessage(message, self._lists)
        observer = self._of.observer()
        tools = observer.read(self._server.name, found.definitions) if found.definitions else ()
        return found, observer, tools

    def _see(self, found: ListMessage, reader: Observer, tools: tuple[ToolDefinition, ...]) -> None:
        if not found.definitions:
            return
        observer, server = self._of.observer(), self._server.name
        if observer is not reader:  # a reload came between, and the new one must know
            tools = observer.read(server, found.definitions)
        observer.see(server, tools)

    def _show(self, found: ListMessage) -> FilteredMessage:
        snapshot, server = self._of.snapshot(), self._server
        catalogue = snapshot.catalogues.get(server.name, UNLISTED)
        return found.filtered(visibility(server, self._principal, snapshot.policy, catalogue))


class _Body(Protocol):
    """Say what takes the place of the chunks of a body."""

    @property
    def held(self) -> int:
        """Return how many bytes wait for what is to come."""
        ...

    async def chunk(self, chunk: BodyChunk) -> bytes | None:
        """Return what takes the place of a chunk; None for the chunk itself.

        Raises:
            ListError: where the response must not go on.
        """
        ...


def _body(head: ResponseHead, reader: _MessageFilter, longest: int) -> _Body:
    headers = head.headers
    media = media_type(headers.get(list_codec.TYPE, ""))
    if head.ended:
        return _UnchangedBody()
    if media not in {JSON, EVENTS}:
        # A refusal in plain text, as servers and what stands before them write it, is no list to
        # any client; a success of another type might be one to some.
        if _is_refusal(headers):
            return _UnchangedBody()
        raise ListError(ListFault.MEDIA_TYPE)
    if not is_utf8(headers.get(list_codec.TYPE, "")):
        raise ListError(ListFault.ENCODING, "a charset other than UTF-8")
    if headers.get(list_codec.ENCODING, "identity").strip().lower() != "identity":
        raise ListError(ListFault.ENCODING)
    if media == EVENTS:
        return _EventBody(reader, longest)
    length = headers.get(list_codec.LENGTH, "0")
    if not length.isdecimal() or len(length) > _DIGITS or int(length) > longest:
        raise ListError(ListFault.TOO_LARGE)
    return _JsonBody(reader, longest)


def _is_refusal(headers: Mapping[str, str]) -> bool:
    # Clients look for the beginning of the type, or for a part of it.
    media = headers.get(list_codec.TYPE, "").lower()
    return headers.get(list_codec.STATUS, "")[:1] in {"4", "5"} and not any(
        each in media for each in (JSON, EVENTS)
    )


class _UnchangedBody:
    """Pass a body on that is no list to anybody."""

    held = 0

    async def chunk(self, _: BodyChunk) -> bytes | None:
        return None


class _JsonBody:
    """Hold a JSON document until it is whole, and pass on what is left of it."""

    def __init__(self, reader: _MessageFilter, longest: int) -> None:
        self._reader = reader
        self._longest = longest
        self._pieces: list[bytes] = []
        self._failed = False
        self.held = 0

    async def chunk(self, chunk: BodyChunk) -> bytes | None:
        if self._failed:
            return b""
        try:
            return await self._whole(chunk)
        except ListError as wrong:
            # The head has gone already: an error takes the place of the document.
            answer = self._reader.error(wrong)
            self._failed, self._pieces, self.held = True, [], 0
            return answer

    async def _whole(self, chunk: BodyChunk) -> bytes:
        self._pieces.append(chunk.data)
        self.held += len(chunk.data)
        if self.held > self._longest:
            raise ListError(ListFault.TOO_LARGE)
        if not chunk.ended:
            return b""
        document, self._pieces, self.held = b"".join(self._pieces), [], 0
        return (await self._reader.filtered(document)).body if document else b""


class _EventBody:
    """Hold each event of a stream until it is whole, and pass on what is left of its message."""

    def __init__(self, reader: _MessageFilter, longest: int) -> None:
        self._reader = reader
        self._splitter = EventSplitter(longest)

    @property
    def held(self) -> int:
        return self._splitter.held

    async def chunk(self, chunk: BodyChunk) -> bytes | None:
        try:
            events = self._splitter.feed(chunk.data)
        except EventTooLongError:
            # The stream ends here: what follows belongs to an event that nobody reads.
            raise ListError(ListFault.TOO_LARGE) from None
        if chunk.ended:
            events.append(self._splitter.rest())
        answers = list[bytes]()
        for number, event in enumerate(events, 1):
            answers.append(await self._event(event))
            if number % _TURN == 0:
                await asyncio.sleep(0)
        return b"".join(answers)

    async def _event(self, event: bytes) -> bytes:
        if is_ambiguous(event):
            # None of its lines is left: clients differ about what they are.
            error = ListError(ListFault.AMBIGUOUS, "an event that clients read differently")
            return b"data: " + self._reader.error(error) + b"\n\n"
        data = event_data(event)
        # The first event of a stream that can be resumed has no data, and others keep it open with
        # words. Whatever could hold an object is read, whatever stands before it: some clients drop
        # a guard against scripts.
        if data is None or b"{" not in data:
            return event
        try:
            filtered = await self._reader.filtered(data)
        except ListError as error:
            return with_data(event, self._reader.error(error))
        return event if filtered.body is data else with_data(event, filtered.body)
