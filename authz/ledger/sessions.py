"""Bindings of MCP sessions to their first user, in memory, as take.lua keeps them in Redis.

Invariant: a binding is evicted only for `capacity` newer ones, of which one person has at most
MOST_SESSIONS (tests/ledger/test_sessions.py).
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
    """Bind each session to its first user."""

    def __init__(self, capacity: int = _CAPACITY, most: int = MOST_SESSIONS) -> None:
        """Begin empty.

        Args:
            capacity: the most sessions; those used longest ago are evicted.
            most: the most of one person.
        """
        self._capacity = capacity
        self._most = most
        self._bound: OrderedDict[str, _Binding] = OrderedDict()
        # The bound sessions of each person, the newest last.
        self._newest: dict[str, dict[str, None]] = {}

    def __len__(self) -> int:
        return len(self._bound)

    def is_of_another(self, session: Session, now: float) -> bool:
        """Tell whether somebody else uses the session; `now` is in seconds of one clock."""
        found = self._bound.get(session.id)
        return found is not None and now < found.ends and found.owner != session.owner

    def use(self, session: Session, now: float) -> None:
        """Bind the session or renew its binding; nobody else uses it (`is_of_another`)."""
        found = self._bound.get(session.id)
        binding = _Binding(session.owner, session.person, now + session.lifetime)
        if found is not None and found.owner == session.owner and now < found.ends:
            self._bound[session.id] = binding
            self._bound.move_to_end(session.id)
            return
        if found is not None:
            self._evict(session.id)
        newest = self._newest.setdefault(session.person, {})
        self._bound[session.id], newest[session.id] = binding, None
        if len(newest) > self._most:
            self._evict(next(iter(newest)))
        if len(self._bound) > self._capacity:
            self._evict(next(iter(self._bound)))

    def _evict(self, session_id: str) -> None:
        person = self._bound.pop(session_id).person
        newest = self._newest[person]
        del newest[session_id]
        if not newest:
            del self._newest[person]
