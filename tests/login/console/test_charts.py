"""Charts of decisions: every count is drawn, and nothing outside the view."""

from hypothesis import given
from hypothesis import strategies as st

from authz.ledger.activity import CountedStep, DecisionKind
from authz.login.console.charts import HEIGHT, WIDTH, by_reason, by_server, draw

NAMES = st.sampled_from([f"name-{number}" for number in range(12)])
STEPS = st.lists(
    st.dictionaries(st.builds(DecisionKind, NAMES, NAMES), st.integers(0, 10**12), max_size=20),
    min_size=1,
    max_size=60,
)


@given(STEPS, st.sampled_from([by_server, by_reason]))
def test_all_is_drawn_within_the_view(counts: list[dict[DecisionKind, int]], name: object) -> None:
    """The series hold every decision, at most eight of them; each rectangle lies within the view,
    and those of one column do not overlap.
    """
    steps = [CountedStep(60 * number, each) for number, each in enumerate(counts)]
    chart = draw(steps, 60, name)  # type: ignore[arg-type]

    total = sum(sum(each.values()) for each in counts)
    assert chart.total == total == sum(each.total for each in chart.series)
    assert len(chart.series) <= 8
    assert (chart.begin, chart.end) == (0, 60 * len(steps))
    for bar in chart.bars:
        assert bar.x >= 0
        assert bar.x + bar.width <= WIDTH + 0.02
        assert bar.y >= 0
        assert bar.y + bar.height <= HEIGHT + 0.1
        assert bar.series < len(chart.series)
    columns: dict[float, float] = {}
    for bar in chart.bars:
        columns[bar.x] = columns.get(bar.x, 0.0) + bar.height
    assert all(height <= HEIGHT + 0.1 for height in columns.values())
