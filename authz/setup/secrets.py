"""New secrets: random words, key pairs, argon2id digests, the ACL file of Redis."""

import hashlib
import os
import secrets
from typing import Final

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from authz.config.key_files import to_pem
from authz.ledger.keys import RedisKeys
from authz.local.valkey import AUDIT_COMMANDS, COMMANDS, FRONT_DOOR_COMMANDS

# Authelia's own: what it would digest with (argon2id, 64 MiB, 3 passes, 4 lanes).
_MEMORY, _PASSES, _LANES, _LENGTH = 65536, 3, 4, 32
# Both processes of ours are one user: they read one authz.yaml.
_LEDGER: Final = tuple(dict.fromkeys((*COMMANDS, *AUDIT_COMMANDS, *FRONT_DOOR_COMMANDS)))
# What Authelia's session store says to Redis (its library, read in the source): no more.
_SESSIONS: Final = (
    *("get", "set", "exists", "rename", "expire", "del"),
    *("ping", "select", "client|setinfo", "client|setname"),
)


def random_secret() -> str:
    """Return a new secret of 256 bits, as text."""
    return secrets.token_urlsafe(32)


def random_password() -> str:
    """Return a new password for a person: 96 bits."""
    return secrets.token_urlsafe(12)


def signing_key() -> str:
    """Return a new RSA key for Authelia to sign with, PEM."""
    return to_pem(rsa.generate_private_key(public_exponent=65537, key_size=2048))


def password_digest(text: str) -> str:
    """Return the digest of a password in the form that Authelia's users.yml has (PHC, argon2id)."""
    return Argon2id(
        salt=os.urandom(16), length=_LENGTH, iterations=_PASSES, lanes=_LANES, memory_cost=_MEMORY
    ).derive_phc_encoded(text.encode())


def redis_users(authz: str, authelia: str | None, deployment: str = "authz") -> str:
    """Return Redis' ACL file: who may run which commands on which keys.

    Args:
        authz: the password of the service.
        authelia: that of Authelia; None where the folder brings none.
        deployment: the hash tag that all keys of the ledger begin with.
    """
    tag = RedisKeys(deployment).revocations.decode().partition(":")[0]
    lines = [
        "user default off",
        # For the health check: anybody on this network may learn that Redis is alive.
        "user health on nopass resetchannels -@all +ping",
        # For a new password: anybody on this network may have this file read again, and no more.
        "user acl-load on nopass resetchannels -@all +acl|load",
        _user("authz", authz, f"~{tag}:*", _LEDGER),
    ]
    if authelia is not None:
        lines.append(_user("authelia", authelia, "~authelia-session*", _SESSIONS))
    return "".join(f"{line}\n" for line in lines)


def _user(name: str, secret: str, keys: str, commands: tuple[str, ...]) -> str:
    hashed = hashlib.sha256(secret.encode()).hexdigest()
    allowed = " ".join(f"+{command}" for command in commands)
    return f"user {name} on #{hashed} resetchannels {keys} -@all {allowed}"
