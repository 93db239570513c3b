"""What `check-config` says of many people behind one address."""

from pathlib import Path

import pytest

from authz.cli import main
from authz.config.load import read
from authz.config.notes import notes

_GATEWAY = "gateway: {url: https://mcp.example.com, tls: {certificate: /c, key: /k}"
_DOOR = """\
issuer:
  url: https://auth.example.com
  internal: http://authelia:9091
  introspection: {client_id: authz-introspection, key_file: /k.pem}
front_door: {key_file: /k.pem%s}
"""
_DIRECT = "issuer: {url: https://auth.example.com, login: direct}\n"
_SERVER = "servers: {files: {upstream: 'http://files:8000/mcp'%s}}\n"


def said(issuer: str, gateway: str = "", server: str = "") -> str:
    text = f"{issuer}{_GATEWAY}{gateway}}}\n{_SERVER % server}"
    return "\n".join(notes(read(text, "authz.yaml", {}, secrets=False).config))


def test_each_figure_by_address_is_told_with_its_setting() -> None:
    """With what is configured, and nothing else."""
    found = said(_DOOR % "", ", address_calls: 7/second, address_bodies: 8/minute")

    assert "gateway.address_calls: all people behind one address" in found
    assert "7/second calls together, and 8/minute" in found
    assert "gateway.address_bad_tokens: after 60/minute" in found
    assert "front_door.address_log_ins: 20 people" in found


def test_what_is_not_there_is_not_told() -> None:
    """Without log-ins here and without introspection only calls are counted by address."""
    assert said(_DIRECT).count("\n") == 0


@pytest.mark.parametrize(
    ("figures", "told"),
    [
        ("", "20 people behind one address may log in at once, and 500 take 24 minutes"),
        (", address_log_ins: 120/minute", "120 people"),
        (", address_log_ins: 120/minute", "500 take 3 minutes"),
        (", address_log_ins: 500/minute, address_pages: 30/minute", "10 people"),
        (", address_log_ins: 500/minute, address_pages: 1500/minute", "500 take no longer"),
        (", address_log_ins: 400/minute, address_pages: 1500/minute", "500 take 15 seconds"),
        (", address_log_ins: 10/hour", "500 take 49 hours"),
    ],
)
def test_log_ins_behind_one_address(figures: str, told: str) -> None:
    """How many log in at once and how long a crowd takes, by the scarcer of the two figures."""
    assert told in said(_DOOR % figures)


def test_passwords_at_the_portal_bound_log_ins_too() -> None:
    """Where Envoy serves it: people behind one address share them."""
    many = _DOOR % ", address_log_ins: 500/minute, address_pages: 1500/minute"
    served = many.replace("  introspection:", "  serve: true\n  introspection:")

    assert "30 people behind one address may log in at once, and 500 take 16 minutes" in said(
        served
    )
    assert "500 take 3 minutes" in said(served, ", address_passwords: 120/minute")


@pytest.mark.parametrize("place", ["limits", "tools: {a: {limits"])
def test_limits_by_address_are_shared(place: str) -> None:
    """Wherever one stands."""
    limits = f", {place}: [{{per: address, rate: 9/minute}}]{'}}' if 'tools' in place else ''}"

    assert "limits with per: address" in said(_DIRECT, server=limits)
    assert "limits with per: address" not in said(_DIRECT, server=limits.replace("address", "user"))


def test_a_limit_by_grant_bounds_no_person() -> None:
    """Each consent is a new count."""
    found = said(_DIRECT, server=", limits: [{per: grant, rate: 9/minute}]")

    assert "per: grant: each log-in that a person consents to counts by itself" in found
    assert "per: grant" not in said(_DIRECT, server=", limits: [{per: group, rate: 9/minute}]")


def test_persons_of_a_limit_are_named_by_their_subject() -> None:
    """Not by the name that they log in with."""
    limit = "{{per: user, rate: 60/minute, overrides: [{{{}: [ada], rate: 9/minute}}]}}"
    words = "a person is named by the `sub` of the token, not by the user name"

    assert words in said(_DIRECT, server=f", limits: [{limit.format('users')}]")
    assert words not in said(_DIRECT, server=f", limits: [{limit.format('groups')}]")


def test_who_meets_which_limit_is_told() -> None:
    """In the order in which they are looked at."""
    overrides = "[{clients: [ci, default], rate: 600/minute}, {groups: [x], rate: 9/day, burst: 2}]"
    limit = f"{{per: user, rate: [60/minute, 7/second], overrides: {overrides}}}"
    found = said(_DIRECT, server=f", limits: [{limit}]")

    assert (
        "servers.files.limits[0] (per user): clients ci or default 600/minute; groups x 9/day, 2 "
        "at once; all others 60/minute and 7/second; the first that fits holds"
    ) in found
    assert "servers.files.limits[0]: a token that names no groups meets none of those" in found


def test_limits_in_shadow_are_told() -> None:
    """Nobody takes them for limits."""
    limits = ", limits: [{per: user, rate: 9/minute, shadow: true}]"

    assert "limits with shadow: true count and refuse nothing" in said(_DIRECT, server=limits)


def test_the_command_tells_them_to_people_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A note is no problem: scripts that read JSON see none."""
    path = tmp_path / "authz.yaml"
    path.write_text(f"{_DIRECT}{_GATEWAY}}}\n{_SERVER % ''}")
    assert main(["check-config", str(path), "--no-secrets"]) == 0
    assert "note: gateway.address_calls: " in capsys.readouterr().out

    assert main(["check-config", str(path), "--no-secrets", "--json"]) == 0
    assert capsys.readouterr().out == "[]\n"


def test_what_is_not_named_beside_what_is_is_told() -> None:
    """A server that names its tools alone lets every prompt and resource pass."""
    assert (
        "servers.files: its tools are named and its prompts and resources are not, so every one "
        "of these is as good as the server"
    ) in said(_DIRECT, "", ", tools: {a: {}}")
    every = ", tools: {a: {}}, prompts: {a: {}}, resources: {'note://a': {}}"
    assert "as good as" not in said(_DIRECT, "", every)
