"""A proxy that writes `address:port` into X-Forwarded-For, through the real Envoy and the doctor.

Such a value is nobody's address; it fails to the documented side, the proxy's own address.
"""

from collections.abc import Iterator

import pytest

from authz.doctor import envoy
from tests.support.gateway import GOOD, Gateway, running_gateway

PEER = "127.0.0.1"


@pytest.fixture(scope="module", params=[1, 2, 8])
def behind(request: pytest.FixtureRequest) -> Iterator[tuple[Gateway, int]]:
    """Run a gateway behind one proxy, or two."""
    with running_gateway(gateway=f"  trusted_hops: {request.param}\n") as gateway:
        yield gateway, request.param


def counted(gateway: Gateway) -> int:
    return gateway.envoy.stat("http.gateway.rbac.forwarded_with_port.shadow_allowed")


@pytest.mark.attack("forwarded-with-port")
@pytest.mark.parametrize(
    ("entry", "address", "is_counted"),
    [
        ("203.0.113.7", "203.0.113.7", False),
        ("203.0.113.7:51234", PEER, True),
        ("[2001:db8::7]:443", PEER, True),
        ("2001:db8::7", "2001:db8::7", False),
        # What a client wrote itself stands before what its proxy added, and tells nothing.
        ("198.51.100.1:1, 203.0.113.7", "203.0.113.7", False),
        ("198.51.100.1, 203.0.113.7:51234", PEER, True),
        ("nonsense:1", PEER, False),
    ],
)
def test_an_address_with_a_port_is_the_proxys_own(
    behind: tuple[Gateway, int], entry: str, address: str, is_counted: bool
) -> None:
    """Envoy, its bounds by address and authz take the proxy's address; the counter tells it."""
    gateway, hops = behind
    gateway.forget()
    before = counted(gateway)
    value = ", ".join([entry, *["10.0.0.9"] * (hops - 1)])
    with gateway.logged() as entries:
        answer = gateway.send("POST", "/files", GOOD, ("X-Forwarded-For", value), body=b"{}")

    assert answer.status == 200
    (line,) = entries
    assert line["address"] == address
    assert gateway.authz.last.headers["x-envoy-external-address"] == address
    assert counted(gateway) == before + is_counted


def test_the_doctor_says_what_to_set(behind: tuple[Gateway, int]) -> None:
    """As soon as there was one such request, by Envoy's own counter."""
    gateway, hops = behind
    value = ", ".join(["203.0.113.7:51234", *["10.0.0.9"] * (hops - 1)])
    gateway.send("POST", "/files", GOOD, ("X-Forwarded-For", value), body=b"{}")
    found = list(envoy._forwarded(gateway.envoy.admin))

    assert [each.diagnosis for each in found] == ["forwarded_with_port"]
    assert "X-Forwarded-For" in found[0].fix


def test_without_a_proxy_nothing_is_counted_or_said(gateway: Gateway) -> None:
    """The header is nobody's then, whatever a client writes into it."""
    gateway.send("POST", "/files", GOOD, ("X-Forwarded-For", "203.0.113.7:1"), body=b"{}")

    assert "forwarded_with_port" not in gateway.envoy.ask("/stats?filter=rbac")
    assert list(envoy._forwarded(gateway.envoy.admin)) == []
