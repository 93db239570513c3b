"""Golden texts: what a person reads who made a mistake."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

GOLDEN = Path(__file__).with_name("mistakes.txt")
Case = tuple[list[tuple[int, str]], list[str]]


def cases() -> Iterator[tuple[str, Case]]:
    """Yield name, edits and expected lines of each case."""
    for block in GOLDEN.read_text().split("\n=== ")[1:]:
        name, *lines = block.rstrip("\n").split("\n")
        edits, expected = [], []
        for line in lines:
            edit = re.fullmatch(r"(\d)\|(.*)", line)
            if edit:
                edits.append((int(edit[1]), edit[2]))
            else:
                expected.append(line)
        yield name, (edits, expected)


def edited(text: str, edits: list[tuple[int, str]]) -> str:
    """Return a text with lines replaced, deleted or appended."""
    lines = dict(enumerate(text.splitlines(), start=1))
    new: dict[int, list[str]] = {number: [line] for number, line in lines.items()}
    for number, _ in edits:
        new[number] = []
    for number, line in edits:
        new[number] += [line] if line else []
    return "".join(f"{line}\n" for number in sorted(new) for line in new[number])


@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in cases()])
def test_mistake(case: Case, smallest: str, complaints: Callable[[str], list[str]]) -> None:
    """A mistake is answered with file, line, field, what is wrong and what would be right."""
    edits, expected = case

    assert expected == complaints(edited(smallest, edits))


def test_there_are_many_cases() -> None:
    """The golden file is read: a wrong separator does not make an empty test."""
    names = [name for name, _ in cases()]

    assert len(names) > 100
    assert len(set(names)) == len(names)


@pytest.mark.attack("zero-negative-nan-cost")
@pytest.mark.parametrize("cost", ["0", "-1", ".nan", ".inf", "true", "1.5", "'1'", "[]", "61"])
def test_cost(cost: str, smallest: str, complaints: Callable[[str], list[str]]) -> None:
    """A cost that is no whole number from 1 to the quota is an error of the configuration."""
    text = f"{smallest}    limits: [{{per: user, rate: 60/minute, cost: {cost}}}]\n"

    (line,) = complaints(text)

    assert line.startswith("authz.yaml:9: servers.files.limits[0].cost: ")


@pytest.mark.attack("zero-negative-nan-cost")
@pytest.mark.parametrize("rate", ["0/minute", "-1/minute", "60/0 minutes", "nan/minute", "60"])
def test_rate(rate: str, smallest: str, complaints: Callable[[str], list[str]]) -> None:
    """A rate that admits nothing, or over no time, is an error of the configuration."""
    (line,) = complaints(f"{smallest}    limits: [{{per: user, rate: {rate}}}]\n")

    assert line.startswith("authz.yaml:9: servers.files.limits[0].rate: ")
