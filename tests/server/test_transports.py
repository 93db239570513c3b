"""A worker in a process of its own: which transport it gets, and that no process is left over."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from authz.process.supervisor import StartError
from authz.server.transports import candidates, choose_program
from authz.server.worker_control import WorkerSettings
from tests.support import impatient_serve
from tests.support.compiled import IS_COMPILED
from tests.support.service import PATIENCE, ServiceProcess, running_service, until
from tests.support.transports import installed

CONFIG = """\
issuer: {{url: https://auth.example.test, internal: 'http://127.0.0.1:9'}}
gateway: {{url: https://mcp.example.test}}
telemetry: {{log: json}}
service: {{transport: {transport}}}
servers: {{files: {{upstream: 'http://127.0.0.1:9/mcp'}}}}
"""
ENV = {"PATH": os.environ["PATH"]}
WORKER = WorkerSettings("authz.yaml", "127.0.0.1:1", ("127.0.0.1", 0), 1.0, admin="/x")


@pytest.fixture(params=["ngh2", "pyvoy"])
def transport(request: pytest.FixtureRequest) -> str:
    return installed(request.param)


@pytest.fixture
def service(tmp_path: Path, transport: str) -> Iterator[ServiceProcess]:
    with running_service(tmp_path, CONFIG.format(transport=transport), ENV) as one:
        yield one


@pytest.fixture
def broken(tmp_path: Path) -> dict[str, str]:
    """An environment in which neither ngh2 nor pyvoy can be imported."""
    folder = tmp_path / "modules"
    folder.mkdir()
    for name in ("ngh2", "pyvoy"):
        (folder / f"{name}.py").write_text("raise ImportError")
    return {**ENV, "PYTHONPATH": str(folder)}


def inner(service: ServiceProcess) -> int:
    """Return the process id of the process that the service runs in."""
    pid = service.process.pid
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=30).close()
    except OSError:
        return False
    return True


def test_the_first_is_the_default(tmp_path: Path) -> None:
    """`auto` is ngh2 where it runs, compiled where this process is, and the log says so."""
    installed("ngh2")
    with running_service(tmp_path, CONFIG.format(transport="auto"), ENV) as service:
        (started,) = service.events("started")
        assert (started["transport"], started["compiled"]) == ("ngh2", IS_COMPILED)
        assert service.events("transport") == []


def test_the_next_one_follows_what_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without ngh2 it is pyvoy, and why is said; without both there is none to watch."""
    installed("pyvoy")
    assert tuple(candidates("auto")) == ("ngh2", "pyvoy", "grpcio")
    monkeypatch.setattr("authz.server.transports.find_spec", lambda _: None)

    chosen = choose_program("auto", WORKER)

    assert (chosen.transport, chosen.passed_over) == ("pyvoy", "ngh2: not installed")
    monkeypatch.setitem(sys.modules, "pyvoy", None)
    with pytest.raises(StartError, match="ngh2: not installed; pyvoy: ModuleNotFoundError"):
        choose_program("auto", WORKER)
    with pytest.raises(StartError, match="ngh2"):
        choose_program("ngh2", WORKER)


def test_where_none_starts_it_is_told(tmp_path: Path, broken: dict[str, str]) -> None:
    """One that is there and does not start is followed by grpcio, and why is said."""
    with running_service(tmp_path, CONFIG.format(transport="auto"), broken) as service:
        (line,) = service.events("transport")

        assert (line["used"], line["why"]) == ("grpcio", "ImportError")
        assert service.events("started")[0]["transport"] == "grpcio"


@pytest.mark.parametrize("name", ["ngh2", "pyvoy"])
def test_what_was_asked_for_by_name_is_not_replaced(
    tmp_path: Path, broken: dict[str, str], name: str
) -> None:
    """By its name, one that does not run is an error, not another transport."""
    path = tmp_path / "authz.yaml"
    path.write_text(CONFIG.format(transport=name))
    command = [sys.executable, "-m", "authz", "serve", "-c", str(path)]
    command += ["--check", f"unix:{tmp_path}/check.sock", "--status", "127.0.0.1:0"]

    ended = subprocess.run(
        command, env=broken, capture_output=True, text=True, timeout=120, check=False
    )

    assert ended.returncode != 0
    assert f"did not start on {name}" in ended.stderr
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

    until(lambda: not Path(f"/proc/{pid}/exe").exists(), "the end of the worker")
    assert not answers(service.status_port)


@pytest.mark.attack("worker-killed")
def test_with_the_inside_gone_the_starter_fails(service: ServiceProcess) -> None:
    """A worker that is killed is a failure that whoever keeps the service sees."""
    os.kill(inner(service), signal.SIGKILL)

    assert service.process.wait(PATIENCE) == 1


@pytest.mark.attack("worker-killed")
def test_with_the_inside_hanging_the_starter_fails(tmp_path: Path, transport: str) -> None:
    """One that does not answer any more is killed, said once, and a failure like one that died."""
    config = CONFIG.format(transport=transport)
    with running_service(tmp_path, config, ENV, program=impatient_serve.PROGRAM) as service:
        pid = inner(service)

        os.kill(pid, signal.SIGSTOP)

        assert service.process.wait(PATIENCE) == 1
        assert not Path(f"/proc/{pid}/exe").exists()
    (line,) = service.events("worker_hung")
    assert line["unanswered"] == impatient_serve.WATCHDOG.max_missed


def test_signals_at_the_terminal_do_not_reach_the_worker(service: ServiceProcess) -> None:
    """Ctrl-C goes to a group of processes; the worker is in another."""
    assert os.getsid(inner(service)) != os.getsid(service.process.pid)


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
