"""Any change to a stored trail is found."""

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.audit.chain import AuditChain, TrailKeys
from authz.audit.record import AuditEvent, ChainLink, body
from authz.audit.verify import (
    TrailFault,
    TrailFinding,
    TrailVerifier,
    read_links,
    verify_all,
    write_links,
)

KEYS = TrailKeys((b"k" * 32,))
Stored = tuple[str, bytes, str]


@dataclass(frozen=True)
class Trail:
    """A whole trail: what is stored, and where its chains end."""

    entries: tuple[Stored, ...]
    heads: dict[str, ChainLink]


def trail(order: Sequence[int], keys: TrailKeys = KEYS) -> Trail:
    """Write records of several chains in an order."""
    chains = [AuditChain(keys.newest, f"chain{number}") for number in range(4)]
    entries = list[Stored]()
    for place, number in enumerate(order):
        record = chains[number].add(body(AuditEvent.DECISION, (("tool", f"t{place}"),)), place)
        entries.append((f"{place + 1}-0", record.text, record.link.mac))
    heads = {each.name: each.head for each in chains if each.head is not None}
    return Trail(tuple(entries), heads)


def findings(
    entries: Sequence[Stored],
    heads: dict[str, ChainLink],
    floors: dict[str, ChainLink] | None = None,
    keys: TrailKeys = KEYS,
) -> list[TrailFinding]:
    return list(verify_all(TrailVerifier(keys, heads), entries, floors or {}))


orders = st.lists(st.integers(0, 3), min_size=1, max_size=24)


@given(orders)
def test_a_whole_trail_has_no_finding(order: list[int]) -> None:
    """However the chains of several processes are mixed."""
    whole = trail(order)

    assert findings(whole.entries, whole.heads) == []


@pytest.mark.attack("audit-altered")
@given(orders, st.data())
def test_any_single_change_is_found(order: list[int], data: st.DataObject) -> None:
    """A byte, a record that is gone, doubled, moved, exchanged or forged, and a cut end."""
    whole = trail(order)
    entries = list(whole.entries)
    at = data.draw(st.integers(0, len(entries) - 1))
    change = data.draw(
        st.sampled_from(["byte", "mac", "remove", "double", "swap", "move", "forge"])
    )
    entry_id, text, given_mac = entries[at]
    if change == "byte":
        place = data.draw(st.integers(0, len(text) - 1))
        changed = bytearray(text)
        changed[place] ^= data.draw(st.integers(1, 255))
        entries[at] = entry_id, bytes(changed), given_mac
    elif change == "mac":
        other = trail([0, *order]).entries[at][2]
        entries[at] = entry_id, text, other[::-1] if other == given_mac else other
    elif change == "remove":
        del entries[at]
    elif change == "double":
        entries.insert(data.draw(st.integers(at, len(entries))), entries[at])
    elif change in {"swap", "move"}:
        later = [n for n in range(at + 1, len(entries)) if order[n] == order[at]]
        if not later:
            return
        to = data.draw(st.sampled_from(later))
        if change == "swap":
            entries[at], entries[to] = entries[to], entries[at]
        else:
            entries.insert(to, entries.pop(at))
    else:
        forged = AuditChain(b"another key", f"chain{order[at]}")
        record = forged.add(body(AuditEvent.DECISION, (("tool", "x"),)), at)
        entries.insert(at, (entry_id, record.text, record.link.mac))

    assert findings(entries, whole.heads), change


@pytest.mark.attack("audit-cut")
@given(orders, st.integers(1, 24))
def test_a_cut_end_is_found(order: list[int], cut: int) -> None:
    """Records removed at the end are missed by the heads, whatever the chain."""
    whole = trail(order)

    found = findings(whole.entries[: max(0, len(order) - cut)], whole.heads)

    assert sum(each.count for each in found if each.fault is TrailFault.TRUNCATED) == min(
        cut, len(order)
    )


@given(orders, st.integers(0, 24))
def test_what_the_bound_removed_is_no_finding(order: list[int], trimmed: int) -> None:
    """The oldest records are gone and a floor says so; without the floor they were removed."""
    whole = trail(order)
    gone, left = whole.entries[:trimmed], whole.entries[trimmed:]
    floors = dict[str, ChainLink]()
    for number, (_, _, given_mac) in zip(order, gone, strict=False):
        name = f"chain{number}"
        before = floors.get(name, ChainLink(-1, "")).number
        floors[name] = ChainLink(before + 1, given_mac)

    assert findings(left, whole.heads, floors) == []
    if floors:
        assert findings(left, whole.heads)


@pytest.mark.attack("audit-altered")
def test_a_floor_excuses_nothing_behind_it() -> None:
    """A record behind the last one that the bound removed was removed by somebody."""
    whole = trail([0, 0, 0, 0, 0])
    floors = {"chain0": ChainLink(0, whole.entries[0][2])}

    found = findings([whole.entries[1], *whole.entries[3:]], whole.heads, floors)

    assert [(each.fault, each.number, each.count) for each in found] == [(TrailFault.REMOVED, 2, 1)]


@pytest.mark.attack("audit-altered")
def test_old_records_hide_no_removal() -> None:
    """Records that the bound had removed are put back with gaps between; what is removed since is
    found all the same.
    """
    whole = trail([0] * 2200)
    floors = {"chain0": ChainLink(2050, whole.entries[2050][2])}
    put_back, since = whole.entries[:2051:2], whole.entries[2051:]

    assert not findings(since, whole.heads, floors)
    found = findings([*put_back, *since[:50], *since[60:]], whole.heads, floors)

    assert (TrailFault.REMOVED, 2101, 10) in [
        (each.fault, each.number, each.count) for each in found
    ]


@pytest.mark.attack("audit-altered")
@pytest.mark.parametrize("lost", ["\u00b2", "1" * 5000, "-1", ""])
def test_a_number_that_is_none_stops_nothing(lost: str) -> None:
    """Without a sealing key anybody who can write to Redis can forge a record."""
    chain = AuditChain(KEYS.newest, "chain0")
    record = chain.add(body(AuditEvent.GAP, (("lost", lost),)), 0)
    assert chain.head is not None

    assert not findings([("1-0", record.text, record.link.mac)], {"chain0": chain.head})


@pytest.mark.attack("audit-altered")
def test_a_chain_that_is_gone_with_its_head_is_missed_by_another_chain() -> None:
    """Every chain names the ends of the others when it begins, and once an hour."""
    whole = trail([0, 0, 0])
    later = AuditChain(KEYS.newest, "later")
    record = later.add(body(AuditEvent.ANCHOR, (("heads", write_links(whole.heads)),)), 9)
    assert later.head is not None

    found = findings([("9-0", record.text, record.link.mac)], {"later": later.head})

    assert [(each.fault, each.chain, each.count) for each in found] == [
        (TrailFault.TRUNCATED, "chain0", 3)
    ]


def test_a_chain_without_head_and_end_is_told() -> None:
    """Where the head was removed, nobody can say that the end is whole."""
    whole = trail([0, 0])

    assert [each.fault for each in findings(whole.entries, {})] == [TrailFault.NO_HEAD]


def test_a_new_key_verifies_with_the_old_one_and_not_without_it() -> None:
    """Keys rotate: a chain keeps the key that it began with."""
    whole = trail([0, 0])
    new = TrailKeys((b"n" * 32, *KEYS.secret))

    assert findings(whole.entries, whole.heads, keys=new) == []
    assert {
        each.fault for each in findings(whole.entries, whole.heads, keys=TrailKeys((b"n",)))
    } >= {TrailFault.CHANGED}


def test_with_a_secret_key_the_public_one_verifies_nothing() -> None:
    """Nobody can make a chain that passes as one of before there was a key."""
    public = trail([0], TrailKeys())

    assert findings(public.entries, public.heads, keys=TrailKeys()) == []
    assert findings(public.entries, public.heads)


@pytest.mark.parametrize("text", ["x", ":1:m", "c:x:m", "c:1:", "c:" + "9" * 20 + ":m"])
def test_links_that_are_none_are_left_out(text: str) -> None:
    """What a field says of other chains is read strictly."""
    assert read_links(text) == {}
    assert read_links(f"{text} c:1:m") == {"c": ChainLink(1, "m")}
