"""What registrations and documents say of a client (RFC 7591, section 2), read the same way.

Invariant: of all that a client says of itself only its redirect URIs and its name are kept. The
name is for people and is never believed: it is made printable here, and pages say that nobody has
verified it.

Authlib's ClientMetadataClaims is not used: it refuses a registration for one bad redirect URI,
leaves types unchecked, and what else it looks at (logos, key sets, links) is not kept here.
"""

import re
import unicodedata
from collections.abc import Mapping
from typing import Final

from authz.login.clients.redirects import RedirectRules

LONGEST_NAME: Final = 100  # characters
MOST_URIS: Final = 32  # looked at
GRANT_TYPES: Final = ("authorization_code", "refresh_token")
RESPONSE_TYPES: Final = ("code",)

_BLANKS: Final = re.compile(r"\s+")
# Of what is left of a name after 400 characters nothing would be shown.
_LONGEST_READ: Final = 400
_MOST_MARKS: Final = 2  # on one letter; more of them run over the lines above and below
# Scripts whose letters pass for Latin ones. A name that mixes them with Latin is made to look so.
_LOOK_ALIKES: Final = ("CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE", "COPTIC", "LISU", "DESERET")


class ClientMetadataError(ValueError):
    """Say what is wrong with a client's metadata.

    Attributes:
        error: a code of RFC 7591, section 3.2.2.
        description: fixed text.
    """

    def __init__(self, error: str, description: str) -> None:
        """Keep both."""
        super().__init__(error, description)
        self.error = error
        self.description = description


def read_redirect_uris(metadata: Mapping[str, object], rules: RedirectRules) -> tuple[str, ...]:
    """Return the redirect URIs that a client may have, in its order; others are left out.

    Raises:
        ClientMetadataError: where none is left.
    """
    said = metadata.get("redirect_uris")
    if not isinstance(said, list) or not said:
        raise ClientMetadataError(
            "invalid_redirect_uri", "redirect_uris must list where log-ins end"
        )
    if len(said) > MOST_URIS or not all(isinstance(uri, str) for uri in said):
        raise ClientMetadataError(
            "invalid_redirect_uri", f"redirect_uris must be strings, {MOST_URIS} at most"
        )
    allowed = tuple(dict.fromkeys(uri for uri in said if rules.allow(uri)))
    if not allowed:
        raise ClientMetadataError(
            "invalid_redirect_uri",
            "no redirect URI is allowed here: https, http on 127.0.0.1, [::1] or localhost, or "
            "one that front_door.private_redirect_uris lists; without user, fragment, dot "
            "segments, and of 512 characters at most",
        )
    return allowed


def check_grants(metadata: Mapping[str, object]) -> None:
    """Refuse a client that could not use the one way of logging in that there is.

    Raises:
        ClientMetadataError: where it wants no code, or says so in a wrong shape.
    """
    for name, needed in (("grant_types", GRANT_TYPES[0]), ("response_types", RESPONSE_TYPES[0])):
        said = metadata.get(name)
        if said is not None and (not isinstance(said, list) or needed not in said):
            raise ClientMetadataError("invalid_client_metadata", f"{name} must hold {needed}")


def read_refreshes(metadata: Mapping[str, object]) -> bool:
    """Tell whether a client uses refresh tokens; call it after `check_grants`.

    One that lists its `grant_types` without `refresh_token` does not. One that lists none may: RFC
    7591, section 2, has `authorization_code` alone as the default, but clients that leave it out
    take a refresh token where they get one, and would lose it.
    """
    said = metadata.get("grant_types")
    return not isinstance(said, list) or GRANT_TYPES[1] in said


def read_client_name(metadata: Mapping[str, object]) -> str:
    """Return what a client calls itself, made printable; empty where there is nothing.

    Raises:
        ClientMetadataError: where it is no text.
    """
    said = metadata.get("client_name")
    if said is None:
        return ""
    if not isinstance(said, str):
        raise ClientMetadataError("invalid_client_metadata", "client_name must be a string")
    return printable_name(said)


def printable_name(text: str) -> str:
    """Return a name of a hundred printable characters at most.

    It is in normal form C and has no controls (bidirectional ones and those of no width among
    them), no angle brackets, no towers of marks, and no letters that pass for Latin among Latin.
    """
    composed = unicodedata.normalize("NFC", _BLANKS.sub(" ", text[:_LONGEST_READ]))
    kept = "".join(each for each in composed if _is_shown(each))
    kept = _told_apart(_without_towers(kept))
    return _BLANKS.sub(" ", kept).strip()[:LONGEST_NAME].rstrip()


def _is_shown(character: str) -> bool:
    # Category C is controls, formats, surrogates, private use and what is not assigned. The fillers
    # of Hangul and braille are letters to Unicode, and blank.
    if character in "<>\u115f\u1160\u3164\uffa0\u2800":
        return False
    category = unicodedata.category(character)
    return category[0] != "C" and (category[0] != "Z" or character == " ")


def _without_towers(text: str) -> str:
    kept: list[str] = []
    marks = 0
    for each in text:
        marks = marks + 1 if unicodedata.category(each).startswith("M") else 0
        if marks <= _MOST_MARKS:
            kept.append(each)
    return "".join(kept)


def _told_apart(text: str) -> str:
    if text.isascii() or not any(_script(each) == "LATIN" for each in text):
        return text
    return "".join("?" if _script(each) in _LOOK_ALIKES else each for each in text)


def _script(character: str) -> str:
    if not character.isalpha():
        return ""
    return unicodedata.name(character, "").partition(" ")[0]
