"""What the demonstration runs in: names, people, clients, authz.yaml, the services beside ours.

All of it is made in one folder for one run. Clients of `login: direct` are registered at the issuer
by hand, and here are those; `front_door` has what differs with the front door.
"""

import asyncio
import os
import secrets
import socket
import sys
import uuid
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

import pyotp

from authz.config.endpoints import Unix
from authz.config.model import Login
from authz.local import probe
from authz.local.deployment import Extras
from authz.process.service import ServiceSpec
from authz.setup.certificates import CertificateFiles, write_certificates
from authz_demo import front_door
from authz_demo.issuer import RegisteredClient, StandInConfig, User, to_json
from authz_demo.login_drivers import LoginDriver
from authz_demo.person import FORMS, BrowserUser

CALLBACK: Final = "http://127.0.0.1/callback"
OFFLINE: Final = "offline_access"
_LOOPBACK: Final = "127.0.0.1"

_CONFIGURATION: Final = """\
# Written by `authz demo`. Every reload (SIGHUP) of the service reads it again: try a change.
issuer:
  url: {issuer}
  internal: {internal}
  login: direct
  serve: true
gateway:
  url: {gateway}
  listen: 127.0.0.1:{port}
  tls: {{certificate: {certificate}, key: {key}}}
  origins: [https://inspector.{domain}]
telemetry: {{metrics: '127.0.0.1:{metrics}'}}
service: {{drain_notice: 0s}}               # one machine: Envoy is drained first
clients:
  demo: {{scopes: [mcp:notes, mcp:notes:write, mcp:files], assurance: two_factor}}
  password-only: {{scopes: [mcp:notes, mcp:files]}}
  nightly-backup: {{machine: true, scopes: [mcp:files]}}
servers:
  notes:
    upstream: http://notes/mcp
    scopes: [mcp:notes]
    versions: ['2026-07-28']
    limits: [{{per: [client, user], rate: 60/minute}}]
    tools:
      whoami: {{}}
      read_*: {{}}
      list_*:
        limits: [{{per: user, rate: 5/5 seconds}}]
      delete_*:
        scopes: [mcp:notes:write]
  files:
    upstream: http://files/mcp
    scopes: [mcp:files]
    second_factor: any
    machines: [nightly-backup]
    versions: ['2025-11-25', '2025-06-18', '2025-03-26']
"""


@dataclass(frozen=True, slots=True)
class Location:
    """Where one demonstration runs.

    Attributes:
        folder: for its files; the state of `authz up` is in `state` under it.
        domain: what its names end in; `localhost` names lead to this machine everywhere.
        port, metrics, issuer_port: loopback ports.
        public_port: what the port is in URLs; 443 where clients are sent elsewhere by hand.
        one_name: whether the issuer is under a path of the gateway's name.
    """

    folder: Path
    domain: str = "demo.localhost"
    port: int = 8443
    metrics: int = 9464
    issuer_port: int = 0
    public_port: int | None = None
    one_name: bool = False

    @property
    def gateway(self) -> str:
        """Return the gateway's public URL."""
        return f"https://mcp.{self.domain}{self._suffix}"

    @property
    def issuer(self) -> str:
        """Return the issuer."""
        return (
            f"{self.gateway}/auth" if self.one_name else f"https://auth.{self.domain}{self._suffix}"
        )

    @property
    def internal(self) -> str:
        """Return where the issuer really listens."""
        return f"http://{_LOOPBACK}:{self.issuer_port}"

    @property
    def _suffix(self) -> str:
        port = self.port if self.public_port is None else self.public_port
        return "" if port == 443 else f":{port}"  # noqa: PLR2004 - https's own


def free_port(wanted: int = 0) -> int:
    """Return a loopback port: the wanted one where it is free, else one of the system's choice."""
    for candidate in (wanted, 0):
        with socket.socket() as attempt:
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                attempt.bind((_LOOPBACK, candidate))
            except OSError:
                continue
            port: int = attempt.getsockname()[1]
            return port
    raise OSError("no port is free")


@dataclass(frozen=True, slots=True)
class People:
    """Who logs in: john has TOTP, bob only a password."""

    john: BrowserUser
    bob: BrowserUser


def people() -> People:
    """Make two people with passwords of this run."""
    return People(
        BrowserUser("john", secrets.token_urlsafe(9), pyotp.random_base32()),
        BrowserUser("bob", secrets.token_urlsafe(9)),
    )


class IdentityProvider(Protocol):
    """An issuer of the demonstration: the stand-in, or a real Authelia.

    Attributes:
        portal: how its log-in pages are answered.
    """

    @property
    def portal(self) -> LoginDriver:
        """Return how its log-in pages are answered."""
        ...

    def part(self, place: Location, who: People, machine_secret: str, login: Login) -> ServiceSpec:
        """Write its configuration and return it as a part.

        Args:
            place: where it runs; with the front door its key pair is there already.
            who: the people.
            machine_secret: of the client `nightly-backup`.
            login: where clients log in.
        """
        ...


def listening(port: int) -> Callable[[], Awaitable[bool]]:
    """Return a probe that tells whether somebody answers on a loopback port."""

    async def is_ready() -> bool:
        _, writer = await asyncio.open_connection(_LOOPBACK, port)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        return True

    return is_ready


class StandInProvider:
    """Run the stand-in issuer; not for production."""

    portal: LoginDriver = FORMS

    def part(self, place: Location, who: People, machine_secret: str, login: Login) -> ServiceSpec:
        """Write its configuration and return it as a part."""
        known = clients(place.gateway, machine_secret)
        if login == "front_door":
            # Of those that are registered by hand only the machine is left.
            known = (*front_door.clients(place.gateway, place.folder), known[-1])
        config = StandInConfig(place.issuer, _users(who), known)
        path = place.folder / "issuer.json"
        path.touch(0o600)
        path.write_text(to_json(config))
        command = (sys.executable, "-P", "-m", "authz_demo.issuer", "--config", str(path))
        argv = (*command, "--port", str(place.issuer_port))
        return ServiceSpec("issuer", argv, process_environment(), listening(place.issuer_port))


def _users(who: People) -> tuple[User, ...]:
    return tuple(
        User(each.username, each.password, each.totp_secret, str(uuid.uuid4()), groups)
        for each, groups in ((who.john, ("staff",)), (who.bob, ()))
    )


def clients(gateway: str, machine_secret: str) -> tuple[RegisteredClient, ...]:
    """Return the clients that are registered at the issuer by hand."""
    audience = (f"{gateway}/notes", f"{gateway}/files")
    scopes = ("openid", OFFLINE, "mcp:notes", "mcp:files")
    return (
        RegisteredClient(
            "demo",
            (CALLBACK,),
            scopes,
            audience,
            access_token="RS256",  # noqa: S106 - an algorithm
        ),
        RegisteredClient(
            "password-only",
            (CALLBACK,),
            scopes,
            audience,
            authorization_policy="one_factor",
            access_token="RS256",  # noqa: S106 - as above
        ),
        RegisteredClient(
            "nightly-backup",
            scopes=("mcp:files",),
            audience=audience,
            authorization_policy="one_factor",
            grant_types=("client_credentials",),
            token_endpoint_auth_method="client_secret_basic",  # noqa: S106 - a method
            client_secret=machine_secret,
            access_token="RS256",  # noqa: S106 - as above
        ),
    )


@dataclass(frozen=True, slots=True)
class Environment:
    """One environment, written down and ready to run.

    Attributes:
        place: where it runs.
        who: the people.
        machine_secret: of the client `nightly-backup`.
        certificates: the authority that clients trust, and Envoy's certificate.
        configuration: the path of authz.yaml.
        issuer: who logs people in.
        extras: the parts besides ours.
        login: where clients log in: at the issuer itself, or at the front door.
    """

    place: Location
    who: People
    machine_secret: str = field(repr=False)
    certificates: CertificateFiles
    configuration: Path
    issuer: IdentityProvider
    extras: Extras
    login: Login = "direct"


def write_environment(
    place: Location,
    issuer: IdentityProvider | None = None,
    change: Callable[[str], str] = str,
    who: People | None = None,
    *,
    login: Login = "direct",
    age: str = "1m",
) -> Environment:
    """Write all files of a demonstration.

    Args:
        place: where it runs.
        issuer: who logs people in; the stand-in by default.
        change: makes authz.yaml another one: tests sabotage rules with it.
        who: the people; new ones by default.
        login: where clients log in.
        age: with the front door, how old a log-in may be that deletes a note.
    """
    issuer = StandInProvider() if issuer is None else issuer
    who = people() if who is None else who
    place.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    names = [f"{name}.{place.domain}" for name in ("mcp", "auth")]
    certificates = write_certificates(place.folder / "tls", [*names, _LOOPBACK])
    door = login == "front_door"
    text = (front_door.CONFIGURATION if door else _CONFIGURATION).format(
        issuer=place.issuer,
        internal=place.internal,
        gateway=place.gateway,
        port=place.port,
        certificate=certificates.certificate,
        key=certificates.key,
        metrics=place.metrics,
        domain=place.domain,
        folder=place.folder,
        door_key=front_door.write_key(place.folder) if door else "",
        age=age,
    )
    configuration = place.folder / "authz.yaml"
    configuration.write_text(change(text))
    secret = secrets.token_urlsafe(24)
    sockets = {name: place.folder / f"{name}.sock" for name in ("notes", "files")}
    services = [issuer.part(place, who, secret, login)]
    services += [_sample(name, path) for name, path in sockets.items()]
    upstreams = {name: Unix(str(path)) for name, path in sockets.items()}
    if door:
        upstreams["board"] = upstreams["notes"]
    # The scenario tells what happens; the decision log is in its file.
    extras = Extras(tuple(services), upstreams, quiet=True)
    return Environment(place, who, secret, certificates, configuration, issuer, extras, login)


def _sample(name: str, path: Path) -> ServiceSpec:
    async def is_ready() -> bool:
        await probe.connects(path)
        return True

    command = (sys.executable, "-P", "-m", "authz_demo.samples", name, "--uds", str(path))
    return ServiceSpec(name, command, process_environment(), is_ready, beside=True)


def process_environment() -> Mapping[str, str]:
    """Return all that the demonstration's programs get of our environment."""
    return {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
