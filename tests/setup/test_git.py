"""What git takes of a folder that `authz init` wrote: asked of git itself."""

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from authz.doctor import git_secrets
from authz.setup.answers import SetupAnswers
from tests.doctor.kit import diagnoses
from tests.setup.kit import ANSWERS, copy_written

pytestmark = pytest.mark.slow

VARIANTS = {
    "ours": ANSWERS,
    "funnel": SetupAnswers(domain="n.tail1.ts.net", funnel="n.tail1.ts.net"),
    "theirs": replace(ANSWERS, login="direct", issuer_url="https://login.home.example.com"),
}
# What is left there by services, rotations, backups, editors and people in a hurry.
LEFT_BEHIND = (
    ".env",
    ".env.old",
    ".secrets/x",
    ".authz/redis/appendonly.aof",
    ".front_door.0123456789abcdef",
    "authelia/jwks.pem",
    "authelia/configuration.yml.bak",
    "authz/front_door.pem",
    "backup-2026-11-30.tar.gz",
    "backups/secrets/front_door",
    "ca.key",
    "data/authelia/db.sqlite3",
    "data/authelia/notification.txt",
    "data/redis/appendonlydir/appendonly.aof.1.incr.aof",
    "data/redis/dump.rdb",
    "data/tailscale/tailscaled.state",
    "docker-compose.override.yml",
    "envoy/tls.key",
    "files.token",
    "front_door",
    "front_door.new",
    "secrets.old/redis_authz",
    "secrets/.redis_authz.0123456789abcdef",
    "secrets/front_door.old",
    "secrets/github_token",
    "secrets/tls/fullchain.pem",
    "secrets/tls/privkey.pem",
    "users/users.yml.bak",
)
TAKEN = frozenset({
    ".gitattributes",
    ".gitignore",
    "authelia/authz.yml",
    "authz/authz.schema.json",
    "authz/authz.yaml",
    "docker-compose.yml",
    "envoy/envoy.yaml",
    "firewall.nft",
    "grafana/dashboards/overview.json",
    "grafana/provisioning/datasources/prometheus.yml",
    "init.json",
    "prometheus/prometheus.yml",
    "prometheus/rules.yml",
    "redis/valkey.conf",
})  # fmt: skip
PRIVATE = (".env", "data", "secrets", "users")


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@a.test", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.mark.attack("secrets-in-git")
@pytest.mark.parametrize("above", [False, True], ids=["own repository", "folder of one"])
@pytest.mark.parametrize("answers", VARIANTS.values(), ids=VARIANTS)
def test_add_all_takes_no_secret(tmp_path: Path, answers: SetupAnswers, *, above: bool) -> None:
    """Nor what lies beside one: by name, and by what the staged files hold; the rest is taken."""
    folder = tmp_path / "deploy"
    copy_written(folder, answers)
    written = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    for name in LEFT_BEHIND:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("a secret of somebody\n")
    hidden = [path for name in PRIVATE for path in (folder / name).rglob("*") if path.is_file()]
    secrets = {path.read_bytes().strip() for path in hidden if path.suffix != ".crt"} - {b""}
    git(tmp_path if above else folder, "init", "--quiet")

    git(folder, "add", "-A")
    staged = set(git(folder, "ls-files").splitlines())

    assert secrets
    assert diagnoses(git_secrets.examine(folder / "authz", ())) == ["no_secrets"]
    assert staged >= TAKEN
    assert staged <= {name for name in written if name.split("/")[0] not in PRIVATE}
    for name in staged:
        content = git(folder, "show", f":./{name}").encode()
        assert not re.search(rb"(?m)^[^#\n]*BEGIN [A-Z ]*PRIVATE KEY", content), name
        assert not [secret for secret in secrets if secret in content], name
