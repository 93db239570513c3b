"""A web interface behind the log-in, in containers: Prometheus, as docs/pages.md puts it there."""

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx
import pytest

from authz_demo.loopback import LoopbackTransport
from tests.compose.deployment import PAGES, ComposeDeployment, plan
from tests.compose.engine import Engine

_SERVICES: Final = ("envoy", "authz", "authz-pages", "authelia", "redis", "prometheus")
_DOCS: Final = Path(__file__).parents[2] / "docs/pages.md"
_HTML: Final = {"accept": "text/html", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
_QUERY: Final = "/api/v1/query?query=up"


def blocks() -> tuple[str, str]:
    """Return what docs/pages.md adds to authz.yaml and to Compose's files."""
    text = _DOCS.read_text()
    section = text[text.index("## In a folder of `authz init`") :]
    first, second = re.findall(r"```yaml\n(.*?)```", section, re.DOTALL)[:2]
    return first.replace("ops.example.com", PAGES), second


@pytest.fixture(scope="module")
def pages(
    docker: Engine, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[ComposeDeployment]:
    """A deployment whose Prometheus has been put behind the log-in, running."""
    folder = tmp_path_factory.mktemp("pages") / "deploy"
    made = plan(docker, folder, name="-pages")
    made.write()
    of_authz, of_compose = blocks()
    with (folder / "authz/authz.yaml").open("a") as file:
        file.write(f"\n{of_authz}")
    (folder / "docker-compose.override.yml").write_text(of_compose)
    made.render()
    renew = (sys.executable, "-m", "authz", "certificate", str(folder), "--renew")
    done = subprocess.run(renew, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    try:
        made.compose("up", "-d", "envoy", "prometheus", timeout=400)
        made.until_healthy(*_SERVICES)
        yield made
    finally:
        if request.session.testsfailed:
            (folder.parent / "logs").write_text(made.compose("logs", check=False))
        made.compose("down", "-v", "-t", "0")


def test_prometheus_is_open_to_whoever_has_logged_in(pages: ComposeDeployment) -> None:
    """Without a session a program gets 401 and a browser is sent to the log-in; with one, by
    password and TOTP, page and queries work; after a revocation nothing does.
    """
    url = f"https://{PAGES}:{pages.port}"

    async def game() -> None:
        async with pages.network.browser() as browser:
            assert (await browser.get(url + _QUERY)).status_code == httpx.codes.UNAUTHORIZED
            sent = await browser.get(url, headers=_HTML, follow_redirects=False)
            assert sent.headers["location"].startswith(f"{pages.gateway}/authz/page?ticket=")

            browser.headers.update(_HTML)
            # Not its own page: Debian's Prometheus comes without the files of that.
            page = await pages.person.visit(browser, f"{url}/-/healthy")
            assert page.status_code == httpx.codes.OK
            assert "Prometheus" in page.text
            answer = await browser.get(url + _QUERY)
            assert answer.status_code == httpx.codes.OK
            assert answer.json()["status"] == "success"

            revoke = ("revoke", "--user", pages.person.username, "-c", "/etc/authz/authz.yaml")
            pages.inside("authz", "/opt/authz/bin/authz", *revoke)
            ended = await browser.get(url + _QUERY, follow_redirects=False)
            assert ended.status_code != httpx.codes.OK

    asyncio.run(game())


def test_the_gateways_name_does_not_lead_to_it(pages: ComposeDeployment) -> None:
    """Nor does its own name to the MCP servers."""

    async def asked(host: str, path: str) -> int:
        transport = LoopbackTransport(pages.network)
        async with httpx.AsyncClient(transport=transport, trust_env=False, timeout=30) as http:
            return (await http.get(f"https://{host}:{pages.port}{path}")).status_code

    gateway = pages.gateway.removeprefix("https://").partition(":")[0]
    assert asyncio.run(asked(gateway, _QUERY)) == httpx.codes.NOT_FOUND
    assert asyncio.run(asked(PAGES, "/notes")) == httpx.codes.UNAUTHORIZED
