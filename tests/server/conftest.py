"""What tests of the service as a process share."""

from collections.abc import Iterator

import pytest

from tests.support.service import KeyIssuer, running_issuer
from tests.support.transports import installed


@pytest.fixture(params=["grpcio", "ngh2"])
def transport(request: pytest.FixtureRequest) -> str:
    """What holds of a process holds on both."""
    return installed(request.param)


@pytest.fixture
def issuer() -> Iterator[KeyIssuer]:
    with running_issuer() as one:
        yield one
