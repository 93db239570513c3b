"""The ticket of a log-in for a page, sealed in the address at which people log in.

Invariant: it says which page, and never where: the address to come back to is made of the page's
own origin (`AdminPage.return_path`).
"""

from dataclasses import dataclass, field
from typing import Final

from authz.tokens.sealing import NotSealedError, Sealer

LIFETIME: Final = 600  # seconds in which the person begins to log in
_PURPOSE: Final = "page-ticket"


@dataclass(frozen=True, slots=True)
class PageTicket:
    """Say what a log-in is for.

    Attributes:
        page: its name.
        path: what the browser asked for.
        browser: a digest of the cookie that the browser has for the page's host: only there the
            log-in ends.
    """

    page: str
    path: str
    browser: str = field(repr=False)


def seal_page_ticket(sealer: Sealer, ticket: PageTicket) -> str:
    """Return a ticket as a text for a link."""
    value = {"page": ticket.page, "path": ticket.path, "browser": ticket.browser}
    return sealer.seal(_PURPOSE, value, LIFETIME)


def open_page_ticket(sealer: Sealer, text: str) -> PageTicket:
    """Return the ticket of a link.

    Raises:
        NotSealedError: where it is none, or has expired.
    """
    value = sealer.open(_PURPOSE, text)
    members = [value.get(name) for name in ("page", "path", "browser")]
    if not all(isinstance(member, str) and member for member in members):
        raise NotSealedError
    return PageTicket(*map(str, members))
