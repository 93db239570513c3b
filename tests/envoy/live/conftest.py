"""One Envoy with TLS for all files of this folder."""

from collections.abc import Iterator

import pytest

from tests.support.gateway import Gateway, running_gateway


@pytest.fixture(scope="session")
def shared() -> Iterator[Gateway]:
    with running_gateway() as gateway:
        yield gateway


@pytest.fixture
def gateway(shared: Gateway) -> Gateway:
    """The running gateway, as if nobody had used it before."""
    shared.forget()
    return shared
