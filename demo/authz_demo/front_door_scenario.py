"""The scenario with the front door: a client that knows a URL, and nothing else.

Most steps are those of `scenario`. A person keeps one browser, so that Authelia's session is there
when a step-up begins.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
from mcp_types import ElicitRequestURLParams, ElicitResult

from authz_demo.client import LoginHandler, MemoryTokenStorage, connect, provider
from authz_demo.environment import CALLBACK, Environment
from authz_demo.login_drivers import press
from authz_demo.person import BrowserUser
from authz_demo.reporter import Reporter, WriteLine, expect, refusal_of, require
from authz_demo.scenario import Scenario, Step, error_messages, network_of, run_steps

_NAME: Final = "dynamic/loopback"  # what rules and limits call a program that registered itself
_CLIENT: Final = "demo"
_TOOL: Final = "delete_note"
# No rule names it, and `authz tools` says so.
_UNNAMED: Final = "write_note"
_NOT_OFFERED: Final = "not offered"
# In the demonstration a log-in is not enough to delete something: its person is asked each time.
_LOG_IN_IS_ENOUGH: Final = "second_factor: {method: totp, max_login_age: 1m}"
_ASKED_ANEW: Final = "second_factor: {method: totp, max_login_age: 1m, evidence: [step_up]}"
# And each note is read only where its person approves that very call.
_APPROVED: Final = "read_note"
_READING: Final = "      read_*: {}\n"
_READING_APPROVED: Final = f"{_READING}      {_APPROVED}: {{approve: each_call}}\n"


def require_step_up(text: str) -> str:
    """Change the rules for deleting and reading: a step-up, or an approval, each time."""
    if _LOG_IN_IS_ENOUGH not in text or _READING not in text:
        raise ValueError("the environment's rules are others")
    return text.replace(_LOG_IN_IS_ENOUGH, _ASKED_ANEW).replace(_READING, _READING_APPROVED)


@dataclass(slots=True)
class FrontDoorScenario(Scenario):
    """The steps of the scenario with a front door.

    Attributes:
        browsers: of the people, by name.
        clients: what each client has kept, by itself and its server.
    """

    browsers: dict[str, httpx.AsyncClient] = field(default_factory=dict)
    clients: dict[str, MemoryTokenStorage] = field(default_factory=dict)

    # --- steps ----------------------------------------------------------------------------------

    async def front_door_metadata(self) -> None:
        """Require that the gateway itself is where to log in, and that anybody may ask there."""
        document = await self._document("/.well-known/oauth-protected-resource/notes")
        require(document["resource"] == f"{self.gateway}/notes", "the server's own URL")
        require(document["authorization_servers"] == [self.gateway], "the gateway as issuer")
        document = await self._document("/.well-known/oauth-authorization-server")
        require(document["issuer"] == self.gateway, "the very same issuer")
        require(document["code_challenge_methods_supported"] == ["S256"], "PKCE")
        require("registration_endpoint" in document, "a place to register")

    async def by_url_alone(self) -> None:
        """Require that a client without any registration gets through, and who it is upstream."""
        seen = await self.call("notes", _CLIENT, self.environment.who.john, "whoami")
        require(seen["x-authz-client"] == _NAME, "the client's name upstream")
        require(seen["x-authz-subject"], "the person upstream")
        require(not seen["authorization_arrived"], "no token upstream")
        require(not seen["cookie_arrived"], "no cookie upstream")

    async def with_sessions(self) -> None:
        """Require the same in the era of sessions, where TOTP is asked for."""
        seen = await self.call("files", _CLIENT, self.environment.who.john, "whoami", mode="legacy")
        require(seen["x-authz-client"] == _NAME, "the client's name upstream")

    async def password_is_enough(self) -> None:
        """Require that a password is enough where nothing more is asked."""
        seen = await self.call("board", _CLIENT, self.environment.who.bob, "whoami")
        require(seen["x-authz-subject"], "the person upstream")

    async def password_is_not_enough(self) -> None:
        """Require that no token comes of a password where TOTP is asked for."""
        url = f"{self.gateway}/files"
        async with self.browser(self.environment.who.bob) as browser:
            login = LoginHandler(self.environment.who.bob, browser, self.environment.issuer.portal)
            storage = MemoryTokenStorage(None)
            auth = provider(url, _CLIENT, CALLBACK, login, storage)
            self.reporter.sent(f"official client (legacy) connects to {url}")
            try:
                async with connect(self.network, url, auth, "legacy"):
                    pass
            except Exception as refused:  # noqa: BLE001 - the SDK raises groups of anything
                self.reporter.received(f"bob got no further: {'; '.join(error_messages(refused))}")
        require(storage.tokens is None, "no token")

    async def lists(self) -> None:
        """Require that a client was shown what it may use, and that `authz tools` says why."""
        shown = self.listed[f"{_CLIENT} notes"]
        self.reporter.note(f"  the list that it was sent: {', '.join(shown)}")
        self.reporter.sent("the operator runs: authz tools notes")
        words = ("-P", "-m", "authz", "tools", "notes", str(self.environment.configuration))
        command = await asyncio.create_subprocess_exec(
            sys.executable, *words, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await command.communicate()
        require(command.returncode == 0, "the table of all tools")
        lines = output.decode().splitlines()
        for line in lines:
            self.reporter.note(f"  {line}")
        offered = {line.split()[0]: _NOT_OFFERED not in line for line in lines[1:]}
        require(not offered[_UNNAMED], f"{_UNNAMED} under no rule")
        require(
            shown == [name for name, is_offered in offered.items() if is_offered],
            "each tool that is offered, in the server's order, and no other",
        )
        require(_TOOL in shown, "a tool that waits for a step-up")

    async def approval(self) -> None:
        """Require that a person sees a call, and that it passes as it was shown, once."""
        john, token = self.environment.who.john, self.tokens[f"{_CLIENT} notes"]
        answer = await self.tool("notes", _APPROVED, token, name="welcome")
        expect(answer, 200, "approval_required")
        link = str(refusal_of(answer)[1]["approval_url"])
        require("welcome" not in link, "a link without the arguments")
        async with self.browser(john) as browser:
            page = await john.visit(browser, link, self.environment.issuer.portal)
            require("&#34;welcome&#34;" in page.text, "a page that shows the arguments")
            done = await press(browser, page, "approve")
        require(done.status_code == httpx.codes.OK, "the page that says it is approved")
        self.reporter.sent("john opens the link, logs in, reads the call, and approves it")
        other = await self.tool("notes", _APPROVED, token, name="diary")
        expect(other, 200, "approval_required")
        expect(await self.tool("notes", _APPROVED, token, name="welcome"), 200)
        expect(await self.tool("notes", _APPROVED, token, name="welcome"), 200, "approval_required")

    async def step_up(self) -> None:
        """Require that an agent hands the link to its person, and the call then goes through."""
        url, john = f"{self.gateway}/notes", self.environment.who.john
        shown: list[str] = []
        async with AsyncExitStack() as stack:
            browser = await stack.enter_async_context(self.browser(john))

            async def asked(context: Any, params: Any) -> ElicitResult:
                del context
                require(isinstance(params, ElicitRequestURLParams), "a link")
                shown.append(params.message)
                self.reporter.received(f"a link for its person: {params.message}")
                page = await john.visit(browser, params.url, self.environment.issuer.portal)
                require(page.status_code == httpx.codes.OK, "the page that says it is done")
                self.reporter.sent("john opens it, reads what it is for, and clicks")
                return ElicitResult(action="accept")

            login = LoginHandler(john, browser, self.environment.issuer.portal)
            auth = provider(url, _CLIENT, CALLBACK, login, self.clients[f"{_CLIENT} notes"])
            client = await stack.enter_async_context(
                connect(self.network, url, auth, "2026-07-28", asked=asked)
            )
            self.reporter.sent(f"official client calls {_TOOL}")
            result = await client.call_tool(_TOOL, {"name": "welcome"})
            require(not result.is_error, "an answer of the tool")
            self.reporter.received(f"tools/call {_TOOL}: {result.structured_content}")
        require(len(shown) == 1, "one link")
        require(not login.opened, "no second log-in")

    async def step_up_of_another(self) -> None:
        """Require that one client's step-up helps no other, and that words carry the link too."""
        await self.call("notes", "another program", self.environment.who.john, "whoami")
        token = self.tokens["another program notes"]
        answer = await self.tool("notes", _TOOL, token, name="welcome")
        expect(answer, 200, "second_factor_required")
        link = str(refusal_of(answer)[1]["step_up_url"])
        require(link.startswith(f"{self.gateway}/authz/step-up?ticket="), "a link of the gateway")

    async def take_back(self) -> None:
        """Require that a client can end its own log-in (RFC 7009), from the next request on."""
        storage = self.clients["another program notes"]
        require(storage.client_info is not None and storage.tokens is not None, "a client")
        assert storage.client_info is not None
        assert storage.tokens is not None
        form = {"token": storage.tokens.refresh_token, "client_id": storage.client_info.client_id}
        self.reporter.sent(f"POST {self.gateway}/revoke with the refresh token")
        answer = await self.http.post(f"{self.gateway}/revoke", data=form)
        self.reporter.received(str(answer.status_code))
        require(answer.status_code == httpx.codes.OK, "200")
        token = self.tokens["another program notes"]
        expect(await self.tool("notes", "whoami", token), 401, "token_revoked", "www-authenticate")

    # --- how they go ----------------------------------------------------------------------------

    def storage(self, client_id: str) -> MemoryTokenStorage:
        """Return nothing: the client has to register itself."""
        del client_id
        return MemoryTokenStorage(None)

    def kept(self, client_id: str, server: str, storage: MemoryTokenStorage) -> None:
        """Keep the client for later steps."""
        self.clients[f"{client_id} {server}"] = storage

    @asynccontextmanager
    async def browser(self, who: BrowserUser) -> AsyncIterator[httpx.AsyncClient]:
        """Yield the person's one browser."""
        if who.username not in self.browsers:
            self.browsers[who.username] = self.network.browser()
        yield self.browsers[who.username]

    async def aclose(self) -> None:
        """Close the browsers."""
        for browser in self.browsers.values():
            await browser.aclose()

    async def _document(self, path: str) -> dict[str, Any]:
        self.reporter.sent(f"GET {self.gateway}{path}")
        headers = {"origin": "https://anywhere.test"}
        answer = await self.http.get(f"{self.gateway}{path}", headers=headers)
        self.reporter.answer(answer)
        expect(answer, 200, "", "access-control-allow-origin")
        document: dict[str, Any] = answer.json()
        return document


_STEPS: Final[tuple[Step, ...]] = (
    ("Ask without a token: a challenge that names the metadata", FrontDoorScenario.without_a_token),
    ("Read the metadata: the gateway itself logs people in", FrontDoorScenario.front_door_metadata),
    (
        "A client that knows a URL alone: it registers, john agrees and types password and TOTP",
        FrontDoorScenario.by_url_alone,
    ),
    (
        "What it was shown there: the tools that it may use; `authz tools` has the others too",
        FrontDoorScenario.lists,
    ),
    (
        "The same with sessions (2025-11-25), at a server that asks for TOTP",
        FrontDoorScenario.with_sessions,
    ),
    (
        "Somebody who has only a password: admitted where none asks for more …",
        FrontDoorScenario.password_is_enough,
    ),
    (
        "… and stopped at the log-in where TOTP is asked for",
        FrontDoorScenario.password_is_not_enough,
    ),
    (
        "Read a note: john is shown the very call and approves it; it passes once, and no other",
        FrontDoorScenario.approval,
    ),
    (
        "Delete something: refused with a link, john follows it, and the same call goes through",
        FrontDoorScenario.step_up,
    ),
    (
        "Another program on the same machine: john's step-up is not its own; told in words",
        FrontDoorScenario.step_up_of_another,
    ),
    ("It ends its own log-in: its token is refused from then on", FrontDoorScenario.take_back),
    (
        "A tool that authz.yaml does not name: refused, whatever the scopes",
        FrontDoorScenario.unnamed_tool,
    ),
    (
        "Headers that name another tool than the body: refused",
        FrontDoorScenario.headers_unlike_the_body,
    ),
    ("A forged token: 401", FrontDoorScenario.forged),
    ("A good token at another server: 401", FrontDoorScenario.other_server),
    ("A web page of somebody else: 403", FrontDoorScenario.foreign_origin),
    (
        "A machine with a token of its own: admitted where it is named, refused elsewhere",
        FrontDoorScenario.machine,
    ),
    ("Paths that only resemble a server: 404", FrontDoorScenario.wrong_paths),
    (
        "A flood: told with Retry-After, and admitted after waiting that long",
        FrontDoorScenario.flood,
    ),
)


async def run_front_door_scenario(environment: Environment, say: WriteLine) -> list[str]:
    """Run all steps in an environment that runs; return the names of those that failed."""
    network = network_of(environment)
    async with network.browser() as http:
        begin_scenario = FrontDoorScenario(environment, Reporter(say), network, http)
        try:
            return await run_steps(begin_scenario, _STEPS)
        finally:
            await begin_scenario.aclose()
