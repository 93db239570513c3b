"""What the conformance tests need besides the deployment: servers, a token, a plain way in."""

import asyncio
import json
import re
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from authz_demo.client import LoginHandler, MemoryTokenStorage, connect, provider
from authz_demo.environment import free_port
from authz_demo.loopback import LoopbackNetwork
from authz_demo.person import FORMS, BrowserUser
from authz_demo.serving import serve
from tests.clients.clients import BUILT, HERE, NODE22
from tests.clients.environment import ORIGIN
from tests.support.service import until

SUITE: Final = HERE / "conformance/node_modules/@modelcontextprotocol/conformance/dist/index.js"
EVERYTHING: Final = BUILT / "everything-server"
CALLBACK: Final = "http://127.0.0.1:43210/callback"
_HOP_BY_HOP: Final = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length"})
_METHODS: Final = ["GET", "POST", "DELETE", "OPTIONS", "PUT"]


@contextmanager
def everything_server(*, stateless: bool) -> Iterator[int]:
    """Run the Go SDK's server for the suite; give its port."""
    port = free_port()
    flag = f"-stateless={'true' if stateless else 'false'}"
    address = f"127.0.0.1:{port}"
    process = subprocess.Popen(
        (EVERYTHING, "-http", address, flag), stderr=subprocess.DEVNULL, env={}
    )

    def answers() -> bool:
        try:
            httpx.get(f"http://{address}/", trust_env=False)
        except httpx.TransportError:
            return False
        return True

    try:
        until(answers, "the conformance server")
        yield port
    finally:
        process.kill()
        process.wait()


async def token(network: LoopbackNetwork, url: str, person: BrowserUser) -> str:
    """Log in with the official client; return its access token."""
    storage = MemoryTokenStorage(None)
    async with network.browser() as browser:
        login = LoginHandler(person, browser, FORMS)
        auth = provider(url, "conformance", CALLBACK, login, storage)
        async with connect(network, url, auth) as client:
            await client.list_tools()
    assert storage.tokens is not None
    return storage.tokens.access_token


@asynccontextmanager
async def with_token(network: LoopbackNetwork, url: str, bearer: str) -> AsyncIterator[str]:
    """Serve a server of the gateway without TLS and with a token: the suite has neither."""
    gateway = httpx.URL(url).netloc.decode("ascii")
    async with httpx.AsyncClient(verify=network.context(), trust_env=False, timeout=60) as http:
        own: set[str] = set()

        async def forward(request: Request) -> StreamingResponse:
            headers = [
                (name, value)
                for name, value in request.headers.items()
                if name not in _HOP_BY_HOP and not (name == "host" and value in own)
            ]
            # Its own origin is one that the gateway knows.
            origins = {f"http://{name}" for name in own}
            headers = [
                (name, ORIGIN if name == "origin" and value in origins else value)
                for name, value in headers
            ]
            headers += [("authorization", f"Bearer {bearer}")]
            if not any(name == "host" for name, _ in headers):
                headers += [("host", gateway)]
            sent = http.build_request(
                request.method, url, headers=headers, content=await request.body()
            )
            answer = await http.send(sent, stream=True)
            kept = {
                name: value for name, value in answer.headers.items() if name not in _HOP_BY_HOP
            }
            return StreamingResponse(answer.aiter_raw(), answer.status_code, kept)

        app = Starlette(routes=[Route("/mcp", forward, methods=_METHODS)])
        async with serve(app) as port:
            own |= {f"127.0.0.1:{port}", f"localhost:{port}"}
            yield f"http://127.0.0.1:{port}/mcp"


async def suite(*arguments: str, authority: Path | None = None, folder: Path) -> dict[str, str]:
    """Run the suite; return each check's worst status, by scenario and check."""
    env = {} if authority is None else {"NODE_EXTRA_CA_CERTS": str(authority)}
    process = await asyncio.create_subprocess_exec(
        *(str(NODE22), str(SUITE), *arguments, "-o", str(folder)),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        env=env,
        cwd=folder.parent,
    )
    await asyncio.wait_for(process.wait(), 600)
    return checks(folder)


async def authorization(
    network: LoopbackNetwork, issuer: str, resource: str, person: BrowserUser, folder: Path
) -> dict[str, str]:
    """Run the suite's scenarios of an authorization server; a person logs in where it asks."""
    port = free_port()
    redirect_uri = f"http://127.0.0.1:{port}/callback"
    asked = {
        "client_name": "conformance",
        "redirect_uris": [redirect_uri],
        "token_endpoint_auth_method": "none",
    }
    async with network.browser() as browser:
        registered = await browser.post(f"{issuer}/register", json=asked)
        arguments = ("--url", issuer, "--client-id", registered.json()["client_id"])
        process = await asyncio.create_subprocess_exec(
            *(str(NODE22), str(SUITE), "authorization", *arguments),
            *("--resource", resource, "-p", str(port), "-o", str(folder)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={"NODE_EXTRA_CA_CERTS": str(network.authority)},
            cwd=folder.parent,
        )
        assert process.stdout is not None
        async for line in process.stdout:
            if line.startswith(f"{issuer}/authorize?".encode()):
                came = await person.log_in(browser, line.decode("ascii").strip(), FORMS)
                async with httpx.AsyncClient(trust_env=False) as own:
                    await own.get(came)
        await asyncio.wait_for(process.wait(), 600)
    return checks(folder)


_TIME: Final = re.compile(r"-\d{4}-\d\d-\d\dT[\d-]+Z$")
_WORST: Final[Mapping[str, int]] = {"FAILURE": 3, "WARNING": 2, "SKIPPED": 1}


def checks(folder: Path) -> dict[str, str]:
    """Read what a run of the suite wrote."""
    found: dict[str, str] = {}
    for path in sorted(folder.glob("*/checks.json")):
        scenario = _TIME.sub("", path.parent.name)
        for check in json.loads(path.read_text("utf-8")):
            name = f"{scenario}:{check['id']}"
            status: str = check["status"]
            if _WORST.get(status, 0) >= _WORST.get(found.get(name, ""), 0):
                found[name] = status
    return found
