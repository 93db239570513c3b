"""The files of a folder that `authz init` wrote, beside authz.yaml: do they say the same?

Authelia's own configuration has what its answers do not tell, and Prometheus' has what an alert
needs to fire. They are read, never written.

Invariant: whatever a file holds ends in findings, and no value of it is printed but URLs, client
ids, and names of metrics and jobs (tests/doctor/test_deployment_files.py).
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from authz.authelia.front_door import our_clients
from authz.config.load import Settings
from authz.config.model import Config
from authz.config.problems import quoted
from authz.doctor.finding import Finding, enumerated, ok, problem, warning
from authz.telemetry.metrics import Metrics

ISSUER: Final = "issuer"
CLIENTS: Final = "clients"
ALERTS: Final = "alerts"
AUTHELIA: Final = ("authelia/configuration.yml", "authelia/authz.yml")
RULES: Final = "prometheus/rules.yml"
PROMETHEUS: Final = "prometheus/prometheus.yml"
ALERTMANAGER: Final = "alertmanager/alertmanager.yml"
COMPOSE: Final = "docker-compose.yml"
_LARGEST: Final = 1 << 20
# Authelia's template filter runs before its YAML reader; what it puts in is none of our business.
_TEMPLATE: Final = re.compile(r"\{\{.*?\}\}", re.DOTALL)
_METRIC: Final = re.compile(r"(?<![\w:\"'=~])authz_[a-z0-9_]+")
_OF_ENVOY: Final = re.compile(r"(?<![\w:\"'=~])envoy_[a-z]+_[a-z0-9_]+(?=\s*[{\[])")
# Envoy's own path, and the one at which `authz serve --envoy-stats` passes it on.
_PASSED_ON: Final = "/envoy/metrics"
_ENVOY_PATHS: Final = frozenset({"/stats/prometheus", _PASSED_ON})
_STATS_OPTION: Final = "--envoy-stats"
_RECEIVER: Final = "docs/compose.md, Prometheus and alerts"
_STRINGS: Final = re.compile(r"\"[^\"]*\"|'[^']*'")
_JOB: Final = re.compile(r"""\bjob\s*=\s*["']([^"']{1,100})["']""")
_LOOPBACK: Final = frozenset({"127.0.0.1", "[::1]", "::1", "localhost"})
_SUFFIXES: Final = ("", "_total", "_created", "_bucket", "_count", "_sum")


def examine(settings: Settings, folder: Path) -> list[Finding]:
    """Look at them; of a file that is not there nothing is said.

    Args:
        settings: authz.yaml.
        folder: that `authz init` wrote.
    """
    trees = [_tree(folder / name) for name in AUTHELIA]
    return [
        *_issuer_urls(settings.config, trees),
        *_opaque(settings.config, trees),
        *_alerts(settings.config, folder),
    ]


def _tree(path: Path) -> Mapping[str, Any]:
    """Return the mapping that a file holds, empty where it holds none."""
    try:
        with path.open("rb") as stream:
            text = stream.read(_LARGEST + 1)
        found = YAML(typ="safe").load(_TEMPLATE.sub("'template'", text.decode()))
    except (OSError, ValueError, YAMLError, RecursionError):
        return {}
    return found if isinstance(found, dict) and len(text) <= _LARGEST else {}


def _mappings(value: object, *path: str) -> list[Mapping[str, Any]]:
    """Return the mappings of a list at a path; none where something else is there."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return [each for each in _list(value) if isinstance(each, dict)]


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


# --- Authelia ------------------------------------------------------------------------------------


def _issuer_urls(config: Config, trees: Iterable[Mapping[str, Any]]) -> Iterator[Finding]:
    """Say where Authelia does not know issuer.url: it answers 400 to every request then."""
    found = [
        url.rstrip("/")
        for tree in trees
        for each in _mappings(tree, "session", "cookies")
        if isinstance(url := each.get("authelia_url"), str) and url != "template"
    ]
    if not found:
        return
    if config.issuer.url in found:
        yield ok(ISSUER, "known_url", "Authelia's configuration has issuer.url as its authelia_url")
        return
    message = (
        f"Authelia does not know {quoted(config.issuer.url)} and answers 400: its configuration "
        f"has {enumerated(found)}"
    )
    fix = (
        f"the same in issuer.url of authz.yaml and session.cookies[].authelia_url of {AUTHELIA[0]};"
        " then restart Authelia"
    )
    yield problem(ISSUER, "unknown_url", message, fix)


def _opaque(config: Config, trees: Iterable[Mapping[str, Any]]) -> Iterator[Finding]:
    """Name our clients at Authelia whose access tokens are opaque, where a signed one is needed."""
    ours = {str(each.values["client_id"]) for each in our_clients(config, None)}
    if config.issuer.introspection is None:
        ours |= {name for name in config.named if config.login_of(name) == "direct"}
    for tree in trees:
        for client in _mappings(tree, "identity_providers", "oidc", "clients"):
            name = str(client.get("client_id"))
            algorithm = client.get("access_token_signed_response_alg")
            is_key = client.get("access_token_signed_response_key_id") is not None
            if name in ours and not is_key and _is_none(algorithm):
                message = f"Authelia gives {quoted(name)} opaque access tokens: all are refused"
                fix = (
                    "access_token_signed_response_alg: RS256 at this client (`authz init --render` "
                    "writes it); then restart Authelia and log in again"
                )
                if name in config.named:
                    fix = f"{fix}; or have Authelia asked about them: issuer.introspection"
                yield problem(CLIENTS, "opaque_tokens", message, fix)


def _is_none(value: object) -> bool:
    return value is None or value == "none"


# --- Prometheus ----------------------------------------------------------------------------------


def _alerts(config: Config, folder: Path) -> Iterator[Finding]:
    """Name alerts that cannot fire: of metrics or jobs that there are not."""
    rules = _tree(folder / RULES)
    expressions = [
        (str(rule.get("alert")), expression)
        for group in _mappings(rules, "groups")
        for rule in _mappings(group, "rules")
        if rule.get("alert") and isinstance(expression := rule.get("expr"), str)
    ]
    if not expressions:
        if (folder / RULES).exists():
            message = f"{RULES} has no alert that could fire"
            yield problem(ALERTS, "no_alerts", message, "write it anew with `authz init`")
        return
    prometheus = _tree(folder / PROMETHEUS)
    jobs = {str(each.get("job_name")): each for each in _mappings(prometheus, "scrape_configs")}
    silent = list(_silent(expressions, jobs.keys()))
    yield from silent
    told = list(_targets(config, jobs))
    read = [str(each) for each in _list(prometheus.get("rule_files"))]
    if not any(fnmatchcase(f"/etc/{RULES}", each) for each in read):
        message = f"Prometheus does not read {RULES}: no alert of it fires"
        told.append(problem(ALERTS, "rules_unread", message, f"rule_files in {PROMETHEUS}"))
    told += _envoy(expressions, jobs, _tree(folder / COMPOSE))
    yield from told
    yield from _receivers(prometheus, folder)
    if not silent and not told:
        message = f"{len(expressions)} alerts name metrics and jobs that there are"
        yield ok(ALERTS, "can_fire", message)


def _silent(expressions: Iterable[tuple[str, str]], jobs: Iterable[str]) -> Iterator[Finding]:
    known = {
        f"{metric.name}{suffix}" for metric in Metrics().registry.collect() for suffix in _SUFFIXES
    }
    scraped = set(jobs)
    for alert, expression in expressions:
        wanted = set(_METRIC.findall(_STRINGS.sub("", expression)))
        if unknown := wanted - known:
            message = f"{quoted(alert)} cannot fire: authz has no metric {enumerated(unknown)}"
            fix = f"its expr in {RULES}; docs/operations.md, Metrics, has the names"
            yield problem(ALERTS, "unknown_metric", message, fix)
        if missing := set(_JOB.findall(expression)) - scraped:
            message = f"{quoted(alert)} cannot fire: nothing is scraped as {enumerated(missing)}"
            yield problem(ALERTS, "unknown_job", message, f"a job_name of {PROMETHEUS}")


def _envoy(
    expressions: Iterable[tuple[str, str]],
    jobs: Mapping[str, Mapping[str, Any]],
    compose: Mapping[str, Any],
) -> Iterator[Finding]:
    """Say where alerts need Envoy's statistics, and nothing brings them to Prometheus."""
    needs = [alert for alert, expression in expressions if _OF_ENVOY.search(expression)]
    paths = {str(each.get("metrics_path")) for each in jobs.values()}
    if not needs:
        return
    if not paths & _ENVOY_PATHS:
        message = f"{enumerated(needs)} cannot fire: Envoy is not scraped"
        fix = f"a job of {PROMETHEUS} with metrics_path: {_PASSED_ON} (`authz init` has it)"
        yield problem(ALERTS, "envoy_not_scraped", message, fix)
        return
    services = compose.get("services")
    service = services.get("authz") if isinstance(services, dict) else None
    command = service.get("command") if isinstance(service, dict) else None
    if _PASSED_ON in paths and isinstance(command, list) and _STATS_OPTION not in command:
        message = f"{enumerated(needs)} cannot fire: authz does not pass on Envoy's statistics"
        fix = f"{_STATS_OPTION} /run/authz/envoy-stats.sock at authz' command in {COMPOSE}"
        yield problem(ALERTS, "envoy_not_scraped", message, fix)


def _receivers(prometheus: Mapping[str, Any], folder: Path) -> Iterator[Finding]:
    """Say where alerts fire and nobody is told."""
    if not _mappings(prometheus, "alerting", "alertmanagers"):
        message = "Prometheus tells no Alertmanager: who does not look at it hears of no alert"
        yield warning(ALERTS, "no_alertmanager", message, f"alerting in {PROMETHEUS}")
        return
    said = _tree(folder / ALERTMANAGER)
    if not said:
        return
    told = any(
        str(name).endswith("_configs") and _list(value)
        for receiver in _mappings(said, "receivers")
        for name, value in receiver.items()
    )
    if not told:
        message = f"{ALERTMANAGER} has no receiver that tells anybody: alerts fire unheard"
        fix = f"fill in one receiver there, then restart Alertmanager ({_RECEIVER})"
        yield warning(ALERTS, "no_receiver", message, fix)


def _is_loopback(target: str) -> bool:
    return target.rpartition(":")[0] in _LOOPBACK


def _targets(config: Config, jobs: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    """Compare where Prometheus looks with where authz serves its metrics."""
    served = {"authz": config.telemetry.metrics, "authz-pages": config.telemetry.pages_metrics}
    for job, address in served.items():
        field = "metrics" if job == "authz" else "pages_metrics"
        if job not in jobs:
            continue
        targets = [
            str(target)
            for each in _mappings(jobs[job], "static_configs")
            for target in _list(each.get("targets"))
        ]
        if address is None:
            message = f"telemetry.{field} is not set: the job {job} finds nothing"
            yield problem(ALERTS, "not_served", message, f"telemetry.{field} in authz.yaml")
        elif address.host in _LOOPBACK and not any(map(_is_loopback, targets)):
            message = f"authz serves its metrics on loopback only: the job {job} finds nothing"
            fix = f"telemetry.{field}: 0.0.0.0:{address.port} in authz.yaml"
            yield problem(ALERTS, "not_served", message, fix)
        elif not any(target.endswith(f":{address.port}") for target in targets):
            message = (
                f"the job {job} asks {enumerated(targets)}, and authz serves its metrics at port "
                f"{address.port}"
            )
            fix = f"targets in {PROMETHEUS}, or telemetry.{field} in authz.yaml"
            yield warning(ALERTS, "other_port", message, fix)
