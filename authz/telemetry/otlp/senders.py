"""Send OTLP's messages, by HTTP or gRPC (OTLP 1.x, "OTLP/HTTP" and "OTLP/gRPC").

Invariant: no redirect is followed, so that the headers of `headers_file` go nowhere else; an answer
is read to a bounded length and for a bounded time, however it comes; nothing is raised but
`ExportError` (tests/telemetry/otlp/test_senders.py).
"""

import asyncio
import gzip
import ssl
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Final, Protocol

import httpx
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from authz.config import urls
from authz.http.bounded import BodyTooLargeError, read_body
from authz.http.bounded_network import BoundedTransport

_LARGEST: Final = 64 * 1024  # bytes of an answer, which has a few
_OK: Final = 200
_AGAIN: Final = frozenset({429, 502, 503, 504})  # "Retryable Response Codes"
_LONGEST_PAUSE: Final = 30.0
_TYPE: Final = "application/x-protobuf"


class Signal(Enum):
    """What OTLP carries."""

    TRACES = "traces"
    METRICS = "metrics"
    LOGS = "logs"


class ExportError(Exception):
    """Say that a message was not taken.

    Attributes:
        detail: why, in fixed words.
        may_retry: whether it may be sent once more.
        pause: seconds before that, as the collector asks; 0 where it does not.
    """

    def __init__(self, detail: str, *, may_retry: bool, pause: float = 0.0) -> None:
        """Keep what it is."""
        super().__init__(detail)
        self.detail = detail
        self.may_retry = may_retry
        self.pause = min(pause, _LONGEST_PAUSE)


class Sender(Protocol):
    """Carry messages to a collector; of one thread."""

    def send(self, signal: Signal, message: bytes, seconds: float) -> int:
        """Send one message; return how much of it the collector rejected.

        Args:
            signal: what it holds.
            message: the serialized request.
            seconds: how long it may take.

        Raises:
            ExportError: where it was not taken.
        """
        ...

    def close(self) -> None:
        """Close the connections."""
        ...


def rejected(signal: Signal, answer: bytes) -> int:
    """Return how many spans, points or records an answer says were rejected.

    Raises:
        ExportError: where it is none.
    """
    try:
        if signal is Signal.TRACES:
            spans = ExportTraceServiceResponse.FromString(answer)
            return max(0, spans.partial_success.rejected_spans)
        if signal is Signal.METRICS:
            points = ExportMetricsServiceResponse.FromString(answer)
            return max(0, points.partial_success.rejected_data_points)
        records = ExportLogsServiceResponse.FromString(answer)
        return max(0, records.partial_success.rejected_log_records)
    except DecodeError:
        raise ExportError("the answer is not OTLP's", may_retry=False) from None


class HttpSender:
    """Send by HTTP, in protobuf."""

    def __init__(self, endpoint: str, headers: Sequence[tuple[str, str]]) -> None:
        """Take the URL before `/v1/...`, and the headers that the collector asks for."""
        self._base = endpoint
        self._headers = httpx.Headers(list(headers))
        self._headers.update(
            {"content-type": _TYPE, "content-encoding": "gzip", "accept-encoding": "identity"}
        )
        # A loop of this thread's own: it can end what comes without an end, at any time.
        self._runner = asyncio.Runner()
        self._client = httpx.AsyncClient(
            transport=BoundedTransport(2 * _LARGEST, ssl.create_default_context()),
            follow_redirects=False,
            trust_env=False,
        )

    def send(self, signal: Signal, message: bytes, seconds: float) -> int:
        """Send one message, as `Sender` says."""
        body = gzip.compress(message, compresslevel=1)
        request = self._client.build_request(
            "POST",
            f"{self._base}/v1/{signal.value}",
            content=body,
            headers=self._headers,
            timeout=max(0.1, seconds),
        )
        try:
            status, answer, told = self._runner.run(self._answered(request, seconds))
        except TimeoutError:
            raise ExportError("no whole answer in time", may_retry=True) from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            raise ExportError(type(error).__name__, may_retry=True) from None
        if status != _OK:
            may_retry = status in _AGAIN
            raise ExportError(f"status {status}", may_retry=may_retry, pause=_seconds(told))
        return rejected(signal, answer)

    async def _answered(
        self, request: httpx.Request, seconds: float
    ) -> tuple[int, bytes, httpx.Headers]:
        async with asyncio.timeout(max(0.1, seconds)):
            response = await self._client.send(request, stream=True)
            self._client.cookies.clear()
            try:
                answer = await read_body(response.aiter_raw(), _LARGEST)
            except BodyTooLargeError:
                raise ExportError("the answer is too long", may_retry=False) from None
            finally:
                await response.aclose()
            return response.status_code, answer, response.headers

    def close(self) -> None:
        """Close the connections."""
        self._runner.run(self._client.aclose())
        self._runner.close()


def _seconds(headers: Mapping[str, str]) -> float:
    """Return the delay of a Retry-After; 0 where there is none, or a date."""
    text = headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdigit() and len(text) < len("10000") else 0.0


def grpc_sender(endpoint: str, headers: Sequence[tuple[str, str]]) -> Sender:
    """Return what sends by gRPC, which is loaded here."""
    from authz.telemetry.otlp.grpc_sender import GrpcSender  # noqa: PLC0415 - only where it is used

    url = urls.split(endpoint)
    return GrpcSender(f"{url.host}:{url.port}", headers, tls=url.scheme == "https")
