"""Bodies of HTTP messages, read within a bound.

Invariant: a body counts only whole, within its bound and uncompressed, and little more than the
bound is ever held. How long it may take is the caller's to bound.
"""

from collections.abc import AsyncIterable, Container
from dataclasses import dataclass, field
from typing import Final

import httpx

_UNCOMPRESSED: Final = "identity"
_UTF8: Final = frozenset(f"charset={name}" for name in ("utf-8", "utf8", '"utf-8"', '"utf8"'))
_BLANKS: Final = " \t"


def media_type(content_type: str) -> str:
    """Return the media type of a body, without its parameters (RFC 9110, section 8.3.1)."""
    return content_type.partition(";")[0].strip().lower()


def is_utf8(content_type: str) -> bool:
    """Tell whether no reader takes a body of this type for text in another encoding than UTF-8.

    False where anything but `charset=utf-8` could name an encoding, to whatever parser: some decode
    by the first parameter of that name, others by the last, and some read RFC 2231's `charset*`.
    """
    parameters = content_type.partition(";")[2].lower()
    if "charset" not in parameters:
        return True
    return parameters.strip(_BLANKS).removesuffix(";").rstrip(_BLANKS) in _UTF8


class BoundedReadError(Exception):
    """Say in fixed words why a body does not count."""


class BodyTooLargeError(BoundedReadError):
    """Say that a body is longer than its bound."""

    def __init__(self, largest: int) -> None:
        """Take the bound in bytes."""
        super().__init__(f"longer than {largest >> 10} KiB")


class CompressedBodyError(BoundedReadError):
    """Say that a response is compressed, though asked not to be."""

    def __init__(self) -> None:
        """Take nothing."""
        super().__init__("compressed, though asked not to be")


class UnexpectedStatusError(BoundedReadError):
    """Say that a response has another status than those to be read.

    Attributes:
        status, headers: of the response.
    """

    def __init__(self, status: int, headers: httpx.Headers) -> None:
        """Take both."""
        super().__init__(f"status {status}")
        self.status = status
        self.headers = headers


@dataclass(frozen=True, slots=True)
class BoundedResponse:
    """A response that came whole."""

    status: int
    body: bytes
    headers: httpx.Headers = field(default_factory=httpx.Headers)


async def read_body(chunks: AsyncIterable[bytes], largest: int) -> bytes:
    """Return a body of `largest` bytes at most.

    Raises:
        BodyTooLargeError: where it is longer.
    """
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > largest:
            raise BodyTooLargeError(largest)
    return bytes(body)


async def send(
    client: httpx.AsyncClient,
    request: httpx.Request,
    largest: int,
    statuses: Container[int] | None = None,
) -> BoundedResponse:
    """Send a request and return its response; no redirect is followed.

    Args:
        client: what reaches the host.
        request: what is sent.
        largest: bytes of the body.
        statuses: those to be read; None for any.

    Raises:
        BodyTooLargeError: where the body is longer.
        CompressedBodyError: where it is compressed.
        UnexpectedStatusError: where the status is another.
        httpx.HTTPError: where there is no response.
    """
    response = await client.send(request, stream=True, follow_redirects=False)
    try:
        # Whoever stands before the host may set cookies: they would pile up, and be sent.
        client.cookies.clear()
        if statuses is not None and response.status_code not in statuses:
            raise UnexpectedStatusError(response.status_code, response.headers)
        # Nothing is unpacked, so that no small answer becomes a large one.
        if response.headers.get("content-encoding", _UNCOMPRESSED) != _UNCOMPRESSED:
            raise CompressedBodyError
        body = await read_body(response.aiter_raw(), largest)
        return BoundedResponse(response.status_code, body, response.headers)
    finally:
        await response.aclose()
