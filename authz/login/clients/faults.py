"""Why a client's metadata document, or its key set, is of no use: told apart by an enum."""

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Final, NamedTuple


class DocumentFault(Enum):
    """Name what is wrong; the value is for the log."""

    # Not fetched.
    URL = "url"
    HOST_NOT_TAKEN = "host_not_taken"
    PRIVATE_ADDRESS = "private_address"
    # Not there, or no way to it.
    BUSY = "busy"
    NO_ADDRESS = "no_address"
    UNREACHABLE = "unreachable"
    LATE = "late"
    TLS = "tls"
    PROTOCOL = "protocol"
    SERVER_FAULT = "server_fault"
    # There, and not to be used.
    REDIRECT = "redirect"
    NOT_FOUND = "not_found"
    STATUS = "status"
    COMPRESSED = "compressed"
    WRONG_TYPE = "wrong_type"
    TOO_LARGE = "too_large"
    UNUSABLE = "unusable"

    @property
    def description(self) -> str:
        """Return a fixed clause whose subject is the document or its host."""
        return _ROWS[self].description

    @property
    def passing(self) -> bool:
        """Tell whether it may be over in a while: nobody answered, or said that it is broken."""
        return _ROWS[self].passing


class _FaultText(NamedTuple):
    description: str
    passing: bool = False


_ROWS: Final[Mapping[DocumentFault, _FaultText]] = MappingProxyType(
    {
        DocumentFault.URL: _FaultText(
            "its URL must be https://host/path, without user, port, query, fragment, escapes and "
            "dot segments"
        ),
        DocumentFault.HOST_NOT_TAKEN: _FaultText(
            "its host is not one that the operator takes documents of"
        ),
        DocumentFault.PRIVATE_ADDRESS: _FaultText(
            "its host has an address that is not of the open Internet"
        ),
        DocumentFault.BUSY: _FaultText(
            "it cannot be fetched right now; try again in a minute", True
        ),
        DocumentFault.NO_ADDRESS: _FaultText("its host has no address", True),
        DocumentFault.UNREACHABLE: _FaultText("its host cannot be reached", True),
        DocumentFault.LATE: _FaultText("its host takes too long", True),
        DocumentFault.TLS: _FaultText("its host has no certificate that is trusted here", True),
        DocumentFault.PROTOCOL: _FaultText("its host does not keep to HTTP", True),
        DocumentFault.SERVER_FAULT: _FaultText(
            "its host answers that it is overrun or broken", True
        ),
        DocumentFault.REDIRECT: _FaultText(
            "its host answers with a redirect, which is not followed"
        ),
        DocumentFault.NOT_FOUND: _FaultText("its host answers that it is not there (404 or 410)"),
        DocumentFault.STATUS: _FaultText("its host does not answer with status 200"),
        DocumentFault.COMPRESSED: _FaultText("it is compressed"),
        DocumentFault.WRONG_TYPE: _FaultText("its content type is not JSON"),
        DocumentFault.TOO_LARGE: _FaultText("it is longer than 64 KiB"),
        DocumentFault.UNUSABLE: _FaultText("it cannot be read"),
    }
)
