"""What a person reads where a log-in does not begin, or does not end.

Law: sentences of ours; nothing that a caller chose.
"""

from typing import Final

from authz.login.clients.lookup import DocumentError
from authz.login.web.upstream_login import ErrorPage

_CLIENT: Final = (
    "Nothing was allowed. Remove the connection from your assistant and add it again; if it stays, "
    "tell the people who run this gateway."
)
_BY_OPERATOR: Final = (
    "Nothing was allowed, and to connect again changes nothing. The people who run this gateway "
    "can allow it: tell them what stands above."
)
BAD_REQUEST: Final = ErrorPage(
    400, "This log-in request cannot be read", _CLIENT, "malformed authorization request"
)
UNKNOWN_CLIENT: Final = ErrorPage(
    400, "The application that sent you here is not known", _CLIENT, "unknown client"
)
WRONG_REDIRECT: Final = ErrorPage(
    400,
    "The application wants the log-in to end at an address that is not its own",
    "Nothing was allowed. If you did not begin this yourself, somebody may be trying to trick you: "
    "close this page.",
    "redirect_uri is not registered",
)
BLOCKED: Final = ErrorPage(
    403,
    "The application that sent you here was blocked",
    "Nothing was allowed. The people who run this gateway can tell you why.",
    "client is blocked",
)
TOO_LARGE: Final = ErrorPage(
    400, "The application asks for too much at once", _CLIENT, "transaction too large"
)
TOO_MANY: Final = ErrorPage(
    429,
    "There were too many log-ins from your network in a short time",
    "Wait a minute, then begin again where you came from.",
    "too many requests of this address",
)
MALFORMED_ANSWER: Final = ErrorPage(
    400,
    "This is not a whole answer of the log-in service",
    "Nothing was done. Begin again where you came from.",
    "malformed callback",
)
FOREIGN: Final = ErrorPage(
    403,
    "This is not the answer of the right log-in service",
    "Nothing was done. Begin again where you came from.",
    "iss of somebody else",
)
NO_ADDRESS: Final = ErrorPage(
    400,
    "This page is only reached through the gateway",
    "Open it under the gateway's own address.",
    "no address of the person",
)
NOT_FOUND: Final = ErrorPage(
    404, "There is no such page", "Begin where you came from.", "no such page"
)
NOT_THIS_WAY: Final = ErrorPage(
    405, "This page is not used this way", "Begin where you came from.", "method not allowed"
)
BROKEN: Final = ErrorPage(
    500,
    "Something went wrong here",
    "Nothing was allowed. Try again; if it stays, tell the people who run this gateway.",
    "crash",
)


def not_granted(error: str, words: str) -> ErrorPage:
    """Return the page of an error that is not sent to a client that nobody knows."""
    return ErrorPage(
        400,
        f"The application asks for what it cannot have: {words} ({error})",
        _BY_OPERATOR if error == "invalid_scope" else _CLIENT,
        error,
    )


def no_document(found: DocumentError) -> ErrorPage:
    """Return the page of a client whose metadata document is of no use, with the reason."""
    if found.fault.passing:
        return ErrorPage(
            503,
            "What the application says of itself cannot be fetched at the moment",
            f"It is described by a document on the Internet, and {found.words}. Nothing was "
            "allowed. Try again in a minute. If it is so with every application, the gateway has "
            "no way out to the Internet: tell the people who run it.",
            f"document: {found.fault.value}",
        )
    return ErrorPage(
        400,
        "What the application says of itself cannot be used",
        f"It is described by a document on the Internet, and this is wrong with that: "
        f"{found.words}. Nothing was allowed. Tell the people who make the application, or who "
        "run this gateway.",
        f"document: {found.fault.value}",
    )
