"""The scenario with `login: direct`: what a gateway before Authelia does, step by step.

Log-ins and calls are made by the official MCP client; what it would hide (statuses, headers) is
asked for once more over plain HTTP. Each step requires status, header and reason.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
from mcp.shared.auth import OAuthClientInformationFull
from pydantic import AnyUrl

from authz_demo.client import LoginHandler, MemoryTokenStorage, connect, provider
from authz_demo.environment import CALLBACK, Environment
from authz_demo.loopback import LoopbackNetwork
from authz_demo.person import BrowserUser
from authz_demo.reporter import (
    Reporter,
    StepFailedError,
    WriteLine,
    expect,
    headers,
    message,
    require,
)

_LISTED: Final = 5


@dataclass(slots=True)
class Scenario:
    """The steps in one environment that runs.

    Attributes:
        environment: what runs.
        reporter: where the steps are shown.
        network: how its names are reached.
        tokens: access tokens by who holds them, as they come.
        listed: the tools that each of them was shown.
    """

    environment: Environment
    reporter: Reporter
    network: LoopbackNetwork
    http: httpx.AsyncClient
    tokens: dict[str, str] = field(default_factory=dict)
    listed: dict[str, list[str]] = field(default_factory=dict)

    # --- steps, in their order ----------------------------------------------------------------

    async def without_a_token(self) -> None:
        """Require a challenge that names the metadata."""
        answer = await self.post("notes", message("server/discover"))
        tls = answer.extensions["network_stream"].get_extra_info("ssl_object").version()
        self.reporter.note(f"  over {tls}, with an authority made on the spot")
        require(tls == "TLSv1.3", "TLS 1.3")
        expect(answer, 401, "token_missing", "www-authenticate")
        challenge = answer.headers["www-authenticate"]
        require("error=" not in challenge, "no error code where no token was sent")
        require('scope="mcp:notes"' in challenge, "the scope that the server asks for")

    async def metadata(self) -> None:
        """Require the documents of RFC 9728."""
        url = f"{self.gateway}/.well-known/oauth-protected-resource/notes"
        self.reporter.sent(f"GET {url}")
        answer = await self.http.get(url, headers={"origin": "https://anywhere.test"})
        self.reporter.answer(answer)
        expect(answer, 200, "", "access-control-allow-origin")
        document = answer.json()
        require(document["resource"] == f"{self.gateway}/notes", "the server's own URL")
        require(document["authorization_servers"] == [self.environment.place.issuer], "the issuer")

    async def log_in_with_totp(self) -> None:
        """Require that the upstream knows who calls, and has no token."""
        told = await self.call("notes", "demo", self.environment.who.john, "whoami")
        require(told["x-authz-client"] == "demo", "the client's name upstream")
        require(told["x-authz-subject"], "the person upstream")
        require(not told["authorization_arrived"], "no token upstream")
        require(not told["cookie_arrived"], "no cookie upstream")

    async def older_era(self) -> None:
        """Require the same in the era of sessions."""
        told = await self.call("files", "demo", self.environment.who.john, "whoami", mode="legacy")
        require(told["x-authz-client"] == "demo", "the client's name upstream")

    async def password_only(self) -> None:
        """Require that a password is enough where nothing more is asked."""
        told = await self.call("notes", "password-only", self.environment.who.bob, "whoami")
        require(told["x-authz-client"] == "password-only", "the client's name upstream")

    async def password_only_refused(self) -> None:
        """Require that it is not enough where a second factor is asked."""
        token = await self.log_in("files", "password-only", self.environment.who.bob)
        answer = await self.initialize("files", token)
        expect(answer, 200, "second_factor_required")
        require(
            "www-authenticate" not in answer.headers, "words, not a log-in that changes nothing"
        )

    async def tool_outside_the_scopes(self) -> None:
        """Require that the challenge names every scope."""
        answer = await self.tool("notes", "delete_note", self.tokens["demo notes"], name="welcome")
        expect(answer, 403, "insufficient_scope", "www-authenticate")
        require(
            'scope="mcp:notes mcp:notes:write"' in answer.headers["www-authenticate"],
            "both scopes in the challenge",
        )

    async def unnamed_tool(self) -> None:
        """Require that only named tools pass."""
        answer = await self.tool("notes", "write_note", self.tokens["demo notes"])
        expect(answer, 200, "tool_not_allowed")

    async def headers_unlike_the_body(self) -> None:
        """Require that headers say what the body says."""
        body = message("tools/call", {"name": "delete_note", "arguments": {}})
        mirror = headers(body, self.tokens["demo notes"]) | {"mcp-name": "whoami"}
        answer = await self.post("notes", body, mirror)
        expect(answer, 400, "header_mismatch")

    async def flood(self) -> None:
        """Require a true Retry-After."""
        token = self.tokens["demo notes"]
        for _ in range(_LISTED):
            answer = await self.tool("notes", "list_notes", token, quiet=True)
            expect(answer, 200)
        self.reporter.note(f"{_LISTED} calls were admitted")
        answer = await self.tool("notes", "list_notes", token)
        expect(answer, 200, "rate_limited", "retry-after", "ratelimit", "ratelimit-policy")
        wait = int(answer.headers["retry-after"])
        self.reporter.note(f"waiting {wait} s")
        await asyncio.sleep(wait)
        answer = await self.tool("notes", "list_notes", token)
        expect(answer, 200)

    async def forged(self) -> None:
        """Require that an altered signature is no token."""
        head, payload, signature = self.tokens["demo notes"].split(".")
        other = "A" if signature[10] != "A" else "B"
        token = f"{head}.{payload}.{signature[:10]}{other}{signature[11:]}"
        answer = await self.tool("notes", "whoami", token)
        expect(answer, 401, "token_invalid", "www-authenticate")
        require('error="invalid_token"' in answer.headers["www-authenticate"], "invalid_token")

    async def other_server(self) -> None:
        """Require that a token is for one server."""
        answer = await self.initialize("files", self.tokens["demo notes"])
        expect(answer, 401, "audience_mismatch", "www-authenticate")

    async def foreign_origin(self) -> None:
        """Require that other people's web pages may not call."""
        body = message("server/discover")
        mirror = headers(body, self.tokens["demo notes"]) | {"origin": "https://evil.test"}
        answer = await self.post("notes", body, mirror)
        expect(answer, 403, "foreign_origin")

    async def machine(self) -> None:
        """Require that a machine passes by name only."""
        token = await self.machine_token("files")
        answer = await self.initialize("files", token)
        expect(answer, 200)
        answer = await self.post(
            "notes",
            message("server/discover"),
            headers(message("server/discover"), await self.machine_token("notes")),
        )
        expect(answer, 200, "machine_not_allowed")

    async def wrong_paths(self) -> None:
        """Require that only exact paths lead anywhere."""
        for path in ("/Notes", "/notes;v=1", "/notes/../files/x", "/nobody"):
            body = message("server/discover")
            self.reporter.sent(f"POST {path}")
            answer = await self.http.post(
                f"{self.gateway}{path}", json=body, headers=headers(body, self.tokens["demo notes"])
            )
            self.reporter.received(str(answer.status_code))
            require(answer.status_code == 404, "404")  # noqa: PLR2004 - RFC 9110

    # --- how they go --------------------------------------------------------------------------

    @property
    def gateway(self) -> str:
        """Return the gateway's public URL."""
        return self.environment.place.gateway

    def storage(self, client_id: str) -> MemoryTokenStorage:
        """Return what the client knows when it begins: who it is."""
        return _storage(client_id)

    def kept(self, client_id: str, server: str, storage: MemoryTokenStorage) -> None:
        """Take notice of what a client has kept after a call."""

    def browser(self, who: BrowserUser) -> AbstractAsyncContextManager[httpx.AsyncClient]:
        """Return a browser for a person: a new one, without a session."""
        del who
        return self.network.browser()

    async def call(
        self, server: str, client_id: str, who: BrowserUser, tool: str, mode: str = "2026-07-28"
    ) -> dict[str, Any]:
        """Let the official client log in, list the tools and call one; return what it says."""
        url = f"{self.gateway}/{server}"
        storage = self.storage(client_id)
        async with AsyncExitStack() as stack:
            login = LoginHandler(
                who,
                await stack.enter_async_context(self.browser(who)),
                self.environment.issuer.portal,
            )
            auth = provider(url, client_id, CALLBACK, login, storage)
            self.reporter.sent(f"official client ({mode}) connects to {url} as {client_id}")
            client = await stack.enter_async_context(connect(self.network, url, auth, mode))
            tools = [each.name for each in (await client.list_tools()).tools]
            require(len(login.opened) == 1, "one log-in")
            self.reporter.received(f"a 401, and {who.username} logged in")
            self.reporter.received(f"tools/list: {', '.join(tools)}")
            self.listed[f"{client_id} {server}"] = tools
            require(tool in tools, f"the tool {tool}")
            result = await client.call_tool(tool, {})
            require(not result.is_error, "an answer of the tool")
            seen = dict(result.structured_content or {})
            self.reporter.received(f"tools/call {tool}: {seen}")
        if storage.tokens is not None:
            self.tokens[f"{client_id} {server}"] = storage.tokens.access_token
        self.kept(client_id, server, storage)
        return seen

    async def log_in(self, server: str, client_id: str, who: BrowserUser) -> str:
        """Let the official client log in for a server that then refuses; return the token."""
        url = f"{self.gateway}/{server}"
        storage = self.storage(client_id)
        async with self.browser(who) as browser:
            login = LoginHandler(who, browser, self.environment.issuer.portal)
            auth = provider(url, client_id, CALLBACK, login, storage)
            self.reporter.sent(f"official client (legacy) connects to {url} as {client_id}")
            admitted = False
            try:
                async with connect(self.network, url, auth, "legacy"):
                    admitted = True
            except Exception as refused:  # noqa: BLE001 - the SDK raises groups of anything
                self.reporter.received(f"the client says: {'; '.join(error_messages(refused))}")
        require(not admitted, "that the client is not let in")
        require(storage.tokens, "a token of the log-in")
        assert storage.tokens is not None
        return storage.tokens.access_token

    async def post(
        self,
        server: str,
        body: dict[str, Any],
        sent: dict[str, str] | None = None,
        *,
        quiet: bool = False,
    ) -> httpx.Response:
        """Send one message over plain HTTP and tell it."""
        if not quiet:
            token = "" if sent and "authorization" in sent else "without a token"
            words = ("POST", f"/{server}", body["method"], body["params"].get("name", ""), token)
            self.reporter.sent(" ".join(filter(None, words)))
        answer = await self.http.post(
            f"{self.gateway}/{server}", json=body, headers=headers(body) if sent is None else sent
        )
        if not quiet:
            self.reporter.answer(answer)
        return answer

    async def tool(
        self, server: str, tool: str, token: str, *, quiet: bool = False, **arguments: object
    ) -> httpx.Response:
        """Call a tool over plain HTTP."""
        body = message("tools/call", {"name": tool, "arguments": arguments})
        return await self.post(server, body, headers(body, token), quiet=quiet)

    async def initialize(self, server: str, token: str) -> httpx.Response:
        """Begin a session of the older era over plain HTTP."""
        params = {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "walk", "version": "1"},
        }
        body = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}
        sent = {
            "accept": "application/json, text/event-stream",
            "authorization": f"Bearer {token}",
        }
        return await self.post(server, body, sent)

    async def machine_token(self, server: str) -> str:
        """Get a token by client_credentials (RFC 6749, section 4.4)."""
        form = {
            "grant_type": "client_credentials",
            "scope": "mcp:files",
            "audience": f"{self.gateway}/{server}",
        }
        self.reporter.sent(
            f"POST {self.environment.place.issuer}/api/oidc/token client_credentials"
        )
        answer = await self.http.post(
            f"{self.environment.place.issuer}/api/oidc/token",
            data=form,
            auth=("nightly-backup", self.environment.machine_secret),
        )
        require(answer.status_code == 200, "a token for the machine")  # noqa: PLR2004 - RFC 9110
        token: str = answer.json()["access_token"]
        return token


Step = tuple[str, Callable[[Any], Awaitable[None]]]
_STEPS: Final[tuple[Step, ...]] = (
    ("Ask without a token: a challenge that names the metadata", Scenario.without_a_token),
    ("Read the metadata of the server: who to log in at", Scenario.metadata),
    (
        "Log in with password and TOTP: the official client, 2026-07-28, lists tools and calls one",
        Scenario.log_in_with_totp,
    ),
    (
        "The same with sessions (2025-11-25), at a server that asks for a second factor",
        Scenario.older_era,
    ),
    ("Somebody who typed only a password: admitted where none is asked …", Scenario.password_only),
    (
        "… and refused where a second factor is asked: the token looks like any other",
        Scenario.password_only_refused,
    ),
    (
        "A tool that needs another scope: 403 with every scope of the operation",
        Scenario.tool_outside_the_scopes,
    ),
    ("A tool that authz.yaml does not name: refused, whatever the scopes", Scenario.unnamed_tool),
    ("Headers that name another tool than the body: refused", Scenario.headers_unlike_the_body),
    ("A forged token: 401", Scenario.forged),
    ("A good token at another server: 401", Scenario.other_server),
    ("A web page of somebody else: 403", Scenario.foreign_origin),
    (
        "A machine with a token of its own: admitted where it is named, refused elsewhere",
        Scenario.machine,
    ),
    ("Paths that only resemble a server: 404", Scenario.wrong_paths),
    ("A flood: told with Retry-After, and admitted after waiting that long", Scenario.flood),
)


async def run_scenario(environment: Environment, say: WriteLine) -> list[str]:
    """Run all steps in an environment that runs; return the names of those that failed."""
    reporter, network = Reporter(say), network_of(environment)
    async with network.browser() as http:
        return await run_steps(Scenario(environment, reporter, network, http), _STEPS)


def network_of(environment: Environment) -> LoopbackNetwork:
    """Return how the names of an environment are reached."""
    ports = {
        f"{name}.{environment.place.domain}": environment.place.port for name in ("mcp", "auth")
    }
    return LoopbackNetwork(ports, environment.certificates.authority)


async def run_steps(begin_scenario: Scenario, steps: Sequence[Step]) -> list[str]:
    """Run every step, also after one that failed; return the names of those that did."""
    reporter = begin_scenario.reporter
    for title, step in steps:
        reporter.begin_step(title)
        try:
            await step(begin_scenario)
        except Exception as error:  # noqa: BLE001 - the SDK raises groups of anything
            reporter.fail(title, "; ".join(error_messages(error)))
        else:
            reporter.passed()
    return reporter.failed


def _storage(client_id: str) -> MemoryTokenStorage:
    known = OAuthClientInformationFull(
        client_id=client_id,
        redirect_uris=[AnyUrl(CALLBACK)],
        token_endpoint_auth_method="none",  # noqa: S106 - a method
    )
    return MemoryTokenStorage(known)


def error_messages(error: BaseException) -> list[str]:
    """Return the words of an exception, or of all in a group."""
    if isinstance(error, BaseExceptionGroup):
        return [words for each in error.exceptions for words in error_messages(each)]
    return [
        str(error) if isinstance(error, StepFailedError) else f"{type(error).__name__}: {error}"
    ]
