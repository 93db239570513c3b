"""One deployment for all tests of this folder, on a real engine; skipped, loudly, where none is."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compose.deployment import SERVICES, ComposeDeployment, plan
from tests.compose.engine import Engine, NoEngineError, compose_command, engine
from tests.compose.images import STAND_INS, build

_NOTES = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
def docker(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Engine]:
    """An engine with every image that the compose file names."""
    folder = tmp_path_factory.mktemp("engine")
    try:
        compose = compose_command()
        with engine(folder) as running:
            build(running, tmp_path_factory.mktemp("images"))
            notes = request.config.stash.setdefault(_NOTES, [])
            notes.append(f"Compose: {' '.join(compose)}")
            for image, words in STAND_INS.items():
                labels = running.inspect(image)[0]["Config"]["Labels"] or {}
                if labels.get("authz.stand-in") == "true":
                    notes.append(f"NOT THE REAL IMAGE: {image} is {words}")
            yield running
    except NoEngineError as error:
        if os.environ.get("AUTHZ_ENGINE") == "required":
            pytest.fail(f"AUTHZ_ENGINE=required, and {error}")
        pytest.skip(f"!!! NO COMPOSE TEST RAN !!! {error}")


@pytest.fixture(scope="session")
def deployment(
    docker: Engine, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[ComposeDeployment]:
    """A deployment that runs, every service healthy."""
    folder: Path = tmp_path_factory.mktemp("deployment") / "deploy"
    made = plan(docker, folder)
    made.write()
    try:
        made.compose("up", "-d")
        made.until_healthy(*SERVICES)
        yield made
        notes = request.config.stash.setdefault(_NOTES, [])
        notes += (f"{service:<12}{words}" for service, words in made.seen.items())
    finally:
        if request.session.testsfailed:
            (folder.parent / "logs").write_text(made.compose("logs"))
        made.compose("down", "-v", "-t", "0")


@pytest.fixture(autouse=True)
def _well(request: pytest.FixtureRequest) -> None:
    """Whatever the test before did, all is well again."""
    if "deployment" in request.fixturenames:
        made: ComposeDeployment = request.getfixturevalue("deployment")
        made.until_healthy(*SERVICES)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say what was not real, and what callers saw."""
    notes = config.stash.get(_NOTES, [])
    if notes:
        terminalreporter.section("compose")
        for note in notes:
            terminalreporter.write_line(note)
