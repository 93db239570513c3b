"""The stand-in issuer of the demo's tests, for log-ins from a terminal."""

from tests.demo.conftest import keys, world

__all__ = ["keys", "world"]
