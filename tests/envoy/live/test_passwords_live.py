"""How many passwords one address tries at the issuer's portal, through a real Envoy of its own.

Whoever tries passwords takes from the bucket of one address (IPv6: of one /64), whatever
the path and whatever the issuer answers; nothing but passwords is taken from it.
"""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from authz.config.endpoints import Tcp, Unix
from authz.envoy.render import Topology, render
from tests.support import edge
from tests.support.envoy import running_envoy
from tests.support.gateway import GATEWAY, GOOD, PORTAL
from tests.support.wild_client import WildAnswer, WildClient

QUOTA = 3
SETTINGS = """
issuer: {url: https://auth.example.test, internal: 'http://issuer:9091', serve: true}
gateway:
  url: https://mcp.example.test
  listen: 127.0.0.1:0
  trusted_hops: 1
  address_passwords: 3/minute
servers: {files: {upstream: http://files:8000/mcp}}
"""
TRIES = (
    "/api/firstfactor", "/api/firstfactor/reauthenticate", "/api/secondfactor/password",
    "/api/change-password", "/api/reset-password/otp", "/api/verify", "/api/authz/auth-request",
    "/api/authz/ext-authz//files", "/api/firstfactor?x", "//api/firstfactor", "/api/./firstfactor",
    "/api/%66irstfactor",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class PasswordSite:
    """Hold the issuer behind Envoy, and a client of a proxy in front that says addresses."""

    issuer: edge.EdgeUpstream
    client: WildClient

    def knock(self, address: str, path: str = TRIES[0], host: str = PORTAL) -> WildAnswer:
        """POST from an address."""
        return self.client("POST", path, GOOD, ("X-Forwarded-For", address), body=b"{}", host=host)


@pytest.fixture(scope="module")
def site() -> Iterator[PasswordSite]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="e")))
        issuer, issuer_port = stack.enter_context(edge.upstream(("127.0.0.1", 0)))
        _, port = stack.enter_context(edge.upstream(("127.0.0.1", 0)))
        where = Topology(
            authz=(Unix(f"{folder}/check"),),
            admin=f"{folder}/admin",
            folder=str(folder),
            upstreams={"files": Tcp("127.0.0.1", port)},
            issuer=Tcp("127.0.0.1", issuer_port),
        )
        stack.enter_context(edge.authz(f"unix:{folder}/check"))
        rendered = render(edge.patient_settings(SETTINGS), where)
        envoy = stack.enter_context(running_envoy(rendered, folder, folder / "admin"))
        envoy.wait_for("cluster.authz.membership_healthy", 1)
        yield PasswordSite(issuer, WildClient(envoy.port("gateway"), GATEWAY))


@pytest.mark.attack("password-guessing")
@pytest.mark.parametrize("path", TRIES)
def test_an_address_tries_few_passwords(site: PasswordSite, path: str) -> None:
    """Past its quota 429 with Retry-After, of which the issuer hears nothing; on every path where a
    password is taken, in every spelling. Another address tries its own.
    """
    stranger = f"192.0.2.{TRIES.index(path)}"
    tried = [site.knock(stranger).status for _ in range(QUOTA)]
    site.issuer.arrived.clear()
    refused = site.knock(stranger, path)

    assert tried == [200] * QUOTA
    assert (refused.status, refused.header("retry-after")) == (429, "20")
    assert (refused.header("content-type") or "").startswith("text/plain")
    assert site.issuer.arrived == []
    assert site.knock(f"198.51.100.{TRIES.index(path)}", path).status == 200


@pytest.mark.attack("password-guessing")
def test_paths_share_the_bucket_of_an_address(site: PasswordSite) -> None:
    """Who turns from one path to the other has no more tries."""
    stranger = "203.0.113.1"
    answers = [site.knock(stranger, path).status for path in TRIES[: QUOTA + 1]]

    assert answers == [200] * QUOTA + [429]


@pytest.mark.attack("password-guessing")
def test_the_addresses_of_a_64_share_a_bucket(site: PasswordSite) -> None:
    """Authelia's own ban is for one address of IPv6, of which everybody has 2^64."""
    answers = [site.knock(f"2001:db8:0:1::{last}").status for last in range(QUOTA + 1)]

    assert answers == [200] * QUOTA + [429]
    assert site.knock("2001:db8:0:2::1").status == 200


def test_only_passwords_are_counted(site: PasswordSite) -> None:
    """Who has no tries left has the portal's pages, its one-time codes and the MCP servers."""
    stranger = "203.0.113.2"
    for _ in range(QUOTA + 1):
        last = site.knock(stranger)
    paths = ("/", "/static/js/index.js", "/api/state", "/api/secondfactor/totp")
    pages = {site.knock(stranger, path).status for path in paths * QUOTA}

    assert last.status == 429
    assert pages == {200}
    assert site.knock(stranger, "/files", GATEWAY).status == 200


def test_pages_take_no_tries(site: PasswordSite) -> None:
    """A page that loads fifty files leaves all tries to its person."""
    person = "203.0.113.3"
    for _ in range(50):
        site.knock(person, "/static/js/index.js")
    answers = [site.knock(person).status for _ in range(QUOTA)]

    assert answers == [200] * QUOTA
