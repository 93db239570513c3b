"""Which lines of logs are of one connection, and where it stopped."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.cli.connections import collect
from authz.telemetry import connections
from authz.telemetry.connection_advice import advise
from authz.telemetry.connection_events import Stage
from authz.telemetry.connections import Story

PHONE, HOSTED, OTHER = "192.0.2.7", "198.51.100.4", "203.0.113.9"


def line(now: float, event: str, **more: object) -> bytes:
    return json.dumps({"time": now, "event": event, **more}).encode() + b"\n"


def challenge(now: float, address: str = HOSTED, **more: object) -> bytes:
    fields = {"verdict": "deny", "reason": "token_missing", "server": "files", "address": address}
    return line(now, "decision", **(fields | more))


def document(now: float, address: str = HOSTED, route: str = "metadata:files") -> bytes:
    fields = {
        "time": datetime.fromtimestamp(now, UTC).isoformat().replace("+00:00", "Z"),
        "address": address, "route": route, "status": 200, "details": "direct_response",
        "flags": "-", "path": f"/.well-known/{route}", "request_id": f"d{now}",
    }  # fmt: skip
    return json.dumps(fields).encode() + b"\n"


def step(now: float, name: str, outcome: str = "ok", *, network: str, **more: object) -> bytes:
    return line(now, "log_in", step=name, outcome=outcome, network=network, **more)


def call(now: float, grant: str, address: str = HOSTED, **more: object) -> bytes:
    fields = {"verdict": "allow", "reason": "allowed", "server": "files", "address": address}
    fields |= {
        "grant": grant,
        "client_id": "claude.ai",
        "subject": "u-1",
        "mcp_method": "tools/list",
    }
    return line(now, "decision", **(fields | more))


def hosted(now: float, attempt: str = "a1", grant: str = "0a1b") -> list[bytes]:
    """Return the lines of one log-in of a hosted assistant: its servers, and a person's browser."""
    client = {"client": "claude.ai", "client_key": "c1"}
    browser = {**client, "network": PHONE, "attempt": attempt}
    return [
        challenge(now), document(now + 1), document(now + 2, route="server-metadata"),
        step(now + 3, "authorize", **browser, server="files"),
        step(now + 9, "consent", **browser, server="files", grant=grant),
        step(now + 15, "callback", **browser, server="files", grant=grant),
        step(now + 16, "token", **client, network=HOSTED, server="files", grant=grant),
        call(now + 17, grant),
    ]  # fmt: skip


BASE = 1_000_000_000.0


def stories(lines: Sequence[bytes]) -> list[Story]:
    return collect(lines, 0).stories()


def stages(story: Story) -> list[Stage]:
    return [event.stage for event in story.events]


def test_a_hosted_assistants_log_in_is_one_story() -> None:
    """Its servers ask, a browser logs in, its servers redeem: tied by grant, the start by guess."""
    (story,) = stories([*hosted(BASE), call(BASE + 18, "0a1b"), call(BASE + 19, "0a1b")])

    assert sorted(stages(story)) == [1, 2, 2, 5, 6, 7, 8, 9]
    assert (story.client, story.server, story.subject) == ("claude.ai", "files", "u-1")
    assert story.networks == [PHONE, HOSTED]
    assert story.guessed == {Stage.CHALLENGE, Stage.DOCUMENT}
    assert advise(story.reached()).missing.startswith("nothing")


@pytest.mark.parametrize(
    ("count", "missing"),
    [
        (1, "asked for no metadata document"),
        (3, "nobody opened the log-in page"),
        (4, "nobody answered it"),
        (5, "did not come back"),
        (6, "never came for the tokens"),
        (7, "has called nothing"),
    ],
)
def test_where_it_stopped_is_what_was_missing(count: int, missing: str) -> None:
    """After each good step the one that never came is named."""
    *_, last = stories(hosted(BASE)[:count])

    assert missing in advise(last.reached()).missing


def test_a_registered_client_on_one_machine_is_tied_by_its_key() -> None:
    """The client's own id ties registration to log-in, whoever else shares the address."""
    mine = {"network": PHONE, "client_key": "k1"}
    others = {"network": PHONE, "client_key": "k2"}
    (second, first) = stories(
        [
            step(BASE, "register", **mine),
            step(BASE + 1, "register", **others),
            step(BASE + 2, "authorize", **others, attempt="b"),
            step(BASE + 3, "authorize", **mine, attempt="a"),
            step(BASE + 4, "token", "invalid_grant", **mine),
        ]
    )

    assert stages(first) == [Stage.REGISTER, Stage.AUTHORIZE, Stage.TOKEN]
    assert stages(second) == [Stage.REGISTER, Stage.AUTHORIZE]
    assert first.guessed == second.guessed == set()
    assert "not good" in advise(first.reached()).missing


def test_the_fetch_of_a_clients_document_is_of_its_log_in() -> None:
    """It comes before the request that it was for; one for a refresh begins no story."""
    mine = {"network": PHONE, "client": "https://claude.ai/c", "client_key": "c1"}
    fetched = step(BASE + 2, "client_document", **mine, attempt="a1")
    (story,) = stories([challenge(BASE), *hosted(BASE)[3:], fetched])
    assert Stage.CLIENT_DOCUMENT in {each.stage for each in story.events}
    assert stories([step(BASE, "client_document", **mine)]) == []
    (story,) = stories([step(BASE, "client_document", "not_found", **mine, attempt="a1")])
    assert "metadata document is of no use" in advise(story.reached()).missing


def test_two_log_ins_of_one_client_are_two_stories() -> None:
    """A shared client id, and a shared address of the assistant's servers, mix up no grants."""
    one, two = hosted(BASE, "a1", "0a1b"), hosted(BASE + 1, "a2", "0c2d")
    woven = [each for pair in zip(one, two, strict=True) for each in pair]
    found = [story for story in stories(woven) if story.grant]

    assert [story.grant for story in found] == ["0a1b", "0c2d"]
    for story in found:
        assert {event.grant for event in story.events} <= {"", story.grant}
        assert {event.attempt for event in story.events} <= {"", story.id}


def test_an_error_page_is_where_it_stopped() -> None:
    """What the person saw counts more than the good step before it, until there are tokens."""
    page = line(BASE + 20, "page", detail="not this browser", network=PHONE, request_id="r9")
    (story,) = stories([*hosted(BASE)[3:5], page])

    assert story.reached().is_page
    assert "r9" in advise(story.reached()).fix


def test_a_refresh_that_fails_later_is_where_it_stopped() -> None:
    """A connector that worked and stopped is told by its grant."""
    late = step(BASE + 9000, "refresh", "invalid_grant", network=OTHER, grant="0a1b")
    (story,) = stories([*hosted(BASE), late])

    assert (story.reached().stage, story.reached().outcome) == (Stage.REFRESH, "invalid_grant")


@pytest.mark.attack("stories-pushed-out")
def test_a_stranger_pushes_out_no_story_of_another_network() -> None:
    """One address has a bounded number of stories; memory is bounded for all of them."""
    flood = [
        step(BASE + n, "authorize", network=OTHER, attempt=f"x{n}", client_key=f"k{n}")
        for n in range(15_000)
    ]
    mine = hosted(BASE)[3:5]
    found = collect([*mine, *flood], 0)
    kept = found.stories()

    assert "a1" in {story.id for story in kept}
    assert len(kept) <= 21
    assert found.left_out == 15_000 - 20
    sizes = [len(each) for each in vars(found).values() if isinstance(each, dict)]
    assert max(sizes) <= 2 * len(kept)


@pytest.mark.attack("stories-pushed-out")
def test_many_log_ins_cost_no_more_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room is made without looking through all that somebody has logged in to; the oldest goes."""
    asked = 0

    def is_proved(_: Story) -> bool:
        nonlocal asked
        asked += 1
        return True

    monkeypatch.setattr(connections, "_STORIES", 200)
    monkeypatch.setattr(Story, "is_proved", property(is_proved))
    lines = [
        step(BASE + n, "token", network=OTHER, attempt=f"x{n}", grant=f"{n:x}") for n in range(600)
    ]
    kept = collect(lines, 0).stories()

    assert [story.id for story in kept] == [f"x{n}" for n in range(400, 600)]
    assert asked <= 2 * len(lines)


@pytest.mark.attack("stories-pushed-out")
def test_strangers_at_many_addresses_push_out_no_log_in_of_a_person() -> None:
    """Where all is full, what nobody has logged in to goes first."""
    flood = [
        step(BASE + 100 + n, "authorize", network=f"10.{n >> 8}.{n & 255}.1", attempt=f"x{n}")
        for n in range(10_500)
    ]
    found = collect([*hosted(BASE), *flood], 0)

    assert "a1" in {story.id for story in found.stories()}
    assert len(found.stories()) <= 10_000


TEXTS = st.sampled_from(["", "a", "b", PHONE, HOSTED, "ok", "0a", "0b"])
RECORDS = st.fixed_dictionaries(
    {
        "time": st.one_of(st.floats(), st.integers(0, 5000), st.text(max_size=4), st.none()),
        "event": st.sampled_from(["log_in", "page", "decision", "x"]),
        "step": st.sampled_from(
            ["register", "authorize", "consent", "callback", "token", "refresh"]
        ),
        "outcome": TEXTS,
        "detail": TEXTS,
        "reason": st.sampled_from(["token_missing", "allowed", "insufficient_scope"]),
        "verdict": st.sampled_from(["allow", "deny"]),
        "grant": TEXTS,
        "attempt": TEXTS,
        "client_key": TEXTS,
        "network": TEXTS,
        "address": TEXTS,
    }
)


@given(st.lists(RECORDS, max_size=40))
def test_any_lines_make_stories_that_can_be_told(records: list[dict[str, object]]) -> None:
    """Whatever a log holds: nothing is raised, a grant is in one story, each has advice."""
    lines = [json.dumps(record).encode() for record in records]
    found = collect(lines, 0)
    told = found.stories()

    assert len({story.id for story in told}) == len(told)
    for story in told:
        assert story.events
        assert advise(story.reached()).fix
    grants = [grant for story in told for grant in {event.grant for event in story.events} - {""}]
    assert len(grants) == len(set(grants))
