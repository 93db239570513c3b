"""The simulation of many people gives what queueing theory says it must."""

from pathlib import Path

import pytest

from bench.scale import SIZES, read, told
from bench.scale_model import Costs, Operation, Profile, closed, demand, simulate

SERVICE = 0.001


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_one_queue_waits_as_pollaczek_and_khinchine_say(load: float) -> None:
    """M/D/1: the mean wait is half of load x service / (1 - load), within a tenth."""
    operations = {"call": Operation("call", {"worker": SERVICE})}
    found = simulate(operations, {"call": load / SERVICE}, {"worker": 1}, 300)
    waits = found.waits["call"]
    expected = load * SERVICE / (2 * (1 - load))
    assert sum(waits) / len(waits) == pytest.approx(expected, rel=0.1)


def test_utilisation_is_the_models() -> None:
    """Of every station, with every operation: busy cores are rate times demand, within 3 %."""
    costs = Costs(
        Operation("call", {"Envoy": 2e-4, "worker": 1e-4, "Redis": 1e-5}),
        Operation("first_use", {"worker": 3e-4}),
        Operation("log_in", {"Authelia": 0.4, "pages": 0.02}),
        Operation("refresh", {"Authelia": 0.02}),
        caller_bytes=1000,
        log_in_bytes=4000,
        load=0,
        throughput=1,
        generator=0,
        cores=2,
    )
    profile = Profile(100_000)
    needed = demand(costs, profile)
    rates = profile.rates()
    operations = {name: getattr(costs, name) for name in rates}
    cores = {station: int(each) + 2 for station, each in needed.items()}
    found = simulate(operations, rates, cores, 400)
    for station in ("Envoy", "worker", "Redis"):
        assert found.utilisation[station] == pytest.approx(needed[station], rel=0.03)
    for station in ("Authelia", "pages"):  # some hundred log-ins: more by chance
        assert found.utilisation[station] == pytest.approx(needed[station], rel=0.15)


def test_every_operation_that_came_has_ended() -> None:
    """Nothing is lost in a queue, and an operation's work is done once."""
    operations = {"call": Operation("call", {"a": 0.01, "b": 0.02})}
    found = simulate(operations, {"call": 40}, {"a": 1, "b": 1}, 50)
    assert found.operations == len(found.waits["call"]) > 1000
    assert found.utilisation["b"] == pytest.approx(2 * found.utilisation["a"])


@pytest.mark.parametrize(("cores", "expected"), [(1, 1 / 0.003), (2, 1 / 0.002), (9, 1 / 0.002)])
def test_a_full_machine_is_bound_by_its_cores_or_its_slowest_process(
    cores: int, expected: float
) -> None:
    """Operations a second: of the sum of demands on few cores, of the largest on many."""
    found = closed({"a": 0.001, "b": 0.002}, cores, 64, 5_000)
    assert found == pytest.approx(expected, rel=0.03)


@pytest.mark.slow
def test_the_page_has_what_the_program_says() -> None:
    """docs/scale.md holds the output of `python -m bench.scale show docs/scale.json`."""
    docs = Path(__file__).parents[1] / "docs"
    said = "\n".join(told(read(docs / "scale.json"), SIZES))
    assert f"```text\n{said}\n```" in (docs / "scale.md").read_text()
