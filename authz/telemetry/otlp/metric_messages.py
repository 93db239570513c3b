"""What Prometheus would read, as OTLP's messages: one source of the figures.

Names and labels stay as `/metrics` has them, sums are cumulative.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Final

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AGGREGATION_TEMPORALITY_CUMULATIVE,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric as Family

from authz.telemetry.otlp.messages import key_values

_BUCKET: Final = "le"


def metrics_request(
    registry: CollectorRegistry,
    of: Resource,
    by: InstrumentationScope,
    *,
    began: int,
    now: int,
) -> tuple[bytes, int]:
    """Return the serialized request for all that is counted, and the number of its points.

    Args:
        registry: what is counted.
        of: who sends.
        by: what measures.
        began: since when, in nanoseconds since the epoch.
        now: the present moment, as well.
    """
    found = [each for family in registry.collect() for each in _metrics(family, began, now)]
    scoped = ScopeMetrics(scope=by, metrics=found)
    request = ExportMetricsServiceRequest(
        resource_metrics=[ResourceMetrics(resource=of, scope_metrics=[scoped])]
    )
    return request.SerializeToString(), sum(map(_points, found))


def _points(metric: Metric) -> int:
    return (
        len(metric.sum.data_points)
        + len(metric.gauge.data_points)
        + len(metric.histogram.data_points)
    )


def _metrics(family: Family, began: int, now: int) -> Iterable[Metric]:
    if family.type == "counter":
        points = _numbers(family, f"{family.name}_total", began, now)
        total = Sum(
            data_points=points,
            aggregation_temporality=AGGREGATION_TEMPORALITY_CUMULATIVE,
            is_monotonic=True,
        )
        name = f"{family.name}_total"
        yield Metric(name=name, description=family.documentation, sum=total)
    elif family.type == "histogram":
        histogram = Histogram(
            data_points=_histograms(family, began, now),
            aggregation_temporality=AGGREGATION_TEMPORALITY_CUMULATIVE,
        )
        yield Metric(name=family.name, description=family.documentation, histogram=histogram)
    elif family.type == "gauge":
        gauge = Gauge(data_points=_numbers(family, family.name, 0, now))
        yield Metric(name=family.name, description=family.documentation, gauge=gauge)


def _numbers(family: Family, name: str, began: int, now: int) -> list[NumberDataPoint]:
    return [
        NumberDataPoint(
            attributes=key_values(sorted(sample.labels.items())),
            start_time_unix_nano=began,
            time_unix_nano=now,
            as_double=sample.value,
        )
        for sample in family.samples
        if sample.name == name
    ]


def _histograms(family: Family, began: int, now: int) -> list[HistogramDataPoint]:
    """Return a point for each set of labels; Prometheus' buckets count all below them."""
    found: dict[tuple[tuple[str, str], ...], dict[str, float]] = {}
    for sample in family.samples:
        labels = {name: value for name, value in sample.labels.items() if name != _BUCKET}
        part = sample.name.removeprefix(family.name) + sample.labels.get(_BUCKET, "")
        found.setdefault(tuple(sorted(labels.items())), {})[part] = sample.value
    return [_histogram(labels, values, began, now) for labels, values in found.items()]


def _histogram(
    labels: tuple[tuple[str, str], ...], values: Mapping[str, float], began: int, now: int
) -> HistogramDataPoint:
    buckets = sorted(
        (float(part.removeprefix("_bucket")), value)
        for part, value in values.items()
        if part.startswith("_bucket")
    )
    counts, below = list[int](), 0.0
    for _, value in buckets:
        counts.append(int(value - below))
        below = value
    return HistogramDataPoint(
        attributes=key_values(labels),
        start_time_unix_nano=began,
        time_unix_nano=now,
        count=int(values.get("_count", 0)),
        sum=values.get("_sum", 0.0),
        bucket_counts=counts,
        explicit_bounds=[bound for bound, _ in buckets if not math.isinf(bound)],
    )
