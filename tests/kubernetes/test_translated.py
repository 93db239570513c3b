"""What Envoy Gateway's translator makes of the chart, in the real Envoy before the real check."""

import os
from collections.abc import Iterator

import pytest
from ruamel.yaml import YAML

from tests.envoy.live.test_envoy_gateway_live import GatewayPlane, running
from tests.kubernetes.manifests import manifests
from tests.kubernetes.translated import TRANSLATED, accepted, envoy, head, translate
from tests.support.values import call
from tools.chart import ENVOY_GATEWAY


@pytest.fixture(scope="module")
def plane() -> Iterator[GatewayPlane]:
    with running(TRANSLATED.read_text("utf-8")) as found:
        yield found


def test_it_is_of_this_chart() -> None:
    """By the translator where there is one; elsewhere by what it was told."""
    found = manifests(ENVOY_GATEWAY.file)
    text = TRANSLATED.read_text("utf-8")
    assert text.startswith(head(found)), "AUTHZ_EGCTL=egctl python -m tests.kubernetes.translated"
    if "AUTHZ_EGCTL" in os.environ:
        said = translate(found)
        assert accepted(said)
        assert YAML(typ="safe").load(text) == envoy(said)


def test_nothing_passes_without_authz() -> None:
    """No filter is told to pass a request that authz has not allowed, or a part of a body."""
    text = TRANSLATED.read_text("utf-8")
    config = YAML(typ="safe").load(text)
    (listener,) = config["staticResources"]["listeners"]
    (http,) = listener["defaultFilterChain"]["filters"]
    filters = [
        each["typedConfig"]
        for each in http["typedConfig"]["httpFilters"]
        if "ext_authz" in each["name"]
    ]
    assert filters
    for each in filters:
        assert each["withRequestBody"] == {"maxRequestBytes": 1048576, "packAsBytes": True}
        assert each["encodeRawHeaders"] is each["validateMutations"] is True
        assert each["statusOnError"] == {"code": "ServiceUnavailable"}
    for word in ("failureModeAllow", "failure_mode", "allowPartialMessage", "bootstrapMetadata"):
        assert word not in text
    (host,) = http["typedConfig"]["routeConfig"]["virtualHosts"]
    for route in host["routes"]:
        own = route.get("typedPerFilterConfig", {})
        server = route["match"].get("path", "").removeprefix("/")
        named = [each["checkSettings"]["contextExtensions"] for each in own.values()]
        assert named == ([{"server": server}] if server else [])


def test_the_real_check_decides(plane: GatewayPlane) -> None:
    """A tool that is allowed arrives, without the token; another one and a long body do not."""
    assert plane.send(call("read_note")) == 200
    (arrived,) = plane.arrived
    assert arrived.path == "/mcp"
    assert arrived.values("authorization") == []
    for body in (call("kill"), call("read_note").replace(b"note", b"n\xff")):
        plane.send(body)
        assert plane.arrived == []
    assert plane.send(call("read_" + "x" * (1 << 20))) == 413
    assert plane.arrived == []
    for path in ("/files/", "/team_notes", "/other"):
        plane.send(call("read_note"), path)
        assert plane.arrived == []


def test_without_authz_there_is_503() -> None:
    """Where nobody answers Check, nothing arrives."""
    with running(TRANSLATED.read_text("utf-8").replace("AUTHZ", "/nowhere")) as plane:
        assert plane.send(call("read_note")) == 503
        assert plane.arrived == []
