"""What `authz login` is tried against: the stand-in issuer, and a stage of the front door."""

from tests.login.conftest import keys, play, store, world

__all__ = ["keys", "play", "store", "world"]
