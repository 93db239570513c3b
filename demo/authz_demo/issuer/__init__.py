"""A stand-in for Authelia 4.39.20, for tests and the demonstration. NOT FOR PRODUCTION.

Invariant: it refuses what the recorded Authelia refuses, never less: what would fail there must
fail here (tests/demo/test_issuer_fixtures.py, test_issuer_releases.py).
"""

from authz_demo.issuer.app import create_app
from authz_demo.issuer.run import RunningIssuer, main, run
from authz_demo.issuer.state import StandInIssuer
from authz_demo.issuer.values import (
    CustomClaim,
    Lifetimes,
    RegisteredClient,
    StandInConfig,
    User,
    from_json,
    to_json,
)

__all__ = [
    "CustomClaim",
    "Lifetimes",
    "RegisteredClient",
    "RunningIssuer",
    "StandInConfig",
    "StandInIssuer",
    "User",
    "create_app",
    "from_json",
    "main",
    "run",
    "to_json",
]
