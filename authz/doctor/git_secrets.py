"""Whether git holds a secret in the clear, or would take one with the next `git add -A`.

Git is asked what its index has, not what `.gitignore` or `.gitattributes` promise: an ignored file
may be tracked, and git skips a filter that is not defined without a word. Nothing is changed, and
no filter, hook or file system monitor of the repository runs.
"""

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from authz.config.files import read_regular
from authz.config.location import ANSWERS, init_folder
from authz.config.problems import quoted
from authz.doctor.finding import Finding, ok, problem, warning

PART: Final = "git"
_PRIVATE_FOLDERS: Final = ("secrets", "users", "data", ".authz")
_PUBLIC_SUFFIXES: Final = (".crt",)
# Of PEM, and not in a comment.
_PRIVATE_KEY: Final = "^[^#]*-----BEGIN ([A-Z]+ )?PRIVATE KEY-----"
# A variable of .env that somebody gave a secret.
_ENV_SECRET: Final = re.compile(
    rb"(?im)^[ \t]*\w*(?:PASSWORD|PASSWD|SECRET|TOKEN|API_?KEY)\w*=\s*\S"
)
_ENCRYPTED: Final = (
    b"\x00GITCRYPT\x00",
    b"age-encryption.org/v1\n",
    b"-----BEGIN AGE ENCRYPTED FILE-----",
    b"-----BEGIN PGP MESSAGE-----",
    b"$ANSIBLE_VAULT;",
)
_SOPS: Final = b"ENC[AES256_GCM,", b"sops", b"mac"
_SHORTEST, _LONGEST = 8, 1 << 20  # bytes of a secret that is looked for under other names
_MOST_FILES: Final = 1000
_SHOWN: Final = 8
_PATIENCE: Final = 20.0
_SAFE: Final = ("-c", "core.fsmonitor=false", "--no-replace-objects", "--literal-pathspecs")
_DOCS: Final = 'docs/compose.md, "Secrets in git"'
_ROTATE: Final = (
    "where it was committed make a new one, since the history keeps it (docs/upgrade.md)"
)


class _GitError(Exception):
    """Git is missing, does not answer, or refuses."""


class _NoRepositoryError(_GitError):
    """The folder is in no work tree."""


@dataclass(frozen=True, slots=True)
class _Blob:
    """One entry of the index: its path from the top of the work tree, and its object."""

    path: str
    oid: str


def examine(folder: Path, named: Iterable[Path]) -> list[Finding]:
    """Look at the repository that a folder is in; nothing is said where there is none.

    Args:
        folder: of authz.yaml; in what `authz init` wrote, the secrets are one folder up.
        named: files with secrets that authz.yaml names; those elsewhere are not looked at.
    """
    folder = folder.resolve()
    folder = init_folder(folder) or folder
    try:
        top = Path(os.fsdecode(_git(folder, "rev-parse", "--show-toplevel")).removesuffix("\n"))
        return _Repository(top, folder, tuple(named)).findings()
    except _NoRepositoryError:
        return _later(folder)
    except _GitError as error:
        if not any((each / ".git").exists() for each in (folder, *folder.parents)):
            return []
        message = f"whether git has a secret in the clear is not known: {error}"
        fix = (
            "run doctor as the owner of the repository, with git installed; where git calls its"
            " ownership dubious: git config --global --add safe.directory and that folder"
        )
        return [warning(PART, "unknown", message, fix)]


def _later(folder: Path) -> list[Finding]:
    """Say what the first `git add -A` of a folder in no repository would take."""
    if not (folder / ANSWERS).is_file():
        return []
    try:
        with TemporaryDirectory() as place:
            _git(folder, "init", "--quiet", "--bare", place)
            repository = f"--git-dir={place}", f"--work-tree={folder}"
            taken = _paths(_git(folder, *repository, *_UNTRACKED))
    except _GitError:
        return []
    exposed = [path for path in taken if _by_place(path)]
    if not exposed:
        return []
    message = f"`git init` and `git add -A` here would take secrets: {_enumerated(exposed)}"
    return [warning(PART, "not_ignored", message, _IGNORE)]


_UNTRACKED: Final = ("ls-files", "-z", "--others", "--exclude-standard", "--", ".")
_IGNORE: Final = (
    "remove .gitignore and run `authz init` in the folder again: what it writes leaves them out;"
    f" to have them in git, encrypted: {_DOCS}"
)


class _Repository:
    """The work tree that a folder is in."""

    def __init__(self, top: Path, folder: Path, named: tuple[Path, ...]) -> None:
        self._top = top
        self._folder = folder
        self._is_of_init = (folder / ANSWERS).is_file()
        self._named = frozenset(path for path in map(_absolute, named) if path.is_relative_to(top))
        self._index = [*_entries(_git(top, "ls-files", "-z", "--stage"))]

    def findings(self) -> list[Finding]:
        """Return what is wrong, or that nothing is."""
        digests = self._digests()
        clear = [
            blob.path
            for blob in self._index
            if blob.oid in digests or (self._is_secret(blob.path) and not self._is_harmless(blob))
        ]
        clear += [path for path in self._with_private_key("--cached") if path not in clear]
        exposed = [path for path in self._untracked(digests) if path not in clear]
        past = self._committed(digests.keys() - {blob.oid for blob in self._index}, digests)
        found = []
        if clear:
            message = f"git tracks in the clear, or has staged: {_enumerated(clear)}"
            fix = f"git rm --cached FILE, and .gitignore or encryption ({_DOCS}); {_ROTATE}"
            found.append(problem(PART, "tracked", message, fix))
        if exposed:
            message = f"the next `git add -A` would take in the clear: {_enumerated(exposed)}"
            found.append(problem(PART, "not_ignored", message, _IGNORE))
        if past:
            message = f"a commit holds what is still in use, in the clear: {_enumerated(past)}"
            fix = "make new ones (docs/upgrade.md): whoever has the repository has these"
            found.append(problem(PART, "in_history", message, fix))
        return found or [
            ok(PART, "no_secrets", "git has no secret in the clear, and would take none")
        ]

    def _is_secret(self, path: str) -> bool:
        """Tell whether a path of the work tree is one of a secret."""
        whole = self._top / path
        if whole in self._named:
            return True
        inside = self._is_of_init and whole.is_relative_to(self._folder)
        return inside and _by_place(str(whole.relative_to(self._folder)))

    def _is_harmless(self, blob: _Blob) -> bool:
        """Tell whether the index has the file encrypted, empty, or a .env without a secret."""
        if int(_git(self._top, "cat-file", "-s", blob.oid)) > _LONGEST:
            return False
        content = _git(self._top, "cat-file", "blob", blob.oid)
        if Path(blob.path).name == ".env" and self._top / blob.path not in self._named:
            return _ENV_SECRET.search(content) is None
        return not content.strip() or is_encrypted(content)

    def _secret_files(self) -> Iterator[Path]:
        yield from self._named
        if not self._is_of_init:
            return
        for name in ("secrets", "users"):
            for place, _, names in os.walk(self._folder / name):
                yield from (Path(place) / each for each in names if _by_place(f"{name}/{each}"))

    def _digests(self) -> Mapping[str, str]:
        """Return the object ids that git gives the secrets of the disk, each with its path."""
        algorithm = _git(self._top, "rev-parse", "--show-object-format").decode().strip()
        found = {}
        for number, path in enumerate(self._secret_files()):
            content = _read(path)
            if number < _MOST_FILES and content is not None and not is_encrypted(content):
                blob = b"blob %d\0%b" % (len(content), content)
                digest = hashlib.new(algorithm, blob, usedforsecurity=False).hexdigest()
                found[digest] = os.path.relpath(path, self._top)
        return found

    def _untracked(self, digests: Mapping[str, str]) -> Iterator[str]:
        """Yield the secrets that are neither tracked nor ignored, and that no filter encrypts."""
        secret_files = set(digests.values())
        inside = _paths(_git(self._folder, "ls-files", "-z", "--full-name", *_UNTRACKED[2:]))
        candidates = [path for path in inside if self._is_secret(path) or path in secret_files]
        candidates += [path for path in self._with_private_key("--untracked") if path in inside]
        for path in dict.fromkeys(candidates):
            if not self._is_filtered(path):
                yield path

    def _is_filtered(self, path: str) -> bool:
        """Tell whether `git add` would run a filter of git-crypt that is defined here."""
        answer = os.fsdecode(_git(self._top, "check-attr", "-z", "filter", "--", path))
        name = answer.split("\0")[2]
        if not name.startswith("git-crypt"):
            return False
        try:
            return bool(_git(self._top, "config", "--get", f"filter.{name}.clean").strip())
        except _GitError:
            return False

    def _with_private_key(self, where: str) -> list[str]:
        """Return the files of the folder that hold a private key in PEM."""
        if not self._is_of_init:
            return []
        pattern = ("-l", "-z", "-I", "-E", "--full-name", where, "-e", _PRIVATE_KEY, "--", ".")
        return _paths(_git(self._folder, "grep", *pattern, may_find_nothing=True))

    def _committed(self, absent: Iterable[str], digests: Mapping[str, str]) -> list[str]:
        """Return the secrets that a commit holds as they are now."""
        asked = "".join(f"{oid}\n" for oid in absent).encode()
        answers = _git(self._top, "cat-file", "--batch-check", given=asked).decode().splitlines()
        known = [line.split()[0] for line in answers if not line.endswith(" missing")]
        return [
            digests[oid]
            for oid in known
            if _git(self._top, "log", "--all", "-1", "--format=%H", f"--find-object={oid}").strip()
        ]


def is_encrypted(content: bytes) -> bool:
    """Tell whether a file is one of git-crypt, age, PGP, Ansible Vault or sops."""
    return content.startswith(_ENCRYPTED) or all(each in content for each in _SOPS)


def _by_place(path: str) -> bool:
    """Tell whether a path in a folder of `authz init` is one of a secret."""
    first, _, rest = path.partition("/")
    if not rest:
        return path == ".env"
    return first in _PRIVATE_FOLDERS and not path.endswith(_PUBLIC_SUFFIXES)


def _absolute(path: Path) -> Path:
    return path.parent.resolve() / path.name


def _read(path: Path) -> bytes | None:
    """Return the content of a secret's file; None where it is none, or cannot be read."""
    try:
        content = read_regular(path, _LONGEST)
    except OSError:
        return None
    return content if _SHORTEST <= len(content) <= _LONGEST else None


def _entries(listed: bytes) -> Iterator[_Blob]:
    for line in _paths(listed):
        place, _, path = line.partition("\t")
        mode, oid, _ = place.split(" ")
        if mode != "160000":  # a submodule
            yield _Blob(path, oid)


def _paths(listed: bytes) -> list[str]:
    return [os.fsdecode(each) for each in listed.split(b"\0") if each]


def _enumerated(paths: list[str]) -> str:
    shown = ", ".join(quoted(path) for path in sorted(paths)[:_SHOWN])
    return shown if len(paths) <= _SHOWN else f"{shown} and {len(paths) - _SHOWN} more"


def _git(where: Path, *arguments: str, given: bytes = b"", may_find_nothing: bool = False) -> bytes:
    """Return what git prints.

    Raises:
        _NoRepositoryError: where the folder is in no work tree.
        _GitError: where git is missing, refuses, or takes too long.
    """
    program = shutil.which("git")
    if program is None:
        raise _GitError("git is not installed here")
    # Of a hook, GIT_DIR and its relatives would lead to another repository.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    env = inherited | {"GIT_OPTIONAL_LOCKS": "0", "GIT_NO_LAZY_FETCH": "1", "LC_ALL": "C"}
    try:
        done = subprocess.run(  # noqa: S603 - fixed words, and paths after `--`
            [program, *_SAFE, *arguments],
            cwd=where,
            env=env,
            input=given,
            capture_output=True,
            timeout=_PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _GitError(f"git does not answer ({type(error).__name__})") from None
    if done.returncode == 0 or (may_find_nothing and done.returncode == 1):
        return done.stdout
    if b"not a git repository" in done.stderr:
        raise _NoRepositoryError
    said = done.stderr.decode(errors="replace").partition("\n")[0]
    raise _GitError(f"git says {quoted(said)}")
