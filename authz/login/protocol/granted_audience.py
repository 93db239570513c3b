"""Check of the access token that the issuer gave: it is for the consented server, and no other."""

from enum import StrEnum
from typing import Final

from authz.core.principal import names_resource


class TokenFault(StrEnum):
    """Name what is wrong with the issuer's token, as `login_fault` and the log do."""

    NONE = ""
    EMPTY = "the issuer's token is for no server (aud is empty)"
    FOREIGN = "the issuer's token is not for the server that was asked for (aud)"
    WIDE = "the issuer's token is for more than the server that was asked for (aud)"
    OPAQUE = (
        "the issuer's access token is opaque: "
        "our client there lacks access_token_signed_response_alg"
    )


# What client and person are told (RFC 6749, sections 4.1.2.1 and 5.2).
WORDS: Final = (
    "the log-in service made a token that is not for this server; "
    "its operator finds the cause in the log, or with authz doctor"
)

OPAQUE_WORDS: Final = (
    "the log-in service made a token that this gateway cannot read; "
    "its operator finds the cause in the log, or with authz doctor"
)


def audience_fault(granted: tuple[str, ...], resource: str) -> TokenFault:
    """Return what is wrong with the audience of a new access token; NONE where nothing is.

    The person consented to one server. A token without it is refused by every server, and one for
    others too would be taken there without a consent.
    """
    if not granted:
        return TokenFault.EMPTY
    if not names_resource(granted, resource):
        return TokenFault.FOREIGN
    others = (entry for entry in granted if not names_resource((entry,), resource))
    return TokenFault.WIDE if any(others) else TokenFault.NONE
