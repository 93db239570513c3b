"""The span of a request to the pages."""

import pytest

from authz.telemetry.request_spans import begin_trace, end_trace
from authz.telemetry.traces import KeepOptions, Span, Tracer

SAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def spans(
    options: KeepOptions, *traceparents: str, status: int = 200, method: str = "GET"
) -> list[tuple[Span, ...]]:
    kept: list[tuple[Span, ...]] = []
    tracer = Tracer(options, kept.append, lambda: None)
    end_trace(tracer, begin_trace(tracer, traceparents), method, "/token", status)
    return kept


def test_envoys_flag_counts_only_where_envoy_writes_it() -> None:
    """Else the header is the client's own, which decides nothing."""
    nothing, behind = KeepOptions(sample=0.0), KeepOptions(sample=0.0, envoy_traces=True)
    assert spans(nothing, SAMPLED) == []
    assert len(spans(behind, SAMPLED)) == 1
    assert spans(behind, SAMPLED, SAMPLED) == []


@pytest.mark.parametrize(
    ("status", "error"), [(200, ""), (403, ""), (503, "503"), (0, "no_answer")]
)
def test_what_fails_here_is_an_error(status: int, error: str) -> None:
    """A refusal is the caller's affair; no answer at all is ours."""
    ((span,),) = spans(KeepOptions(sample=1.0), status=status)
    assert (span.name, span.error) == ("GET /token", error)


def test_no_word_of_a_caller_is_in_it() -> None:
    """The method is one of HTTP's, the path one that is declared."""
    ((span,),) = spans(KeepOptions(sample=1.0), method="s3cret")
    assert "s3cret" not in repr(span)
