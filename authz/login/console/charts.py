"""Charts of decisions as shapes of an SVG: stacked columns over time, by server or by reason.

Pure: counts in, rectangles out, all within the view.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from authz.ledger.activity import CountedStep, DecisionKind

WIDTH: Final = 720
HEIGHT: Final = 160
_MOST_SERIES: Final = 7  # the rest is one more, `others`
_OTHERS: Final = "others"
_GAP: Final = 0.15  # of a column's width


@dataclass(frozen=True, slots=True)
class Bar:
    """A part of a column.

    Attributes:
        series: which, by its place.
        x, y, width, height: of the rectangle, in the view's units.
    """

    series: int
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Series:
    """What one colour stands for.

    Attributes:
        name: a server or a reason.
        total: how many decisions.
        rate: of them a second, over the whole time.
    """

    name: str
    total: int
    rate: float


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart.

    Attributes:
        bars: what is drawn.
        series: what the colours stand for, the most first.
        top: decisions a second at the upper edge.
        begin, end: the time that it shows, seconds since the epoch.
        total: how many decisions.
    """

    bars: tuple[Bar, ...]
    series: tuple[Series, ...]
    top: float
    begin: int
    end: int
    total: int


def by_server(kind: DecisionKind) -> str:
    """Return the series of a chart by server."""
    return kind.server


def by_reason(kind: DecisionKind) -> str:
    """Return the series of a chart by reason."""
    return kind.reason


def draw(steps: Sequence[CountedStep], step: int, name: Callable[[DecisionKind], str]) -> Chart:
    """Draw counts.

    Args:
        steps: one after the other, at least one.
        step: seconds of each.
        name: which series a count belongs to.
    """
    columns = list[Counter[str]]()
    totals = Counter[str]()
    for each in steps:
        column = Counter[str]()
        for kind, count in each.counts.items():
            column[name(kind)] += count
        columns.append(column)
        totals += column
    # By name where equal: a page that is loaded again keeps its colours.
    names = sorted(totals, key=lambda each: (-totals[each], each))
    shown = names[:_MOST_SERIES]
    rest = names[_MOST_SERIES:]
    length = step * len(steps)
    series = [Series(each, totals[each], totals[each] / length) for each in shown]
    if rest:
        left = sum(totals[each] for each in rest)
        series.append(Series(_OTHERS, left, left / length))
    top = max((column.total() for column in columns), default=0)
    bars = list[Bar]()
    width = WIDTH / len(steps)
    for place, column in enumerate(columns):
        heights = [column[each] for each in shown]
        if rest:
            heights.append(sum(column[each] for each in rest))
        below = float(HEIGHT)
        for number, count in enumerate(heights):
            if count:
                height = HEIGHT * count / top
                below -= height
                bars.append(
                    Bar(
                        number,
                        round(width * (place + _GAP / 2), 2),
                        round(max(below, 0.0), 2),
                        round(width * (1 - _GAP), 2),
                        round(height, 2),
                    )
                )
    begin = steps[0].at
    return Chart(tuple(bars), tuple(series), top / step, begin, begin + length, totals.total())
