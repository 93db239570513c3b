"""Redis in the deployment: who may do what there, and that nobody needs more."""

import asyncio
import re

import pytest

from tests.compose import caller
from tests.compose.deployment import ComposeDeployment


def ask(deployment: ComposeDeployment, user: str, *command: str) -> str:
    """Ask Redis as one of its users, from inside its container."""
    name = {"authz": "redis_authz", "authelia": "redis_authelia"}.get(user)
    password = "any" if name is None else (deployment.folder / "secrets" / name).read_text()
    who = ("--no-auth-warning", "--user", user, "--pass", password)
    return deployment.inside("redis", "valkey-cli", *who, *command, check=False).strip()


def test_what_is_needed_is_allowed(deployment: ComposeDeployment) -> None:
    """A whole journey and a decision with limits are denied nothing by Redis."""
    asyncio.run(caller.log_in(deployment, "notes", "2026-07-28"))

    told = ask(deployment, "authz", "info", "stats")
    before = re.findall(r"acl_access_denied_(?:cmd|key|channel):(\d+)", told)
    asyncio.run(caller.log_in(deployment, "notes", "2026-07-28"))
    deployment.inside("authz", "/opt/authz/bin/authz", "revocations", *_CONFIG)
    told = ask(deployment, "authz", "info", "stats")

    assert re.findall(r"acl_access_denied_(?:cmd|key|channel):(\d+)", told) == before


_CONFIG = ("--config", "/etc/authz/authz.yaml")


@pytest.mark.parametrize(
    ("user", "command"),
    [
        ("authz", "get authelia-session:x"),
        ("authz", "set authelia-session:x 1"),
        ("authz", "hgetall {other}:revocations"),
        ("authz", "flushall"),
        ("authz", "config get *"),
        ("authz", "keys *"),
        ("authz", "acl list"),
        ("authz", "eval return(1) 0"),
        ("authz", "select 1"),
        ("authz", "rename {authz}:revocations {authz}:x"),
        ("authz", "publish x y"),
        ("authelia", "hgetall {authz}:revocations"),
        ("authelia", "hdel {authz}:revocations everything"),
        ("authelia", "set {authz}:step-up:x 1"),
        ("authelia", "flushdb"),
        ("authelia", "keys *"),
        ("authelia", "config set maxmemory 1"),
        ("authelia", "evalsha 00 0"),
        ("health", "get authelia-session:x"),
        ("health", "info"),
        ("health", "acl whoami"),
        ("acl-load", "acl whoami"),
        ("acl-load", "acl setuser x on nopass"),
        ("acl-load", "get authelia-session:x"),
    ],
)
@pytest.mark.attack("Redis")
def test_what_is_not_needed_is_refused(
    deployment: ComposeDeployment, user: str, command: str
) -> None:
    """Neither reads the other's keys, nobody administers, and the health check may ask for life."""
    assert ask(deployment, user, *command.split()).startswith("NOPERM")


def test_nobody_is_somebody(deployment: ComposeDeployment) -> None:
    """Without a user Redis says nothing, and a wrong password is none."""
    said = deployment.inside("redis", "valkey-cli", "ping", check=False)
    wrong = deployment.inside(
        *("redis", "valkey-cli", "--no-auth-warning", "--user", "authz", "--pass", "no", "ping"),
        check=False,
    )

    assert "NOAUTH" in said
    assert "NOAUTH" in wrong or "WRONGPASS" in wrong


def test_nothing_is_evicted_and_all_is_written(deployment: ComposeDeployment) -> None:
    """`noeviction`, and an append-only file."""
    told = ask(deployment, "authz", "info")

    assert "maxmemory_policy:noeviction" in told
    assert "aof_enabled:1" in told
