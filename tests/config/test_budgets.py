"""What one person may hold open by default, and what the settings make of it."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from authz.config.budgets import Budget
from authz.config.compile import budget_of
from authz.config.load import Settings
from authz.core.exchanges import SERVER_REQUESTS, Exchange
from authz.core.limits import Limit, Per, Quota
from authz.core.methods import Counts

SettingsOf = Callable[[str], Settings]


def gateway(text: str, line: str) -> str:
    return text.replace("gateway:\n", f"gateway:\n  {line}\n")


@pytest.mark.attack("streams-of-one-person")
@pytest.mark.parametrize("clients", ["", "clients: {a: {}, b: {}, c: {}}\n"])
def test_by_default_nobody_holds_a_fifth_of_a_server(
    clients: str, smallest: str, settings_of: SettingsOf
) -> None:
    """Streams, calls and answers together; the figures of docs/capacity.md."""
    found = budget_of(settings_of(smallest + clients).config, "files")
    kinds = {kind: meter.most_open(3600) for kind, meter in found.meters.items()}

    assert found.most_open is not None
    assert found.most_open <= SERVER_REQUESTS // 5
    assert (found.most_open, kinds[Exchange.CALL], kinds[Exchange.ANSWER]) == (701, 389, 216)


def test_what_is_decided_by_is_what_is_checked(smallest: str, settings_of: SettingsOf) -> None:
    """One budget, for the warning and for the decision."""
    settings = settings_of(smallest)
    found, server = budget_of(settings.config, "files"), settings.policy.servers["files"]

    assert (server.streams, dict(server.meters)) == (found.streams, dict(found.meters))
    assert found.streams == Limit(
        "files:streams", Per.USER, 96, 901, place="files", counts=Counts.STREAMS
    )


@pytest.mark.attack("streams-of-one-person")
def test_overrides_bound_what_is_open_together(smallest: str, settings_of: SettingsOf) -> None:
    """A person may be counted by one with this client and by another with that one: both add up,
    and each tells how long a call lasts. A window that an override lacks bounds nobody.
    """

    def found(rate: str) -> Budget:
        text = f"{smallest}    limits: [{{per: user, rate: {rate}}}]\nclients: {{ci: {{}}}}\n"
        return budget_of(settings_of(text).config, "files")

    own, other = (found(each).meters[Exchange.CALL] for each in ("60/minute", "600/minute"))
    both = found("60/minute, overrides: [{clients: [ci], rate: 600/minute}]").meters[Exchange.CALL]
    assert both.most_open(3600) == own.most_open(3600) + other.most_open(3600)
    assert both.variants[0].quota == 600
    used = Quota(both.variants[0], 300, 1)
    assert both.lasts([used], 3600) == other.lasts([replace(used, limit=other.limit)], 3600)
    two = found("[60/minute, 9/second], overrides: [{clients: [ci], rate: 600/minute}]")
    assert two.meters[Exchange.CALL] == both


@pytest.mark.attack("calendar-quota")
@pytest.mark.parametrize("rates", [("60/minute", "9/day"), ("9/day", "60/minute")])
def test_a_window_by_the_calendar_bounds_nothing(
    rates: tuple[str, str], smallest: str, settings_of: SettingsOf
) -> None:
    """Neither of the limit nor of an override: around midnight twice the quota may be open."""
    text = (
        f"{smallest}    limits: [{{per: user, rate: {rates[0]}, time_zone: Europe/Berlin, "
        f"overrides: [{{clients: [ci], rate: {rates[1]}}}]}}]\nclients: {{ci: {{}}}}\n"
    )
    found = budget_of(settings_of(text).config, "files")

    assert found.most_open is None
    assert found.meters.keys() == {Exchange.STREAM}


@pytest.mark.attack("shadow-limit-refuses")
def test_a_limit_in_shadow_bounds_nothing(smallest: str, settings_of: SettingsOf) -> None:
    """Neither how long calls last nor what one person holds is derived from it."""
    text = f"{smallest}    limits: [{{per: user, rate: 60/minute, shadow: true}}]\n"
    found = budget_of(settings_of(text).config, "files")

    assert found.most_open is None
    assert found.meters.keys() == {Exchange.STREAM}


@pytest.mark.parametrize(
    ("line", "quota", "window"),
    [
        ("stream_recheck: 1m", 96, 61),
        ("stream_recheck: 1500ms", 96, 3),
        ("stream_recheck: 7d", 96, 901),  # whoever is refused is so for a quarter of an hour
        ("streams_per_user: 4", 4, 901),
    ],
)
def test_a_stream_is_counted_for_as_long_as_it_lives(
    line: str, quota: int, window: int, smallest: str, settings_of: SettingsOf
) -> None:
    """And no longer than a client can be asked to wait."""
    streams = budget_of(settings_of(gateway(smallest, line)).config, "files").streams

    assert (streams.quota, streams.window) == (quota, window)


def test_streams_that_live_for_days_are_few(smallest: str, settings_of: SettingsOf) -> None:
    """Who begins many of them has each end earlier."""
    config = settings_of(gateway(smallest, "stream_recheck: 7d")).config
    found = budget_of(config, "files").meters[Exchange.STREAM]

    assert found.most_open(7 * 86400) == 172


def test_one_limit_that_bounds_all_clients_is_chosen(
    smallest: str, settings_of: SettingsOf
) -> None:
    """The one by which the fewest are open, of as many clients as there are."""
    limits = "    limits: [{per: user, rate: 1000/day}, {per: [client, user], rate: 60/minute}]\n"
    few = budget_of(settings_of(smallest + limits + "clients: {a: {}, b: {}}\n").config, "files")
    unknown = budget_of(settings_of(smallest + limits).config, "files")

    assert few.meters[Exchange.CALL].limit.per is Per.CLIENT_USER
    assert unknown.meters[Exchange.CALL].limit.per is Per.USER


def test_what_nothing_limits_has_no_bound(smallest: str, settings_of: SettingsOf) -> None:
    """Its streams are counted all the same."""
    found = budget_of(settings_of(f"{smallest}    limits: []\n").config, "files")

    assert found.most_open is None
    assert set(found.meters) == {Exchange.STREAM}
