"""All metrics for Prometheus.

Labels are servers of the configuration, or reasons, dependencies and outcomes of closed sets; never
a value that a caller chose.

Invariant: what an alert of authz/setup/templates/rules.yml.j2 counts is there from the start, at 0:
`increase` does not see the first count of a series that appears with it
(tests/setup/test_rules.py).
"""

from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from functools import partial
from typing import Final, Self

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from authz.core.reason import Reason
from authz.telemetry.security_events import SecurityEvent

UNKNOWN: Final = "-"
ALLOWED: Final = "allowed"
# Seconds. Dense below 5 ms, where decisions should be; 0.2 is the limit for known tokens.
_BUCKETS: Final = (0.00025, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1, 2.5)


# Outcomes of `end_at_issuer` (authz/login/store/revocation_outbox.py).
_ENDS: Final = ("ok", "failed", "refused", "lost")


_SIGNALS: Final = ("traces", "metrics", "logs")


class OtlpLoss(Enum):
    """Why something did not reach the OpenTelemetry collector: a label."""

    RATE = "rate"
    QUEUE = "queue"
    UNREACHABLE = "unreachable"
    REFUSED = "refused"
    END = "end"


class Labelled:
    """Cache a counter's children: `Counter.labels` builds a key and takes a lock every time."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._children: dict[tuple[str, ...], Counter] = {}

    def labels(self, *values: str) -> Counter:
        """Return the counter of these labels, which are few."""
        found = self._children.get(values)
        if found is None:
            found = self._children[values] = self._counter.labels(*values)
        return found

    def counted(self) -> Mapping[tuple[str, ...], int]:
        """Return the counts by labels, whose values stand in the order of their declaration."""
        return {
            tuple(sample.labels.values()): int(sample.value)
            for metric in self._counter.collect()
            for sample in metric.samples
            if sample.name.endswith("_total")
        }


def _begin(counter: Labelled, labels: Iterable[tuple[str, ...]]) -> None:
    """Show a counter at 0 for these labels."""
    for values in labels:
        counter.labels(*values)


class InFlight:
    """Count what is under way, in one thread and without a lock."""

    def __init__(self, gauge: Gauge) -> None:
        """Show the count in the gauge."""
        self._count = 0
        gauge.set_function(lambda: self._count)

    def __enter__(self) -> None:
        self._count += 1

    def __exit__(self, *_: object) -> None:
        self._count -= 1

    def track_inprogress(self) -> Self:
        """Count a block while it runs."""
        return self


class Metrics:
    """The metrics of one worker."""

    def __init__(self) -> None:
        """Declare them on a registry of their own: tests make several."""
        self.registry: Final = CollectorRegistry()
        self.decisions: Final = self._counter(
            "authz_decisions_total",
            "Decisions, by MCP server and reason (`allowed` or a refusal).",
            "server",
            "reason",
        )
        self.refusals: Final = self._counter(
            "authz_refusals_total",
            "Refusals of all servers together, by reason.",
            "reason",
        )
        _begin(self.refusals, [(each.label,) for each in Reason])
        self.shadow_refusals: Final = self._counter(
            "authz_shadow_refusals_total",
            "Allowed requests that a limit with `shadow: true` would have refused, by its name.",
            "limit",
        )
        self.near_limits: Final = self._counter(
            "authz_near_limit_total",
            "Allowed requests after which a limit was past its `warn_at`, by its name.",
            "limit",
        )
        self.security_events: Final = self._counter(
            "authz_security_events_total",
            "Occurrences of what an operator has to hear of, by event (docs/security-events.md).",
            "event",
        )
        _begin(self.security_events, [(each.label,) for each in SecurityEvent])
        self.page_decisions: Final = self._counter(
            "authz_page_decisions_total",
            "Decisions about requests for admin pages, by page and reason.",
            "page",
            "reason",
        )
        self.duration: Final = self._histogram(
            "authz_check_duration_seconds",
            "Time from a CheckRequest's arrival to its answer.",
        )
        self.dependency_errors: Final = self._counter(
            "authz_dependency_errors_total",
            "Failures of what authz depends on.",
            "dependency",
        )
        _begin(self.dependency_errors, [("issuer",), ("redis",), ("authz",)])
        self.redis_losses: Final = self._counter(
            "authz_redis_data_losses_total",
            "How often Redis came back without data that this worker had read from it.",
            "loss",
        )
        _begin(self.redis_losses, [("emptied",), ("older_copy",)])
        self.redis_outages: Final = self._counter(
            "authz_redis_outages_total",
            "How often a worker began, and ended, to answer limits without Redis.",
            "change",
        )
        _begin(self.redis_outages, [("begun",), ("ended",)])
        self.redis_probe: Final = self._histogram(
            "authz_redis_probe_seconds",
            "Time for one charge in Redis, tried once a second by each worker.",
        )
        self.token_cache: Final = self._counter(
            "authz_token_cache_total",
            "Look-ups in the cache of verified tokens, by outcome (hit, miss).",
            "outcome",
        )
        self.introspections: Final = self._counter(
            "authz_introspections_total",
            "Look-ups of tokens at the issuer, by outcome (active, inactive, refused, "
            "turned_away, or the fault of the issuer).",
            "outcome",
        )
        self.introspection_duration: Final = self._histogram(
            "authz_introspection_duration_seconds",
            "Time from a question to the issuer to its answer.",
        )
        self.reloads: Final = self._counter(
            "authz_config_reloads_total",
            "Reloads of authz.yaml, by outcome (ok, refused).",
            "outcome",
        )
        _begin(self.reloads, [("ok",), ("refused",)])
        self.config_not_in_force: Final = Gauge(
            "authz_config_not_in_force",
            "1 while authz.yaml as it is written is not what runs, by cause: refused, replaced (a "
            "single mounted file), untaken, worker (one runs another configuration), envoy (it "
            "has not taken the files of the last reload).",
            ["cause"],
            registry=self.registry,
        )
        for cause in ("refused", "replaced", "untaken", "worker", "envoy"):
            self.config_not_in_force.labels(cause).set(0)
        self._config: Final = Gauge(
            "authz_config_info",
            "1 for the digest of the configuration in force (label config).",
            ["config"],
            registry=self.registry,
        )
        self._shown_config = ""
        self.envoy_updates: Final = self._counter(
            "authz_envoy_updates_total",
            "Times that Envoy's files were written after a reload, by outcome (taken, unconfirmed, "
            "refused, failed).",
            "outcome",
        )
        outcomes = ("taken", "unconfirmed", "refused", "failed")
        _begin(self.envoy_updates, [(each,) for each in outcomes])
        self.tool_changes: Final = self._counter(
            "authz_tool_changes_total",
            "Tools that a server lists anew or otherwise than before (added, definition, "
            "annotations, too_many), or not as they were approved (not_approved, changed).",
            "server",
            "change",
        )
        self.logins: Final = self._counter(
            "authz_log_ins_total",
            "Steps of log-ins at the front door and of step-ups, by step and outcome.",
            "step",
            "outcome",
        )
        _begin(self.logins, [("end_at_issuer", outcome) for outcome in _ENDS])
        self.notifications: Final = self._counter(
            "authz_notifications_total",
            "Messages about security events, by outcome (sent, failed, dropped, suppressed).",
            "outcome",
        )
        outcomes = ("sent", "failed", "dropped", "suppressed")
        _begin(self.notifications, [(each,) for each in outcomes])
        self.audit_records: Final = self._counter(
            "authz_audit_records_total",
            "Records of the audit trail, by outcome (written, lost).",
            "outcome",
        )
        _begin(self.audit_records, [("written",), ("lost",)])
        self.lists: Final = self._counter(
            "authz_lists_total",
            "Lists of MCP servers (tools, prompts, resources), by server and outcome: filtered, or "
            "why nothing was shown.",
            "server",
            "outcome",
        )
        self.worker_restarts: Final = Counter(
            "authz_worker_restarts_total",
            "Workers that ended by themselves, or hung and were killed, and were started again.",
            registry=self.registry,
        )
        self.revocations_waiting: Final = Gauge(
            "authz_revocations_waiting",
            "Log-ins that ended here and whose end Authelia has not confirmed yet.",
            registry=self.registry,
        )
        self.key_age: Final = Gauge(
            "authz_signing_keys_age_seconds",
            "Seconds since the issuer's keys were last fetched; -1 before the first time.",
            registry=self.registry,
        )
        self.certificate_expiry: Final = Gauge(
            "authz_certificate_expiry_timestamp_seconds",
            "When the certificate of gateway.tls ends, seconds since the epoch; absent where its "
            "file cannot be read here.",
            ["certificate"],
            registry=self.registry,
        )
        self.limiter_mode: Final = Gauge(
            "authz_limiter_mode",
            "1 for who counts limits now (redis, local, unlimited), or for refusing everything.",
            ["mode"],
            registry=self.registry,
        )
        self.otlp_sent: Final = self._counter(
            "authz_otlp_sent_total",
            "Traces, log lines and points of metrics that the collector has taken.",
            "signal",
        )
        _begin(self.otlp_sent, [(each,) for each in _SIGNALS])
        self.otlp_dropped: Final = self._counter(
            "authz_otlp_dropped_total",
            "The same that it has not got: too many a second (rate), or waiting (queue), it was "
            "not reached (unreachable) or did not take them (refused), the process ended (end).",
            "signal",
            "why",
        )
        _begin(self.otlp_dropped, [(each, why.value) for each in _SIGNALS for why in OtlpLoss])
        self.log_lost: Final = Gauge(
            "authz_log_lines_lost",
            "Log lines lost since the start, because whoever reads the log has stopped.",
            registry=self.registry,
        )
        self.in_flight: Final = InFlight(
            Gauge("authz_checks_in_flight", "Checks being decided now.", registry=self.registry)
        )

    def _counter(self, name: str, documentation: str, *labels: str) -> Labelled:
        return Labelled(Counter(name, documentation, labels, registry=self.registry))

    def _histogram(self, name: str, documentation: str) -> Histogram:
        return Histogram(name, documentation, buckets=_BUCKETS, registry=self.registry)

    def show_config(self, digest: str) -> None:
        """Show the digest of the configuration in force, and no other."""
        self._config.labels(digest).set(1)
        if self._shown_config not in {"", digest}:
            self._config.remove(self._shown_config)
        self._shown_config = digest

    def follow(self, key_age: Callable[[], float], mode: Callable[[], str]) -> None:
        """Read gauges at every scrape from these functions."""
        self.key_age.set_function(key_age)
        for name in ("redis", "local", "unlimited", "refusing"):
            self.limiter_mode.labels(name).set_function(partial(_is_now, name, mode))

    def follow_certificate(self, end: Callable[[], float]) -> None:
        """Read when the gateway's certificate ends at every scrape from this function."""
        self.certificate_expiry.labels("gateway").set_function(end)


def _is_now(name: str, mode: Callable[[], str]) -> float:
    return float(mode() == name)
