"""What the CheckRequests of each data plane are like, where they differ from those of our Envoy.

From tests/fixtures/data_planes: Envoy Gateway's recorded, agentgateway's put together from its
sources. docs/data-planes.md has what each keeps.
"""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True, slots=True)
class CheckRequestFormat:
    """Say which attributes of a CheckRequest are the data plane's own word.

    Attributes:
        exact_size: whether `size` is the length of the body that was sent, or -1 for a part of
            one; such a plane marks parts by no header.
        address_header: whether the plane writes x-envoy-external-address and drops a client's own.
    """

    exact_size: bool = False
    address_header: bool = True


ENVOY: Final = CheckRequestFormat()
FORMATS: Final = MappingProxyType(
    {
        "envoy": ENVOY,
        "envoy_gateway": ENVOY,
        "agentgateway": CheckRequestFormat(exact_size=True, address_header=False),
    }
)
"""By `service.data_plane`."""
