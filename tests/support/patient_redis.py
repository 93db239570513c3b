"""A service in the test's own process that waits for Redis as long as a busy machine takes."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

import pytest

from authz.config.load import Settings
from authz.ledger.redis import RedisOptions
from authz.server.redis_options import require_redis

_PATIENCE: Final = 60.0  # seconds


@contextmanager
def patient_redis() -> Iterator[None]:
    """Have no answer of Redis be too late for what is assembled within the block.

    The product gives it 50 ms, and decides without it then: of tests that are not about that.
    """

    def patient(settings: Settings, env: Mapping[str, str]) -> RedisOptions | None:
        found = require_redis(settings, env)
        return None if found is None else replace(found, timeout=_PATIENCE)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("authz.server.assemble.require_redis", patient)
        yield
