"""A stand-in that keeps its state is the same after a restart: keys, grants, and what ended."""

import pickle
from pathlib import Path

from authz_demo.issuer.kept import keep, restore
from authz_demo.issuer.state import IssuerGrant, StandInIssuer, Token
from tests.demo.kit import DemoClock, config


def test_keys_and_grants_outlive_a_restart(tmp_path: Path) -> None:
    """The file is its owner's alone; tokens of one family stay one family."""
    file = tmp_path / "state"
    first = StandInIssuer(config(DemoClock()))
    restore(first, file)
    grant = IssuerGrant("claude", None, (), (), 0.0)
    for kind in ("access", "refresh"):
        first.memory.tokens[kind] = Token(kind, grant, (), (), 0, 1 << 40)
    keep(first, file)
    assert file.stat().st_mode & 0o777 == 0o600

    again = StandInIssuer(config(DemoClock()))
    restore(again, file)

    assert again.keys.jwks() == first.keys.jwks()
    again.memory.tokens["access"].grant.revoked = True
    assert not again.memory.tokens["refresh"].active(0)
    assert pickle.loads(file.read_bytes())[1].tokens["refresh"].active(0)
