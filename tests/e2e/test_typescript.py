"""The official TypeScript client at the front door, knowing a URL and nothing else.

It is the published package, unchanged; where node is missing the test says so.
"""

import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from authz.login.clients.redirects import RedirectRules
from authz.login.clients.registration import Registrations
from authz.tokens.sealing import Sealer
from tests.login.clients.assertion_kit import EC_KEY, public_jwk
from tests.support.door import CALLBACK, DOCUMENTS, Door
from tests.support.foreign import Foreign

HOME = Path(__file__).resolve().parents[1] / "typescript"
NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(
    NODE is None or not (HOME / "node_modules").exists(),
    reason="NOT TESTED: the TypeScript client: node is missing, or `make typescript` was not run",
)


def run(door: Door, who: Foreign, server: str, **more: Any) -> dict[str, Any]:
    environment = door.running.environment
    told = {
        "url": door.url(server),
        "port": environment.place.port,
        "redirect_uri": CALLBACK,
        "name": "TypeScript",
        "tool": "whoami",
        **more,
    }
    env = {
        "PATH": os.environ["PATH"],
        "NODE_EXTRA_CA_CERTS": str(environment.certificates.authority),
    }
    return who.run([str(NODE), str(HOME / "client.mjs"), json.dumps(told)], env)


def test_a_url_is_enough(door: Door) -> None:
    """Registration, log-in with TOTP, a tool's answer; then a refresh without a person."""
    found = run(door, Foreign(door, door.john), "files", refreshes=True)

    assert found.get("told", {}).get("x-authz-client") == "dynamic/loopback", found
    assert found["told"]["authorization_arrived"] is False
    assert found["refreshed"] is True
    assert found["opened"] == 1
    assert found["seen"].count("201 /register") == 1


def test_a_url_with_a_slash_at_its_end_is_enough(door: Door) -> None:
    """The same server, by the address as people copy it."""
    found = run(door, Foreign(door, door.john), "files/")

    assert "mcp:files" in found.get("told", {}).get("x-authz-scopes", "").split(), found
    assert "401 /files/" in found["seen"]


def test_a_client_with_a_document_does_not_register(door: Door) -> None:
    """Its log-in ends on loopback, so its name is that of any program there."""
    url = door.documents.publish("/typescript.json", "TypeScript", CALLBACK)
    found = run(door, Foreign(door, door.john), "files", document=url)

    assert found.get("told", {}).get("x-authz-client") == "dynamic/loopback", found
    assert "201 /register" not in found["seen"]


def test_a_server_without_scopes_beside_servers_with_scopes(door: Door) -> None:
    """It gets in, and has no scope of another server."""
    found = run(door, Foreign(door, door.john), "open", refreshes=True)

    assert found.get("told", {}).get("x-authz-client") == "dynamic/loopback", found
    assert found["told"]["x-authz-scopes"] is None
    assert found["refreshed"] is True


def test_the_scope_of_a_tool_is_asked_for_at_the_log_in(door: Door) -> None:
    """This client never widens a grant: the challenge names the scopes of all tools."""
    who = Foreign(door, door.john)
    found = run(door, who, "shelf", tool="delete_file", arguments={"name": "none"})

    assert found.get("opened") == 1, found
    assert "failed" not in found, found
    assert "no file of that name" in found["text"]


def test_a_scope_that_the_log_in_did_not_name_is_out_of_reach(door: Door) -> None:
    """Where the server names its own scopes alone (`challenge_scopes: own`) this client's call is
    refused, and a log-in from scratch leads to the same: it asks for what it is told, again. Hence
    the warning of `check-config`, and `all` by default.
    """
    who = Foreign(door, door.john)
    for _ in range(2):
        found = run(door, who, "drawer", tool="delete_file", arguments={"name": "none"})
        assert found.get("failed"), found
        assert found["opened"] == 1
        assert "403 /drawer" in found["seen"]
    allowed = run(door, who, "drawer")
    assert allowed["told"]["x-authz-scopes"] == "mcp:drawer"


def test_a_new_sealing_key_is_recovered_from(door: Door) -> None:
    """What a client kept under another key is `invalid_client` at its refresh: it registers anew
    by itself, its person logs in, and nobody has to remove and add anything.
    """
    sealer = Sealer(("another" * 8,), time.time)
    registration = Registrations(sealer.mac_key("client"), RedirectRules(), time.time)
    client = registration.register(json.dumps({"redirect_uris": [CALLBACK]}).encode())
    tokens = {
        "access_token": "not.ours.any-more",
        "token_type": "Bearer",
        "refresh_token": sealer.seal("refresh-token", {}, 3600),
    }
    kept = {"client": client, "tokens": tokens}
    found = run(door, Foreign(door, door.john), "files", kept=kept)

    assert found.get("told", {}).get("x-authz-client") == "dynamic/loopback", found
    assert found["opened"] == 1
    logged_in = [each for each in found["seen"] if each.split()[1] in {"/token", "/register"}]
    assert logged_in == ["401 /token", "201 /register", "200 /token"]


def test_a_client_proves_itself_with_a_key_of_its_document(door: Door) -> None:
    """`private_key_jwt` as the SDK makes it, at the log-in and at the refresh; the keys are fetched
    from the document's jwks_uri. Without the key the same document is nobody's.
    """
    door.documents.kept["/jwks.json"] = {"keys": [public_jwk(EC_KEY)]}
    url = door.documents.publish(
        "/keyed.json",
        "Keyed",
        CALLBACK,
        token_endpoint_auth_method="private_key_jwt",
        jwks_uri=f"https://{DOCUMENTS}/jwks.json",
    )
    pem = EC_KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    found = run(door, Foreign(door, door.john), "files", document=url, key=pem, refreshes=True)
    without = run(door, Foreign(door, door.john), "files", document=url)

    assert found.get("told", {}).get("x-authz-client") == "dynamic/loopback", found
    assert found["refreshed"] is True
    assert door.documents.asked.count("/jwks.json") == 1
    assert "told" not in without
    assert "401 /token" in without["seen"]


def test_a_step_up_is_told_by_its_own_error(door: Door) -> None:
    """A client that shows links gets -32042, its person steps up, and the call goes through."""
    who = Foreign(door, door.john)
    found = run(door, who, "files", elicits="delete_file")

    assert "no file of that name" in found.get("after", ""), found
    assert "Go back to your assistant" in who.ends[0].text


def test_a_denied_consent_is_told(door: Door) -> None:
    """It hears `access_denied`, and has no token."""
    found = run(door, Foreign(door, replace(door.john, consents=False)), "files")

    assert found["failed"].startswith("Error: access_denied")
