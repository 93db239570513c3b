"""Tools, prompts, resources and arguments under rules, through a real Envoy and official clients;
and the audit trail of these very operations.
"""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import httpx2
import mcp_types
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from authz.core.answers import REFUSAL
from authz_demo.reporter import headers, message
from tests.support.gateway import GATEWAY, tls
from tests.support.older_clients import (
    Operation,
    needs_sdk_1,
    needs_typescript,
    run_sdk_1,
    run_typescript,
)
from tests.support.operations_edge import OperationsEdge, running_operations_edge, token
from tests.support.service import until
from tests.tokens.token_factory import CLAIMS

ALLOWED: Final = "allowed"
CALL, GET, READ = "tools/call", "prompts/get", "resources/read"
SUBSCRIBE, COMPLETE, LISTEN = "resources/subscribe", "completion/complete", "subscriptions/listen"
DESK: Final = "servers.desk"
PUBLIC: Final = f"{DESK}.resources.file:///public/*"
BOARD: Final = f"{DESK}.resources.note://board/*"


@dataclass(frozen=True, slots=True)
class Step:
    """One operation of a client, and what becomes of it.

    Attributes:
        method, name, arguments: as the client is asked to do it.
        reason: `allowed`, or why it is refused.
        rule: where authz.yaml has the rule that the record names.
        kept: the arguments in the record.
    """

    method: str
    name: str
    arguments: dict[str, object] = field(default_factory=dict)
    reason: str = ALLOWED
    rule: str = DESK
    kept: dict[str, str] = field(default_factory=dict)


NO_ARGUMENTS: Final = "arguments_not_allowed"
# Told as a challenge (403), by which clients ask for more scopes; older ones end their session.
CHALLENGED: Final = Step(
    CALL, "transfer", {"amount": 101}, "insufficient_scope", f"{DESK}.tools.transfer.also.0"
)
STEPS: Final = (
    Step(CALL, "list_files", rule=f"{DESK}.tools.list_files"),
    Step(
        CALL, "delete_file", {"path": "/tmp/a"}, ALLOWED, f"{DESK}.tools.delete_file",
        {"argument /path": "/tmp/a"},
    ),
    Step(CALL, "delete_file", {"path": "/etc/passwd"}, NO_ARGUMENTS),
    Step(CALL, "delete_file", {"path": "/tmp/../etc/passwd"}, NO_ARGUMENTS),
    Step(CALL, "delete_file", {}, NO_ARGUMENTS),
    Step(CALL, "transfer", {"amount": 100}, ALLOWED, f"{DESK}.tools.transfer"),
    CHALLENGED,
    Step(CALL, "transfer", {"amount": "101"}, NO_ARGUMENTS),
    Step(CALL, "shutdown", {}, "tool_not_allowed"),
    Step(
        GET, "letter", {"tone": "warm"}, ALLOWED, f"{DESK}.prompts.letter",
        {"argument /tone": "warm"},
    ),
    Step(GET, "letter", {"tone": "rude"}, NO_ARGUMENTS),
    Step(GET, "secret", {}, "prompt_not_allowed"),
    Step(GET, "board_minutes", {}, "person_not_allowed", f"{DESK}.prompts.board_*"),
    Step(READ, "file:///public/a/b.txt", rule=PUBLIC),
    Step(READ, "file:///private/a.txt", {}, "resource_not_allowed"),
    Step(READ, "file:///public/a%2Fb", {}, "resource_not_allowed"),
    Step(READ, "note://board/1", {}, "person_not_allowed", BOARD),
    Step(COMPLETE, "letter", rule=f"{DESK}.prompts.letter"),
    Step(COMPLETE, "secret", {}, "prompt_not_allowed"),
    Step(COMPLETE, "file:///public/{name}", rule=PUBLIC),
    Step(COMPLETE, "note://board/{number}", {}, "person_not_allowed", BOARD),
)  # fmt: skip
SUBSCRIPTIONS: Final = (
    Step(SUBSCRIBE, "file:///public/a", rule=PUBLIC),
    Step(SUBSCRIBE, "note://board/1", {}, "person_not_allowed", BOARD),
    Step(SUBSCRIBE, "file:///private/a", {}, "resource_not_allowed"),
)
LISTENING: Final = tuple(
    Step(LISTEN, each.name, {}, each.reason, each.rule) for each in SUBSCRIPTIONS
)
OF_OLDER: Final = (*(each for each in STEPS + SUBSCRIPTIONS if each != CHALLENGED), CHALLENGED)
# What the scope and the group of the board open.
OF_BOARD: Final = (
    Step(CALL, "transfer", {"amount": 101}, ALLOWED, f"{DESK}.tools.transfer.also.0"),
    Step(CALL, "delete_file", {"path": "/etc/passwd"}, NO_ARGUMENTS),
    Step(GET, "board_minutes", rule=f"{DESK}.prompts.board_*"),
    Step(READ, "note://board/1", rule=BOARD),
    Step(COMPLETE, "note://board/{number}", rule=BOARD),
)
BOARD_CLAIMS: Final = {"scp": ["mcp:desk", "mcp:desk:large"], "groups": ["board"], "sub": "board-1"}

# resources/subscribe is of the legacy era.
pytestmark = pytest.mark.filterwarnings("ignore::mcp.MCPDeprecationWarning")


@pytest.fixture(scope="module")
def edge() -> Iterator[OperationsEdge]:
    with running_operations_edge() as running:
        yield running


async def do(client: Client, step: Step) -> str:
    """Do one operation with the official client; return how it ended."""
    texts = {name: str(value) for name, value in step.arguments.items()}
    argument = {"name": "tone", "value": "p"}
    try:
        match step.method:
            case "tools/call":
                result = await client.call_tool(step.name, step.arguments)
                refusal = (result.meta or {}).get(REFUSAL)
                return str(refusal["reason"]) if refusal else ALLOWED
            case "prompts/get":
                await client.get_prompt(step.name, texts)
            case "resources/read":
                await client.read_resource(step.name)
            case "resources/subscribe":
                await client.subscribe_resource(step.name)
            case "subscriptions/listen":
                async with client.listen(resource_subscriptions=[step.name]):
                    pass
            case _ if ":" in step.name:
                ref = mcp_types.ResourceTemplateReference(uri=step.name)
                await client.complete(ref, argument)
            case _:
                await client.complete(mcp_types.PromptReference(name=step.name), argument)
    except MCPError as error:
        return str(error.error.data["reason"])
    return ALLOWED


def python(edge: OperationsEdge, mode: str, bearer: str, steps: tuple[Step, ...]) -> list[str]:
    """Run the official client of SDK 2.x."""

    async def run() -> list[str]:
        headers = {"host": GATEWAY, "authorization": f"Bearer {bearer}"}
        url = f"https://127.0.0.1:{edge.port}/desk"
        async with (
            httpx2.AsyncClient(verify=tls("http/1.1"), headers=headers, timeout=120) as http,
            Client(streamable_http_client(url, http_client=http), mode=mode) as client,
        ):
            return [await do(client, step) for step in steps]

    return asyncio.run(run())


def operations(*steps: Step) -> list[Operation]:
    return [(step.method, step.name, step.arguments) for step in steps]


def challenged(told: list[str]) -> list[str]:
    """Name the reason of the challenge, which is the last that these clients are told."""
    assert told[-1] == "403"
    return [*told[:-1], CHALLENGED.reason]


def records(edge: OperationsEdge, client: str, count: int) -> list[dict[str, Any]]:
    """Return the records of a client, as soon as there are as many."""
    found: list[dict[str, Any]] = []

    def written() -> bool:
        done = edge.audit("--client", client, "--json", "--limit", "0")
        assert done.returncode == 0, done.stderr
        found[:] = [json.loads(line)["record"] for line in done.stdout.splitlines()]
        return len(found) >= count

    until(written, f"{count} records of {client}")
    return found


def check(
    edge: OperationsEdge,
    client: str,
    told: list[str],
    steps: tuple[Step, ...],
    subject: object = CLAIMS["sub"],
) -> None:
    """Compare what a client was told, what reached the server, and what the trail holds."""
    names = [(each.method, each.name) for each in steps]
    expected = [each.reason for each in steps]
    assert dict(enumerate(zip(names, told, strict=True))) == dict(
        enumerate(zip(names, expected, strict=True))
    )
    passed = [(each.method, each.name) for each in steps if each.reason == ALLOWED]
    assert edge.desk.ran == passed

    found = [
        {name: record.get(name) for name in _COMPARED}
        | {name: value for name, value in record.items() if name.startswith("argument ")}
        for record in records(edge, client, len(steps))
    ]
    assert found == [_record(each, subject) for each in steps]


_COMPARED: Final = (
    "event", "verdict", "reason", "server", "mcp_method", "tool", "target", "subject", "rule",
)  # fmt: skip


def _record(step: Step, subject: object) -> dict[str, object]:
    is_tool = step.method == CALL
    return {
        "event": "decision",
        "verdict": "allow" if step.reason == ALLOWED else "deny",
        "reason": step.reason,
        "server": "desk",
        "mcp_method": step.method,
        "tool": step.name if is_tool else None,
        "target": None if is_tool else step.name,
        "subject": subject,
        "rule": step.rule,
        **step.kept,
    }


@pytest.mark.parametrize(
    ("mode", "client", "steps"),
    [
        ("legacy", "sdk-2-legacy", STEPS + SUBSCRIPTIONS),
        ("2026-07-28", "sdk-2-modern", STEPS + LISTENING),
    ],
)
def test_the_official_client_and_its_trail(
    edge: OperationsEdge, mode: str, client: str, steps: tuple[Step, ...]
) -> None:
    """Each operation ends as its rule says, and is one record, in both eras."""
    edge.desk.ran.clear()
    told = python(edge, mode, token(client), steps)
    check(edge, client, told, steps)


@pytest.mark.parametrize(("mode", "client"), [("legacy", "board-legacy"), ("2026-07-28", "board")])
def test_what_a_scope_and_a_group_open(edge: OperationsEdge, mode: str, client: str) -> None:
    """The same rules let another person pass, and conditions stay conditions."""
    edge.desk.ran.clear()
    told = python(edge, mode, token(client, **BOARD_CLAIMS), OF_BOARD)
    check(edge, client, told, OF_BOARD, "board-1")


@needs_sdk_1
def test_the_older_sdk_and_its_trail(edge: OperationsEdge) -> None:
    """SDK 1.x: the same operations end alike, and are the same records."""
    edge.desk.ran.clear()
    url = f"https://127.0.0.1:{edge.port}/desk"
    told = run_sdk_1(url, GATEWAY, token("sdk-1"), operations(*OF_OLDER))
    check(edge, "sdk-1", challenged(told), OF_OLDER)


@needs_typescript
def test_the_typescript_client_and_its_trail(edge: OperationsEdge) -> None:
    """SDK 1.x of TypeScript: the same again."""
    edge.desk.ran.clear()
    url = f"https://{GATEWAY}/desk"
    told = run_typescript(url, edge.port, token("typescript"), operations(*OF_OLDER))
    check(edge, "typescript", challenged(told), OF_OLDER)


@pytest.mark.attack("argument-in-a-header")
def test_a_header_repeats_the_argument_that_was_judged(edge: OperationsEdge) -> None:
    """The official client's own `Mcp-Param-Path` passes; another one beside the same body is
    refused before the server, and so are two.
    """
    edge.desk.ran.clear()
    sent: list[str] = []
    body = message("tools/call", {"name": "move_file", "arguments": {"path": "/tmp/a"}})

    async def note(request: httpx2.Request) -> None:
        sent.extend(request.headers.get_list("mcp-param-path"))

    async def run() -> list[str]:
        bearer = token("repeating")
        fields = {"host": GATEWAY, "authorization": f"Bearer {bearer}"}
        url = f"https://127.0.0.1:{edge.port}/desk"
        async with httpx2.AsyncClient(
            verify=tls("http/1.1"), headers=fields, timeout=120, event_hooks={"request": [note]}
        ) as http:
            async with Client(
                streamable_http_client(url, http_client=http), mode="2026-07-28"
            ) as client:
                await client.list_tools()
                passed = [await do(client, Step(CALL, "move_file", {"path": "/tmp/\u00e9"}))]
            for values in (["/tmp/a"], ["/etc"], ["/tmp/a", "/etc"]):
                mirrors = [*headers(body).items(), *(("mcp-param-path", each) for each in values)]
                answer = await http.post(url, json=body, headers=mirrors)
                error = answer.json().get("error")
                passed.append(ALLOWED if error is None else str(error["data"]["reason"]))
            return passed

    assert asyncio.run(run()) == [ALLOWED, ALLOWED, "header_mismatch", "header_mismatch"]
    assert sent[0].startswith("=?base64?")
    assert edge.desk.ran == [(CALL, "move_file")] * 2


def test_the_trail_is_whole_and_a_missing_record_is_found(edge: OperationsEdge) -> None:
    """`--verify` says whole of what real clients left; a copy without one refusal is not."""
    edge.desk.ran.clear()
    # Whichever test ran before: one refusal between two others.
    python(edge, "legacy", token("board-legacy", **BOARD_CLAIMS), OF_BOARD[:3])
    until(lambda: "board_minutes" in edge.audit("--client", "board-legacy").stdout, "the records")
    done = edge.audit("--verify")
    assert done.returncode == 0, done.stdout
    assert "the trail is whole" in done.stdout
    assert "no sealing key" not in done.stderr

    lines = edge.audit("--json", "--all", "--limit", "0").stdout.splitlines(keepends=True)
    refused = next(n for n, line in enumerate(lines) if '"verdict":"deny"' in line)
    copy = edge.folder / "trail.jsonl"
    copy.write_text("".join(lines[:refused] + lines[refused + 1 :]))
    done = edge.audit("--verify", "--file", str(copy))
    assert done.returncode == 1
    assert "not whole" in done.stdout
