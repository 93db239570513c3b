"""Protocol of a service that answers Envoy's ext_proc part by part, as transports call it."""

from collections.abc import Callable
from typing import Protocol


class ResponseProcessor(Protocol):
    """Answer the parts of one response."""

    @property
    def ended(self) -> bool:
        """Tell whether the last part was answered."""
        ...

    async def answer(self, raw: bytes) -> bytes:
        """Return the answer to one part; what it raises ends the stream with an error."""
        ...

    def close(self) -> None:
        """Forget what was held; called at the end, whatever happened."""
        ...


# Takes the `traceparent` of the call, or nothing. Returns None where nobody has responses
# to send: there is no such method then.
ProcessorFactory = Callable[[str], ResponseProcessor | None]
