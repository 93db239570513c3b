"""Look at the certificate that a TLS server shows, without trusting it."""

import socket
import ssl
from typing import Final

from cryptography import x509

_PATIENCE: Final = 2.0


def served_serial(address: str, port: int, name: str) -> str | None:
    """Return the serial number in lower-case hexadecimal; None where nobody answers with TLS.

    Args:
        address: whom to connect to.
        port: of it.
        name: whom to ask for (SNI).
    """
    found = served_certificate(address, port, name)
    return None if found is None else f"{found.serial_number:x}"


def served_certificate(address: str, port: int, name: str) -> x509.Certificate | None:
    """Return the server's own certificate; None where nobody answers with TLS.

    Args:
        address: whom to connect to.
        port: of it.
        name: whom to ask for (SNI).
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection((address, port), _PATIENCE) as raw,
            context.wrap_socket(raw, server_hostname=name) as connection,
        ):
            found = connection.getpeercert(binary_form=True) or b""
        return x509.load_der_x509_certificate(found)
    except (OSError, ValueError):
        return None
