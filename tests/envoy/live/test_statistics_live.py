"""What Envoy tells at the socket of its statistics: what alerts and doctor count is there."""

import http.client
import json
import re
import socket as sockets
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from authz.config.endpoints import Tcp
from authz.doctor.upstream_authorities import examine
from authz.envoy.render import Topology, render
from authz.server.envoy_statistics import PATH, envoy_pages
from authz.setup.write import rules_text
from tests.setup.kit import ANSWERS
from tests.support import edge
from tests.support.certificates import MadeCertificate, made
from tests.support.envoy import running_envoy
from tests.support.gateway import GATEWAY

SETTINGS = edge.patient_settings(f"""\
issuer: {{url: https://auth.example.com, internal: 'http://127.0.0.1:1'}}
gateway: {{url: https://{GATEWAY}, listen: '127.0.0.1:0'}}
servers: {{notes: {{upstream: 'https://127.0.0.1:1/mcp'}}}}
""")
# With a server's first 5xx; with a certificate of the gateway; with one that comes by SDS.
LATER = {
    "envoy_cluster_upstream_rq_xx",
    "envoy_listener_ssl_certificate_expiration_unix_time_seconds",
    "envoy_sds_key_rotation_failed",
}


def authority(days: int) -> MadeCertificate:
    now = datetime.now(UTC)
    return made(is_authority=True, lives=(now - timedelta(days=1), now + timedelta(days=days)))


@pytest.fixture(scope="module")
def first() -> MadeCertificate:
    return authority(10)


@pytest.fixture(scope="module")
def socket(first: MadeCertificate) -> Iterator[Path]:
    """The socket of an Envoy that trusts two authorities."""
    with tempfile.TemporaryDirectory(prefix="e") as name:
        folder = Path(name)
        (folder / "trusted").write_bytes(first.pem + authority(5).pem)
        where = Topology(
            admin=f"{folder}/admin",
            stats=f"{folder}/stats",
            folder=name,
            trusted_ca=f"{folder}/trusted",
        )
        with running_envoy(render(SETTINGS, where), folder, folder / "admin"):
            yield folder / "stats"


def test_every_statistic_of_a_rule_is_there(socket: Path) -> None:
    """Of an Envoy that has just started, but for what comes with its first event."""
    status, _, body = envoy_pages(str(socket))[PATH]()
    assert status is HTTPStatus.OK
    there = set(re.findall(r"^(\w+)\{", body.decode(), re.MULTILINE))
    groups = YAML(typ="safe").load(rules_text(ANSWERS))["groups"]
    expressions = " ".join(each["expr"] for group in groups for each in group["rules"])
    counted = set(re.findall(r"\benvoy_\w+(?=[{\[)])", expressions)) - {"envoy_cluster_name"}

    assert counted >= LATER
    assert counted - LATER <= there
    assert b'envoy_cluster_upstream_cx_connect_fail{envoy_cluster_name="mcp_notes"} 0' in body


def test_the_end_of_the_first_authority_is_told(socket: Path, first: MadeCertificate) -> None:
    """As a metric, and by doctor; of the second Envoy says nothing, though it ends before."""
    end = int(first.certificate.not_valid_after_utc.timestamp())
    name = "envoy_cluster_ssl_certificate_expiration_unix_time_seconds"
    body = envoy_pages(str(socket))[PATH]()[2].decode()
    told = re.findall(
        rf"^{name}\{{.*envoy_cluster_name=\"mcp_notes\".*\}} (\d+)$", body, re.MULTILINE
    )

    assert told == [str(end)]
    found = list(examine(SETTINGS, [socket], datetime.now(UTC).timestamp()))
    assert [each.diagnosis for each in found] == ["authority_ends"]
    assert "ends in 9 days" in found[0].message


def _answers(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.attack("probes-under-flood")
@pytest.mark.parametrize("of", ["connections", "memory"])
def test_probes_are_answered_whatever_strangers_do_to_the_gateway(of: str) -> None:
    """Else a few idle connections take every replica out of the service, and blind who looks on."""
    settings = edge.patient_settings(f"""\
issuer: {{url: https://auth.example.com, internal: 'http://127.0.0.1:1'}}
gateway: {{url: https://{GATEWAY}, listen: '127.0.0.1:0', max_connections: 3}}
servers: {{notes: {{upstream: 'http://127.0.0.1:1/mcp'}}}}
""")
    with tempfile.TemporaryDirectory(prefix="e") as name, ExitStack() as stack:
        folder = Path(name)
        where = Topology(
            admin=f"{folder}/admin",
            stats=f"{folder}/stats",
            folder=name,
            memory=(1 << 30) if of == "connections" else 1 << 20,
            scrape=Tcp("127.0.0.1", 0),
        )
        envoy = stack.enter_context(
            running_envoy(render(settings, where), folder, folder / "admin")
        )
        if of == "connections":
            rejected = "listener.127.0.0.1_0.downstream_global_cx_overflow"
            listeners = json.loads(envoy.ask("/listeners?format=json"))["listener_statuses"]
            (gateway,) = {each["name"] for each in listeners} - {"statistics", "scrape"}
            for _ in range(4):
                held = sockets.create_connection(("127.0.0.1", envoy.port(gateway)))
                stack.enter_context(held)
            envoy.wait_for(rejected, 1)
        else:
            envoy.wait_for("overload.envoy.overload_actions.stop_accepting_requests.active", 1)
        for path in ("/ready", "/stats/prometheus"):
            assert _answers(envoy.port("scrape"), path) == HTTPStatus.OK
        assert envoy_pages(str(folder / "stats"))[PATH]()[0] is HTTPStatus.OK


@pytest.mark.attack("probes-under-flood")
def test_who_reaches_the_statistics_holds_few_connections() -> None:
    """They have a bound of their own, and take nothing from the gateway."""
    with tempfile.TemporaryDirectory(prefix="e") as name, ExitStack() as stack:
        folder = Path(name)
        where = Topology(admin=f"{folder}/admin", folder=name, scrape=Tcp("127.0.0.1", 0))
        envoy = stack.enter_context(
            running_envoy(render(SETTINGS, where), folder, folder / "admin")
        )
        for _ in range(70):
            held = sockets.create_connection(("127.0.0.1", envoy.port("scrape")))
            stack.enter_context(held)
        envoy.wait_for("connection_limit.scrape.limited_connections", 6)
