"""Tokens of the front door at the decision: whose they are, which clients come, what they prove."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.answers import upstream
from authz.core.decision import (
    Allow,
    BearerRequest,
    Decision,
    Deny,
    PendingDecision,
    authorize,
    conclude,
    read,
)
from authz.core.ledger import Mode, StepUpKey, Taken
from authz.core.policy import DeclaredClient, FrontDoor, OperationRule, Policy, Rule
from authz.core.principal import Client, LoginRecord, Person, Principal
from authz.core.reason import Reason
from authz.core.second_factor import Evidence, Method, Proof, SecondFactor, methods, satisfies
from tests.support.values import (
    ISSUER,
    LIMIT,
    NOW,
    OURS,
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

TOTP = SecondFactor(Method.TOTP)
ANY = SecondFactor(Method.ANY)
CLAUDE = DeclaredClient("claude")
PASSWORD = frozenset({"pwd", "kba"})
TAKEN = Taken((), Mode.REDIS)


def authorized(who: Principal, rules: Policy, tool: str | None = None) -> PendingDecision | Deny:
    found = read(request(rpc() if tool is None else call(tool)), rules)
    assert isinstance(found, BearerRequest)
    return authorize(found, who, rules, NOW)


def decided(who: Principal, rules: Policy, tool: str | None = None) -> Decision:
    """Decide with a ledger that refuses nothing, and knows no step-up."""
    found = authorized(who, rules, tool)
    if isinstance(found, Deny):
        return found
    if found.query.step_up is not None:
        return Deny(Reason.SECOND_FACTOR_REQUIRED)
    return conclude(found, TAKEN)


def reason_of(found: object) -> Reason | None:
    return found.reason if isinstance(found, Deny) else None


def pending(found: PendingDecision | Deny) -> PendingDecision:
    assert isinstance(found, PendingDecision), found
    return found


# --- whose token it is ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("clients", "expected"),
    [
        pytest.param((), Reason.FOREIGN_CLIENT, id="nobody-named"),
        pytest.param((DeclaredClient("other", direct=True),), Reason.FOREIGN_CLIENT, id="another"),
        pytest.param((DeclaredClient("claude"),), Reason.FOREIGN_CLIENT, id="named-for-the-door"),
        pytest.param((DeclaredClient("claude", direct=True),), None, id="named-direct"),
    ],
)
@pytest.mark.attack("foreign-client-past-the-front-door")
def test_a_token_of_another_client_of_authelia_needs_a_name_here(
    clients: tuple[DeclaredClient, ...], expected: Reason | None
) -> None:
    """Our audience alone lets nobody past the front door's rules."""
    found = decided(principal(), policy(server(), *clients, front_door=front_door()))

    assert reason_of(found) is expected
    assert expected is None or expected.row.status == 401


@pytest.mark.attack("front-door-token-without-record")
@pytest.mark.parametrize("ours", sorted(OURS))
def test_a_token_of_ours_without_its_log_in_is_nobodys(ours: str) -> None:
    """Not even an entry under `clients` makes our own client one that logs in directly."""
    clients = (DeclaredClient(ours, direct=True), DeclaredClient(ours, machine=True, direct=True))

    for client in clients:
        for subject in (principal().subject, None):
            who = principal(client_id=ours, subject=subject)
            rules = policy(server(machines=frozenset({ours})), client, front_door=front_door())
            assert reason_of(decided(who, rules)) is Reason.LOG_IN_UNKNOWN


@pytest.mark.attack("record-of-another-token")
@pytest.mark.parametrize("subject", ["somebody-else", None])
def test_a_record_of_another_person_is_no_log_in(subject: str | None) -> None:
    """The person of the record and of the token are the same, or it is nobody's."""
    rules = policy(server(), CLAUDE, front_door=front_door())

    assert reason_of(decided(visitor(subject=subject), rules)) is Reason.LOG_IN_UNKNOWN
    assert reason_of(decided(visitor(login_record(subject="x")), rules)) is Reason.LOG_IN_UNKNOWN


def test_without_a_front_door_its_tokens_are_nobodys() -> None:
    """A reload that takes the front door away takes its tokens with it."""
    assert reason_of(decided(visitor(), policy(server(), CLAUDE))) is Reason.LOG_IN_UNKNOWN
    assert reason_of(decided(visitor(), policy())) is Reason.LOG_IN_UNKNOWN


# --- which clients come -----------------------------------------------------------------------

ANYBODY = front_door()
NOBODY = front_door(registration=False, metadata_hosts=frozenset())
ONE_HOST = front_door(metadata_hosts=frozenset({"claude.ai"}))


@pytest.mark.parametrize(
    ("name", "door", "admitted"),
    [
        ("claude", ANYBODY, True),
        ("claude", NOBODY, True),
        ("unnamed", ANYBODY, False),
        ("old-script", ANYBODY, False),
        ("robot", ANYBODY, False),
        ("default", ANYBODY, False),
        ("https://claude.ai", ANYBODY, True),
        ("https://claude.ai", ONE_HOST, True),
        ("https://evil.test", ONE_HOST, False),
        ("https://evil.claude.ai", ONE_HOST, False),
        ("https://claude.ai.evil.test", ONE_HOST, False),
        ("https://claude.ai", NOBODY, False),
        ("https://", ANYBODY, False),
        ("HTTPS://claude.ai", ANYBODY, False),
        ("http://claude.ai", ANYBODY, False),
        ("dynamic/loopback", ANYBODY, True),
        ("dynamic/claude.ai", ONE_HOST, True),
        ("dynamic/loopback", NOBODY, False),
        ("dynamic/", ANYBODY, False),
        ("Dynamic/loopback", ANYBODY, False),
    ],
)
@pytest.mark.attack("client-of-the-front-door")
def test_a_client_of_the_front_door_is_named_or_of_a_kind_that_may_come(
    name: str, door: FrontDoor, admitted: bool
) -> None:
    """Configured ones by their entry, others by registration or the host of their document."""
    clients = (
        CLAUDE,
        DeclaredClient("old-script", direct=True),
        DeclaredClient("robot", machine=True, direct=True),
    )
    found = decided(visitor(login_record(client=name)), policy(server(), *clients, front_door=door))

    assert reason_of(found) is (None if admitted else Reason.CLIENT_NOT_ALLOWED)


UNREGISTERED = front_door(registration=False)


@pytest.mark.parametrize(
    ("name", "document_host", "door", "admitted"),
    [
        ("dynamic/loopback", "claude.ai", UNREGISTERED, True),
        ("dynamic/loopback", "claude.ai", ONE_HOST, True),
        ("dynamic/loopback", "evil.test", ONE_HOST, False),
        ("dynamic/claude.ai", "evil.test", ONE_HOST, False),
        ("dynamic/loopback", "claude.ai", NOBODY, False),
        ("dynamic/loopback", "", UNREGISTERED, False),
        ("https://claude.ai", "claude.ai", UNREGISTERED, True),
        ("https://claude.ai", "claude.ai", NOBODY, False),
        ("dynamic/", "claude.ai", ANYBODY, False),
    ],
)
@pytest.mark.attack("client-of-the-front-door")
def test_a_client_with_a_document_comes_by_the_host_of_it(
    name: str, document_host: str, door: FrontDoor, admitted: bool
) -> None:
    """Wherever its log-in ends, and whatever that makes its name: `registration` says nothing of
    it, and `metadata_hosts` all.
    """
    log_in_there = login_record(client=name, document_host=document_host)

    found = decided(visitor(log_in_there), policy(server(), CLAUDE, front_door=door))

    assert reason_of(found) is (None if admitted else Reason.CLIENT_NOT_ALLOWED)


@pytest.mark.parametrize("name", ["https://claude.ai", "dynamic/loopback"])
@pytest.mark.attack("client-of-the-front-door")
def test_an_entry_spelled_like_a_stranger_speaks_for_none(name: str) -> None:
    """What begins like a stranger's name is a stranger's, whatever stands under `clients`."""
    spelled = DeclaredClient(name, scopes=frozenset({"mcp:files"}), assurance=Method.TOTP)
    rules = policy(
        server(Rule(frozenset({"mcp:files"}))), spelled, front_door=front_door(scopes=frozenset())
    )
    who = visitor(login_record(client=name))

    assert reason_of(decided(who, rules)) is Reason.INSUFFICIENT_SCOPE
    closed = dataclasses.replace(rules, front_door=NOBODY)
    assert reason_of(decided(who, closed)) is Reason.CLIENT_NOT_ALLOWED


@pytest.mark.parametrize(
    ("client", "default", "expected"),
    [
        ("https://claude.ai", None, {"mcp:files", "mcp:admin"}),
        ("https://claude.ai", {"mcp:files"}, {"mcp:files"}),
        ("dynamic/loopback", set(), set()),
        ("claude", set(), {"mcp:files", "mcp:admin"}),
        ("narrow", None, {"mcp:admin"}),
    ],
)
def test_clients_default_narrows_those_that_are_not_named(
    client: str, default: set[str] | None, expected: set[str]
) -> None:
    """A configured client has its own entry; all others share one."""
    door = front_door(scopes=None if default is None else frozenset(default))
    rules = policy(
        server(), CLAUDE, DeclaredClient("narrow", frozenset({"mcp:admin"})), front_door=door
    )
    who = visitor(login_record(client=client), scopes=frozenset({"mcp:files", "mcp:admin"}))

    found = decided(who, rules)

    assert isinstance(found, Allow)
    assert found.principal.scopes == expected
    assert dict(upstream(found, Policy(ISSUER), NOW).set_headers)["x-authz-client"] == client


def test_what_counts_and_what_is_revoked_goes_by_the_name_and_the_grant() -> None:
    """Limits and identity by the client's name, step-ups by the grant, revocation by both."""
    door = policy(server(Rule(second_factor=TOTP, limits=(LIMIT,))), front_door=front_door())
    who = visitor(
        login_record(client="dynamic/loopback", client_id="signed", grant="g-7", amr=PASSWORD)
    )

    query = pending(authorized(who, door)).query

    assert who.subject is not None
    assert query.client == Client(ISSUER, "dynamic/loopback")
    assert query.registered_client == Client(ISSUER, "signed")
    assert query.grant == "g-7"
    assert query.step_up_key == StepUpKey(Person(ISSUER, who.subject), "g-7", "files")


@pytest.mark.attack("step-up-of-another-grant")
def test_a_step_up_of_one_grant_is_asked_for_by_no_other() -> None:
    """Another program on the same machine has a grant of its own, as has a client without one.

    Nor does one of another person or server count.
    """
    rules = policy(
        server(Rule(second_factor=TOTP)),
        DeclaredClient("claude"),
        DeclaredClient("old", direct=True),
        front_door=front_door(),
    )
    asking = [
        visitor(login_record(grant="one", amr=PASSWORD)),
        visitor(login_record(grant="two", amr=PASSWORD)),
        visitor(login_record(grant="three", client="dynamic/loopback", amr=PASSWORD)),
        principal(client_id="old"),
    ]
    bob = login_record(subject="bob", grant="one", amr=PASSWORD)
    asking.append(visitor(bob, subject="bob"))
    keys = [pending(authorized(each, rules)).query.step_up_key for each in asking]
    elsewhere = dataclasses.replace(rules.servers["files"], name="notes")
    found = read(request(context={"server": "notes"}), policy(elsewhere))
    assert isinstance(found, BearerRequest)
    keys.append(pending(authorize(found, asking[0], rules, NOW)).query.step_up_key)

    assert None not in keys
    assert len(set(keys)) == len(asking) + 1


# --- what a log-in proves ---------------------------------------------------------------------

# Every `amr` that Authelia emits (seen with 4.39.20), and what it proves.
AMR = {
    "password": ("pwd kba", Method.NONE),
    "password, TOTP": ("pwd kba otp mfa", Method.TOTP),
    "password, WebAuthn hardware": ("pwd kba pop hwk mfa", Method.ANY),
    "password, WebAuthn software": ("pwd kba pop swk user mfa", Method.ANY),
    "password, WebAuthn with PIN": ("pwd kba pop hwk user pin mfa", Method.ANY),
    "password, Duo": ("pwd kba sms mfa mca", Method.ANY),
    "passkey, hardware": ("pop hwk", Method.NONE),
    "passkey, software, verified": ("pop swk user pin", Method.NONE),
    "hostile: otp alone": ("otp", Method.OTP),
    "hostile: case": ("OTP MFA", Method.NONE),
    "hostile: nothing": ("", Method.NONE),
}
LOGIN = frozenset({Evidence.LOGIN})
RULES = {
    "any": (SecondFactor(Method.ANY), Method.ANY, None),
    "totp": (SecondFactor(Method.TOTP), Method.TOTP, None),
    "any, 5m": (SecondFactor(Method.ANY, 300), Method.ANY, 300),
    "totp, 5m": (SecondFactor(Method.TOTP, 300), Method.TOTP, 300),
    "totp, login": (SecondFactor(Method.TOTP, None, LOGIN), Method.TOTP, None),
    "totp, 5m, login": (SecondFactor(Method.TOTP, 300, LOGIN), Method.TOTP, 300),
    "any, not login": (
        SecondFactor(Method.ANY, None, frozenset(Evidence) - LOGIN),
        None,
        None,
    ),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("amr", AMR)
@pytest.mark.parametrize("age", [-61, -60, 0, 300, 301])
@pytest.mark.attack("password-under-a-rule-for-totp")
def test_the_table_of_log_ins_and_rules(rule: str, amr: str, age: int) -> None:
    """A log-in is enough where it proves the method, is accepted, and is as new as asked."""
    asked, method, oldest = RULES[rule]
    words, proved = AMR[amr]
    who = visitor(login_record(amr=frozenset(words.split()), auth_time=int(NOW) - age))
    rules = policy(server(Rule(second_factor=asked)), CLAUDE, front_door=front_door())

    enough = method is not None and proved & method == method
    new = oldest is None or -60 <= age <= oldest
    found = authorized(who, rules)

    assert methods(words.split()) == proved
    if enough and new:
        assert pending(found).query.step_up is None
    elif Evidence.STEP_UP in asked.evidence:
        need = pending(found).query.step_up
        assert need is not None
        assert (need.method, need.max_login_age) == (asked.method, asked.max_login_age)
    else:
        refused = Reason.LOGIN_TOO_OLD if enough else Reason.SECOND_FACTOR_REQUIRED
        assert reason_of(found) is refused


@pytest.mark.attack("password-under-a-rule-for-totp")
def test_a_password_is_refused_where_totp_is_asked_and_admitted_elsewhere() -> None:
    """The same log-in passes one tool and not the other."""
    rules = policy(
        server(tools={"*": Rule(), "delete_*": Rule(second_factor=TOTP)}),
        front_door=front_door(),
    )
    who = visitor(login_record(client="dynamic/loopback", amr=PASSWORD))

    assert isinstance(decided(who, rules, "read_file"), Allow)
    assert reason_of(decided(who, rules, "delete_file")) is Reason.SECOND_FACTOR_REQUIRED
    with_totp = visitor(login_record(client="dynamic/loopback"))
    assert isinstance(decided(with_totp, rules, "delete_file"), Allow)


@pytest.mark.attack("assurance-of-the-front-door")
def test_a_clients_declaration_counts_for_no_token_of_the_front_door() -> None:
    """Authelia guarantees something of the client that it signed for, which is ours."""
    rules = policy(
        server(Rule(second_factor=ANY)),
        DeclaredClient("claude", assurance=Method.TOTP),
        DeclaredClient("authz-two-factor", assurance=Method.TOTP),
        front_door=front_door(),
    )

    assert pending(authorized(visitor(login_record(amr=PASSWORD)), rules)).query.step_up is not None


def test_a_direct_client_keeps_its_declaration() -> None:
    """With a front door beside it, a client of `login: direct` is judged as before."""
    direct = DeclaredClient("claude", assurance=Method.ANY, direct=True)
    rules = policy(server(Rule(second_factor=ANY)), direct, front_door=front_door())

    assert isinstance(decided(principal(), rules), Allow)


# --- everything at once -----------------------------------------------------------------------

NAMES = ("claude", "old", "stranger", "authz-one-factor", "https://claude.ai", "https://x.test",
         "dynamic/loopback", "dynamic/", "https://")  # fmt: skip
SCOPES = st.frozensets(st.sampled_from(["mcp:files", "mcp:admin"]))
FACTORS = st.none() | st.builds(
    SecondFactor,
    st.sampled_from([Method.ANY, Method.TOTP]),
    st.none() | st.integers(1, 600),
    st.frozensets(st.sampled_from(list(Evidence)), min_size=1),
)
ASKED = st.builds(Rule, SCOPES, second_factor=FACTORS)
DOORS = st.builds(
    FrontDoor,
    st.just(OURS),
    st.booleans(),
    st.none() | st.frozensets(st.sampled_from(["claude.ai", "y.test"])),
    st.none() | SCOPES,
)
KNOWN = st.builds(
    DeclaredClient,
    st.sampled_from(NAMES),
    st.none() | SCOPES,
    st.booleans(),
    st.sampled_from([Method.NONE, Method.ANY, Method.TOTP]),
    st.booleans(),
)
SUBJECTS = st.sampled_from(["john", "bob"])
RECORDS = st.builds(
    LoginRecord,
    st.sampled_from(NAMES),
    st.just("id"),
    st.sampled_from(["g1", "g2"]),
    SUBJECTS,
    st.frozensets(st.sampled_from(["pwd", "kba", "otp", "mfa", "pop", "sms"])),
    st.integers(int(NOW) - 700, int(NOW) + 100),
)


@st.composite
def principals(draw: st.DrawFn) -> Principal:
    record = draw(st.none() | RECORDS)
    subject = draw(st.none() | SUBJECTS)
    client_id = draw(st.sampled_from(NAMES)) if record is None else record.client
    return principal(client_id=client_id, login=record, subject=subject, scopes=draw(SCOPES))


@given(
    who=principals(),
    rule=ASKED,
    tool=ASKED,
    door=st.none() | DOORS,
    clients=st.lists(KNOWN, max_size=4),
)
def test_whatever_is_allowed_has_passed_every_rule(
    who: Principal, rule: Rule, tool: Rule, door: FrontDoor | None, clients: list[DeclaredClient]
) -> None:
    """An Allow implies a record of the same person, an admitted name, its scopes, and a proof."""
    of = server(rule, {"*": tool}, machines=frozenset(NAMES))
    rules = policy(of, *clients, front_door=door)
    found = decided(who, rules, "delete_file")
    if not isinstance(found, Allow):
        return
    known = rules.clients.get(who.client_id)
    if who.login is None:
        assert door is None or (who.client_id not in OURS and known is not None and known.direct)
        return
    assert door is not None
    assert who.login.subject == who.subject
    stranger = who.client_id.startswith(("https://", "dynamic/"))
    if stranger:
        host = who.client_id.removeprefix("https://")
        assert who.client_id in ("https://claude.ai", "https://x.test", "dynamic/loopback")
        if who.client_id.startswith("dynamic/"):
            assert door.registration
        else:
            assert door.metadata_hosts is None or host in door.metadata_hosts
    else:
        assert known is not None
        assert not known.direct
    most = door.scopes if stranger else (known.scopes if known is not None else frozenset())
    assert found.principal.scopes == (who.scopes if most is None else who.scopes & most)
    assert rule.scopes | tool.scopes <= found.principal.scopes
    proof = Proof(Evidence.LOGIN, methods(who.login.amr), who.login.auth_time)
    for asked in (rule.second_factor, tool.second_factor):
        assert asked is None or satisfies(asked, proof, NOW)


def test_the_property_sees_allowed_visitors() -> None:
    """The property above is not true for want of anybody who is allowed."""
    rules = policy(server(Rule(second_factor=TOTP), {"*": Rule()}), front_door=front_door())

    assert isinstance(rules.servers["files"].tools[0], OperationRule)
    for name in ("https://claude.ai", "dynamic/loopback"):
        assert isinstance(decided(visitor(login_record(client=name)), rules, "x"), Allow)
