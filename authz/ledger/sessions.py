"""Who uses which session, in one process and in bounded memory.

Invariant: a binding is forgotten early only for `capacity` newer ones, of which one person has
`MOST_SESSIONS` at most; none of a person's own makes room for another person's before that.
"""

from collections import OrderedDict
from typing import Final, NamedTuple

from authz.core.ledger import MOST_SESSIONS, Session

_CAPACITY: Final = 50_000


class _Binding(NamedTuple):
    owner: str
    person: str
    ends: float


class SessionBindings:
    """Bind sessions to whoever uses them first, as the script does in Redis."""

    def __init__(self, capacity: int = _CAPACITY, most: int = MOST_SESSIONS) -> None:
        """Begin empty.

        Args:
            capacity: how many sessions are remembered, those used last.
            most: how many of them are one person's.
        """
        self._capacity = capacity
        self._most = most
        self._bound: OrderedDict[str, _Binding] = OrderedDict()
        # Of each person those that are bound, the newest last: no more than are in `_bound`.
        self._newest: dict[str, dict[str, None]] = {}

    def __len__(self) -> int:
        return len(self._bound)

    def is_of_another(self, session: Session, now: float) -> bool:
        """Tell whether somebody else uses the session; `now` is in seconds of one clock."""
        found = self._bound.get(session.id)
        return found is not None and now < found.ends and found.owner != session.owner

    def use(self, session: Session, now: float) -> None:
        """Bind the session, or let its binding live on; it is in nobody else's use."""
        found = self._bound.get(session.id)
        binding = _Binding(session.owner, session.person, now + session.lifetime)
        if found is not None and found.owner == session.owner and now < found.ends:
            self._bound[session.id] = binding
            self._bound.move_to_end(session.id)
            return
        if found is not None:
            self._forget(session.id)
        newest = self._newest.setdefault(session.person, {})
        self._bound[session.id], newest[session.id] = binding, None
        if len(newest) > self._most:
            self._forget(next(iter(newest)))
        if len(self._bound) > self._capacity:
            self._forget(next(iter(self._bound)))

    def _forget(self, session_id: str) -> None:
        person = self._bound.pop(session_id).person
        newest = self._newest[person]
        del newest[session_id]
        if not newest:
            del self._newest[person]
