"""What a limit charges: operations, handshakes, or everything; and nothing is a way around."""

import json

import pytest

from authz.core.decision import BearerRequest, PendingDecision, authorize, read
from authz.core.limits import Limit, Per, bucket_id
from authz.core.methods import METHODS, Counts, Role
from authz.core.policy import Rule
from tests.support.values import NOW, call, policy, principal, request, rpc, server

EVERY = Limit("every", Per.USER, 10, 60)
OPERATIONS = Limit("operations", Per.USER, 10, 60, counts=Counts.OPERATIONS)
HANDSHAKES = Limit("handshakes", Per.USER, 10, 60, counts=Counts.HANDSHAKES)
RULES = policy(server(Rule(limits=(EVERY, OPERATIONS, HANDSHAKES))))


def charged(body: bytes | None, method: str = "POST") -> list[str]:
    """Return the names of the limits that a request is charged to."""
    asked = read(request(body, method), RULES)
    assert isinstance(asked, BearerRequest)
    pending = authorize(asked, principal(), RULES, NOW)
    assert isinstance(pending, PendingDecision)
    return [take.limit.name for take in pending.query.takes]


def message(method: str) -> bytes:
    """Make a message of a method, shaped as it has to be."""
    known = METHODS.get(method)
    names = {"name": "x", "uri": "x:y"} if known is not None and known.longest else {}
    sent = {"jsonrpc": "2.0", "id": 1, "method": method, "params": names}
    if method.startswith("notifications/"):
        del sent["id"]
    return json.dumps(sent).encode()


@pytest.mark.parametrize("method", sorted(METHODS))
def test_what_does_something_is_an_operation(method: str) -> None:
    """Each method of MCP is charged by its role, and everything to the limit of everything."""
    operation = METHODS[method].role is Role.OPERATION

    assert charged(message(method)) == ["every", "operations" if operation else "handshakes"]


@pytest.mark.attack("limit-by-unknown-method")
@pytest.mark.parametrize("method", ["acme/run", "notifications/acme", "x", "tools/call2"])
def test_an_unknown_method_is_an_operation(method: str) -> None:
    """What the server behind may do by a method of its own is not had for a handshake's price."""
    assert charged(message(method)) == ["every", "operations"]


def test_what_has_no_method_is_a_handshake() -> None:
    """Streams, ends of sessions and responses to the server's own requests."""
    assert charged(None, "GET") == charged(None, "DELETE") == ["every", "handshakes"]
    response = json.dumps({"jsonrpc": "2.0", "id": 1, "result": {}}).encode()
    assert charged(response) == ["every", "handshakes"]


def test_a_session_for_every_call_leaves_the_calls() -> None:
    """What LangChain sends for one call takes one operation."""
    begun = [rpc("initialize"), message("notifications/initialized"), rpc("tools/list")]
    sent = [*(charged(each) for each in begun), charged(None, "GET"), charged(call("x"))]
    sent.append(charged(None, "DELETE"))

    assert sum("operations" in each for each in sent) == 1


def test_what_counts_differently_shares_no_bucket() -> None:
    """The same rate over operations and over handshakes is two budgets."""
    buckets = {bucket_id(each, principal(), "") for each in (EVERY, OPERATIONS, HANDSHAKES)}

    assert len(buckets) == 3
