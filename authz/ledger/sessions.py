"""Who uses which session, in one process and in bounded memory.

Invariant: a binding is forgotten early only for `capacity` newer ones, of which one person has
`MOST_SESSIONS` at most; none of a person's own makes room for another person's before that.
"""

from collections import OrderedDict, deque
from typing import Final, NamedTuple

from authz.core.ledger import MOST_SESSIONS, Session

_CAPACITY: Final = 50_000


class _Binding(NamedTuple):
    owner: str
    person: str
    ends: float


class Sessions:
    """Bind sessions to whoever uses them first, as the script does in Redis."""

    def __init__(self, capacity: int = _CAPACITY) -> None:
        """Begin empty; `capacity` sessions are remembered, those used last."""
        self._capacity = capacity
        self._bound: OrderedDict[str, _Binding] = OrderedDict()
        self._newest: OrderedDict[str, deque[str]] = OrderedDict()  # of each person

    def __len__(self) -> int:
        return len(self._bound)

    def is_of_another(self, session: Session, now: float) -> bool:
        """Tell whether somebody else uses the session; `now` is in seconds of one clock."""
        found = self._bound.get(session.id)
        return found is not None and now < found.ends and found.owner != session.owner

    def use(self, session: Session, now: float) -> None:
        """Bind the session, or let its binding live on; it is in nobody else's use."""
        found = self._bound.get(session.id)
        if found is None or found.owner != session.owner or found.ends <= now:
            self._note(session)
        self._bound[session.id] = _Binding(session.owner, session.person, now + session.lifetime)
        self._bound.move_to_end(session.id)
        while len(self._bound) > self._capacity:
            self._bound.popitem(last=False)

    def _note(self, session: Session) -> None:
        """Note a new binding; the person's oldest makes room, unless it is another's by now."""
        newest = self._newest.setdefault(session.person, deque())
        self._newest.move_to_end(session.person)
        newest.append(session.id)
        if len(newest) > MOST_SESSIONS:
            oldest = newest.popleft()
            held = self._bound.get(oldest)
            if held is not None and held.person == session.person:
                del self._bound[oldest]
        while len(self._newest) > self._capacity:
            self._newest.popitem(last=False)
