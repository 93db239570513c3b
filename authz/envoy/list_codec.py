"""Protobuf codec of Envoy's ext_proc messages, for responses.

Invariant: `decode` returns a part of a response or raises PartError, for any bytes; no encoded
answer is empty: where a stream ends without an answer, Envoy forwards all of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from google.protobuf.message import DecodeError

from authz.envoy.pb import external_processor_pb2 as wire
from authz.envoy.pb.core_pb2 import HeaderMap

PROCESSOR: Final = "envoy.service.ext_proc.v3.ExternalProcessor"
EXT_AUTHZ: Final = "envoy.filters.http.ext_authz"
# What Envoy forwards of a response's headers (render/list_filter.py).
STATUS: Final = ":status"
TYPE: Final = "content-type"
ENCODING: Final = "content-encoding"
LENGTH: Final = "content-length"


class PartError(ValueError):
    """Say that a message is no part of a response."""


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """Hold the head of a response.

    Attributes:
        headers: name to value; of a header that came twice, joined by a comma.
        ended: whether no body follows.
        told: what Check said of the request (`core.answers`).
    """

    headers: Mapping[str, str]
    ended: bool
    told: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)


@dataclass(frozen=True, slots=True)
class BodyChunk:
    """Hold a chunk of a response's body, and whether it is the last."""

    data: bytes
    ended: bool


def decode(raw: bytes) -> ResponseHead | BodyChunk:
    """Read one serialized ProcessingRequest.

    Raises:
        PartError: where it is none, or of another kind than head and body of a response.
    """
    try:
        message = wire.ProcessingRequest.FromString(raw)
    except DecodeError:
        raise PartError("no ProcessingRequest") from None
    kind = message.WhichOneof("request")
    if kind == "response_body":
        return BodyChunk(message.response_body.body, message.response_body.end_of_stream)
    if kind != "response_headers":
        raise PartError("no part of a response")
    head = message.response_headers
    told = message.metadata_context.filter_metadata
    fields = told[EXT_AUTHZ].fields if EXT_AUTHZ in told else {}
    return ResponseHead(
        _headers(head.headers),
        head.end_of_stream,
        {name: fields[name].string_value for name in fields},
    )


def _headers(sent: HeaderMap) -> dict[str, str]:
    headers = dict[str, str]()
    for header in sent.headers:
        name = header.key.lower()
        value = (header.raw_value or header.value.encode()).decode("latin-1")
        headers[name] = f"{headers[name]},{value}" if name in headers else value
    return headers


def encode_head(*, changes_body: bool) -> bytes:
    """Return the answer to a head, which goes on.

    Args:
        changes_body: whether the body may become another, so that its length is not told.
    """
    answer = wire.ProcessingResponse()
    common = answer.response_headers.response
    common.SetInParent()
    if changes_body:
        common.header_mutation.remove_headers.append(LENGTH)
    return answer.SerializeToString()


def encode_body(data: bytes | None) -> bytes:
    """Return the answer to a chunk: what takes its place; None for the chunk itself."""
    answer = wire.ProcessingResponse()
    common = answer.response_body.response
    common.SetInParent()
    if data:
        common.body_mutation.body = data
    elif data is not None:
        common.body_mutation.clear_body = True
    return answer.SerializeToString()
