"""The address that Authelia is told for a person who has logged in.

Authelia counts failures by address (docs/authelia.md). Whoever shares an address with a person
could use up what it takes of that address, and end the person's refreshes. So refreshes and
revocations are sent in the name of an address that is derived from the person: nobody else can make
requests in its name, and nobody else's failures count against it.
"""

import hashlib
import hmac
from ipaddress import IPv6Address
from typing import Final

from authz.tokens.sealing import Sealer

# RFC 4193, section 3.1: unique local addresses, which no host on the internet has.
_PREFIX: Final = b"\xfd"


def person_address(sealer: Sealer, subject: str) -> str:
    """Return the same address for a person as long as the newest sealing key is the same."""
    key = sealer.mac_key("address")[0]
    drawn = hmac.digest(key, subject.encode(), hashlib.sha256)
    return str(IPv6Address(_PREFIX + drawn[:15]))
