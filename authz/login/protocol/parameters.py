"""Parameters of an OAuth request, parsed strictly.

A parameter without a value counts as omitted (RFC 6749, section 3.1). Which parameters came twice
is kept, so that each caller can refuse them; a body that is no form is refused whole.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl

from authz.login.protocol.values import OAuthError

_LONGEST: Final = 64 * 1024
_MOST: Final = 64
_UNREADABLE: Final = "the parameters cannot be read"


@dataclass(frozen=True, slots=True)
class Parameters:
    """Hold the parameters of one request.

    Attributes:
        values: each one's first value.
        repeated: the names that come more than once with a value.
        resources: every `resource`, since RFC 8707, section 2, allows several; each once.
    """

    values: Mapping[str, str]
    repeated: frozenset[str]
    resources: tuple[str, ...]

    def get(self, name: str) -> str | None:
        """Return a value; None where there is none."""
        return self.values.get(name)

    def once(self, name: str) -> str | None:
        """Return the value of a parameter that must not come twice.

        Raises:
            OAuthError: where it does.
        """
        if name in self.repeated:
            raise OAuthError("invalid_request", "a parameter comes more than once")
        return self.values.get(name)

    def check_repeated(self) -> None:
        """Refuse a request in which a parameter comes twice (RFC 6749, sections 3.1 and 3.2).

        Raises:
            OAuthError: where one does.
        """
        if self.repeated:
            raise OAuthError("invalid_request", "a parameter comes more than once")

    def needed(self, name: str) -> str:
        """Return a value that has to be there.

        Raises:
            OAuthError: where it is not.
        """
        value = self.values.get(name)
        if value is None:
            raise OAuthError("invalid_request", f"{name} is missing")
        return value


def read_parameters(text: str) -> Parameters:
    """Read a query or the body of a form.

    Raises:
        OAuthError: where it is none.
    """
    if len(text) > _LONGEST or not text.isascii():
        raise OAuthError("invalid_request", _UNREADABLE)
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=_MOST, errors="strict")
    except ValueError:
        raise OAuthError("invalid_request", _UNREADABLE) from None
    values: dict[str, str] = {}
    repeated, resources = set[str](), dict[str, None]()
    for name, value in pairs:
        if not value:
            continue
        if name == "resource":
            resources[value] = None
        elif name in values:
            repeated.add(name)
        values.setdefault(name, value)
    return Parameters(values, frozenset(repeated), tuple(resources))
