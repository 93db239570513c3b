"""The catalogue of each server's tool definitions: observed, shared between workers, asked for.

Invariant: a decision finds what is known in memory and waits for nothing. What does not fit, or
cannot be read, makes a tool stricter, never looser (tests/server/test_tool_catalogues.py).

Three sources: the lists that clients are sent (`read`, `see`), the servers themselves, which one
worker asks now and then for those whose rules need it, and the store, where the others' findings
are.
"""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from hashlib import sha256
from typing import Final

from authz.config.model import Config, ServerConfig
from authz.core.catalogue import (
    MAX_NAME,
    OVERLAP,
    Catalogue,
    DefinitionError,
    PinState,
    Sighting,
    ToolDefinition,
    catalogue_of,
    parse_definition,
    pin_state,
    stand_in,
)
from authz.core.ledger import UnavailableError
from authz.core.listing import Definition
from authz.core.methods import TOOLS_CALL
from authz.core.policy import Policy
from authz.ledger.sightings import KEPT, SightingStore
from authz.server.deployment_events import DeploymentEvents
from authz.server.tool_lists import ToolList, ToolListError, list_tools
from authz.telemetry.recorder import Recorder
from authz.telemetry.security_events import EventFacts, SecurityEvent

MAX_SIGHTINGS: Final = 2048  # of a server
MAX_TEXT: Final = 2 << 20  # characters of all its definitions
MAX_REMEMBERED: Final = 4096  # readings, of all servers
ASK_EVERY: Final = 60.0  # seconds
_RETRY: Final = 5.0
_LOOK: Final = 1.0
# Seconds after which the store is told again that a definition is still listed.
_SEEN_AGAIN: Final = 60
_MOST_EVENTS: Final = 20  # of one list

AskServer = Callable[[ServerConfig], Awaitable[ToolList]]


class ToolCatalogues:
    """The catalogues of one configuration.

    Attributes:
        catalogues: by server, for decisions; each is replaced whole.
    """

    def __init__(
        self,
        config: Config,
        policy: Policy,
        store: SightingStore,
        recorder: Recorder,
        *,
        before: "ToolCatalogues | None" = None,
        events: DeploymentEvents | None = None,
        ask: AskServer = list_tools,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Begin with what the catalogues before knew; nothing is asked yet.

        Args:
            config: authz.yaml.
            policy: what it was compiled to.
            store: shared by the workers.
            recorder: where changes go.
            before: of the configuration before; None at the start.
            events: tells what changed once for all workers; None for each by itself.
            ask: asks a server for its tools.
            clock: seconds since the epoch.
        """
        self.catalogues: dict[str, Catalogue] = {}
        self._config = config
        self._policy = policy
        self._store = store
        self._recorder = recorder
        self._events = DeploymentEvents(recorder) if events is None else events
        self._ask = ask
        self._clock = clock
        self._known: dict[str, dict[str, Sighting]] = {}
        self._written: dict[str, dict[str, int]] = {name: {} for name in policy.servers}
        self._unsaved: dict[str, dict[str, Sighting]] = {name: {} for name in policy.servers}
        self._readings = _DefinitionCache()
        self._blocked: dict[str, int] = {}  # until when nothing is believed of a server
        self._versions: dict[str, str] = {}
        self._asked: Mapping[str, int] = {}
        self._unapproved: dict[str, Mapping[str, PinState]] = {}
        self._faults: dict[str, str] = {}
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        for name in policy.servers:
            self._known[name] = {} if before is None else before.sightings(name)
            self._rebuild(name)

    def sightings(self, server: str) -> dict[str, Sighting]:
        """Return what is known of a server, by digest; empty of one that is not configured."""
        return dict(self._known.get(server, {}))

    # --- observing ------------------------------------------------------------------------------

    def read(self, server: str, definitions: Iterable[Definition]) -> tuple[ToolDefinition, ...]:
        """Return the tools of a list as a server sent it, for `see`; any thread may ask.

        None of a server whose rules do not look at what it says.
        """
        if not self._uses(server):
            return ()
        tools = [each for each in definitions if each.listed.call == TOOLS_CALL]
        read = self._readings.read
        found = [read(each.name, each.raw) for each in tools if each.name is not None]
        return tuple([each for each in found if each is not None])

    def see(self, server: str, definitions: tuple[ToolDefinition, ...]) -> None:
        """Take notice of a list, whoever asked for it; it counts at once."""
        now = int(self._clock())
        if server not in self._known or self._blocked.get(server, 0) > now:
            return
        known, written = self._known[server], self._written[server]
        seen = [known.get(each.digest) for each in definitions]
        if seen and all(each is not None and each.seen == now for each in seen):
            return
        self._report_changes(server, definitions)
        for definition in definitions:
            sighting = known[definition.digest] = Sighting(definition, now)
            if now - written.get(definition.digest, 0) >= _SEEN_AGAIN:
                self._unsaved[server][definition.digest] = sighting
        self._bound(server, now)
        self._rebuild(server)
        if self._unsaved[server]:
            self._wake.set()

    def _bound(self, server: str, now: int) -> None:
        """Forget what is old; of a server that lists too much, everything."""
        known, unsaved, written = self._known[server], self._unsaved[server], self._written[server]
        if not _forget_old(known, now):
            known.clear()
            self._blocked[server] = now + OVERLAP
            self._recorder.metrics.tool_changes.labels(server, "too_many").inc()
            self._recorder.event("tools_too_many", server=server)
        for digest in [each for each in unsaved if each not in known]:
            del unsaved[digest]
        for digest in [each for each in written if each not in known]:
            del written[digest]

    def _rebuild(self, server: str) -> None:
        made = catalogue_of(self._known[server].values())
        if made != self.catalogues.get(server):
            self.catalogues[server] = made
            self._report_unapproved(server)

    # --- telling --------------------------------------------------------------------------------

    def _report_changes(self, server: str, definitions: tuple[ToolDefinition, ...]) -> None:
        """Tell what is new in a list, before it is known."""
        known, before = self._known[server], self.catalogues[server]
        new = [each for each in definitions if each.digest not in known] if known else []
        for definition in new[:_MOST_EVENTS]:
            was = before.tools.get(definition.name)
            fields: dict[str, object] = {"server": server, "tool": definition.name}
            if was is None:
                change = "added"
            elif was.annotations == definition.annotations:
                change = "definition"
            else:
                change = "annotations"
                fields["before"] = sorted(each.value for each in was.annotations)
                fields["after"] = sorted(each.value for each in definition.annotations)
            self._recorder.metrics.tool_changes.labels(server, change).inc()
            self._recorder.event("tool_listed_anew", change=change, **fields)
            if was is not None:
                self._tell_changed(server, definition.name, change, definition.digest)
        if len(new) > _MOST_EVENTS:
            self._recorder.event("tools_listed_anew", server=server, more=len(new) - _MOST_EVENTS)

    def _report_unapproved(self, server: str) -> None:
        """Tell which tools are not as they were approved, once for each."""
        pins, catalogue = self._policy.servers[server].pins, self.catalogues[server]
        if pins is None:
            return
        states = {name: pin_state(pins, catalogue, name) for name in catalogue.tools}
        found = {name: each for name, each in states.items() if each is not PinState.APPROVED}
        was = self._unapproved.get(server, {})
        self._unapproved[server] = found
        new = [(name, state) for name, state in found.items() if was.get(name) is not state]
        for name, state in new[:_MOST_EVENTS]:
            self._recorder.metrics.tool_changes.labels(server, state.value).inc()
            self._recorder.event(
                "tool_not_approved",
                server=server,
                tool=name,
                state=state.value,
                pins=pins.mode.value,
            )
            if state is PinState.CHANGED:
                digests = sorted(catalogue.tools[name].digests)
                self._tell_changed(server, name, "not as approved", *digests)
        if len(new) > _MOST_EVENTS:
            self._recorder.event("tools_not_approved", server=server, more=len(new) - _MOST_EVENTS)

    def _tell_changed(self, server: str, tool: str, change: str, *digests: str) -> None:
        facts = EventFacts(server=server, tool=tool, reason=change)
        self._events.tell(SecurityEvent.TOOL_CHANGED, (server, tool, change, *digests), facts)

    # --- sharing --------------------------------------------------------------------------------

    async def synchronize(self) -> None:
        """Write what was seen here, and read what others saw since.

        Raises:
            UnavailableError: where the store does not answer; what is unsaved stays so.
        """
        for server, unsaved in self._unsaved.items():
            if unsaved:
                sightings = dict(unsaved)
                await self._store.write(server, sightings.values())
                for digest, sighting in sightings.items():
                    self._written[server][digest] = sighting.seen
                    if unsaved.get(digest) == sighting:
                        del unsaved[digest]
        index = await self._store.index()
        self._asked = index.asked
        for server in self._known:
            version = index.versions.get(server)
            if version is None or version == self._versions.get(server):
                continue
            if self._uses(server) and self._blocked.get(server, 0) <= self._clock():
                await self._catch_up(server)
                self._versions[server] = version

    async def _catch_up(self, server: str) -> None:
        """Read what others saw, and forget in the store what is forgotten here.

        What was seen lately stays there even where it is too much: the others have to see that.
        """
        known = self._known[server]
        found = await self._store.read(server, known)
        now = int(self._clock())
        self._merge(server, found, now)
        old = [each for each in found if each.seen <= now - OVERLAP]
        gone = [each.definition.digest for each in old if each.definition.digest not in known]
        # Another worker may have forgotten, by what it had read, what was written here since.
        stored = {each.definition.digest for each in found}
        for digest, each in known.items():
            if digest not in stored and each.seen > now - OVERLAP:
                self._unsaved[server].setdefault(digest, each)
        if gone:
            await self._store.forget(server, gone)

    def _merge(self, server: str, sightings: Iterable[Sighting], now: int) -> None:
        if self._blocked.get(server, 0) > now:  # by a list that came meanwhile
            return
        known, written = self._known[server], self._written[server]
        for sighting in sightings:
            digest, seen = sighting.definition.digest, min(sighting.seen, now)
            before = known.get(digest)
            if before is None or before.seen < seen:
                known[digest] = Sighting(sighting.definition, seen)
            written[digest] = max(seen, written.get(digest, 0))
        self._bound(server, now)
        self._rebuild(server)

    def _uses(self, server: str) -> bool:
        found = self._policy.servers.get(server)
        return found is not None and found.uses_catalogue

    # --- asking ---------------------------------------------------------------------------------

    async def ask(self, server: str) -> bool:
        """Ask a server for its tools; tell whether it gave a list."""
        with suppress(UnavailableError):
            await self._store.mark_asked(server, int(self._clock()))
        try:
            found = await self._ask(self._config.servers[server])
        except ToolListError as error:
            fault = str(error)
        else:
            fault = ""
            self.see(server, found.definitions)
        if fault != self._faults.get(server, ""):
            self._recorder.event("tools_list", server=server, fault=fault)
        self._faults[server] = fault
        return not fault

    def is_due(self, server: str) -> bool:
        """Tell whether no worker has set out to ask a server lately."""
        asked = self._asked.get(server, 0)
        return not asked <= self._clock() < asked + ASK_EVERY

    # --- the background -------------------------------------------------------------------------

    def start(self) -> None:
        """Keep all of it fresh from now on."""
        if self._tasks:
            return
        if any(server.uses_catalogue for server in self._policy.servers.values()):
            share = asyncio.create_task(self._keep_synchronizing(), name="tool catalogues")
            self._tasks.append(share)
        for name, server in self._policy.servers.items():
            if server.uses_catalogue:
                self._tasks.append(asyncio.create_task(self._keep_asking(name), name=f"ask {name}"))

    async def aclose(self) -> None:
        """Stop."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    async def _keep_synchronizing(self) -> None:
        while True:
            try:
                await self.synchronize()
            except UnavailableError as error:
                self._recorder.metrics.dependency_errors.labels(error.dependency).inc()
            except Exception as error:  # noqa: BLE001 - what others wrote must not end it
                self._recorder.crash(error)
            self._wake.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK):
                    await self._wake.wait()

    async def _keep_asking(self, server: str) -> None:
        failed = False
        while True:
            try:
                if failed or self.is_due(server):
                    failed = not await self.ask(server)
            except Exception as error:  # noqa: BLE001 - as above
                failed = True
                self._recorder.crash(error)
            await asyncio.sleep(_RETRY)


class _DefinitionCache:
    """Remember what definitions were read as, by their bytes: lists come often, changes seldom."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[bytes, ToolDefinition] = {}
        self._length = 0  # characters of the texts

    def read(self, name: str, raw: bytes) -> ToolDefinition | None:
        """Return a definition, or its stand-in; None where no tool can have the name."""
        if len(name) > MAX_NAME:
            return None
        key = sha256(b"%d:%b:%b" % (len(name), name.encode(errors="replace"), raw)).digest()
        found = self._found.get(key)
        if found is None:
            found = _read(name, raw)
            if found is not None:
                self._add(key, found)
        return found

    def _add(self, key: bytes, found: ToolDefinition) -> None:
        with self._lock:
            if key not in self._found:
                self._length += len(found.text)
            self._found[key] = found
            while len(self._found) > MAX_REMEMBERED or self._length > 2 * MAX_TEXT:
                self._length -= len(self._found.pop(next(iter(self._found))).text)


def _read(name: str, raw: bytes) -> ToolDefinition | None:
    """Return a definition, or its stand-in; None where no tool can have the name."""
    with suppress(DefinitionError):
        found = parse_definition(raw)
        if found.name == name:
            return found
    try:
        return stand_in(name)
    except DefinitionError:
        return None


def _forget_old(known: dict[str, Sighting], now: int) -> bool:
    """Forget what is old, the more the more there is; tell whether the rest fits."""
    _keep(known, lambda each: each.seen >= now - KEPT)
    if _fits(known, 2):
        return True
    newest = dict[str, int]()
    for sighting in known.values():
        name = sighting.definition.name
        newest[name] = max(sighting.seen, newest.get(name, 0))
    # These count no more (`catalogue_of`).
    _keep(known, lambda each: each.seen >= newest[each.definition.name] - OVERLAP)
    if not _fits(known):
        # A tool that nobody has listed lately is the strictest.
        _keep(known, lambda each: each.seen > now - OVERLAP)
    return _fits(known)


def _keep(known: dict[str, Sighting], wanted: Callable[[Sighting], bool]) -> None:
    for digest in [each for each, sighting in known.items() if not wanted(sighting)]:
        del known[digest]


def _fits(known: Mapping[str, Sighting], part: int = 1) -> bool:
    """Tell whether there are no more than allowed, or a part of that many."""
    return (
        len(known) <= MAX_SIGHTINGS // part
        and sum([len(each.definition.text) for each in known.values()]) <= MAX_TEXT // part
    )
