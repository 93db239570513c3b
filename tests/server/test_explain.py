"""`authz explain`: every step as the service would take it, nothing charged, no token told."""

import asyncio
import io
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from authz.cli import main
from authz.config.load import read
from authz.core import mcp
from authz.core.decision import BearerRequest, Deny, inspect
from authz.core.policy import LEGACY, MODERN, DeclaredClient, Rule
from authz.core.reason import Reason
from authz.core.second_factor import Method, SecondFactor
from authz.server.explain import Explanation, StepOutcome, explain
from authz.server.sample import http_request, message
from authz.server.step_descriptions import step_words
from authz.telemetry.log_reader import find_request, read_request_line
from authz_demo.serving import ANYWHERE, serve
from tests.doctor.kit import answering
from tests.support.valkey import valkey
from tests.support.values import NOW, policy, principal, request, server
from tests.tokens.token_factory import FILES, ISSUER, rsa_signer

TEXT = """\
issuer: {{url: {issuer}, internal: '{internal}', deadline: 5s}}
gateway: {{url: https://mcp.example.test, listen: '127.0.0.1:0'}}
clients:
  claude: {{scopes: [mcp:files], assurance: two_factor}}
  plain: {{}}
servers:
  files:
    upstream: http://files:8000/mcp
    scopes: [mcp:files]
    second_factor: {{method: any, evidence: [client, token]}}
    limits: [{{per: user, rate: 2/minute, name: few}}]
    tools:
      read_*: {{}}
      delete_*: {{scopes: [mcp:write]}}
"""


def token(**changes: object) -> str:
    now = int(time.time())
    claims: dict[str, object] = {
        "aud": [FILES],
        "client_id": "claude",
        "iat": now - 5,
        "nbf": now - 5,
        "exp": now + 600,
        "scp": ["mcp:files"],
    }
    return rsa_signer().token(claims | changes)


def issuer() -> Any:
    metadata = {"issuer": ISSUER, "jwks_uri": f"{ISSUER}/jwks.json"}
    keys = {"keys": [rsa_signer().jwk()]}
    return answering((200, json.dumps(metadata).encode()), (200, json.dumps(keys).encode()))


def explained(
    sent: str,
    tool: str | None = "read_x",
    env: Mapping[str, str] | None = None,
    written: str = TEXT,
) -> Explanation:
    async def ask() -> Explanation:
        async with serve(issuer(), ANYWHERE) as port:
            text = written.format(issuer=ISSUER, internal=f"http://127.0.0.1:{port}")
            settings = read(text, "authz.yaml", {})
            server = settings.policy.servers["files"]
            method = "tools/call" if tool else "tools/list"
            return await explain(settings, http_request(server, method, tool, sent), env or {})

    return asyncio.run(ask())


def refused(found: Explanation) -> dict[str, Reason | None]:
    return {each.name: each.reason for each in found.steps if each.outcome is StepOutcome.REFUSED}


def test_a_good_request_passes_every_step_in_order() -> None:
    """Shape, server, token, rules, ledger: in the order of the decision."""
    found = explained(token())

    assert not isinstance(found.decision, Deny)
    assert [each.name for each in found.steps] == [
        "shape", "server", "bearer",
        "token.shape", "token.issuer", "token.key", "token.signature", "token.claims",
        "message", "issuer", "kind", "audience", "log_in", "client", "method", "operation",
        "definition", "people", "scopes", "second_factor", "ledger",
    ]  # fmt: skip


def test_every_piece_of_evidence_is_told_and_what_it_proves() -> None:
    """The declaration of a client is enough, and the token's silence is said too."""
    found = explained(token())
    (step,) = (each for each in found.steps if each.name == "second_factor")

    assert step.notes == (
        "client proves a second factor (no age): enough",
        "token: the token has no amr",
    )


MARKED = TEXT.replace("deadline: 5s", "deadline: 5s, assurance_claim: mcp_assurance")


WANTED = 'client: the assurance needs the signed claim "two_factor" besides, and the token\'s'
UNDECLARED = "client: authz.yaml declares no assurance of the client, or it came by the front door"


@pytest.mark.parametrize(
    ("claims", "told"),
    [
        ({"mcp_assurance": "two_factor"}, "client proves a second factor (no age): enough"),
        ({}, f"{WANTED} (issuer.assurance_claim) is missing"),
        ({"mcp_assurance": "totp"}, f'{WANTED} (issuer.assurance_claim) says "totp"'),
        ({"mcp_assurance": "totp", "client_id": "plain"}, UNDECLARED),
    ],
)
@pytest.mark.attack("marker")
def test_a_declaration_that_does_not_count_is_told_and_why(
    claims: dict[str, object], told: str
) -> None:
    """Where the signed marker is missing or another, that is what is said of the declaration."""
    found = explained(token(**claims), written=MARKED)
    (step,) = (each for each in found.steps if each.name == "second_factor")

    assert told in step.notes
    admitted = "enough" in told
    assert isinstance(found.decision, Deny) is not admitted
    assert (step.outcome is StepOutcome.PASSED) is admitted


@pytest.mark.attack("marker")
def test_of_an_opaque_token_it_is_told_that_none_has_a_marker() -> None:
    """What the issuer says of an opaque token is not signed, so no declaration counts for it."""
    ruled = server(Rule(second_factor=SecondFactor(Method.ANY)))
    known = DeclaredClient("claude", assurance=Method.ANY, assurance_claim="two_factor")
    call = BearerRequest(ruled, request(), "")
    seen = inspect(call, principal(opaque=True), policy(ruled, known), NOW)

    _, notes = step_words("second_factor", seen, call, NOW)

    wanted = 'the assurance needs the signed claim "two_factor" besides (issuer.assurance_claim)'
    assert f"client: {wanted}, and an opaque token has none" in notes


@pytest.mark.parametrize(
    ("sent", "tool", "step", "reason"),
    [
        (lambda: "", None, "bearer", Reason.TOKEN_MALFORMED),
        (lambda: "a.b", None, "token.shape", Reason.TOKEN_OPAQUE),
        (lambda: "authelia_rt_x.y", None, "token.shape", Reason.TOKEN_WRONG_KIND),
        (lambda: token(iss="https://x.test"), None, "token.issuer", Reason.TOKEN_INVALID),
        (lambda: rsa_signer("other").token(), None, "token.key", Reason.TOKEN_INVALID),
        (lambda: token()[:-8] + "AAAAAAAA", None, "token.signature", Reason.TOKEN_INVALID),
        (lambda: token(exp=int(time.time()) - 1), None, "token.claims", Reason.TOKEN_EXPIRED),
        (lambda: token(aud=["https://x.test"]), None, "audience", Reason.AUDIENCE_MISMATCH),
        (lambda: token(client_id="x"), None, "client", Reason.CLIENT_NOT_ALLOWED),
        (token, "drop", "operation", Reason.TOOL_NOT_ALLOWED),
        (lambda: token(scp=["mcp:files", "mcp:write"]), "delete_x", "scopes",
         Reason.INSUFFICIENT_SCOPE),
        (lambda: token(client_id="plain"), None, "second_factor", Reason.SECOND_FACTOR_REQUIRED),
    ],
)  # fmt: skip
def test_a_refusal_is_told_at_its_step(
    sent: Callable[[], str], tool: str | None, step: str, reason: Reason
) -> None:
    """The step that refuses is the one of the reason, and the verdict says the same."""
    found = explained(sent(), tool)

    assert next(iter(refused(found).items())) == (step, reason)
    assert isinstance(found.decision, Deny)
    assert found.decision.reason is reason


def test_an_issuer_that_does_not_answer_is_told_as_such() -> None:
    """Without keys nobody knows whether a token is good: a fault, with its kind."""
    text = TEXT.format(issuer=ISSUER, internal="http://127.0.0.1:1")
    settings = read(text, "authz.yaml", {})
    request = http_request(settings.policy.servers["files"], "tools/list", None, token())
    found = asyncio.run(explain(settings, request, {}))

    assert refused(found) == {"token.key": Reason.ISSUER_UNAVAILABLE}
    assert "unreachable" in found.steps[-1].words


def test_limits_are_told_and_not_charged() -> None:
    """However often one asks, as much is left as before."""
    with valkey() as server:
        env = {"AUTHZ_REDIS_URL": server.url}
        for _ in range(4):
            found = explained(token(), env=env)
        assert not isinstance(found.decision, Deny)
        assert server.command("KEYS", "*") == []

    assert found.steps[-1].name == "limits"
    assert found.steps[-1].notes == ("few: 2 of 2 left in 60 s",)


def test_a_redis_that_is_away_is_told_as_unknown() -> None:
    """What cannot be looked at is not said to be well."""
    found = explained(token(), env={"AUTHZ_REDIS_URL": "redis://127.0.0.1:1"})

    assert found.steps[-1].outcome is StepOutcome.UNKNOWN
    assert isinstance(found.decision, Deny)


@pytest.mark.parametrize("versions", [(MODERN, *LEGACY), LEGACY], ids=["modern", "legacy"])
@pytest.mark.parametrize("tool", [None, "read_x", "löschen"])
def test_a_sample_is_what_the_reader_accepts(versions: tuple[str, ...], tool: str | None) -> None:
    """A request that we make up is never refused for its own shape."""
    method = "tools/call" if tool else "tools/list"
    headers, members = message(versions, method, tool)
    read_back = mcp.read(json.dumps(members).encode(), headers, max_body=1 << 20)

    assert (read_back.method, read_back.tool, read_back.version) == (method, tool, max(versions))


RULED = TEXT.replace(
    "read_*: {{}}",
    """read_*: {{}}
      transfer:
        when: [{{argument: /amount, range: {{max: 100}}}}, {{argument: /to, in: [bob, 7, true]}}]
        also:
          - when: [{{argument: /path, under: /data}}, {{argument: /x, matches: 'a+'}}]
          - when: [{{argument: /x, present: true}}, {{argument: /y, absent: true}}]""",
)
RULED += """\
    prompts: {{review_*: {{}}}}
    resources: {{'note://a/*': {{}}}}
"""


def test_each_condition_is_told_and_what_it_says_and_no_argument() -> None:
    """In the words of authz.yaml; what the call holds is in no step."""
    settings = read(RULED.format(issuer=ISSUER, internal="http://127.0.0.1:1"), "authz.yaml", {})
    where = settings.policy.servers["files"]
    arguments = {
        "amount": "s3cret-amount",
        "to": "s3cret-to",
        "path": "/data/s3cret",
        "x": "s3cret",
    }
    call = BearerRequest(
        where, http_request(where, "tools/call", "transfer", "t", arguments=arguments), "t"
    )
    seen = inspect(call, principal(), settings.policy, NOW)
    words, notes = step_words("operation", seen, call, NOW)

    assert words == 'tool "transfer"; rules that match: "transfer"'
    at = "servers.files.tools.transfer"
    kind = "cannot be judged: it is of another kind, or could be read differently"
    assert notes == (
        f'{at}.when: argument "/amount" is <= 100: {kind}',
        f'{at}.when: argument "/to" is one of "bob", 7, true: fails',
        f'{at}.also[0].when: argument "/path" is under "/data": holds',
        f'{at}.also[0].when: argument "/x" matches "a+": fails',
        f'{at}.also[1].when: argument "/x" is there: holds',
        f'{at}.also[1].when: argument "/y" is not there: holds',
    )
    assert "s3cret" not in f"{seen.message}{words}{notes}"


@pytest.mark.parametrize(
    ("method", "name", "words"),
    [
        ("prompts/get", "review_a", 'prompt "review_a"; rules that match: "review_*"'),
        ("resources/read", "note://a/b", 'resource "note://a/b"; rules that match: "note://a/*"'),
        ("resources/read", "NOTE://a/b", "what it is about is not read"),
        ("tools/list", None, "no operation is named"),
    ],
)
def test_prompts_and_resources_are_told(method: str, name: str | None, words: str) -> None:
    """With the patterns that match them, in the newest protocol."""
    settings = read(RULED.format(issuer=ISSUER, internal="http://127.0.0.1:1"), "authz.yaml", {})
    where = settings.policy.servers["files"]
    call = BearerRequest(where, http_request(where, method, name, "t"), "t")
    seen = inspect(call, principal(), settings.policy, NOW)

    assert step_words("operation", seen, call, NOW) == (words, ())


# --- the command --------------------------------------------------------------------------------


class _Stdin:
    def __init__(self, data: bytes) -> None:
        self.buffer = io.BytesIO(data)


def line(reason: str = "insufficient_scope", **more: object) -> bytes:
    fields = {"event": "decision", "verdict": "deny", "reason": reason, "request_id": "r1"}
    return json.dumps(fields | more).encode() + b"\n"


def typed(monkeypatch: pytest.MonkeyPatch, data: bytes, *argv: str) -> int:
    monkeypatch.setattr(sys, "stdin", _Stdin(data))
    return main(["explain", *argv])


@pytest.mark.parametrize("reason", list(Reason), ids=lambda each: each.label)
def test_a_line_of_every_reason_is_explained(
    reason: Reason, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the reason means, and what there is to change, for each of them."""
    assert typed(monkeypatch, line(reason.label, server="files"), "--line", "--json") == 1

    told = json.loads(capsys.readouterr().out)
    assert told["reason"] == reason.label
    assert told["meaning"]
    assert told["mend"]
    assert not any("<server>" in field for field in told["fields"])


@pytest.mark.parametrize(
    ("reason", "fields"),
    [
        ("person_not_allowed", ["pages.grafana.groups"]),
        ("session_missing", ["front_door.page_session", "front_door.page_recheck"]),
    ],
)
def test_a_line_about_a_page_names_its_fields(
    reason: str,
    fields: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A refusal of a page leads to the page's own rule, and to no server's."""
    assert typed(monkeypatch, line(reason, page="grafana"), "--line", "--json") == 1
    assert json.loads(capsys.readouterr().out)["fields"] == fields


def test_an_allowed_line_is_status_0(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit status 0 is allowed."""
    assert typed(monkeypatch, line("allowed", verdict="allow"), "--line") == 0
    assert "allowed" in capsys.readouterr().out


@pytest.mark.parametrize(
    "data", [b"", b"deny reason=x", b"[]", b'{"event":"keys"}', line("nonsense")]
)
def test_what_is_no_decision_is_asked_wrongly(
    data: bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Other events, other forms and unknown reasons end with status 2."""
    assert typed(monkeypatch, data, "--line") == 2
    assert capsys.readouterr().err.startswith("authz: ")


def test_a_request_is_found_in_a_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The id that a client was told leads to the reason."""
    log = tmp_path / "log"
    log.write_bytes(b"not json r1\n" + line() + line("rate_limited", request_id="r2"))

    assert main(["explain", "--request-id", "r1", "--log", str(log)]) == 1
    assert "insufficient_scope" in capsys.readouterr().out
    assert main(["explain", "--request-id", "r3", "--log", str(log)]) == 2
    assert main(["explain", "--request-id", "r1"]) == 2


def test_a_request_is_found_in_several_logs_and_on_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`docker compose logs | authz explain --log -`: the answer says whose line it was."""
    empty = tmp_path / "log"
    empty.write_bytes(line(request_id="r2"))
    sent = b"authz-1  | " + line()

    typing = ("--request-id", "r1", "--log", str(empty), "--log", "-")
    assert typed(monkeypatch, sent, *typing) == 1
    assert '"authz-1"' in capsys.readouterr().out


PAGE = b'{"event":"page","request_id":"r1","detail":"crash"}\n'
CRASH = b'{"event":"crash","request_id":"r1","error":"KeyError","where":["a.py:1"]}\n'
STEP = b'{"event":"log_in","request_id":"r1","step":"authorize","outcome":"invalid_target"}\n'
NOT_GRANTED = b'{"event":"page","request_id":"r1","detail":"invalid_target"}\n'
DENIED = {"details": "ext_authz_denied", "flags": "UAEX"}


def access(**more: object) -> bytes:
    fields = {
        "host": "mcp.example.com",
        "path": "/files",
        "route": "mcp:files",
        "status": 503,
        "details": "upstream_reset_before_response_started{remote_connection_failure|x}",
        "flags": "UF",
        "reason": None,
        "request_id": "r1",
    }
    return json.dumps(fields | more).encode() + b"\n"


@pytest.mark.parametrize(
    ("lines", "reasons", "status"),
    [
        (access(), ["server_connection_failed"], 1),
        (line("allowed", verdict="allow") + access(), ["allowed", "server_connection_failed"], 1),
        (access(details="via_upstream", flags="-", status=200), ["passed_on"], 0),
        (access(details="via_upstream", flags="-", status=404), ["passed_on"], 1),
        (
            access(details="ext_authz_denied", flags="UAEX", status=200, reason="tool_not_allowed"),
            ["tool_not_allowed"],
            1,
        ),
        (line(server="files") + access(**DENIED), ["insufficient_scope"], 1),
        (access(details="", flags="-", status=502), ["server_answer_refused"], 1),
        (access(details="new_in_envoy", flags="XX"), ["unknown"], 1),
        (PAGE, ["error_page"], 1),
        (CRASH + PAGE, ["error_page", "crash"], 1),
        (STEP + NOT_GRANTED, ["authorize: invalid_target", "error_page"], 1),
        (
            b'{"event":"list_not_shown","request_id":"r1","fault":"invalid","detail":"x"}\n'
            + line("allowed", verdict="allow") + access(details="ext_proc_error", flags="-"),
            ["allowed", "list_not_shown", "list_filter"],
            1,
        ),
    ],
)  # fmt: skip
def test_what_each_log_says_of_a_request_is_explained(
    lines: bytes,
    reasons: list[str],
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """An id that Envoy or a page gave out leads to the cause and to what fixes it."""
    argv = ("--request-id", "r1", "--log", "-")
    assert typed(monkeypatch, lines, *argv, "--json") == status
    told = json.loads(capsys.readouterr().out)
    all_of_them = [told, *told.get("also", [])]

    assert [each["reason"] for each in all_of_them] == reasons
    for each in all_of_them:
        assert each["verdict"] == "allow" or (each["meaning"] and each["mend"])
    assert typed(monkeypatch, lines, *argv) == status
    assert "<server>" not in capsys.readouterr().out


NO_ROUTE = {"details": "route_not_found", "flags": "NR", "status": 404}


@pytest.mark.parametrize(
    ("lines", "shown"),
    [
        (line("tool_not_allowed"), "tool_not_allowed, HTTP 200 (or 403: gateway.refusals)"),
        (line("tool_not_allowed") + access(**DENIED | {"status": 403}), "HTTP 403\n"),
        (line("tool_not_allowed") + access(**DENIED | {"status": 200}), "HTTP 200\n"),
        (line("token_expired"), "token_expired, HTTP 401\n"),
        (access(host="mcp.example.com", **NO_ROUTE), 'host:             "mcp.example.com"\n'),
    ],
)
def test_the_status_is_the_one_that_the_client_got(
    lines: bytes,
    shown: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Envoy's line has it; a refused operation alone is HTTP 200 in the usual form (decision 11).

    A host that a proxy in front did not pass on as it was shows beside the path.
    """
    typed(monkeypatch, lines, "--request-id", "r1", "--log", "-")
    assert shown in capsys.readouterr().out


@pytest.mark.attack("log-injection")
def test_what_a_caller_chose_cannot_pretend_to_be_ours(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Names in a line are quoted: no escape sequence and no line of its own comes out."""
    sent = line(tool="x\n\u001b[2Jallowed", server="files\nallowed", detail="a\nallowed")
    assert typed(monkeypatch, sent, "--line") == 1

    out = capsys.readouterr().out
    assert "\u001b" not in out
    chosen = "x\n\u001b[2Jallowed"
    for kind in (
        access(host=chosen, path=chosen, route=chosen, details=chosen, flags=chosen),
        json.dumps({"event": "log_in", "request_id": "r1", "step": chosen, "outcome": chosen}),
        json.dumps({"event": "page", "request_id": "r1", "detail": chosen}),
        json.dumps({"stream": "x", "log": access().decode()}),
    ):
        data = kind if isinstance(kind, bytes) else kind.encode()
        assert typed(monkeypatch, data, "--line") == 1
        out += capsys.readouterr().out
    assert "\u001b" not in out
    assert not any(each.startswith("allowed") for each in out.splitlines())


def test_the_last_decision_about_a_request_counts() -> None:
    """A request that was sent twice under one id is explained as it ended."""
    found = find_request([line(), line("rate_limited")], "r1").decision

    assert found is not None
    assert found.record["reason"] == "rate_limited"
    assert read_request_line(line()).record["reason"] == "insufficient_scope"


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_the_token_is_never_printed(
    form: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Neither it nor one of its segments stands in the explanation."""
    config = tmp_path / "authz.yaml"
    config.write_text(TEXT.format(issuer=ISSUER, internal="http://127.0.0.1:1"))
    sent = token()

    assert typed(monkeypatch, sent.encode() + b"\n", str(config), "--token-file", "-", *form) == 1

    told = capsys.readouterr()
    assert not any(part in told.out + told.err for part in sent.split("."))
    assert "issuer_unavailable" in told.out


@pytest.mark.parametrize(
    "argv",
    [
        ["--server", "nobody", "--token-file", "-"],
        ["--tool", "x", "--method", "tools/list", "--token-file", "-"],
        ["--method", "tools/call", "--token-file", "-"],
        [],
    ],
)
def test_half_a_question_is_asked_wrongly(
    argv: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unknown server, a tool without its method and no token at all end with status 2."""
    config = tmp_path / "authz.yaml"
    config.write_text(TEXT.format(issuer=ISSUER, internal="http://127.0.0.1:1"))

    assert typed(monkeypatch, b"x", str(config), *argv) == 2
