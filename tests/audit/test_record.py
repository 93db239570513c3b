"""What the trail keeps of a decision."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.audit.record import (
    MAX_TEXT,
    AuditEvent,
    InvalidRecordError,
    body,
    chained,
    decision_fields,
    is_recorded,
    read_record,
)
from authz.core.decision import Allow, Decision, Deny, PendingDecision, authorize, conclude, read
from authz.core.identity_cache import IdentityCache
from authz.core.json_pointer import parse
from authz.core.ledger import Mode, OverLimit, Taken
from authz.core.limits import Limit, Per, Quota
from authz.core.mcp import read as mcp_read
from authz.core.operations import MAX_SUBSCRIPTIONS, claimed_names
from authz.core.policy import DeclaredClient, OperationRule, Policy, Rule
from authz.core.principal import Principal
from authz.core.reason import Reason
from authz.core.request import HttpRequest
from authz.core.second_factor import Method, SecondFactor
from tests.support.values import (
    NOW,
    call,
    front_door,
    policy,
    principal,
    request,
    rpc,
    server,
    visitor,
)

LIMIT = Limit("l", Per.USER, quota=1, window=60, place="files:delete_*")
TOOLS = {
    "read_*": Rule(),
    "delete_*": Rule(
        scopes=frozenset({"mcp:delete"}),
        groups=frozenset({"ops"}),
        second_factor=SecondFactor(Method.TOTP),
        limits=(LIMIT,),
    ),
}
CLAUDE = DeclaredClient("claude")
OPS = frozenset({"ops"})
BOTH = frozenset({"mcp:files", "mcp:delete"})


def decided(
    who: Principal, sent: HttpRequest, answer: object = None, of: Policy | None = None
) -> Decision:
    rules = of or policy(server(tools=TOOLS), CLAUDE, front_door=front_door())
    asked = read(sent, rules)
    assert not isinstance(asked, Deny), asked
    pending = authorize(asked, who, rules, NOW)
    if isinstance(pending, Deny):
        return pending
    assert isinstance(pending, PendingDecision)
    return conclude(pending, Taken((), Mode.REDIS) if answer is None else answer)  # type: ignore[arg-type]


def kept(decision: Decision, sent: HttpRequest | None = None) -> dict[str, str]:
    fields = decision_fields(decision, sent)
    cached = IdentityCache()
    assert decision_fields(decision, sent, cached) == fields
    return {name: value for name, value in fields if value}


def test_an_allowed_call_names_person_client_tool_rule_and_factor() -> None:
    """Who, what, by which rule and on what proof: all of it, and no more."""
    sent = replace(request(call("delete_file")), request_id="request-1")
    found = kept(decided(visitor(scopes=BOTH, groups=OPS), sent), sent)

    assert found == {
        "verdict": "allow",
        "reason": "allowed",
        "limiter": "redis",
        "second_factor": "login",
        "request_id": "request-1",
        "server": "files",
        "mcp_method": "tools/call",
        "tool": "delete_file",
        "subject": "52b134ec-d812-4022-82b4-9100df7e1418",
        "account": "john",
        "client_id": "claude",
        "grant": "grant-1",
        "rule": "servers.files.tools.delete_*",
    }


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"groups": OPS}, Reason.INSUFFICIENT_SCOPE),
        ({"scopes": BOTH}, Reason.PERSON_NOT_ALLOWED),
    ],
)
def test_a_refusal_names_the_rule_that_refused(changes: dict[str, Any], reason: Reason) -> None:
    """Of all rules that apply, the record has the one that was not met."""
    own = Rule(scopes=frozenset({"mcp:files"}))
    rules = policy(server(own, TOOLS | {"*": Rule()}), CLAUDE, front_door=front_door())
    sent = request(call("delete_file"))

    decision = decided(visitor(**changes), sent, of=rules)

    assert isinstance(decision, Deny)
    assert decision.reason is reason
    assert kept(decision, sent)["rule"] == "servers.files.tools.delete_*"


def test_an_exhausted_limit_names_its_rule() -> None:
    """The rule whose limit is used up, not the others that were charged."""
    other = replace(LIMIT, place="files", name="other")
    quotas = (Quota(other, 5, 60), Quota(LIMIT, 0, 60))
    sent = request(call("delete_file"))

    decision = decided(visitor(scopes=BOTH, groups=OPS), sent, OverLimit(quotas, 3))

    assert kept(decision, sent)["rule"] == "servers.files.tools.delete_*"


@pytest.mark.parametrize(
    ("method", "recorded"),
    [
        ("tools/call", True),
        ("prompts/get", True),
        ("resources/read", True),
        ("x/unknown", True),
        ("tools/list", False),
        ("initialize", False),
        ("ping", False),
    ],
)
def test_operations_are_recorded_and_handshakes_are_not(method: str, recorded: bool) -> None:
    """Every operation, unknown methods too; lists and handshakes are in the log alone."""
    params = {"name": "x"} if method in {"tools/call", "prompts/get"} else {}
    params |= {"uri": "file:///x"} if method == "resources/read" else {}
    sent = request(rpc(method, **params))
    rules = policy(server())
    asked = read(sent, rules)
    assert not isinstance(asked, Deny)
    pending = authorize(asked, principal(), rules, NOW)
    taken = Taken((), Mode.REDIS)
    decision = pending if isinstance(pending, Deny) else conclude(pending, taken)

    assert is_recorded(decision, sent) is recorded


def test_what_was_not_read_is_recorded_where_it_was_refused() -> None:
    """A POST whose message could not be read is a refusal of the trail; a stream's GET is not."""
    assert is_recorded(Deny(Reason.INVALID_MESSAGE), request())
    assert not is_recorded(Deny(Reason.INVALID_MESSAGE), request(method="GET"))
    assert not is_recorded(Deny(Reason.INTERNAL), None)
    allowed = Allow(server(), None, principal(), (), Mode.REDIS)
    assert not is_recorded(allowed, request(method="GET"))


URI = "file:///a/b"
FILTER = {"resourceSubscriptions": [URI, 7, "note://x"], "taskIds": ["t-1"]}


@pytest.mark.parametrize(
    ("method", "params", "target"),
    [
        ("prompts/get", {"name": "letter"}, "letter"),
        ("resources/read", {"uri": URI}, URI),
        ("resources/subscribe", {"uri": "file:///a/../b"}, "file:///a/../b"),
        ("resources/unsubscribe", {"uri": {"no": "text"}}, None),
        ("completion/complete", {"ref": {"type": "ref/prompt", "name": "letter"}}, "letter"),
        ("completion/complete", {"ref": {"type": "ref/resource", "uri": URI}}, URI),
        ("completion/complete", {"ref": "letter"}, None),
        ("subscriptions/listen", {"notifications": FILTER}, f"{URI}, note://x, t-1"),
        ("subscriptions/listen", {"notifications": [URI]}, None),
        ("subscriptions/listen", {"notifications": {"resourceSubscriptions": URI}}, None),
        ("tasks/get", {"taskId": "t-1"}, "t-1"),
        ("x/unknown", {"name": "of nobody knows what"}, None),
    ],
)
def test_a_record_names_what_the_message_is_about(
    method: str, params: dict[str, Any], target: str | None
) -> None:
    """Clients before 2026-07-28 send no Mcp-Name: allowed or refused, the message is what tells."""
    sent = request(rpc(method, **params))
    assert "mcp-name" not in sent.headers
    message = mcp_read(sent.body, sent.headers, max_body=65536)
    allowed = Allow(server(), message, principal(), (), Mode.REDIS)
    refused = Deny(Reason.RESOURCE_NOT_ALLOWED, "", server(), message, principal())

    for decision in (allowed, refused):
        assert kept(decision, sent).get("target") == target


@pytest.mark.parametrize(
    ("groups", "reason"), [(frozenset(), Reason.PERSON_NOT_ALLOWED), (OPS, None)]
)
def test_a_rule_without_its_limits_has_its_place(
    groups: frozenset[str], reason: Reason | None
) -> None:
    """A subscription meets the rule of its URI without the limits; the record names that rule."""
    limit = replace(LIMIT, place="files:file:///a/*")
    ours = OperationRule("file:///a/*", Rule(groups=OPS, limits=(limit,)))
    other = OperationRule("file:///b/*", Rule(groups=OPS, limits=(limit,)))
    rules = policy(replace(server(), resources=(other, ours)))
    sent = request(rpc("resources/subscribe", uri="file:///a/1"))

    decision = decided(principal(groups=groups), sent, of=rules)

    assert (decision.reason if isinstance(decision, Deny) else None) is reason
    assert kept(decision, sent)["rule"] == "servers.files.resources.file:///a/*"


def test_an_encoded_header_is_not_what_a_record_names() -> None:
    """A name that is no ASCII comes in base64 in Mcp-Name; the record has it as it is."""
    sent = request(rpc("prompts/get", name="brief-à"))
    sent.headers["mcp-name"] = "=?base64?YnJpZWYtw6A=?="
    decision = decided(principal(), sent, of=policy(server()))

    assert kept(decision, sent)["target"] == "brief-à"


def test_an_extension_names_its_thing_in_the_header_alone() -> None:
    """Of a method that MCP does not have, the header tells which member of params is meant."""
    sent = request(rpc("x/unknown", thing="t", name="n"))
    sent.headers["mcp-name"] = "t"
    message = mcp_read(sent.body, sent.headers, max_body=65536)

    assert kept(Allow(server(), message, principal(), (), Mode.REDIS), sent)["target"] == "t"


def test_many_subscriptions_are_a_bounded_record() -> None:
    """However many URIs a message names, and however long."""
    uris = [f"file:///{n}/" + "x" * 60 for n in range(700)]
    sent = request(rpc("subscriptions/listen", notifications={"resourceSubscriptions": uris}))
    message = mcp_read(sent.body, sent.headers, max_body=65536)
    assert len(claimed_names(message)) == MAX_SUBSCRIPTIONS
    fields = decision_fields(Allow(server(), message, principal(), (), Mode.REDIS), sent)

    assert len(body(AuditEvent.DECISION, fields)) < MAX_TEXT


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,12}", fullmatch=True), st.text(max_size=3000)))
def test_a_record_is_one_bounded_line_whatever_it_holds(values: dict[str, str]) -> None:
    """No value adds a member, a line or a control character, and none makes a record too long."""
    values = {name: value for name, value in values.items() if name not in _OURS}
    fields = tuple(values.items())[:12]
    text = chained(body(AuditEvent.DECISION, fields), 1.5, "c" * 16, 7, "m" * 22)

    assert len(text) <= MAX_TEXT
    assert text.isascii()
    assert text.isprintable()
    record = read_record(text.encode())
    assert (record.number, record.event) == (7, AuditEvent.DECISION)
    assert record.fields.keys() == {name for name, value in fields if value}


_OURS = {"time", "chain", "n", "prev", "event"}


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{}",
        b'{"time":1,"chain":"c","n":-1,"prev":"","event":"decision"}',
        b'{"time":1,"chain":"c","n":1.0,"prev":"","event":"decision"}',
        b'{"time":true,"chain":"c","n":1,"prev":"","event":"decision"}',
        b'{"time":1,"chain":"c","n":1,"prev":"","event":"other"}',
        b'{"time":1,"chain":"c","n":1,"prev":"","event":"decision","tool":["x"]}',
        b'{"time":1,"chain":"c","n":1,"n":2,"prev":"","event":"decision"}',
        b'{"time":1,"chain":"c","n":1,"prev":"","event":"decision"' + b" " * MAX_TEXT + b"}",
    ],
)
def test_what_is_no_record_is_refused(text: bytes) -> None:
    """A record is read strictly: no member is missing, doubled, or of another type."""
    with pytest.raises(InvalidRecordError):
        read_record(text)


def test_the_arguments_that_a_rule_names_are_in_a_record() -> None:
    """Those alone, bounded; of what parsers could read differently it says so."""
    rule = Rule(audit=tuple(parse(each) for each in ("/path", "/amount", "/all", "/no", "/a_b")))
    rules = policy(server(tools={"pay*": rule, "*": Rule(audit=(parse("/path"),))}))
    arguments = {
        "path": "/x" * 9000, "amount": 1.5, "all": {"secret": 1}, "secret": "s", "aB": 1, "a_b": 2,
    }  # fmt: skip
    sent = request(rpc("tools/call", name="pay", arguments=arguments))

    decision = decided(principal(), sent, of=rules)
    found = kept(decision, sent)
    text = body(AuditEvent.DECISION, tuple(found.items()))
    record = read_record(chained(text, 1.0, "c", 0, "").encode()).fields

    assert {name: value for name, value in record.items() if name.startswith("argument ")} == {
        "argument /path": ("/x" * 9000)[:255] + "\u2026",
        "argument /amount": "1.5",
        "argument /all": "(object)",
        "argument /a_b": "(alike)",
    }
    assert "secret" not in text
    assert found["rule"] == "servers.files.tools.pay*, servers.files.tools.*"


def test_the_arguments_of_a_prompt_are_in_a_record_and_those_of_its_completion_are_not() -> None:
    """The rule of a prompt names arguments as that of a tool does; a completion has other ones."""
    rule = OperationRule("letter", Rule(audit=(parse("/tone"),)))
    rules = policy(replace(server(), prompts=(rule,)))
    params = {"arguments": {"tone": "warm", "to": "secret"}}
    sent = request(rpc("prompts/get", name="letter", **params))
    found = kept(decided(principal(), sent, of=rules), sent)
    assert {name: found[name] for name in found if name.startswith("argument ")} == {
        "argument /tone": "warm"
    }

    sent = request(
        rpc("completion/complete", ref={"type": "ref/prompt", "name": "letter"}, **params)
    )
    assert "warm" not in kept(decided(principal(), sent, of=rules), sent).values()


@pytest.mark.attack("nothing-secret-is-logged")
def test_no_argument_is_in_a_record() -> None:
    """What a tool is called with stays out, however it is named."""
    sent = request(rpc("tools/call", name="read_file", arguments={"path": "/secret/plan"}))

    found = json.dumps(kept(decided(principal(), sent, of=policy(server(tools=TOOLS))), sent))

    assert "secret" not in found
