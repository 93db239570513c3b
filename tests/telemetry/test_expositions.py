"""Merged expositions: counters and histograms by sum, each gauge by its rule."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from authz.telemetry.expositions import GAUGES, Exposition, merge, parse, persisted, render
from authz.telemetry.metrics import Metrics


def text(change: Callable[[Metrics], object] = lambda _: None) -> str:
    metrics = Metrics()
    change(metrics)
    return generate_latest(metrics.registry).decode()


def values(exposition: Exposition) -> dict[str, float]:
    return {name: value for each in exposition.values() for name, value in each.values.items()}


def test_one_exposition_is_its_own_sum() -> None:
    """What one worker says comes out of it byte by byte."""
    said = text(lambda each: each.duration.observe(0.3))

    assert render(merge([parse(said)])) == said


@given(st.lists(st.tuples(st.text(max_size=5), st.integers(0, 2**40)), max_size=6))
def test_counters_are_summed_whatever_their_labels_hold(counted: list[tuple[str, int]]) -> None:
    """Labels with quotes, spaces and line ends included; Prometheus' own parser reads the sum."""

    def count(metrics: Metrics) -> None:
        for label, number in counted:
            metrics.dependency_errors.labels(label).inc(number)

    total = render(merge([parse(text(count)), parse(text(count))]))

    wanted = dict.fromkeys(("issuer", "redis", "authz"), 0.0)
    for label, number in counted:
        wanted[label] = wanted.get(label, 0.0) + 2 * number
    found = {
        sample.labels["dependency"]: sample.value
        for family in text_string_to_metric_families(total)
        for sample in family.samples
        if sample.name == "authz_dependency_errors_total"
    }
    assert found == wanted


def test_every_gauge_has_its_rule() -> None:
    """A new gauge is not added up by accident."""
    found = parse(text())
    gauges = {
        name
        for name, each in found.items()
        if each.kind == "gauge" and not name.endswith("_created")
    }

    assert gauges == GAUGES.keys()


@pytest.mark.parametrize(
    ("name", "ages", "expected"),
    [
        ("authz_signing_keys_age_seconds", (3, 7), 7),
        ("authz_signing_keys_age_seconds", (3, -1), -1),
        ("authz_checks_in_flight", (3, 7), 10),
        ("authz_log_lines_lost", (3, 7), 10),
        ("authz_revocations_waiting", (3, 7), 7),
    ],
)
def test_gauges(name: str, ages: tuple[int, int], expected: float) -> None:
    """The oldest keys, what is in flight altogether, every line that was lost."""
    found = merge(parse(f"# TYPE {name} gauge\n{name} {age}\n") for age in ages)

    assert values(found) == {name: expected}


def test_a_mode_is_on_where_any_worker_is_in_it() -> None:
    """One of two counts for itself: both modes are 1, and an alert on either fires."""
    one = parse('# TYPE authz_limiter_mode gauge\nauthz_limiter_mode{mode="redis"} 1\n')
    other = parse(
        "# TYPE authz_limiter_mode gauge\n"
        'authz_limiter_mode{mode="redis"} 0\nauthz_limiter_mode{mode="local"} 1\n'
    )

    assert set(values(merge([one, other])).values()) == {1.0}


def test_what_is_kept_of_a_worker_that_is_gone() -> None:
    """What it counted, not how it was."""

    def busy(metrics: Metrics) -> None:
        metrics.decisions.labels("files", "allowed").inc(3)
        metrics.in_flight.__enter__()
        metrics.log_lost.set(4)
        metrics.key_age.set(100)

    found = values(persisted(parse(text(busy))))

    assert found['authz_decisions_total{reason="allowed",server="files"}'] == 3
    assert found["authz_log_lines_lost"] == 4
    assert "authz_checks_in_flight" not in found
    assert "authz_signing_keys_age_seconds" not in found


@pytest.mark.parametrize("said", ["a", "a b", "# TYPE a", "<html>"])
def test_what_is_no_exposition_is_refused(said: str) -> None:
    """Whoever else answers there is not counted."""
    with pytest.raises(ValueError, match=r".*"):
        parse(said)
