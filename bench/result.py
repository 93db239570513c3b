"""What a bench found: figures, each with its ratio to a named baseline of the same run."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Found:
    """One figure.

    Attributes:
        bench, case, figure: what was measured: `transports`, `pyvoy full`, `CPU µs`.
        value: the median of the rounds.
        baseline: the case that it is compared with.
        ratio: the median of the ratios to the baseline of the same round.
        spread: the quartiles of these ratios; None where there were no rounds.
    """

    bench: str
    case: str
    figure: str
    value: float
    baseline: str
    ratio: float
    spread: tuple[float, float] | None = None


def compare(
    bench: str, figures: Sequence[str], rows: Mapping[str, Sequence[Sequence[float]]], baseline: str
) -> list[Found]:
    """Return every figure of every case, compared round by round with the baseline's.

    Args:
        bench: its name.
        figures: the names of the columns.
        rows: by case, a list of rounds, each with the columns.
        baseline: the case that the others are compared with.
    """
    found = []
    for case, rounds in rows.items():
        for column, figure in enumerate(figures):
            pairs = zip(rounds, rows[baseline], strict=True)
            ratios = sorted(one[column] / other[column] for one, other in pairs if other[column])
            value = statistics.median(each[column] for each in rounds)
            ratio = statistics.median(ratios) if ratios else float("nan")
            last = len(ratios) - 1
            spread = (ratios[round(last / 4)], ratios[round(last * 3 / 4)]) if ratios else None
            found.append(Found(bench, case, figure, value, baseline, ratio, spread))
    return found


def show(found: Sequence[Found]) -> None:
    """Print a table: a line a case, a column a figure."""
    cases = list(dict.fromkeys(each.case for each in found))
    figures = list(dict.fromkeys(each.figure for each in found))
    cells = {(each.case, each.figure): f"{each.value:9.1f} ({each.ratio:5.2f})" for each in found}
    print(f"\n{found[0].bench}; ratios to: {found[0].baseline}")
    print(f"{'':24}" + "".join(f"{figure:>18}" for figure in figures))
    for case in cases:
        print(f"{case:24}" + "".join(f"{cells[case, figure]:>18}" for figure in figures))


def show_spread(found: Sequence[Found]) -> None:
    """Print a line a figure, with the quartiles of its ratios."""
    print(f"\n{found[0].bench}; ratios to: {found[0].baseline}, with quartiles")
    for each in found:
        low, high = (float("nan"),) * 2 if each.spread is None else each.spread
        print(f"{each.case:16}{each.figure:16}{each.value:9.1f} {each.ratio:7.3f}"
              f" ({low:.3f}-{high:.3f})")  # fmt: skip


def as_json(found: Sequence[Found]) -> str:
    """Return all of it as JSON."""
    return json.dumps([asdict(each) for each in found], indent=1) + "\n"
