"""Operators at the console: the whole front door with a console, on a real Valkey."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from html import unescape
from typing import Any, Final

import httpx

from authz_demo.person import BrowserUser
from tests.login.front import GATEWAY, FrontDoorStage, john, onward
from tests.login.web.pages_kit import FROM_OUR_PAGE, forms

HOME: Final = f"{GATEWAY}/authz/admin"
CONSOLE: Final = "console: {groups: [admins, operators]}\n"  # John is of `admins`, Bob is not


def with_console(text: str) -> str:
    """Change authz.yaml so that it has a console."""
    return text + CONSOLE


@dataclass
class Operator:
    """A person at a browser."""

    stage: FrontDoorStage
    person: BrowserUser = field(default_factory=john)
    browser: httpx.AsyncClient = field(init=False)

    def __post_init__(self) -> None:
        self.browser = self.stage.browser()

    async def get(self, path: str = "") -> httpx.Response:
        return await self.browser.get(HOME + path)

    async def log_in(self) -> httpx.Response:
        """Log in, and return what comes at the end of it: the console, or why not."""
        sent = await self.click(await self.get())
        callback = await self.person.log_in(self.browser, onward(sent))
        answer = await self.browser.get(callback)
        assert answer.status_code == 303, answer.text
        return await self.browser.get(answer.headers["location"])

    async def click(
        self,
        page: httpx.Response,
        label: str = "",
        headers: Mapping[str, str] = FROM_OUR_PAGE,
        **changes: str,
    ) -> httpx.Response:
        """Send the form of a page whose button says that; the first where it is left out."""
        action, fields = next(
            found for found, text in zip(forms(page), _texts(page), strict=True) if label in text
        )
        return await self.browser.post(
            str(page.url.join(action)), data=fields | changes, headers=dict(headers)
        )

    async def follow(self, answer: httpx.Response) -> httpx.Response:
        """Follow the redirect after a form."""
        assert answer.status_code == 303, answer.text
        return await self.browser.get(answer.headers["location"])


def _texts(page: httpx.Response) -> list[str]:
    return [unescape(each) for each in re.findall(r"<form .*?</form>", page.text, re.DOTALL)]


def is_console(page: httpx.Response) -> bool:
    """Tell whether a page is one of the console's own, for an operator."""
    return page.status_code == 200 and "/authz/admin/log-out" in page.text


def change_person(stage: FrontDoorStage, subject: str, **changes: Any) -> None:
    """Change what the issuer's directory says of a person."""
    config = stage.issuer.config
    users = tuple(
        replace(user, **changes) if user.subject == subject else user for user in config.users
    )
    stage.issuer.config = replace(config, users=users)
