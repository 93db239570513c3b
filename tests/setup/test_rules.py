"""The alerts of a deployment: each fires, on the first day too, and none fires where all is well.

The series are those of a service that has just started (`Metrics`), so a rule that counts what is
not there at the start fails here.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import pytest
from prometheus_client import generate_latest
from ruamel.yaml import YAML

from authz.core.reason import Reason
from authz.setup.write import rules_text
from authz.telemetry.expositions import parse
from authz.telemetry.metrics import Metrics
from tests.setup.kit import ANSWERS

ROOT: Final = Path(__file__).resolve().parents[2]
RUNBOOKS: Final = ROOT / "docs" / "runbooks.md"
AUTHZ: Final = 'job="authz"'
PAGES: Final = 'job="authz-pages"'
CERTIFICATE: Final = f'authz_certificate_expiry_timestamp_seconds{{{AUTHZ},certificate="gateway"}}'
# Of Envoy's own statistics (tests/envoy/live/test_certificates_live.py has their names).
SERVED: Final = 'envoy_listener_ssl_certificate_expiration_unix_time_seconds{job="envoy"}'
NOT_FITTING: Final = 'envoy_sds_key_rotation_failed{job="envoy"}'
ENVOY: Final = 'job="envoy"'
# The first authority of Envoy's file (tests/envoy/live/test_certificates_live.py has this name).
TRUSTED: Final = (
    'envoy_cluster_ssl_certificate_expiration_unix_time_seconds{job="envoy",'
    'envoy_cluster_name="mcp_notes",envoy_tls_certificate="unnamed_ca_cert_e3b0c442"}'
)
ALERTMANAGER: Final = 'job="alertmanager"'
NOTES: Final = 'envoy_cluster_name="mcp_notes"'
# Of Envoy (1.39.3): these are there from the start; the last comes with a server's first 5xx.
FAULTS: Final = ("cx_connect_fail", "rq_rx_reset", "rq_timeout")
ERRORS: Final = f'envoy_cluster_upstream_rq_xx{{{ENVOY},{NOTES},envoy_response_code_class="5"}}'
FAILED: Final = f'alertmanager_notifications_failed_total{{{ALERTMANAGER},integration="email"}}'
DROPPED: Final = 'prometheus_notifications_dropped_total{job="prometheus"}'
_STEP: Final = 15  # seconds between two samples
_NAMES: Final = re.compile(
    r"\b(?:up|(?:authz|envoy_(?:cluster_(?:upstream|ssl)|listener|sds)|prometheus|alertmanager)_\w+)\b(\{[^}]*\})?"
)


@dataclass(frozen=True, slots=True)
class AlertRule:
    """One rule, as Prometheus reads it."""

    name: str
    expression: str
    severity: str
    summary: str
    runbook: str


@dataclass(frozen=True, slots=True)
class Firing:
    """What makes an alert fire.

    Attributes:
        series: the values of series, in promtool's notation, in place of those of a quiet service.
        minute: when it fires; before the tenth minute it does not.
        labels: those of each alert, but for its severity.
    """

    series: Mapping[str, str]
    minute: int
    labels: tuple[Mapping[str, str], ...]

    def __init__(self, series: Mapping[str, str], minute: int, *labels: Mapping[str, str]) -> None:
        object.__setattr__(self, "series", series)
        object.__setattr__(self, "minute", minute)
        object.__setattr__(self, "labels", labels)


def jump(to: int, after: int = 40, start: int = 0) -> str:
    """Stay, and then jump once and stay: a burst between two samples."""
    return f"{start}+0x{after} {to}+0x100"


def growth(each: float, after: int = 40) -> str:
    """Stay at 0, and then grow with every sample."""
    return f"0+0x{after} {each}+{each}x100"


_LABELS: Final = {each.label for each in Reason}


def refusals(reason: str, job: str = AUTHZ) -> str:
    return f'authz_refusals_total{{{job},reason="{reason}"}}'


def failures(dependency: str) -> str:
    return f'authz_dependency_errors_total{{{AUTHZ},dependency="{dependency}"}}'


def mode(name: str) -> str:
    return f'authz_limiter_mode{{{AUTHZ},mode="{name}"}}'


_SECONDS: Final = (
    *("0.00025", "0.0005", "0.001", "0.002", "0.005", "0.01", "0.025", "0.05", "0.1", "0.2"),
    *("0.5", "1.0", "2.5", "+Inf"),
)


def durations(name: str, seconds: float) -> dict[str, str]:
    """Return a histogram of one observation a second, all of that length."""
    return {
        f'{name}_bucket{{{AUTHZ},le="{bound}"}}': growth(_STEP if float(bound) >= seconds else 0)
        for bound in _SECONDS
    }


FIRES: Final[Mapping[str, Sequence[Firing]]] = {
    "AuthzDown": [Firing({f"up{{{AUTHZ}}}": jump(0, start=1)}, 12, {"job": "authz"})],
    "AuthzPagesDown": [Firing({f"up{{{PAGES}}}": jump(0, start=1)}, 12, {"job": "authz-pages"})],
    "AuthzEnvoyDown": [Firing({f"up{{{ENVOY}}}": jump(0, start=1)}, 12, {"job": "envoy"})],
    "AuthzServerFails": [
        Firing({series: values}, 13, {"envoy_cluster_name": "mcp_notes"})
        for series, values in (
            *((f"envoy_cluster_upstream_{each}{{{ENVOY},{NOTES}}}", growth(1)) for each in FAULTS),
            (ERRORS, "_x40 8+0x100"),  # the first that this server ever answered
            (ERRORS, jump(108, start=100)),
        )
    ],
    "AuthzAlertsNotTold": [
        Firing({f"up{{{ALERTMANAGER}}}": jump(0, start=1)}, 16, {"job": "alertmanager"}),
        Firing({FAILED: jump(1)}, 17, {"job": "alertmanager"}),
        Firing({DROPPED: jump(1)}, 17, {"job": "prometheus"}),
    ],
    "AuthzCountsWithoutRedis": [
        Firing({mode("redis"): jump(0, start=1), mode(other): jump(1)}, 12, {})
        for other in ("local", "unlimited", "refusing")
    ]
    # One of two workers.
    + [Firing({mode("local"): jump(1)}, 12, {})],
    "AuthzRedisSlow": [
        Firing(durations("authz_redis_probe_seconds", 0.04), 15, {}),
        Firing({failures("redis"): growth(1)}, 15, {}),
    ],
    "AuthzRedisLostData": [
        Firing(
            {f'authz_redis_data_losses_total{{{AUTHZ},loss="{loss}"}}': jump(1)},
            *(11, {"loss": loss}),
        )
        for loss in ("emptied", "older_copy")
    ],
    # Tries after 1, 2, 4, 8 … seconds, and then one in five minutes, of one worker.
    "AuthzIssuerAway": [
        Firing({failures("issuer"): "0+0x40 1 2 2 3 3+0x2 4+0x100"}, 12, {}),
        Firing({failures("issuer"): "0+0x40 7+0x19 8+0x19 9+0x19 10+0x19 11+0x100"}, 30, {}),
    ],
    "AuthzKeysOld": [
        Firing({f"authz_signing_keys_age_seconds{{{AUTHZ}}}": jump(3700)}, 16, {"job": "authz"}),
        Firing({f"authz_signing_keys_age_seconds{{{AUTHZ}}}": jump(-1)}, 16, {"job": "authz"}),
    ],
    # Seconds since the epoch; in these tests Prometheus' clock begins there.
    "AuthzCertificateEnds": [
        Firing({name: jump(14 * 86400, start=10**9)}, 12, {}) for name in (CERTIFICATE, SERVED)
    ],
    "AuthzUpstreamAuthorityEnds": [
        Firing({TRUSTED: jump(14 * 86400, start=10**9)}, 12, {"envoy_cluster_name": "mcp_notes"})
    ],
    "AuthzCertificateRefused": [Firing({NOT_FITTING: jump(1)}, 12, {})],
    "AuthzReloadRefused": [
        Firing(
            {f'authz_config_not_in_force{{{PAGES},cause="refused"}}': jump(1)},
            *(11, {"job": "authz-pages"}),
        ),
        Firing(
            {f'authz_config_reloads_total{{{AUTHZ},outcome="refused"}}': jump(1)},
            *(11, {"job": "authz"}),
        ),
    ],
    "AuthzConfigNotInForce": [
        Firing(
            {f'authz_config_not_in_force{{{AUTHZ},cause="{cause}"}}': jump(1)},
            *(13, {"job": "authz", "cause": cause}),
        )
        for cause in ("replaced", "untaken", "worker")
    ],
    "AuthzEnvoyNotUpdated": [
        Firing(
            {f'authz_config_not_in_force{{{AUTHZ},cause="envoy"}}': jump(1)},
            *(11, {"job": "authz"}),
        ),
        *(
            Firing(
                {f'authz_envoy_updates_total{{{AUTHZ},outcome="{outcome}"}}': jump(1)},
                *(11, {"job": "authz"}),
            )
            for outcome in ("refused", "failed")
        ),
    ],
    "AuthzRestarts": [
        Firing({f"authz_worker_restarts_total{{{AUTHZ}}}": jump(1)}, 11, {"job": "authz"}),
        Firing(
            {f"authz_check_duration_seconds_created{{{PAGES}}}": "1000+0x40 2000 3000 4000+0x100"},
            *(11, {"job": "authz-pages"}),
        ),
    ],
    "AuthzDefect": [Firing({failures("authz"): jump(1)}, 11, {"job": "authz"})],
    "AuthzSlow": [Firing(durations("authz_check_duration_seconds", 0.5), 22, {})],
    "AuthzLogLinesLost": [
        Firing({f"authz_log_lines_lost{{{AUTHZ}}}": jump(3)}, 11, {"job": "authz"})
    ],
    "AuthzAuditRecordsLost": [
        Firing(
            {f'authz_audit_records_total{{{PAGES},outcome="lost"}}': jump(1)},
            *(11, {"job": "authz-pages"}),
        )
    ],
    "AuthzTelemetryLost": [
        Firing(
            {f'authz_otlp_dropped_total{{{AUTHZ},signal="traces",why="{why}"}}': jump(1)},
            *(16, {"job": "authz", "signal": "traces"}),
        )
        for why in ("queue", "unreachable", "refused")
    ],
    "AuthzRevocationsNotTold": [
        Firing({f"authz_revocations_waiting{{{PAGES}}}": jump(1)}, 26, {}),
        *(
            Firing(
                {f'authz_log_ins_total{{{PAGES},outcome="{each}",step="end_at_issuer"}}': jump(1)},
                *(26, {}),
            )
            for each in ("lost", "refused")
        ),
    ],
    "AuthzForgedTokens": [
        Firing({refusals(each): growth(5)}, 13, {})
        for each in (
            *("token_invalid", "token_malformed", "token_opaque", "token_wrong_kind"),
            *("audience_mismatch", "foreign_client", "session_of_another"),
        )
    ],
    "AuthzSecondFactorRefusals": [
        Firing({refusals(each): growth(5)}, 13, {})
        for each in ("second_factor_required", "login_too_old")
    ],
    "AuthzSecurityEvent": [
        Firing(
            {f'authz_security_events_total{{{AUTHZ},event="{each}"}}': jump(1)}, 11, {"event": each}
        )
        for each in (
            *("session_of_another", "approval_declined", "credential_replayed", "blocked_client"),
            "tool_changed",
        )
    ],
    "AuthzNotificationsLost": [
        Firing(
            {f'authz_notifications_total{{{AUTHZ},outcome="{outcome}"}}': jump(1)},
            *(11, {"job": "authz"}),
        )
        for outcome in ("failed", "dropped")
    ],
    "AuthzLimitsReached": [
        Firing({refusals(each): growth(20)}, 13, {"reason": each})
        for each in ("rate_limited", "too_many_refusals", "too_many_streams")
    ],
    # Whatever the reason is, and whether or not anybody was ever refused for it.
    "AuthzManyRefusals": [
        Firing(
            {refusals(each): jump(70) for each in _LABELS},
            11,
            *({"reason": each} for each in sorted(_LABELS - {"token_missing", "token_expired"})),
        )
    ],
}


def quiet() -> dict[str, str]:
    """Return the series of two services that have just started, and of what scrapes them."""
    found = {f"up{{{job}}}": "1+0x130" for job in (AUTHZ, PAGES, ENVOY, ALERTMANAGER)}
    found |= {f"envoy_cluster_upstream_{each}{{{ENVOY},{NOTES}}}": "0+0x130" for each in FAULTS}
    found |= dict.fromkeys((SERVED, TRUSTED), "1000000000+0x130") | {NOT_FITTING: "0+0x130"}
    found |= dict.fromkeys((FAILED, DROPPED), "0+0x130")
    for job in (AUTHZ, PAGES):
        metrics = Metrics()
        if job == AUTHZ:
            metrics.follow(lambda: 10.0, lambda: "redis")
            metrics.follow_certificate(lambda: 1e9)
        for family in parse(generate_latest(metrics.registry).decode()).values():
            for name, value in family.values.items():
                bare, _, labels = name.partition("{")
                found[f"{bare}{{{job}{',' + labels if labels else '}'}"] = f"{value}+0x130"
    return found


QUIET: Final = quiet()


def _of(rule: AlertRule) -> dict[str, str]:
    """Return the series that a rule selects."""
    found = {each for name in _NAMES.finditer(rule.expression) for each in selected(name[0])}
    return {each: QUIET[each] for each in found}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the rules that `authz init` writes."""
    made = tmp_path_factory.mktemp("prometheus")
    (made / "rules.yml").write_text(rules_text(ANSWERS), "utf-8")
    return made


@pytest.fixture(scope="module")
def rules() -> dict[str, AlertRule]:
    groups = YAML(typ="safe").load(rules_text(ANSWERS))["groups"]
    return {
        each["alert"]: AlertRule(
            *(each["alert"], each["expr"], each["labels"]["severity"]),
            *(each["annotations"]["summary"], each["annotations"]["runbook_url"]),
        )
        for group in groups
        for each in group["rules"]
    }


def promtool(*arguments: str, folder: Path) -> None:
    """Let Prometheus' own tool judge."""
    if shutil.which("promtool") is None:
        pytest.skip("!!! NO promtool HERE (Debian: prometheus): THE ALERTS ARE NOT TESTED !!!")
    done = subprocess.run(
        ["promtool", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def alert_of(rule: AlertRule, labels: Mapping[str, str]) -> dict[str, object]:
    summary = re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda found: labels[found[1]], rule.summary)
    return {
        "exp_labels": {"severity": rule.severity, **labels},
        "exp_annotations": {"summary": summary, "runbook_url": rule.runbook},
    }


def judged(
    rules: Mapping[str, AlertRule],
    series: Mapping[str, str],
    expected: Sequence[tuple[str, int, Sequence[Mapping[str, str]]]],
    step: int = _STEP,
) -> dict[str, object]:
    """Return one test of promtool: series, and which alerts fire in which minute."""
    return {
        "interval": f"{step}s",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "alert_rule_test": [
            {
                "alertname": name,
                "eval_time": f"{minute}m",
                "exp_alerts": [alert_of(rules[name], labels) for labels in alerts],
            }
            for name, minute, alerts in expected
        ],
    }


def test_what_was_counted_before_prometheus_came_is_not_meant(
    folder: Path, rules: Mapping[str, AlertRule]
) -> None:
    """A server's errors of long ago are no news when Prometheus starts, nor when Envoy does."""
    name = "AuthzServerFails"
    up = {f"up{{{ENVOY}}}": "1+0x130"}
    expected = [(name, minute, ()) for minute in (0, 1, 4, 6, 12)]
    tests = [
        judged(rules, up | {ERRORS: "1000+0x130"}, expected),
        judged(rules, up | {ERRORS: "1000+0x20 0+0x100"}, expected),
    ]

    judge(folder, tests, "before")


def judge(
    folder: Path, tests: Sequence[Mapping[str, object]], name: str, every: str = "1m"
) -> None:
    file = {"rule_files": ["rules.yml"], "evaluation_interval": every, "tests": tests}
    (folder / f"{name}.test.json").write_text(json.dumps(file))  # JSON is YAML
    promtool("test", "rules", f"{name}.test.json", folder=folder)


def test_each_alert_fires_on_the_first_day(folder: Path, rules: Mapping[str, AlertRule]) -> None:
    """From a service that has just started: not before there is a cause, and then it does."""
    tests = []
    for name, firings in FIRES.items():
        for firing in firings:
            missing = firing.series.keys() - QUIET.keys() - {ERRORS}
            assert not missing, "it counts what is not there at the start"
            series = {**_of(rules[name]), **firing.series}
            expected = [(name, 9, ()), (name, firing.minute, firing.labels)]
            tests.append(judged(rules, series, expected))

    judge(folder, tests, "first-day")


def test_no_alert_fires_where_all_is_well(folder: Path, rules: Mapping[str, AlertRule]) -> None:
    """Neither at once, nor when nothing has happened for a while."""
    expected = [(name, minute, ()) for name in rules for minute in (0, 5, 30)]

    judge(folder, [judged(rules, QUIET, expected)], "quiet")


def test_refusals_are_compared_with_yesterday(folder: Path, rules: Mapping[str, AlertRule]) -> None:
    """Twice as many as yesterday are ordinary, however many; fifty more than thrice are not."""
    tests = []
    name, reason, step = "AuthzManyRefusals", "token_invalid", 300
    for values, alerts in (
        ("0+1000x287 287000+2000x30", ()),
        ("0+1x287 287+20x30", ({"reason": reason},)),
    ):
        expected = [(name, 26 * 60, alerts)]
        tests.append(judged(rules, {refusals(reason): values}, expected, step))

    judge(folder, tests, "yesterday", every="1h")


def test_every_alert_is_made_to_fire(rules: Mapping[str, AlertRule]) -> None:
    """A rule that is added without a case is missed here."""
    assert rules.keys() == FIRES.keys()


def test_every_reason_that_a_rule_names_is_one(rules: Mapping[str, AlertRule]) -> None:
    """A reason that is misspelt counts nothing."""
    named = {
        reason
        for rule in rules.values()
        for list_ in re.findall(r'reason!?=~?"([^"]*)"', rule.expression)
        for reason in list_.split("|")
    }

    assert named
    assert named <= {each.label for each in Reason}


def test_every_metric_of_a_rule_is_there_from_the_start(rules: Mapping[str, AlertRule]) -> None:
    """Each selector of a rule finds something in a service that has just started."""
    for rule in rules.values():
        for found in _NAMES.finditer(rule.expression):
            lazy = ERRORS.startswith(f"{found[0].partition('{')[0]}{{")
            assert lazy or selected(found[0]), (rule.name, found[0])


def selected(selector: str) -> list[str]:
    """Return the series of `QUIET` that a selector finds."""
    name, _, matchers = selector.partition("{")
    found = [each for each in QUIET if each.startswith(f"{name}{{")]
    for label, operator, value in re.findall(r'(\w+)(=~|!~|!=|=)"([^"]*)"', matchers):
        wanted = value if "~" in operator else re.escape(value)
        holds = re.compile(rf'[{{,]{label}="(?:{wanted})"').search
        found = [each for each in found if bool(holds(each)) is not operator.startswith("!")]
    return found


def test_every_alert_has_its_runbook_and_every_runbook_its_alert(
    rules: Mapping[str, AlertRule],
) -> None:
    """An alert links a heading of docs/runbooks.md, and each heading has its alert."""
    headings = re.findall(r"^## (\w+)$", RUNBOOKS.read_text("utf-8"), re.MULTILINE)

    assert set(headings) == rules.keys()
    assert len(headings) == len(set(headings))
    for rule in rules.values():
        assert rule.runbook == f"docs/runbooks.md#{rule.name.lower()}"


def test_every_alert_is_severe_or_not(rules: Mapping[str, AlertRule]) -> None:
    """Receivers are chosen by one of two words."""
    assert {rule.severity for rule in rules.values()} == {"critical", "warning"}


def test_the_rules_without_a_front_door_ask_for_no_pages(tmp_path: Path) -> None:
    """Nobody is told that pages are down which there are none of."""
    text = rules_text(replace(ANSWERS, login="direct"))
    (tmp_path / "rules.yml").write_text(text, "utf-8")

    assert "authz-pages" not in text
    assert "AuthzRevocationsNotTold" not in text
    promtool("check", "rules", "rules.yml", folder=tmp_path)
