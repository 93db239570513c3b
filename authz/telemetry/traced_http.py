"""Calls by httpx as spans (OpenTelemetry's conventions for HTTP clients).

Invariant: neither query, header nor body of a call is in its span, and nothing that goes wrong in
recording it changes the call (tests/telemetry/test_traced_http.py).
"""

import time
from collections.abc import Callable

import httpx

from authz.telemetry.traces import CURRENT, Attribute, OutgoingCall, Tracer

_FAULT = 400  # a status from which on a client's span is an error


class TracedTransport(httpx.AsyncBaseTransport):
    """Record each request that another transport carries; its time ends with the head."""

    def __init__(self, inner: httpx.AsyncBaseTransport, tracer: Tracer) -> None:
        """Take what carries them, and what keeps traces."""
        self._inner = inner
        self._tracer = tracer

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Carry a request.

        Raises:
            httpx.HTTPError: as the other transport.
        """
        began = time.perf_counter()
        try:
            response = await self._inner.handle_async_request(request)
        except BaseException as error:  # a cancelled call is one that took too long
            self._record(request, began, type(error).__name__, None)
            raise
        status = response.status_code
        self._record(request, began, str(status) if status >= _FAULT else "", status)
        return response

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()

    def _record(self, request: httpx.Request, began: float, error: str, status: int | None) -> None:
        path = request.url.path
        attributes: list[tuple[str, Attribute]] = [
            ("http.request.method", request.method),
            ("server.address", request.url.host),
            ("url.scheme", request.url.scheme),
            ("url.path", path),
        ]
        if request.url.port is not None:
            attributes.append(("server.port", request.url.port))
        if status is not None:
            attributes.append(("http.response.status_code", status))
        call = OutgoingCall(
            f"{request.method} {path}", began, time.perf_counter(), tuple(attributes), error
        )
        trace = CURRENT.get()
        if trace is None or not trace.add(call):
            self._tracer.call_alone(call)


Wrap = Callable[[httpx.AsyncBaseTransport], httpx.AsyncBaseTransport]


def traced_by(tracer: Tracer | None) -> Wrap | None:
    """Return what makes a transport traced; None where nothing is."""
    if tracer is None:
        return None

    def wrap(inner: httpx.AsyncBaseTransport) -> httpx.AsyncBaseTransport:
        return TracedTransport(inner, tracer)

    return wrap
