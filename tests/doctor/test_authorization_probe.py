"""Clients that Authelia does not let log in, each for one reason."""

from dataclasses import replace
from typing import Any

import pytest

from authz.doctor import issuer
from authz.doctor.authorization_probe import probe_authorization
from authz.doctor.finding import Finding, Severity
from authz_demo.issuer import RegisteredClient
from tests.demo.kit import NOTES
from tests.doctor.kit import PUBLIC, against, diagnoses, problems, settings, stand_in, the

CLAUDE = "{claude: {redirect_uris: ['http://127.0.0.1/callback'], scopes: [mcp:files]}}"


def examine(*clients: RegisteredClient, known: str = CLAUDE) -> list[Finding]:
    async def look(url: str) -> list[Finding]:
        config = settings(url, clients=known).config
        return await probe_authorization(config, (await issuer.examine(config.issuer)).metadata)

    found: list[Finding] = against(stand_in(*clients), look)
    return found


def test_a_client_that_may() -> None:
    """A client registered as authz.yaml has it comes to the log-in page, for each server."""
    assert diagnoses(examine(PUBLIC)) == ["may_log_in", "may_log_in"]


@pytest.mark.parametrize(
    ("changes", "diagnosis", "line"),
    [
        pytest.param(
            {"scopes": ("mcp:files",)}, "offline_access", "refresh_token", id="offline_access"
        ),
        pytest.param({"scopes": ("offline_access",)}, "scope_not_allowed", "scopes of", id="scope"),
        pytest.param({"audience": (NOTES,)}, "resource_refused", "audience of", id="resource"),
        pytest.param(
            {"redirect_uris": ("http://127.0.0.1/other",)},
            "redirect_uri",
            "redirect_uris of",
            id="redirect",
        ),
        pytest.param({"client_id": "other"}, "unknown_client", "authelia-config", id="client"),
    ],
)
def test_one_thing_is_wrong(changes: dict[str, Any], diagnosis: str, line: str) -> None:
    """What is wrong with a registration is told, with the line of Authelia's that mends it."""
    found = examine(replace(PUBLIC, **changes))

    assert set(problems(found)) == {diagnosis}
    assert line in next(each for each in found if each.diagnosis == diagnosis).fix


def test_a_release_that_forgets_the_resource() -> None:
    """After 4.39.20 a log-in that names it begins, and gives a token for no server."""
    released = stand_in(PUBLIC, release="4.39.21")

    async def look(url: str) -> list[Finding]:
        config = settings(url, clients=CLAUDE).config
        return await probe_authorization(config, (await issuer.examine(config.issuer)).metadata)

    found = against(released, look)

    assert diagnoses(found) == ["may_log_in", "may_log_in", "resource_forgotten"]
    assert "4.39.20" in the(found, "resource_forgotten").fix


def test_localhost() -> None:
    """A client on localhost comes with another port than the registered one, and is refused."""
    uri = "http://localhost/callback"
    found = examine(
        replace(PUBLIC, redirect_uris=(uri,)),
        known=f"{{claude: {{redirect_uris: ['{uri}'], scopes: [mcp:files]}}}}",
    )

    assert set(problems(found)) == {"redirect_uri"}
    assert "localhost needs its very port" in found[0].fix


def test_a_client_without_redirect_uris_is_not_tried() -> None:
    """What authz.yaml does not know cannot be tried, and is said."""
    found = examine(PUBLIC, known="{claude: {}, night: {machine: true}}")

    assert diagnoses(found) == ["not_tried"]


def test_a_server_that_answers_nothing() -> None:
    """An authorization endpoint that is gone, or somewhere else, is no crash."""

    async def look(url: str) -> list[Finding]:
        config = settings("http://127.0.0.1:1", clients=CLAUDE).config
        gone = {"authorization_endpoint": f"{config.issuer.url}/authorize"}
        return [*await probe_authorization(config, gone), *await probe_authorization(config, {})]

    found = against(stand_in(PUBLIC), look)

    assert diagnoses(found) == ["no_answer", "no_endpoint"]


def test_so_many_are_tried_at_most() -> None:
    """However many clients and servers there are, Authelia is asked a bounded number of times."""
    names = ", ".join(f"c{n}: {{redirect_uris: ['http://127.0.0.1/callback']}}" for n in range(30))
    found = examine(*(replace(PUBLIC, client_id=f"c{n}") for n in range(30)), known=f"{{{names}}}")

    assert diagnoses(found).count("may_log_in") == 40
    assert the(found, "too_many").severity is Severity.NOTE


def test_clients_of_the_front_door_are_not_tried() -> None:
    """Authelia does not know them, and is not to: they log in at the front door."""
    known = f"{CLAUDE}\nfront_door: {{key_file: /k.pem}}"

    assert examine(PUBLIC, known=known) == []
