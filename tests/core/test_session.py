"""Sessions: whose they are follows from the token, and which one from the header."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.decision import (
    Allow,
    BearerRequest,
    Deny,
    PendingDecision,
    authorize,
    conclude,
    read,
)
from authz.core.identity_cache import IdentityCache
from authz.core.ledger import Mode, Session, SessionOfAnother, Taken
from authz.core.limits import Limit, Per
from authz.core.policy import DeclaredClient, Policy
from authz.core.principal import Principal
from authz.core.reason import Reason
from authz.core.request import HttpRequest
from tests.support.values import (
    NOW,
    call,
    front_door,
    login_record,
    policy,
    principal,
    request,
    rpc,
    server,
    visitor,
)

DOOR = policy(None, DeclaredClient("claude"), front_door=front_door())
KNOWN_MACHINE = (DeclaredClient("x", machine=True),)
ID = "1868a90c-7f3d"
WHO = principal()


def asked(
    sent: HttpRequest, who: Principal | None = None, rules: Policy | None = None
) -> PendingDecision | Deny:
    rules = policy() if rules is None else rules
    found = read(sent, rules)
    if isinstance(found, Deny):
        return found
    assert isinstance(found, BearerRequest)
    return authorize(found, principal() if who is None else who, rules, NOW)


def session_of(who: Principal, sent: str = ID, rules: Policy = DOOR) -> Session:
    pending = asked(request(rpc(), mcp_session_id=sent), who, rules)
    assert isinstance(pending, PendingDecision), pending
    assert pending.query.session is not None
    return pending.query.session


RESPONSE = b'{"jsonrpc":"2.0","id":1,"result":{}}'
NOTIFICATION = b'{"jsonrpc":"2.0","method":"notifications/initialized"}'


@pytest.mark.attack("session-of-another")
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda **h: request(call("x"), **h), id="call"),
        pytest.param(lambda **h: request(rpc("initialize"), **h), id="initialize"),
        pytest.param(lambda **h: request(RESPONSE, **h), id="response"),
        pytest.param(lambda **h: request(NOTIFICATION, **h), id="notification"),
        pytest.param(lambda **h: request(method="GET", **h), id="stream"),
        pytest.param(lambda **h: request(method="GET", last_event_id="7", **h), id="resumed"),
        pytest.param(lambda **h: request(method="DELETE", **h), id="end"),
    ],
)
@pytest.mark.parametrize("limits", [(), (Limit("a", Per.ADDRESS, 9, 9),)], ids=["", "by-address"])
def test_whatever_names_a_session_asks_whose_it_is(
    make: Callable[..., HttpRequest], limits: tuple[Limit, ...]
) -> None:
    """Calls, streams, their resumption, answers to the server and ends of sessions alike."""
    rules = policy(limits=limits)
    pending = asked(make(mcp_session_id=ID), rules=rules)
    without = asked(make(), rules=rules)

    assert isinstance(pending, PendingDecision)
    assert isinstance(without, PendingDecision)
    assert pending.query.session is not None
    assert replace(pending.query, session=None) == without.query


@pytest.mark.attack("session-of-another")
def test_a_session_of_another_is_refused_as_if_it_were_not_there() -> None:
    """404 is what MCP has for a session that is none: the client begins anew."""
    pending = asked(request(rpc(), mcp_session_id=ID))
    assert isinstance(pending, PendingDecision)

    decision = conclude(pending, SessionOfAnother())

    assert isinstance(decision, Deny)
    assert decision.reason is Reason.SESSION_OF_ANOTHER
    assert decision.reason.row.status == 404
    assert isinstance(conclude(pending, Taken((), Mode.REDIS)), Allow)


@pytest.mark.attack("session-of-another")
def test_a_session_is_of_a_person_and_a_client() -> None:
    """Other people, issuers, clients and machines are others, however alike they are spelled."""
    mine = session_of(visitor())
    others = [
        visitor(login_record(subject="bob"), subject="bob"),
        visitor(login_record(client_id="https://other.example/client.json")),
    ]
    machine, person = principal(subject=None, client_id="x"), principal(subject="x", client_id="x")

    assert all(session_of(each).owner != mine.owner for each in others)
    assert all(session_of(each).id == mine.id for each in others)
    found = [
        session_of(each, rules=policy())
        for each in (person, replace(person, client_id="y"), replace(person, subject="y"))
    ]
    assert len({each.owner for each in found}) == len(found)
    by_name = policy(server(machines=frozenset({"x"})), *KNOWN_MACHINE)
    assert session_of(machine, rules=by_name).owner not in {each.owner for each in found}
    assert session_of(machine, rules=by_name).person not in {each.person for each in found}


def test_a_client_goes_on_with_its_session_after_a_refresh_and_a_new_log_in() -> None:
    """Another token, another grant: the same person's same client keeps its session."""
    mine = session_of(visitor())

    assert session_of(visitor(token_id="11" * 32)) == mine
    assert session_of(visitor(login_record(grant="grant-2", auth_time=int(NOW)))) == mine


def test_ids_of_two_servers_have_nothing_in_common() -> None:
    """A server that counts its sessions shares no binding with another that does."""
    other = replace(server(), name="notes")
    rules = policy(other)
    sent = request(rpc(), context={"server": "notes"}, mcp_session_id=ID)
    pending = asked(sent, rules=rules)

    assert isinstance(pending, PendingDecision)
    assert pending.query.session is not None
    assert pending.query.session.id != session_of(principal(), rules=policy()).id


@pytest.mark.attack("hostile-ids")
@pytest.mark.parametrize(
    "sent",
    ["a b", " a", "a\tb", "a\x7f", "\xe9", "a\nb", "\0", "x" * 4097],
    ids=lambda sent: ascii(sent)[:12],
)
def test_what_no_server_can_have_given_is_refused(sent: str) -> None:
    """An id is visible ASCII and of bounded length."""
    found = asked(request(rpc(), mcp_session_id=sent))

    assert isinstance(found, Deny)
    assert found.reason is Reason.MALFORMED_REQUEST


def test_an_empty_header_names_no_session() -> None:
    """As if it were not there, for us and for the server behind."""
    pending = asked(request(rpc(), mcp_session_id=""))

    assert isinstance(pending, PendingDecision)
    assert pending.query.session is None


@given(st.lists(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1),
                min_size=2, max_size=2, unique=True))  # fmt: skip
def test_two_ids_are_two_sessions(sent: list[str]) -> None:
    """Whatever they are spelled like."""
    one, two = (session_of(visitor(), each) for each in sent)

    assert one.id != two.id
    assert (one.owner, one.person) == (two.owner, two.person)


def test_long_ids_are_not_held() -> None:
    """A caller that makes up ids of 4 KiB fills no memory with them."""
    rules, cache = policy(), IdentityCache()

    def held(sent: str) -> int:
        found = read(request(rpc(), mcp_session_id=sent), rules)
        assert isinstance(found, BearerRequest)
        assert isinstance(authorize(found, WHO, rules, NOW, cache), PendingDecision)
        return len(cache)

    before = held(ID)

    assert held("y" * 4096) == held("z" * 4096) == before
