"""Envoy's watched files are replaced in an order in which no route lacks its cluster."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from authz.envoy import files
from authz.envoy.files import (
    CLUSTERS_FILE,
    ENVOY_FILE,
    LISTENERS_FILE,
    RENDERED_FILE,
    ROUTES_FILE,
    EnvoyUpdate,
    replace_files,
    steps,
    watched_text,
)

# Servers by name, each with the upstream that it has.
SERVERS = st.dictionaries(st.sampled_from("abcde"), st.sampled_from("123"), max_size=5)


def written(servers: Mapping[str, str], more: str = "") -> dict[str, str]:
    """Return the files of some servers, in short: routes that name clusters."""
    clusters = [{"name": f"{name}:{upstream}"} for name, upstream in servers.items()]
    routes = [{"route": f"{name}:{upstream}"} for name, upstream in servers.items()]
    return {
        ENVOY_FILE: f"bootstrap{more}",
        CLUSTERS_FILE: watched_text(clusters),
        LISTENERS_FILE: watched_text([{"listener": more}]),
        ROUTES_FILE: watched_text(routes),
        RENDERED_FILE: f"{servers}{more}",
    }


def resources(text: str) -> list[Any]:
    found = YAML(typ="safe").load(text)["resources"]
    assert isinstance(found, list)
    return found


@given(SERVERS, SERVERS)
def test_no_route_lacks_its_cluster_at_any_moment(
    before: Mapping[str, str], after: Mapping[str, str]
) -> None:
    """After each step every route's cluster is there, and at the end all is as it shall be."""
    now = written(before)
    for name, text in steps(now, written(after)):
        now[name] = text
        clusters = {each["name"] for each in resources(now[CLUSTERS_FILE])}
        assert {each["route"] for each in resources(now[ROUTES_FILE])} <= clusters
    assert now == written(after)


@given(SERVERS)
def test_what_is_the_same_is_not_written(servers: Mapping[str, str]) -> None:
    """Nothing is done where nothing changed, and a first time writes each file once."""
    new = written(servers)
    assert steps(new, new) == []
    assert sorted(step.name for step in steps({}, new)) == sorted(new)


@pytest.mark.parametrize("odd", ["", "no: yaml: at: all", "[1]", "resources: 7", "resources: [1]"])
def test_clusters_of_somebody_else_are_replaced(odd: str) -> None:
    """A file that we did not write is no reason to write nothing."""
    new = written({"a": "1"})
    assert dict(steps({CLUSTERS_FILE: odd}, new)) == new


def test_files_appear_whole_and_readable(tmp_path: Path) -> None:
    """A file is replaced by a rename, is readable by Envoy, and no draft is left."""
    paused = list[float]()
    new = written({"a": "1"})
    first = replace_files(tmp_path, new, None, pause=paused.append)
    inode = (tmp_path / ROUTES_FILE).stat().st_ino
    second = replace_files(tmp_path, written({"b": "1"}, "more"), None, pause=paused.append)

    assert first == EnvoyUpdate(tuple(new), confirmed=False)
    assert second == EnvoyUpdate(tuple(new), confirmed=False, restart=True)
    assert {path.name for path in tmp_path.iterdir()} == set(new)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o644}
    assert (tmp_path / ROUTES_FILE).stat().st_ino != inode
    # Nobody says what Envoy has taken: the first time nobody has to wait.
    assert len(paused) == len([CLUSTERS_FILE, LISTENERS_FILE, ROUTES_FILE, CLUSTERS_FILE])


def test_a_write_that_fails_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the disk is full the old file stays, and no draft beside it."""
    path = tmp_path / ROUTES_FILE
    files.write(path, "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@given(
    st.lists(
        st.dictionaries(st.sampled_from(["name", "x"]), st.text(st.characters(codec="ascii"))),
        max_size=3,
    )
)
def test_the_version_is_of_the_resources(found: list[dict[str, object]]) -> None:
    """Another content is another version; what is written can be read back."""
    text = watched_text(found)
    assume("\x7f" not in text)  # ruamel takes it for unprintable
    version = re.findall(r'^version_info: "?([0-9a-f]{16})"?$', text, re.MULTILINE)
    assert len(version) == 1
    assert (resources(text) if found else []) == found
    assert version[0] not in watched_text([*found, {"name": "another"}])
