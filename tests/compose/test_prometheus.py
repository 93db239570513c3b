"""Prometheus in the deployment: it scrapes, documented queries have answers, alerts are rules."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.compose import caller
from tests.compose.deployment import ComposeDeployment

ROOT = Path(__file__).resolve().parents[2]
OPERATIONS = (ROOT / "docs" / "operations.md").read_text("utf-8")
QUERIES = [
    line.partition("#")[0].strip()
    for block in re.findall(r"```promql\n(.*?)```", OPERATIONS, re.DOTALL)
    for line in block.splitlines()
    if line.partition("#")[0].strip()
]


def query(deployment: ComposeDeployment, expression: str, at: float | None = None) -> list[Any]:
    """Ask Prometheus, from inside its container."""
    moment = "" if at is None else f"&time={at}"
    url = f"http://127.0.0.1:9090/api/v1/query?query={quote(expression)}{moment}"
    answer = json.loads(deployment.inside("prometheus", "wget", "-qO-", url))
    assert answer["status"] == "success"
    found: list[Any] = answer["data"]["result"]
    return found


@pytest.mark.parametrize("job", ["authz", "authz-pages"])
def test_both_of_ours_are_scraped(deployment: ComposeDeployment, job: str) -> None:
    """The target is up."""
    deployment.until(lambda: bool(query(deployment, f'up{{job="{job}"}} == 1')), "a scrape")


def test_what_is_counted_is_counted_once_over_all_workers(deployment: ComposeDeployment) -> None:
    """So many calls, so many more decisions on the one page that is scraped."""

    def decisions() -> float:
        page = deployment.inside("prometheus", "wget", "-qO-", "http://authz:9464/metrics")
        lines = re.findall(
            r"^authz_decisions_total\{.*token_missing.*\} (\S+)$", page, re.MULTILINE
        )
        return sum(map(float, lines))

    before = decisions()
    for _ in range(10):
        asyncio.run(caller.once(deployment, "notes", None))

    # The process above its workers asks them once a second.
    deployment.until(lambda: decisions() >= before + 10, "ten decisions")
    assert decisions() == before + 10


def test_there_are_queries() -> None:
    """docs/operations.md has some."""
    assert len(QUERIES) > 3


@pytest.mark.parametrize("expression", QUERIES)
def test_a_documented_query_has_an_answer(deployment: ComposeDeployment, expression: str) -> None:
    """Once somebody has called, been refused, and been counted."""
    _, token = asyncio.run(caller.log_in(deployment, "notes", "2026-07-28"))

    def answered() -> bool:
        asyncio.run(caller.once(deployment, "notes", token))
        asyncio.run(caller.once(deployment, "notes", None))
        return bool(query(deployment, expression))

    deployment.until(answered, expression)


def test_the_alerts_are_rules(deployment: ComposeDeployment) -> None:
    """Prometheus has loaded each, and none is in error."""
    url = "http://127.0.0.1:9090/api/v1/rules"
    groups = json.loads(deployment.inside("prometheus", "wget", "-qO-", url))["data"]["groups"]
    rules = {rule["name"]: rule for group in groups for rule in group["rules"]}

    assert {"AuthzDown", "AuthzCountsWithoutRedis", "AuthzDefect", "AuthzKeysOld"} <= rules.keys()
    deployment.until(lambda: _all_well(deployment), "the rules to be evaluated")


def _all_well(deployment: ComposeDeployment) -> bool:
    url = "http://127.0.0.1:9090/api/v1/rules"
    groups = json.loads(deployment.inside("prometheus", "wget", "-qO-", url))["data"]["groups"]
    return all(rule["health"] == "ok" for group in groups for rule in group["rules"])
