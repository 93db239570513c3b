"""A pair that is replaced: at any moment both names lead to files of one pair."""

import os
import stat
import threading
from pathlib import Path

import pytest

from authz.setup import certificate_files
from authz.setup.certificate_files import announce, replace_pair


def pair(folder: Path) -> tuple[Path, Path]:
    return folder / "tls.crt", folder / "tls.key"


def put(folder: Path, number: int) -> None:
    replace_pair(*pair(folder), f"chain {number}".encode(), f"key {number}".encode())


def held(folder: Path) -> tuple[str, str]:
    certificate, key = pair(folder)
    return certificate.read_text(), key.read_text()


@pytest.mark.parametrize("before", ["nothing", "files", "links"])
def test_it_is_replaced_whatever_was_there(tmp_path: Path, before: str) -> None:
    """Nothing, plain files, or links to files elsewhere, which stay as they are."""
    elsewhere = tmp_path / "live"
    elsewhere.mkdir()
    folder = tmp_path / "tls"
    folder.mkdir()
    for path in () if before == "nothing" else pair(folder):
        old = elsewhere / path.name
        old.write_text("old")
        if before == "links":
            path.symlink_to(old)
        else:
            path.write_text("old")

    put(folder, 1)
    put(folder, 2)

    assert held(folder) == ("chain 2", "key 2")
    assert {each.read_text() for each in elsewhere.iterdir()} <= {"old"}
    assert stat.S_IMODE(pair(folder)[1].stat().st_mode) == 0o600
    assert sorted(each.name for each in folder.iterdir() if each.name.startswith("..")) == [
        "..data",
        (folder / "..data").readlink().name,
    ]


def test_no_step_leaves_a_mixed_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looked at after every change of a name, also when plain files become links."""
    folder = tmp_path
    certificate, key = pair(folder)
    certificate.write_text("chain 0")
    key.write_text("key 0")
    seen = set[tuple[str, str]]()
    rename = Path.replace

    def watched(self: Path, target: Path) -> Path:
        done = rename(self, target)
        seen.add(held(folder))
        return done

    monkeypatch.setattr(Path, "replace", watched)
    put(folder, 1)
    put(folder, 2)

    assert seen == {("chain 0", "key 0"), ("chain 1", "key 1"), ("chain 2", "key 2")}


@pytest.mark.parametrize("failing", range(2))
def test_a_failure_leaves_a_whole_pair(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    """At whichever file the disk is full; the next renewal clears what was left."""
    put(tmp_path, 1)
    left = [failing]
    write = certificate_files._write

    def full(path: Path, content: bytes, mode: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device", str(path))
        write(path, content, mode)

    with monkeypatch.context() as patch:
        patch.setattr(certificate_files, "_write", full)
        with pytest.raises(OSError, match="No space"):
            put(tmp_path, 2)
    assert held(tmp_path) == ("chain 1", "key 1")
    put(tmp_path, 3)

    assert held(tmp_path) == ("chain 3", "key 3")
    assert len(list(tmp_path.glob("..pair-*"))) == 1


def test_renewals_at_the_same_time(tmp_path: Path) -> None:
    """One after the other: the last one's pair is whole, and nothing else is left."""
    threads = [threading.Thread(target=put, args=(tmp_path, number)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    chain, key = held(tmp_path)
    assert chain.split()[1] == key.split()[1]
    assert len(list(tmp_path.glob("..pair-*"))) == 1


def test_a_key_in_another_folder_is_there_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Envoy reads both when the certificate is renamed into its folder."""
    certificate, key = tmp_path / "certs/tls.crt", tmp_path / "private/tls.key"
    key.parent.mkdir()
    order = []
    rename = Path.replace

    def watched(self: Path, target: Path) -> Path:
        order.append(Path(target).name)
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", watched)
    replace_pair(certificate, key, b"chain", b"key")

    assert order == ["tls.key", "tls.crt"]
    assert (certificate.read_bytes(), key.read_bytes()) == (b"chain", b"key")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_what_is_written_belongs_to_the_folders_owner(tmp_path: Path) -> None:
    """The containers run as it."""
    folder = tmp_path / "tls"
    folder.mkdir()
    os.chown(folder, 12345, 12346)

    put(folder, 1)

    owners = {(each.stat().st_uid, each.stat().st_gid) for each in folder.rglob("*")}
    assert owners == {(12345, 12346)}


def test_an_announcement_leaves_nothing(tmp_path: Path) -> None:
    """Its file is gone when it has been renamed."""
    announce(tmp_path / "tls.crt")

    assert list(tmp_path.iterdir()) == []
