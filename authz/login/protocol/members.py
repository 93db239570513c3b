"""Frozen values as JSON members, for sealed values and Redis: one codec for each kind of value.

Invariant: what was not written by the same codec, or by a version before, is an error.
"""

import json
from collections.abc import Mapping
from typing import Final, Generic, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

T = TypeVar("T")
# `__pydantic_config__` of a value: no conversion, no member that it does not have.
STRICT: Final = ConfigDict(strict=True, extra="forbid")


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
