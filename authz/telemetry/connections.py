"""Tell connections as stories: which events of logs belong to one log-in, and where it stopped.

Ties, from the strongest: the grant (from consent to every call), the digest of the authorization
request (authorize, consent, callback), the digest of the client's id (registration, token), and the
address, which is a guess: many people share one, and a hosted assistant's is not its person's.

Invariant: memory is bounded whatever a log holds. One network has a bounded number of stories that
no log-in belongs to, so that a stranger pushes out no story of another network
(tests/telemetry/test_connections.py).
"""

from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from authz.telemetry.connection_events import OK, ConnectionEvent, Stage

_NETWORK_STORIES: Final = 20  # of one network, without a grant
_STORIES: Final = 10_000
_EVENTS: Final = 40  # of one story; repetitions are counted, not kept
_SOON: Final = 900.0  # seconds in which events of one address may be of one log-in
_ID: Final = 16  # hex digits
_UNKNOWN: Final = "unknown"  # the network of what has no address


@dataclass(slots=True)
class Story:
    """What is known of one connection.

    Attributes:
        id: to ask for it by.
        events: in the order of time.
        repeated: how often an event was like one before it: by stage and outcome.
        networks: that took part.
        client, server, subject, grant: empty while not known.
        guessed: stages that were tied by address alone.
    """

    id: str
    events: list[ConnectionEvent] = field(default_factory=list)
    repeated: Counter[tuple[Stage, str]] = field(default_factory=Counter)
    networks: list[str] = field(default_factory=list)
    client: str = ""
    server: str = ""
    subject: str = ""
    grant: str = ""
    guessed: set[Stage] = field(default_factory=set)

    @property
    def began(self) -> float:
        """Return when its first event was."""
        return min(event.time for event in self.events)

    @property
    def last(self) -> float:
        """Return when its last event was."""
        return max(event.time for event in self.events)

    @property
    def is_proved(self) -> bool:
        """Tell whether a person has logged in: what no stranger can bring about."""
        return any(
            event.stage >= Stage.CALL or (event.stage is Stage.TOKEN and event.outcome == OK)
            for event in self.events
        )

    @property
    def is_prelude(self) -> bool:
        """Tell whether no log-in has begun yet."""
        return all(event.stage < Stage.AUTHORIZE for event in self.events)

    def add(self, event: ConnectionEvent) -> bool:
        """Take an event, or count it where the story has one like it; tell whether it was taken."""
        known = any(_alike(each, event) for each in self.events)
        if known or len(self.events) >= _EVENTS:
            if known or len(self.repeated) < _EVENTS:
                self.repeated[event.stage, event.outcome] += 1
            return False
        self.events.append(event)
        if event.network and event.network not in self.networks:
            self.networks.append(event.network)
        self.client = self.client or event.client
        self.server = self.server or event.server
        self.subject = self.subject or event.subject
        self.grant = self.grant or event.grant
        return True

    def reached(self) -> ConnectionEvent:
        """Return the event that says how far it came: the last one of the furthest stage.

        A page that a person saw after it says more, until the client has its tokens.
        """
        ordered = sorted(self.events, key=lambda event: event.time)
        steps = [event for event in ordered if not event.is_page] or ordered
        furthest = max(event.stage for event in steps)
        at = [event for event in steps if event.stage == furthest]
        called = [event for event in at if event.stage is Stage.CALL and event.outcome == OK]
        found = (called or at)[-1]
        pages = [event for event in ordered if event.is_page and event.time >= found.time]
        return pages[-1] if pages and found.stage < Stage.TOKEN else found


def _alike(one: ConnectionEvent, other: ConnectionEvent) -> bool:
    return (one.stage, one.outcome, one.detail, one.grant, one.client_key) == (
        other.stage,
        other.outcome,
        other.detail,
        other.grant,
        other.client_key,
    )


class Connections:
    """Collect stories from events in the order of time.

    Attributes:
        left_out: stories that made room for newer ones.
    """

    def __init__(self) -> None:
        """Begin without any."""
        self._stories: OrderedDict[str, Story] = OrderedDict()
        # To ids of stories, from marks of events that those have kept.
        self._by_attempt: dict[str, str] = {}
        self._by_grant: dict[str, str] = {}
        self._by_client: dict[str, str] = {}  # of clients that have registered
        self._latest: dict[str, str] = {}  # by network
        self._unproved: dict[str, OrderedDict[str, None]] = {}  # by network of the first event
        self._all_unproved: OrderedDict[str, None] = OrderedDict()
        self.left_out = 0

    def add(self, event: ConnectionEvent) -> None:
        """Take one event."""
        story = self._find(event) or self._begin(event)
        if story.add(event):
            self._index(story, event)

    def stories(self) -> list[Story]:
        """Return what there is, the latest last."""
        return sorted(self._stories.values(), key=lambda story: story.last)

    def wants_calls(self, grant: str) -> bool:
        """Tell whether calls under a grant are news: until one was allowed."""
        story = self._stories.get(self._by_grant.get(grant, ""))
        return story is None or not any(
            event.stage is Stage.CALL and event.outcome == OK for event in story.events
        )

    def _find(self, event: ConnectionEvent) -> Story | None:
        for index, mark in ((self._by_grant, event.grant), (self._by_attempt, event.attempt)):
            story = self._stories.get(index.get(mark, "")) if mark else None
            if story is not None:
                self._take_prelude(story, event)
                return story
        if event.stage >= Stage.CALL:
            return None  # its log-in is not in this log
        if event.attempt:
            return self._prelude_of(event)
        registered = self._stories.get(self._by_client.get(event.client_key, ""))
        if registered is not None and abs(event.time - registered.last) < _SOON:
            return registered
        story = self._latest_of(event.network, event.time)
        if story is None:
            return None
        if event.stage < Stage.AUTHORIZE:
            return story if story.is_prelude and not _is_of_another(story, event) else None
        # A page, or a request that names nothing of a log-in: perhaps of the last one from there.
        if story.is_proved or _is_of_another(story, event):
            return None
        story.guessed.add(event.stage)
        return story

    def _prelude_of(self, event: ConnectionEvent) -> Story | None:
        """Return the story that a new log-in goes on with."""
        registered = self._stories.get(self._by_client.get(event.client_key, ""))
        if registered is not None and registered.is_prelude:
            return registered
        story = self._latest_of(event.network, event.time)
        if story is None or not story.is_prelude or _is_of_another(story, event):
            return None
        story.guessed |= {each.stage for each in story.events}
        return story

    def _take_prelude(self, story: Story, event: ConnectionEvent) -> None:
        """Tie what an address asked before its token request to the log-in: a guess."""
        begun = any(each.stage < Stage.CLIENT_DOCUMENT for each in story.events)
        if event.stage is not Stage.TOKEN or begun:
            return
        prelude = self._latest_of(event.network, event.time)
        if prelude is None or not prelude.is_prelude or _is_of_another(prelude, event):
            return
        self._drop(prelude)
        for each in prelude.events:
            story.add(each)
            story.guessed.add(each.stage)
        story.repeated.update(prelude.repeated)

    def _latest_of(self, network: str, now: float) -> Story | None:
        if network in ("", _UNKNOWN):
            return None
        story = self._stories.get(self._latest.get(network, ""))
        return story if story is not None and abs(now - story.last) < _SOON else None

    def _begin(self, event: ConnectionEvent) -> Story:
        mark = event.attempt or event.grant
        if not mark:
            text = f"{event.time} {event.network} {event.client_key} {event.request_id}"
            mark = sha256(text.encode("utf-8", "replace")).hexdigest()
        story = Story(mark[:_ID])
        if story.id in self._stories:
            self._drop(self._stories[story.id])
        self._make_room(event.network)
        self._stories[story.id] = story
        self._unproved.setdefault(event.network, OrderedDict())[story.id] = None
        self._all_unproved[story.id] = None
        return story

    def _index(self, story: Story, event: ConnectionEvent) -> None:
        if event.attempt:
            self._by_attempt[event.attempt] = story.id
        if event.grant:
            self._by_grant[event.grant] = story.id
        if event.client_key and (
            event.stage is Stage.REGISTER or event.client_key in self._by_client
        ):
            self._by_client[event.client_key] = story.id
        if event.network:
            self._latest[event.network] = story.id
        if story.is_proved:
            self._forget_unproved(story)

    def _make_room(self, network: str) -> None:
        """Forget the oldest story of a network that has too many, or the oldest of all.

        Those in which somebody has logged in are the last to go.
        """
        if len(self._unproved.get(network, ())) >= _NETWORK_STORIES:
            self._drop(self._stories[next(iter(self._unproved[network]))])
            self.left_out += 1
        if len(self._stories) >= _STORIES:
            self._drop(self._stories[next(iter(self._all_unproved or self._stories))])
            self.left_out += 1

    def _forget_unproved(self, story: Story) -> None:
        self._all_unproved.pop(story.id, None)
        first = story.events[0].network
        mine = self._unproved.get(first)
        if mine is not None:
            mine.pop(story.id, None)
            if not mine:
                del self._unproved[first]

    def _drop(self, story: Story) -> None:
        del self._stories[story.id]
        self._forget_unproved(story)
        marks = {
            mark
            for event in story.events
            for mark in (event.attempt, event.grant, event.client_key, event.network)
        }
        for index in (self._by_attempt, self._by_grant, self._by_client, self._latest):
            for mark in marks:
                if index.get(mark) == story.id:
                    del index[mark]


def _is_of_another(story: Story, event: ConnectionEvent) -> bool:
    """Tell whether a story is of another client than an event."""
    keys = {each.client_key for each in story.events} - {""}
    return bool(keys) and bool(event.client_key) and event.client_key not in keys
