"""The quick connections are redis-py's in every scheme."""

import pytest
from redis.asyncio import ConnectionPool

from authz.ledger.connections import QuickPool


@pytest.mark.parametrize("url", ["redis://h", "rediss://h", "unix:///s"])
def test_every_scheme_has_one(url: str) -> None:
    """Whatever the URL says, the pool makes a connection of the same kind, only quicker."""
    plain = ConnectionPool.from_url(url).connection_class

    quick = QuickPool.at(url).connection_class

    assert issubclass(quick, plain)
    assert quick is not plain
