"""A backup as docs/upgrade.md makes it, all lost, restored: what was granted or revoked holds."""

import asyncio
import shutil
import subprocess

import httpx

from tests.compose import caller
from tests.compose.deployment import SERVICES, ComposeDeployment

_CONFIG = ("-c", "/etc/authz/authz.yaml")
_AUTHZ = "/opt/authz/bin/authz"


def test_a_log_in_of_before_works_on_and_a_revoked_one_does_not(
    deployment: ComposeDeployment,
) -> None:
    """Refreshed after the restore, from sealed tokens that only the kept keys open; a revocation of
    before holds, and so does the signature of a token of before.
    """
    mode, folder = "2026-07-28", deployment.folder
    _, kept = asyncio.run(caller.log_in_to_stay(deployment, "notes", mode))
    _, ended = asyncio.run(caller.log_in_to_stay(deployment, "notes", mode))
    assert kept.tokens is not None
    assert ended.tokens is not None
    token = folder / "authz" / "token"
    token.write_text(ended.tokens.access_token)
    words = ("revoke", "--token-file", "/etc/authz/token", *_CONFIG)
    deployment.inside("authz", _AUTHZ, *words)
    token.unlink()

    backup = folder.parent / "authz.tar"
    deployment.compose("stop", "authelia", "redis")
    exclude = f"--exclude={folder.name}/data/prometheus"
    _run("tar", "-C", str(folder.parent), exclude, "-cpf", str(backup), folder.name)
    deployment.compose("start", "redis", "authelia")
    deployment.compose("down", "-v", "-t", "5")
    shutil.rmtree(folder)

    _run("tar", "--same-owner", "-C", str(folder.parent), "-xpf", str(backup))
    (folder / "data/prometheus").mkdir()
    _run("chown", "--reference=data/redis", "data/prometheus", cwd=str(folder))
    deployment.compose("up", "-d", timeout=400)
    deployment.until_healthy(*SERVICES)

    assert _status(deployment, kept.tokens.access_token) == httpx.codes.OK
    answer = asyncio.run(caller.refresh(deployment, kept))
    assert answer.status_code == httpx.codes.OK, answer.text
    assert _status(deployment, answer.json()["access_token"]) == httpx.codes.OK
    assert _status(deployment, ended.tokens.access_token) == httpx.codes.UNAUTHORIZED
    _, fresh = asyncio.run(caller.log_in(deployment, "notes", mode))
    assert _status(deployment, fresh) == httpx.codes.OK


def _status(deployment: ComposeDeployment, token: str) -> int:
    return asyncio.run(caller.once(deployment, "notes", token)).status_code


def _run(*command: str, cwd: str | None = None) -> None:
    subprocess.run(command, check=True, cwd=cwd)
