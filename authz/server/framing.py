"""gRPC messages as HTTP/2 carries them: five bytes before each, read strictly.

Invariant: one message comes out of one request body, whole and no longer than allowed, or a gRPC
status says why not; and no frame is ever written around nothing: an empty CheckResponse with the
status OK lets Envoy's request pass.
"""

import struct
from typing import Final

# grpc/doc/PROTOCOL-HTTP2.md: compressed flag (1 byte), length (4 bytes, big endian).
_PREFIX: Final = struct.Struct(">BI")
PREFIX: Final = _PREFIX.size

# grpc/doc/statuscodes.md; the ones that an edge needs.
OK: Final = 0
CANCELLED: Final = 1
RESOURCE_EXHAUSTED: Final = 8
UNIMPLEMENTED: Final = 12
INTERNAL: Final = 13
UNAVAILABLE: Final = 14


class FrameError(Exception):
    """Say why a request body is not one message.

    Attributes:
        status: the gRPC status to answer with.
    """

    def __init__(self, status: int) -> None:
        """Keep the status."""
        super().__init__(status)
        self.status = status


def read_message(body: bytes, longest: int) -> bytes:
    """Return the one message of a whole request body.

    Raises:
        FrameError: RESOURCE_EXHAUSTED where it is longer than `longest` bytes, UNIMPLEMENTED
            where it is compressed (none was offered), INTERNAL where it is no frame, a part of
            one, or more than one.
    """
    if len(body) < PREFIX:
        raise FrameError(INTERNAL)
    compressed, length = _PREFIX.unpack_from(body)
    if length > longest:
        raise FrameError(RESOURCE_EXHAUSTED)
    if compressed:
        raise FrameError(UNIMPLEMENTED)
    if len(body) != PREFIX + length:
        raise FrameError(INTERNAL)
    return body[PREFIX:]


def take_message(held: bytearray, longest: int) -> bytes | None:
    """Take the first message out of what has come of a stream; None while it is not whole.

    Raises:
        FrameError: as `read_message`, where it is too long or compressed.
    """
    if len(held) < PREFIX:
        return None
    compressed, length = _PREFIX.unpack_from(held)
    if length > longest:
        raise FrameError(RESOURCE_EXHAUSTED)
    if compressed:
        raise FrameError(UNIMPLEMENTED)
    if len(held) < PREFIX + length:
        return None
    message = bytes(held[PREFIX : PREFIX + length])
    del held[: PREFIX + length]
    return message


def frame(message: bytes) -> bytes:
    """Return a message with its prefix.

    Raises:
        ValueError: where there is no message.
    """
    if not message:
        raise ValueError("an empty message is not sent")
    return _PREFIX.pack(0, len(message)) + message
