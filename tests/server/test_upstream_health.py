"""How upstreams are by Envoy's figures: read within bounds, judged by what is new."""

from pathlib import Path

import pytest

from authz.core.ledger import UnavailableError
from authz.ledger.activity import UpstreamState
from authz.server import upstream_health
from authz.server.upstream_health import UpstreamHealth
from tests.server.test_envoy_statistics import envoy
from tests.support import edge

TEXT = """
issuer: {url: https://auth.example.com, internal: http://authelia:9091, serve: true}
gateway: {url: https://mcp.example.com, tls: {certificate: /c, key: /k}}
front_door: {key_file: /run/secrets/front-door.pem}
servers:
  files: {upstream: http://files:8000/mcp}
  notes: {upstream: http://notes:8000/mcp}
"""


def told(tmp_path: Path, health: UpstreamHealth, *lines: str) -> dict[str, str]:
    body = "".join(f"cluster.{each}\n" for each in lines).encode()
    place = tmp_path / "stats"
    place.unlink(missing_ok=True)
    head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    with envoy(place, head + body) as asked:
        found = health.look(edge.settings(TEXT).config)
    assert asked[0].startswith(b"GET /stats?filter=")
    return {name: state.value for name, state in found.items()}


def test_an_upstream_is_away_until_a_connection_is_made(tmp_path: Path) -> None:
    """Old failures count no more once one was made; nothing tried says nothing; a restart of Envoy
    begins anew.
    """
    health = UpstreamHealth(str(tmp_path / "stats"))
    files, fails, none = (
        f"mcp_files.upstream_cx_{each}" for each in ("total", "connect_fail", "none_healthy")
    )
    for lines, state in (
        ((f"{files}: 0", f"{fails}: 0"), "unused"),
        ((f"{files}: 3", f"{fails}: 1"), "well"),
        ((f"{files}: 3", f"{fails}: 1"), "well"),
        ((f"{files}: 5", f"{fails}: 3"), "away"),
        ((f"{files}: 5", f"{fails}: 3"), "away"),
        ((f"{files}: 7", f"{fails}: 4"), "well"),
        ((f"{files}: 7", f"{fails}: 4", f"{none}: 1"), "away"),
        ((f"{files}: 0", f"{fails}: 0"), "unused"),
        ((f"{files}: 1", f"{fails}: 1"), "away"),
        (("mcp_files_2.upstream_cx_total: 9", "x", f"{files}: 9" * 40, f"{files}: -1"), "away"),
    ):
        found = told(tmp_path, health, *lines)
        assert found == {
            "server files": state, "server notes": "unused", "issuer's portal": "unused",
        }  # fmt: skip
    assert {each.value for each in UpstreamState} == {"well", "away", "unused"}


def test_an_envoy_that_does_not_answer_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Away, refusing, or without an end: bounded, and nothing is said of the upstreams."""
    config, place = edge.settings(TEXT).config, tmp_path / "stats"
    health = UpstreamHealth(str(place))
    with pytest.raises(UnavailableError):
        health.look(config)
    refuses = b"HTTP/1.1 403 no\r\ncontent-length: 0\r\n\r\n"
    with envoy(place, refuses), pytest.raises(UnavailableError):
        health.look(config)
    monkeypatch.setattr(upstream_health, "_LONGEST", 4096)
    place.unlink()
    endless = b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 1000
    with envoy(place, *endless, again=True), pytest.raises(UnavailableError):
        health.look(config)
