"""The core keeps nothing of a decision but in the cache that it is given."""

import importlib
import pkgutil
from collections import deque
from collections.abc import Iterator
from functools import lru_cache
from types import ModuleType

import authz.core
from authz.core.answers import upstream
from authz.core.decision import BearerRequest, PendingDecision, authorize, conclude, read
from authz.core.identity_cache import IdentityCache
from authz.core.ledger import Mode, Taken
from tests.support.values import NOW, call, policy, principal, request, server

# A dict may be a table, as long as nobody writes to it (below).
_STATE = (list, set, bytearray, deque, IdentityCache, type(lru_cache(len)))


def modules() -> Iterator[ModuleType]:
    for each in pkgutil.walk_packages(authz.core.__path__, "authz.core."):
        yield importlib.import_module(each.name)


def values() -> Iterator[tuple[str, object]]:
    for module in modules():
        for name, value in vars(module).items():
            if not name.startswith("__"):
                yield f"{module.__name__}.{name}", value


def test_no_module_of_the_core_has_a_cache_or_a_container_to_fill() -> None:
    """Lists, sets, LRU caches and caches by identity are nobody's at the level of a module."""
    assert [name for name, value in values() if isinstance(value, _STATE)] == []


def test_a_decision_changes_no_module_of_the_core() -> None:
    """Tables are as they were after decisions about people and tools that nobody has seen."""
    before = {name: dict(value) for name, value in values() if isinstance(value, dict)}
    rules, cache = policy(server()), IdentityCache()
    for number in range(20):
        sent = read(request(call(f"tool-{number}")), rules)
        assert isinstance(sent, BearerRequest)
        pending = authorize(sent, principal(subject=f"p-{number}"), rules, NOW, cache)
        assert isinstance(pending, PendingDecision)
        allowed = conclude(pending, Taken((), Mode.REDIS))
        upstream(allowed, rules, NOW, cache=cache)  # type: ignore[arg-type]  # it is an Allow

    assert len(cache) > 20
    assert before == {name: dict(value) for name, value in values() if isinstance(value, dict)}
