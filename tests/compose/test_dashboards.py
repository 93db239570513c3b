"""Every panel of every dashboard has something to show in a deployment that is used."""

import asyncio

import pytest

from authz.setup.dashboards import DASHBOARDS, Dashboard
from tests.compose import caller
from tests.compose.deployment import ComposeDeployment
from tests.compose.test_prometheus import query
from tests.setup.test_dashboards import plain


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda each: each.name)
def test_every_query_has_an_answer(deployment: ComposeDeployment, dashboard: Dashboard) -> None:
    """Once somebody has logged in, called and been refused."""
    _, token = asyncio.run(caller.log_in(deployment, "notes", "2026-07-28"))
    asked = {
        plain(each.expression): panel.title for panel in dashboard.panels for each in panel.queries
    }

    def unanswered() -> list[str]:
        asyncio.run(caller.once(deployment, "notes", token))
        asyncio.run(caller.once(deployment, "notes", None))
        return [title for expression, title in asked.items() if not query(deployment, expression)]

    deployment.until(lambda: not unanswered(), "every panel's data")
