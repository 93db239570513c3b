"""The scenes that are written down: what is in their files."""

import stat
from pathlib import Path

import pytest

from authz.config.load import load
from authz.config.rules import Login
from authz.demo.front_door import KEY, ONE_FACTOR, TWO_FACTOR
from authz.demo.issuer import from_json
from authz.demo.scene import Place, write


@pytest.mark.parametrize("login", ["direct", "front_door"])
def test_authz_takes_what_the_demonstration_writes(tmp_path: Path, login: Login) -> None:
    """authz.yaml loads, its secrets included, and clients log in where the scene says."""
    scene = write(Place(tmp_path / "d", issuer_port=9091), login=login)
    settings = load(scene.configuration, {})

    assert settings.config.login == scene.login == login
    assert set(scene.extras.upstreams) == set(settings.config.servers)


def test_the_front_doors_key_is_ours_alone_and_the_issuer_knows_its_public_half(
    tmp_path: Path,
) -> None:
    """The private half is in a file of mode 600; both of our clients have the other one."""
    place = Place(tmp_path / "d", issuer_port=9091)
    write(place, login="front_door")
    key = place.folder / KEY
    known = from_json((place.folder / "issuer.json").read_text())
    one, two = known.client(ONE_FACTOR), known.client(TWO_FACTOR)

    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert one is not None
    assert two is not None
    assert one.public_key == two.public_key
    assert "PRIVATE" not in one.public_key
    assert (one.authorization_policy, two.authorization_policy) == ("one_factor", "two_factor")
    assert known.client("demo") is None


def test_how_old_a_log_in_may_be_is_the_scenes_to_say(tmp_path: Path) -> None:
    """Tests make it short, so that they see it pass."""
    scene = write(Place(tmp_path / "d", issuer_port=9091), login="front_door", age="3s")

    assert "max_login_age: 3s" in scene.configuration.read_text()
