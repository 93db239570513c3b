"""The demonstration with the front door: authz.yaml, and the clients that Authelia has to know.

Invariant: the stand-in is told of our two clients what `authz authelia-config` prints, no more; a
client of the front door is registered nowhere.
"""

from dataclasses import replace
from pathlib import Path
from typing import Final

from authz.config.key_files import make_key, public_half
from authz_demo.issuer import RegisteredClient

KEY: Final = "front-door.pem"
ONE_FACTOR: Final = "authz-one-factor"
TWO_FACTOR: Final = "authz-two-factor"
OLD_SCRIPT: Final = "old-script"  # talks to the issuer itself: nobody knows how it logged in
_LOOPBACK: Final = ("http://127.0.0.1/callback", "http://[::1]/callback")
_SERVERS: Final = ("notes", "board", "files")
_SIGNED: Final = "RS256"
_CALLBACK: Final = "/authz/callback"

# `board` is the server of `notes` under rules that ask for nothing but a password.
CONFIGURATION: Final = """\
# Written by `authz demo`. Every reload (SIGHUP) of the service reads it again: try a change.
issuer:
  url: {issuer}
  internal: {internal}
  serve: true
front_door: {{key_file: {door_key}}}
console: {{groups: [staff]}}                # {gateway}/authz/admin
gateway:
  url: {gateway}
  listen: 127.0.0.1:{port}
  tls: {{certificate: {certificate}, key: {key}}}
  origins: [https://inspector.{domain}]
telemetry: {{metrics: '127.0.0.1:{metrics}'}}
service: {{drain_notice: 0s}}               # one machine: Envoy is drained first
clients:
  old-script: {{login: direct, scopes: [mcp:notes, mcp:board]}}
  nightly-backup: {{machine: true, scopes: [mcp:files]}}
servers:
  notes:
    upstream: http://notes/mcp
    socket: {folder}/notes.sock
    scopes: [mcp:notes]
    versions: ['2026-07-28']
    limits: [{{per: [client, user], rate: 60/minute}}]
    tools:
      whoami: {{}}
      read_*: {{}}
      list_*:
        limits: [{{per: user, rate: 5/5 seconds}}]
      delete_*:
        second_factor: {{method: totp, max_login_age: {age}}}
  board:
    upstream: http://notes/mcp
    scopes: [mcp:board]
    versions: ['2026-07-28']
  files:
    upstream: http://files/mcp
    scopes: [mcp:files]
    second_factor: totp
    machines: [nightly-backup]
    versions: ['2025-11-25', '2025-06-18', '2025-03-26']
"""


def write_key(folder: Path) -> Path:
    """Make the key pair of our clients at Authelia, readable by us alone."""
    path = folder / KEY
    make_key(path)
    return path


def clients(gateway: str, folder: Path) -> tuple[RegisteredClient, ...]:
    """Return what the issuer is told: our two clients, and one that comes by itself."""
    public = public_half(folder / KEY)
    assert public is not None
    audience = tuple(f"{gateway}/{server}" for server in _SERVERS)
    scopes = tuple(f"mcp:{server}" for server in _SERVERS)
    two = RegisteredClient(
        TWO_FACTOR,
        (
            f"{gateway}{_CALLBACK}",
            f"{gateway}/authz/step-up/callback",
            f"{gateway}/authz/approval/callback",
            f"{gateway}/authz/admin/callback",
        ),
        ("openid", "offline_access", "profile", "groups", *scopes),
        audience,
        token_endpoint_auth_method="private_key_jwt",  # noqa: S106 - a method
        public_key=public.pem,
        access_token=_SIGNED,
        id_token_claims=("preferred_username",),
        require_pushed=True,
    )
    one = replace(
        two,
        client_id=ONE_FACTOR,
        redirect_uris=(
            f"{gateway}{_CALLBACK}",
            f"{gateway}/authz/log-ins/callback",
            f"{gateway}/authz/approval/one-factor/callback",
        ),
        authorization_policy="one_factor",
    )
    old = RegisteredClient(
        OLD_SCRIPT,
        _LOOPBACK,
        ("mcp:notes", "mcp:board", "offline_access"),
        audience[:2],
        authorization_policy="one_factor",
        access_token=_SIGNED,
    )
    return (two, one, old)
