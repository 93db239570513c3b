"""What tests of the service as a process share."""

from collections.abc import Iterator

import pytest

from tests.support.service import KeyIssuer, running_issuer


@pytest.fixture(params=["grpcio", "pyvoy"])
def transport(request: pytest.FixtureRequest) -> str:
    """What holds of a process holds on both."""
    if request.param == "pyvoy":
        pytest.importorskip("pyvoy")
    return str(request.param)


@pytest.fixture
def issuer() -> Iterator[KeyIssuer]:
    with running_issuer() as one:
        yield one
