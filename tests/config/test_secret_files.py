"""Secrets: where they come from, and that they never come out."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from authz.config.load import Settings, load, read
from authz.config.problems import ConfigError
from authz.config.schema import schema_text
from authz.config.secret_files import REDIS_PASSWORD
from authz.setup.certificates import write_certificates
from authz.tokens.sealing import sealing_secrets

SECRET = "hunter2-correct-horse"
Reader = Callable[..., Settings]


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    """Return a file with a password that only its owner reads."""
    path = tmp_path / "password"
    path.write_text(f"{SECRET}\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def with_redis(smallest: str) -> Callable[[str], str]:
    """Return a maker of files with a redis section."""
    return lambda section: f"{smallest}redis: {{url: 'redis://redis', {section}}}\n"


def said(text: str, env: dict[str, str] | None = None) -> str:
    """Return every problem of a text, and check that no form of any shows the secret."""
    try:
        settings = read(text, "authz.yaml", env or {})
    except ConfigError as error:
        everything = f"{error} {error!r} {error.to_json()} {error.problems}"
        assert SECRET not in everything
        return str(error)
    assert SECRET not in f"{settings} {settings!r} {settings.config!r} {settings.secrets}"
    return "\n".join(map(str, settings.warnings))


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_from_a_file(ending: str, password_file: Path, with_redis: Callable[[str], str]) -> None:
    """A secret is a file's one line, without the newline that editors add."""
    password_file.write_bytes(f"{SECRET}{ending}".encode())
    settings = read(with_redis(f"password_file: {password_file}"), "a.yaml", {})

    assert settings.secrets.redis_password is not None
    assert settings.secrets.redis_password.get_secret_value() == SECRET
    assert settings.warnings == ()
    assert SECRET not in repr(settings)


def test_from_the_environment(with_redis: Callable[[str], str]) -> None:
    """A secret may come from the environment."""
    settings = read(with_redis("mode: deny"), "a.yaml", {REDIS_PASSWORD: SECRET})

    assert settings.secrets.redis_password is not None
    assert settings.secrets.redis_password.get_secret_value() == SECRET
    assert SECRET not in repr(settings)


def test_from_both(password_file: Path, with_redis: Callable[[str], str]) -> None:
    """A secret in two places is an error: nobody can say which of them is meant."""
    text = with_redis(f"password_file: {password_file}")

    assert said(text, {REDIS_PASSWORD: SECRET}) == (
        "authz.yaml:9: redis.password_file: AUTHZ_REDIS_PASSWORD is set too; "
        "give the password in one place"
    )


def test_from_nowhere(with_redis: Callable[[str], str]) -> None:
    """A Redis without a password is worth a warning; an empty variable is no password."""
    warning = (
        "authz.yaml:9: warning: redis.url: whoever reaches this Redis needs no password; "
        "write redis.password_file or set AUTHZ_REDIS_PASSWORD"
    )

    assert said(with_redis("mode: deny")) == warning
    assert said(with_redis("mode: deny"), {REDIS_PASSWORD: ""}) == warning


def test_unix_socket_needs_no_password(smallest: str) -> None:
    """A Unix socket is guarded by its directory."""
    assert said(f"{smallest}redis: {{url: 'unix:///run/valkey.sock'}}\n") == ""


def test_not_looked_at(with_redis: Callable[[str], str]) -> None:
    """Without secrets a file can be checked on a machine that has none of them."""
    text = with_redis("password_file: /nowhere/at/all")
    settings = read(text, "authz.yaml", {REDIS_PASSWORD: SECRET}, secrets=False)

    assert settings.secrets.redis_password is None
    assert settings.warnings == ()
    assert "No such file" in said(text)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        pytest.param(b"", "the file is empty", id="empty"),
        pytest.param(b"\n", "the file is empty", id="newline"),
        pytest.param(b"a\nb\n", "the file holds more than one line of text", id="lines"),
        pytest.param(b"a\x00b", "the file holds more than one line of text", id="NUL"),
        pytest.param(b"a" * 5000, "the file holds more than one line of text", id="long"),
        pytest.param(b"\xff\xfe", "the file holds something else than text", id="binary"),
    ],
)
def test_wrong_files(
    data: bytes, words: str, password_file: Path, with_redis: Callable[[str], str]
) -> None:
    """A file that holds no password is an error."""
    password_file.write_bytes(data)

    assert said(with_redis(f"password_file: {password_file}")) == (
        f"authz.yaml:9: redis.password_file: {words}; put the secret into it, as its only line"
    )


def test_no_regular_file(tmp_path: Path, with_redis: Callable[[str], str]) -> None:
    """A pipe that nobody writes to does not keep anybody waiting; a directory is no file."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    assert "this is no regular file" in said(with_redis(f"password_file: {pipe}"))
    assert "redis.password_file: " in said(with_redis(f"password_file: {tmp_path}"))


def test_world_readable(password_file: Path, with_redis: Callable[[str], str]) -> None:
    """A secret that everybody may read is worth a warning."""
    password_file.chmod(0o644)

    assert said(with_redis(f"password_file: {password_file}")) == (
        "authz.yaml:9: warning: redis.password_file: every user of this machine may read the file; "
        "take that right away: chmod o-rwx"
    )


def test_world_readable_key(tmp_path: Path, smallest: str) -> None:
    """The private key is looked at where it is here; it is Envoy that reads it."""
    key = tmp_path / "tls.key"
    text = smallest.replace("/run/secrets/tls.key", str(key))

    assert said(text) == ""
    key.write_text("x")
    key.chmod(0o604)
    assert "warning: gateway.tls.key: every user of this machine" in said(text)


@pytest.mark.attack("secrets-in-problems")
@pytest.mark.parametrize(
    "section",
    [
        f"redis: {{url: 'redis://:{SECRET}@redis'}}",
        f"redis: {{url: 'redis://user:{SECRET}@redis:6379/0'}}",
        f"redis: {{url: 'redis://redis?password={SECRET}'}}",
        f"redis: {{url: '{SECRET}'}}",
        f"redis: {{url: 'redis://r', password: {SECRET}}}",
        f"redis: {{url: 'redis://r', password_file: {SECRET}}}",
        f"redis: {{url: 'redis://r', password_file: /{SECRET}}}",
        f"redis: {{url: 'redis://r', username: 'a {SECRET}'}}",
        f"redis: redis://:{SECRET}@redis",
        f"redis: {SECRET}",
        f"redis: [{SECRET}]",
        f"redis: !{SECRET} x",
        f"redis: *{SECRET}",
        f"redis: &{SECRET} x",
        f"redis: {{url: 'redis://r', password: *{SECRET}}}",
        f"clients: {{c: {{client_secret: {SECRET}}}}}",
        f"clients: {{c: {SECRET}}}",
        f"clients: {{c: {{scopes: {SECRET}}}}}",
        f"telemetry: {SECRET}",
        f"'redis': {{'url': \"redis://:{SECRET}\n",
        f"redis: '{SECRET}' '{SECRET}'",
    ],
)
def test_never_repeated(section: str, smallest: str) -> None:
    """A password in the wrong place is named as an error, and never repeated."""
    assert said(f"{smallest}{section}\n")


@pytest.mark.parametrize("field", ["issuer.url", "issuer.internal", "gateway.url", "upstream"])
def test_never_repeated_in_urls(field: str, example: str) -> None:
    """A URL with a password is refused without the password."""
    hosts = {
        "issuer.url": "https://auth.example.com ",
        "issuer.internal": "http://authelia:9091",
        "gateway.url": "https://mcp.example.com\n",
        "upstream": "http://notes:8000/mcp",
    }
    url = hosts[field]
    scheme, rest = url.split("://")

    assert "holds a user name or a password" in said(
        example.replace(url, f"{scheme}://me:{SECRET}@{rest}")
    )


def pem(path: Path) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    text = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
    path.write_text(text)
    path.chmod(0o600)
    return text


def test_the_front_doors_keys(tmp_path: Path, smallest: str) -> None:
    """The key of our clients and those to seal with come from their files, and never out."""
    key, seal = tmp_path / "front.pem", tmp_path / "seal"
    text = pem(key)
    lines = f"{SECRET * 2}\n\n{SECRET * 3}\n"
    seal.write_text(lines)
    seal.chmod(0o600)
    door = f"front_door: {{key_file: {key}, seal_file: {seal}}}\n"

    settings = read(f"{smallest}{door}", "a.yaml", {})

    assert settings.secrets.front_door is not None
    assert settings.secrets.front_door.get_secret_value() == text
    assert settings.secrets.sealing is not None
    assert sealing_secrets(settings.secrets.sealing.get_secret_value(), text) == (
        SECRET * 2,
        SECRET * 3,
    )
    assert said(f"{smallest}{door}") == ""
    assert "PRIVATE KEY" not in repr(settings)


def test_sealing_keys_may_be_left_out(tmp_path: Path, smallest: str) -> None:
    """Without a file of its own what is sealed is sealed with keys made of the private key."""
    key = tmp_path / "front.pem"
    text = pem(key)

    secrets = read(f"{smallest}front_door: {{key_file: {key}}}\n", "a.yaml", {}).secrets

    assert secrets.sealing is None
    assert sealing_secrets(None, text) == (text,)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        pytest.param("", "it holds no key, or one of less than 32 characters", id="empty"),
        pytest.param(
            f"{SECRET * 2}\n{SECRET}\n",
            "it holds no key, or one of less than 32 characters",
            id="a short one",
        ),
        pytest.param(f"{SECRET * 2}\n" * 500, "it is longer than 16 KiB", id="cut off"),
    ],
)
def test_wrong_sealing_keys(lines: str, words: str, tmp_path: Path, smallest: str) -> None:
    """A file that holds no keys, or a weak one, is an error that repeats none."""
    key, seal = tmp_path / "front.pem", tmp_path / "seal"
    pem(key)
    seal.write_text(lines)
    seal.chmod(0o600)

    assert said(f"{smallest}front_door: {{key_file: {key}, seal_file: {seal}}}\n") == (
        f"authz.yaml:9: front_door.seal_file: the file is not right: {words}; "
        "write one key a line, the newest first: openssl rand -base64 32"
    )


def test_a_front_door_without_a_key(tmp_path: Path, smallest: str) -> None:
    """A file that holds no private key is an error; so is one that is not there."""
    key = tmp_path / "front.pem"
    text = f"{smallest}front_door: {{key_file: {key}}}\n"

    assert "front_door.key_file: the file cannot be read" in said(text)
    key.write_text(SECRET)
    key.chmod(0o600)
    assert "front_door.key_file: the file is not right: it holds no private key" in said(text)


def test_not_in_the_schema(
    password_file: Path, with_redis: Callable[[str], str], tmp_path: Path
) -> None:
    """The schema is of the models, not of what was read."""
    path = tmp_path / "authz.yaml"
    path.write_text(with_redis(f"password_file: {password_file}"))
    load(path, {})

    assert SECRET not in schema_text()


@pytest.mark.parametrize("copied", [True, False], ids=["a-copy", "of-its-own"])
def test_a_key_signs_for_one(copied: bool, tmp_path: Path, smallest: str) -> None:
    """The key that signs who calls is none that Authelia knows, whatever its file is called: what
    is signed for one would be shown to the other.
    """
    one, two = tmp_path / "front_door.pem", tmp_path / "identity.pem"
    pem(one)
    if copied:
        two.write_bytes(one.read_bytes())
    else:
        pem(two)
    for file in (one, two):
        file.chmod(0o600)
    text = smallest.replace("  tls:", f"  identity_key_file: {two}\n  tls:")
    text += f"front_door: {{key_file: {one}}}\n"

    wrong = "gateway.identity_key_file: the key of front_door.key_file is to sign who calls, too"
    assert (wrong in said(text)) == copied


@pytest.mark.parametrize("copied", [True, False], ids=["a-copy", "of-its-own"])
def test_the_key_of_the_gateways_certificate_signs_no_identities(
    copied: bool, tmp_path: Path, smallest: str
) -> None:
    """It is told by the certificate: the key itself is for Envoy alone to read."""
    files, identity = write_certificates(tmp_path / "tls", ["localhost"]), tmp_path / "identity.pem"
    if copied:
        identity.write_bytes(files.key.read_bytes())
    else:
        pem(identity)
    files.key.unlink()
    identity.chmod(0o600)
    text = re.sub(r"certificate: [^,}\n]+", f"certificate: {files.certificate}", smallest)
    text = text.replace("  tls:", f"  identity_key_file: {identity}\n  tls:")

    wrong = "gateway.identity_key_file: the key of gateway.tls.key is to sign who calls, too"
    assert (wrong in said(text)) == copied
