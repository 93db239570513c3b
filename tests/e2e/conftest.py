"""One whole for all end-to-end tests: Envoy, Valkey, the service, an issuer, two servers."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.authelia import issuer_of_the_environment
from tests.support.door import Door, running_door
from tests.support.scene import RunningScene, running_scene


@contextmanager
def _folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="authz-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def short() -> Iterator[Path]:
    """Return a folder whose path is short enough for sockets."""
    with _folder() as folder:
        yield folder


@pytest.fixture(scope="session")
def whole() -> Iterator[RunningScene]:
    """Return the running whole; with AUTHELIA, a real Authelia is its issuer."""
    issuer = issuer_of_the_environment()
    with _folder() as folder, running_scene(folder / "w", issuer, unhurried) as running:
        yield running


@pytest.fixture(scope="session")
def door() -> Iterator[Door]:
    """Return the running whole with its front door; with AUTHELIA, a real one is behind it."""
    with _folder() as folder, running_door(folder, issuer_of_the_environment()) as running:
        yield running


def unhurried(text: str) -> str:
    """Raise the limits per minute: many tests are one person. The flood's own limit stays."""
    raised = text.replace("rate: 60/minute", "rate: 6000/minute")
    machines = "    machines: [nightly-backup]\n"
    assert raised.count(machines) == 1
    limits = "    limits: [{per: [client, user], rate: 6000/minute}]\n"
    return raised.replace(machines, machines + limits)
