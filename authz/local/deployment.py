"""What one `authz up` is made of: its services, their sockets, their environments.

Invariant: only the service and the pages see our environment; Valkey and Envoy get files that hold
no secret.
"""

import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final

from authz.config.addresses import worker_addresses
from authz.config.load import Settings, load
from authz.config.problems import ConfigError
from authz.config.value_types import Unix
from authz.envoy.files import ENVOY_FILE
from authz.envoy.render import Topology, render_watched
from authz.local.envoy import ADMIN, STATISTICS, envoy_service
from authz.local.services import CHECK, PAGES, check_service, pages_service
from authz.local.state import State
from authz.local.valkey import valkey
from authz.process.service import ServiceSpec

# What `authz serve` takes from its environment in place of `redis`.
REDIS_URL: Final = "AUTHZ_REDIS_URL"
REDIS_USERNAME: Final = "AUTHZ_REDIS_USERNAME"
REDIS_PASSWORD: Final = "AUTHZ_REDIS_PASSWORD"  # noqa: S105 - the variable's name
REDIS_PASSWORD_FILE: Final = "AUTHZ_REDIS_PASSWORD_FILE"  # noqa: S105 - as above
# All that Valkey and Envoy get of our environment: it may hold secrets of the service.
_PLAIN: Final = frozenset({"PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR"})


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
            pages=Unix(str(self.state.socket(PAGES))),
            trusted_ca=ssl.get_default_verify_paths().cafile or Topology().trusted_ca,
        )

    def services(self, *, patient: bool) -> tuple[ServiceSpec, ...]:
        """Write the services' files and return them in the order of their start.

        Raises:
            SetupError: where a program is missing, or the state folder cannot be used.
        """
        plain = {name: value for name, value in self.env.items() if name in _PLAIN}
        config, env = self.settings.config, dict(self.env)
        stores: list[ServiceSpec] = []
        if config.redis.url is None and REDIS_URL not in self.env:
            store = valkey(
                self.state,
                plain,
                deployment=config.redis.deployment,
                front_door=config.front_door is not None,
            )
            stores.append(store.spec)
            env.pop(REDIS_PASSWORD, None)
            env[REDIS_URL], env[REDIS_USERNAME] = store.url, store.user
            env[REDIS_PASSWORD_FILE] = str(store.password_file)
        metrics = config.telemetry.metrics
        workers = config.service.workers
        checks = check_service(
            self.state, self.configuration, metrics, env, patient=patient, workers=workers
        )
        answering = [checks]
        if config.front_door is not None:
            answering.append(pages_service(self.state, self.configuration, env))
        if self.extras.quiet:
            answering = [replace(spec, echo=None) for spec in answering]
        files = render_watched(self.settings, self.topology)
        return (*stores, *self.extras.services, *answering, envoy_service(self.state, files, plain))

    def would_change(self) -> Sequence[str]:
        """Return who runs with another configuration than authz.yaml now asks for."""
        try:
            settings = load(self.configuration, self.env, secrets=False)
        except ConfigError:
            return ()  # the service says what is wrong, and goes on as before
        new, old = settings.config, self.settings.config
        edges = [render_watched(each, self.topology) for each in (settings, self.settings)]
        edge_differs = edges[0][ENVOY_FILE] != edges[1][ENVOY_FILE]
        door_differs = (old.front_door is None) != (new.front_door is None)
        found = (("Envoy", edge_differs), ("the front door", door_differs))
        return [name for name, differs in found if differs]

    def summary(self) -> str:
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
