"""Readiness: named components that are each ready or not, and who watches it.

Invariant: ready means that every component is; draining is a component like any other.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from types import MappingProxyType


class Health:
    """Keep the state of the service's parts.

    Attributes:
        config: the digest of the configuration in force; empty before there is one.
        instance: a word of this process: a program that is reached by two addresses is one.
    """

    def __init__(self) -> None:
        """Begin without parts: not ready until somebody says otherwise."""
        self.config = ""
        self.instance = secrets.token_hex(8)
        self._parts: dict[str, str] = {}
        self._notes: dict[str, str] = {}
        self._changed = asyncio.Event()

    def set(self, part: str, problem: str) -> None:
        """Say how a part is; an empty problem means that it is ready."""
        if self._parts.get(part) == problem:
            return
        self._parts[part] = problem
        self._changed.set()
        self._changed = asyncio.Event()

    def note(self, part: str, words: str) -> None:
        """Say what is wrong with a part that is ready all the same; empty where nothing is."""
        self._notes[part] = words

    @property
    def notes(self) -> Mapping[str, str]:
        """Return what is wrong with parts that are ready all the same."""
        return MappingProxyType({part: words for part, words in self._notes.items() if words})

    @property
    def ready(self) -> bool:
        """Tell whether every part is ready."""
        return bool(self._parts) and not any(self._parts.values())

    @property
    def parts(self) -> Mapping[str, str]:
        """Return each part and its problem; empty where it is ready."""
        return MappingProxyType(dict(self._parts))

    async def watch(self) -> AsyncIterator[bool]:
        """Yield readiness now and whenever it changes."""
        last: bool | None = None
        while True:
            changed, ready = self._changed, self.ready
            if ready is not last:
                last = ready
                yield ready
            await changed.wait()
