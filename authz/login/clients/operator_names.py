"""Which client an operator means, so that no block is written that stops nobody.

Invariant: what is returned is a client_id or a name as blocks are looked for
(`identity.blocked_by`), or somebody who has a log-in; anything else is an error that shows the
forms and what is like it.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

from authz.core.principal import DYNAMIC, METADATA
from authz.login.clients.documents import document_host
from authz.login.clients.registration import PREFIX

# As `redirects.redirect_host` writes them: one label has a dot at its end.
_HOST: Final = re.compile(r"[a-z0-9-]+(?:\.[a-z0-9-]+)+\Z|[a-z0-9-]+\.\Z|\[[0-9a-f:.]{2,45}\]\Z")
_WORD: Final = re.compile(r"[a-z](?:[a-z0-9+.-]{0,62}[a-z0-9+-])?\Z")  # `loopback`, or a scheme
_FORMS: Final = (
    "give an id of `authz clients`, a client_id, https://HOST, dynamic/HOST, or a client of"
    " authz.yaml"
)
_MOST: Final = 3
_SHORTEST: Final = 4  # characters of an id: less would find a client by chance


class UnknownClientError(ValueError):
    """Say that nobody is called so."""


class AmbiguousClientError(ValueError):
    """Say that several clients are called so."""


@dataclass(frozen=True, slots=True)
class ClientNames:
    """Name one client as an operator may call it.

    Attributes:
        id: the beginning of its client_id's digest.
        client_id: as it names itself.
        name: as rules and blocks count it.
    """

    id: str
    client_id: str
    name: str


def called(what: str, clients: Sequence[ClientNames], configured: Collection[str]) -> str:
    """Return the client_id or name that a person means.

    A host alone means all that ends there or has its document there, as `dynamic/HOST` does.

    Args:
        what: as it was typed.
        clients: who has come.
        configured: the names of clients of authz.yaml.

    Raises:
        AmbiguousClientError: where it begins several ids.
        UnknownClientError: where it can be the name of nobody.
    """
    if what in configured or any(what in (each.client_id, each.name) for each in clients):
        return what
    begun = {
        each.client_id
        for each in clients
        if len(what) >= _SHORTEST and each.id.startswith(what.lower())
    }
    if len(begun) > 1:
        raise AmbiguousClientError("several clients are called so; give more of the id")
    if begun:
        return begun.pop()
    # Whoever has not come yet can be blocked, too.
    found = _name(what)
    if found is None:
        raise UnknownClientError(_words(what, clients, configured))
    return found


def spellings(what: str) -> tuple[str, ...]:
    """Return every way in which a block may have been written that stops the same."""
    name = _name(what)
    if name is None or not name.startswith((METADATA, DYNAMIC)) or document_host(name):
        return (what,)
    place = name.removeprefix(METADATA).removeprefix(DYNAMIC)
    return (what, f"{DYNAMIC}{place}", f"{METADATA}{place}")


def _name(what: str) -> str | None:
    """Return a client_id or a name that somebody can have; None where nobody can."""
    if what.startswith(PREFIX) or document_host(what) is not None:
        return what
    lower = what.lower().rstrip("/")
    prefix = next((each for each in (METADATA, DYNAMIC) if lower.startswith(each)), "")
    place = lower.removeprefix(prefix)
    if _HOST.match(place):
        return f"{prefix or DYNAMIC}{place}"
    return lower if prefix == DYNAMIC and _WORD.match(place) else None


def _words(what: str, clients: Sequence[ClientNames], configured: Collection[str]) -> str:
    known = [*configured, *(name for each in clients for name in (each.name, each.id))]
    lower = what.lower()
    near = [f"{DYNAMIC}{lower}"] if _WORD.match(lower) else []
    near += get_close_matches(what, [each for each in known if each not in near], _MOST)
    like = f"; did you mean {' or '.join(near[:_MOST])}?" if near else ""
    return f"nobody can be called so: {_FORMS}{like}"
