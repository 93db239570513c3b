"""Who reaches whom, tried from inside: every connection that is not in the table fails."""

import json
from collections.abc import Mapping
from typing import Final

import pytest

from tests.compose.deployment import SERVICES, Deployment

# Where each service listens, the only way to each of them.
_PORTS: Final[Mapping[str, int]] = {
    "envoy": 8443,
    "authz": 9464,
    "authelia": 9091,
    "redis": 6379,
    "prometheus": 9090,
    "notes": 8000,
    "files": 8000,
}
# From whom to whom: what shares a network. All else must fail, by name and by every address.
_REACHES: Final[Mapping[str, frozenset[str]]] = {
    "envoy": frozenset({"authz", "authelia", "notes", "files"}),
    "authz": frozenset({"envoy", "authelia", "redis", "prometheus"}),
    "authelia": frozenset({"envoy", "authz", "redis"}),
    "redis": frozenset({"authz", "authelia"}),
    "prometheus": frozenset({"authz"}),
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
# An address of nobody (RFC 5737): where there is a way out it does not answer, else there is none.
_OUT: Final = """
import errno, json, socket
try:
    socket.create_connection(("192.0.2.1", 9), 1)
    print('"reached"')
except OSError as error:
    print(json.dumps(errno.errorcode.get(error.errno, "time-out")))
"""


def _reached(deployment: Deployment, tried: list[list[object]], answers: list[bool]) -> set[str]:
    return {str(place[0]) for place, reached in zip(tried, answers, strict=True) if reached}


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.attack("identity headers")
def test_a_service_reaches_what_shares_its_network_and_nothing_else(
    deployment: Deployment, service: str
) -> None:
    """Each forbidden connection is tried, by name and by every address of the other."""
    others = [each for each in SERVICES if each != service]
    tried: list[list[object]] = []
    owners: list[str] = []
    for other in others:
        for host in (other, *deployment.addresses(other)):
            tried.append([host, _PORTS[other]])
            owners.append(other)

    answers = deployment.from_within(service, _TRY, json.dumps(tried))
    reached = {owner for owner, answer in zip(owners, answers, strict=True) if answer}

    assert reached == _REACHES[service]


def test_the_edge_reaches_envoy_and_nothing_else(deployment: Deployment) -> None:
    """Whatever else is on the network that published ports come in by sees the gateway alone."""
    tried = [
        [host, _PORTS[service]]
        for service in SERVICES
        for host in (service, *deployment.addresses(service))
    ]
    answers = deployment.from_network("edge", _TRY, json.dumps(tried))
    reached = {str(place[0]) for place, answer in zip(tried, answers, strict=True) if answer}

    edge = deployment.state("envoy")["NetworkSettings"]["Networks"][f"{deployment.project}_edge"]
    assert reached == {"envoy", edge["IPAddress"]}


@pytest.mark.parametrize("service", [each for each in SERVICES if each != "envoy"])
def test_nobody_but_envoy_has_a_way_out(deployment: Deployment, service: str) -> None:
    """The networks of the others lead nowhere: there is no route."""
    assert deployment.from_within(service, _OUT) == "ENETUNREACH"


def test_check_is_on_no_network(deployment: Deployment) -> None:
    """Envoy asks over a Unix socket that only the two of them have."""
    listening = deployment.from_within("authz", _LISTENING)
    holders = [
        service
        for service in SERVICES
        if any(
            mount["Destination"] == "/run/authz" for mount in deployment.state(service)["Mounts"]
        )
    ]

    assert listening == [9464]
    assert holders == ["envoy", "authz"]


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


def test_published_is_the_gateway_alone(deployment: Deployment) -> None:
    """One port of the machine leads in, to Envoy, at the address that was asked for."""
    published = {
        service: deployment.state(service)["HostConfig"]["PortBindings"] for service in SERVICES
    }

    assert {service for service, ports in published.items() if ports} == {"envoy"}
    [(inner, [binding])] = published["envoy"].items()
    assert inner == "8443/tcp"
    assert binding == {"HostIp": "127.0.0.1", "HostPort": str(deployment.port)}
