"""The Grafana dashboards of a deployment, from a table of panels.

No panel tells one person from another: metrics have no labels that a caller chose.

Invariant: every metric that a query names is one that authz, Envoy or Prometheus has, and every
query has an answer after a call, a refusal and a log-in (tests/setup/test_dashboards.py,
tests/compose/test_dashboards.py).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

# Of Grafana's dashboard JSON ("Dashboard JSON model"); later releases read it and migrate.
_SCHEMA_VERSION: Final = 41
_WIDTH: Final = 24  # columns of a row
_DATASOURCE: Final[Mapping[str, str]] = {"type": "prometheus", "uid": "${datasource}"}
TAG: Final = "authz"


class PanelKind(StrEnum):
    """Name the panels of Grafana that are used, in its own words."""

    STAT = "stat"
    TABLE = "table"
    GRAPH = "timeseries"
    HEATMAP = "heatmap"
    STATES = "state-timeline"


class Unit(StrEnum):
    """Name the units that are used, in Grafana's own words."""

    NUMBER = "short"
    PER_SECOND = "reqps"
    SHARE = "percentunit"
    SECONDS = "s"
    MILLISECONDS = "ms"
    BYTES = "bytes"


@dataclass(frozen=True, slots=True)
class PanelQuery:
    """Hold one query of a panel.

    Attributes:
        expression: PromQL, with Grafana's `$__rate_interval`, `$__range` and variables.
        legend: how its series are named.
        instant: whether only the newest value counts.
    """

    expression: str
    legend: str = ""
    instant: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    """Hold one panel.

    Attributes:
        title, description: for people.
        kind: how it is drawn.
        queries: what it shows.
        unit: of its values.
        columns: how wide it is, of 24.
        rows: how high it is; one row is 30 pixels.
        warn, alarm: values from which on it is yellow, and red; None for neither.
        worst_is_low: whether it is red below them instead.
        stacked: whether series are drawn on top of one another.
    """

    title: str
    description: str
    kind: PanelKind
    queries: tuple[PanelQuery, ...]
    unit: Unit = Unit.NUMBER
    columns: int = 12
    rows: int = 8
    warn: float | None = None
    alarm: float | None = None
    worst_is_low: bool = False
    stacked: bool = False


@dataclass(frozen=True, slots=True)
class Dashboard:
    """Hold one dashboard.

    Attributes:
        name: of its file, and in its address.
        title, description: for people.
        panels: in reading order.
        by_server: whether the reader chooses MCP servers (`$server`).
    """

    name: str
    title: str
    description: str
    panels: tuple[Panel, ...]
    by_server: bool = False


def _stat(
    title: str,
    description: str,
    expression: str,
    *,
    unit: Unit = Unit.NUMBER,
    warn: float | None = None,
    alarm: float | None = None,
    worst_is_low: bool = False,
) -> Panel:
    query = PanelQuery(expression, title, instant=True)
    return Panel(
        title, description, PanelKind.STAT, (query,), unit, 4, 4, warn, alarm, worst_is_low
    )


def _graph(
    title: str,
    description: str,
    *queries: tuple[str, str],
    unit: Unit = Unit.NUMBER,
    columns: int = 12,
    stacked: bool = False,
) -> Panel:
    asked = tuple(PanelQuery(expression, legend) for expression, legend in queries)
    return Panel(title, description, PanelKind.GRAPH, asked, unit, columns, stacked=stacked)


def _table(title: str, description: str, expression: str, *, columns: int = 12) -> Panel:
    query = PanelQuery(expression, instant=True)
    return Panel(title, description, PanelKind.TABLE, (query,), columns=columns)


def _rate(selector: str, by: str = "") -> str:
    return f"sum{f' by ({by})' if by else ''} (rate({selector}[$__rate_interval]))"


def _count(selector: str, by: str = "") -> str:
    return f"sum{f' by ({by})' if by else ''} (increase({selector}[$__rate_interval]))"


def _quantile(quantile: float, histogram: str) -> str:
    return f"histogram_quantile({quantile}, {_rate(f'{histogram}_bucket', 'le')})"


def _refused(*reasons: str) -> str:
    return f'authz_refusals_total{{reason=~"{"|".join(reasons)}"}}'


_SERVER: Final = 'server=~"$server"'
_CLUSTER: Final = 'envoy_cluster_name=~"mcp_$server"'
_KNOWN_TOKENS: Final = 'authz_token_cache_total{outcome="hit"}'
_TOOL_CHANGES: Final = f"authz_tool_changes_total{{{_SERVER}}}"
_DECISIONS: Final = "authz_decisions_total"
_REFUSALS: Final = "authz_refusals_total"
_CHECKS: Final = "authz_check_duration_seconds"
_FORGED: Final = ("token_invalid", "token_malformed", "token_wrong_kind", "token_opaque")
_FOREIGN: Final = ("audience_mismatch", "foreign_client", "session_of_another", "foreign_origin")
_FACTOR: Final = ("second_factor_required", "login_too_old")
_APPROVAL: Final = ("approval_required", "approval_declined", "approval_impossible")
_LIMITS: Final = ("rate_limited", "too_many_refusals", "too_many_streams")
_NOT_ALLOWED: Final = (
    *("client_not_allowed", "machine_not_allowed", "person_not_allowed", "insufficient_scope"),
    *("tool_not_allowed", "prompt_not_allowed", "resource_not_allowed", "arguments_not_allowed"),
)

_OVERVIEW: Final = Dashboard(
    "overview",
    "authz: overview",
    "Is everything there, who is served, who is refused.",
    (
        _stat(
            "Parts that answer",
            "The lowest of all scraped parts: 0 where one of them does not answer.",
            "min(up)",
            alarm=1,
            worst_is_low=True,
        ),
        _stat(
            "Alerts", "That fire now.", 'count(ALERTS{alertstate="firing"}) or vector(0)', warn=1
        ),
        _stat(
            "Decisions",
            "A second, of all servers.",
            _rate("authz_decisions_total"),
            unit=Unit.PER_SECOND,
        ),
        _stat(
            "Refused",
            "Which share of the decisions were refusals.",
            f"{_rate(_REFUSALS)} / ({_rate(_DECISIONS)} > 0) or vector(0)",
            unit=Unit.SHARE,
        ),
        _stat(
            "A decision takes",
            "The time below which 99 of 100 decisions stay.",
            _quantile(0.99, _CHECKS),
            unit=Unit.SECONDS,
            warn=0.05,
            alarm=0.2,
        ),
        _stat(
            "Certificate",
            "Until the first certificate of Envoy's listeners ends.",
            "min(envoy_listener_ssl_certificate_expiration_unix_time_seconds) - time()",
            unit=Unit.SECONDS,
            warn=14 * 86400,
            alarm=3 * 86400,
            worst_is_low=True,
        ),
        _graph(
            "Decisions by server",
            "Allowed and refused together; `-` is an address without a server.",
            (_rate("authz_decisions_total", "server"), "{{server}}"),
            unit=Unit.PER_SECOND,
            stacked=True,
        ),
        _graph(
            "Refusals by reason",
            "What each reason means and what to do: docs/reasons.md.",
            (f"{_rate('authz_refusals_total', 'reason')} > 0 or vector(0)", "{{reason}}"),
            unit=Unit.PER_SECOND,
            stacked=True,
        ),
        _graph(
            "Log-ins",
            "Steps at the front door that succeeded.",
            (_count('authz_log_ins_total{outcome="ok"}', "step"), "{{step}}"),
        ),
        _graph(
            "What Envoy answered",
            "By class of status; a refusal of an operation may have status 200.",
            (
                _rate(
                    'envoy_http_downstream_rq_xx{envoy_http_conn_manager_prefix="gateway"}',
                    "envoy_response_code_class",
                ),
                "{{envoy_response_code_class}}xx",
            ),
            unit=Unit.PER_SECOND,
            stacked=True,
        ),
        _table(
            "Parts",
            "1 for what Prometheus reaches.",
            "min by (job, instance) (up)",
        ),
        _table(
            "Configuration in force",
            "Its digest, as `authz status` says it; two at once: processes that differ.",
            "count by (config, job) (authz_config_info)",
        ),
    ),
)

_SERVERS: Final = Dashboard(
    "server",
    "authz: MCP server",
    "What one server is asked, and how it answers.",
    (
        _graph(
            "Decisions by reason",
            "`allowed`, or why not (docs/reasons.md).",
            (
                _rate(f"authz_decisions_total{{{_SERVER}}}", "server, reason"),
                "{{server}} {{reason}}",
            ),
            unit=Unit.PER_SECOND,
            stacked=True,
            columns=24,
        ),
        _graph(
            "What the server answered",
            "By class of status, as Envoy got it.",
            (
                _rate(
                    f"envoy_cluster_upstream_rq_xx{{{_CLUSTER}}}",
                    "envoy_cluster_name, envoy_response_code_class",
                ),
                "{{envoy_cluster_name}} {{envoy_response_code_class}}xx",
            ),
            unit=Unit.PER_SECOND,
            stacked=True,
        ),
        _graph(
            "How long it took",
            "From the request to the end of the answer, streams too: half of them, and 95 of 100.",
            *(
                (
                    f"histogram_quantile({quantile}, "
                    + _rate(
                        f"envoy_cluster_upstream_rq_time_bucket{{{_CLUSTER}}}",
                        "le, envoy_cluster_name",
                    )
                    + ")",
                    f"{{{{envoy_cluster_name}}}} {words}",
                )
                for quantile, words in ((0.5, "half"), (0.95, "95 of 100"))
            ),
            unit=Unit.MILLISECONDS,
        ),
        _graph(
            "Open requests and streams",
            "That wait for the server, or listen to it.",
            (
                f"sum by (envoy_cluster_name) (envoy_cluster_upstream_rq_active{{{_CLUSTER}}})",
                "{{envoy_cluster_name}}",
            ),
        ),
        _graph(
            "Failures",
            "Connections that failed, answers that broke off, requests that waited in vain.",
            *(
                (
                    _count(f"envoy_cluster_upstream_{name}{{{_CLUSTER}}}", "envoy_cluster_name"),
                    f"{{{{envoy_cluster_name}}}} {words}",
                )
                for name, words in (
                    ("cx_connect_fail", "no connection"),
                    ("rq_rx_reset", "broken off"),
                    ("rq_timeout", "timeout"),
                )
            ),
        ),
        _graph(
            "Lists",
            "That were filtered for who asked, and why others were not shown (`list_not_shown`).",
            (
                f"{_count(f'authz_lists_total{{{_SERVER}}}', 'server, outcome')} or vector(0)",
                "{{server}} {{outcome}}",
            ),
        ),
        _graph(
            "Changes of tools",
            "What the server says of its tools, where it changes or is not as it was approved.",
            (
                f"{_count(_TOOL_CHANGES, 'server, change')} or vector(0)",
                "{{server}} {{change}}",
            ),
        ),
    ),
    by_server=True,
)

_SECURITY: Final = Dashboard(
    "security",
    "authz: security",
    "What was refused for whose sake; the log and `authz audit` say to whom.",
    (
        *(
            _stat(
                title,
                f"Refusals in the time that is shown: {', '.join(reasons)}.",
                f"sum(increase({_refused(*reasons)}[$__range]))",
                warn=warn,
            )
            for title, reasons, warn in (
                ("Not our tokens", _FORGED, 100),
                ("Of something else", _FOREIGN, 1),
                ("Revoked", ("token_revoked",), None),
                ("Second factor", _FACTOR, None),
                ("Approval", _APPROVAL, None),
                ("Limits", _LIMITS, None),
            )
        ),
        _graph(
            "Tokens that were refused",
            "A burst of `token_invalid` is somebody who tries, or a key that changed.",
            (
                _count(_refused(*_FORGED, "token_expired", "token_revoked"), "reason"),
                "{{reason}}",
            ),
        ),
        _graph(
            "Of another server, client, person or site",
            "A token for another server, a session of another person, a web page elsewhere.",
            (_count(_refused(*_FOREIGN), "reason"), "{{reason}}"),
        ),
        _graph(
            "Rules that refused",
            "Who or what is not allowed.",
            (_count(_refused(*_NOT_ALLOWED), "reason"), "{{reason}}"),
        ),
        _graph(
            "Second factor and approvals",
            "What waited for a person.",
            (_count(_refused(*_FACTOR, *_APPROVAL), "reason"), "{{reason}}"),
        ),
        _graph(
            "Log-ins that failed",
            "By step of the front door and why.",
            (
                _count('authz_log_ins_total{outcome!~"ok|reused"}', "step, outcome"),
                "{{step}} {{outcome}}",
            ),
        ),
        _graph(
            "Limits",
            "Of people and clients, of refusals by address, of open streams; and by Envoy itself.",
            (_count(_refused(*_LIMITS), "reason"), "{{reason}}"),
            (
                _count(
                    "envoy_http_local_rate_limit_rate_limited", "envoy_local_http_ratelimit_prefix"
                ),
                "Envoy {{envoy_local_http_ratelimit_prefix}}",
            ),
        ),
        _graph(
            "Tools that are not as approved",
            "A server that says something else of a tool than what was approved.",
            (
                _count('authz_tool_changes_total{change=~"not_approved|changed"}', "server, change")
                + " or vector(0)",
                "{{server}} {{change}}",
            ),
        ),
        _graph(
            "Audit records",
            "Written, and lost (Redis was away for too long).",
            (_count("authz_audit_records_total", "outcome"), "{{outcome}}"),
        ),
        _graph(
            "Ends of log-ins that Authelia has not confirmed",
            "Revoked here at once; Authelia is told as soon as it answers.",
            ("max(authz_revocations_waiting)", "waiting"),
        ),
        _graph(
            "Data that Redis lost",
            "It came back empty, or with an older copy: revocations are written back.",
            (_count("authz_redis_data_losses_total", "loss"), "{{loss}}"),
        ),
    ),
)

_PERFORMANCE: Final = Dashboard(
    "performance",
    "authz: performance",
    "How long decisions take, and what they wait for.",
    (
        _graph(
            "A decision takes",
            "From CheckRequest to CheckResponse.",
            *(
                (_quantile(quantile, _CHECKS), words)
                for quantile, words in (
                    (0.5, "half"),
                    (0.95, "95 of 100"),
                    (0.99, "99 of 100"),
                )
            ),
            unit=Unit.SECONDS,
        ),
        Panel(
            "How decisions are spread",
            "Decisions by how long they took.",
            PanelKind.HEATMAP,
            (PanelQuery(_rate(f"{_CHECKS}_bucket", "le"), "{{le}}"),),
            Unit.SECONDS,
        ),
        _graph(
            "Decisions",
            "A second.",
            (_rate(f"{_CHECKS}_count"), "decisions"),
            unit=Unit.PER_SECOND,
        ),
        _graph(
            "Under way",
            "Checks that wait for something.",
            ("sum(authz_checks_in_flight)", "checks"),
        ),
        _graph(
            "One charge in Redis",
            "Which each worker tries once a second.",
            *(
                (_quantile(quantile, "authz_redis_probe_seconds"), words)
                for quantile, words in ((0.5, "half"), (0.99, "99 of 100"))
            ),
            unit=Unit.SECONDS,
        ),
        Panel(
            "Who counts limits",
            "`redis`; `local`: Redis is away, each worker counts for itself (docs/ledger.md).",
            PanelKind.STATES,
            (PanelQuery("max by (mode) (authz_limiter_mode)", "{{mode}}"),),
        ),
        _graph(
            "Tokens that were known",
            "Which share of the tokens needed no signature to be checked.",
            (
                f"{_rate(_KNOWN_TOKENS)} / ({_rate('authz_token_cache_total')} > 0)",
                "known",
            ),
            unit=Unit.SHARE,
        ),
        _graph(
            "Questions to the issuer about opaque tokens",
            "Of direct clients; none where only the front door is used.",
            (f"{_rate('authz_introspections_total', 'outcome')} or vector(0)", "{{outcome}}"),
            unit=Unit.PER_SECOND,
        ),
        _graph(
            "Failed dependencies",
            "`authz` is a defect of ours: see the event `crash`.",
            (_count("authz_dependency_errors_total", "dependency"), "{{dependency}}"),
        ),
        _graph(
            "Envoy asks authz",
            "How long Envoy waits for a decision, its queue included.",
            *(
                (
                    f"histogram_quantile({quantile}, "
                    + _rate(
                        'envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name="authz"}', "le"
                    )
                    + ")",
                    words,
                )
                for quantile, words in ((0.5, "half"), (0.99, "99 of 100"))
            ),
            unit=Unit.MILLISECONDS,
        ),
        _graph(
            "Memory of Envoy",
            "Allocated; at its bound Envoy sheds the largest streams first.",
            ("max(envoy_server_memory_allocated)", "allocated"),
            unit=Unit.BYTES,
        ),
        _graph(
            "Connections at the gateway",
            "Open ones.",
            (
                'sum(envoy_http_downstream_cx_active{envoy_http_conn_manager_prefix="gateway"})',
                "open",
            ),
        ),
        _graph(
            "Workers that were started again",
            "They died, or hung and were killed.",
            (_count("authz_worker_restarts_total"), "restarts"),
        ),
        _graph(
            "Lines of the log that were lost",
            "The reader of standard output had stopped: decisions do not wait for it.",
            ("sum(authz_log_lines_lost)", "lines"),
        ),
    ),
)

DASHBOARDS: Final[Sequence[Dashboard]] = (_OVERVIEW, _SERVERS, _SECURITY, _PERFORMANCE)


def dashboard_json(dashboard: Dashboard) -> str:
    """Return a dashboard as Grafana's file provisioning reads it."""
    value = {
        "uid": f"{TAG}-{dashboard.name}",
        "title": dashboard.title,
        "description": dashboard.description,
        "tags": [TAG],
        "schemaVersion": _SCHEMA_VERSION,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "links": [
            {
                "type": "dashboards",
                "title": "authz",
                "tags": [TAG],
                "asDropdown": True,
                "includeVars": False,
                "keepTime": True,
            }
        ],
        "templating": {"list": _variables(dashboard)},
        "panels": _placed(dashboard.panels),
    }
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def _variables(dashboard: Dashboard) -> list[object]:
    chosen: list[object] = [
        {
            "name": "datasource",
            "label": "Data source",
            "type": "datasource",
            "query": "prometheus",
            "current": {},
            "hide": 0,
        }
    ]
    if dashboard.by_server:
        chosen.append(
            {
                "name": "server",
                "label": "Server",
                "type": "query",
                "datasource": _DATASOURCE,
                "query": 'label_values(authz_decisions_total{server!="-"}, server)',
                "refresh": 2,  # on a change of the time that is shown
                "multi": True,
                "includeAll": True,
                "allValue": ".+",
                "current": {},
                "sort": 1,
            }
        )
    return chosen


def _placed(panels: Sequence[Panel]) -> list[object]:
    """Return the panels one after the other, line by line."""
    placed, x, y, height = list[object](), 0, 0, 0
    for number, panel in enumerate(panels, 1):
        if x + panel.columns > _WIDTH:
            x, y, height = 0, y + height, 0
        place = {"x": x, "y": y, "w": panel.columns, "h": panel.rows}
        placed.append({"id": number, "gridPos": place, **_panel(panel)})
        x, height = x + panel.columns, max(height, panel.rows)
    return placed


def _panel(panel: Panel) -> Mapping[str, object]:
    return {
        "type": panel.kind.value,
        "title": panel.title,
        "description": panel.description,
        "datasource": _DATASOURCE,
        "targets": [
            {
                "refId": chr(ord("A") + number),
                "datasource": _DATASOURCE,
                "expr": query.expression,
                "legendFormat": query.legend or "__auto",
                "instant": query.instant,
                "range": not query.instant,
                **_FORMATS.get(panel.kind, {}),
            }
            for number, query in enumerate(panel.queries)
        ],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": _OPTIONS[panel.kind],
    }


_FORMATS: Final[Mapping[PanelKind, Mapping[str, str]]] = {
    PanelKind.TABLE: {"format": "table"},
    PanelKind.HEATMAP: {"format": "heatmap"},
}
_OPTIONS: Final[Mapping[PanelKind, Mapping[str, object]]] = {
    PanelKind.STAT: {
        "colorMode": "value",
        "graphMode": "none",
        "reduceOptions": {"calcs": ["lastNotNull"]},
    },
    PanelKind.TABLE: {"showHeader": True},
    PanelKind.GRAPH: {
        "legend": {"displayMode": "list", "placement": "bottom"},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    PanelKind.HEATMAP: {
        "calculate": False,
        "yAxis": {"unit": "s"},
        "color": {"mode": "scheme", "scheme": "Oranges"},
    },
    PanelKind.STATES: {"showValue": "never", "mergeValues": True},
}


def _defaults(panel: Panel) -> Mapping[str, object]:
    drawn: dict[str, object] = {"unit": panel.unit.value, "thresholds": _thresholds(panel)}
    if panel.kind is PanelKind.GRAPH:
        drawn["min"] = 0
        drawn["custom"] = {
            "fillOpacity": 20 if panel.stacked else 0,
            "stacking": {"mode": "normal" if panel.stacked else "none"},
            "showPoints": "never",
        }
    if panel.kind is PanelKind.STATES:
        drawn["thresholds"] = _steps("transparent", (1, "blue"))
    return drawn


def _thresholds(panel: Panel) -> Mapping[str, object]:
    bounds = [(panel.warn, "yellow"), (panel.alarm, "red")]
    known = [(value, color) for value, color in bounds if value is not None]
    if not panel.worst_is_low:
        return _steps("green" if known else "text", *known)
    # Grafana's colors hold from a value on: each bound begins the color above it.
    colors = [color for _, color in reversed(known)]
    values = [value for value, _ in reversed(known)]
    return _steps(colors[0], *zip(values, [*colors[1:], "green"], strict=True))


def _steps(base: str, *above: tuple[float, str]) -> Mapping[str, object]:
    steps = [{"value": None, "color": base}]
    return {
        "mode": "absolute",
        "steps": [*steps, *({"value": value, "color": color} for value, color in above)],
    }
