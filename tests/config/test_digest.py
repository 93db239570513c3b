"""Digests of configurations: what has an effect shows, and no secret can be guessed from one."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.config.digest import ConfigDigest, digest_named, parse_digest
from authz.config.key_files import new_private_key
from authz.config.load import Settings, load

_KEY = new_private_key()
_TEXT = """\
issuer: {{url: https://auth.example.com}}
gateway: {{url: https://mcp.example.com, listen: 127.0.0.1:8080}}
redis: {{url: redis://redis:6379/0, password_file: {folder}/password}}
front_door: {{key_file: {folder}/door.pem}}
servers:
  files: {{upstream: "http://files:8000/mcp", groups: [staff], pins: {{file: {folder}/pins.json}}}}
"""


_PINS = """{"server": "files", "approved": {"at": "", "by": ""},
 "tools": {"read": {"name": "read", "inputSchema": {"type": "object"}}}}"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with an authz.yaml and the files that it names; there are no pins yet."""
    (tmp_path / "door.pem").write_text(_KEY)
    (tmp_path / "password").write_text("hunter2\n")
    (tmp_path / "authz.yaml").write_text(_TEXT.format(folder=tmp_path))
    return tmp_path


def _load(folder: Path, *, secrets: bool = True) -> Settings:
    return load(folder / "authz.yaml", {}, secrets=secrets)


def test_comments_and_layout_do_not_count(folder: Path) -> None:
    """Only what the file says."""
    before = _load(folder)
    path = folder / "authz.yaml"
    path.write_text("# a comment\n" + path.read_text().replace("[staff]", '[ "staff", ]'))

    assert _load(folder).digest == before.digest
    assert _load(folder).is_same(before)


@pytest.mark.parametrize(
    ("name", "text", "half"),
    [
        ("authz.yaml", "", "file"),
        ("password", "hunter3", "named"),
        ("door.pem", new_private_key(), "named"),
        (
            "pins.json",
            _PINS,
            "named",
        ),
    ],
)
def test_each_file_shows_in_its_half(folder: Path, name: str, text: str, half: str) -> None:
    """A change of a rule, a password, a key or a pin is another digest, and tells where."""
    before = _load(folder).digest
    path = folder / name
    path.write_text(text or path.read_text().replace("staff", "admins"))

    after = _load(folder).digest

    assert not after.agrees(before)
    assert {
        each for each in ("file", "named") if getattr(after, each) != getattr(before, each)
    } == {half}


def test_a_machine_without_the_secrets_compares_the_rest(folder: Path) -> None:
    """What was not read is not said to differ."""
    alone = _load(folder, secrets=False).digest

    assert alone.named == ""
    assert alone.agrees(_load(folder).digest)
    assert not ConfigDigest("0", "").agrees(alone)


@given(st.text(), st.text())
def test_a_password_alone_is_in_no_digest(one: str, other: str) -> None:
    """Whoever reads logs could try words otherwise: without a private key nothing hides them."""
    assert digest_named({"redis_password": one}, {}) == digest_named({"redis_password": other}, {})


def test_the_key_of_a_digest_is_a_private_key() -> None:
    """The same password under another key is another digest: nobody has a table of them."""
    named = [
        digest_named({"redis_password": "hunter2", "front_door": key}, {})
        for key in (_KEY, new_private_key())
    ]

    assert named[0] != named[1]
    assert named[0] != digest_named({"redis_password": "hunter3", "front_door": _KEY}, {})


@given(st.sampled_from([ConfigDigest("a1"), ConfigDigest("a1", "b2")]))
def test_what_is_shown_is_read_back(digest: ConfigDigest) -> None:
    """Log, metrics and `authz status` have the same text."""
    assert parse_digest(str(digest)) == digest
