"""The benches, as far as can be told without measuring."""

import json
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

from bench.edge import EXT_AUTHZ
from bench.peers import ext_authz, signer, with_filters

BENCHES = sorted((Path(__file__).parents[1] / "bench").glob("[a-z]*.py"))


@pytest.mark.parametrize("path", BENCHES, ids=lambda path: path.stem)
def test_every_bench_finds_what_it_measures(path: Path) -> None:
    """What it imports is there: nothing else notices when a name moves."""
    import_module(f"bench.{path.stem}")


def test_a_peer_stands_where_our_filter_stood() -> None:
    """Its filters take the place of ours, and nothing of ours is left that Envoy would not know."""
    own = {"name": EXT_AUTHZ, "typed_config": {}}
    route = {"name": "files", "typed_per_filter_config": {EXT_AUTHZ: {}, "other": {}}}
    manager = {"http_filters": [{"name": "before"}, own, {"name": "after"}], "routes": [route]}
    config = {"static_resources": {"listeners": [manager], "clusters": [{"name": "authz"}]}}
    theirs = ext_authz("unix:/run/peer.sock", [7])
    two = replace(theirs, filters=[{"name": "one"}, {"name": "two"}])

    found = json.loads(with_filters(json.dumps(config), two))["static_resources"]

    (listener,) = found["listeners"]
    names = [one["name"] for one in listener["http_filters"]]
    assert names == ["before", "one", "two", "after"]
    assert listener["routes"] == [{"name": "files", "typed_per_filter_config": {"other": {}}}]
    assert [one["name"] for one in found["clusters"]] == ["authz", "peer"]
    assert theirs.processes == {"0": 7}


def test_the_key_of_peers_stays(tmp_path: Path) -> None:
    """A peer that was set up with the JWKS of a key accepts the tokens of a later run."""
    first = signer(tmp_path / "key.pem")

    assert signer(tmp_path / "key.pem").jwk() == first.jwk()
    assert json.loads((tmp_path / "key.pem.jwks").read_text()) == {"keys": [first.jwk()]}
    assert (tmp_path / "key.pem").stat().st_mode & 0o077 == 0
