"""The whole look, part after part.

Law: a part that is broken hides no other.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from authz.config.load import Settings
from authz.doctor import (
    documents,
    envoy,
    files,
    firewall,
    front_door,
    issuer,
    redis,
    rehearsal,
    token,
)
from authz.doctor.finding import Finding, note, problem
from authz.doctor.introspection import asking
from authz.server.redis_options import redis_options


@dataclass(frozen=True, slots=True)
class Asked:
    """Hold what is to be looked at.

    Attributes:
        path: of authz.yaml.
        admin: Envoy's admin socket.
        admin_named: whether somebody gave it.
        tokens: whose verdict is wanted.
        rehearse: whether clients begin to log in at Authelia.
        documents: the metadata documents to fetch, empty for published ones; None for none at all.
    """

    path: Path
    admin: Path
    admin_named: bool = False
    tokens: tuple[str, ...] = field(default=(), repr=False)
    rehearse: bool = True
    documents: tuple[str, ...] | None = None


async def examine(
    settings: Settings,
    asked: Asked,
    env: Mapping[str, str],
    clock: Callable[[], float] = time.time,
) -> list[Finding]:
    """Return all that was found.

    Raises:
        OSError: where the file with Redis' password cannot be read.
    """
    findings = list(files.examine(settings, asked.path, asked.admin))
    findings += firewall.examine(asked.path.parent, settings.config.gateway.trusted_hops)
    found = await issuer.examine(settings.config.issuer, clock)
    findings += found.findings
    if asked.rehearse and found.metadata:
        findings += await rehearsal.rehearse(settings.config, found.metadata)
        findings += await front_door.examine(settings, found.metadata)
    if asked.documents is not None:
        findings += await documents.examine(settings.config, asked.documents)
    async with asking(settings) as who:
        if who is not None and found.metadata:
            findings += await who.examine(settings)
        principals = []
        for number, text in enumerate(asked.tokens, 1):
            one = await token.examine(text, settings, found.keys, clock(), who)
            part = f"{token.PART} {number}" if len(asked.tokens) > 1 else token.PART
            findings += [replace(each, part=part) for each in one.findings]
            principals += [one.principal] if one.principal is not None else []
    findings += token.compare(principals)
    options = redis_options(settings, env)
    if options is None and settings.config.front_door is not None:
        words = "neither authz.yaml nor the environment names one, and the front door needs it"
        findings.append(problem("redis", "none", words, "write redis.url, or start `authz up`"))
    elif options is None:
        words = "limits, revocations and step-ups are kept in the process: a restart forgets them"
        findings.append(note("redis", "none", words, "redis.url in authz.yaml"))
    else:
        findings += await redis.examine(
            options, clock, front_door=settings.config.front_door is not None
        )
    return findings + envoy.examine(settings, asked.admin, named=asked.admin_named)
