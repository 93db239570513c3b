"""A real Authelia as the scene's issuer, where the variable AUTHELIA names its binary.

Its clients are what `authz authelia-config` prints for the scene's authz.yaml, but for the secret's
digest, a scope that nobody shall have, and an audience that the gateway shall refuse by itself. Its
own file is no more lenient than needed: a TOTP code may be used again (several log-ins of one
person within half a minute), wrong passwords ban nobody where a test does not say otherwise, and it
asks no time server.
"""

import json
import os
import secrets
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlsplit

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from authz.authelia import implied
from authz.authelia.clients import PLACEHOLDER
from authz.config.key_files import public_half
from authz.config.load import load
from authz.config.model import Login
from authz.process.service import ServiceSpec
from authz_demo.environment import Location, People, listening, process_environment
from authz_demo.front_door import KEY
from authz_demo.login_drivers import AutheliaDriver, LoginDriver
from authz_demo.person import BrowserUser

CHEAP_HASH: Final = ("argon2", "--memory", "8192", "--iterations", "1")
# The walk calls a tool whose scope was granted to nobody, and a server that refuses its machine.
_UNGRANTED: Final = '          - "mcp:notes:write"\n'
_MACHINE: Final = "        grant_types:\n          - client_credentials\n"


class RealAuthelia:
    """Run the Authelia of that binary."""

    portal: LoginDriver = AutheliaDriver()

    def __init__(
        self,
        binary: Path,
        regulation: Mapping[str, Any] = MappingProxyType({"max_retries": 0}),
        hashing: Sequence[str] = CHEAP_HASH,
    ) -> None:
        """Keep the program, its `regulation`, and how it hashes people's passwords."""
        self._binary = binary
        self._regulation = regulation
        self._hashing = hashing

    def part(self, place: Location, who: People, machine_secret: str, login: Login) -> ServiceSpec:
        folder = place.folder / "authelia"
        folder.mkdir(mode=0o700)
        config = folder / "configuration.json.yml"
        # JSON is YAML: no second writer of YAML is needed.
        config.write_text(json.dumps(self._configuration(place, who, folder)))
        files = f"{config},{self._implied(place, machine_secret, login)}"
        self._run("config", "validate", "--config", files)
        self._run("storage", "migrate", "up", "--config", files)
        for person in (who.john, who.bob):
            if person.totp_secret is not None:
                options = ["--secret", person.totp_secret, "--config", files]
                self._run("storage", "user", "totp", "generate", person.username, *options)
        self._files = files
        argv = (str(self._binary), "--config", files)
        return ServiceSpec(
            "issuer", argv, process_environment(), listening(place.issuer_port), ready_timeout=60
        )

    def bans(self, whose: str) -> str:
        """Return whom it has banned, as its command line says: `ip` or `user`."""
        return self._run("storage", "bans", whose, "list", "--config", self._files)

    def _run(self, *arguments: str) -> str:
        done = subprocess.run(
            [str(self._binary), *arguments],
            check=True,
            capture_output=True,
            text=True,
            env=os.environ,
        )
        return done.stdout

    def _digest(self, password: str, *options: str) -> str:
        command = ("crypto", "hash", "generate", *options, "--password", password)
        return self._run(*command).split("Digest: ", 1)[1].strip()

    def _configuration(self, place: Location, who: People, folder: Path) -> Mapping[str, Any]:
        users = folder / "users.yml"
        people = {each.username: self._user(each, place) for each in (who.john, who.bob)}
        users.write_text(json.dumps({"users": people}))
        issuer = urlsplit(place.issuer)
        domain = issuer.hostname if place.one_name else place.domain
        return {
            "server": {"address": f"tcp://127.0.0.1:{place.issuer_port}{issuer.path or '/'}"},
            "log": {"level": "info"},
            "ntp": {"disable_startup_check": True},
            "totp": {"disable_reuse_security_policy": True},
            "regulation": dict(self._regulation),
            "identity_validation": {"reset_password": {"jwt_secret": secrets.token_hex(32)}},
            "authentication_backend": {"file": {"path": str(users)}},
            "access_control": {"default_policy": "two_factor"},
            "session": {
                "secret": secrets.token_hex(32),
                "cookies": [{"domain": domain, "authelia_url": place.issuer}],
            },
            "storage": {
                "encryption_key": secrets.token_hex(32),
                "local": {"path": str(folder / "db.sqlite3")},
            },
            "notifier": {"filesystem": {"filename": str(folder / "notification.txt")}},
            "identity_providers": {"oidc": self._oidc()},
        }

    def _user(self, person: BrowserUser, place: Location) -> Mapping[str, Any]:
        return {
            "displayname": person.username,
            "password": self._digest(person.password, *self._hashing),
            "email": f"{person.username}@{place.domain}",
            "groups": ["staff"] if person.username == "john" else [],
        }

    def _oidc(self) -> Mapping[str, Any]:
        """Return what only Authelia may know."""
        key = rsa.generate_private_key(65537, 2048).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return {
            "hmac_secret": secrets.token_hex(32),
            "jwks": [{"key_id": "rs256", "algorithm": "RS256", "use": "sig", "key": key.decode()}],
        }

    def _implied(self, place: Location, machine_secret: str, login: Login) -> Path:
        """Write what `authz authelia-config` prints, with the secret's digest in its place."""
        settings = load(place.folder / "authz.yaml", {}, secrets=False)
        text = implied(settings.config, door_key=public_half(place.folder / KEY)).yaml()
        digest = self._digest(
            machine_secret, "pbkdf2", "--variant", "sha512", "--iterations", "100000"
        )
        changes = (
            (PLACEHOLDER, digest),
            *(((_UNGRANTED, ""),) if login == "direct" else ()),
            (_MACHINE, f'          - "{place.gateway}/notes"\n{_MACHINE}'),
        )
        for before, after in changes:
            assert text.count(before) == 1
            text = text.replace(before, after)
        path = place.folder / "authelia" / "authz.yml"
        path.write_text(text)
        return path


def binary_of_the_environment() -> Path | None:
    """Return the program that AUTHELIA names, if it does."""
    named = os.environ.get("AUTHELIA")
    return Path(named) if named else None


def issuer_of_the_environment() -> RealAuthelia | None:
    """Return the real Authelia where AUTHELIA names one."""
    binary = binary_of_the_environment()
    return RealAuthelia(binary) if binary else None
