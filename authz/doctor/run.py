"""All checks of `authz doctor`, in order; a failed one hides no other."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from authz.config.load import Settings
from authz.config.secret_files import named_files
from authz.doctor import (
    authorization_probe,
    documents,
    envoy,
    files,
    firewall,
    front_door,
    git_secrets,
    issuer,
    redis,
    token,
)
from authz.doctor.finding import Finding, note, problem
from authz.doctor.introspection import introspection_client
from authz.server.redis_options import redis_options


@dataclass(frozen=True, slots=True)
class DoctorOptions:
    """Hold what is to be looked at.

    Attributes:
        path: of authz.yaml.
        admin: Envoy's admin socket.
        admin_named: whether somebody gave it.
        tokens: whose verdict is wanted.
        probe_clients: whether clients begin to log in at Authelia.
        documents: the metadata documents to fetch, empty for published ones; None for none at all.
    """

    path: Path
    admin: Path
    admin_named: bool = False
    tokens: tuple[str, ...] = field(default=(), repr=False)
    probe_clients: bool = True
    documents: tuple[str, ...] | None = None


def examine_host(settings: Settings, options: DoctorOptions) -> list[Finding]:
    """Return what can be seen where the containers' paths, names and sockets are not."""
    findings = list(files.examine(settings, options.path, options.admin))
    service = "authz" if settings.config.front_door is None else "authz-pages"
    fix = f"docker compose exec {service} authz doctor /etc/authz/authz.yaml"
    rest = note("containers", "unseen", "what only containers can reach is not looked at", fix)
    return [*findings, *_folder(settings, options), rest]


async def examine(
    settings: Settings,
    options: DoctorOptions,
    env: Mapping[str, str],
    clock: Callable[[], float] = time.time,
) -> list[Finding]:
    """Return all that was found.

    Raises:
        OSError: where the file with Redis' password cannot be read.
    """
    findings = list(files.examine(settings, options.path, options.admin))
    findings += _folder(settings, options)
    found = await issuer.examine(settings.config.issuer, clock)
    findings += found.findings
    if options.probe_clients and found.metadata:
        findings += await authorization_probe.probe_authorization(settings.config, found.metadata)
        findings += await front_door.examine(settings, found.metadata)
    if options.documents is not None:
        findings += await documents.examine(settings.config, options.documents)
    async with introspection_client(settings) as introspection:
        if introspection is not None and found.metadata:
            findings += await introspection.examine(settings)
        principals = []
        for number, text in enumerate(options.tokens, 1):
            one = await token.examine(text, settings, found.keys, clock(), introspection)
            part = f"{token.PART} {number}" if len(options.tokens) > 1 else token.PART
            findings += [replace(each, part=part) for each in one.findings]
            principals += [one.principal] if one.principal is not None else []
    findings += token.compare(principals)
    redis_location = redis_options(settings, env)
    if redis_location is None and settings.config.front_door is not None:
        message = "neither authz.yaml nor the environment names one, and the front door needs it"
        findings.append(problem("redis", "none", message, "write redis.url, or start `authz up`"))
    elif redis_location is None:
        message = "limits, revocations and step-ups are kept in the process: a restart forgets them"
        findings.append(note("redis", "none", message, "redis.url in authz.yaml"))
    else:
        findings += await redis.examine(
            redis_location,
            clock,
            front_door=settings.config.front_door is not None,
            audit=settings.config.audit.to != "off",
        )
    return findings + envoy.examine(settings, options.admin, named=options.admin_named)


def _folder(settings: Settings, options: DoctorOptions) -> list[Finding]:
    folder, config = options.path.parent, settings.config
    findings = git_secrets.examine(folder, named_files(config))
    return findings + firewall.examine(folder, config.gateway.trusted_hops)
