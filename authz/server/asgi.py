"""The ASGI transport: ext_authz, ext_proc and grpc.health.v1 for a server with trailers.

Invariant: the status OK follows a whole message and nothing else, and every request is ended here.
Left to its server, an exception would become a gRPC answer with the status OK (pyvoy 1.3.0), and a
missing end would hang until the caller's timeout.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final

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
    CheckBytes,
    TracedCheck,
    is_grpc,
    traceparent,
)
from authz.server.processing import ResponseProcessor

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]
Handler = Callable[[Receive, Send], Awaitable[None]]
_START: Final[Mapping[str, Any]] = {
    "type": "http.response.start",
    "status": 200,
    "headers": [CONTENT_TYPE],
    "trailers": True,
}
_END: Final[Mapping[str, Any]] = {
    "type": "http.response.trailers",
    "headers": [(b"grpc-status", b"%d" % OK)],
    "more_trailers": False,
}


class AsgiTransport:
    """Serve a check as an ASGI application."""

    def __init__(self, calls: Calls) -> None:
        """Take what to serve; the server around it calls it for every request."""
        self._traced = calls.traced
        self._process = calls.process
        self._health = calls.health
        self._longest = calls.max_body + CHECK_OVERHEAD
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._methods: Mapping[str, Handler] = {
            CHECK: partial(self._on_check, calls.check),
            HEALTH_CHECK: self._on_health,
            HEALTH_WATCH: self._on_watch,
            PROCESS: partial(self._on_process, ""),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI 3.0, with http.response.trailers)."""
        method = self._methods.get(scope["path"])
        if scope["method"] != "POST" or not is_grpc(scope["headers"]):
            await _refuse_http(send)
        elif method is None:
            await refuse(send, UNIMPLEMENTED)
        elif self._traced is not None and scope["path"] == CHECK:
            await self._guard(self._traced_handler(scope, self._traced), receive, send)
        elif scope["path"] == PROCESS:
            handler = partial(self._on_process, traceparent(scope["headers"]))
            await self._guard(handler, receive, send)
        else:
            await self._guard(method, receive, send)

    async def _guard(self, method: Handler, receive: Receive, send: Send) -> None:
        """End the request whatever happens in it; a caller that has gone away is told nothing."""
        gone: asyncio.CancelledError | None = None
        # Nothing is awaited in an `except` or `finally`: compiled by mypyc, coroutines that wait
        # there share one current exception, and `raise` would raise another request's, or none.
        try:
            return await method(receive, send)
        except FrameError as broken:
            status = broken.status
        except asyncio.CancelledError as error:
            status, gone = UNAVAILABLE, error
        except OSError:
            return None  # the server's word for a caller that has gone away
        except Exception:  # noqa: BLE001 - the check raises nothing; whatever this is, it is no OK
            status = INTERNAL
        await refuse(send, status)
        if gone is not None:
            raise gone
        return None

    async def _on_check(self, decide: CheckBytes, receive: Receive, send: Send) -> None:
        raw = await _message(receive, self._longest)
        self._running += 1
        self._idle.clear()
        try:
            # The whole answer is there before anything is sent.
            answer = frame(await decide(raw))
            await _reply(send, answer)
        finally:
            self._running -= 1
            if not self._running:
                self._idle.set()

    def _traced_handler(self, scope: Scope, traced: TracedCheck) -> Handler:
        said = traceparent(scope["headers"])

        def decide(raw: bytes) -> Awaitable[bytes]:
            return traced(raw, said)

        return partial(self._on_check, decide)

    async def _on_process(self, traced_by: str, receive: Receive, send: Send) -> None:
        processing = None if self._process is None else self._process(traced_by)
        if processing is None:
            raise FrameError(UNIMPLEMENTED)
        status, gone = INTERNAL, None
        try:
            await send(_START)
            await _answer_parts(processing, receive, send)
            status = OK if processing.ended else CANCELLED
        except FrameError as broken:
            status = broken.status
        except asyncio.CancelledError as error:
            status, gone = UNAVAILABLE, error
        except Exception:  # noqa: BLE001 - recorded where it arose
            status = INTERNAL
        processing.close()
        # On status OK Envoy forwards the rest unfiltered (seen on 1.39.3).
        await _end(send, status)
        if gone is not None:
            raise gone

    async def _on_health(self, receive: Receive, send: Send) -> None:
        await _message(receive, MAX_HEALTH)
        await _reply(send, frame(codec.encode_health(serving=self._health.ready)))

    async def _on_watch(self, receive: Receive, send: Send) -> None:
        """Tell readiness now and whenever it changes, as long as the caller listens."""
        await _message(receive, MAX_HEALTH)
        telling = asyncio.create_task(self._tell(send))
        gone = asyncio.create_task(_gone(receive))
        ended: asyncio.CancelledError | None = None
        try:
            await asyncio.wait({telling, gone}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError as error:
            ended = error
        for task in (telling, gone):
            task.cancel()
        await asyncio.gather(telling, gone, return_exceptions=True)
        if ended is not None:
            raise ended

    async def _tell(self, send: Send) -> None:
        await send(_START)
        async for ready in self._health.watch():
            body = frame(codec.encode_health(serving=ready))
            await send({"type": "http.response.body", "body": body, "more_body": True})

    async def idle(self, grace: float) -> None:
        """Return when no check is being decided, at most `grace` seconds later."""
        with suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self._idle.wait()


async def _message(receive: Receive, longest: int) -> bytes:
    """Read the one message of a request.

    Raises:
        FrameError: where it is not exactly one, or longer than `longest`.
    """
    event = await receive()
    body: bytes = event.get("body", b"")
    if event.get("more_body"):
        body = await _rest(body, receive, longest)
    return read_message(body, longest)


async def _rest(body: bytes, receive: Receive, longest: int) -> bytes:
    chunks, length, more = [body], len(body), True
    while more:
        # Read no further than a message may go, whatever its prefix says.
        if length > PREFIX + longest:
            raise FrameError(RESOURCE_EXHAUSTED)
        event = await receive()
        chunk: bytes = event.get("body", b"")
        chunks.append(chunk)
        length += len(chunk)
        more = bool(event.get("more_body"))
    return b"".join(chunks)


async def _answer_parts(processing: ResponseProcessor, receive: Receive, send: Send) -> None:
    """Answer each part of a stream as it comes, until the caller ends it."""
    held, more = bytearray(), True
    while more:
        event = await receive()
        if event["type"] == "http.disconnect":
            return
        held += event.get("body", b"")
        more = bool(event.get("more_body"))
        while (part := take_message(held, MAX_PART)) is not None:
            body = frame(await processing.answer(part))
            await send({"type": "http.response.body", "body": body, "more_body": True})


async def _end(send: Send, status: int) -> None:
    """End an answer that has begun; who has gone away is not told."""
    trailers = [(b"grpc-status", b"%d" % status)]
    with suppress(Exception):
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        await send({"type": "http.response.trailers", "headers": trailers, "more_trailers": False})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _reply(send: Send, framed: bytes) -> None:
    await send(_START)
    await send({"type": "http.response.body", "body": framed, "more_body": False})
    await send(_END)


async def refuse(send: Send, status: int) -> None:
    """Answer with a gRPC status and no message; who has gone away is not told."""
    # Trailers-Only: the status is a header, and nothing follows.
    headers = [CONTENT_TYPE, (b"grpc-status", b"%d" % status)]
    with suppress(Exception):
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _refuse_http(send: Send) -> None:
    # PROTOCOL-HTTP2.md, "Requests": another content-type is answered with 415.
    with suppress(Exception):
        await send({"type": "http.response.start", "status": 415, "headers": []})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
