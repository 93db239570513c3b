"""Which server redis-py reaches, the client that most other programs have.

It looks for the primary in its own way: it takes the first sentinel that answers, where ours asks
all. Where both reach another server, so do backups, dashboards and scripts.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from authz.ledger.cluster import ClusterPrimary
from authz.ledger.connections import TlsFiles
from authz.ledger.redis import RedisOptions
from authz.ledger.sentinel import SentinelPrimary

RUN_ID: Final = "run_id"


async def run_id(options: RedisOptions, patience: float) -> str | None:
    """Return the id of the server's process (`INFO server`, run_id), as redis-py finds it.

    Args:
        options: where Redis is.
        patience: seconds altogether.

    Returns:
        None where redis-py cannot say: it does not get there, or cannot be told what to call the
        server in TLS.
    """
    if options.tls is not None and options.tls.server_name:
        return None
    try:
        async with asyncio.timeout(patience):
            about = await _about(options, patience)
    # A hostile reply ends in any exception of its parser; a TimeoutError is an OSError.
    except (RedisError, OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
    found = about.get(RUN_ID)
    return found if isinstance(found, str) else None


async def _about(options: RedisOptions, patience: float) -> dict[str, Any]:
    finder = options.finder()
    common: dict[str, Any] = {
        "username": options.username or None,
        "password": options.password or None,
        "socket_timeout": patience,
        "socket_connect_timeout": patience,
        "retry": Retry(NoBackoff(), 0),
    }
    if isinstance(finder, SentinelPrimary):
        service = finder.service
        places = [(each.host, each.port) for each in service.sentinels]
        access: dict[str, Any] = {
            **common,
            "username": options.sentinel.username or None,
            "password": options.sentinel.password or None,
            **_tls(service.sentinels[0].tls),
        }
        build: Callable[..., Sentinel] = Sentinel  # it has no types
        sentinels = build(places, sentinel_kwargs=access, **common, **_tls(service.node.tls))
        try:
            async with sentinels.master_for(service.name) as primary:
                return dict(await primary.info("server"))
        finally:
            for each in sentinels.sentinels:
                await each.aclose()
    if isinstance(finder, ClusterPrimary):
        nodes = [ClusterNode(each.host, each.port) for each in finder.seeds]
        files = _tls(finder.endpoint(finder.seeds[0]).tls)
        async with RedisCluster(startup_nodes=nodes, **common, **files) as cluster:
            owner = cluster.get_node_from_key(f"{{{options.deployment}}}")
            return dict(await cluster.execute_command("INFO", "server", target_nodes=owner))
    # The URL's scheme says whether it is TLS; `redis.tls` of a plain one is of no use.
    files = _tls(options.tls) if urlsplit(options.url).scheme == "rediss" else {}
    files.pop("ssl", None)
    async with Redis.from_url(options.url, **common, **files) as one:
        return dict(await one.info("server"))


def _tls(files: TlsFiles | None) -> dict[str, Any]:
    if files is None:
        return {}
    return {
        "ssl": True,
        "ssl_ca_certs": files.authorities or None,
        "ssl_certfile": files.certificate or None,
        "ssl_keyfile": files.key or None,
    }
