"""What was made of frozen objects, remembered by which objects they are.

Law: the same objects give the same result as if it were made anew; nothing is found by likeness,
so no two people can be taken for one another. No more than the capacity is held.

Comparing two principals member by member costs more than most of what is made of them; two
numbers do not. Whoever is remembered is held, so that its number is nobody else's meanwhile.
"""

from collections.abc import Callable
from typing import Generic, TypeVar, TypeVarTuple

Ts = TypeVarTuple("Ts")
T = TypeVar("T")


class Memo(Generic[*Ts, T]):
    """Call a pure function of frozen objects, once for the same ones."""

    def __init__(
        self,
        make: Callable[[*Ts], T],
        capacity: int = 4096,
        key: Callable[[*Ts], tuple[object, ...]] | None = None,
    ) -> None:
        """Take the function.

        Args:
            make: the function.
            capacity: how many results to hold; the oldest go first.
            key: by what results are found, where it is not by which objects the arguments are.
        """
        self._make = make
        self._capacity = capacity
        self._key = key
        self._made: dict[object, tuple[object, T]] = {}

    def __call__(self, *args: *Ts) -> T:
        """Return what the function returns for these very objects."""
        key = _which(args) if self._key is None else self._key(*args)
        found = self._made.get(key)
        if found is not None:
            return found[1]
        result = self._make(*args)
        if len(self._made) >= self._capacity:
            del self._made[next(iter(self._made))]
        self._made[key] = args, result
        return result

    def __len__(self) -> int:
        """Return how many results are held."""
        return len(self._made)


def _which(objects: tuple[object, ...]) -> object:
    """Return by what objects are found: their numbers."""
    # One and two, which nearly all memos are of, without a list.
    if len(objects) == 1:
        return id(objects[0])
    if len(objects) == 2:  # noqa: PLR2004 - said above
        return id(objects[0]), id(objects[1])
    return tuple([id(each) for each in objects])
