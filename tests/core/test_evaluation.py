"""What lasts of a decision is found by which objects it was made of, and never by likeness."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from authz.core.decision import BearerRequest, Deny, PendingDecision, authorize, read
from authz.core.evaluation import evaluate
from authz.core.identity_cache import IdentityCache
from authz.core.limits import Limit, Per
from authz.core.mcp import Message, MessageKind
from authz.core.policy import DeclaredClient, Policy, Rule, Server
from authz.core.principal import Principal
from authz.core.reason import Reason
from authz.core.second_factor import Evidence, Method, SecondFactor
from tests.core.test_inspect import BODIES, CLIENTS, PRINCIPALS, RULES
from tests.support.values import NOW, call, policy, principal, request, server

PLACES = st.builds(
    lambda rule, read, any_x: server(rule=rule, tools={"read_*": read, "*_x": any_x}),
    RULES,
    RULES,
    RULES,
)


def asked(
    body: bytes,
    who: Principal,
    by: Policy,
    *,
    now: float = NOW,
    address: str = "192.0.2.1",
    cache: IdentityCache | None = None,
) -> PendingDecision | Deny:
    made = read(replace(request(body), address=address), by)
    assert isinstance(made, BearerRequest)
    return authorize(made, who, by, now, cache)


def seen(answer: PendingDecision | Deny) -> object:
    """Return what an answer says, without the call that it is of."""
    if isinstance(answer, Deny):
        return answer.reason, answer.detail, answer.scopes, answer.second_factor
    return answer.query, answer.principal, answer.confirm_since, answer.offer, answer.only_stale


@given(
    st.lists(PRINCIPALS, min_size=1, max_size=3),
    st.lists(PLACES, min_size=1, max_size=2),
    CLIENTS,
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 1), BODIES, st.sampled_from([0.0, 700.0])),
        max_size=12,
    ),
)
def test_who_was_here_before_changes_nothing(
    people: list[Principal],
    places: list[Server],
    clients: list[DeclaredClient],
    asking: list[tuple[int, int, bytes, float]],
) -> None:
    """In any order of people, servers, tools and moments, each answer is that of objects that
    nobody has seen before, and of no cache. (A cache may outlive policies here: the ids decide.)
    """
    cache = IdentityCache()
    policies = [policy(place, *clients) for place in places]
    for person, place, body, later in asking:
        who, by = people[person % len(people)], policies[place % len(policies)]
        fresh = replace(by, servers={name: replace(one) for name, one in by.servers.items()})

        again = asked(body, replace(who), fresh, now=NOW + later)
        assert seen(asked(body, who, by, now=NOW + later, cache=cache)) == seen(again)
        assert seen(asked(body, who, by, now=NOW + later, cache=cache)) == seen(again)


def test_a_reload_is_another_policy() -> None:
    """The same person at the same server is judged by the policy of now, at once."""
    who, place, cache = principal(), server(), IdentityCache()
    open_to_all = policy(place)
    closed = replace(
        open_to_all, servers={"files": replace(place, rule=Rule(groups=frozenset({"staff"})))}
    )

    assert isinstance(asked(call("read_x"), who, open_to_all, cache=cache), PendingDecision)
    refused = asked(call("read_x"), who, closed, cache=cache)
    assert isinstance(refused, Deny)
    assert refused.reason is Reason.PERSON_NOT_ALLOWED
    # The very same server and person, and nothing but a list of clients between them.
    named = replace(open_to_all, clients={"another": DeclaredClient("another")})
    refused = asked(call("read_x"), who, named, cache=cache)
    assert isinstance(refused, Deny)
    assert refused.reason is Reason.CLIENT_NOT_ALLOWED
    assert isinstance(asked(call("read_x"), who, open_to_all, cache=cache), PendingDecision)


def test_what_ages_is_looked_at_every_time() -> None:
    """A log-in that was new enough is too old later, though nothing but the time is another."""
    need = SecondFactor(Method.ANY, 60, frozenset({Evidence.TOKEN}))
    by = policy(server(rule=Rule(second_factor=need)))
    who = principal(amr=frozenset({"pwd", "mfa"}), auth_time=int(NOW))
    cache = IdentityCache()

    assert isinstance(asked(call("x"), who, by, now=NOW + 60, cache=cache), PendingDecision)
    late = asked(call("x"), who, by, now=NOW + 61, cache=cache)
    assert isinstance(late, Deny)
    assert late.reason is Reason.LOGIN_TOO_OLD


def test_an_address_is_that_of_the_request() -> None:
    """Where addresses are counted, two of them are two buckets for one person."""
    by = replace(policy(), limits=(Limit("address", Per.ADDRESS, quota=9, window=9),))
    who, cache = principal(), IdentityCache()

    queries = []
    for address in ("192.0.2.1", "192.0.2.2", "192.0.2.1"):
        pending = asked(call("x"), who, by, address=address, cache=cache)
        assert isinstance(pending, PendingDecision)
        queries.append(pending.query.takes)
    assert queries[0] == queries[2] != queries[1]


def test_a_tool_without_a_rule_is_not_a_message_without_a_tool() -> None:
    """The same rules apply to both, and only one of them is refused."""
    place, who = server(tools={"read_*": Rule()}), principal()
    by = policy(place)

    other = Message(MessageKind.REQUEST, "tools/call", 1, "other", None)
    cache = IdentityCache()
    allowed = evaluate(place, who, by, None, cache=cache)
    assert allowed.refused is None
    evaluation = evaluate(place, who, by, other, cache=cache)
    assert evaluation.context.rules == allowed.context.rules
    refused = evaluation.refused
    assert refused is not None
    assert refused.reason is Reason.TOOL_NOT_ALLOWED


def test_a_remembered_refusal_holds_no_frames() -> None:
    """What is kept for long keeps nothing else alive."""
    refused = evaluate(server(), principal(audience=()), policy(), None).refused

    assert refused is not None
    assert refused.__traceback__ is None
