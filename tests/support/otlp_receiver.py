"""A receiver of OTLP made of opentelemetry-proto: it keeps what comes, and misbehaves as told."""

import gzip
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.support.edge import read_body


def texts(attributes: list[KeyValue]) -> dict[str, str]:
    """Return attributes by name, each value as text."""
    found = {}
    for each in attributes:
        kind = each.value.WhichOneof("value")
        found[each.key] = "" if kind is None else str(getattr(each.value, kind))
    return found


@dataclass
class Receiver:
    """Hold what has come.

    Attributes:
        address: where it listens, as a URL.
        bodies: the requests as they came, by signal.
        headers: those of each request.
        status: what is answered by HTTP.
        answer: the body of it.
        location: where a redirect leads.
        hold: answers wait while it is not set.
    """

    address: str = ""
    bodies: list[tuple[str, bytes]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    status: int = 200
    answer: bytes = b""
    location: str = ""
    hold: threading.Event = field(default_factory=threading.Event)

    def take(self, signal: str, body: bytes, headers: dict[str, str]) -> None:
        self.headers.append(headers)
        self.bodies.append((signal, body))

    def spans(self, service: str = "authz") -> list[Span]:
        """Return the spans of a service so far."""
        return [
            span
            for signal, body in list(self.bodies)
            if signal == "traces"
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans
            if texts(list(resource.resource.attributes)).get("service.name") == service
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def logs(self) -> list[LogRecord]:
        """Return the log records so far."""
        return [
            record
            for signal, body in list(self.bodies)
            if signal == "logs"
            for resource in ExportLogsServiceRequest.FromString(body).resource_logs
            for scope in resource.scope_logs
            for record in scope.log_records
        ]

    def metrics(self) -> dict[str, Metric]:
        """Return the last of each metric so far."""
        return {
            metric.name: metric
            for signal, body in list(self.bodies)
            if signal == "metrics"
            for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


@contextmanager
def http_receiver() -> Iterator[Receiver]:
    """Run one by HTTP as long as the block lasts."""
    receiver = Receiver()
    receiver.hold.set()

    class OtlpHandler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = read_body(self)
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            receiver.take(self.path.removeprefix("/v1/"), body, dict(self.headers.items()))
            receiver.hold.wait(60)
            with suppress(OSError):
                self.send_response(receiver.status)
                if receiver.location:
                    self.send_header("location", receiver.location)
                self.send_header("content-length", str(len(receiver.answer)))
                self.end_headers()
                self.wfile.write(receiver.answer)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), OtlpHandler)
    server.daemon_threads = True
    receiver.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.hold.set()
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def grpc_receiver() -> Iterator[Receiver]:
    """Run one by gRPC as long as the block lasts."""
    receiver = Receiver()

    def taking(signal: str) -> Callable[[bytes, grpc.ServicerContext], bytes]:
        def export(body: bytes, context: grpc.ServicerContext) -> bytes:
            metadata = {name: str(value) for name, value in context.invocation_metadata()}
            receiver.take(signal, body, metadata)
            return ExportTraceServiceResponse().SerializeToString()

        return export

    server = grpc.server(futures.ThreadPoolExecutor(2))
    for signal, service in (("traces", "trace.v1.Trace"), ("metrics", "metrics.v1.Metrics"),
                            ("logs", "logs.v1.Logs")):  # fmt: skip
        name = f"opentelemetry.proto.collector.{service}Service"
        handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            "Export": grpc.unary_unary_rpc_method_handler(taking(signal))
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    receiver.address = f"http://127.0.0.1:{port}"
    server.start()
    try:
        yield receiver
    finally:
        server.stop(None)
