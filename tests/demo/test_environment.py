"""The scenes that are written down: what is in their files."""

import json
import stat
from pathlib import Path

import pytest

from authz.authelia import implied
from authz.config.key_files import public_half
from authz.config.load import load
from authz.config.model import Login
from authz_demo.environment import Location, write_environment
from authz_demo.front_door import KEY, ONE_FACTOR, TWO_FACTOR
from authz_demo.front_door_scenario import require_step_up
from authz_demo.issuer import from_json


@pytest.mark.parametrize("login", ["direct", "front_door"])
def test_authz_takes_what_the_demonstration_writes(tmp_path: Path, login: Login) -> None:
    """authz.yaml loads, its secrets included, and clients log in where the scene says."""
    environment = write_environment(Location(tmp_path / "d", issuer_port=9091), login=login)
    settings = load(environment.configuration, {})

    assert settings.config.login == environment.login == login
    assert set(environment.extras.upstreams) == set(settings.config.servers)


def test_the_front_doors_key_is_ours_alone_and_the_issuer_knows_its_public_half(
    tmp_path: Path,
) -> None:
    """The private half is in a file of mode 600; both of our clients have the other one."""
    place = Location(tmp_path / "d", issuer_port=9091)
    write_environment(place, login="front_door")
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


def test_the_issuer_is_told_what_authelia_config_prints(tmp_path: Path) -> None:
    """The stand-in's clients are those of `authz authelia-config`, member by member, for the rules
    that the walk has.
    """
    environment = write_environment(Location(tmp_path / "d", issuer_port=9091), login="front_door")
    rules = require_step_up(environment.configuration.read_text())
    environment.configuration.write_text(rules)
    config = load(environment.configuration, {}).config
    key = public_half(environment.place.folder / KEY)
    printed = json.loads(implied(config, door_key=key).json())["identity_providers"]["oidc"]
    known = from_json((environment.place.folder / "issuer.json").read_text())

    assert len(printed["clients"]) == len(known.clients)
    for entry in printed["clients"]:
        client = known.client(entry["client_id"])
        assert client is not None
        policy = printed["claims_policies"].get(entry.get("claims_policy"), {})
        assert {
            "redirect_uris": sorted(entry.get("redirect_uris", ())),
            "scopes": sorted(entry["scopes"]),
            "grant_types": list(entry["grant_types"]),
            "method": entry["token_endpoint_auth_method"],
            "key": entry["jwks"][0]["key"] if "jwks" in entry else "",
            "signed": entry["access_token_signed_response_alg"],
            "pushed": entry.get("require_pushed_authorization_requests", False),
            "id_token": list(policy.get("id_token", ())),
            "policy": entry.get("authorization_policy", "one_factor"),
        } == {
            "redirect_uris": sorted(client.redirect_uris),
            "scopes": sorted(client.scopes),
            "grant_types": list(client.grant_types),
            "method": client.token_endpoint_auth_method,
            "key": client.public_key,
            "signed": client.access_token,
            "pushed": client.require_pushed,
            "id_token": list(client.id_token_claims),
            "policy": client.authorization_policy,
        }
        # A machine's audience is wider on purpose: the gateway has to refuse by itself.
        assert set(entry["audience"]) <= set(client.audience)
