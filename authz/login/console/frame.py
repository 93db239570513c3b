"""The frame of every page of the console: its sections, who looks, and how to leave."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from authz.login.console.access import LOG_OUT_FORM, PATH, AdmittedPerson
from authz.login.web.client_description import shown
from authz.login.web.cookies import BrowserCookies
from authz.login.web.rendering import Pages, read_assets

_ASSETS: Final = read_assets(["style.css", "console/console.css"], ["times.js", "console/live.js"])


class Section(Enum):
    """Name a section by its path below the console's, and its title."""

    OVERVIEW = ("", "Overview")
    LOG_INS = ("/log-ins", "Log-ins")
    CLIENTS = ("/clients", "Clients")
    REVOCATIONS = ("/revocations", "Revocations")
    PROOFS = ("/proofs", "Step-ups")
    REFUSALS = ("/refusals", "Refusals")
    LIMITS = ("/limits", "Limits")
    RULES = ("/rules", "Rules")

    @property
    def path(self) -> str:
        """Return the path of its page."""
        return PATH + self.value[0]

    @property
    def title(self) -> str:
        """Return what it is called."""
        return self.value[1]


@dataclass(frozen=True, slots=True)
class ConsoleFrame:
    """Render pages of the console.

    Attributes:
        cookies: for the form that logs out.
        pages: what renders.
        sections: those that there are.
    """

    cookies: BrowserCookies
    pages: Pages
    sections: tuple[Section, ...]

    def page(
        self,
        request: Request,
        person: AdmittedPerson,
        section: Section,
        content: Mapping[str, object],
        *,
        template: str = "",
        live: int = 0,
    ) -> Response:
        """Return a page of a section.

        Args:
            request: of an admitted person.
            person: who looks.
            section: which is shown.
            content: what its template needs.
            template: its file; named after the section where it is left out.
            live: seconds after which our script loads it again; 0 for never.
        """
        token, cookie = self.cookies.form_token(request, LOG_OUT_FORM, None)
        framed = {
            "sections": self.sections,
            "section": section,
            "account": shown(person.session.account),
            "session_until": person.session.until,
            "log_out_token": token,
            "live": live,
            **content,
        }
        return self.pages.page(
            template or f"console/{section.name.lower()}.html",
            framed,
            set_cookie=cookie,
            has_form=True,
            has_times=True,
            assets=_ASSETS,
        )
