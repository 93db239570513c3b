"""A folder of `authz init`, in which a new user changed one thing."""

import re
import shutil
from pathlib import Path

import pytest

from authz.cli import main
from authz.config.load import load
from authz.doctor import deployment_files
from authz.doctor.finding import Finding, Severity
from tests.doctor.kit import diagnoses, problems, the

CONFIGURATION, CLIENTS = deployment_files.AUTHELIA
RULES, PROMETHEUS = deployment_files.RULES, deployment_files.PROMETHEUS
AUTHZ = "authz/authz.yaml"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("init") / "deploy"
    assert main(["init", str(folder), "--domain", "home.example.com", "--yes"]) == 0
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    copied = tmp_path / "deploy"
    shutil.copytree(made, copied)
    return copied


def look(folder: Path) -> list[Finding]:
    return deployment_files.examine(load(folder / AUTHZ, {}, secrets=False), folder)


def test_what_init_writes_is_sound(made: Path) -> None:
    """Nothing but good words, and that a person has to say who is told of alerts."""
    assert {"known_url", "can_fire"} == set(diagnoses(look(made), Severity.OK))
    assert {"no_receiver"} == set(diagnoses(look(made))) - {"known_url", "can_fire"}


def test_a_receiver_that_is_filled_in(folder: Path) -> None:
    """One of those that the file shows, without its #."""
    path = folder / deployment_files.ALERTMANAGER
    text = path.read_text()
    shown = text.partition("    # webhook_configs:")[2]
    assert shown
    filled = re.sub("^    # ( *- url)", r"    \1", shown, flags=re.MULTILINE)
    path.write_text(text.replace(f"    # webhook_configs:{shown}", f"    webhook_configs:{filled}"))

    assert {each.severity for each in look(folder)} == {Severity.OK}


def test_nobody_is_told(folder: Path) -> None:
    """A configuration of before Alertmanager came: a warning, since alerts are on a page."""
    path = folder / PROMETHEUS
    path.write_text(re.sub(r"alerting:\n( +.*\n)+", "", path.read_text()))

    assert the(look(folder), "no_alertmanager").severity is Severity.WARNING


@pytest.mark.parametrize(
    ("file", "before", "after", "diagnosis", "told"),
    [
        pytest.param(
            CONFIGURATION, "https://auth.home", "https://login.home", "unknown_url",
            "session.cookies[].authelia_url", id="another name of Authelia",
        ),
        pytest.param(
            CLIENTS, "access_token_signed_response_alg: RS256", "x: 1", "opaque_tokens",
            "access_token_signed_response_alg", id="opaque tokens",
        ),
        pytest.param(
            RULES, "authz_limiter_mode", "authz_limiter_mod", "unknown_metric", "Metrics",
            id="a metric that there is not",
        ),
        pytest.param(
            RULES, 'up{job="authz"}', 'up{job="authzz"}', "unknown_job", "job_name",
            id="a job that there is not",
        ),
        pytest.param(
            PROMETHEUS, "rules.yml", "alerts.yml", "rules_unread", "rule_files", id="rules unread"
        ),
        pytest.param(
            AUTHZ, "metrics: 0.0.0.0:9464, ", "", "not_served", "telemetry.metrics", id="no metrics"
        ),
        pytest.param(
            PROMETHEUS, "metrics_path: /envoy/metrics", "scheme: http", "envoy_not_scraped",
            "metrics_path", id="Envoy is not scraped",
        ),
        pytest.param(
            deployment_files.COMPOSE, ", --envoy-stats, /run/authz/envoy-stats.sock", "",
            "envoy_not_scraped", "--envoy-stats", id="Envoy is not passed on",
        ),
        pytest.param(RULES, "groups:", "x:", "no_alerts", "authz init", id="no alerts"),
    ],
)  # fmt: skip
def test_each_change_is_named(  # noqa: PLR0917 - a table
    folder: Path, file: str, before: str, after: str, diagnosis: str, told: str
) -> None:
    """With the file and the key that mend it."""
    text = (folder / file).read_text()
    assert before in text
    (folder / file).write_text(text.replace(before, after))
    found = look(folder)
    assert set(problems(found)) == {diagnosis}
    named = next(each for each in found if each.diagnosis == diagnosis)
    assert told in named.fix


def test_another_port_of_the_metrics(folder: Path) -> None:
    """A warning: something may forward it."""
    text = (folder / AUTHZ).read_text()
    (folder / AUTHZ).write_text(text.replace("0.0.0.0:9464", "0.0.0.0:9999"))
    assert the(look(folder), "other_port").severity is Severity.WARNING


def test_files_of_any_content(folder: Path) -> None:
    """Whatever a file holds, findings are printable."""
    known = load(folder / AUTHZ, {}, secrets=False)
    contents = (
        b'session: {cookies: [1, {authelia_url: [x]}, {authelia_url: "\\e[2J"}]}',
        b"identity_providers: {oidc: {clients: [{client_id: [1]}, 5]}}",
        b'groups: [{rules: [{alert: "a\\e[2J", expr: authz_x}, {alert: 1, expr: 2}]}]',
        b"receivers: [5, {5: [1], x_configs: 5}]\nservices: {authz: {command: 5}}",
        b"alerting: {alertmanagers: [{}, 5]}\nservices: {authz: 5}",
        b"scrape_configs: [{job_name: authz, static_configs: [{targets: 5}]}]\nrule_files: 5",
        b"[" * 500,
        b"\xff\x00",
        b"5",
        b"",
    )
    more = (deployment_files.ALERTMANAGER, deployment_files.COMPOSE)
    for name in (CONFIGURATION, CLIENTS, RULES, PROMETHEUS, *more):
        for content in contents:
            (folder / name).write_bytes(content)
            for found in deployment_files.examine(known, folder):
                assert str(found).replace("\n", "").isprintable()
