"""From models to the policy: the same rules, in the core's words."""

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.config.compile import compile_policy, metadata_url
from authz.config.load import Settings
from authz.config.model import Config
from authz.core.limits import Limit, Per
from authz.core.methods import Counts
from authz.core.policy import (
    DeclaredClient,
    FrontDoor,
    OperationRule,
    Policy,
    Rule,
    StepUpFallback,
    TokenKind,
)
from authz.core.second_factor import ALL_EVIDENCE, Evidence, Method, SecondFactor

SettingsOf = Callable[[str], Settings]
# RFC 9651, section 3.3.3: what a structured-field string holds without escapes.
SF_STRING = re.compile(r"[\x20-\x21\x23-\x5b\x5d-\x7e]+\Z")


def test_example(example: str, settings_of: SettingsOf) -> None:
    """The design's example means what the design says."""
    policy = settings_of(example).policy

    assert policy.issuer == "https://auth.example.com"
    assert policy.origins == {"https://inspector.example.com"}
    assert policy.max_body == 1 << 20
    assert policy.limits == ()
    assert policy.clients == {
        "claude": DeclaredClient("claude", frozenset({"mcp:files", "mcp:files:write"})),
        "old-script": DeclaredClient("old-script", frozenset({"mcp:files"}), assurance=Method.ANY),
        "nightly-backup": DeclaredClient("nightly-backup", frozenset({"mcp:files"}), machine=True),
    }
    files = policy.servers["files"]
    assert files.resource == "https://mcp.example.com/files"
    assert files.metadata_url == (
        "https://mcp.example.com/.well-known/oauth-protected-resource/files"
    )
    assert files.machines == {"nightly-backup"}
    assert files.rule == Rule(
        scopes=frozenset({"mcp:files"}),
        groups=frozenset({"staff"}),
        second_factor=SecondFactor(Method.ANY, None, ALL_EVIDENCE),
        limits=(
            Limit("files:client,user:60/minute", Per.CLIENT_USER, 60, 60, place="files"),
            Limit("files:user:1000/day", Per.USER, 1000, 86400, place="files"),
        ),
        tokens=frozenset({TokenKind.JWT}),
    )
    assert files.tools == (
        OperationRule("read_*", Rule()),
        OperationRule(
            "delete_*",
            Rule(
                scopes=frozenset({"mcp:files:write"}),
                second_factor=SecondFactor(Method.TOTP, 300, ALL_EVIDENCE),
                limits=(
                    Limit("files:delete_*:user:5/minute", Per.USER, 5, 60, place="files:delete_*"),
                ),
            ),
        ),
    )


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        (
            "",
            [
                "files:client,user:60/minute:operations",
                "files:user:120/minute:operations",
                "files:user:150/15 seconds:handshakes",
            ],
        ),
        ("    limits: []\n", []),
        ("    limits: [{per: address, rate: 10/2 minutes}]\n", ["files:address:10/2 minutes"]),
        ("    limits: [{per: [user, client], rate: 1/day, name: daily}]\n", ["daily"]),
        ("    limits: [{per: [user], rate: 60/60 seconds, cost: 3}]\n", ["files:user:60/minute"]),
        (
            "    limits: [{per: user, rate: [60/minute, 1000/day], burst: 20}]\n",
            ["files:user:60/minute", "files:user:1000/day", "files:user:20/20 seconds:burst"],
        ),
        (
            "    limits: [{per: user, rate: [60/minute, 9/second], burst: 5, name: a}]\n",
            ["a", "a:9/second", "a:burst"],
        ),
        (
            "    limits: [{per: user, rate: [9/second, 8/day, 7/month], time_zone: Asia/Tokyo}]\n",
            ["files:user:9/second", "files:user:8/day@Asia/Tokyo", "files:user:7/month@Asia/Tokyo"],
        ),
        (
            """    limits:
      - per: user
        rate: [9/second, 60/minute]
        overrides:
          - {groups: [ci], rate: [600/minute, 7/day, 8/hour], burst: 3}
          - {users: [ada], rate: 1/minute}
""",
            [
                "files:user:9/second",
                "files:user:600/minute",
                "files:user:1/minute",
                "files:user:60/minute",
                "files:user:7/day",
                "files:user:8/hour",
                "files:user:3/second:burst",
            ],
        ),
    ],
)
def test_limits(limits: str, expected: list[str], smallest: str, settings_of: SettingsOf) -> None:
    """Left out, a server is limited; `[]` turns that off; names say place, whom and rate."""
    rule = settings_of(smallest + limits).policy.servers["files"].rule

    assert [limit.name for limit in rule.limits] == expected


def test_what_a_limit_counts(smallest: str, settings_of: SettingsOf) -> None:
    """A limit that is written counts every request, as it always did, unless it says otherwise."""
    written = (
        "    limits: [{per: user, rate: 1/day}, {per: user, rate: 1/day, counts: operations}]\n"
    )
    limits = settings_of(smallest + written).policy.servers["files"].rule.limits

    assert [limit.counts for limit in limits] == [Counts.ALL, Counts.OPERATIONS]
    assert [limit.name for limit in limits] == ["files:user:1/day", "files:user:1/day:operations"]


def test_when_a_limit_warns(smallest: str, settings_of: SettingsOf) -> None:
    """Never, unless it says from which percentage on; then each of its windows."""
    first, other = "{per: user, rate: [9/second, 1/day], warn_at: 80}", "{per: user, rate: 2/day}"
    written = f"    limits: [{first}, {other}]\n"
    limits = settings_of(smallest + written).policy.servers["files"].rule.limits

    assert [limit.warn_at for limit in limits] == [80, 80, None]


def test_limits_on_everything(smallest: str, settings_of: SettingsOf) -> None:
    """Limits at the top have a place of their own, which no server can have."""
    policy = settings_of(f"{smallest}limits: [{{per: user, rate: 9/hour, cost: 2}}]\n").policy

    assert policy.limits == (Limit("*:user:9/hour", Per.USER, 9, 3600, cost=2, place=""),)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("any", SecondFactor(Method.ANY)),
        ("totp", SecondFactor(Method.TOTP)),
        ("none", None),
        ("{}", SecondFactor(Method.ANY)),
        (
            "{method: totp, max_login_age: 90s, evidence: [step_up, token]}",
            SecondFactor(Method.TOTP, 90, frozenset({Evidence.STEP_UP, Evidence.TOKEN})),
        ),
    ],
)
def test_second_factor(
    words: str, expected: SecondFactor | None, smallest: str, settings_of: SettingsOf
) -> None:
    """A word is short for a mapping; none asks for nothing."""
    policy = settings_of(f"{smallest}    second_factor: {words}\n").policy

    assert policy.servers["files"].rule.second_factor == expected


@pytest.mark.parametrize(
    ("assurance", "method"),
    [
        ("{}", Method.NONE),
        ("{assurance: two_factor}", Method.ANY),
        ("{assurance: totp}", Method.TOTP),
    ],
)
def test_assurance(assurance: str, method: Method, smallest: str, settings_of: SettingsOf) -> None:
    """A client's assurance is what its log-ins prove; undeclared, nothing."""
    policy = settings_of(f"{smallest}clients: {{c: {assurance}}}\n").policy

    assert policy.clients["c"] == DeclaredClient("c", assurance=method)


@pytest.mark.parametrize(
    ("client", "assurance_claim"),
    [
        ("{}", None),
        ("{assurance: two_factor}", "two_factor"),
        ("{assurance: totp}", "totp"),
        ("{machine: true}", None),
    ],
)
def test_the_word_that_a_marker_must_say_is_the_assurance(
    client: str, assurance_claim: str | None, smallest: str, settings_of: SettingsOf
) -> None:
    """Where a claim is named, a token must repeat what its client's entry says, to the letter."""
    text = smallest.replace("gateway:", "  assurance_claim: mcp_assurance\ngateway:")
    machines = "    machines: [c]\n" if "machine" in client else ""
    settings = settings_of(f"{text}{machines}clients: {{c: {client}}}\n")

    assert settings.config.issuer.assurance_claim == "mcp_assurance"
    assert settings.policy.clients["c"].assurance_claim == assurance_claim


@pytest.mark.parametrize(
    ("resource", "url"),
    [
        (
            "https://mcp.example.com/a",
            "https://mcp.example.com/.well-known/oauth-protected-resource/a",
        ),
        (
            "https://mcp.example.com:8443/a/b",
            "https://mcp.example.com:8443/.well-known/oauth-protected-resource/a/b",
        ),
    ],
)
def test_metadata_url(resource: str, url: str) -> None:
    """RFC 9728, section 3.1: the well-known part stands between host and path."""
    assert metadata_url(resource) == url


SERVERS = st.sampled_from(["a", "b", "client", "user", "a-b", "everything", "all"])
PATTERNS = st.sampled_from(["*", "user", "client,user".replace(",", "."), "a:user", "x/y", "b:*"])
LIMITS = st.lists(
    st.fixed_dictionaries(
        {
            "per": st.sampled_from(["client", "user", "address", ["client", "user"]]),
            "rate": st.sampled_from(["5/minute", "5/hour", "7/2 minutes"]),
        }
    ),
    max_size=3,
    unique_by=lambda limit: str(sorted(limit.items())),
)


@given(
    LIMITS,
    st.dictionaries(
        SERVERS, st.tuples(LIMITS, st.dictionaries(PATTERNS, LIMITS, max_size=3)), min_size=1
    ),
)
def test_names_and_places(
    top: list[object], servers: dict[str, tuple[list[object], dict[str, list[object]]]]
) -> None:
    """No two limits share a name, no two places share one, and names fit the RateLimit fields."""
    config = Config.model_validate(
        {
            "issuer": {"url": "https://a.example.com"},
            "gateway": {"url": "https://b.example.com"},
            "limits": top,
            "servers": {
                name: {"upstream": "http://x", "limits": limits}
                | (
                    {"tools": {key: {"limits": value} for key, value in tools.items()}}
                    if tools
                    else {}
                )
                for name, (limits, tools) in servers.items()
            },
        }
    )
    policy = compile_policy(config)
    rules = [(server.rule.limits, name) for name, server in policy.servers.items()]
    rules += [
        (tool.rule.limits, f"{name}:{tool.pattern}")
        for name, server in policy.servers.items()
        for tool in server.tools
    ]
    rules.append((policy.limits, ""))
    names = [limit.name for limits, _ in rules for limit in limits]

    assert len(set(names)) == len(names)
    assert len({place for _, place in rules}) == len(rules)
    assert all(limit.place == place for limits, place in rules for limit in limits)
    assert all(SF_STRING.match(name) for name in names)


# --- the front door ---------------------------------------------------------------------------


def compiled(front_door: dict[str, object] | None, login: str | None = None) -> Policy:
    """Compile a configuration without asking what else may be wrong with it."""
    issuer = {"url": "https://auth.example.com"} | ({} if login is None else {"login": login})
    given: dict[str, object] = {
        "issuer": issuer,
        "gateway": {"url": "https://mcp.example.com"},
        "clients": {
            "plain": {},
            "old": {"login": "direct"},
            "new": {"login": "front_door"},
            "robot": {"machine": True, "login": "front_door"},
            "default": {"scopes": ["mcp:files"], "assurance": "totp"},
        },
        "servers": {"files": {"upstream": "http://files:8000/mcp"}},
    }
    if front_door is not None:
        given["front_door"] = {"key_file": "/run/secrets/key"} | front_door
    return compile_policy(Config.model_validate(given))


@pytest.mark.parametrize(
    ("login", "direct"),
    [
        (None, {"old", "robot"}),
        ("front_door", {"old", "robot"}),
        ("direct", {"plain", "old", "robot"}),
    ],
)
def test_who_logs_in_directly(login: str | None, direct: set[str]) -> None:
    """By its own entry, or the issuer's; a machine always."""
    clients = compiled({}, login).clients

    assert {name for name, each in clients.items() if each.direct} == direct


def test_the_entry_of_those_that_are_not_named_is_no_client() -> None:
    """With a front door `default` says what strangers may use, and names nobody."""
    policy = compiled({"step_up": "challenge", "one_factor": "one", "registration": False})

    assert "default" not in policy.clients
    assert policy.front_door == FrontDoor(
        frozenset({"one", "authz-two-factor"}),
        registration=False,
        metadata_hosts=None,
        scopes=frozenset({"mcp:files"}),
        step_up=StepUpFallback.CHALLENGE,
    )
    assert policy.front_door != compiled({}).front_door


def test_hosts_of_documents_are_any_none_or_these() -> None:
    """Left out and empty are opposites."""
    doors = [compiled({"metadata_hosts": each}).front_door for each in (None, [], ["claude.ai"])]

    assert [None if door is None else door.metadata_hosts for door in doors] == [
        None,
        frozenset(),
        {"claude.ai"},
    ]


def test_without_a_front_door_there_is_none() -> None:
    """`default` names no client, whether or not there is a door (lint refuses it without one)."""
    policy = compiled(None)

    assert policy.front_door is None
    assert "default" not in policy.clients
