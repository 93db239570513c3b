"""The state folder is private, held by one, and named so that every part can write it down."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from authz.config.files import write_atomically
from authz.local.state import FAILED, MISCONFIGURED, SetupError, State, held, secret


def test_private(place: Path) -> None:
    """The folder and all folders in it are for this user alone, whatever the umask is."""
    before = os.umask(0)
    try:
        with held(place / "a" / "b") as state:
            folders = [state.folder, *(path for path in state.folder.iterdir() if path.is_dir())]
    finally:
        os.umask(before)

    assert len(folders) == 5
    assert {folder.stat().st_mode & 0o777 for folder in folders} == {0o700}
    assert (state.folder / "lock").stat().st_mode & 0o777 == 0o600
    assert (state.folder / ".gitignore").read_text() == "*\n"


@pytest.mark.parametrize("mode", [0o755, 0o710, 0o701, 0o702])
def test_open_folder(place: Path, mode: int) -> None:
    """A folder that others can enter is refused, and left as it is."""
    place.chmod(mode)

    with pytest.raises(SetupError, match=f"chmod 700 {place}") as refused, held(place):
        pass
    assert refused.value.code == MISCONFIGURED
    assert list(place.iterdir()) == []
    assert place.stat().st_mode & 0o777 == mode


def test_one_at_a_time(place: Path) -> None:
    """A second supervisor is told which process has the folder."""
    with (
        held(place),
        pytest.raises(SetupError, match=rf"already runs .*\(process {os.getpid()}\)") as refused,
        held(place),
    ):
        pass
    assert refused.value.code == FAILED


def test_free_again(place: Path) -> None:
    """The folder is free when its holder has ended, however it ended."""
    program = (
        "import os, sys; from pathlib import Path; from authz.local.state import held\n"
        "with held(Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    )
    env = dict(os.environ, PYTHONPATH=str(Path(__file__).parents[2]))
    died = subprocess.run([sys.executable, "-c", program, str(place)], env=env, check=False)
    assert died.returncode == -9

    with held(place) as state:
        assert (state.folder / "lock").read_text() == f"{os.getpid()}\n"


def test_socket_paths_fit(place: Path) -> None:
    """A socket with the longest name can be bound in the longest folder; one more is refused."""
    longest = place / ("x" * (81 - len(str(place)) - 1))
    with held(longest) as state, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(state.socket("sixteen-letters-")))

    too_long = longest.with_name(longest.name + "x")
    with pytest.raises(SetupError, match="room for 81; name a shorter one") as refused:
        held(too_long).__enter__()
    assert refused.value.code == MISCONFIGURED


@pytest.mark.parametrize("name", ["my files", "a%20b", "a'b", 'a"b', "a?b", "a#b", "é", "a\nb"])
def test_plain_paths_only(place: Path, name: str) -> None:
    """A path that Valkey, gRPC, Envoy or a URL would read otherwise is refused."""
    with pytest.raises(SetupError, match="characters other than"):
        held(place / name).__enter__()


def test_no_folder(place: Path) -> None:
    """What cannot be made is said, with the reason."""
    (place / "file").write_text("")

    with pytest.raises(SetupError, match="cannot be used: Not a directory"):
        held(place / "file" / "state").__enter__()


def test_secret_is_made_once(place: Path) -> None:
    """The secret is random, private, and stays."""
    first, other = secret(place / "a"), secret(place / "b")

    assert len(first) == 43
    assert secret(place / "a") == first != other
    assert (place / "a").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in place.iterdir()) == ["a", "b"]


@pytest.mark.parametrize("text", ["", "short\n", "x" * 44, "a b" + "x" * 40, "é" * 43])
def test_no_secret_of_ours(place: Path, text: str) -> None:
    """A file that holds something else is not used, and its text is repeated nowhere."""
    write_atomically(place / "a", text)

    with pytest.raises(SetupError) as refused:
        secret(place / "a")
    assert not text or text.strip() not in str(refused.value)


def test_open_secret(place: Path) -> None:
    """A secret that others could read is one no more."""
    secret(place / "a")
    (place / "a").chmod(0o640)

    with pytest.raises(SetupError, match="readable by others"):
        secret(place / "a")


def test_a_pipe_in_the_place_of_a_secret(place: Path) -> None:
    """It keeps nobody waiting."""
    os.mkfifo(place / "a", 0o600)

    with pytest.raises(SetupError, match="no regular file"):
        secret(place / "a")


def test_linked_secret(place: Path) -> None:
    """A link in the secret's place is refused."""
    secret(place / "a")
    (place / "b").symlink_to(place / "a")

    with pytest.raises(SetupError, match="readable by others"):
        secret(place / "b")


def test_names(place: Path) -> None:
    """What lies where is a matter of the folder alone."""
    state = State(place)

    assert state.socket("valkey") == place / "run/valkey.sock"
    assert state.redis_password == place / "redis-password"
