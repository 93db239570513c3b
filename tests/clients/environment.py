"""The deployment that the client matrix comes to: Envoy, authz, a stand-in issuer, three servers.

All of it is reached at `https://localhost:PORT`, a name that every client resolves by itself.
"""

import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final

from authz.config.endpoints import Unix
from authz.config.model import Login
from authz.local.deployment import Extras
from authz.process.service import ServiceSpec
from authz.setup.certificates import write_certificates
from authz_demo import front_door
from authz_demo.environment import (
    Location,
    People,
    free_port,
    listening,
    people,
    process_environment,
    write_environment,
)
from authz_demo.issuer import RegisteredClient, StandInConfig, User, to_json
from authz_demo.login_drivers import LoginDriver
from authz_demo.loopback import LoopbackNetwork
from authz_demo.person import FORMS, BrowserUser
from tests.support.demo_environment import RunningEnvironment
from tests.support.service import until

ROOT: Final = Path(__file__).resolve().parents[2]
SCOPES: Final = ("mcp:ruled", "mcp:ruled:wider", "mcp:conformance")
ORIGIN: Final = "https://client.example.test"
SERVERS: Final = ("plain", "ruled", "away", "sessions", "stateless")

# Nobody is there; the conformance tests say where their two servers are.
NOWHERE: Final = MappingProxyType({"sessions": 9, "stateless": 9})

# `plain` is the README's smallest server. `away` goes away while a client uses it.
_CONFIGURATION: Final = """\
issuer:
  url: {issuer}
  internal: {internal}
  serve: true
front_door: {{key_file: {key_file}}}
gateway:
  url: {gateway}
  listen: 127.0.0.1:{port}
  tls: {{certificate: {certificate}, key: {key}}}
  origins: [{origin}]
  streams_per_user: 4096
telemetry: {{metrics: '127.0.0.1:{metrics}'}}
service: {{drain_notice: 0s}}
servers:
  plain:
    upstream: http://plain/mcp
  away:
    upstream: http://away/mcp
  sessions:
    upstream: http://{sessions}/mcp
    scopes: [mcp:conformance]
    limits: [{{per: [client, user], rate: 100000/minute}}]
  stateless:
    upstream: http://{stateless}/mcp
    scopes: [mcp:conformance]
    limits: [{{per: [client, user], rate: 100000/minute}}]
  ruled:
    upstream: http://ruled/mcp
    scopes: [mcp:ruled]
    tools:
      echo: {{}}
      limited:
        limits: [{{per: user, rate: 2/minute}}]
      wider:
        scopes: [mcp:ruled:wider]
      guarded:
        second_factor: {{method: totp, evidence: [step_up]}}
"""


@dataclass(frozen=True, slots=True)
class LoopbackPlace(Location):
    """A place whose gateway is a port of `localhost`."""

    @property
    def gateway(self) -> str:
        """Return the gateway's public URL."""
        return f"https://localhost:{self.port}"


@dataclass(frozen=True, slots=True)
class Residents:
    """The stand-in issuer with a person of its own for each client: limits are per person."""

    names: Sequence[str]
    who: People
    portal: LoginDriver = FORMS

    def person(self, name: str) -> BrowserUser:
        """Return who uses a client."""
        return replace(self.who.john, username=name)

    def part(self, place: Location, who: People, machine_secret: str, login: Login) -> ServiceSpec:
        """Write the issuer's configuration and return it as a part."""
        users = tuple(
            User(name, who.john.password, who.john.totp_secret, str(uuid.uuid4()), ())
            for name in self.names
        )
        audience = tuple(f"{place.gateway}/{server}" for server in SERVERS)
        ours: tuple[RegisteredClient, ...] = tuple(
            replace(
                client,
                audience=audience,
                scopes=("openid", "offline_access", "profile", *SCOPES),
            )
            for client in front_door.clients(place.gateway, place.folder)
            if client.client_id in (front_door.ONE_FACTOR, front_door.TWO_FACTOR)
        )
        path = place.folder / "issuer.json"
        path.touch(0o600)
        path.write_text(to_json(StandInConfig(place.issuer, users, ours)))
        command = (sys.executable, "-P", "-m", "authz_demo.issuer", "--config", str(path))
        argv = (*command, "--port", str(place.issuer_port))
        return ServiceSpec("issuer", argv, process_environment(), listening(place.issuer_port))


class ClientUpstream:
    """One MCP server, which can go away and come back."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.path.unlink(missing_ok=True)
        sample = Path(__file__).with_name("sample.py")
        command = (sys.executable, str(sample), str(self.path))
        env = {**process_environment(), "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(command, env=env)
        until(self._answers, "the MCP server")

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as attempt:
            try:
                attempt.connect(str(self.path))
            except OSError:
                return False
        return True

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@dataclass(frozen=True, slots=True)
class Town:
    """Hold the whole, its people and the server that can go away."""

    running: RunningEnvironment
    residents: Residents
    authority: Path
    away: ClientUpstream
    port: int

    def url(self, server: str) -> str:
        """Return all that a client is told."""
        return f"https://localhost:{self.port}/{server}"

    def network(self, number: int) -> LoopbackNetwork:
        """Return how the browser of one client's person reaches the whole."""
        ports = {"localhost": self.port, "auth.example.test": self.port}
        return LoopbackNetwork(ports, self.authority, f"127.0.0.{number % 250 + 2}")


@contextmanager
def running_town(
    folder: Path, names: Sequence[str], ports: Mapping[str, int] = NOWHERE
) -> Iterator[Town]:
    """Run the whole as long as the block does.

    Args:
        folder: for its files; a short path.
        names: of the clients, each of which gets a person.
        ports: of the servers `sessions` and `stateless`, where they run.
    """
    at = LoopbackPlace(
        folder / "d",
        domain="example.test",
        port=free_port(),
        metrics=free_port(),
        issuer_port=free_port(),
        public_port=443,
    )
    tls = write_certificates(folder / "tls", ["localhost", "127.0.0.1", "auth.example.test"])

    def configuration(_: str) -> str:
        return _CONFIGURATION.format(
            issuer=at.issuer,
            internal=at.internal,
            key_file=at.folder / front_door.KEY,
            gateway=at.gateway,
            port=at.port,
            certificate=tls.certificate,
            key=tls.key,
            metrics=at.metrics,
            origin=ORIGIN,
            **{name: f"127.0.0.1:{number}" for name, number in ports.items()},
        )

    residents = Residents(names, people())
    environment = write_environment(at, residents, configuration, residents.who, login="front_door")
    upstreams = {name: ClientUpstream(folder / f"{name}.sock") for name in ("shared", "away")}
    sockets = {
        "plain": Unix(str(upstreams["shared"].path)),
        "ruled": Unix(str(upstreams["shared"].path)),
        "away": Unix(str(upstreams["away"].path)),
    }
    issuer = environment.extras.services[:1]
    running = RunningEnvironment(replace(environment, extras=Extras(issuer, sockets, quiet=True)))
    try:
        for upstream in upstreams.values():
            upstream.start()
        running.start()
        yield Town(running, residents, tls.authority, upstreams["away"], at.port)
    finally:
        running.stop()
        for upstream in upstreams.values():
            upstream.stop()
