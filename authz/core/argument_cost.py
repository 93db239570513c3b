"""What a call counts as by one of its arguments, within bounds.

Invariant: whatever a caller sends, the cost is within the bounds, and it is less than the most only
where every parser reads the same positive integer (tests/core/test_limit_costs.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from authz.core.json_pointer import JsonPointer

# Selections and evaluations are cached by the cost, which callers choose: they must stay few.
MAX_ARGUMENT_COST: Final = 1000


@dataclass(frozen=True, slots=True)
class ArgumentCost:
    """Count a call as many requests as an argument says.

    Args:
        pointer: the argument.
        least: what a call counts as at least, from 1.
        most: what it counts as at most, up to `MAX_ARGUMENT_COST`, and where the argument is no
            positive integer, is not there, or can be read in two ways: the server may do anything.
    """

    pointer: JsonPointer
    least: int
    most: int

    def __post_init__(self) -> None:
        """Refuse bounds that are none.

        Raises:
            ValueError: where not 1 <= least <= most <= `MAX_ARGUMENT_COST`.
        """
        if not 1 <= self.least <= self.most <= MAX_ARGUMENT_COST:
            raise ValueError("bounds of a cost out of range")

    def of(self, arguments: Mapping[str, object] | None) -> int:
        """Return what a call with these arguments counts as; None where they are no object."""
        found = None if arguments is None else self.pointer.find(arguments)
        # Zero and less mean "all" to many servers; true is an int to Python, 5.0 and 1e3 are
        # floats.
        if not isinstance(found, int) or isinstance(found, bool) or found < 1:
            return self.most
        return min(max(found, self.least), self.most)
