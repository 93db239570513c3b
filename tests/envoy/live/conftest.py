"""One Envoy with TLS for all files of this folder."""

from collections.abc import Iterator

import pytest

from tests.support.gateway import Gateway, running_gateway


def pytest_itemcollected(item: pytest.Function) -> None:
    """Give all that share the Envoy to one process of xdist, which starts it once."""
    if "shared" in item.fixturenames:
        item.add_marker(pytest.mark.xdist_group("gateway"))


@pytest.fixture(scope="session")
def shared() -> Iterator[Gateway]:
    with running_gateway() as gateway:
        yield gateway


@pytest.fixture
def gateway(shared: Gateway) -> Gateway:
    """The running gateway, as if nobody had used it before."""
    shared.forget()
    return shared
