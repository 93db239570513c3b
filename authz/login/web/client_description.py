"""How pages describe a client: the same for the same log-in on every page.

Everything is made of where the log-in ended, of the name that was made of that (`identity`),
and of the host of the client's metadata document. Of what a client says of itself nothing is
believed. Of a host no more is said than what was fetched from it: where people share a host (pages,
raw files of a repository) anybody's document stands there.
"""

import re
import unicodedata
from dataclasses import dataclass
from enum import Enum
from typing import Final

from authz.core.principal import DYNAMIC, METADATA, is_configured
from authz.login.clients.identity import is_on_device
from authz.login.clients.redirects import LOOPBACK
from authz.login.protocol.values import ClientIdentity

_LONGEST: Final = 100  # characters of a foreign text on a page
_MARKS: Final = 2  # on one letter
_HOST: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,252})\Z")

_SET_UP: Final = "Whoever runs this gateway has set it up."
_NOBODY: Final = "Nobody vouches for this application; it may call itself whatever it likes."
_ON_DEVICE: Final = "It cannot be checked which program this is."
_KNOW_IT: Final = (
    "Go on only if you know that name and have just begun to connect the application yourself."
)
_NO_MORE: Final = (
    "That is all that was checked: where others can publish there too, it may be theirs."
)
_WHICH: Final = "Go on only if you have just begun to connect one yourself, on this computer."
_PROGRAM: Final = "an unverified program on your computer"


class Trust(Enum):
    """Name what is known of who a client is; the value is a class of the style sheet."""

    DOCUMENT = "document"  # its document is at that host, which is all
    CONFIGURED = "known"  # authz.yaml names it
    UNVERIFIED = "unverified"  # nobody


_BADGES: Final = {
    Trust.DOCUMENT: "Host checked",
    Trust.CONFIGURED: "Set up here",
    Trust.UNVERIFIED: "Unverified",
}


@dataclass(frozen=True, slots=True)
class ClientDescription:
    """Describe a client, as far as that can be known.

    Attributes:
        heading: what to call it in a sentence.
        trust: what is known of who it is.
        facts: what is known of it, a sentence each.
        claim: what it calls itself; empty where it says nothing.
    """

    heading: str
    trust: Trust
    facts: tuple[str, ...]
    claim: str

    @property
    def badge(self) -> str:
        """Return the trust in a word or two."""
        return _BADGES[self.trust]


def trust_of(client: ClientIdentity) -> Trust:
    """Return what is known of a client; of a log-in whose end is not known, by the file alone."""
    if client.ends_at and is_on_device(client.ends_at):
        return Trust.UNVERIFIED
    if is_configured(client.name):
        return Trust.CONFIGURED
    checked = bool(client.ends_at) and client.name.startswith(METADATA)
    return Trust.DOCUMENT if checked else Trust.UNVERIFIED


def describe_client(client: ClientIdentity) -> ClientDescription:
    """Return what can be said of a client."""
    heading, facts = _DESCRIPTIONS[trust_of(client)](client)
    return ClientDescription(heading, trust_of(client), facts, client.client_name)


def consent_advice(client: ClientIdentity) -> str:
    """Return what a person who is asked to agree should know besides; empty for what is set up."""
    if trust_of(client) is Trust.CONFIGURED:
        return ""
    return _WHICH if is_on_device(client.ends_at) else _KNOW_IT


def describe_place(ends_at: str) -> str:
    """Describe where a log-in ends."""
    if ends_at == LOOPBACK:
        return "a program on your computer"
    if is_on_device(ends_at):
        return f"the program on your computer that opens {shown(ends_at)} links"
    return shown_host(ends_at)


def shown(text: str, longest: int = _LONGEST) -> str:
    """Return a foreign text as a page may show it: one line, no text that turns or hides others.

    Control and format characters go (the bidi overrides of Unicode TR36 are such), and so do
    private and unassigned ones; marks are kept to two at a time; blanks are one space.
    """
    visible = (" " if each.isspace() else each for each in text if _is_shown(each))
    kept: list[str] = []
    marks = 0
    # Counted last: between two marks of one letter there may have been what is gone now.
    for character in " ".join("".join(visible).split()):
        marks = marks + 1 if unicodedata.category(character)[0] == "M" else 0
        if marks <= _MARKS:
            kept.append(character)
    line = "".join(kept)
    return line if len(line) <= longest else line[: longest - 1] + "…"


def shown_host(host: str | None) -> str:
    """Return a host as it may be shown: ASCII as in DNS, so that look-alikes stand out (xn--)."""
    host = (host or "").lower()
    return host if _HOST.match(host) else "an address that cannot be shown"


def _is_shown(character: str) -> bool:
    return character.isspace() or unicodedata.category(character)[0] not in "CZ"


def _documented(client: ClientIdentity) -> tuple[str, tuple[str, ...]]:
    host = shown_host(client.name.removeprefix(METADATA))
    described = f"Its description is at {host}, "
    if client.ends_at == client.document_host:
        fact = f"{described}and so is the address where its log-in ends."
    else:
        fact = (
            f"{described}it has to prove itself with a key of that description, and its log-in "
            f"ends at {describe_place(client.ends_at)}."
        )
    return f"an application described at {host}", (fact, _NO_MORE)


def _configured(client: ClientIdentity) -> tuple[str, tuple[str, ...]]:
    return client.name, (_SET_UP,)


def _unverified(client: ClientIdentity) -> tuple[str, tuple[str, ...]]:
    place = client.ends_at or client.name.removeprefix(DYNAMIC)
    if is_on_device(place):
        facts = [_ON_DEVICE, *_says(client)]
        if place != LOOPBACK:
            facts.insert(0, f"What you allow goes to {describe_place(place)}.")
        return _PROGRAM, tuple(facts)
    if client.name.startswith(METADATA):  # of before its end was kept
        return "an unverified application", (_NOBODY, *_says(client))
    host = shown_host(place)
    facts = [_NOBODY, *_says(client), f"What you allow goes to {host}."]
    return f"an unverified application at {host}", tuple(facts)


def _says(client: ClientIdentity) -> tuple[str, ...]:
    if is_configured(client.name):
        return (f"It says that it is “{shown(client.name)}”, which is set up here.",)
    host = client.document_host
    if not host and client.name.startswith(METADATA):
        host = client.name.removeprefix(METADATA)
    return (f"It says that it is the application of {shown_host(host)}.",) if host else ()


_DESCRIPTIONS: Final = {
    Trust.DOCUMENT: _documented,
    Trust.CONFIGURED: _configured,
    Trust.UNVERIFIED: _unverified,
}
