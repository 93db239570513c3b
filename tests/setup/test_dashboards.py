"""The dashboards: what Grafana's files are like, and that queries ask for what there is."""

import json
import re
import shutil
import subprocess
from itertools import combinations
from pathlib import Path
from typing import Any, Final

import pytest

from authz.core.reason import Reason
from authz.setup.dashboards import DASHBOARDS, Dashboard, PanelKind, dashboard_json
from authz.telemetry.metrics import Metrics
from tests.setup.kit import copy_written

BY_NAME: Final = {each.name: each for each in DASHBOARDS}
# Envoy's, as 1.39.3 tells them at the socket of the gateway; Prometheus' own.
OTHERS: Final = frozenset({
    "ALERTS",
    "up",
    "envoy_cluster_upstream_cx_connect_fail",
    "envoy_cluster_upstream_rq_active",
    "envoy_cluster_upstream_rq_rx_reset",
    "envoy_cluster_upstream_rq_time_bucket",
    "envoy_cluster_upstream_rq_timeout",
    "envoy_cluster_upstream_rq_xx",
    "envoy_http_downstream_cx_active",
    "envoy_http_downstream_rq_xx",
    "envoy_http_local_rate_limit_rate_limited",
    "envoy_listener_ssl_certificate_expiration_unix_time_seconds",
    "envoy_server_memory_allocated",
})  # fmt: skip
_NAME: Final = re.compile(r"\b(?:up|ALERTS|(?:authz|envoy)_\w+)\b(?!\s*[=!]~?\")")
_LABEL: Final = re.compile(r'(\w+)(?:=~|!~|!=|=)"([^"]*)"')


def model(dashboard: Dashboard) -> Any:
    return json.loads(dashboard_json(dashboard))


def queries(dashboard: Dashboard) -> list[str]:
    return [query.expression for panel in dashboard.panels for query in panel.queries]


def metric_names() -> frozenset[str]:
    """Return the names of the series of a service."""
    found = set[str]()
    for metric in Metrics().registry.collect():
        found |= {f"{metric.name}{end}" for end in ("", "_total", "_bucket", "_count", "_sum")}
    return frozenset(found)


@pytest.mark.parametrize("name", BY_NAME)
def test_every_panel_has_its_place_and_its_words(name: str) -> None:
    """Numbers occur once, no two panels overlap, each says what it shows and where from."""
    panels = model(BY_NAME[name])["panels"]
    cells = [
        {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        for place in (panel["gridPos"] for panel in panels)
    ]

    assert len({panel["id"] for panel in panels}) == len(panels) > 5
    assert not any(one & other for one, other in combinations(cells, 2))
    assert max(x for each in cells for x, _ in each) < 24
    for panel in panels:
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["targets"]


@pytest.mark.parametrize("name", BY_NAME)
def test_queries_ask_for_what_there_is(name: str) -> None:
    """Every metric exists, and every reason that a query names is one."""
    known = metric_names() | OTHERS
    reasons = {each.label for each in Reason} | {"allowed"}

    for expression in queries(BY_NAME[name]):
        plain = re.sub(r"by \([^)]*\)|\{[^}]*\}", "", expression)
        named = set(_NAME.findall(plain))
        assert named
        assert named <= known, expression
        for label, value in _LABEL.findall(expression):
            if label == "reason":
                assert set(value.split("|")) <= reasons, expression


@pytest.mark.parametrize("name", BY_NAME)
def test_no_query_tells_people_apart(name: str) -> None:
    """What is grouped and shown are closed sets, the servers of the configuration among them."""
    allowed = {
        *("server", "reason", "step", "outcome", "change", "loss", "mode", "dependency", "le"),
        *("config", "job", "instance", "envoy_cluster_name", "envoy_response_code_class"),
        "envoy_local_http_ratelimit_prefix",
    }
    for expression in queries(BY_NAME[name]):
        for labels in re.findall(r"by \(([^)]*)\)", expression):
            assert {each.strip() for each in labels.split(",")} <= allowed, expression


@pytest.mark.parametrize("name", BY_NAME)
def test_prometheus_reads_every_query(name: str, tmp_path: Path) -> None:
    """Each is PromQL, judged by promtool as the expression of a rule."""
    if shutil.which("promtool") is None:
        pytest.skip("!!! NO promtool HERE (Debian: prometheus): THE QUERIES ARE NOT TESTED !!!")
    rules = [
        {"record": f"panel:{number}", "expr": plain(expression)}
        for number, expression in enumerate(queries(BY_NAME[name]))
    ]
    (tmp_path / "rules.json").write_text(json.dumps({"groups": [{"name": "a", "rules": rules}]}))

    done = subprocess.run(
        ["promtool", "check", "rules", "rules.json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr


def plain(expression: str) -> str:
    """Return a query as Prometheus reads it, without Grafana's variables."""
    for variable, value in (
        ("$__rate_interval", "5m"),
        ("$__range", "1h"),
        ("$server", ".+"),
    ):
        expression = expression.replace(variable, value)
    return expression


def test_a_bound_is_red_on_its_side() -> None:
    """Where little is bad the lowest color is red, where much is bad the highest one."""
    panels = {
        panel["title"]: panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
        for panel in model(BY_NAME["overview"])["panels"]
    }

    assert [each["color"] for each in panels["Certificate"]] == ["red", "yellow", "green"]
    assert [each["value"] for each in panels["Certificate"]] == [None, 3 * 86400, 14 * 86400]
    assert [each["color"] for each in panels["A decision takes"]] == ["green", "yellow", "red"]
    assert [each["color"] for each in panels["Parts that answer"]] == ["red", "green"]


def test_every_kind_of_panel_has_options() -> None:
    """Grafana gets what each kind needs; all kinds are in use."""
    used = {panel.kind for each in DASHBOARDS for panel in each.panels}

    assert used == set(PanelKind)
    for each in DASHBOARDS:
        assert all(panel["options"] for panel in model(each)["panels"])


def test_the_folder_has_them(tmp_path: Path) -> None:
    """`authz init` writes each, and where Grafana finds them and Prometheus."""
    copy_written(tmp_path)

    written = {path.stem for path in (tmp_path / "grafana/dashboards").iterdir()}

    assert written == BY_NAME.keys()
    for name, dashboard in BY_NAME.items():
        text = (tmp_path / f"grafana/dashboards/{name}.json").read_text("utf-8")
        assert text == dashboard_json(dashboard)
    assert {path.name for path in (tmp_path / "grafana/provisioning").rglob("*.yml")} == {
        "authz.yml",
        "prometheus.yml",
    }
    assert (tmp_path / "secrets/grafana_admin").stat().st_mode & 0o077 == 0


_OF_COUNTS = re.compile(r"\bincrease\(")
_OF_TIMES = re.compile(r"\bhistogram_quantile\(")


@pytest.mark.parametrize("name", BY_NAME)
def test_readers_keep_their_time_and_units_say_what_queries_do(name: str) -> None:
    """One way leads from each to the others with the time that is shown; all begin with the same
    span; a rate is a second's, a count has no unit, and a duration has that of its histogram.
    """
    found = model(BY_NAME[name])
    (link,) = found["links"]
    assert (link["type"], link["tags"], link["keepTime"]) == ("dashboards", ["authz"], True)
    assert found["tags"] == ["authz"]
    assert found["time"] == model(DASHBOARDS[0])["time"]
    for panel in found["panels"]:
        unit = panel["fieldConfig"]["defaults"]["unit"]
        for target in panel["targets"]:
            query = target["expr"]
            if _OF_TIMES.search(query):
                assert unit == ("ms" if "envoy_" in query else "s"), panel["title"]
            elif _OF_COUNTS.search(query):
                assert unit == "short", panel["title"]
            elif "rate(" in query and panel["type"] != PanelKind.HEATMAP.value:
                assert unit == ("percentunit" if " / " in query else "reqps"), panel["title"]
            # Over the whole time that is shown for one number, else over what a point stands for.
            counted = bool(_OF_COUNTS.search(query)) and panel["type"] == PanelKind.STAT.value
            assert ("$__range" in query.replace("$__rate", "")) is counted, panel["title"]
