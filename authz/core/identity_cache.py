"""Bounded cache keyed by object identity, owned by whoever owns the values (a Snapshot).

Invariant: the same objects give the same result as if it were made anew; nothing is found by
equality, so no two people can be taken for one another. No function has more results than the
capacity.

Comparing two principals member by member costs more than most results that are cached; comparing
two ids does not. The arguments are held with the result, so that their ids are not reused.
cachetools has no such key, and its caches cost several times this dict on the path of a decision.
"""

from collections.abc import Callable
from typing import TypeVar, TypeVarTuple, cast

Ts = TypeVarTuple("Ts")
T = TypeVar("T")


class IdentityCache:
    """Cache results of pure functions of frozen objects."""

    def __init__(self, capacity: int = 16_384) -> None:
        """Take how many results to hold of each function; the oldest go first."""
        self._capacity = capacity
        self._tables: dict[object, dict[object, tuple[object, object]]] = {}

    def get(self, make: Callable[[*Ts], T], *args: *Ts) -> T:
        """Return what the function returns for these very objects."""
        key = _ids(args)
        found = self._table(make).get(key)
        return self._add(key, make, *args) if found is None else cast(T, found[1])

    def find(self, key: object, make: Callable[[*Ts], T], *args: *Ts) -> T:
        """Return what the function returns, found by another key than all arguments' ids.

        Ids within the key must be those of arguments.
        """
        found = self._table(make).get(key)
        return self._add(key, make, *args) if found is None else cast(T, found[1])

    def _table(self, make: object) -> dict[object, tuple[object, object]]:
        table = self._tables.get(make)
        if table is None:
            table = self._tables[make] = {}
        return table

    def _add(self, key: object, make: Callable[[*Ts], T], *args: *Ts) -> T:
        result, table = make(*args), self._table(make)
        if len(table) >= self._capacity:
            del table[next(iter(table))]
        table[key] = args, result
        return result

    def __len__(self) -> int:
        """Return how many results are held."""
        return sum(map(len, self._tables.values()))


def _ids(objects: tuple[object, ...]) -> object:
    # One and two, which nearly all functions take, without a list.
    if len(objects) == 1:
        return id(objects[0])
    if len(objects) == 2:  # noqa: PLR2004 - said above
        return id(objects[0]), id(objects[1])
    return tuple([id(each) for each in objects])
