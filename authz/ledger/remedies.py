"""What mends each fault of Redis, in a sentence for whoever runs it."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from authz.ledger.faults import RedisFault


class Remedy(NamedTuple):
    """Say what is so, and what to do."""

    diagnosis: str
    message: str
    fix: str


_PASSWORD: Final = "redis.username and redis.password_file in authz.yaml"  # noqa: S105 - fields
_PRIMARY: Final = (
    "lead redis.url to the primary: by a name that follows a failover, or by its sentinels"
)

REMEDIES: Final[Mapping[RedisFault, Remedy]] = MappingProxyType({
    RedisFault.READ_ONLY: Remedy("replica", "it is a replica (READONLY)", _PRIMARY),
    RedisFault.LOADING: Remedy(
        "loading",
        "it still reads its data (LOADING)",
        "wait: INFO persistence has loading_eta_seconds; until then redis.mode decides",
    ),
    RedisFault.MASTER_DOWN: Remedy(
        "master_down",
        "it is a replica whose primary is away (MASTERDOWN)",
        f"start the primary, or {_PRIMARY}",
    ),
    RedisFault.OUT_OF_MEMORY: Remedy(
        "out_of_memory",
        "it is full and takes no writes (OOM)",
        "raise maxmemory in redis.conf, and keep noeviction (docs/capacity.md has what is needed)",
    ),
    RedisFault.CANNOT_SAVE: Remedy(
        "cannot_save",
        "it cannot save its data and takes no writes (MISCONF)",
        "free its disk, and let its user write to its folder: its own log says which",
    ),
    RedisFault.TOO_FEW_REPLICAS: Remedy(
        "too_few_replicas",
        "it has too few replicas and takes no writes (NOREPLICAS)",
        "start them, or lower min-replicas-to-write in redis.conf",
    ),
    RedisFault.CLUSTER_DOWN: Remedy(
        "cluster_down", "its cluster is down (CLUSTERDOWN)", "CLUSTER INFO says what is missing"
    ),
    RedisFault.MOVED: Remedy(
        "moved",
        "another node of its cluster has the keys (MOVED)",
        "it is a node of a cluster: write redis.url: redis+cluster://host:6379,host:6379",
    ),
    RedisFault.TRY_AGAIN: Remedy(
        "try_again",
        "its keys are on their way to another node (TRYAGAIN)",
        "let the resharding end: CLUSTER NODES shows slots on their way in brackets",
    ),
    RedisFault.NO_NODE: Remedy(
        "no_node",
        "no node of its cluster answers",
        "redis.url in authz.yaml names some: start them, or name others",
    ),
    RedisFault.NO_CLUSTER: Remedy(
        "no_cluster", "it is no cluster", "write redis.url: redis://host:6379 for one server"
    ),
    RedisFault.NOT_LOGGED_IN: Remedy(
        "authentication", "it does not take our user or password", _PASSWORD
    ),
    RedisFault.NOT_PERMITTED: Remedy(
        "no_rights",
        "its user may not do this (NOPERM)",
        "docs/operations.md, Redis, has the commands that it needs",
    ),
    RedisFault.BUSY: Remedy(
        "busy",
        "a script blocks it (BUSY)",
        "SCRIPT KILL; SLOWLOG GET says whose it is",
    ),
    RedisFault.WRONG_TYPE: Remedy(
        "wrong_type",
        "a key of ours holds another type (WRONGTYPE)",
        "something else writes to it: give this deployment a name of its own (redis.deployment)",
    ),
    RedisFault.NO_SENTINEL: Remedy(
        "no_sentinel",
        "none of its sentinels answers",
        "redis.url in authz.yaml names them, with port 26379 as a rule: start them, or name others",
    ),
    RedisFault.NO_SERVICE: Remedy(
        "no_service",
        "its sentinels do not know the service",
        "redis.url ends in its name, as `sentinel monitor` in their configuration has it",
    ),
    RedisFault.SENTINEL_LOGIN: Remedy(
        "sentinel_login",
        "its sentinels do not take our user or password",
        "redis.sentinel.username and redis.sentinel.password_file in authz.yaml",
    ),
    RedisFault.SENTINEL_RIGHTS: Remedy(
        "sentinel_rights",
        "its sentinels do not let our user ask for the primary (NOPERM)",
        "their ACL user needs +sentinel|master",
    ),
    RedisFault.SENTINEL_TLS: Remedy(
        "sentinel_tls",
        "TLS with its sentinels fails",
        "redis.tls in authz.yaml; redis.sentinel.tls: false where they speak none",
    ),
    RedisFault.TLS: Remedy(
        "tls",
        "TLS with it fails: its certificate, or ours, is not accepted",
        "redis.tls in authz.yaml: ca_file, certificate and key, server_name",
    ),
    RedisFault.TLS_FILES: Remedy(
        "tls_files",
        "a file of redis.tls cannot be read, or holds something else",
        "redis.tls in authz.yaml: ca_file, certificate and key have to be PEM, and readable for us",
    ),
    RedisFault.CLOSED: Remedy(
        "unreachable",
        "nobody answers there",
        "redis.url in authz.yaml (rediss:// where it speaks TLS), or start Redis",
    ),
    RedisFault.LATE: Remedy(
        "late",
        "it does not answer in time",
        "look at its load, and its log; with rediss:// at whether that port speaks TLS",
    ),
})  # fmt: skip

# Replies without a code of their own, and the ways to be refused a log-in, by how they begin.
_BY_REPLY: Final[Mapping[str, Remedy]] = MappingProxyType({
    "WRONGPASS": Remedy(
        "authentication",
        "it refuses the user or the password (WRONGPASS)",
        f"{_PASSWORD}: they have to be those of its ACL file, or of requirepass",
    ),
    "NOAUTH": Remedy(
        "authentication",
        "it asks for a password, and none is written (NOAUTH)",
        f"{_PASSWORD} (or AUTHZ_REDIS_PASSWORD)",
    ),
    "ERR AUTH": Remedy(
        "authentication",
        "it has no password, and one is written",
        "requirepass in redis.conf, or leave redis.password_file out",
    ),
    "ERR unknown command": Remedy(
        "unknown_command",
        "it does not know a command of ours",
        "a sentinel knows none: its redis.url is redis+sentinel://host:26379/service; otherwise "
        "take rename-command out of redis.conf",
    ),
})  # fmt: skip


def remedy(fault: RedisFault, reply: str = "") -> Remedy | None:
    """Return what mends a fault; None where it is none that has a name.

    Args:
        fault: what is wrong.
        reply: Redis' error reply, which is looked at for how it begins and not repeated.
    """
    for start, found in _BY_REPLY.items():
        if reply.startswith(start):
            return found
    return REMEDIES.get(fault)
