"""Which keys a deployment has is said in one place."""

import ast
from collections.abc import Iterator
from pathlib import Path

import authz
from authz.ledger.keys import RedisKeys
from authz.ledger.redis import RedisOptions

ROOT = Path(authz.__file__).parent

# Where `RedisOptions.keys` is, and where a file is written for a Redis that nobody has reached yet.
MAKERS = {"ledger/redis.py", "setup/secrets.py"}


def makers(root: Path) -> Iterator[str]:
    """Yield the modules that call RedisKeys."""
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            match node:
                case ast.Call(func=ast.Name(id="RedisKeys") | ast.Attribute(attr="RedisKeys")):
                    yield path.relative_to(root).as_posix()


def test_keys_come_from_the_options_of_redis() -> None:
    """No module makes the keys of a deployment by itself."""
    assert {*makers(ROOT)} == MAKERS


def test_options_give_the_keys_of_their_deployment() -> None:
    """The keys that options give are those of the deployment that they name."""
    keys = RedisOptions("redis://localhost", deployment="one").keys

    assert keys.revocations == RedisKeys("one").revocations == b"{one}:revocations"
