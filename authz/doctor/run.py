"""All checks of `authz doctor`, at once and in one order; a failed one hides no other."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from authz.config.load import Settings
from authz.config.location import DOCTOR, has_doctor, init_folder
from authz.config.secret_files import files_with_secrets
from authz.core.catalogue import Sighting
from authz.core.ledger import UnavailableError
from authz.doctor import (
    authorization_probe,
    certificate,
    deployment_files,
    documents,
    envoy,
    files,
    firewall,
    front_door,
    git_secrets,
    issuer,
    published,
    redis,
    running,
    servers,
    token,
    upstream_authorities,
)
from authz.doctor.finding import Finding, note, problem
from authz.doctor.introspection import introspection_client, unconfigured
from authz.ledger.redis import RedisLedger, RedisOptions
from authz.ledger.sightings import RedisSightings
from authz.server.redis_options import redis_options

AUTHORITY: Final = "ca.crt"  # of a folder that `authz init` wrote
_WHOLE: Final = 90.0  # seconds for one part
_PATIENCE: Final = 5.0


@dataclass(frozen=True, slots=True)
class DoctorOptions:
    """Hold what is to be looked at.

    Attributes:
        path: of authz.yaml.
        admin: Envoy's admin socket.
        admin_named: whether somebody gave it.
        tokens: whose verdict is wanted.
        probe_clients: whether clients begin to log in at Authelia.
        ask_gateway: whether the gateway's public URLs are asked, as clients do.
        ask_servers: whether the MCP servers are asked for their tools.
        beside_envoy: whether what this reaches is what Envoy reaches; else its admin socket says.
        documents: the metadata documents to fetch, empty for published ones; None for none at all.
        gateway_at: host and port where the gateway is reached from here under its public names;
            None where they lead to it.
    """

    path: Path
    admin: Path
    admin_named: bool = False
    tokens: tuple[str, ...] = field(default=(), repr=False)
    probe_clients: bool = True
    ask_gateway: bool = True
    ask_servers: bool = True
    beside_envoy: bool = False
    documents: tuple[str, ...] | None = None
    gateway_at: tuple[str, int] | None = None


def examine_host(settings: Settings, options: DoctorOptions) -> list[Finding]:
    """Return what can be seen where the containers' paths, names and sockets are not."""
    findings = list(files.examine(settings, options.path, options.admin))
    rest = note(
        "containers",
        "unseen",
        "what only containers can reach is not looked at",
        _line(settings, options),
    )
    told = asyncio.run(_within(published.PART, _published(settings, options)))
    return [*findings, *_folder(settings, options), *told, rest]


def _line(settings: Settings, options: DoctorOptions) -> str:
    """Return the line that looks at the rest."""
    folder = init_folder(options.path.parent)
    if folder is not None and has_doctor(folder):
        return f"docker compose run --rm {DOCTOR}"
    service = "authz" if settings.config.front_door is None else "authz-pages"
    return f"docker compose exec {service} authz doctor /etc/authz/authz.yaml"


async def examine(
    settings: Settings,
    options: DoctorOptions,
    env: Mapping[str, str],
    clock: Callable[[], float] = time.time,
) -> list[Finding]:
    """Return all that was found; parts that need nothing of one another are looked at together.

    Raises:
        OSError: where the file with Redis' password cannot be read.
    """
    location = redis_options(settings, env)
    found = await asyncio.gather(
        _within(files.PART, _files(settings, options)),
        _within(issuer.PART, _issuer(settings, options, clock)),
        _within(documents.PART, _documents(settings, options)),
        _within(published.PART, _published(settings, options)),
        _within(servers.PART, _servers(settings, options, location)),
        _within(upstream_authorities.PART, _authorities(settings, options, clock)),
        _within(redis.PART, _redis(settings, location, clock)),
        _within(running.PART, running.examine(settings, options.path)),
        _within(envoy.PART, _envoy(settings, options)),
    )
    return [finding for part in found for finding in part]


async def _within(part: str, looking: Awaitable[list[Finding]]) -> list[Finding]:
    """Return what a part found; that it took too long, or failed itself, is a finding as well."""
    try:
        async with asyncio.timeout(_WHOLE):
            return await looking
    except TimeoutError:
        message = f"this was not looked at to the end within {_WHOLE:.0f} s"
        return [problem(part, "late", message, "run it again; what is slow is what is wrong")]
    except Exception as error:  # noqa: BLE001 - a defect of one part hides no other
        message = f"this could not be looked at: {type(error).__name__}, a defect of doctor"
        return [problem(part, "defect", message, "tell the project, with this line")]


async def _files(settings: Settings, options: DoctorOptions) -> list[Finding]:
    return [
        *files.examine(settings, options.path, options.admin),
        *await asyncio.to_thread(_folder, settings, options),
    ]


def _folder(settings: Settings, options: DoctorOptions) -> list[Finding]:
    folder, config = options.path.parent, settings.config
    findings = git_secrets.examine(folder, files_with_secrets(config))
    made = init_folder(folder)
    findings += [] if made is None else deployment_files.examine(settings, made)
    findings += certificate.examine(settings, options.path, place=options.gateway_at)
    return findings + firewall.examine(folder, config.gateway.trusted_hops)


async def _issuer(
    settings: Settings, options: DoctorOptions, clock: Callable[[], float]
) -> list[Finding]:
    """Look at the issuer, then at what it says of clients and tokens."""
    found = await issuer.examine(settings.config.issuer, clock)
    findings = list(found.findings)
    if options.probe_clients and found.metadata:
        findings += await authorization_probe.probe_authorization(settings.config, found.metadata)
        findings += await front_door.examine(settings, found.metadata)
    async with introspection_client(settings) as introspection:
        if introspection is not None and found.metadata:
            findings += await introspection.examine(settings)
        findings += unconfigured(settings.config)
        principals = []
        for number, text in enumerate(options.tokens, 1):
            one = await token.examine(text, settings, found.keys, clock(), introspection)
            part = f"{token.PART} {number}" if len(options.tokens) > 1 else token.PART
            findings += [replace(each, part=part) for each in one.findings]
            principals += [one.principal] if one.principal is not None else []
    return [*findings, *token.compare(principals)]


async def _documents(settings: Settings, options: DoctorOptions) -> list[Finding]:
    if options.documents is None:
        return []
    return await documents.examine(settings.config, options.documents)


async def _published(settings: Settings, options: DoctorOptions) -> list[Finding]:
    """Ask the gateway; the authority of a folder of `authz init` is trusted, as its clients do."""
    if not options.ask_gateway:
        return []
    folder = init_folder(options.path.parent)
    own = None if folder is None else folder / AUTHORITY
    authorities = own if own is not None and own.is_file() else None
    return await published.examine(settings, authorities, options.gateway_at)


async def _servers(
    settings: Settings, options: DoctorOptions, location: RedisOptions | None
) -> list[Finding]:
    if not options.ask_servers:
        return []
    beside = options.beside_envoy or options.admin.is_socket()
    sockets = await asyncio.to_thread(envoy.upstream_sockets, options.admin)
    if location is None:
        return await servers.examine(settings, sockets=sockets, beside_envoy=beside)
    ledger = RedisLedger(replace(location, timeout=_PATIENCE))
    store = RedisSightings(ledger.command, location.keys)

    async def seen(server: str) -> Sequence[Sighting]:
        try:
            return await store.read(server)
        except UnavailableError:  # it is told in its own part
            return ()

    try:
        return await servers.examine(settings, seen, sockets=sockets, beside_envoy=beside)
    finally:
        await ledger.aclose()


async def _authorities(
    settings: Settings, options: DoctorOptions, clock: Callable[[], float]
) -> list[Finding]:
    if not options.ask_servers:
        return []
    places = (options.admin, envoy.STATS)
    examined = upstream_authorities.examine(settings, places, clock())
    return await asyncio.to_thread(list, examined)


async def _redis(
    settings: Settings, location: RedisOptions | None, clock: Callable[[], float]
) -> list[Finding]:
    has_door = settings.config.front_door is not None
    if location is None and has_door:
        message = "neither authz.yaml nor the environment names one, and the front door needs it"
        return [problem(redis.PART, "none", message, "write redis.url, or start `authz up`")]
    if location is None:
        message = "limits, revocations and step-ups are kept in the process: a restart forgets them"
        return [note(redis.PART, "none", message, "redis.url in authz.yaml")]
    keeps_trail = settings.config.audit.to != "off"
    return await redis.examine(location, clock, front_door=has_door, audit=keeps_trail)


async def _envoy(settings: Settings, options: DoctorOptions) -> list[Finding]:
    named = options.admin_named
    return await asyncio.to_thread(envoy.examine, settings, options.admin, named=named)
