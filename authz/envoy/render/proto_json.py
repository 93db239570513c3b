"""Envoy's messages as plain values: ProtoJSON with the names of the fields, defaults left out.

Invariant: they are the values of betterproto2's own `to_dict` (tests/envoy/test_proto_json.py),
which takes ten times as long: it finds out the types of each message again, and reads what is in an
`Any` back from its bytes.
"""

import base64
import dataclasses
import math
from collections.abc import Sequence
from functools import cache
from typing import Final

import betterproto2
from envoy_data_plane.google.protobuf import Any
from envoy_data_plane.message_pool import default_message_pool

_AS_TEXT: Final = frozenset(
    {
        betterproto2.TYPE_INT64,
        betterproto2.TYPE_UINT64,
        betterproto2.TYPE_SINT64,
        betterproto2.TYPE_FIXED64,
        betterproto2.TYPE_SFIXED64,
    }
)
_CASING: Final = betterproto2.Casing.SNAKE


class PackedMessage(Any):
    """Hold a message as google.protobuf.Any does, without its bytes."""

    def __init__(self, message: betterproto2.Message) -> None:
        super().__init__(type_url=default_message_pool.type_to_url[type(message)])
        self.message = message

    def unpack(self, *_: object, **__: object) -> betterproto2.Message:
        """Return the message; the pool is not asked."""
        return self.message

    def __bytes__(self) -> bytes:
        """Refuse: whoever read the bytes would find the defaults of the message."""
        raise TypeError("a packed message is only rendered: use `pack` around it, too")


def pack(message: betterproto2.Message) -> Any:
    """Return a message as a google.protobuf.Any, to be rendered by `to_plain`."""
    return PackedMessage(message)


def to_plain(message: betterproto2.Message) -> dict[str, object]:
    """Return a message as mappings, lists, strings, booleans, numbers and None."""
    found = _message(message)
    if not isinstance(found, dict):
        raise TypeError(f"{type(message).__name__} is no mapping in ProtoJSON")
    return found


def _message(message: betterproto2.Message) -> object:
    if isinstance(message, PackedMessage):
        inner = _message(message.message)
        of_its_own = _has_own_form(type(message.message))
        members = {"value": inner} if of_its_own or not isinstance(inner, dict) else inner
        return {"@type": message.type_url, **members}
    if _has_own_form(type(message)):
        return message.to_dict(casing=_CASING)
    found: dict[str, object] = {}
    for name, key, field in _fields(type(message)):
        value = getattr(message, name)
        if value is None:
            continue
        if field.repeated:
            if value:
                found[key] = [_single(each, field) for each in value]
        elif field.map_meta:
            names, values = field.map_meta
            if value:
                found[key] = {_single(k, names): _single(v, values) for k, v in value.items()}
        elif field.proto_type == betterproto2.TYPE_MESSAGE or field.optional or value:
            found[key] = _single(value, field)
    return found


@cache
def _has_own_form(kind: type[betterproto2.Message]) -> bool:
    """Whether ProtoJSON has a form of its own for a type (google.protobuf.Struct, for example)."""
    return kind.to_dict is not betterproto2.Message.to_dict


@cache
def _fields(
    kind: type[betterproto2.Message],
) -> Sequence[tuple[str, str, betterproto2.FieldMetadata]]:
    """Return each field: its attribute, its name in ProtoJSON, what betterproto2 says of it."""
    return [
        # Not by the library's snake case, which makes `consecutive_5_xx` of `consecutive_5xx`.
        (field.name, field.name.rstrip("_"), betterproto2.FieldMetadata.get(field))
        for field in dataclasses.fields(kind)  # type: ignore[arg-type]
    ]


def _single(value: object, field: betterproto2.FieldMetadata) -> object:
    """Return one value of a field."""
    if field.unwrap is not None:
        value = field.unwrap().from_wrapped(value)  # type: ignore[attr-defined]
    if isinstance(value, betterproto2.Message):
        return _message(value)
    if isinstance(value, betterproto2.Enum):
        return (value.proto_name or value.name) if value.name else value.value
    if field.proto_type in _AS_TEXT:
        return str(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("Envoy's configuration has no infinite number")
    return value
