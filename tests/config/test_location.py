"""Which authz.yaml is meant."""

from pathlib import Path

import pytest

from authz.config.location import find_configuration


@pytest.mark.parametrize("asked", ["", "authz.yaml", "authz", "authz/authz.yaml"])
def test_a_folder_of_authz_init_is_found_by_each_of_its_names(tmp_path: Path, asked: str) -> None:
    """The folder, the file where earlier releases had it, and where it is now."""
    (tmp_path / "authz").mkdir()
    (tmp_path / "authz/authz.yaml").touch()

    assert find_configuration(tmp_path / asked) == tmp_path / "authz/authz.yaml"


def test_a_file_that_is_there_is_meant(tmp_path: Path) -> None:
    """Never another one in its place."""
    (tmp_path / "authz").mkdir()
    for name in ("authz/authz.yaml", "authz.yaml"):
        (tmp_path / name).touch()

    assert find_configuration(tmp_path / "authz.yaml") == tmp_path / "authz.yaml"


@pytest.mark.parametrize("asked", ["authz.yaml", "other.yaml", "authz"])
def test_a_missing_file_is_named_as_it_was_given(tmp_path: Path, asked: str) -> None:
    """An error shows the path that was typed."""
    assert find_configuration(tmp_path / asked) == tmp_path / asked
