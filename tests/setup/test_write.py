"""The folder: it holds what runs, its secrets are nobody else's, a second run destroys nothing."""

import json
import re
import stat
import subprocess
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from ruamel.yaml import YAML

from authz.config import location
from authz.config.compile import DEFAULT_LIMITS
from authz.config.load import load
from authz.config.problems import ConfigError
from authz.setup.answers import AnswerError, SetupAnswers
from authz.setup.folder import FileOutcome
from authz.setup.write import CONFIGURATION, write_folder
from tests.setup.kit import ANSWERS, authelia_configuration, copy_written, make, snapshot

pytestmark = pytest.mark.slow

VARIANTS = {
    "ours": ANSWERS,
    "funnel": SetupAnswers(domain="n.tail1.ts.net", funnel="n.tail1.ts.net"),
    "one name": SetupAnswers(domain="n.tail1.ts.net", funnel="n.tail1.ts.net", one_name=True),
    "direct": replace(ANSWERS, login="direct"),
    "theirs": replace(ANSWERS, issuer_url="https://login.home.example.com"),
    "two replicas": replace(ANSWERS, replicas=2),
    "own servers": replace(
        ANSWERS, servers={"git": "http://git-mcp:8080/mcp", "notes": "http://n/x"}
    ),
}


ROOT = Path(__file__).resolve().parents[2]
# Empty until somebody puts there what they got elsewhere.
_GIVEN = {"tailscale_authkey", "alert_receiver"}


@pytest.mark.parametrize("answers", VARIANTS.values(), ids=VARIANTS)
def test_a_second_run_changes_no_byte(tmp_path: Path, answers: SetupAnswers) -> None:
    """Neither contents nor modes, whatever the answers."""
    copy_written(tmp_path, answers)
    before = snapshot(tmp_path)

    done = make(tmp_path, answers)

    assert snapshot(tmp_path) == before
    assert set(done.outcomes.values()) == {FileOutcome.UNCHANGED}
    assert done.password_file is None


@pytest.mark.parametrize("answers", VARIANTS.values(), ids=VARIANTS)
def test_the_limits_that_are_written_are_the_defaults(
    tmp_path: Path, answers: SetupAnswers
) -> None:
    """Who leaves `limits` out and who keeps what was written have the same bounds, per user too."""
    copy_written(tmp_path, answers)

    servers = load(tmp_path / CONFIGURATION, {}, secrets=False).config.servers

    assert servers
    assert all(server.limits == DEFAULT_LIMITS for server in servers.values())


def test_what_was_changed_is_kept_and_told(tmp_path: Path) -> None:
    """Every file, one after the other, keeps what somebody wrote into it."""
    copy_written(tmp_path)
    for name in snapshot(tmp_path):
        if name.endswith(("authz.yaml", "init.json", ".key", ".crt", "authelia_jwk", "front_door")):
            continue
        path = tmp_path / name
        path.write_bytes(path.read_bytes() + b"# mine\n")
    before = snapshot(tmp_path)

    done = make(tmp_path)

    assert snapshot(tmp_path) == before
    assert done.outcomes["docker-compose.yml"] is FileOutcome.KEPT
    assert done.outcomes["authelia/configuration.yml"] is FileOutcome.KEPT
    assert {"envoy/envoy.yaml", "authelia/authz.yml"} <= set(done.stale)


def test_what_authz_yaml_implies_follows_it_when_asked(tmp_path: Path) -> None:
    """A changed authz.yaml is kept; Envoy's part is told to be stale, and renewed by `render`."""
    copy_written(tmp_path)
    path = tmp_path / CONFIGURATION
    path.write_text(path.read_text().replace("http://notes:8000", "http://elsewhere:8000"))

    names = tuple(f"envoy/{name}" for name in ("clusters.yaml", "routes.yaml", "rendered.json"))
    assert make(tmp_path).stale == names
    done = write_folder(tmp_path, ANSWERS, None, render=True)

    renewed = {name for name, what in done.outcomes.items() if what is FileOutcome.RENEWED}
    assert renewed == set(names)
    assert "elsewhere" in (tmp_path / "envoy/clusters.yaml").read_text()
    assert "elsewhere" in path.read_text()
    assert make(tmp_path).stale == ()


def test_an_envoy_that_was_not_told_to_be_strict_watches_nothing(tmp_path: Path) -> None:
    """In a folder of an earlier release Envoy passes over unknown fields: it gets one file."""
    copy_written(tmp_path)
    compose = tmp_path / "docker-compose.yml"
    compose.write_text(compose.read_text().replace("--reject-unknown-dynamic-fields", ""))
    assert "dynamic_resources" in (tmp_path / "envoy/envoy.yaml").read_text()

    write_folder(tmp_path, ANSWERS, None, render=True)

    text = (tmp_path / "envoy/envoy.yaml").read_text()
    assert "dynamic_resources" not in text
    assert "notes:8000" in text


def test_a_wrong_authz_yaml_is_an_error_and_nothing_of_it_is_rendered(tmp_path: Path) -> None:
    """The mistake is told as ever; Envoy keeps what it had."""
    copy_written(tmp_path)
    (tmp_path / CONFIGURATION).write_text("issuer: {}")
    envoy = (tmp_path / "envoy/envoy.yaml").read_bytes()

    with pytest.raises(ConfigError):
        write_folder(tmp_path, ANSWERS, None, render=True)

    assert (tmp_path / "envoy/envoy.yaml").read_bytes() == envoy


@pytest.mark.parametrize("answers", [VARIANTS["ours"], VARIANTS["direct"]], ids=["ours", "direct"])
@pytest.mark.attack("password-guessing")
def test_wrong_passwords_ban_an_address_and_not_a_person(
    tmp_path: Path, answers: SetupAnswers
) -> None:
    """Whoever knows a name could lock its person out by Authelia's default, `user`. A ban is short,
    since people share addresses. tests/e2e/test_wrong_passwords.py shows what the line does.
    """
    copy_written(tmp_path, answers)

    said = authelia_configuration(tmp_path)["regulation"]

    assert said == {"modes": ["ip"], "max_retries": 10, "find_time": "2m", "ban_time": "2m"}


@pytest.mark.attack("default password")
def test_two_folders_share_no_secret(tmp_path: Path) -> None:
    """Everything secret is made on the spot; nothing is the same twice."""
    copy_written(tmp_path / "one")
    make(tmp_path / "two")
    one, two = (
        {
            path.name: path.read_bytes()
            for path in (tmp_path / name).glob("secrets/**/*")
            if path.is_file() and path.name not in _GIVEN
        }
        for name in ("one", "two")
    )

    assert one.keys() == two.keys()
    assert len(one) > 8
    assert not any(one[name] == two[name] for name in one)


@pytest.mark.parametrize("answers", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.attack("secrets on disk")
def test_secrets_are_their_owners_alone(tmp_path: Path, answers: SetupAnswers) -> None:
    """Mode 600 in a folder of mode 700, whatever the umask; and in no other file."""
    copy_written(tmp_path, answers)
    folder = tmp_path
    secrets = {
        path: path.read_text().strip()
        for path in folder.glob("secrets/**/*")
        if path.is_file() and path.suffix != ".crt"
    }
    others = [p for p in folder.rglob("*") if p.is_file() and p not in secrets]

    assert stat.S_IMODE((folder / "secrets").stat().st_mode) == 0o700
    for path, text in secrets.items():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
        assert not any(text and text in other.read_text() for other in others), path


@pytest.mark.usefixtures("slow_digests")
def test_the_password_is_a_slow_digest(tmp_path: Path) -> None:
    """What was typed fits the digest that Authelia reads, and is written nowhere."""
    done = make(tmp_path, password="correct horse battery")
    users = YAML(typ="safe").load((tmp_path / "users/users.yml").read_text())["users"]

    assert users["john"]["password"].startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    Argon2id.verify_phc_encoded(b"correct horse battery", users["john"]["password"])
    assert done.password_file is None
    assert not any(b"correct horse" in data for _, data in snapshot(tmp_path).values())


def test_a_made_password_is_told_once(tmp_path: Path) -> None:
    """Where none was given one is made, and lies in a file that says so."""
    done = make(tmp_path)
    assert done.password_file is not None
    users = YAML(typ="safe").load((tmp_path / "users/users.yml").read_text())["users"]

    Argon2id.verify_phc_encoded(done.password_file.read_bytes(), users["john"]["password"])


@pytest.mark.parametrize("answers", VARIANTS.values(), ids=VARIANTS)
def test_authz_yaml_is_right(tmp_path: Path, answers: SetupAnswers) -> None:
    """It loads, and says what was answered."""
    copy_written(tmp_path, answers)
    settings = load(tmp_path / CONFIGURATION, {}, secrets=False)
    config = settings.config

    assert config.gateway.url == answers.gateway
    assert config.issuer.url == answers.issuer
    assert config.shares_origin == answers.one_name
    assert set(config.servers) == set(answers.servers)
    assert config.gateway.trusted_hops == (1 if answers.funnel else 0)
    assert (config.gateway.tls is None) == bool(answers.funnel)
    assert config.redis.url == "redis://redis:6379/0"
    assert config.login == answers.login


@pytest.mark.parametrize("answers", [ANSWERS, VARIANTS["funnel"], VARIANTS["one name"]])
def test_the_portal_is_where_the_issuer_says(tmp_path: Path, answers: SetupAnswers) -> None:
    """Authelia's own file, its health check, its cookie and what Tailscale lets in follow from the
    one URL; under one name the cookie is of that name alone, not of all the tailnet's.
    """
    copy_written(tmp_path, answers)
    authelia, issuer = authelia_configuration(tmp_path), urlsplit(answers.issuer)
    compose = YAML(typ="safe").load((tmp_path / "docker-compose.yml").read_text())
    (cookie,) = authelia["session"]["cookies"]
    served = json.loads((tmp_path / "tailscale/serve.json").read_text())
    ports = {name.partition(":")[2] for name in served["AllowFunnel"]}

    assert authelia["server"]["address"] == f"tcp://:9091{issuer.path or '/'}"
    health = compose["services"]["authelia"]["healthcheck"]["test"][-1]
    assert health == f"http://127.0.0.1:9091{issuer.path}/api/health"
    assert cookie["authelia_url"] == answers.issuer
    assert (cookie["domain"] == issuer.hostname) == bool(answers.funnel or answers.one_name)
    assert (issuer.hostname or "").endswith(cookie["domain"])
    assert set(served["TCP"]) == ports == ({"443"} if answers.one_name else {"443", "8443"})


@pytest.mark.parametrize("answers", VARIANTS.values(), ids=VARIANTS)
def test_the_compose_file_has_what_it_names(tmp_path: Path, answers: SetupAnswers) -> None:
    """Every secret, file and folder that a service mounts is there; every network is declared."""
    copy_written(tmp_path, answers)
    file = YAML(typ="safe").load((tmp_path / "docker-compose.yml").read_text())
    for name, service in file["services"].items():
        if name == "tailscale" and not answers.funnel:
            continue
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert source in file["volumes"] or (tmp_path / source).exists(), (name, source)
        assert set(service.get("secrets", ())) <= set(file["secrets"])
        assert set(service["networks"]) <= set(file["networks"])
        assert set(service.get("depends_on", {})) <= set(file["services"])
    for secret in file["secrets"].values():
        assert (tmp_path / secret["file"]).is_file()
    assert ("authelia" in file["services"]) == answers.ours
    assert all(
        file["networks"][name]
        == ({} if name in {"edge", "out", "alerts-out", "dashboards"} else {"internal": True})
        for name in file["networks"]
    )


def test_an_mcp_server_shares_a_network_with_envoy_alone(tmp_path: Path) -> None:
    """Each has its own, which nobody else is on but doctor, while somebody runs it."""
    copy_written(tmp_path)
    services = YAML(typ="safe").load((tmp_path / "docker-compose.yml").read_text())["services"]
    for name in ANSWERS.servers:
        members = [
            each for each, service in services.items() if f"mcp-{name}" in service["networks"]
        ]
        assert members == ["envoy", name, "doctor"]


def test_a_second_replica_is_the_first_once_more(tmp_path: Path) -> None:
    """With the same bounds, secrets and networks; the first alone writes Envoy's files."""
    copy_written(tmp_path, VARIANTS["two replicas"])
    services = YAML(typ="safe").load((tmp_path / "docker-compose.yml").read_text())["services"]
    first, second = services["authz"], services["authz-2"]

    different = {name for name in first | second if first.get(name) != second.get(name)}
    assert different == {"command", "volumes"}
    assert set(second["volumes"]) == set(first["volumes"]) - {"./envoy:/etc/envoy"}
    assert second["command"][-2:] == ["--check", "unix:/run/authz/replica-2.sock"]
    assert {"authz", "authz-2"} <= services["envoy"]["depends_on"].keys()
    assert endpoints(tmp_path) == ["/run/authz/check.sock", "/run/authz/replica-2.sock"]
    jobs = YAML(typ="safe").load((tmp_path / "prometheus/prometheus.yml").read_text())
    assert jobs["scrape_configs"][0]["static_configs"] == [
        {"targets": ["authz:9464", "authz-2:9464"]}
    ]
    # While Redis is away each counts its part of every limit.
    written = YAML(typ="safe").load((tmp_path / "authz" / "authz.yaml").read_text())
    assert written["redis"]["replicas"] == len({"authz", "authz-2"} & services.keys())


def test_alerts_link_the_runbooks_where_somebody_has_them(tmp_path: Path) -> None:
    """A relative link leads nowhere on a phone; the file stays until somebody removes it."""
    copy_written(tmp_path)
    url = "https://wiki.example.com/authz/runbooks"
    rules = tmp_path / "prometheus/rules.yml"
    rules.unlink()
    write_folder(tmp_path, replace(ANSWERS, runbooks=url), None, render=True)
    links = re.findall("runbook_url: (.*)#", rules.read_text())
    assert set(links) == {url}
    assert json.loads((tmp_path / "init.json").read_text())["runbooks"] == url
    for wrong in ("wiki", "javascript:x", "https://wiki.example.com/a b", 'https://a/"'):
        with pytest.raises(AnswerError, match="runbooks"):
            replace(ANSWERS, runbooks=wrong)


def test_a_folder_gets_its_second_replica_later(tmp_path: Path) -> None:
    """As docs/upgrade.md has it; Envoy asks no replica that the compose file does not have."""
    copy_written(tmp_path)
    write_folder(tmp_path, replace(ANSWERS, replicas=2), None, render=True)
    assert json.loads((tmp_path / "init.json").read_text())["replicas"] == 2
    assert endpoints(tmp_path) == ["/run/authz/check.sock"]  # the compose file is the person's

    (tmp_path / "docker-compose.yml").unlink()
    write_folder(tmp_path, replace(ANSWERS, replicas=2), None, render=True)
    assert endpoints(tmp_path) == ["/run/authz/check.sock", "/run/authz/replica-2.sock"]

    before = (tmp_path / "init.json").read_text()
    write_folder(tmp_path, replace(ANSWERS, port=444), None, render=True)
    assert (tmp_path / "init.json").read_text() == before


def endpoints(folder: Path) -> list[str]:
    """Return where Envoy asks for decisions."""
    text = (folder / "envoy/clusters.yaml").read_text()
    clusters = {each["name"]: each for each in YAML(typ="safe").load(text)["resources"]}
    (locality,) = clusters["authz"]["load_assignment"]["endpoints"]
    addresses = [each["endpoint"]["address"] for each in locality["lb_endpoints"]]
    return [each["pipe"]["path"] for each in addresses]


@pytest.mark.parametrize("answers", VARIANTS.values(), ids=VARIANTS)
def test_doctor_runs_when_asked_and_has_no_secret_that_it_does_not_need(
    tmp_path: Path, answers: SetupAnswers
) -> None:
    """It has what `authz serve` reads of secrets, mounts nothing to write, and listens nowhere."""
    copy_written(tmp_path, answers)
    services = YAML(typ="safe").load((tmp_path / "docker-compose.yml").read_text())["services"]
    doctor = services["doctor"]

    assert (doctor["profiles"], doctor["restart"]) == (["doctor"], "no")
    assert doctor["secrets"] == services["authz"]["secrets"]
    assert doctor["read_only"] is True
    assert doctor["cap_drop"] == ["ALL"]
    assert all(each.endswith(":ro") for each in doctor["volumes"])
    assert not any("secrets" in each and "tls.crt" not in each for each in doctor["volumes"])
    assert "ports" not in doctor
    assert "doctor" not in {
        need for each in services.values() for need in each.get("depends_on", ())
    }


def test_a_doctor_is_found_among_services_alone(tmp_path: Path) -> None:
    """Not in a comment, a network or a member of another service."""
    copy_written(tmp_path)
    assert location.has_doctor(tmp_path)
    for text in ("", "services:\n  authz:\n    doctor:\n", "services: {}\nnetworks:\n  doctor:\n",
                 "networks:\n  doctor:\nservices:\n  #  doctor:\n"):  # fmt: skip
        assert not location.has_service(text, "doctor")
    assert location.has_service("services:\n  a: {}\n\n  doctor:\n    x: 1\n", "doctor")
    assert not location.has_doctor(tmp_path / "nowhere")


def test_the_certificate_is_for_both_names_and_its_authority_for_the_domain_alone(
    tmp_path: Path,
) -> None:
    """Who trusts ca.crt trusts it for the domain; the key fits; the other is unmounted."""
    copy_written(tmp_path)
    certificate, authority = (
        x509.load_pem_x509_certificate((tmp_path / name).read_bytes())
        for name in ("secrets/tls/tls.crt", "ca.crt")
    )
    key = load_pem_private_key((tmp_path / "secrets/tls/tls.key").read_bytes(), None)
    assert "ca.key" not in (tmp_path / "docker-compose.yml").read_text()
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    bounds = authority.extensions.get_extension_for_class(x509.NameConstraints)

    assert names.get_values_for_type(x509.DNSName) == [
        "mcp.home.example.com",
        "auth.home.example.com",
    ]
    assert certificate.public_key() == key.public_key()
    assert bounds.critical
    assert [each.value for each in bounds.value.permitted_subtrees or ()] == ["home.example.com"]
    keys = [
        name
        for name, (_, data) in snapshot(tmp_path).items()
        if data.startswith(b"-----BEGIN PRIV")
    ]
    assert sorted(keys) == [
        "secrets/authelia_jwk",
        "secrets/ca.key",
        "secrets/front_door",
        "secrets/tls/tls.key",
    ]


def test_redis_users_are_digests(tmp_path: Path) -> None:
    """No default user, no password in the clear, no command that administers: but for reading this
    file again, which whoever may do that may do nothing else.
    """
    copy_written(tmp_path)
    users = (tmp_path / "secrets/redis_users").read_text()

    assert "user default off" in users
    assert not re.search(r"(?:^| )>", users)
    assert not re.search(r"\+(?:@|config|acl(?!\|load$)|flush|keys|eval( |$))", users, re.MULTILINE)
    assert users.count("acl|load") == 1


def test_redis_lets_authz_run_what_a_script_of_the_ledger_calls(tmp_path: Path) -> None:
    """Every command of every script: one that is missing is refused in the middle of a script."""
    copy_written(tmp_path)
    users = (tmp_path / "secrets/redis_users").read_text()
    (allowed,) = (line for line in users.splitlines() if line.startswith("user authz "))
    scripts = [path.read_text() for path in (ROOT / "authz").rglob("*.lua")]
    called = {name.lower() for text in scripts for name in re.findall(r"call\('(\w+)'", text)}

    assert "pexpire" in called
    assert called <= {word[1:] for word in allowed.split() if word.startswith("+")}


def test_redis_refuses_rather_than_forgets(tmp_path: Path) -> None:
    """What a full Valkey of the folder does is what the embedded one is tested to do."""
    copy_written(tmp_path)
    written = (tmp_path / "redis/valkey.conf").read_text().splitlines()

    assert [line for line in written if line.startswith("maxmemory-policy")] == [
        "maxmemory-policy noeviction"
    ]
    assert any(re.fullmatch(r"maxmemory \d+mb", line) for line in written)


def test_a_file_that_somebody_put_there_meanwhile_is_kept(tmp_path: Path) -> None:
    """A link that leads elsewhere is followed by nothing that writes."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("mine")
    folder = tmp_path / "deploy"
    folder.mkdir()
    (folder / "docker-compose.yml").symlink_to(elsewhere)

    done = make(folder)

    assert elsewhere.read_text() == "mine"
    assert done.outcomes["docker-compose.yml"] is FileOutcome.KEPT


def test_no_draft_is_left(tmp_path: Path) -> None:
    """What was written for a moment is gone."""
    make(tmp_path)
    assert not [name for name in snapshot(tmp_path) if re.search(r"\.[0-9a-f]{16}$", name)]


def test_the_file_of_the_repository_is_that_of_the_folder(tmp_path: Path) -> None:
    """docker-compose.yml at the top does what the one in deploy/ does, read from one folder up."""
    there = (ROOT / "docker-compose.yml").read_text("utf-8")
    write_folder(tmp_path, SetupAnswers("example.com"), "a password of nobody")
    load = YAML(typ="safe").load

    assert load(there.replace("./deploy/", "./")) == load(
        (tmp_path / "docker-compose.yml").read_text("utf-8")
    )


def _old_layout(folder: Path) -> None:
    """Make of a folder what earlier releases wrote: authz.yaml at the top, mounted alone."""
    for name in ("authz.yaml", "authz.schema.json"):
        (folder / "authz" / name).rename(folder / name)
    (folder / "authz").rmdir()
    compose = folder / "docker-compose.yml"
    text = compose.read_text().replace("/authz:/etc/authz:", "/authz.yaml:/etc/authz/authz.yaml:")
    compose.write_text(text)


def test_containers_mount_the_folder_of_authz_yaml(tmp_path: Path) -> None:
    """Of a file mounted alone a container keeps the old one when an editor replaces it. Nothing
    else is in that folder.
    """
    copy_written(tmp_path)
    services = YAML(typ="safe").load(tmp_path / "docker-compose.yml")["services"]

    assert "./authz:/etc/authz:ro" in services["authz"]["volumes"]
    assert "./authz:/etc/authz:ro" in services["authz-pages"]["volumes"]
    assert {each.name for each in (tmp_path / "authz").iterdir()} == {
        "authz.yaml",
        "authz.schema.json",
    }
    assert make(tmp_path).move == ()


def test_an_old_folder_stays_as_it_is_and_says_how_to_move(tmp_path: Path) -> None:
    """Nothing is written twice or moved; the commands that are told end in the new layout."""
    copy_written(tmp_path)
    _old_layout(tmp_path)
    before = snapshot(tmp_path)

    done = make(tmp_path)

    assert snapshot(tmp_path) == before
    *commands, up = done.move
    assert up == "docker compose up -d"
    for line in commands:
        subprocess.run(line, shell=True, cwd=tmp_path, check=True)
    after = make(tmp_path)
    assert after.move == ()
    assert set(after.outcomes.values()) == {FileOutcome.UNCHANGED}


def test_an_old_folder_without_its_compose_file_gets_one_that_fits(tmp_path: Path) -> None:
    """The mount of a folder that is not there would leave the containers without authz.yaml."""
    copy_written(tmp_path)
    _old_layout(tmp_path)
    (tmp_path / "docker-compose.yml").unlink()

    make(tmp_path)

    assert "./authz.yaml:/etc/authz/authz.yaml:ro" in (tmp_path / "docker-compose.yml").read_text()
