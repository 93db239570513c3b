"""Which traces are kept, and what a `traceparent` of anybody changes about that."""

from hypothesis import given
from hypothesis import strategies as st

from authz.telemetry.traces import (
    Allowance,
    KeepOptions,
    Kept,
    OutgoingCall,
    Span,
    Tracer,
    read_traceparent,
)

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-00"


class Kit:
    """A tracer whose chance and clock the test sets."""

    def __init__(self, options: KeepOptions, chance: float = 0.5) -> None:
        self.now = 0.0
        self.kept: list[tuple[Span, ...]] = []
        self.dropped = 0
        self.tracer = Tracer(
            options, self.kept.append, self._drop, chance=lambda: chance, clock=lambda: self.now
        )

    def _drop(self) -> None:
        self.dropped += 1


def why(kit: Kit, from_envoy: str = "", from_client: str = "", seconds: float = 0.0,
        *, refused: bool = False, failed: bool = False) -> Kept | None:  # fmt: skip
    trace = kit.tracer.begin(from_envoy, 0.0)
    trace.adopt(from_client)
    return kit.tracer.why(trace, seconds, refused=refused, failed=failed)


def test_a_traceparent_is_read_as_it_is_written() -> None:
    """W3C Trace Context, section 3.2.2: ids, flags, later versions; nothing else is one."""
    found = read_traceparent(SAMPLED)
    assert found is not None
    assert (found.trace_id, found.span_id, found.sampled) == (TRACE, SPAN, True)
    later = read_traceparent(f"cc-{TRACE}-{SPAN}-03-what-the-future-will-be-like")
    assert later is not None
    assert later.sampled
    for wrong in (
        "", f"ff-{TRACE}-{SPAN}-01", f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01", f"{SAMPLED}-more", f"{SAMPLED}\n", f" {SAMPLED}",
        f"cc-{TRACE}-{SPAN}-01-{'a' * 1000}", f"00-{TRACE}-{SPAN}",
    ):  # fmt: skip
        assert read_traceparent(wrong) is None, wrong


@given(st.text(max_size=80))
def test_no_text_breaks_the_reading(text: str) -> None:
    """What strangers send is a context or none, and never an exception."""
    found = read_traceparent(text)
    assert found is None or (len(found.trace_id), len(found.span_id)) == (32, 16)


def test_a_strangers_flag_decides_nothing() -> None:
    """Its ids are continued; whether it is kept is chance, whatever flag it has."""
    for header in (SAMPLED, UNSAMPLED):
        assert why(Kit(KeepOptions(sample=0.0)), from_client=header) is None
        assert why(Kit(KeepOptions(sample=1.0)), from_client=header) is Kept.SAMPLE
    trace = Kit(KeepOptions()).tracer.begin("", 0.0)
    trace.adopt(SAMPLED)
    assert trace.trace_id == TRACE
    assert trace.parent is not None
    assert trace.parent.span_id == SPAN


def test_envoys_decision_holds_and_its_clients_does_not_replace_it() -> None:
    """Sampling by parent: Envoy's flag, in both directions."""
    never, always = KeepOptions(sample=0.0), KeepOptions(sample=1.0)
    assert why(Kit(never), SAMPLED, UNSAMPLED) is Kept.PARENT
    assert why(Kit(always), UNSAMPLED, SAMPLED) is None


def test_refusals_and_slow_ones_are_kept_at_a_sample_of_nothing() -> None:
    """Decided at the end, also where Envoy does not keep the trace; each rule can be left out."""
    nothing = KeepOptions(sample=0.0, slower_than=0.1)
    assert why(Kit(nothing), UNSAMPLED, refused=True) is Kept.REFUSAL
    assert why(Kit(nothing), UNSAMPLED, seconds=0.1) is Kept.SLOW
    assert why(Kit(nothing), seconds=0.099) is None
    assert why(Kit(nothing), failed=True, refused=True) is Kept.FAILED
    neither = KeepOptions(sample=0.0, refusals=False, slower_than=None)
    assert why(Kit(neither), refused=True) is None
    assert why(Kit(neither), seconds=1e9) is None


def test_a_flood_of_refusals_is_bounded_and_costs_others_nothing() -> None:
    """No more than so many a second are kept, refusals and others apart; the rest is counted."""
    kit = Kit(KeepOptions(sample=0.0, at_most=10.0))
    assert sum(why(kit, refused=True) is not None for _ in range(1000)) == 10
    assert kit.dropped == 990
    assert why(kit, SAMPLED) is Kept.PARENT
    kit.now = 1.0
    assert sum(why(kit, refused=True) is not None for _ in range(1000)) == 10


def test_an_allowance_saves_up_a_second_at_most() -> None:
    """A quiet hour allows no flood after it; a slow rate still allows one."""
    now = [0.0]
    slow = Allowance(0.01, lambda: now[0])
    assert [slow.take(), slow.take()] == [True, False]
    now[0] = 3600.0
    assert [slow.take(), slow.take()] == [True, False]


def test_stages_follow_one_another_below_the_span_of_the_whole() -> None:
    """Each ends where the next begins, the last with the whole; calls are beside them."""
    kit = Kit(KeepOptions())
    trace = kit.tracer.begin(SAMPLED, 10.0)
    trace.read_at, trace.ledger_at = 10.0, 10.25
    assert trace.add(OutgoingCall("GET /jwks", 10.1, 10.2, (), "503"))
    kit.tracer.finish(trace, "authorize", 1.0, (("authz.verdict", "allow"),), "")
    (spans,) = kit.kept
    whole, read, ledger, call = spans
    assert (whole.parent_id, whole.is_parent_elsewhere) == (SPAN, True)
    assert {each.parent_id for each in (read, ledger, call)} == {whole.span_id}
    assert {each.trace_id for each in spans} == {TRACE}
    assert len({each.span_id for each in spans}) == 4
    assert abs(read.ended - ledger.began) < 1e-6
    assert abs(ledger.ended - whole.ended) < 1e-6
    assert (call.name, call.error) == ("GET /jwks", "503")


def test_only_stages_that_began_are_spans_in_their_order() -> None:
    """Whatever a check leaves out, confirming or a step-up, what follows it keeps its name."""
    kit = Kit(KeepOptions())
    order = ["read", "token", "rules", "confirm", "ledger", "answer", "step_up"]
    for left_out in ("", "confirm", "ledger", "step_up"):
        trace = kit.tracer.begin("", 10.0)
        entered = [name for name in order if name != left_out]
        for number, name in reversed(list(enumerate(entered))):
            setattr(trace, f"{name}_at", 10.0 + number)
        kit.tracer.finish(trace, "authorize", 9.0, (), "")
        _, *stages = kit.kept.pop()
        assert [each.name for each in stages] == entered
        lengths = [each.ended - each.began for each in stages]
        assert all(abs(each - 1.0) < 1e-3 for each in lengths[:-1]), lengths


def test_a_call_that_outlives_its_trace_is_one_of_its_own() -> None:
    """A fetch for several goes on when the one who began it has its answer; failed, it is kept."""
    kit = Kit(KeepOptions(sample=0.0))
    trace = kit.tracer.begin("", 0.0)
    kit.tracer.why(trace, 0.0, refused=False, failed=False)
    assert not trace.add(OutgoingCall("GET /jwks", 0.0, 1.0, (), ""))
    kit.tracer.call_alone(OutgoingCall("GET /jwks", 0.0, 0.01, (), ""))
    assert kit.kept == []
    kit.tracer.call_alone(OutgoingCall("GET /jwks", 0.0, 0.01, (), "ConnectError"))
    ((span,),) = kit.kept
    assert (span.name, span.parent_id, span.error) == ("GET /jwks", "", "ConnectError")


def test_the_upstream_is_told_of_our_span_and_of_what_was_chosen() -> None:
    """The header names the span that is sent, and says whether it will be."""
    kit = Kit(KeepOptions(sample=1.0))
    trace = kit.tracer.begin("", 0.0)
    trace.adopt(UNSAMPLED)
    assert kit.tracer.traceparent(trace) == f"00-{TRACE}-{trace.span_id}-01"
    assert read_traceparent(kit.tracer.traceparent(trace)) is not None
