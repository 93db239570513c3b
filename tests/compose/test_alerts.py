"""Alerts in the deployment: what they count is there, they fire, and somebody is told.

The rules are those of `authz init`, but that they wait no minutes (`ComposeDeployment.write`).
"""

import asyncio
import json
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from cryptography import x509
from ruamel.yaml import YAML

from authz.http.served_certificate import served_certificate
from tests.compose import caller
from tests.compose.deployment import DOMAIN, RECEIVER, ComposeDeployment
from tests.compose.images import SAMPLES
from tests.compose.test_prometheus import query
from tests.support.certificates import made

# A selector with its matchers, or a name alone.
_SELECTOR: Final = re.compile(
    r"\b(?:up|(?:authz|envoy_(?:cluster_(?:upstream|ssl)|listener|sds)|prometheus|alertmanager)_\w+)"
    r"\b(?:\{[^}]*\})?"
)
# They appear with the first error of a server, and with the first server that has https.
_LATER: Final = ("envoy_cluster_upstream_rq_xx", "envoy_cluster_ssl_certificate")
# Of files that authz cannot read in its container; Envoy's own figure takes its place.
_ELSEWHERE: Final = ("authz_certificate_expiry_timestamp_seconds",)
# Whoever is told of alerts: prints each message that Alertmanager posts.
_PRINT: Final = """
import http.server
class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        print(self.rfile.read(int(self.headers["content-length"])).decode(), flush=True)
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_):
        pass
http.server.HTTPServer(("", 8080), Receiver).serve_forever()
"""


def rules(deployment: ComposeDeployment) -> dict[str, Mapping[str, Any]]:
    """Return each alert that this folder has, by its name."""
    text = (deployment.folder / "prometheus/rules.yml").read_text("utf-8")
    groups = YAML(typ="safe").load(text)["groups"]
    return {each["alert"]: each for group in groups for each in group["rules"]}


class AlertReceiver:
    """Read what somebody was told.

    Attributes:
        deployment: whose alerts they are.
        container: its name.
    """

    def __init__(self, deployment: ComposeDeployment, container: str) -> None:
        self.deployment, self.container = deployment, container

    def alerts(self) -> dict[str, Mapping[str, Any]]:
        """Return the alerts that fired, by name."""
        lines = self.deployment.engine.run("logs", self.container).split("\n")
        messages = [json.loads(line) for line in lines if line.strip()]
        found = [alert for message in messages for alert in message["alerts"]]
        return {each["labels"]["alertname"]: each for each in found if each["status"] == "firing"}

    def until_told(self, *names: str, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Wait until alerts fire, and somebody was told of each."""
        missing = set(names)

        def is_told() -> bool:
            meanwhile()
            firing = query(self.deployment, 'ALERTS{alertstate="firing"}')
            now = {each["metric"]["alertname"] for each in firing}
            missing.clear()
            missing.update(set(names) - (self.alerts().keys() & now))
            return not missing

        try:
            self.deployment.until(is_told, "messages")
        except AssertionError as error:
            raise AssertionError(f"nobody was told of {sorted(missing)}") from error


@pytest.fixture(scope="module")
def told(deployment: ComposeDeployment) -> Iterator[AlertReceiver]:
    """Somebody, where alertmanager.yml says."""
    name = f"{deployment.project}-receiver"
    network = f"--network={deployment.project}_alerts-out"
    python = ("--entrypoint=/opt/authz/bin/python3", SAMPLES, "-c", _PRINT)
    deployment.engine.run(
        "run", "-d", "--rm", "--name", name, network, f"--network-alias={RECEIVER}", *python
    )
    try:
        yield AlertReceiver(deployment, name)
    finally:
        deployment.engine.run("rm", "-f", name, check=False)


@contextmanager
def stopped(deployment: ComposeDeployment, *services: str) -> Iterator[None]:
    """Keep services stopped."""
    containers = [deployment.container(each) for each in services]
    deployment.engine.run("stop", "-t", "0", *containers)
    try:
        yield
    finally:
        deployment.engine.run("start", *containers)
        deployment.until_healthy(*services)


@pytest.mark.parametrize("job", ["envoy", "alertmanager"])
def test_all_that_tells_something_is_scraped(deployment: ComposeDeployment, job: str) -> None:
    """Envoy by way of authz, and who tells people."""
    deployment.until(lambda: bool(query(deployment, f'up{{job="{job}"}} == 1')), "a scrape")


def test_what_a_rule_counts_is_there(deployment: ComposeDeployment) -> None:
    """Every selector of every rule finds a series, labels and all: nothing is misspelt."""
    selectors = {
        found
        for rule in rules(deployment).values()
        for found in _SELECTOR.findall(rule["expr"])
        if not found.startswith((*_LATER, *_ELSEWHERE))
    }
    assert len(selectors) > 20
    missing: set[str] = set()

    def found() -> bool:
        missing.clear()
        missing.update(each for each in selectors if not query(deployment, each))
        return not missing

    try:
        deployment.until(found, "a scrape of all")
    except AssertionError as error:
        raise AssertionError(f"no series: {sorted(missing)}") from error


def test_a_burst_of_forged_tokens_is_told_to_a_person(
    deployment: ComposeDeployment, told: AlertReceiver
) -> None:
    """From the request to the message: the rule as written, Alertmanager, the receiver."""
    asyncio.run(_forged(deployment, 50))
    told.until_told("AuthzForgedTokens")

    assert told.alerts()["AuthzForgedTokens"]["annotations"] == {
        "summary": "A burst of tokens that no issuer made, or made for somebody else",
        "runbook_url": "docs/runbooks.md#authzforgedtokens",
    }


async def _forged(deployment: ComposeDeployment, number: int) -> None:
    for _ in range(number):
        answer = await caller.once(deployment, "notes", "forged")
        assert answer.status_code == httpx.codes.UNAUTHORIZED


def test_a_worker_that_dies_is_told(deployment: ComposeDeployment, told: AlertReceiver) -> None:
    """One of two, by a signal from outside."""
    deployment.kill_worker("authz")

    told.until_told("AuthzRestarts")


def test_an_authz_yaml_with_an_error_is_told(
    deployment: ComposeDeployment, told: AlertReceiver
) -> None:
    """It is looked at by itself, and refused."""
    configuration = deployment.folder / "authz/authz.yaml"
    text = configuration.read_text("utf-8")
    configuration.write_text(f"{text}\nnot a field: 1\n", "utf-8")
    try:
        told.until_told("AuthzReloadRefused")
    finally:
        configuration.write_text(text, "utf-8")


def test_certificates_are_told(deployment: ComposeDeployment, told: AlertReceiver) -> None:
    """One without its key, which Envoy does not take; then a pair for ten days."""
    folder = deployment.folder / "secrets/tls"
    chain, key = folder / "tls.crt", folder / "tls.key"
    before = {path: path.read_bytes() for path in (chain, key)}
    now = datetime.now(UTC)
    names = (f"mcp.{DOMAIN}", f"auth.{DOMAIN}")
    short = made(*names, lives=(now - timedelta(days=1), now + timedelta(days=10)))
    try:
        _replace(chain, short.pem)
        told.until_told("AuthzCertificateRefused")
        _replace(key, short.key_pem)
        told.until_told("AuthzCertificateEnds")
    finally:
        for path, content in before.items():
            _replace(path, content)
        # Envoy takes them in their turn: clients of the next test know the authority of the old.
        own = x509.load_pem_x509_certificate(before[chain])
        deployment.until(
            lambda: served_certificate("127.0.0.1", deployment.port, names[0]) == own,
            "the certificate of before",
        )


def _replace(path: Path, content: bytes) -> None:
    """Rename a file into place, with the owner and mode of the one before."""
    status, new = path.stat(), path.with_suffix(".new")
    new.write_bytes(content)
    new.chmod(stat.S_IMODE(status.st_mode))
    os.chown(new, status.st_uid, status.st_gid)
    new.replace(path)


def test_a_server_that_is_away_is_told(deployment: ComposeDeployment, told: AlertReceiver) -> None:
    """By its name: Envoy cannot connect to it."""
    _, token = asyncio.run(caller.log_in(deployment, "notes", "2026-07-28"))
    with stopped(deployment, "notes"):
        # People go on calling: a counter that appears with a burst has not increased by it.
        told.until_told(
            "AuthzServerFails", meanwhile=lambda: asyncio.run(_in_vain(deployment, token))
        )

    assert told.alerts()["AuthzServerFails"]["labels"]["envoy_cluster_name"] == "mcp_notes"


async def _in_vain(deployment: ComposeDeployment, token: str) -> None:
    calls = (caller.once(deployment, "notes", token) for _ in range(12))
    for answer in await asyncio.gather(*calls, return_exceptions=True):
        waited = isinstance(answer, httpx.TimeoutException)
        assert waited or (
            isinstance(answer, httpx.Response) and answer.status_code != httpx.codes.UNAUTHORIZED
        )


def test_files_that_envoy_refuses_are_told(
    deployment: ComposeDeployment, told: AlertReceiver
) -> None:
    """An address to listen on that is not its own."""
    configuration = deployment.folder / "authz/authz.yaml"
    text = configuration.read_text("utf-8")
    try:
        configuration.write_text(text.replace("listen: 0.0.0.0:", "listen: 192.0.2.1:"), "utf-8")
        told.until_told("AuthzEnvoyNotUpdated")
    finally:
        configuration.write_text(text, "utf-8")


def test_what_is_away_is_told(deployment: ComposeDeployment, told: AlertReceiver) -> None:
    """The pages, Redis, Authelia and Envoy; authz that starts without them; and authz itself."""
    authz = deployment.container("authz")
    with stopped(deployment, "authz-pages", "redis", "authelia", "envoy"):
        told.until_told("AuthzPagesDown", "AuthzCountsWithoutRedis", "AuthzEnvoyDown")
        # Keys are fetched at the start; another try would be minutes away.
        deployment.engine.run("restart", "-t", "1", authz)
        told.until_told("AuthzIssuerAway", "AuthzKeysOld")
        deployment.engine.run("stop", "-t", "1", authz)
        try:
            told.until_told("AuthzDown")
        finally:
            deployment.engine.run("start", authz)
    deployment.until_healthy("authz")
