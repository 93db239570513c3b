"""issuer.introspection, kinds of tokens, and the credentials: what is right, wrong, and meant."""

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from authz.config.key_files import read_private_key
from authz.config.load import Settings, read
from authz.config.problems import ConfigError
from authz.core.policy import ALL_KINDS, TokenKind

Complaints = Callable[[str], list[str]]
SettingsOf = Callable[[str], Settings]
JWT, OPAQUE = frozenset({TokenKind.JWT}), frozenset({TokenKind.OPAQUE})
KEYED = "{client_id: authz, key_file: /run/secrets/introspection.pem}"
SECRET = "hunter2-correct-horse"


@pytest.fixture(scope="session")
def with_lines(smallest: str) -> Callable[..., str]:
    """Return a maker of files: a section of introspection, and lines for the server."""

    def make(section: str | None = KEYED, *lines: str) -> str:
        text = smallest
        if section is not None:
            text = text.replace("gateway:", f"  introspection: {section}\ngateway:")
        return text + "".join(f"    {line}\n" for line in lines)

    return make


WithLines = Callable[..., str]


# --- what is meant ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("section", "lines", "kinds"),
    [
        (None, (), JWT),
        (None, ("tokens: [jwt]",), JWT),
        (KEYED, (), ALL_KINDS),
        (KEYED, ("tokens: [jwt]", "introspect: always"), JWT),
        (KEYED, ("tokens: [opaque]",), OPAQUE),
        (KEYED, ("tokens: [opaque, jwt]",), ALL_KINDS),
    ],
)
def test_kinds_of_a_server(
    section: str | None,
    lines: tuple[str, ...],
    kinds: frozenset[TokenKind],
    with_lines: WithLines,
    settings_of: SettingsOf,
) -> None:
    """Left out, a server takes opaque tokens only where the issuer can be asked about them."""
    settings = settings_of(with_lines(section, *lines))

    assert settings.policy.servers["files"].rule.tokens == kinds
    assert settings.warnings == ()


def test_tools_add_to_their_server(with_lines: WithLines, settings_of: SettingsOf) -> None:
    """A tool that names no kinds adds nothing; `introspect` may be asked by a tool alone."""
    tools = "tools: {a: {}, b: {tokens: [jwt], introspect: always}}"
    server = settings_of(with_lines(KEYED, tools)).policy.servers["files"]

    rules = {tool.pattern: tool.rule for tool in server.tools}
    assert not server.rule.confirm
    assert (rules["a"].tokens, rules["a"].confirm) == (ALL_KINDS, False)
    assert (rules["b"].tokens, rules["b"].confirm) == (JWT, True)


def test_how_old_a_confirmation_may_be(with_lines: WithLines, settings_of: SettingsOf) -> None:
    """A second by default, nothing where the file says so."""
    section = "{client_id: a, key_file: /k, confirm_age: 0s}"

    assert settings_of(with_lines(KEYED)).policy.confirm_age == 1.0
    assert settings_of(with_lines(section)).policy.confirm_age == 0.0


def test_defaults(with_lines: WithLines, settings_of: SettingsOf) -> None:
    """What is left out is safe."""
    found = settings_of(with_lines()).config.issuer.introspection

    assert found is not None
    assert found.auth == "private_key_jwt"
    assert (found.max_age, found.negative_age, found.concurrency) == (30.0, 10.0, 8)
    assert (found.key_id, found.secret_file) == (None, None)


# --- what is wrong ----------------------------------------------------------------------------

CONFIGURE = (
    "write issuer.introspection: {client_id: authz, key_file: /run/secrets/introspection.pem}"
)


@pytest.mark.parametrize(
    ("section", "lines", "expected"),
    [
        pytest.param(
            None,
            ("tokens: [opaque]",),
            "9: servers.files.tokens: only the issuer understands an opaque token, and it is not "
            f"asked; {CONFIGURE}, or leave opaque out",
            id="opaque-and-nobody-to-ask",
        ),
        pytest.param(
            None,
            ("introspect: always",),
            "9: servers.files.introspect: the issuer is not asked about tokens; "
            f"{CONFIGURE}, or leave it out",
            id="always-and-nobody-to-ask",
        ),
        pytest.param(
            None,
            ("tools: {a: {introspect: always}}",),
            "9: servers.files.tools.a.introspect: the issuer is not asked about tokens; "
            f"{CONFIGURE}, or leave it out",
            id="always-at-a-tool",
        ),
        pytest.param(
            "{client_id: a}",
            (),
            "3: issuer.introspection.key_file: auth: private_key_jwt needs it; "
            "write key_file: /run/secrets/introspection.pem",
            id="no-key",
        ),
        pytest.param(
            "{client_id: a, auth: client_secret_basic}",
            (),
            "3: issuer.introspection.secret_file: auth: client_secret_basic needs it; "
            "write secret_file: /run/secrets/introspection",
            id="no-secret",
        ),
        pytest.param(
            "{client_id: a, key_file: /k, secret_file: /s}",
            (),
            "3: issuer.introspection.secret_file: auth: private_key_jwt has no use for it; "
            "leave it out, or write auth: client_secret_basic",
            id="a-secret-beside-a-key",
        ),
        pytest.param(
            "{client_id: a, auth: client_secret_post, secret_file: /s, key_id: k}",
            (),
            "3: issuer.introspection.key_id: auth: client_secret_post has no use for it; "
            "leave it out, or write auth: private_key_jwt",
            id="a-key-id-beside-a-secret",
        ),
        pytest.param(
            "{client_id: a, auth: none}",
            (),
            '3: issuer.introspection.auth: "none" is not accepted here; '
            "write private_key_jwt, client_secret_basic or client_secret_post",
            id="no-authentication",
        ),
        pytest.param(
            "{key_file: /k}",
            (),
            "3: issuer.introspection.client_id: is missing; write client_id: claude",
            id="no-client",
        ),
        pytest.param(
            "{client_id: a, key_file: /k, confirm_age: 10s, max_age: 5s}",
            (),
            "3: issuer.introspection.confirm_age: where tokens are always introspected, answers "
            "would be older than elsewhere; write less than max_age",
            id="confirmed-later-than-cached",
        ),
        pytest.param(
            "{client_id: a, key_file: /k, max_age: 10m}",
            (),
            '3: issuer.introspection.max_age: "10m" is out of range; write 1s to 5m',
            id="too-long",
        ),
        pytest.param(
            "{client_id: a, key_file: /k, concurrency: 0}",
            (),
            "3: issuer.introspection.concurrency: 0 is too small; write 1 or more",
            id="no-question-at-all",
        ),
        pytest.param(
            "{client_id: a, key_file: /k, secret: x}",
            (),
            "3: issuer.introspection.secret: there is no such field; keep secrets out of this "
            "file: issuer.introspection.key_file or issuer.introspection.secret_file",
            id="a-secret-in-the-file",
        ),
        pytest.param(
            KEYED,
            ("tokens: [jwt]", "tools: {a: {tokens: [opaque]}}", "introspect: always"),
            "11: servers.files.tools.a.tokens: the server accepts jwt only, so this can never be "
            "met; write tokens: [jwt], or leave it out",
            id="no-kind-left",
        ),
        pytest.param(
            KEYED,
            ("tokens: [jwt]",),
            "3: warning: issuer.introspection: no server accepts opaque tokens, and none "
            "introspects the others; leave it out, or write introspect: always at a server",
            id="configured-in-vain",
        ),
        pytest.param(
            KEYED,
            ("tokens: [opaque]", "groups: [staff]"),
            "11: warning: servers.files.groups: Authelia tells the groups of signed tokens only; "
            "accept jwt here, or expect refusals only",
            id="groups-of-opaque-tokens",
        ),
        pytest.param(
            KEYED,
            ("tokens: []",),
            "10: servers.files.tokens: names nothing; name at least one, or leave the line out",
            id="no-kind",
        ),
        pytest.param(
            KEYED,
            ("token: [jwt]",),
            "10: servers.files.token: there is no such field; write tokens",
            id="a-misspelt-field",
        ),
        pytest.param(
            KEYED,
            ("introspect: never",),
            '10: servers.files.introspect: "never" is not accepted here; write always',
            id="a-word-that-is-none",
        ),
    ],
)
def test_mistakes(
    section: str | None,
    lines: tuple[str, ...],
    expected: str,
    with_lines: WithLines,
    complaints: Complaints,
) -> None:
    """A mistake is answered with its place, what is wrong and what would be right."""
    assert complaints(with_lines(section, *lines)) == [f"authz.yaml:{expected}"]


# --- credentials ------------------------------------------------------------------------------


def pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def told(text: str, hidden: str) -> Settings | str:
    """Read a file with its secrets, and check that no form of anything shows them."""
    try:
        settings = read(text, "authz.yaml", {})
    except ConfigError as error:
        everything = f"{error} {error!r} {error.to_json()}"
        assert hidden not in everything
        return str(error)
    assert hidden not in f"{settings!r} {settings.secrets} {settings.warnings}"
    return settings


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (ec.generate_private_key(ec.SECP256R1()), "ES256"),
        (rsa.generate_private_key(65537, 2048), "RS256"),
    ],
)
def test_a_key_is_read_from_its_file(
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
    algorithm: str,
    tmp_path: Path,
    with_lines: WithLines,
) -> None:
    """A key that signs ES256 or RS256 is kept as it is, and shown nowhere."""
    file = tmp_path / "introspection.pem"
    file.write_text(pem(key))
    file.chmod(0o600)
    settings = told(with_lines(f"{{client_id: a, key_file: {file}}}"), pem(key).splitlines()[1])

    assert isinstance(settings, Settings)
    assert settings.warnings == ()
    assert settings.secrets.introspection is not None
    assert read_private_key(settings.secrets.introspection.get_secret_value())[1] == algorithm


def test_a_secret_is_read_from_its_file(tmp_path: Path, with_lines: WithLines) -> None:
    """A client secret is a file's one line; where others may read it, that is said."""
    file = tmp_path / "secret"
    file.write_text(f"{SECRET}\n")
    file.chmod(0o644)
    section = f"{{client_id: a, auth: client_secret_post, secret_file: {file}}}"
    settings = told(with_lines(section), SECRET)

    assert isinstance(settings, Settings)
    assert settings.secrets.introspection is not None
    assert settings.secrets.introspection.get_secret_value() == SECRET
    assert "every user of this machine may read the file" in str(settings.warnings[0])


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        (SECRET, "the file is not right: it holds no private key in PEM without a passphrase"),
        ("", "the file is not right: it holds no private key in PEM without a passphrase"),
        (
            pem(ec.generate_private_key(ec.SECP384R1())),
            "the file is not right: its key is neither P-256 nor RSA of 2048 bits or more",
        ),
        (None, "the file cannot be read: No such file or directory"),
    ],
)
def test_a_key_that_signs_nothing(
    text: str | None, wrong: str, tmp_path: Path, with_lines: WithLines
) -> None:
    """A file that is missing or holds something else is an error that quotes nothing."""
    file = tmp_path / "introspection.pem"
    if text is not None:
        file.write_text(text)
    found = told(with_lines(f"{{client_id: a, key_file: {file}}}"), SECRET)

    assert isinstance(found, str)
    assert found.startswith(f"authz.yaml:3: issuer.introspection.key_file: {wrong}; ")


def test_a_file_can_be_checked_without_its_secrets(
    with_lines: WithLines, settings_of: SettingsOf
) -> None:
    """Where no secrets are read, their files need not be there."""
    assert settings_of(with_lines()).secrets.introspection is None
