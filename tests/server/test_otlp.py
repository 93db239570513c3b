"""What `telemetry.otlp` loads, and what is done without it."""

import importlib.util
import io
import subprocess
import sys

import pytest

from authz.config.key_files import header_lines
from authz.config.load import Settings
from authz.config.problems import ConfigError
from authz.server.otlp import attach, require_package
from authz.telemetry.audit import EventLog
from authz.telemetry.metrics import Metrics
from authz.telemetry.recorder import Recorder
from tests.support import edge

SETTINGS = """\
issuer: {url: https://auth.example.test}
gateway: {url: https://mcp.example.test}
servers: {files: {upstream: http://files:8000/mcp}}
"""
OTLP = "telemetry: {otlp: {endpoint: 'http://127.0.0.1:9'}}\n"


def settings(more: str = "") -> Settings:
    return edge.settings(SETTINGS + more)


def test_without_the_section_nothing_of_opentelemetry_is_loaded() -> None:
    """Neither by the service nor by the pages: what is off costs no import.

    The API alone (`opentelemetry.metrics`) comes with redis-py, where it is installed.
    """
    script = f"""
import io, sys
import authz.login.main, authz.server.main, authz.server.worker_ipc
from authz.config import load
from authz.server.otlp import attach
from authz.telemetry.audit import EventLog
from authz.telemetry.metrics import Metrics
from authz.telemetry.recorder import Recorder
recorder = Recorder(Metrics(), EventLog("json", io.StringIO()))
found = load.read({SETTINGS!r}, "authz.yaml", {{}}, secrets=False)
export = attach(found, recorder, "authz")
export.start()
export.close(1)
assert recorder.tracer is None
ours = ("opentelemetry.proto", "authz.telemetry.otlp")
loaded = [name for name in sys.modules if name.startswith(ours)]
assert loaded == [], loaded
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


def test_traces_are_recorded_where_they_are_asked_for() -> None:
    """And only there."""
    for more, traced in (
        (OTLP, True),
        (OTLP.replace("}}", ", traces: false, logs: true}}"), False),
    ):
        recorder = Recorder(Metrics(), EventLog("json", io.StringIO()))
        attach(settings(more), recorder, "authz").close(0)
        assert (recorder.tracer is not None) is traced


def test_a_missing_package_is_a_fault_of_the_configuration(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Told with what to install, not by a traceback; without the section nobody asks for it."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    require_package(settings())
    with pytest.raises(ConfigError, match=r"telemetry\.otlp.*authz\[otlp\]"):
        require_package(settings(OTLP))


def test_headers_are_lines_of_names_and_values() -> None:
    """No line can make two headers of one, or stand for another."""
    assert header_lines("Api-Key: a b\n\nx: 1\n") == (("api-key", "a b"), ("x", "1"))
    for wrong in ("", "\n", "a", "a:", "a b: c", "a: \u00e9", "a: 1\nA: 2", "a: b\x00c",
                  "\n".join(f"h{number}: 1" for number in range(17))):  # fmt: skip
        with pytest.raises(ValueError, match=r"it holds|a line"):
            header_lines(wrong)
