"""Authelia's generated files, read as Authelia would read them, into the stand-in issuer's own.

The stand-in knows only what `authz init` and `authz authelia-config` wrote, and checks passwords
against the digests in users.yml.
"""

import json
import re
import uuid
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from ruamel.yaml import YAML

from authz_demo.issuer import RegisteredClient, StandInConfig, User, to_json
from authz_demo.person import BrowserUser


def configuration(folder: Path, person: BrowserUser) -> str:
    """Return the stand-in's configuration for one person."""
    own = _yaml((folder / "authelia/configuration.yml").read_text())
    implied = _yaml((folder / "authelia/authz.yml").read_text())
    users = _yaml((folder / "users/users.yml").read_text())["users"]
    known = users[person.username]
    Argon2id.verify_phc_encoded(person.password.encode(), known["password"])
    user = User(
        person.username,
        person.password,
        person.totp_secret,
        str(uuid.uuid5(uuid.NAMESPACE_URL, person.username)),
        tuple(known["groups"]),
        known["email"],
        known["displayname"],
    )
    oidc = implied["identity_providers"]["oidc"]
    policies = oidc.get("claims_policies", {})
    clients = tuple(_client(each, policies) for each in oidc["clients"])
    issuer = own["session"]["cookies"][0]["authelia_url"]
    return to_json(StandInConfig(issuer, (user,), clients))


def _yaml(text: str) -> Any:
    # Authelia's template filter runs before its YAML reader.
    return json.loads(json.dumps(YAML(typ="safe").load(re.sub(r"\{\{.*?\}\}", "'template'", text))))


def _client(values: dict[str, Any], policies: dict[str, Any]) -> RegisteredClient:
    policy = policies.get(values.get("claims_policy", ""), {})
    keys = values.get("jwks") or [{"key": ""}]
    return RegisteredClient(
        values["client_id"],
        tuple(values.get("redirect_uris", ())),
        tuple(values["scopes"]),
        tuple(values.get("audience", ())),
        values.get("requested_audience_mode", "explicit"),
        values.get("authorization_policy", "two_factor"),
        tuple(values["grant_types"]),
        values.get("token_endpoint_auth_method", "client_secret_basic"),
        public_key=keys[0]["key"],
        access_token=values.get("access_token_signed_response_alg", "opaque"),
        claims_policy=tuple(policy.get("access_token", ())),
        id_token_claims=tuple(policy.get("id_token", ())),
        require_pushed=values.get("require_pushed_authorization_requests", False),
    )
