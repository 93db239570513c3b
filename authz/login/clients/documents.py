"""Client id metadata documents: clients whose id is the URL of what they say of themselves.

draft-ietf-oauth-client-id-metadata-document-02 is the measure, and narrower where it leaves room:
no query, no port, no address for a host, no keys.

Law: strangers can name any URL, so look-ups are few at once and keep to a pace, one for all who
wait for it, and nothing is remembered without bounds. Who is known waits for no stranger.
"""

import asyncio
import logging
import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from authz.core.strict_json import StrictJsonError, loads
from authz.login.clients.client_metadata import (
    WrongMetadata,
    check_grants,
    read_redirect_uris,
    read_title,
)
from authz.login.clients.fetching import Fetched, FetchFailed
from authz.login.clients.redirects import RedirectRules
from authz.login.values import FrontClient, Kind
from authz.tokens.gate import Gate, Pace, Turn, TurnedAwayError

PREFIX: Final = "https://"
LONGEST_URL: Final = 512  # characters
SHORTEST_AGE: Final = 300.0  # seconds
LONGEST_AGE: Final = 86_400.0
PAUSE: Final = 60.0  # seconds before one that was no use is fetched again

_SEGMENT: Final = r"[A-Za-z0-9._~!$&'()*+,;=:@-]+"  # no `%`: a URL has one spelling
_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
# A name of the open Internet: at least two labels, and the last is no number, so no address.
_URL: Final = re.compile(
    rf"https://(?P<host>(?:{_LABEL}\.)+(?=[a-z]){_LABEL})(?P<path>(?:/{_SEGMENT})+/?)\Z"
)
_LONGEST_HOST: Final = 253
_MAX_DEPTH: Final = 16
_MOST_URI_CHARACTERS: Final = 4096  # of one client, so that those remembered stay small
_CAPACITY: Final = 4096
_WIDTH: Final = 8  # fetches at once
_PACE: Final = 4.0  # URLs a second that nobody knows
_PATIENCE: Final = 8.0  # seconds that a caller waits, in line and for the fetch
# Nobody can share a secret with us by publishing it (the draft's section 4.1).
_SECRETS: Final = frozenset({"client_secret", "client_secret_expires_at"})

_LOG: Final = logging.getLogger("authz.login")
V = TypeVar("V")


class NoDocument(Exception):  # noqa: N818 - what was found, not an error of ours
    """Say why a URL stands for no client.

    Attributes:
        words: fixed words that follow "the client's metadata document is of no use: ".
        passing: whether it may be there in a while.
    """

    def __init__(self, words: str, *, passing: bool = False) -> None:
        """Keep both."""
        super().__init__(words)
        self.words = words
        self.passing = passing


def document_host(client_id: str) -> str | None:
    """Return the host of a URL that can be a client's id, None where it can be none."""
    found = _URL.match(client_id) if len(client_id) <= LONGEST_URL else None
    if found is None or len(found["host"]) > _LONGEST_HOST:
        return None
    return None if {".", ".."}.intersection(found["path"].split("/")) else found["host"]


def read_document(client_id: str, host: str, body: bytes, rules: RedirectRules) -> FrontClient:
    """Return the client that a document describes.

    A redirect URI of another host than the document's is as good as any: a log-in that ends there
    is shown as unverified (`clients.identity`).

    Raises:
        NoDocument: where it describes none that can log in here.
    """
    try:
        said = loads(body, max_depth=_MAX_DEPTH)
    except StrictJsonError as error:
        raise NoDocument("it is not strict JSON") from error
    if not isinstance(said, dict):
        raise NoDocument("it is no JSON object")
    if said.get("client_id") != client_id:
        raise NoDocument("its client_id is not its own URL")
    _check_authentication(said)
    try:
        check_grants(said)
        uris, title = read_redirect_uris(said, rules), read_title(said)
    except WrongMetadata as error:
        raise NoDocument(error.words) from error
    if sum(map(len, uris)) > _MOST_URI_CHARACTERS:
        raise NoDocument("it has too many redirect URIs")
    return FrontClient(client_id, Kind.DOCUMENT, title or host, host, uris)


def _check_authentication(said: Mapping[str, object]) -> None:
    if not _SECRETS.isdisjoint(said):
        raise NoDocument("it holds a client_secret, which everybody can read")
    method = said.get("token_endpoint_auth_method")
    others = said.get("token_endpoint_auth_methods_supported")
    # Who can do without is taken without; who insists on a key is not let in without it.
    if method not in (None, "none") and not (isinstance(others, list) and "none" in others):
        raise NoDocument(
            "its token_endpoint_auth_method is not none, the only one that is supported here"
        )


@dataclass(frozen=True, slots=True)
class _Known:
    client: FrontClient
    fetched_at: float
    fresh_until: float


@dataclass(frozen=True, slots=True)
class _Refused:
    words: str
    until: float
    passing: bool


class _Shelf(OrderedDict[str, V]):
    """Remember so many; the longest unused goes first."""

    def used(self, key: str) -> V | None:
        """Return what is remembered, and count it as used."""
        if key in self:
            self.move_to_end(key)
        return self.get(key)

    def put(self, key: str, value: V, capacity: int) -> None:
        """Remember, and forget what is too much."""
        self[key] = value
        self.move_to_end(key)
        while len(self) > capacity:
            self.popitem(last=False)


class Documents:
    """Find the clients of documents. Used from one event loop."""

    def __init__(
        self,
        fetch: Callable[[str, str], Awaitable[Fetched]],
        rules: RedirectRules,
        hosts: tuple[str, ...] | None = None,
        *,
        gate: Gate | None = None,
        capacity: int = _CAPACITY,
        patience: float = _PATIENCE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take how to fetch and what to allow.

        Args:
            fetch: the document at a URL of a host (`Fetcher`); raises FetchFailed.
            rules: which redirect URIs are allowed.
            hosts: whose documents are taken; None for anybody's.
            gate: how many fetches there may be; eight at once and four strangers a second.
            capacity: how many documents are remembered, and how many that were no use.
            patience: seconds that a caller waits; the fetch goes on.
            clock: seconds that never go back.
        """
        self._fetch = fetch
        self._rules = rules
        self._hosts = hosts
        self._gate = Gate(_WIDTH, Pace(_PACE, _WIDTH, clock), clock=clock) if gate is None else gate
        self._capacity = capacity
        self._patience = patience
        self._clock = clock
        # Two shelves: junk fills its own and pushes no client out.
        self._known: _Shelf[_Known] = _Shelf()
        self._refused: _Shelf[_Refused] = _Shelf()
        self._looking: dict[str, asyncio.Task[None]] = {}

    def check(self, client_id: str) -> str:
        """Return the host of a URL that can be a client's id here; nothing is fetched.

        Raises:
            NoDocument: where it cannot be one.
        """
        host = document_host(client_id)
        if host is None:
            raise NoDocument(
                "its URL must be https://host/path, without user, port, query, fragment, escapes "
                "and dot segments"
            )
        if self._hosts is not None and host not in self._hosts:
            raise NoDocument("its host is not one that the operator takes documents of")
        return host

    async def find(self, client_id: str) -> FrontClient:
        """Return the client whose document is at this URL.

        Raises:
            NoDocument: where there is none, or none can be had now.
        """
        host = self.check(client_id)
        known, refused, now = (
            self._known.used(client_id),
            self._refused.used(client_id),
            self._clock(),
        )
        if known is not None and now < known.fresh_until:
            return known.client
        if refused is not None and now < refused.until:
            raise NoDocument(refused.words, passing=refused.passing)
        return await self._looked_up(client_id, host)

    def fetches(self, client_id: str) -> bool:
        """Tell whether to find a client is to fetch what nobody has asked for lately."""
        refused = self._refused.get(client_id)
        known = client_id in self._known or client_id in self._looking
        return not known and (refused is None or self._clock() >= refused.until)

    async def aclose(self) -> None:
        """End the fetches that are under way."""
        tasks = set(self._looking.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _looked_up(self, client_id: str, host: str) -> FrontClient:
        task = self._looking.get(client_id) or self._begin(client_id, host)
        if task is not None:
            await asyncio.wait({task}, timeout=self._patience)
        known = self._known.get(client_id)
        # Perhaps not fresh, where there is no fetch now, or it takes long.
        if known is not None and self._clock() < known.fetched_at + LONGEST_AGE:
            return known.client
        refused = self._refused.get(client_id)
        if refused is not None and self._clock() < refused.until:
            raise NoDocument(refused.words, passing=refused.passing)
        raise NoDocument("it cannot be fetched right now; try again in a minute", passing=True)

    def _begin(self, client_id: str, host: str) -> "asyncio.Task[None] | None":
        """Begin a look-up, if there may be one now."""
        try:
            turn = self._gate.join(known=client_id in self._known)
        except TurnedAwayError:
            return None
        task = asyncio.create_task(self._look_up(client_id, host, turn))
        self._looking[client_id] = task
        return task

    async def _look_up(self, client_id: str, host: str, turn: Turn) -> None:
        """Fetch and remember; raise nothing, since perhaps nobody waits any more.

        The gate is told of no failure: hosts fail each for itself.
        """
        try:
            async with turn:
                fetched = await self._fetch(client_id, host)
            client = read_document(client_id, host, fetched.body, self._rules)
        except NoDocument as error:
            self._refuse(client_id, error.words, passing=False)
        except FetchFailed as error:
            self._refuse(client_id, error.words, passing=error.passing)
        except Exception as error:  # noqa: BLE001 - whatever it is, there is no document
            _LOG.warning("a client's metadata document: %s", type(error).__name__)
            self._refuse(client_id, "it cannot be read", passing=False)
        else:
            now = self._clock()
            age = min(max(float(fetched.max_age or 0), SHORTEST_AGE), LONGEST_AGE)
            self._refused.pop(client_id, None)
            self._known.put(client_id, _Known(client, now, now + age), self._capacity)
        finally:
            del self._looking[client_id]

    def _refuse(self, client_id: str, words: str, *, passing: bool) -> None:
        """Remember for a while that there is no document, so that it is not fetched at a pace.

        The draft's section 5.2 wants no error remembered: a minute is the pause before the next
        try, which strangers would otherwise choose.
        """
        known, now = self._known.get(client_id), self._clock()
        end = -1.0 if known is None else known.fetched_at + LONGEST_AGE
        if known is not None and passing and now < end:
            # One that was good stays good for its longest age while it cannot be had anew: who is
            # logged in should not lose that by a bad minute of somebody's web server.
            self._known[client_id] = replace(known, fresh_until=min(now + PAUSE, end))
            return
        self._known.pop(client_id, None)
        self._refused.put(client_id, _Refused(words, now + PAUSE, passing), self._capacity)
