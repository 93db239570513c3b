"""What the gRPC calls of a transport of our own are, whatever carries their bytes."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Final

from authz.core.answers import TRACEPARENT
from authz.envoy import codec, list_codec
from authz.server.health import Health
from authz.server.processing import ProcessorFactory

CheckBytes = Callable[[bytes], Awaitable[bytes]]
# The same, with what the call's metadata says of Envoy's span.
TracedCheck = Callable[[bytes, str], Awaitable[bytes]]
HeaderFields = Iterable[tuple[bytes, bytes]]

CHECK: Final = f"/{codec.AUTHORIZATION}/Check"
HEALTH_CHECK: Final = f"/{codec.HEALTH}/Check"
HEALTH_WATCH: Final = f"/{codec.HEALTH}/Watch"
PROCESS: Final = f"/{list_codec.PROCESSOR}/Process"

# An MCP body of the largest size plus generous headers; what is longer is no CheckRequest.
CHECK_OVERHEAD: Final = 64 * 1024
# What Envoy passes on of a response at a time is less.
MAX_PART: Final = 1 << 20
# A HealthCheckRequest names a service.
MAX_HEALTH: Final = 1024

CONTENT_TYPE: Final = (b"content-type", b"application/grpc")
_CONTENT_TYPES: Final = frozenset({b"application/grpc", b"application/grpc+proto"})
_TRACEPARENT: Final = TRACEPARENT.encode()


@dataclass(frozen=True, slots=True)
class Calls:
    """Hold what answers the calls, for a transport to serve.

    Attributes:
        check: what answers Check.
        health: what answers probes.
        max_body: the longest body of a request, in bytes.
        process: what filters responses; None for nothing.
        traced: in place of `check`, where traces are recorded; gets the call's `traceparent`.
    """

    check: CheckBytes
    health: Health
    max_body: int
    process: ProcessorFactory | None = None
    traced: TracedCheck | None = None


def is_grpc(headers: HeaderFields) -> bool:
    """Tell whether a request says that it is gRPC (PROTOCOL-HTTP2.md, "Requests")."""
    return any(name == b"content-type" and value in _CONTENT_TYPES for name, value in headers)


def traceparent(headers: HeaderFields) -> str:
    """Return the one header `traceparent`; empty where there is none, or several."""
    said = [value for name, value in headers if name == _TRACEPARENT]
    return said[0].decode("latin-1") if len(said) == 1 else ""
