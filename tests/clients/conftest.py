"""One deployment for all clients, and what was seen, written down at the end."""

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from authz_demo.environment import free_port
from tests.clients.clients import CLIENTS, ClientUnderTest, command
from tests.clients.driver import Driver
from tests.clients.environment import Town, running_town
from tests.clients.record import BUILD, DOCS, recorded, written
from tests.clients.rows import Outcome, Visit

_numbers = itertools.count(1)
_seen = pytest.StashKey[dict[str, dict[str, Outcome]]]()


@pytest.fixture(scope="session")
def town() -> Iterator[Town]:
    """Return the running whole."""
    folder = Path(tempfile.mkdtemp(prefix="authz-"))
    with running_town(folder, list(CLIENTS)) as running:
        yield running
    if "AUTHZ_KEEP" not in os.environ:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session", params=list(CLIENTS))
def client(request: pytest.FixtureRequest) -> ClientUnderTest:
    """Return each client, skipped aloud where this machine lacks it."""
    found = CLIENTS[request.param]
    if found.missing:
        assert os.environ.get("AUTHZ_CLIENTS") != "required", found.missing
        pytest.skip(f"NOT TESTED: {found.title}: {found.missing}")
    return found


@pytest.fixture(scope="session")
def visit(
    client: ClientUnderTest, town: Town, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Visit]:
    """Return a client's visit."""
    folder = tmp_path_factory.mktemp(client.name)
    number = next(_numbers)
    authority = str(town.authority)

    def start(server: str) -> Driver:
        home = folder / server
        home.mkdir(exist_ok=True)
        told = {
            "url": town.url(server),
            "name": client.title,
            "redirect_uri": f"http://127.0.0.1:{free_port()}/callback",
            "home": str(home),
        }
        env = {name: value.format(authority=authority) for name, value in client.env.items()}
        person = town.residents.person(client.name)
        return Driver(command(client, told), env, home, person, town.network(number))

    visiting = Visit(town, start)
    yield visiting
    visiting.close()


def pytest_configure(config: pytest.Config) -> None:
    """Begin to write down."""
    config.stash[_seen] = {}


@pytest.fixture
def seen(request: pytest.FixtureRequest, client: ClientUnderTest) -> dict[str, Outcome]:
    """Return where a client's outcomes are written down."""
    return request.config.stash[_seen].setdefault(client.name, {})


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write what was seen into build/clients.json; with AUTHZ_RECORD, into docs/ too."""
    seen = session.config.stash[_seen]
    if not seen:
        return
    BUILD.parent.mkdir(exist_ok=True)
    BUILD.write_text(written(seen), "utf-8")
    if os.environ.get("AUTHZ_RECORD") == "1":
        before = recorded()
        merged = {name: {**before.get(name, {}), **rows} for name, rows in seen.items()}
        DOCS.write_text(written({**before, **merged}), "utf-8")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name what works now and did not when docs/clients.json was written."""
    seen = terminalreporter.config.stash[_seen]
    for name, rows in recorded().items():
        better = [
            row
            for row, was in rows.items()
            if not was.works and row in seen.get(name, {}) and seen[name][row].works
        ]
        if better:
            terminalreporter.write_line(
                f"{name}: works now: {', '.join(better)}. AUTHZ_RECORD=1 make matrix docs"
            )
