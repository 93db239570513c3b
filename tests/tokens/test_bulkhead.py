"""The gate: so many calls, so long a line, and rest for what fails."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.tokens.bulkhead import Bulkhead, NoSlotError, Slot, TokenBucket
from tests.tokens.opaque import Unpaced, settled
from tests.tokens.token_factory import TokenClock, unhurried


class BulkheadKit:
    """A gate, its clock, and calls that end when a test says so."""

    def __init__(self, width: int = 2, pace: float | None = None, share: int | None = None) -> None:
        self.clock = TokenClock(1000.0)
        paced = Unpaced() if pace is None else TokenBucket(pace, width, self.clock)
        self.gate = Bulkhead(width, paced, share=share, clock=self.clock, chance=lambda: 0.5)
        self.begun: list[str] = []
        self.turned_away: list[str] = []
        self.ends: dict[str, asyncio.Event] = {}
        self.turns: dict[str, Slot] = {}
        self.tasks: list[asyncio.Task[None]] = []

    def call(self, name: str, *, known: bool = False, source: str = "") -> None:
        """Join, as a call of this name; raises TurnedAwayError where there is no place."""
        turn = self.turns[name] = self.gate.join(known=known, source=source)
        self.ends[name] = asyncio.Event()
        self.tasks.append(asyncio.create_task(self._run(name, turn)))

    async def _run(self, name: str, turn: Slot) -> None:
        try:
            async with turn:
                self.begun.append(name)
                await self.ends[name].wait()
        except NoSlotError:
            self.turned_away.append(name)

    def cancel(self, which: int) -> None:
        """Cancel one of the calls, wherever it stands."""
        if self.tasks:
            which %= len(self.tasks)
            self.tasks[which].cancel()
            list(self.ends.values())[which].set()

    async def end(self, *names: str) -> None:
        for name in names:
            self.ends[name].set()
        await settled()

    async def close(self) -> None:
        await self.end(*self.ends)
        for task in self.tasks:  # those whom a clock that stands still keeps in line
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


def play(
    scene: Callable[[BulkheadKit], Awaitable[None]],
    width: int = 2,
    pace: float | None = None,
    share: int | None = None,
) -> None:
    async def run() -> None:
        stand = BulkheadKit(width, pace, share)
        await scene(stand)
        await stand.close()

    asyncio.run(run())


def test_no_more_calls_than_the_width() -> None:
    """Those who come beyond the width wait, and begin in the order in which they came."""

    async def scene(stand: BulkheadKit) -> None:
        for name in "abcd":
            stand.call(name)
        await settled()
        assert stand.begun == ["a", "b"]

        await stand.end("b")
        assert stand.begun == ["a", "b", "c"]
        await stand.end("a", "c")
        assert stand.begun == ["a", "b", "c", "d"]

    play(scene)


@pytest.mark.attack("introspection-flood")
def test_who_is_known_goes_first() -> None:
    """A known token is not kept waiting by strangers who came before it."""

    async def scene(stand: BulkheadKit) -> None:
        stand.call("running")
        for number in range(10):
            stand.call(f"stranger-{number}")
        stand.call("known", known=True)

        await stand.end("running")
        assert stand.begun == ["running", "known"]

    play(scene, width=1)


@pytest.mark.attack("introspection-flood")
def test_the_line_is_bounded() -> None:
    """Strangers fill their own line and no more; the known have a line of their own."""

    async def scene(stand: BulkheadKit) -> None:
        for number in range(1 + 16):
            stand.call(str(number))
        with pytest.raises(NoSlotError):
            stand.call("one-too-many")
        stand.call("known", known=True)

    play(scene, width=1)


@pytest.mark.attack("introspection-flood")
def test_strangers_keep_to_the_pace() -> None:
    """So many strangers a second begin, whatever the width; the known begin at once."""

    async def scene(stand: BulkheadKit) -> None:
        for number in range(40):
            stand.call(str(number))
        await settled()
        assert stand.begun == [str(number) for number in range(10)]

        stand.call("known", known=True)
        await stand.end(*stand.begun)
        assert stand.begun[10:] == ["known"]

        for second in range(1, 4):
            stand.clock.now += 1
            await stand.end(*stand.begun)  # somebody leaves, and the line is looked at
            assert len(stand.begun) == 11 + 5 * second
            stand.call(f"known-{second}", known=True)
            await stand.end(f"known-{second}")
            stand.begun.remove(f"known-{second}")

    play(scene, width=10, pace=5)


def test_the_line_moves_on_by_itself() -> None:
    """Where nobody leaves, a timer lets the next stranger through when the pace allows it."""

    async def run() -> None:
        gate = Bulkhead(10, TokenBucket(20, 10, time.monotonic))
        turns = [gate.join(known=False) for _ in range(13)]
        assert [turn.place for turn in turns[:10]] == [None] * 10
        for turn in turns[:10]:
            gate.leave(turn)
        async with asyncio.timeout(20):
            for turn in turns[10:]:
                assert turn.place is not None
                assert await turn.place

    asyncio.run(run())


def test_nobody_overtakes_who_is_in_line() -> None:
    """A stranger who comes when the pace allows one more goes behind those who wait."""

    async def scene(stand: BulkheadKit) -> None:
        stand.call("first")
        await stand.end("first")
        stand.call("second")
        stand.clock.now += 1
        stand.call("third")
        await settled()
        assert stand.begun == ["first", "second"]
        stand.call("known", known=True)
        await stand.end("second", "known")
        assert stand.begun == ["first", "second", "known"]

    play(scene, width=1, pace=1)


@pytest.mark.attack("document-starvation")
@pytest.mark.parametrize("known", [False, True])
def test_a_source_has_no_more_than_its_share(known: bool) -> None:
    """Whoever has many calls that never end has two of them under way; the next one begins."""

    async def scene(stand: BulkheadKit) -> None:
        for number in range(10):
            stand.call(f"slow-{number}", known=known, source="slow")
        stand.call("other", known=known, source="other")
        await settled()
        assert stand.begun == ["slow-0", "slow-1", "other"]

        await stand.end("slow-0")
        assert stand.begun[3:] == ["slow-2"]

    play(scene, width=8, share=2)


@pytest.mark.attack("document-starvation")
def test_who_has_the_fewest_calls_goes_first() -> None:
    """Of the sources that wait, and among equals who came first, whatever the line of one is."""

    async def scene(stand: BulkheadKit) -> None:
        for name in ("a-0", "a-1", "a-2", "a-3", "a-4", "b-0", "c-0"):
            stand.call(name, source=name[0])
        await settled()
        for name in ("a-0", "a-1", "b-0", "a-2", "c-0"):
            await stand.end(name)
        assert stand.begun == ["a-0", "a-1", "b-0", "a-2", "c-0", "a-3", "a-4"]

    play(scene, width=2, share=2)


@pytest.mark.attack("document-starvation")
def test_who_has_the_longest_line_makes_room() -> None:
    """A full line turns away the last of whoever has most in it, never who comes with one."""

    async def scene(stand: BulkheadKit) -> None:
        for number in range(17):
            stand.call(f"many-{number}", source="many")
        stand.call("one", source="one")
        with pytest.raises(NoSlotError):
            stand.call("many-17", source="many")
        await settled()
        assert stand.turned_away == ["many-16"]

        await stand.end("many-0", "many-1")
        assert stand.begun == ["many-0", "many-1", "one"]

    play(scene, width=1, share=1)


def test_who_gives_up_leaves_the_place_to_others() -> None:
    """In line or begun, before the call; once it was begun, giving up changes nothing."""

    async def scene(stand: BulkheadKit) -> None:
        begun, in_line = stand.gate.join(known=False), stand.gate.join(known=False)
        stand.call("next")
        assert begun.begun
        assert not in_line.begun
        in_line.abandon()
        begun.abandon()
        begun.abandon()
        await settled()
        assert stand.begun == ["next"]
        stand.turns["next"].abandon()
        stand.call("last")
        await settled()
        assert stand.begun == ["next"]
        await stand.end("next")
        assert stand.begun == ["next", "last"]

    play(scene, width=1)


def test_those_who_left_a_full_line_make_room() -> None:
    """Nobody is turned away for the sake of who has gone."""

    async def scene(stand: BulkheadKit) -> None:
        stand.call("running")
        turns = [stand.gate.join(known=False) for _ in range(16)]
        turns[7].abandon()
        stand.call("late")
        with pytest.raises(NoSlotError):
            stand.call("later")
        for turn in turns:
            turn.abandon()
        await stand.end("running")
        assert stand.begun == ["running", "late"]

    play(scene, width=1)


def test_who_is_cancelled_as_its_turn_comes_leaves_it_to_others() -> None:
    """A place that was given in the same moment is not lost."""

    async def scene(stand: BulkheadKit) -> None:
        stand.call("running")
        stand.call("cancelled")
        await settled()
        stand.gate.leave(stand.turns["running"])
        stand.tasks[1].cancel()
        stand.gate.join(known=True).abandon()  # only the width is looked at: one is running
        await settled()
        stand.call("next")
        await settled()
        assert stand.begun == ["running", "next"]
        stand.tasks.pop(0).cancel()

    play(scene, width=1)


def test_a_failure_turns_everybody_away() -> None:
    """Who waits in line and who comes during the pause is turned away at once."""

    async def scene(stand: BulkheadKit) -> None:
        stand.call("a")
        stand.call("b")
        await settled()
        stand.turns["a"].failed()
        await stand.end("a")

        assert stand.turned_away == ["b"]
        assert stand.gate.failing
        with pytest.raises(NoSlotError):
            stand.call("c")

    play(scene, width=1)


def test_after_a_pause_there_is_one_probe() -> None:
    """While it fails one call at a time goes through, whatever the width."""

    async def scene(stand: BulkheadKit) -> None:
        stand.call("a")
        stand.turns["a"].failed()
        stand.clock.now += 0.5
        stand.call("probe")
        with pytest.raises(NoSlotError):
            stand.call("another")
        await settled()
        assert stand.begun == ["a", "probe"]

        stand.turns["probe"].succeeded()
        assert not stand.gate.failing

    play(scene, width=3)


def test_pauses_grow_to_a_bound_and_end_with_a_success() -> None:
    """Each failed probe doubles the pause, to ten seconds; a success forgets them all."""

    async def scene(stand: BulkheadKit) -> None:
        stand.call("first")
        stand.turns["first"].failed()
        await stand.end("first")
        pauses = []
        for number in range(9):
            begun = stand.clock.now
            while f"probe-{number}" not in stand.turns:
                try:
                    stand.call(f"probe-{number}")
                except NoSlotError:
                    stand.clock.now += 0.25
            pauses.append(stand.clock.now - begun)
            stand.turns[f"probe-{number}"].failed()
            await stand.end(f"probe-{number}")
        assert pauses == [0.5, 1, 2, 4, 8, 10, 10, 10, 10]

        stand.clock.now += 30
        stand.call("good")
        stand.turns["good"].succeeded()
        await stand.end("good")
        stand.call("next")
        stand.turns["next"].failed()
        stand.clock.now += 0.5
        stand.call("soon")

    play(scene)


def test_many_that_fail_together_are_one_failure() -> None:
    """Eight calls that one outage ends do not make the pause 256 times as long."""

    async def scene(stand: BulkheadKit) -> None:
        for number in range(8):
            stand.call(str(number))
        for turn in stand.turns.values():
            turn.failed()
            turn.failed()
        await stand.end(*stand.ends)

        stand.clock.now += 0.5
        stand.call("probe")

    play(scene, width=8)


def test_calls_that_hang_keep_their_places() -> None:
    """Where every place is taken by a call that hangs, there is no probe either."""

    async def scene(stand: BulkheadKit) -> None:
        for name in "ab":
            stand.call(name)
        stand.turns["a"].failed()
        stand.clock.now += 100
        with pytest.raises(NoSlotError):
            stand.call("probe")

        await stand.end("b")
        stand.call("probe")

    play(scene)


def test_a_late_probe_makes_room_for_the_next() -> None:
    """A probe that hangs is no reason never to try again."""

    async def scene(stand: BulkheadKit) -> None:
        stand.call("a")
        stand.turns["a"].failed()
        stand.clock.now += 0.5
        stand.call("probe")
        stand.turns["probe"].failed()  # it is late, and still under way
        stand.clock.now += 1.0
        stand.call("next-probe")

    play(scene, width=3)


def test_a_rest_is_not_saved_up() -> None:
    """After an hour without strangers as many pass at once as after a second."""
    clock = TokenClock()
    pace = TokenBucket(4, 3, clock)
    for now in (0, 1, 3600):
        clock.now = now
        assert [pace.take() for _ in range(4)] == [True, True, True, False]
    clock.now += 0.25
    assert [pace.take(), pace.take()] == [True, False]
    assert pace.wait() == 0.25


def test_what_nobody_can_pass_is_refused() -> None:
    """A gate that nobody, or no stranger, can pass is a mistake."""
    with pytest.raises(ValueError, match="at least one"):
        Bulkhead(0)
    for rate, burst in ((0.5, 1), (1, 0)):
        with pytest.raises(ValueError, match="somebody"):
            TokenBucket(rate, burst, TokenClock())


@unhurried
@given(
    width=st.integers(1, 4),
    steps=st.lists(
        st.tuples(
            st.sampled_from(["stranger", "known", "end", "fail", "succeed", "wait", "cancel"]),
            st.integers(0, 30),
        ),
        max_size=40,
    ),
)
@pytest.mark.attack("introspection-flood")
def test_whatever_happens_the_width_holds(width: int, steps: list[tuple[str, int]]) -> None:
    """In no order of events are there more calls than the width, or of one source than its share,
    and at the end none is left.
    """

    async def run() -> None:
        stand = BulkheadKit(width, share=2)
        for number, (step, which) in enumerate(steps):
            running = [name for name in stand.begun if not stand.ends[name].is_set()]
            one = running[which % len(running)] if running else None
            if step in {"stranger", "known"}:
                with suppress(NoSlotError):
                    stand.call(
                        f"{which % 3}-{number}", known=step == "known", source=str(which % 3)
                    )
            elif step == "cancel":
                stand.cancel(which)
            elif step == "wait":
                stand.clock.now += which
            elif one is not None and step == "end":
                stand.ends[one].set()
            elif one is not None and step == "fail":
                stand.turns[one].failed()
            elif one is not None:
                stand.turns[one].succeeded()
            await settled()
            left = [name for name in stand.begun if not stand.ends[name].is_set()]
            assert len(left) <= width
            assert all(sum(name[0] == each for name in left) <= 2 for each in "012")
        await stand.close()
        # Every place has come back.
        stand.clock.now += 100
        stand.gate.succeeded()
        for number in range(width):
            stand.call(f"last-{number}", source=str(number))
        await settled()
        assert sum(name.startswith("last") for name in stand.begun) == width
        await stand.close()

    asyncio.run(run())
