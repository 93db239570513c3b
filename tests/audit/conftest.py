"""The real servers of the ledger's tests."""

from tests.ledger.conftest import (
    deployment,
    fragile,
    pytest_generate_tests,
    server,
    shared,
)

__all__ = ["deployment", "fragile", "pytest_generate_tests", "server", "shared"]
