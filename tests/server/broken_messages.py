"""Bodies that are not one gRPC message, in parts, and the status that each gets."""

from typing import Final

import pytest

from authz.server.framing import INTERNAL, RESOURCE_EXHAUSTED, UNIMPLEMENTED, frame

BROKEN_MESSAGES: Final = [
    pytest.param((b"",), INTERNAL, id="nothing"),
    pytest.param((frame(b"x")[:-1],), INTERNAL, id="cut"),
    pytest.param((frame(b"x"), frame(b"y")), INTERNAL, id="two messages"),
    pytest.param((b"\1\0\0\0\1x",), UNIMPLEMENTED, id="compressed"),
    pytest.param((b"\0\x7f\0\0\0",), RESOURCE_EXHAUSTED, id="said to be long"),
]
