"""The table of methods says what the official types say, and prices what it does not know."""

import pytest
from mcp_types import methods as official

from authz.core.methods import METHODS, NOTIFICATIONS, TOOLS_CALL, McpMethod, Role, role
from authz.core.operations import NAMES

MODERN = "2026-07-28"
CLIENTS = {**official.CLIENT_REQUESTS, **official.CLIENT_NOTIFICATIONS}


def eras(method: str) -> tuple[bool, bool]:
    """Return whether the official types have a method before, and in, 2026-07-28."""
    versions = {version for name, version in CLIENTS if name == method}
    return bool(versions - {MODERN}), MODERN in versions


@pytest.mark.parametrize("method", sorted({name for name, _ in CLIENTS}))
def test_the_official_types_agree(method: str) -> None:
    """A method that clients send stands in the table with its eras and its shape."""
    found = METHODS[method]

    assert found.by_client
    assert (found.legacy, found.modern) == eras(method)
    assert found.is_notification == method.startswith(NOTIFICATIONS)


def test_what_servers_send_is_not_sent_by_clients() -> None:
    """A method that only servers send is marked so."""
    servers = {name for name, _ in official.SERVER_REQUESTS} - {name for name, _ in CLIENTS}

    assert servers == {each.name for each in METHODS.values() if not each.by_client}


@pytest.mark.parametrize("method", METHODS.values(), ids=lambda method: method.name)
def test_what_names_a_tool_is_judged_by_the_rules_of_tools(method: McpMethod) -> None:
    """A method that names a tool is tools/call, whose rules are that tool's, or continues it."""
    if method.name.startswith("tools/") and method.named is not None:
        assert method.name == TOOLS_CALL or method.continues


@pytest.mark.parametrize("method", METHODS.values(), ids=lambda method: method.name)
def test_what_names_a_prompt_or_resource_is_judged_by_their_rules(method: McpMethod) -> None:
    """A method of clients that names something by name or URI is known to what judges it."""
    if method.by_client and method.named in {"name", "uri"}:
        assert method.name == TOOLS_CALL or NAMES.get(method.name)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("tools/call", Role.OPERATION),
        ("tools/list", Role.LIST),
        ("initialize", Role.HANDSHAKE),
        ("notifications/cancelled", Role.NOTIFICATION),
        ("Tools/List", Role.OPERATION),
        ("acme.example/open", Role.OPERATION),
        ("notifications/acme", Role.OPERATION),
        ("", Role.OPERATION),
    ],
)
def test_an_unknown_method_counts_as_an_operation(method: str, expected: Role) -> None:
    """Nothing is cheap but what the table says is."""
    assert role(method) is expected
