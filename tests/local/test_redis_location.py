"""Where a command that only looks finds the Redis of `authz up`."""

import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from authz.config.load import Settings, read
from authz.local.redis_location import as_its_service
from authz.local.state import State
from authz.local.valkey import USER
from authz.server.redis_options import URL, redis_options


def settings(more: str = "") -> Settings:
    text = (
        "issuer: {url: https://auth.example.com}\n"
        "gateway: {url: https://mcp.example.com}\n"
        "servers: {files: {upstream: http://files:8000/mcp}}\n"
    )
    return read(text + more, "authz.yaml", {}, secrets=False)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Yield a state folder as a running `authz up` has it: a password, and a socket of Valkey's."""
    with (
        tempfile.TemporaryDirectory(prefix="up-") as name,
        socket.socket(socket.AF_UNIX) as valkey,
    ):
        state = State(Path(name))
        state.socket("valkey").parent.mkdir()
        state.redis_password.write_text("hidden\n")
        valkey.bind(str(state.socket("valkey")))
        yield state.folder


def test_its_own_valkey_is_found(folder: Path) -> None:
    """Where nothing names a Redis, the one of `authz up` is meant, with its user and password."""
    options = redis_options(settings(), as_its_service(settings(), {}, folder))

    assert options is not None
    assert options.url == f"unix://{folder}/run/valkey.sock"
    assert (options.username, options.password) == (USER, "hidden")


@pytest.mark.parametrize(
    ("more", "env"),
    [
        pytest.param("redis: {url: 'redis://redis'}\n", {}, id="in the file"),
        pytest.param("", {URL: "redis://redis"}, id="in the environment"),
    ],
)
def test_what_is_named_counts(folder: Path, more: str, env: dict[str, str]) -> None:
    """A Redis that authz.yaml or the environment names is not replaced."""
    assert as_its_service(settings(more), env, folder) == env


def test_none_that_runs_changes_nothing(tmp_path: Path) -> None:
    """Without a running `authz up` the environment stays as it is."""
    assert as_its_service(settings(), {"A": "b"}, tmp_path) == {"A": "b"}


def test_the_password_of_the_environment_goes_with_its_url(folder: Path) -> None:
    """A file comes before it."""
    env = {"AUTHZ_REDIS_URL": "redis://elsewhere:6379/0", "AUTHZ_REDIS_PASSWORD": "plain"}
    options = redis_options(settings(), env)
    assert options is not None
    assert options.password == "plain"

    file = folder / "password"
    file.write_text("of-a-file\n")
    options = redis_options(settings(), env | {"AUTHZ_REDIS_PASSWORD_FILE": str(file)})
    assert options is not None
    assert options.password == "of-a-file"
