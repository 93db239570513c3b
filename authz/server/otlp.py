"""Traces, metrics and log lines for a collector, where `telemetry.otlp` is written.

Invariant: without that section nothing of OpenTelemetry is loaded
(tests/server/test_otlp.py).
"""

import importlib.util
import uuid
from typing import Final, Protocol

from authz import __version__
from authz.config.key_files import header_lines
from authz.config.load import Settings
from authz.config.model import OtlpConfig
from authz.config.problems import ConfigError, ConfigProblem
from authz.telemetry.recorder import Recorder
from authz.telemetry.traces import Attributes, KeepOptions, Tracer

_PACKAGE: Final = "opentelemetry.proto"
SERVICE: Final = "authz"  # to collectors
# Seconds for what waits when the process ends.
FLUSH: Final = 3.0


class Export(Protocol):
    """Send what is recorded."""

    def start(self) -> None:
        """Begin to send, from a thread."""
        ...

    def close(self, seconds: float) -> None:
        """Send what waits, and end; after so many seconds what is left is lost."""
        ...


class NoExport:
    """Send nothing."""

    def start(self) -> None:
        """Do nothing."""

    def close(self, seconds: float) -> None:
        """Do nothing."""


def attach(
    settings: Settings,
    recorder: Recorder,
    service: str,
    *,
    worker: int | None = None,
    traces: bool = True,
) -> Export:
    """Have a recorder trace and copy its lines as the configuration says.

    Args:
        settings: the configuration.
        recorder: of this process.
        service: the name of the program, `service.name`.
        worker: its number among several.
        traces: whether anything is under way here that could be traced.

    Raises:
        ConfigError: where the package is missing.
    """
    otlp = settings.config.telemetry.otlp
    if otlp is None:
        return NoExport()
    require_package(settings)
    from authz.telemetry.otlp.exporter import ExportOptions, OtlpExporter  # noqa: PLC0415
    from authz.telemetry.otlp.senders import HttpSender, Sender, grpc_sender  # noqa: PLC0415

    secret = settings.secrets.otlp_headers
    headers = () if secret is None else header_lines(secret.get_secret_value())

    def make_sender() -> Sender:
        make = grpc_sender if otlp.protocol == "grpc" else HttpSender
        return make(otlp.endpoint, headers)

    options = ExportOptions(_resource(service, worker), otlp.metrics, otlp.interval)
    exporter = OtlpExporter(make_sender, options, recorder)
    if otlp.traces and traces:
        recorder.tracer = Tracer(_kept(otlp), exporter.spans, exporter.too_many)
    if otlp.logs:
        recorder.log.copy_to(exporter.line)
    return exporter


def require_package(settings: Settings) -> None:
    """Look whether the extra is installed, where it is needed.

    Raises:
        ConfigError: where it is not.
    """
    if settings.config.telemetry.otlp is None:
        return
    try:
        found = importlib.util.find_spec(_PACKAGE)
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise ConfigError([_MISSING])


def _kept(otlp: OtlpConfig) -> KeepOptions:
    return KeepOptions(
        sample=otlp.sample,
        refusals=otlp.keep.refusals,
        slower_than=otlp.keep.slower_than,
        at_most=otlp.at_most.quota / otlp.at_most.window,
        propagates=otlp.propagate,
        envoy_traces=otlp.envoy,
    )


def _resource(service: str, worker: int | None) -> Attributes:
    """Return who sends (OpenTelemetry's conventions, "Service")."""
    found: Attributes = (
        ("service.name", service),
        ("service.version", __version__),
        ("service.instance.id", str(uuid.uuid4())),
    )
    return found if worker is None else (*found, ("authz.worker", worker))


_MISSING: Final = ConfigProblem(
    "authz.yaml",
    0,
    0,
    "telemetry.otlp",
    "the package opentelemetry-proto is not installed",
    "install authz with the extra otlp: pip install 'authz[otlp]'",
)
