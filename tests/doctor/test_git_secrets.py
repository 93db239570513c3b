"""The doctor's look at git, with the real one: what it holds or would take in the clear."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from authz.doctor import git_secrets
from authz.doctor.finding import Severity
from tests.doctor.kit import diagnoses, problems, the

IGNORED = "/*\n!/authz.yaml\n!/init.json\n!/.gitignore\n"
SECRET = "dGhpcyBpcyBub3QgdGhlIHNlY3JldCBvZiBhbnlib2R5\n"


def git(folder: Path, *arguments: str) -> None:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@a.test", *arguments]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


def put(folder: Path, name: str, text: str = SECRET) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A repository with a folder of `authz init` in it, whose secrets nothing ignores."""
    git(tmp_path, "init", "--quiet")
    made = tmp_path / "deploy"
    for name in ("init.json", "authz.yaml"):
        put(made, name, "{}\n")
    put(made, "secrets/redis_authz")
    put(made, "secrets/tls/tls.crt", "a certificate is public\n")
    put(made, "users/users.yml", "users: {john: {password: $argon2id$…}}\n")
    put(made, "secrets/empty", "")
    return made


def test_what_add_all_would_take_is_told(folder: Path) -> None:
    """Before it is done; an empty file and a certificate are no secrets."""
    found = the(git_secrets.examine(folder, ()), "not_ignored")

    assert found.severity is Severity.PROBLEM
    assert "deploy/secrets/redis_authz" in found.message
    assert "deploy/users/users.yml" in found.message
    assert "tls.crt" not in found.message


def test_a_folder_that_ignores_its_secrets_is_right(folder: Path) -> None:
    """After `git add -A` as before it."""
    put(folder, ".gitignore", IGNORED)
    before = git_secrets.examine(folder, ())
    git(folder, "add", "-A")

    assert diagnoses(before) == diagnoses(git_secrets.examine(folder, ())) == ["no_secrets"]


@pytest.mark.attack("secrets-in-git")
@pytest.mark.parametrize("ignored_later", [False, True])
def test_what_is_staged_is_told_whatever_is_ignored(folder: Path, *, ignored_later: bool) -> None:
    """The index counts: a file that is tracked stays so, whatever .gitignore says."""
    git(folder, "add", "-A")
    if ignored_later:
        put(folder, ".gitignore", IGNORED)

    found = git_secrets.examine(folder, ())

    assert problems(found) == ["tracked"]
    assert "deploy/secrets/redis_authz" in the(found, "tracked").message
    assert "git rm --cached" in the(found, "tracked").fix


@pytest.mark.attack("secrets-in-git")
def test_a_secret_is_found_under_another_name(folder: Path) -> None:
    """By what it holds: a copy outside the folder, and one of a place that is not known."""
    put(folder, ".gitignore", IGNORED + "!/notes.txt\n!/old\n")
    put(folder.parent, "copy.txt")
    put(folder, "old", "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEE\n")
    elsewhere = put(folder.parent, "keys/front_door", SECRET[::-1])
    put(folder, "notes.txt", SECRET[::-1])
    before = the(git_secrets.examine(folder, [elsewhere]), "not_ignored").message
    git(folder.parent, "add", "-A")

    message = the(git_secrets.examine(folder, [elsewhere]), "tracked").message

    assert '"deploy/notes.txt"' not in before  # outside the index a copy is not looked for
    assert '"deploy/old"' in before
    for name in ("copy.txt", "keys/front_door", "deploy/notes.txt", "deploy/old"):
        assert f'"{name}"' in message


@pytest.mark.attack("secrets-in-git")
def test_a_commit_keeps_what_was_removed(folder: Path) -> None:
    """Removed from the index it is in the history still, until another secret is in use."""
    git(folder, "add", "-A")
    git(folder, "commit", "--quiet", "-m", "all of it")
    git(folder, "rm", "--quiet", "--cached", "-r", "secrets", "users")
    put(folder, ".gitignore", IGNORED)

    assert problems(git_secrets.examine(folder, ())) == ["in_history"]

    put(folder, "secrets/redis_authz", SECRET[::-1])
    put(folder, "users/users.yml", "users: {}\n# changed\n")

    assert diagnoses(git_secrets.examine(folder, ())) == ["no_secrets"]


def test_what_was_only_staged_once_is_in_no_history(folder: Path) -> None:
    """An object that no commit has is pushed by nobody."""
    git(folder, "add", "-A")
    git(folder, "rm", "--quiet", "--cached", "-r", "secrets", "users")
    put(folder, ".gitignore", IGNORED)

    assert diagnoses(git_secrets.examine(folder, ())) == ["no_secrets"]


def test_a_filter_that_is_not_defined_encrypts_nothing(folder: Path) -> None:
    """Git skips it without a word; the doctor does not."""
    put(folder, ".gitattributes", "/secrets/** filter=git-crypt\n/users/** filter=git-crypt\n")

    assert problems(git_secrets.examine(folder, ())) == ["not_ignored"]
    git(folder, "add", "-A")
    assert problems(git_secrets.examine(folder, ())) == ["tracked"]


@pytest.mark.skipif(shutil.which("git-crypt") is None, reason="needs git-crypt")
def test_git_crypt_is_right_where_it_encrypts(folder: Path) -> None:
    """Before and after `git add`; what was added before `git-crypt init` is told."""
    git(folder, "add", "secrets/redis_authz")
    put(folder, ".gitattributes", "/secrets/** filter=git-crypt\n/users/** filter=git-crypt\n")
    subprocess.run(["git-crypt", "init"], cwd=folder, check=True, capture_output=True)
    early = the(git_secrets.examine(folder, ()), "tracked").message

    git(folder, "rm", "--quiet", "--cached", "-f", "secrets/redis_authz")
    before = git_secrets.examine(folder, ())
    git(folder, "add", "-A")

    assert "redis_authz" in early
    assert "users.yml" not in early
    assert diagnoses(before) == diagnoses(git_secrets.examine(folder, ())) == ["no_secrets"]


@pytest.mark.attack("secrets-in-git")
def test_encrypted_copies_are_right(folder: Path) -> None:
    """Of the real sops and of age; the plain file beside them is ignored. Git takes the copy of a
    key under the name that docs/compose.md gives it, and not under its own.
    """
    put(folder, ".gitignore", f"{IGNORED}*.key\n!/sealed/\n")
    sops = (Path(__file__).parents[1] / "fixtures" / "sops" / "redis_authz.sops").read_text()
    for name in ("redis_authz.sops", "tls/tls.key.sops", "tls/tls.key"):
        put(folder, f"sealed/secrets/{name}", sops)
    put(folder, "sealed/front_door", "age-encryption.org/v1\n-> X25519 abc\n")
    git(folder, "add", "-A")

    assert diagnoses(git_secrets.examine(folder, ())) == ["no_secrets"]
    listed = subprocess.run(
        ["git", "ls-files", "sealed"], cwd=folder, capture_output=True, check=True
    )
    assert listed.stdout.split() == [
        b"sealed/front_door",
        b"sealed/secrets/redis_authz.sops",
        b"sealed/secrets/tls/tls.key.sops",
    ]

    put(folder, "sealed/secrets/redis_authz.sops")
    git(folder, "add", "-A")

    assert problems(git_secrets.examine(folder, ())) == ["tracked"]


def test_a_file_of_settings_is_told_where_it_has_a_secret(folder: Path) -> None:
    """.env of older folders is tracked and holds none; with a password it does."""
    put(folder, ".gitignore", f"{IGNORED}!/.env\n")
    put(folder, ".env", "AUTHZ_PORT=443\n")
    git(folder, "add", "-A")
    before = git_secrets.examine(folder, ())
    put(folder, ".env", "AUTHZ_PORT=443\nSMTP_PASSWORD=hunter2\n")
    git(folder, "add", "-A")

    assert diagnoses(before) == ["no_secrets"]
    assert problems(git_secrets.examine(folder, ())) == ["tracked"]


def test_files_that_authz_yaml_names_are_looked_at_in_any_folder(tmp_path: Path) -> None:
    """As /etc under etckeeper has them; files called alike are somebody else's."""
    git(tmp_path, "init", "--quiet")
    put(tmp_path, "secrets/others")
    password = put(tmp_path, "authz/redis_password", SECRET[::-1])
    git(tmp_path, "add", "-A")

    found = the(git_secrets.examine(tmp_path / "authz", [password]), "tracked")

    assert '"authz/redis_password"' in found.message
    assert "others" not in found.message


def test_a_folder_in_no_repository(folder: Path) -> None:
    """Is warned of what the first `git add -A` would take, where it is one of `authz init`."""
    shutil.rmtree(folder.parent / ".git")

    (found,) = git_secrets.examine(folder, ())
    assert (found.diagnosis, found.severity) == ("not_ignored", Severity.WARNING)
    put(folder, ".gitignore", IGNORED)
    assert git_secrets.examine(folder, ()) == []
    assert git_secrets.examine(folder.parent, ()) == []


def test_no_word_of_git_is_taken_for_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without git, or with a repository that it does not read, nothing is known."""
    (folder.parent / ".git" / "index").write_bytes(b"DIRC no index")
    assert diagnoses(git_secrets.examine(folder, ())) == ["unknown"]
    monkeypatch.setenv("PATH", str(folder))
    assert diagnoses(git_secrets.examine(folder, ())) == ["unknown"]


@pytest.mark.attack("secrets-in-git")
def test_the_repository_runs_nothing(folder: Path) -> None:
    """A monitor, a filter and a hook of its configuration would run as whoever asks the doctor."""
    witness = folder.parent / "ran"
    program = put(folder.parent, ".git/program", f"#!/bin/sh\ntouch {witness}\ncat\n")
    program.chmod(0o700)
    git(folder, "add", "-A")
    for name in ("core.fsmonitor", "filter.git-crypt.clean", "filter.git-crypt.smudge"):
        git(folder, "config", name, str(program))
    put(folder, ".gitattributes", "* filter=git-crypt diff=git-crypt\n")
    git(folder, "config", "diff.git-crypt.textconv", str(program))
    witness.unlink(missing_ok=True)

    assert problems(git_secrets.examine(folder, ())) == ["tracked"]
    assert not witness.exists()


def test_a_hooks_environment_leads_to_no_other_repository(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GIT_DIR of a hook is not this folder's."""
    git(folder, "add", "-A")
    monkeypatch.setenv("GIT_DIR", os.fspath(folder / "nowhere"))

    assert problems(git_secrets.examine(folder, ())) == ["tracked"]
