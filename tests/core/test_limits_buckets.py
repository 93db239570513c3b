"""Bucket names: whose requests are counted together, and that nobody chooses whose."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.limits import Limit, Per, bucket_id, bucket_ids, digest, group_bucket, network
from authz.core.principal import LoginRecord, Principal

ISSUER = "https://auth.example.com"
# Every dimension that counts by who asks.
OF_PRINCIPALS = [per for per in Per if per is not Per.ADDRESS]


def principal(
    client: str = "claude", subject: str | None = "ada", issuer: str = ISSUER, token: str = "1"
) -> Principal:
    return Principal(
        issuer=issuer,
        subject=subject,
        client_id=client,
        scopes=frozenset(),
        audience=(),
        groups=frozenset(),
        amr=None,
        auth_time=None,
        issued_at=int(token),
        expires_at=int(token) + 300,
        token_id=token,
    )


def limit(per: Per, quota: int = 60, window: int = 60, place: str = "notes") -> Limit:
    claim = "tenant" if per is Per.CLAIM else ""
    return Limit("test", per, quota, window, place=place, claim=claim)


def bucket(per: Per, who: Principal | None, address: str = "192.0.2.1") -> str:
    return bucket_id(limit(per), who, address)


@pytest.mark.parametrize("per", OF_PRINCIPALS)
@pytest.mark.attack("same-bucket-for-new-tokens")
def test_a_new_token_is_the_same_bucket(per: Per) -> None:
    """A new session, a new token or a refreshed token counts on."""
    assert bucket(per, principal(token="1")) == bucket(per, principal(token="2"), "198.51.100.7")


@pytest.mark.parametrize(
    ("per", "same", "other"),
    [
        pytest.param(Per.CLIENT, principal(subject="bob"), principal("zed"), id="client"),
        pytest.param(Per.USER, principal("zed"), principal(subject="bob"), id="user"),
        pytest.param(Per.CLIENT_USER, principal(), principal("zed"), id="both-client"),
        pytest.param(Per.CLIENT_USER, principal(), principal(subject="bob"), id="both-user"),
        pytest.param(
            Per.GRANT,
            replace(principal(), groups=frozenset({"staff"})),
            principal(subject="bob"),
            id="grant-of-a-direct-client",
        ),
    ],
)
def test_what_a_limit_is_per(per: Per, same: Principal, other: Principal) -> None:
    """A limit counts together what it is per, and nothing else."""
    assert bucket(per, principal()) == bucket(per, same)
    assert bucket(per, principal()) != bucket(per, other)


@pytest.mark.parametrize("per", OF_PRINCIPALS)
def test_another_issuer_is_another_bucket(per: Per) -> None:
    """The same client id or subject at another issuer is somebody else."""
    assert bucket(per, principal()) != bucket(per, principal(issuer="https://other.example"))


def test_without_a_person_the_client_counts() -> None:
    """A machine's limit per user counts its client, never a person of the same text."""
    machine = principal("backup", subject=None)

    assert bucket(Per.USER, machine) != bucket(Per.USER, principal("zed", subject="backup"))
    assert bucket(Per.USER, machine) != bucket(Per.USER, principal("nightly", subject=None))
    assert bucket(Per.CLIENT_USER, machine) != bucket(
        Per.CLIENT_USER, principal("backup", subject="backup")
    )


def in_groups(*groups: str, subject: str = "ada", client: str = "claude") -> Principal:
    return replace(principal(client, subject), groups=frozenset(groups))


def of_tenant(value: str | None, subject: str = "ada", client: str = "claude") -> Principal:
    claims = () if value is None else (("tenant", value), ("other", subject))
    return replace(principal(client, subject), claims=claims)


def test_a_grant_is_one_log_in() -> None:
    """Refreshed tokens of a log-in count on, whatever else changes; another log-in by itself."""
    one, other = through_the_door("claude"), through_the_door("claude", grant="other")
    refreshed = replace(one, token_id="2", scopes=frozenset({"a"}), groups=frozenset({"staff"}))

    assert bucket(Per.GRANT, one) == bucket(Per.GRANT, refreshed)
    assert bucket(Per.GRANT, one) != bucket(Per.GRANT, other)
    assert bucket(Per.GRANT, principal()) not in {bucket(Per.GRANT, one), bucket(Per.GRANT, other)}
    assert bucket(Per.GRANT, principal("a")) != bucket(Per.GRANT, principal("b"))


@pytest.mark.attack("limits-multiplied-by-groups")
def test_each_group_of_a_person_is_counted() -> None:
    """Who is in several is charged in all of them, so that no other group frees one's quota."""
    per_group = limit(Per.GROUP)
    staff = set(bucket_ids(per_group, in_groups("staff"), ""))
    admins = set(bucket_ids(per_group, in_groups("admins", subject="bob", client="x"), ""))

    assert staff == {group_bucket(per_group, ISSUER, "staff")}
    both = bucket_ids(per_group, in_groups("admins", "staff", subject="eve"), "")
    assert set(both) == staff | admins
    assert len(both) == 2
    with pytest.raises(ValueError, match="for each"):
        bucket_id(per_group, in_groups("admins", "staff"), "")


@pytest.mark.attack("limits-multiplied-by-groups")
def test_a_machine_counts_as_its_client_whatever_groups_its_token_names() -> None:
    """One, several or none: it is in no group of people, and uses up none of theirs."""
    per_group = limit(Per.GROUP)
    machine = principal("ci", subject=None)
    alone = bucket_ids(per_group, machine, "")

    for groups in ({"staff"}, {"staff", "admins"}):
        assert bucket_ids(per_group, replace(machine, groups=frozenset(groups)), "") == alone


@pytest.mark.attack("limits-multiplied-by-groups")
def test_people_without_groups_or_claim_count_together() -> None:
    """A token that lacks them, because its client asked for none, has no budget of its own."""
    nobody = bucket(Per.GROUP, principal())
    assert nobody == bucket(Per.GROUP, in_groups(subject="bob", client="other"))
    assert nobody not in {bucket(Per.GROUP, in_groups(each)) for each in ("", "group", "[]")}
    absent = bucket(Per.CLAIM, of_tenant(None))
    assert absent == bucket(Per.CLAIM, of_tenant(None, "bob", "other"))
    assert absent != bucket(Per.CLAIM, of_tenant('"'))


@given(value=st.text(max_size=4), other=st.text(max_size=4), client=st.text(max_size=4))
@pytest.mark.attack("limits-multiplied-by-groups")
def test_a_claim_counts_by_its_value_alone(value: str, other: str, client: str) -> None:
    """Neither the person nor the client nor another claim is a new budget."""
    one = bucket(Per.CLAIM, of_tenant(value))

    assert one == bucket(Per.CLAIM, of_tenant(value, "bob", client))
    assert (one == bucket(Per.CLAIM, of_tenant(other))) == (value == other)
    named = replace(limit(Per.CLAIM), claim="other")
    assert bucket_id(named, of_tenant(value), "") != one


@pytest.mark.parametrize("per", [Per.USER, Per.GRANT, Per.GROUP, Per.CLAIM])
def test_a_machine_counts_as_its_client(per: Per) -> None:
    """Whatever groups and claims its token has."""
    machine = replace(of_tenant('"a', client="backup"), subject=None, groups=frozenset({"staff"}))

    assert bucket(per, machine) == bucket(per, replace(principal("backup"), subject=None))
    assert bucket(per, machine) != bucket(per, replace(principal("nightly"), subject=None))


def through_the_door(name: str, subject: str = "ada", grant: str = "grant") -> Principal:
    record = LoginRecord(name, name, grant, subject, frozenset(), 1)
    return replace(principal(name, subject), login=record, token_client_id="authz-one-factor")


UNCONFIGURED = ("dynamic/evil.example", "dynamic/loopback", "https://claude.ai", "dynamic/cursor")


@pytest.mark.attack("limits-multiplied-by-registrations")
@pytest.mark.parametrize("name", UNCONFIGURED)
def test_clients_that_nobody_configured_have_one_budget(name: str) -> None:
    """Whoever registers another client gets no other bucket; other people's are their own."""
    one, other = through_the_door("dynamic/first.example"), through_the_door(name)

    for per in OF_PRINCIPALS:
        assert bucket(per, one) == bucket(per, other)
    bob = through_the_door(name, "bob")
    assert bucket(Per.CLIENT, bob) == bucket(Per.CLIENT, other)
    assert bucket(Per.CLIENT_USER, bob) != bucket(Per.CLIENT_USER, other)


@pytest.mark.attack("limits-multiplied-by-registrations")
def test_configured_and_direct_clients_keep_their_own() -> None:
    """A name of authz.yaml, at the front door or at Authelia, counts for itself alone."""
    named = through_the_door("claude")
    others = [
        *map(through_the_door, UNCONFIGURED),
        through_the_door("cursor"),
        principal("dynamic/x"),
        principal("unconfigured"),
    ]
    found = {bucket(Per.CLIENT_USER, each) for each in others}

    assert bucket(Per.CLIENT_USER, named) not in found
    assert len(found) == 4
    assert bucket(Per.CLIENT_USER, named) == bucket(Per.CLIENT_USER, principal("claude"))


@given(
    names=st.lists(
        st.builds(str.__add__, st.sampled_from(["dynamic/", "https://"]), st.text(max_size=8)),
        min_size=1,
    ),
    per=st.sampled_from(OF_PRINCIPALS),
)
@pytest.mark.attack("limits-multiplied-by-registrations")
def test_no_name_that_a_client_can_get_by_itself_is_another_bucket(
    names: list[str], per: Per
) -> None:
    """However many clients a person brings along, and whatever they are called."""
    assert len({bucket(per, through_the_door(name)) for name in names}) == 1


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(limit(Per.USER, quota=61), id="quota"),
        pytest.param(limit(Per.USER, window=61), id="window"),
        pytest.param(limit(Per.USER, place="files"), id="place"),
        pytest.param(limit(Per.CLIENT), id="per"),
    ],
)
def test_another_limit_is_another_bucket(other: Limit) -> None:
    """Two places, quotas, windows or kinds of limit never share a bucket."""
    assert bucket_id(other, principal(), "") != bucket_id(limit(Per.USER), principal(), "")


hostile = st.one_of(
    st.text(max_size=4),
    st.text(alphabet=':{}*|,/\n\r\x00 a1"', max_size=6),
    st.sampled_from(["x" * 10_000, "x" * 10_001, "\ud800", "\udc80", "client", "person"]),
)


@given(one=st.lists(hostile, max_size=5), two=st.lists(hostile, max_size=5))
@pytest.mark.attack("hostile-ids")
def test_two_lists_of_texts_never_share_a_digest(one: list[str], two: list[str]) -> None:
    """No delimiter, newline, length or surrogate makes two names one."""
    assert (digest(*one) == digest(*two)) == (one == two)
    assert len(digest(*one)) == 32
    assert set(digest(*one)) <= set("0123456789abcdef")


separators = st.sampled_from([*":|,/{}\n\0\x01", "", "::", "\x00\x00\x00\x01"]) | st.text(
    max_size=2
)


@given(one=hostile, two=hostile, between=separators)
@pytest.mark.attack("hostile-ids")
def test_no_separator_can_be_smuggled_in(one: str, two: str, between: str) -> None:
    """Two texts, and one that is spelled like both with anything between, are told apart."""
    assert digest(one, two) != digest(one + between + two)
    assert (digest(one + between, two) == digest(one, between + two)) == (between == "")


@given(
    clients=st.tuples(hostile, hostile),
    subjects=st.tuples(st.none() | hostile, st.none() | hostile),
)
@pytest.mark.attack("hostile-ids")
def test_hostile_ids_share_no_bucket(
    clients: tuple[str, str], subjects: tuple[str | None, str | None]
) -> None:
    """Whatever a client id or subject is spelled like, it moves no charge to somebody else."""
    first, second = (principal(c, s) for c, s in zip(clients, subjects, strict=True))

    same = bucket(Per.CLIENT_USER, first) == bucket(Per.CLIENT_USER, second)
    assert same == ((first.client_id, first.subject) == (second.client_id, second.subject))


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        pytest.param("192.0.2.1", "192.0.2.1", id="ipv4"),
        pytest.param("2001:db8:1:2::1", "20010db800010002/64", id="ipv6"),
        pytest.param("2001:0DB8:0001:0002:ffff::9", "20010db800010002/64", id="ipv6-same-64"),
        pytest.param("2001:db8:1:3::1", "20010db800010003/64", id="ipv6-next-64"),
        pytest.param("::ffff:192.0.2.1", "192.0.2.1", id="ipv4-mapped"),
        pytest.param("::ffff:c000:201", "192.0.2.1", id="ipv4-mapped-hex"),
        pytest.param("fe80::1%eth0", "fe80000000000000/64", id="scope-id"),
        pytest.param("", "unknown", id="empty"),
        pytest.param("192.0.2.1:443", "unknown", id="with-port"),
        pytest.param("192.0.2.01", "unknown", id="leading-zero"),
        pytest.param("unix:/tmp/x", "unknown", id="pipe"),
        pytest.param("x" * 10_000, "unknown", id="long"),
        pytest.param("\ud800", "unknown", id="surrogate"),
    ],
)
@pytest.mark.attack("ipv6-rotation")
def test_what_an_address_is_counted_by(address: str, expected: str) -> None:
    """IPv6 addresses of one /64 count together; what is no address shares one bucket."""
    assert network(address) == expected
    assert bucket(Per.ADDRESS, None, address) == bucket(Per.ADDRESS, principal(), address)


@given(st.text())
def test_any_text_is_counted_by_something(text: str) -> None:
    """No address that a proxy passes on crashes the count."""
    assert network(text)


@pytest.mark.parametrize("per", OF_PRINCIPALS)
def test_before_authentication_only_addresses_are_counted(per: Per) -> None:
    """A limit per client or user without a principal is a slip of ours, not a shared bucket."""
    with pytest.raises(ValueError, match="needs a principal"):
        bucket(per, None)
