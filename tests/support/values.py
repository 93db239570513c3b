"""Small honest values for tests of the core: one server, one client, one person."""

import json
from collections.abc import Mapping
from types import MappingProxyType

from authz.core.limits import Limit, Per
from authz.core.policy import DeclaredClient, FrontDoor, OperationRule, Policy, Rule, Server
from authz.core.principal import LoginRecord, Principal
from authz.core.request import HttpRequest

ISSUER = "https://auth.example.test"
FILES = "https://mcp.example.test/files"
NOW = 1_800_000_000.0
OURS = frozenset({"authz-one-factor", "authz-two-factor"})
LIMIT = Limit("files:user:60/minute", Per.USER, quota=60, window=60, place="files")

_HEADERS = {
    "content-type": "application/json",
    "accept": "application/json, text/event-stream",
    "authorization": "Bearer a.b.c",
}


def server(
    rule: Rule | None = None,
    tools: Mapping[str, Rule] | None = None,
    machines: frozenset[str] = frozenset(),
    **more: object,
) -> Server:
    """Make the server `files`."""
    return Server(
        name="files",
        resource=FILES,
        metadata_url="https://mcp.example.test/.well-known/oauth-protected-resource/files",
        rule=Rule() if rule is None else rule,
        tools=tuple(OperationRule(pattern, r) for pattern, r in (tools or {}).items()),
        machines=machines,
        **more,  # type: ignore[arg-type]  # keyword values of the record under test
    )


def policy(of: Server | None = None, *clients: DeclaredClient, **more: object) -> Policy:
    """Make a policy of one server and some clients."""
    one = server() if of is None else of
    return Policy(
        issuer=ISSUER,
        servers=MappingProxyType({one.name: one}),
        clients=MappingProxyType({client.client_id: client for client in clients}),
        **more,  # type: ignore[arg-type]  # keyword values of the record under test
    )


def principal(**changes: object) -> Principal:
    """Make john's token of the client `claude` for the server `files`."""
    values: dict[str, object] = {
        "issuer": ISSUER,
        "subject": "52b134ec-d812-4022-82b4-9100df7e1418",
        "client_id": "claude",
        "scopes": frozenset({"mcp:files"}),
        "audience": (FILES,),
        "groups": frozenset(),
        "amr": None,
        "auth_time": None,
        "issued_at": int(NOW) - 60,
        "expires_at": int(NOW) + 3600,
        "token_id": "00" * 32,
    }
    return Principal(**(values | changes))  # type: ignore[arg-type]  # as above


def front_door(**changes: object) -> FrontDoor:
    """Make a front door that takes every client."""
    return FrontDoor(OURS, **changes)  # type: ignore[arg-type]  # as above


def login_record(**changes: object) -> LoginRecord:
    """Make the record of john's log-in with TOTP, a minute ago, by the client `claude`."""
    values: dict[str, object] = {
        "client": "claude",
        "client_id": "claude",
        "grant": "grant-1",
        "subject": "52b134ec-d812-4022-82b4-9100df7e1418",
        "amr": frozenset({"pwd", "kba", "otp", "mfa"}),
        "auth_time": int(NOW) - 60,
        "account": "john",
    }
    return LoginRecord(**(values | changes))  # type: ignore[arg-type]  # as above


def visitor(record: LoginRecord | None = None, **changes: object) -> Principal:
    """Make john's token of the front door, as the verifier gives it."""
    found = login_record() if record is None else record
    token_client_id = "authz-two-factor"
    return principal(
        **{"client_id": found.client, "login": found, "token_client_id": token_client_id} | changes
    )


def rpc(method: str = "tools/list", *, rpc_id: object = 7, **params: object) -> bytes:
    """Make the body of a JSON-RPC request."""
    return json.dumps({"jsonrpc": "2.0", "id": rpc_id, "method": method, "params": params}).encode()


def call(tool: str) -> bytes:
    """Make the body of a tools/call."""
    return rpc("tools/call", name=tool, arguments={})


def request(
    body: bytes | None = None,
    method: str = "POST",
    *,
    context: Mapping[str, str] | None = None,
    path: str = "/files",
    address: str = "192.0.2.7",
    **headers: str | None,
) -> HttpRequest:
    """Make a request to `files`; a header given as None is not sent."""
    sent = dict(_HEADERS)
    for name, value in headers.items():
        if value is None:
            sent.pop(name.replace("_", "-"), None)
        else:
            sent[name.replace("_", "-")] = value
    if body is None:
        body = rpc() if method == "POST" else b""
    return HttpRequest(
        method=method,
        path=path,
        headers=sent,
        body=body,
        context={"server": "files"} if context is None else dict(context),
        address=address,
        request_id="2f1f4c5e-0000-4000-8000-000000000001",
    )
