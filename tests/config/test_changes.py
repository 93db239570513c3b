"""Changes of files: every way to change one is seen, a half-written one is not taken."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from authz.config.changes import ConfigFiles, FileMount, Look, file_mount, is_open_for_writing

NEW = "rules: [b]\n"


def by_rename(file: Path) -> None:
    """Write a new file and rename it: `mv`, and most programs."""
    new = file.with_name("new")
    new.write_text(NEW)
    new.rename(file)


def as_vim(file: Path) -> None:
    """Rename the old file, write a new one, remove the old one."""
    old = file.rename(file.with_name("authz.yaml~"))
    file.write_text(NEW)
    old.unlink()


def by_sed(file: Path) -> None:
    """Run `sed -i`."""
    subprocess.run(["sed", "-i", "s/a/b/", str(file)], check=True)


def in_place(file: Path) -> None:
    """Write over it: `cat >`, and editors on files with more than one link."""
    file.write_text(NEW)


def with_its_time(file: Path) -> None:
    """Replace it by a file of the same size and time: `cp -p`, and rsync."""
    was = file.stat()
    by_rename(file)
    os.utime(file, ns=(was.st_atime_ns, was.st_mtime_ns))


def in_place_with_its_time(file: Path) -> None:
    """Write over it, and set the time back."""
    was = file.stat()
    in_place(file)
    os.utime(file, ns=(was.st_atime_ns, was.st_mtime_ns))


BY_SED = pytest.param(by_sed, marks=pytest.mark.process)
WAYS = [by_rename, as_vim, BY_SED, in_place, with_its_time, in_place_with_its_time]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file."""
    found = tmp_path / "authz.yaml"
    found.write_text("rules: [a]\n")
    return found


def _marked(file: Path, *named: Path) -> ConfigFiles:
    files = ConfigFiles(file)
    files.follow(named)
    files.mark()
    return files


@pytest.mark.parametrize("change", WAYS)
def test_every_way_to_change_a_file_is_seen(file: Path, change: Callable[[Path], None]) -> None:
    """First as unsettled, then as changed, until it is marked."""
    files = _marked(file)
    assert files.look() is Look.SAME

    change(file)

    assert [files.look() for _ in range(3)] == [Look.UNSETTLED, Look.CHANGED, Look.CHANGED]
    files.mark()
    assert files.look() is Look.SAME


def test_an_exchanged_link_is_seen(tmp_path: Path) -> None:
    """Kubernetes mounts `authz.yaml -> ..data/authz.yaml`, and exchanges the link `..data`."""
    for version, text in (("..1", "a"), ("..2", "b")):
        (tmp_path / version).mkdir()
        (tmp_path / version / "authz.yaml").write_text(text)
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "authz.yaml").symlink_to("..data/authz.yaml")
    files = _marked(tmp_path / "authz.yaml")

    (tmp_path / "..data_tmp").symlink_to("..2")
    (tmp_path / "..data_tmp").replace(tmp_path / "..data")

    assert [files.look(), files.look()] == [Look.UNSETTLED, Look.CHANGED]


def test_what_the_configuration_names_is_seen(file: Path, tmp_path: Path) -> None:
    """Also a file that was not there, and one that goes."""
    named = tmp_path / "pins.json"
    files = _marked(file, named)

    named.write_text("{}")
    assert [files.look(), files.look()] == [Look.UNSETTLED, Look.CHANGED]
    files.mark()
    named.unlink()
    assert [files.look(), files.look()] == [Look.UNSETTLED, Look.CHANGED]


def test_a_file_that_was_never_read_has_changed(file: Path, tmp_path: Path) -> None:
    """A new configuration names it: what was read a moment ago may not be what is there now."""
    files = _marked(file)
    files.follow([tmp_path / "key.pem"])

    assert [files.look(), files.look()] == [Look.UNSETTLED, Look.CHANGED]


@pytest.mark.attack("half-written-configuration")
def test_a_file_that_is_being_written_does_not_settle(file: Path) -> None:
    """A truncated authz.yaml may be valid and have fewer rules: it counts when its writer closed
    it, however long that takes.
    """
    files = _marked(file)
    with file.open("w") as writer:
        writer.write("rules: [")
        writer.flush()
        assert [files.look() for _ in range(3)] == [Look.UNSETTLED] * 3
        writer.write("b]\n")

    assert [files.look(), files.look()] == [Look.UNSETTLED, Look.CHANGED]


def test_a_change_that_was_taken_back_is_none(file: Path) -> None:
    """The old file, renamed back, is the one that was read."""
    kept = file.with_name("kept")
    files = _marked(file)
    file.rename(kept)
    file.write_text(NEW)
    assert files.look() is Look.UNSETTLED

    kept.rename(file)
    assert files.look() is not Look.CHANGED  # its inode has changed: it is read once more


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda _: None])
def test_what_is_no_file_is_not_waited_for(tmp_path: Path, make: Callable[[str], None]) -> None:
    """A pipe that nobody writes to, a folder, nothing."""
    make(str(tmp_path / "authz.yaml"))

    assert not is_open_for_writing(tmp_path / "authz.yaml")


_TABLE = """\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 22 254:0 {root} {point} ro,relatime - ext4 /dev/vda rw
"""


@pytest.mark.parametrize(
    ("root", "found"),
    [
        ("/srv/deploy/authz.yaml", FileMount("/srv/deploy/authz.yaml", is_replaced=False)),
        ("/srv/deploy/authz.yaml//deleted", FileMount("/srv/deploy/authz.yaml", is_replaced=True)),
        ("/srv/my\\040own/a.yaml", FileMount("/srv/my own/a.yaml", is_replaced=False)),
    ],
)
def test_a_file_that_is_mounted_alone_is_known(file: Path, root: str, found: FileMount) -> None:
    """As the kernel lists it, with the name that its file has lost."""
    table = file.with_name("mountinfo")
    table.write_text(_TABLE.format(root=root, point=file))

    assert file_mount(file, table) == found


def test_a_file_in_a_mounted_folder_is_not_mounted_alone(file: Path) -> None:
    """The container sees what takes its place."""
    table = file.with_name("mountinfo")
    table.write_text(_TABLE.format(root="/srv/deploy/authz", point=file.parent))

    assert file_mount(file, table) is None


_UNSHARED = """\
import sys
from pathlib import Path
from authz.config.changes import file_mount
import os, subprocess
here = Path(sys.argv[1])
(here / "host.yaml").write_text("a")
(here / "container.yaml").touch()
subprocess.run(["mount", "--bind", here / "host.yaml", here / "container.yaml"], check=True)
print(file_mount(here / "container.yaml").is_replaced)
(here / "new").write_text("b")
(here / "new").rename(here / "host.yaml")
print(file_mount(here / "container.yaml").is_replaced, (here / "container.yaml").read_text())
"""


def test_the_kernel_says_that_a_mounted_file_was_replaced(tmp_path: Path) -> None:
    """A real mount in a name space of its own: the old file stays, and its name is marked."""
    run = subprocess.run(
        ["unshare", "-m", sys.executable, "-c", _UNSHARED, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    if "ermitted" in run.stderr or "ermission" in run.stderr:
        pytest.skip("name spaces are not permitted here")

    assert run.stdout.split() == ["False", "True", "a"], run.stderr
