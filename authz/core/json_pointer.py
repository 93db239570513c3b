"""JSON Pointers (RFC 6901) into strictly read documents.

Invariant: a pointer finds a value only where every parser finds the same one under that name: on
its way no member is alike to the one it names (`ALIKE`), and nothing is searched that is no object
or array (`UNREACHABLE`).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from authz.core.strict_json import folded, unmistakable

MAX_LENGTH: Final = 256  # characters of a pointer
MAX_TOKENS: Final = 16
_STRAY_TILDE: Final = re.compile(r"~(?![01])")
# RFC 6901, section 4; bounded, since reading digits takes quadratic time.
_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,8}")


class JsonPointerError(ValueError):
    """Say what is wrong with the text of a pointer."""


class NotFound(Enum):
    """Name why a pointer finds no value.

    ABSENT: no such member or element. UNREACHABLE: something on the way is no object or array, or
    no index fits. ALIKE: parsers could take another member for the one that is named.
    """

    ABSENT = "absent"
    UNREACHABLE = "unreachable"
    ALIKE = "alike"


@dataclass(frozen=True, slots=True)
class JsonPointer:
    """Hold a pointer as it is written, and its reference tokens without escapes."""

    text: str
    tokens: tuple[str, ...]

    def find(self, document: object) -> object:
        """Return the value that it points to, which may be None (JSON's null), or a `NotFound`."""
        found = document
        for token in self.tokens:
            found = _step(found, token)
            if isinstance(found, NotFound):
                break
        return found


def parse(text: str) -> JsonPointer:
    """Return the pointer of a text (RFC 6901, section 3); the empty one is the whole document.

    Raises:
        JsonPointerError: where it is none, is longer than `MAX_LENGTH`, has more tokens than
            `MAX_TOKENS`, or holds what is not printable.
    """
    if text and not text.startswith("/"):
        raise JsonPointerError("a JSON Pointer begins with a slash")
    if _STRAY_TILDE.search(text) is not None:
        raise JsonPointerError("a tilde is written ~0, a slash within a name ~1")
    if len(text) > MAX_LENGTH or text.count("/") > MAX_TOKENS:
        raise JsonPointerError(f"longer than {MAX_LENGTH} characters or {MAX_TOKENS} names")
    if not text.isprintable():
        raise JsonPointerError("characters that are not printable")
    # In this order: `~01` is `~1`, not a slash.
    tokens = (token.replace("~1", "/").replace("~0", "~") for token in text.split("/")[1:])
    return JsonPointer(text, tuple(tokens))


def write(tokens: tuple[str, ...]) -> str:
    """Return the text of a pointer with these tokens."""
    return "".join("/" + token.replace("~", "~0").replace("/", "~1") for token in tokens)


def _step(found: object, token: str) -> object:
    if isinstance(found, dict):
        return _member(found, token)
    if not isinstance(found, list) or _INDEX.fullmatch(token) is None:
        return NotFound.UNREACHABLE
    index = int(token)
    return found[index] if index < len(found) else NotFound.ABSENT


def _member(members: Mapping[str, object], token: str) -> object:
    """Return a member; ALIKE where another name reads like its own to some parser."""
    name = folded(token)
    alike = not unmistakable(members.keys()) or any(
        key != token and folded(key) == name for key in members
    )
    return NotFound.ALIKE if alike else members.get(token, NotFound.ABSENT)
