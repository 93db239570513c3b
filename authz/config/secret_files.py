"""Read secrets from files and the environment.

Invariant: neither a secret nor the name of a file that could be one by mistake stands in a fault
(tests/config/test_secret_files.py).
"""

import stat
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path as File
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import load_pem_x509_certificate
from pydantic import SecretStr

from authz.config import urls
from authz.config.files import IrregularFileError, read_regular
from authz.config.key_files import header_lines, read_private_key, sealing_lines
from authz.config.lint.deployment import shared_identity_key
from authz.config.lint.notify import target_fault
from authz.config.model import Config
from authz.config.problems import Fault, Path, ProblemSeverity, WrongValueError

REDIS_PASSWORD: Final = "AUTHZ_REDIS_PASSWORD"  # noqa: S105 - the variable's name
_LONGEST: Final = 16 * 1024  # characters; an RSA key of 8192 bits has 6,400
_LONGEST_LINE: Final = 4096
_NO_FILE: Final = "make it, or write another path"
_MADE_BY: Final[Mapping[Path, str]] = {
    ("front_door", "key_file"): "`authz authelia-config --make-key` makes it",
    ("front_door", "seal_file"): "`openssl rand -base64 32` prints a line for it",
    ("gateway", "identity_key_file"): "`authz identity-keys --make-key` makes it",
    ("issuer", "introspection", "key_file"): "`authz authelia-config --make-key` makes it",
}
_SENTINEL_FILE: Final[Path] = ("redis", "sentinel", "password_file")
SIGNING_PREFIX: Final = "whsec_"
_NOTIFY: Final = ("url", "token", "signing_key")  # members of `NotifySecrets`; files of targets
_WORLD: Final = stat.S_IROTH | stat.S_IWOTH


@dataclass(frozen=True, slots=True)
class NotifySecrets:
    """Hold the secrets of one target of `notify`; None where its file is not named."""

    url: SecretStr | None = field(default=None)
    token: SecretStr | None = field(default=None)
    signing_key: SecretStr | None = field(default=None)


@dataclass(frozen=True, slots=True)
class Secrets:
    """Hold the secrets; `repr` and `str` show none of them.

    Attributes:
        redis_password: None where there is none.
        redis_sentinel: the password of sentinels; None where none is named.
        introspection: the private key (PEM) or the client secret, as `issuer.introspection.auth`
            says; None where it is not configured.
        front_door: the private key (PEM) of our clients at Authelia; None without front door.
        sealing: the keys to seal with (`authz.tokens.sealing`), newest first, one a line; None
            where they are made of `front_door`.
        identity: the private key (PEM) that signs who calls; None where none is named.
        identity_other: one that is published beside it; None where none is named.
        otlp_headers: what the collector asks for, a line `name: value` each; None for nothing.
        notify: those of the targets of `notify`, by name.
    """

    redis_password: SecretStr | None = field(default=None)
    redis_sentinel: SecretStr | None = field(default=None)
    introspection: SecretStr | None = field(default=None)
    front_door: SecretStr | None = field(default=None)
    sealing: SecretStr | None = field(default=None)
    identity: SecretStr | None = field(default=None)
    identity_other: SecretStr | None = field(default=None)
    otlp_headers: SecretStr | None = field(default=None)
    notify: Mapping[str, NotifySecrets] = field(default_factory=dict)

    def from_files(self, config: Config) -> Mapping[str, str]:
        """Return the secrets that stand in files, not in the environment, by member."""
        members = {"redis_password"} if config.redis.password_file is not None else set()
        members |= {member for member, _, file, _ in _files(config) if file is not None}
        found = ((member, getattr(self, member)) for member in sorted(members))
        secrets = {name: each.get_secret_value() for name, each in found if each is not None}
        for target, each in self.notify.items():
            for member in _NOTIFY:
                secret = getattr(each, member)
                if secret is not None:
                    secrets[f"notify.{target}.{member}"] = secret.get_secret_value()
        return secrets


def secret_files(config: Config) -> Iterator[File]:
    """Yield the files of secrets that a configuration names."""
    if config.redis.password_file is not None:
        yield File(config.redis.password_file)
    yield from (File(file) for _, _, file, _ in _files(config) if file is not None)
    for target in config.notify.values():
        named = (getattr(target, f"{member}_file") for member in _NOTIFY)
        yield from (File(file) for file in named if file is not None)


def files_with_secrets(config: Config) -> Iterator[File]:
    """Yield the same, and Envoy's private key."""
    yield from secret_files(config)
    if config.gateway.tls is not None:
        yield File(config.gateway.tls.key)


def read_secrets(config: Config, env: Mapping[str, str]) -> tuple[Secrets, list[Fault]]:
    """Read what the configuration names, from files first, then the environment."""
    password, faults = _redis_password(config, env)
    found = {"redis_password": password}
    for member, path, file, parse in _files(config):
        found[member], more = _from_file(path, file, parse)
        faults += more
    notify, more = _read_notify(config)
    secrets = Secrets(**found, notify=notify)
    return secrets, [*faults, *more, *_shared_key(config, secrets)]


def _read_notify(config: Config) -> tuple[Mapping[str, NotifySecrets], list[Fault]]:
    found, faults = dict[str, NotifySecrets](), list[Fault]()

    def url(text: str) -> str:
        return _target_url(text, config.gateway.url)

    parsers = {"url": url, "token": _one_line, "signing_key": _signing_key}
    for name, target in config.notify.items():
        values = dict[str, SecretStr | None]()
        for member in _NOTIFY:
            file = getattr(target, f"{member}_file")
            path: Path = ("notify", name, f"{member}_file")
            values[member], more = _from_file(path, file, parsers[member])
            faults += more
        found[name] = NotifySecrets(**values)
    return found, faults


def _files(config: Config) -> Iterator[tuple[str, Path, str | None, Callable[[str], str]]]:
    """Yield for each member of `Secrets` its field, the file named there, and its parser."""
    introspection, door, gateway = config.issuer.introspection, config.front_door, config.gateway
    section: Path = ("issuer", "introspection")
    if introspection is not None and introspection.auth == "private_key_jwt":
        yield "introspection", (*section, "key_file"), introspection.key_file, _private_key
    elif introspection is not None:
        yield "introspection", (*section, "secret_file"), introspection.secret_file, _one_line
    if door is not None:
        yield "front_door", ("front_door", "key_file"), door.key_file, _private_key
        yield "sealing", ("front_door", "seal_file"), door.seal_file, _sealing_keys
    for member in ("identity", "identity_other"):
        field = f"{member}_key_file"
        yield member, ("gateway", field), getattr(gateway, field), _private_key
    yield "redis_sentinel", _SENTINEL_FILE, config.redis.sentinel.password_file, _one_line
    otlp = config.telemetry.otlp
    if otlp is not None:
        yield "otlp_headers", ("telemetry", "otlp", "headers_file"), otlp.headers_file, _headers


def _shared_key(config: Config, secrets: Secrets) -> Iterator[Fault]:
    """Find a key that signs for two, in whatever file; `lint` compares the files' names."""
    others: dict[Path, bytes | None] = {
        ("front_door", "key_file"): _public_half(secrets.front_door),
        ("issuer", "introspection", "key_file"): _public_half(secrets.introspection),
        ("gateway", "tls", "key"): _certified_key(config),
    }
    ours = {
        "identity_key_file": secrets.identity,
        "identity_other_key_file": secrets.identity_other,
    }
    for name, secret in ours.items():
        half = _public_half(secret)
        for path, other in others.items():
            if half is not None and half == other:
                yield shared_identity_key(name, path)


def _public_half(secret: SecretStr | None) -> bytes | None:
    try:
        key, _ = read_private_key("" if secret is None else secret.get_secret_value())
    except ValueError:  # a client secret, or none
        return None
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _certified_key(config: Config) -> bytes | None:
    """Return the public key of Envoy's certificate, where that is on this machine."""
    tls = config.gateway.tls
    try:
        # The certificate, not the key: only Envoy has to be able to read that.
        text = "" if tls is None else _read(File(tls.certificate))
        key = load_pem_x509_certificate(text.encode()).public_key()
    except (OSError, ValueError, UnsupportedAlgorithm, WrongValueError):
        return None
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _redis_password(config: Config, env: Mapping[str, str]) -> tuple[SecretStr | None, list[Fault]]:
    path: Path = ("redis", "password_file")
    file, value = config.redis.password_file, env.get(REDIS_PASSWORD, "")
    if config.redis.url is None:
        return None, []
    if file is not None and value:
        wrong = f"{REDIS_PASSWORD} is set too"
        return None, [Fault(path, wrong, "give the password in one place")]
    if file is None:
        return SecretStr(value) if value else None, list(_no_password(config, value))
    return _from_file(path, file, _one_line)


def _from_file(
    path: Path, file: str | None, parse: Callable[[str], str]
) -> tuple[SecretStr | None, list[Fault]]:
    """Return a file's secret, or what is wrong; none where no file is named."""
    if file is None:
        return None, []
    try:
        secret = parse(_read(File(file)))
    except FileNotFoundError as error:
        right = f"{_NO_FILE}; {_MADE_BY[path]}" if path in _MADE_BY else _NO_FILE
        return None, [Fault(path, f"the file cannot be read: {error.strerror}", right)]
    except WrongValueError as error:
        return None, [Fault(path, error.wrong, error.right)]
    return SecretStr(secret), list(_world_readable(path, file))


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
            ProblemSeverity.WARNING,
        )


def _read(file: File) -> str:
    """Return a file's text.

    Raises:
        FileNotFoundError: where there is none.
        WrongValueError: where it cannot be read, or is no text of a secret's length.
    """
    try:
        return read_regular(file, _LONGEST).decode()
    except FileNotFoundError:
        raise
    except IrregularFileError as error:
        raise WrongValueError(f"{error.strerror}", _ONE_LINE) from None
    except OSError as error:
        wrong = f"the file cannot be read: {error.strerror}"
        raise WrongValueError(wrong, "give it to this user") from None
    except UnicodeDecodeError:
        raise WrongValueError("the file holds something else than text", _ONE_LINE) from None


def _one_line(text: str) -> str:
    """Return a file's one line, without the newline at its end."""
    secret = text.removesuffix("\n").removesuffix("\r")
    if not secret:
        raise WrongValueError("the file is empty", _ONE_LINE)
    if len(secret) > _LONGEST_LINE or not secret.isprintable():
        raise WrongValueError("the file holds more than one line of text", _ONE_LINE)
    return secret


def _target_url(text: str, gateway: str) -> str:
    """Return the URL of a target; a fault quotes nothing of it."""
    url = _one_line(text)
    try:
        assert urls.NOTIFY.explain is not None
        urls.NOTIFY.explain(url)
    except WrongValueError:
        wrong = "the file holds no URL that messages can go to"
        raise WrongValueError(wrong, "write https://, a host and a path, without a query") from None
    fault = target_fault(url, gateway)
    if fault is not None:
        raise WrongValueError(*fault)
    return url


def _signing_key(text: str) -> str:
    """Return a key of Standard Webhooks: 24 to 64 random bytes."""
    key = _one_line(text)
    try:
        secret = b64decode(key.removeprefix(SIGNING_PREFIX), validate=True)
    except ValueError:
        secret = b""
    if not key.startswith(SIGNING_PREFIX) or not 24 <= len(secret) <= 64:  # noqa: PLR2004
        raise WrongValueError("the file holds no signing key", _MAKE_A_SIGNING_KEY)
    return key


def _private_key(text: str) -> str:
    """Return a private key that can sign assertions, as PEM."""
    try:
        read_private_key(text)
    except ValueError as error:
        raise WrongValueError(f"the file is not right: {error}", _MAKE_A_KEY) from None
    return text


def _sealing_keys(text: str) -> str:
    """Return keys to seal with as they stand in their file; a cut-off one would be another key."""
    try:
        if len(text) > _LONGEST:
            raise ValueError("it is longer than 16 KiB")  # noqa: TRY301 - one answer for all
        sealing_lines(text)
    except ValueError as error:
        raise WrongValueError(f"the file is not right: {error}", _MAKE_A_SEAL) from None
    return text


def _headers(text: str) -> str:
    """Return lines of headers as they stand in their file."""
    try:
        header_lines(text)
    except ValueError as error:
        raise WrongValueError(f"the file is not right: {error}", _WRITE_HEADERS) from None
    return text


_WRITE_HEADERS: Final = "write a line for each header, as api-key: abc"
_ONE_LINE: Final = "put the secret into it, as its only line"
_MAKE_A_SIGNING_KEY: Final = "write whsec_ and what `openssl rand -base64 32` prints"
_MAKE_A_SEAL: Final = "write one key a line, the newest first: openssl rand -base64 32"
_MAKE_A_KEY: Final = "make one: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256"


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
            ProblemSeverity.WARNING,
        )
