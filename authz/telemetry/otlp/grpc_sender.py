"""Send OTLP's messages by gRPC."""

from collections.abc import Sequence
from typing import Final

import grpc

from authz.telemetry.otlp.senders import ExportError, Signal, rejected

_LARGEST: Final = 64 * 1024  # bytes of an answer
_METHODS: Final = {
    Signal.TRACES: "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    Signal.METRICS: "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    Signal.LOGS: "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
}
# OTLP, "Failures": the codes with which the same request may be sent again.
_AGAIN: Final = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
)
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", _LARGEST),
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
    ("grpc.max_reconnect_backoff_ms", 5_000),
)


class GrpcSender:
    """Send by gRPC."""

    def __init__(self, target: str, headers: Sequence[tuple[str, str]], *, tls: bool) -> None:
        """Take host and port, and the metadata that the collector asks for."""
        self._metadata = tuple(headers)
        if tls:
            credentials = grpc.ssl_channel_credentials()
            self._channel = grpc.secure_channel(target, credentials, options=_OPTIONS)
        else:
            self._channel = grpc.insecure_channel(target, options=_OPTIONS)
        self._calls: dict[Signal, grpc.UnaryUnaryMultiCallable[bytes, bytes]] = {
            signal: self._channel.unary_unary(method) for signal, method in _METHODS.items()
        }

    def send(self, signal: Signal, message: bytes, seconds: float) -> int:
        """Send one message, as `Sender` says."""
        call = self._calls[signal]
        try:
            answer = call(
                message,
                timeout=max(0.1, seconds),
                metadata=self._metadata,
                compression=grpc.Compression.Gzip,
            )
        except grpc.RpcError as error:
            code = error.code()
            raise ExportError(code.name, may_retry=code in _AGAIN) from None
        except (ValueError, TypeError) as error:  # metadata that gRPC does not take
            raise ExportError(type(error).__name__, may_retry=False) from None
        return rejected(signal, answer)

    def close(self) -> None:
        """Close the connections."""
        self._channel.close()
