"""Secrets from files and the environment.

Law: a secret is read here and nowhere else, wrapped at once, and neither it nor the name of a file
that could be one by mistake stands in a fault.
"""

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path as File
from typing import Final

from pydantic import SecretStr

from authz.config.model import Config
from authz.config.problems import Fault, Path, Severity, WrongValueError

REDIS_PASSWORD: Final = "AUTHZ_REDIS_PASSWORD"  # noqa: S105 - the variable's name
_LONGEST: Final = 4096
_WORLD: Final = stat.S_IROTH | stat.S_IWOTH


@dataclass(frozen=True, slots=True)
class Secrets:
    """Hold the secrets; `repr` and `str` show none of them."""

    redis_password: SecretStr | None = field(default=None)


def read_secrets(config: Config, env: Mapping[str, str]) -> tuple[Secrets, list[Fault]]:
    """Read what the configuration names, from files first, then the environment."""
    path: Path = ("redis", "password_file")
    file, value = config.redis.password_file, env.get(REDIS_PASSWORD, "")
    if config.redis.url is None:
        return Secrets(), []
    if file is not None and value:
        wrong = f"{REDIS_PASSWORD} is set too"
        return Secrets(), [Fault(path, wrong, "give the password in one place")]
    if file is None:
        return Secrets(SecretStr(value) if value else None), list(_no_password(config, value))
    try:
        secret = _read(File(file))
    except WrongValueError as error:
        return Secrets(), [Fault(path, error.wrong, error.right)]
    return Secrets(SecretStr(secret)), list(_world_readable(path, file))


def inspect_files(config: Config) -> list[Fault]:
    """Look at the private key, where it is on this machine: Envoy reads it, not we."""
    tls = config.gateway.tls
    return [] if tls is None else list(_world_readable(("gateway", "tls", "key"), tls.key))


def _no_password(config: Config, value: str) -> Iterator[Fault]:
    if not value and not str(config.redis.url).startswith("unix:"):
        yield Fault(
            ("redis", "url"),
            "whoever reaches this Redis needs no password",
            f"write redis.password_file or set {REDIS_PASSWORD}",
            Severity.WARNING,
        )


def _read(file: File) -> str:
    """Return a file's one line, without the newline at its end.

    Raises:
        WrongValueError: where it cannot be read, or holds no secret.
    """
    try:
        # A FIFO would keep us waiting for somebody who writes.
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as stream:
            regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
            data = stream.read(_LONGEST + 1) if regular else None
        text = None if data is None else data.decode()
    except OSError as error:
        raise WrongValueError(
            f"the file cannot be read: {error.strerror}", "give it to this user"
        ) from None
    except UnicodeDecodeError:
        raise WrongValueError("the file holds something else than text", _ONE_LINE) from None
    if text is None:
        raise WrongValueError("this is no regular file", _ONE_LINE)
    secret = text.removesuffix("\n").removesuffix("\r")
    if not secret:
        raise WrongValueError("the file is empty", _ONE_LINE)
    if len(secret) > _LONGEST or not secret.isprintable():
        raise WrongValueError("the file holds more than one line of text", _ONE_LINE)
    return secret


_ONE_LINE: Final = "put the password into it, as its only line"


def _world_readable(path: Path, file: str) -> Iterator[Fault]:
    try:
        mode = File(file).stat().st_mode
    except (OSError, ValueError):
        return
    if mode & _WORLD:
        yield Fault(
            path,
            "every user of this machine may read the file",
            "take that right away: chmod o-rwx",
            Severity.WARNING,
        )
