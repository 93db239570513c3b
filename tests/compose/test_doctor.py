"""`docker compose run --rm doctor`: the whole way, looked at from where all of it is reached."""

import json
from typing import Any

from tests.compose.deployment import ComposeDeployment

CONFIG = ("-c", "/etc/authz/authz.yaml")
# As docker-compose.yml has it; documents are on the Internet.
LINE = ("doctor", *CONFIG, "--beside-envoy", "--gateway-at", "envoy:8443", "--no-documents")


def run(deployment: ComposeDeployment, *words: str) -> Any:
    """Return what a command in that service prints as JSON; its status may be 1."""
    said = deployment.compose("run", "--rm", "-T", "doctor", *words, "--json", check=False)
    start = next(line for line in said.splitlines() if line.startswith(("[", "{")))
    document, _ = json.JSONDecoder().raw_decode(said[said.index(start) :])
    return document


def test_a_sound_deployment_has_no_problem(deployment: ComposeDeployment) -> None:
    """Each server, the gateway by its public names, Redis, the issuer and what runs."""
    found = run(deployment, *LINE)

    assert [each for each in found if each["severity"] == "problem"] == []
    seen = {(each["part"], each["diagnosis"]) for each in found}
    assert {
        ("gateway", "issuer"), ("gateway", "found"), ("running", "in_force"), ("envoy", "follows"),
        ("alerts", "can_fire"), ("certificate", "unread"),
    } <= seen  # fmt: skip
    servers = [each["words"] for each in found if each["part"] == "servers"]
    assert {"notes", "files"} <= {message.partition(":")[0] for message in servers}


def test_a_server_that_is_away_is_named(deployment: ComposeDeployment) -> None:
    """And nothing else is: it was not there yesterday that doctor could say so in compose."""
    deployment.compose("stop", "-t", "2", "files")
    try:
        found = run(deployment, *LINE)
    finally:
        deployment.compose("start", "files")
    problems = [each for each in found if each["severity"] == "problem"]

    assert {each["part"] for each in problems} == {"servers"}
    assert all("files" in each["words"] for each in problems)


def test_tools_are_those_that_the_server_lists(deployment: ComposeDeployment) -> None:
    """Asked of the server itself, which no other container of ours but Envoy reaches."""
    found = run(deployment, "tools", "notes", *CONFIG)

    assert "whoami" in {each["name"] for each in found["tools"]}
