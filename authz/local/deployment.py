"""What one `authz up` is made of, from authz.yaml: Envoy's files, and what runs."""

import hashlib
import os
import ssl
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

from authz.config.addresses import worker_addresses
from authz.config.endpoints import Unix
from authz.config.load import Settings
from authz.envoy.files import ENVOY_FILE
from authz.envoy.render import Topology, render_watched
from authz.local import valkey
from authz.local.envoy import ADMIN, STATISTICS, write_files
from authz.local.running import REDIS_URL, UpSettings, services_of
from authz.local.services import CHECK, CHECK_ADMIN, PAGES
from authz.local.state import State
from authz.local.worker import UpWorker
from authz.process.service import ServiceSpec
from authz.process.supervisor import StartError
from authz.server.transports import choose_program
from authz.server.watcher import TRANSPORT_FAULT
from authz.server.worker_control import GRACE, WorkerSettings

_PRIVATE: Final = 0o077


@dataclass(frozen=True, slots=True)
class Extras:
    """Name what runs besides Valkey, the service and Envoy.

    Attributes:
        services: started before the service, in their order, and stopped after it.
        upstreams: the Unix sockets of servers, by name, in place of their upstream's address.
        issuer: the Unix socket by which Envoy reaches the issuer, in place of `issuer.internal`.
        quiet: whether the lines of the service and the pages go to their log files alone.
    """

    services: Sequence[ServiceSpec] = ()
    upstreams: Mapping[str, Unix] = field(default_factory=lambda: MappingProxyType({}))
    issuer: Unix | None = None
    quiet: bool = False


NOTHING_ELSE: Final = Extras()


@dataclass(frozen=True, slots=True)
class Deployment:
    """Hold what one `authz up` is made of.

    Attributes:
        settings: what the file held when we started.
        configuration: authz.yaml, absolute.
        state: the state folder, held.
        env: the environment.
        extras: what else runs.
    """

    settings: Settings
    configuration: Path
    state: State
    env: Mapping[str, str]
    extras: Extras

    @property
    def topology(self) -> Topology:
        """Return where Envoy finds the services."""
        return Topology(
            authz=worker_addresses(
                Unix(str(self.state.socket(CHECK))), self.settings.config.service.workers
            ),
            admin=str(self.state.socket(ADMIN)),
            stats=str(self.state.socket(STATISTICS)),
            folder=str(self.state.envoy),
            upstreams=self.extras.upstreams,
            issuer=self.extras.issuer,
            pages=(Unix(str(self.state.socket(PAGES))),),
            trusted_ca=ssl.get_default_verify_paths().cafile or Topology().trusted_ca,
        )

    def write(self, *, patient: bool) -> UpSettings:
        """Write Envoy's files and return what runs.

        Args:
            patient: as of `UpSettings`.
        """
        config = self.settings.config
        files = render_watched(self.settings, self.topology)
        write_files(self.state, files)
        given = config.redis.url is not None or REDIS_URL in self.env
        return UpSettings(
            configuration=str(self.configuration),
            folder=str(self.state.folder),
            metrics=config.telemetry.metrics,
            workers=config.service.workers,
            store=None if given else config.redis.deployment,
            server="" if given else str(valkey.binary()),
            front_door=config.front_door is not None,
            edge=digest_edge(files[ENVOY_FILE]),
            patient=patient,
            summary=self._summary(),
            worker=self._worker(),
        )

    def services(self, running: UpSettings) -> tuple[ServiceSpec, ...]:
        """Return the services in the order of their start.

        Raises:
            SetupError: where a program is missing, or the state folder cannot be used.
        """
        others, quiet = self.extras.services, self.extras.quiet
        return services_of(running, self.state, self.env, others=others, quiet=quiet)

    def _worker(self) -> UpWorker | None:
        """Return the worker that is run without `authz serve`; None where that has to decide."""
        config, state = self.settings.config, self.state
        alone = config.service.workers == 1
        if not alone or config.service.transport == "grpcio" or TRANSPORT_FAULT in self.env:
            return None
        settings = WorkerSettings(
            str(self.configuration),
            f"unix:{state.socket(CHECK)}",
            (config.telemetry.metrics.host, config.telemetry.metrics.port),
            config.issuer.deadline + GRACE,
            admin=str(state.socket(CHECK_ADMIN)),
            envoy=str(state.envoy),
            python=sys.executable,
            envoy_stats=str(state.socket(STATISTICS)),
            tells_warnings=True,
        )
        # It makes its sockets as wide as this process's umask leaves them.
        umask = os.umask(_PRIVATE)
        try:
            program = choose_program(config.service.transport, settings, _path())
        except StartError:
            return None
        finally:
            os.umask(umask)
        if program.passed_over:
            return None  # `authz serve` tells why
        return UpWorker(settings, program.argv, program.environment, config.telemetry.log)

    def _summary(self) -> str:
        """Return where everything is, for people."""
        config, state = self.settings.config, self.state
        rows = {
            "gateway": f"{config.gateway.url}, listening on {config.gateway.listen}",
            "metrics": f"http://{config.telemetry.metrics}/metrics",
            "state": str(state.folder),
            "logs": f"{state.logs}/*.log",
        }
        lines = (f"\n  {name:<8} {where}" for name, where in rows.items())
        return "authz is up; Ctrl-C stops it" + "".join(lines)


def _path() -> list[str]:
    """Return where modules are found, without the folder of a script or the working one.

    Python puts it first unless it was started with -P.
    """
    return sys.path if sys.flags.safe_path else sys.path[1:]


def digest_edge(text: str) -> str:
    """Return the SHA-256 of an envoy.yaml, which Envoy reads only at its start."""
    return hashlib.sha256(text.encode()).hexdigest()
