"""CheckRequests as Envoy sends them, and CheckResponses as Envoy reads them, for tests."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from authz.core.answers import REFUSAL
from authz.core.request import HttpRequest
from authz.envoy.pb import external_auth_pb2 as wire
from tests.support.values import request


@dataclass(frozen=True, slots=True)
class WireAnswer:
    """What Envoy would do: let the request go on (`allowed`) or answer it."""

    allowed: bool
    status: int
    headers: Mapping[str, str]
    removed: tuple[str, ...]
    body: bytes


def refusal_of(body: bytes) -> dict[str, Any]:
    """Return code, message and the data of a refusal: of an error, or of a tool's result."""
    document = json.loads(body)
    if "error" in document:
        error = document["error"]
        return {"code": error["code"], "message": error["message"], **error["data"]}
    result = document["result"]
    assert result["isError"] is True
    return {"message": result["content"][0]["text"], **result["_meta"][REFUSAL]}


def reason_of(found: WireAnswer) -> str:
    """Return why a request was refused."""
    assert not found.allowed
    reason: str = refusal_of(found.body)["reason"]
    return reason


def check_request(sent: HttpRequest | None = None) -> bytes:
    """Serialize a request as Envoy describes it with encode_raw_headers and pack_as_bytes."""
    sent = request() if sent is None else sent
    message = wire.CheckRequest()
    attributes = message.attributes
    attributes.source.address.socket_address.address = sent.address
    attributes.context_extensions.update(sent.context)
    http = attributes.request.http
    http.method, http.path, http.raw_body = sent.method, sent.path, sent.body
    for name, value in {**sent.headers, "x-request-id": sent.request_id}.items():
        http.header_map.headers.add(key=name, raw_value=value.encode("latin-1"))
    return message.SerializeToString()


def answer(raw: bytes) -> WireAnswer:
    """Read a CheckResponse as Envoy does: OK only with status code 0 and an ok_response."""
    message = wire.CheckResponse.FromString(raw)
    allowed = message.HasField("ok_response")
    assert allowed == (message.status.code == 0)
    part = message.ok_response if allowed else message.denied_response
    return WireAnswer(
        allowed=allowed,
        status=0 if allowed else int(message.denied_response.status.code),
        headers={each.header.key: each.header.value for each in part.headers},
        removed=tuple(message.ok_response.headers_to_remove),
        body=message.denied_response.body.encode(),
    )
