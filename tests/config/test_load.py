"""From a file to settings: what loads, what is told, what is kept back."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from authz.config.endpoints import Tcp, Unix
from authz.config.load import Settings, load, read
from authz.config.problems import ConfigError, ProblemSeverity, field_name
from authz.config.value_types import Rate
from authz.config.yaml_loader import SIZE
from authz.core.limits import Limit, Per
from authz.core.methods import Counts
from authz.core.policy import VERSIONS

SettingsOf = Callable[[str], Settings]
Complaints = Callable[[str], list[str]]


def errors_of(path: Path) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(path, {})
    return caught.value


def test_smallest(smallest: str, settings_of: SettingsOf) -> None:
    """Issuer, gateway and one server are enough, and nothing is wrong with them."""
    settings = settings_of(smallest)

    assert settings.warnings == ()
    assert settings.config.issuer.algorithms == ("RS256", "ES256")
    assert settings.config.issuer.leeway == 10
    assert settings.config.issuer.deadline == 2
    assert settings.config.gateway.listen == Tcp("0.0.0.0", 8443)
    assert settings.config.gateway.max_body == 1 << 20
    assert settings.config.gateway.max_stream == 3600
    assert settings.config.gateway.address_rate == Rate(100, 1)
    assert settings.config.gateway.tls is not None
    assert settings.config.gateway.tls.minimum == "1.3"
    assert settings.config.redis.mode == "local"
    assert settings.config.redis.max_away == 300
    assert settings.config.service.check == Unix("/run/authz/check.sock")
    assert settings.config.telemetry.metrics == Tcp("127.0.0.1", 9464)
    server = settings.policy.servers["files"]
    assert server.resource == "https://mcp.example.com/files"
    assert server.versions == VERSIONS
    assert server.rule.limits == (
        Limit(
            "files:client,user:60/minute:operations",
            Per.CLIENT_USER,
            60,
            60,
            place="files",
            counts=Counts.OPERATIONS,
        ),
        Limit(
            "files:user:120/minute:operations",
            Per.USER,
            120,
            60,
            place="files",
            counts=Counts.OPERATIONS,
        ),
        Limit(
            "files:user:150/15 seconds:handshakes",
            Per.USER,
            150,
            15,
            place="files",
            counts=Counts.HANDSHAKES,
        ),
    )


def test_without_a_certificate(smallest: str, settings_of: SettingsOf) -> None:
    """A certificate may be missing, for the service needs none; that is worth a warning."""
    text = "".join(line for line in smallest.splitlines(True) if "tls:" not in line)

    (warning,) = settings_of(text).warnings

    assert (warning.field, warning.severity) == ("gateway.tls", ProblemSeverity.WARNING)


def test_example(example: str, settings_of: SettingsOf) -> None:
    """The design's example loads; the one warning is of the step-up that nobody offers."""
    (warning,) = settings_of(example).warnings

    assert str(warning) == (
        "authz.yaml:35: warning: servers.files.tools.delete_*.second_factor: no client's assurance "
        "answers it, Authelia's tokens never do, and there is no front door; write front_door, or "
        "an assurance at a client without max_login_age, or expect refusals only"
    )


def test_example_with_front_door(example: str, complaints: Complaints) -> None:
    """The design's example as it stands, with the one section that `front_door` needs, is right."""
    text = example.replace("login: direct\n  serve", "login: front_door\n  serve")

    assert complaints(f"{text}front_door: {{key_file: /run/secrets/front-door.pem}}\n") == []
    assert complaints(text)[0].startswith("authz.yaml:4: issuer.login: there is no front_door")


def test_everything_at_once(complaints: Complaints) -> None:
    """Errors of spelling, of values and between values are told together, in the file's order."""
    said = complaints("""\
issuer: {url: http://auth.example.com, ulr: x}
gateway: {listen: 8443}
redis: {url: 'redis://:pw@r'}
clients: {cron: {machine: true}, claude: {scopes: [a]}}
servers:
  one: {upstream: 'http://x', machines: [corn], scopes: [b]}
  two: {upstream: x, limits: [{per: user, rate: often}]}
  one: {upstream: 'http://y'}
  three: {upstream: 'http://x', second_factor: {evidence: [login]}}
""")

    assert [" ".join(line.split(": ")[0:2]) for line in said] == [
        "authz.yaml:1 issuer.url",
        "authz.yaml:1 issuer.ulr",
        "authz.yaml:2 gateway.url",
        "authz.yaml:2 warning",  # no certificate
        "authz.yaml:2 gateway.listen",
        "authz.yaml:3 redis.url",
        "authz.yaml:6 servers.one.machines[0]",
        "authz.yaml:6 servers.one.scopes[0]",
        "authz.yaml:7 servers.two.upstream",
        "authz.yaml:7 servers.two.limits[0].rate",
        "authz.yaml:8 servers",  # one, twice
        "authz.yaml:9 servers.three.second_factor.evidence",
    ]


def test_kept_back(smallest: str, complaints: Complaints) -> None:
    """What could only seem wrong because something else is broken is not told."""
    text = smallest.replace("servers:", "clients: {cron: {machin: true}}\nservers:")

    said = complaints(f"{text}    machines: [cron]\n")

    assert said == ["authz.yaml:6: clients.cron.machin: there is no such field; write machine"]


def test_frozen(smallest: str, settings_of: SettingsOf) -> None:
    """Settings do not change, at any depth."""
    settings = settings_of(f"{smallest}clients: {{a: {{}}}}\n")

    with pytest.raises(TypeError):
        settings.config.clients["b"] = settings.config.clients["a"]  # type: ignore[index]
    with pytest.raises(ValidationError):
        settings.config.issuer.url = "https://evil.example.com"
    with pytest.raises(TypeError):
        settings.config.servers["x"] = settings.config.servers["files"]  # type: ignore[index]
    with pytest.raises(TypeError):
        settings.policy.servers["x"] = settings.policy.servers["files"]  # type: ignore[index]
    with pytest.raises(AttributeError):
        settings.warnings = ()  # type: ignore[misc]


def test_file_name(tmp_path: Path, smallest: str) -> None:
    """A problem names the file as it was given."""
    path = tmp_path / "mine.yaml"
    path.write_text(smallest.replace("https://auth", "http://auth"))

    assert str(errors_of(path)).startswith(f"{path}:2: issuer.url: ")


def test_json(tmp_path: Path, smallest: str) -> None:
    """Problems can be had as JSON, member by member."""
    path = tmp_path / "a.yaml"
    path.write_text(f"{smallest}colour: red\n")

    assert json.loads(json.dumps(errors_of(path).to_json())) == [
        {
            "file": str(path),
            "line": 9,
            "column": 1,
            "field": "colour",
            "wrong": "there is no such field",
            "right": "write issuer, gateway, front_door, redis, clients, servers, pages, scopes, "
            "limits, telemetry, notify, audit, console or service",
            "severity": "error",
        }
    ]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        pytest.param(None, "cannot be read: No such file or directory", id="missing"),
        pytest.param(b"\xff\xfe", "not UTF-8 text", id="encoding"),
        pytest.param(b"#" * (SIZE + 1), "larger than 256 KiB", id="size"),
    ],
)
def test_unreadable(tmp_path: Path, data: bytes | None, words: str) -> None:
    """What cannot be read is a problem of the file as a whole."""
    path = tmp_path / "authz.yaml"
    if data is not None:
        path.write_bytes(data)

    assert str(errors_of(path)).startswith(f"{path}: {words}; ")


def test_directory(tmp_path: Path) -> None:
    """A directory is no file."""
    assert "cannot be read" in str(errors_of(tmp_path))


def test_nul_in_path() -> None:
    """A path that no file can have is a problem, not a crash."""
    assert errors_of(Path("a\0b")).problems[0].line == 0


def test_warnings_come_with_errors(smallest: str) -> None:
    """Where there are errors, warnings are told too, marked as such."""
    text = f"{smallest}    limits: []\n    machines: [x]\n"

    with pytest.raises(ConfigError) as caught:
        read(text, "a.yaml", {})

    assert [problem.severity for problem in caught.value.problems] == [
        ProblemSeverity.WARNING,
        ProblemSeverity.ERROR,
    ]


def test_field_name() -> None:
    """A field is written as a person would look for it."""
    assert field_name(("servers", "files", "limits", 0, "rate")) == "servers.files.limits[0].rate"
    assert field_name(("clients", "a b")) == 'clients["a b"]'
    assert field_name(("tools", "get.x")) == 'tools["get.x"]'
