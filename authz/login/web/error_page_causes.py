"""What an operator can do about an error page, by the note that the log has of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from authz.login.web import admin_pages, approval, error_pages, step_up
from authz.login.web.error_pages import ErrorPage


@dataclass(frozen=True, slots=True)
class PageCause:
    """Explain an error page.

    Attributes:
        shown: what the person read first; empty where the page holds a client's name.
        fix: what an operator can do.
    """

    shown: str
    fix: str


_BROWSER: Final = (
    "nothing here: the person begins again, in one browser, with cookies, within ten minutes; if "
    "it stays, look whether a proxy in front drops cookies, and whether `gateway.url` is the "
    "address in the browser"
)
_AT_AUTHELIA: Final = "look into Authelia's log at the same time"
_CLIENT: Final = (
    "let the person remove the connection from the client and add it again; `authz clients` shows "
    "the clients that are known"
)
_ROWS: Final[tuple[tuple[ErrorPage, str], ...]] = (
    (error_pages.BAD_REQUEST, "look at the client: its authorization request repeats a parameter"),
    (error_pages.UNKNOWN_CLIENT, _CLIENT + "; ids of before a new sealing key are not known"),
    (
        error_pages.WRONG_REDIRECT,
        (
            "a configured client: add the address to its `redirect_uris`; another one: nothing, "
            "the client is broken or somebody lies"
        ),
    ),
    (error_pages.BLOCKED, "`authz clients` lists the blocks, and lifts one"),
    (error_pages.TOO_LARGE, "look at the client: its `state` is too long"),
    (
        error_pages.TOO_MANY,
        (
            "wait; `front_door.address_pages` and `front_door.address_log_ins` are the limits, and "
            "many people behind one address share them"
        ),
    ),
    (
        error_pages.NO_ADDRESS,
        "only Envoy may reach `authz pages`, with the configuration that authz renders",
    ),
    (error_pages.NOT_FOUND, "nothing: the address is none of ours"),
    (error_pages.NOT_THIS_WAY, "nothing: a form's address was opened, or a program tries"),
    (
        error_pages.BROKEN,
        "a defect: the `crash` of the same request in the log says where; report it with that",
    ),
    (
        error_pages.AWAY,
        (
            "the `fault` before it in the log says what did not answer: Redis or Authelia; `authz "
            "doctor` asks both"
        ),
    ),
    (error_pages.NOT_THIS_BROWSER, _BROWSER),
    (error_pages.USED, "nothing: the answer counted the first time; somebody may have kept a copy"),
    (error_pages.SPENT, "nothing: the person went back or loaded the page again"),
    (error_pages.CROWDED, "nothing: the person began too many log-ins at once"),
    (error_pages.MALFORMED_ANSWER, "look whether a proxy in front cuts the query of a URL"),
    (error_pages.FOREIGN, "`issuer.url` has to be the issuer that Authelia answers with"),
    (
        error_pages.DENIED,
        f"the person cancelled, or Authelia's rules do not let them in; {_AT_AUTHELIA}",
    ),
    (
        error_pages.REFUSED,
        (
            f"{_AT_AUTHELIA}; `authz authelia-config` prints the clients that it has to know, and "
            "`authz doctor` compares"
        ),
    ),
    (error_pages.GONE, "nothing: an old address of an error page"),
    (
        step_up.NO_TICKET,
        "nothing: the client tries again and gets a new link; with a new sealing key all links end",
    ),
    (step_up.LINK_TOO_LONG, "shorten the names in authz.yaml"),
    (
        step_up.OTHER_PERSON,
        "the person logs out at Authelia, and in with the account that the client uses",
    ),
    (
        step_up.ONLY_PASSWORD,
        (
            "the person registers a second factor at Authelia; the client for two factors there "
            "needs the policy `two_factor`"
        ),
    ),
    (
        step_up.NO_CODE,
        "the person registers TOTP at Authelia, or the rule takes any second factor",
    ),
    (
        step_up.TOO_OLD,
        "the person logs out at Authelia first; `second_factor` of the rule says how old it may be",
    ),
    (step_up.NO_RESULT, "nothing: an old address"),
    (
        approval.NO_REQUEST,
        "nothing: it was decided or has ended; the client tries again",
    ),
    (approval.REQUEST_CHANGED, "nothing: the person loads the page again"),
    (
        admin_pages.NO_TICKET,
        "nothing: the person opens the page again; with a new sealing key all links end",
    ),
    (
        admin_pages.NOT_IN_GROUP,
        (
            "put the person into a group of `pages.<page>.groups` at Authelia; where nobody gets "
            "in, its clients lack the scope `groups`: `authz authelia-config` prints them"
        ),
    ),
    (
        admin_pages.NO_FACTOR,
        "the person registers TOTP at Authelia, or the page takes any second factor",
    ),
    (
        admin_pages.TOO_OLD,
        "the person logs out at Authelia first; `second_factor` of the page says how old it may be",
    ),
    (
        admin_pages.NO_ACCOUNT,
        "the claims policy of our clients at Authelia: `authz authelia-config` prints it",
    ),
)
_BY_NOTE: Final[Mapping[str, PageCause]] = MappingProxyType(
    {(page.note or page.happened): PageCause(page.happened, fix) for page, fix in _ROWS}
)
_DOCUMENT: Final = PageCause(
    "What the application says of itself cannot be used",
    "`no_document` in the log names the client's document and what is wrong with it; where every "
    "document fails, the gateway has no way out to the Internet",
)
_NOT_GRANTED: Final = PageCause(
    "The application asks for what it cannot have",
    "`authorize` of the same request in the log says what; `invalid_scope` and `invalid_target` "
    "are of the server's URL and scopes in authz.yaml",
)


def cause_of_page(note: str) -> PageCause:
    """Return what stands behind the note of an error page in the log."""
    if note.startswith("document: "):
        return _DOCUMENT
    return _BY_NOTE.get(note, _NOT_GRANTED)
