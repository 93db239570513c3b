"""What is told of a decision step by step is what the decision does."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from authz.core.decision import BearerRequest, Deny, Inspection, authorize, inspect, read
from authz.core.limits import take, unsatisfiable_takes
from authz.core.policy import DeclaredClient, Policy, Rule, TokenKind
from authz.core.principal import Principal
from authz.core.reason import Reason
from authz.core.second_factor import Evidence, Method, SecondFactor
from tests.support.values import FILES, LIMIT, NOW, call, policy, principal, request, rpc, server

SCOPES = st.sets(st.sampled_from(["mcp:files", "mcp:write"])).map(frozenset)
FACTORS = st.none() | st.builds(
    SecondFactor,
    st.sampled_from([Method.ANY, Method.TOTP]),
    st.none() | st.just(60),
    st.sets(st.sampled_from(Evidence), min_size=1).map(frozenset),
)
RULES = st.builds(
    Rule,
    scopes=SCOPES,
    groups=st.none() | st.just(frozenset({"staff"})),
    second_factor=FACTORS,
    tokens=st.sampled_from([frozenset(TokenKind), frozenset({TokenKind.JWT})]),
)
CLIENTS = st.lists(
    st.builds(
        DeclaredClient,
        st.sampled_from(["claude", "other"]),
        st.none() | SCOPES,
        st.booleans(),
        st.sampled_from([Method.NONE, Method.ANY]),
        assurance_claim=st.none() | st.just("two_factor"),
    ),
    max_size=2,
)
PRINCIPALS = st.builds(
    principal,
    issuer=st.sampled_from(["https://auth.example.test", "https://other.example.test"]),
    subject=st.none() | st.just("john"),
    scopes=SCOPES,
    audience=st.sampled_from([(FILES,), ("https://elsewhere.example.test",)]),
    groups=st.sampled_from([frozenset(), frozenset({"staff"})]),
    amr=st.none() | st.just(frozenset({"pwd", "mfa"})),
    auth_time=st.none() | st.just(int(NOW) - 600),
    opaque=st.booleans(),
    assurance_claim=st.none() | st.just("two_factor"),
)
BODIES = st.sampled_from([rpc(), call("read_x"), call("delete_x"), call("other"), b"[]", b"{"])


def inspected(body: bytes, who: Principal, rules: Policy) -> tuple[Inspection, object]:
    made = read(request(body), rules)
    assert isinstance(made, BearerRequest)
    return inspect(made, who, rules, NOW), authorize(made, who, rules, NOW)


@given(
    RULES,
    st.dictionaries(st.sampled_from(["*", "read_*", "delete_*"]), RULES),
    CLIENTS,
    PRINCIPALS,
    BODIES,
)
def test_the_first_refusal_that_is_told_is_the_decisions(
    rule: Rule, tools: dict[str, Rule], clients: list[DeclaredClient], who: Principal, body: bytes
) -> None:
    """Whoever is told of steps is told what `authorize` says: the same reason, or none."""
    found, decided = inspected(body, who, policy(server(rule, tools), *clients))

    refusals = [refused for _, refused in found.steps if refused is not None]
    first = refusals[0] if refusals else None
    if isinstance(decided, Deny):
        assert first is not None
        assert (first.reason, first.detail) == (decided.reason, decided.detail)
    else:
        assert first is None


def test_what_follows_a_refusal_is_told_too() -> None:
    """A person who mends the first mistake need not ask again for the second."""
    rule = Rule(scopes=frozenset({"mcp:write"}), groups=frozenset({"staff"}), second_factor=FACTOR)
    found, _ = inspected(rpc(), principal(), policy(server(rule)))

    refusals = {name: refused.reason for name, refused in found.steps if refused is not None}
    assert refusals == {
        "people": Reason.PERSON_NOT_ALLOWED,
        "scopes": Reason.INSUFFICIENT_SCOPE,
        "second_factor": Reason.SECOND_FACTOR_REQUIRED,
    }


FACTOR = SecondFactor(Method.TOTP, evidence=frozenset({Evidence.TOKEN}))


def test_a_message_that_is_refused_ends_the_steps() -> None:
    """Nothing is said about the tool of a message that was not read."""
    found, _ = inspected(b"[]", principal(), policy())

    assert [name for name, _ in found.steps] == ["message"]


def test_what_is_asked_with_unmeetable_takes_is_not_charged() -> None:
    """Limits can be looked at by the very function that charges, and stand as before."""
    one = next(iter(unsatisfiable_takes()))
    limit = replace(one, bucket="b", limit=LIMIT)
    charged, _ = take({}, [limit], int(NOW * 1000))

    changed, outcome = take(charged, [limit, *unsatisfiable_takes()], int(NOW * 1000))

    assert not changed
    assert outcome.retry_after
    assert outcome.quotas[0].remaining == LIMIT.quota - 1
