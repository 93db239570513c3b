"""How values and secrets are stored: frozen values as JSON members, secrets by their digest.

Invariant: what was not written by the same codec, or by a version before, is an error.
"""

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Final, Generic, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

T = TypeVar("T")
# `__pydantic_config__` of a value: no conversion, no member that it does not have.
STRICT: Final = ConfigDict(strict=True, extra="forbid")


def digest(text: str) -> str:
    """Return the hex SHA-256 of a text: the name of what must not be stored itself."""
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class MembersError(ValueError):
    """The members are not those of the value."""


class MembersCodec(Generic[T]):
    """Write a dataclass as JSON members, and read it; a member of the default value is left out."""

    def __init__(self, kind: type[T]) -> None:
        self._adapter = TypeAdapter(kind)

    def write(self, value: T) -> Mapping[str, object]:
        """Return the members of a value."""
        members: Mapping[str, object] = self._adapter.dump_python(
            value, mode="json", by_alias=True, exclude_defaults=True
        )
        return members

    def read(self, members: object) -> T:
        """Return the value of members.

        Raises:
            MembersError: where they are not those of one.
        """
        try:
            # As JSON: only there an array is a tuple in strict mode.
            return self._adapter.validate_json(json.dumps(members))
        except ValidationError:
            raise MembersError from None  # its text holds the value
