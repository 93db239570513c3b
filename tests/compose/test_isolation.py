"""Who reaches whom, tried from inside: every connection that is not in the table fails."""

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import pytest

from tests.compose.deployment import SERVICES, ComposeDeployment

# Where each service listens, the only way to each of them; of ours it is the page of figures.
_PORTS: Final[Mapping[str, int]] = {
    "envoy": 8443,
    "authz": 9464,
    "authz-pages": 9465,
    "authelia": 9091,
    "redis": 6379,
    "prometheus": 9090,
    "alertmanager": 9093,
    "notes": 8000,
    "files": 8000,
}
# From whom to whom: what shares a network. All else must fail, by name and by every address.
_REACHES: Final[Mapping[str, frozenset[str]]] = {
    "envoy": frozenset({"authz", "authz-pages", "authelia", "notes", "files"}),
    "authz": frozenset({"envoy", "authz-pages", "authelia", "redis", "prometheus"}),
    "authz-pages": frozenset({"envoy", "authz", "authelia", "redis", "prometheus"}),
    "authelia": frozenset({"envoy", "authz", "authz-pages", "redis"}),
    "redis": frozenset({"authz", "authz-pages", "authelia"}),
    "prometheus": frozenset({"authz", "authz-pages", "alertmanager"}),
    "alertmanager": frozenset({"prometheus"}),
    "notes": frozenset({"envoy"}),
    "files": frozenset({"envoy"}),
}
_TRY: Final = """
import concurrent.futures, json, socket, sys
def reached(place):
    try:
        socket.create_connection(tuple(place), 1.5).close()
        return True
    except OSError:
        return False
places = json.loads(sys.argv[1])
with concurrent.futures.ThreadPoolExecutor(64) as pool:
    print(json.dumps(list(pool.map(reached, places))))
"""


@pytest.fixture(scope="module")
def reached(deployment: ComposeDeployment) -> dict[str, set[str]]:
    """Whom each service reaches: every other is tried, by name and by each of its addresses."""
    places = {
        service: [[host, _PORTS[service]] for host in (service, *deployment.addresses(service))]
        for service in _PORTS
    }

    def try_all(service: str) -> set[str]:
        tried = [(other, at) for other in _PORTS if other != service for at in places[other]]
        said = deployment.from_within(service, _TRY, json.dumps([at for _, at in tried]))
        return {other for (other, _), answer in zip(tried, said, strict=True) if answer}

    with ThreadPoolExecutor(len(SERVICES)) as pool:
        return dict(zip(SERVICES, pool.map(try_all, SERVICES), strict=True))


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.attack("identity headers")
def test_a_service_reaches_what_shares_its_network_and_nothing_else(
    reached: dict[str, set[str]], service: str
) -> None:
    """Each forbidden connection is tried, by name and by every address of the other."""
    assert reached[service] == _REACHES[service]


def test_the_edge_reaches_envoy_and_nothing_else(deployment: ComposeDeployment) -> None:
    """Whatever else is on the network that published ports come in by sees the gateway alone."""
    tried = [
        [host, _PORTS[service]]
        for service in _PORTS
        for host in (service, *deployment.addresses(service))
    ]
    answers = deployment.from_network("edge", _TRY, json.dumps(tried))
    reached = {str(place[0]) for place, answer in zip(tried, answers, strict=True) if answer}

    edge = deployment.state("envoy")["NetworkSettings"]["Networks"][f"{deployment.project}_edge"]
    assert reached == {"envoy", edge["IPAddress"]}


def test_three_networks_lead_out(deployment: ComposeDeployment) -> None:
    """The edge, where Envoy is alone, and those of the pages and of whoever tells people."""
    names = deployment.engine.run(
        *("network", "ls", "--format", "{{.Name}}"),
        *("--filter", f"label=com.docker.compose.project={deployment.project}"),
    ).split()
    networks = {each["Name"]: each for each in deployment.engine.inspect(*names)}
    leading = {name: each for name, each in networks.items() if not each["Internal"]}
    # Grafana's network is there where nobody uses it, too: a profile's.
    who = {name: list(each["Containers"]) for name, each in leading.items() if each["Containers"]}

    assert len(networks) > len(leading)
    assert who == {
        f"{deployment.project}_edge": [deployment.container("envoy")],
        f"{deployment.project}_out": [deployment.container("authz-pages")],
        f"{deployment.project}_alerts-out": [deployment.container("alertmanager")],
    }


def test_check_and_pages_are_on_no_network(deployment: ComposeDeployment) -> None:
    """Envoy asks over Unix sockets that only the three of them have."""
    listening = {
        name: deployment.from_within(name, _LISTENING) for name in ("authz", "authz-pages")
    }
    holders = [
        service
        for service in SERVICES
        if any(
            mount["Destination"] == "/run/authz" for mount in deployment.state(service)["Mounts"]
        )
    ]

    assert listening == {"authz": [9464], "authz-pages": [9465]}
    assert holders == ["envoy", "authz", "authz-pages"]


# Listening sockets of this network that are not of loopback or of Docker's own resolver.
_LISTENING: Final = """
import json
found = set()
for name in ("/proc/net/tcp", "/proc/net/tcp6"):
    for line in open(name).read().splitlines()[1:]:
        _, local, _, state = line.split()[:4]
        host, port = local.split(":")
        if state == "0A" and not host.endswith("7F"):
            found.add(int(port, 16))
print(json.dumps(sorted(found)))
"""


def test_published_is_the_gateway_alone(deployment: ComposeDeployment) -> None:
    """One port of the machine leads in, to Envoy, at the address that was asked for."""
    published = {
        service: deployment.state(service)["HostConfig"]["PortBindings"] for service in SERVICES
    }

    assert {service for service, ports in published.items() if ports} == {"envoy"}
    [(inner, [binding])] = published["envoy"].items()
    assert inner == "8443/tcp"
    assert binding == {"HostIp": "127.0.0.1", "HostPort": str(deployment.port)}
