"""What the doctor's tests share: settings in a line, the stand-in issuer, answers made by hand."""

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from typing import Any

from authz.config.load import Settings, read
from authz.doctor.finding import Finding, Severity
from authz_demo.issuer import RegisteredClient, StandInIssuer, create_app
from authz_demo.issuer.keys import StandInKeys
from authz_demo.issuer.values import Release
from authz_demo.serving import ANYWHERE, serve
from tests.demo.kit import FILES, ISSUER, NOTES, DemoClock, config

KEYS = StandInKeys.generate()
SERVERS = """\
  files: {upstream: 'http://files:8000/mcp', scopes: [mcp:files]}
  notes: {upstream: 'http://notes:8000/mcp'}
"""


def settings(
    internal: str = "http://127.0.0.1:1",
    *,
    issuer: str = "",
    url: str = ISSUER,
    clients: str = "{}",
    servers: str = SERVERS,
    rest: str = "",
) -> Settings:
    """Read an authz.yaml."""
    text = (
        f"issuer: {{url: {url}, internal: '{internal}'{issuer}}}\n"
        "gateway: {url: https://mcp.example.test, listen: '127.0.0.1:0'}\n"
        f"clients: {clients}\nservers:\n{servers}{rest}"
    )
    return read(text, "authz.yaml", {}, secrets=False)


def diagnoses(findings: Iterable[Finding], *severities: Severity) -> list[str]:
    """Return the names of findings, of these severities only where some are given."""
    return [each.diagnosis for each in findings if not severities or each.severity in severities]


def problems(findings: Iterable[Finding]) -> list[str]:
    """Return the names of problems."""
    return diagnoses(findings, Severity.PROBLEM)


def the(findings: Iterable[Finding], diagnosis: str) -> Finding:
    """Return the one finding of that name."""
    (found,) = (each for each in findings if each.diagnosis == diagnosis)
    return found


PUBLIC = RegisteredClient(
    "claude",
    redirect_uris=("http://127.0.0.1/callback",),
    scopes=("offline_access", "mcp:files"),
    audience=(FILES, NOTES),
    access_token="RS256",
)


def stand_in(*clients: RegisteredClient, release: Release = "4.39.20") -> Any:
    """Return the stand-in's application, with its own clients or with these."""
    known = replace(config(DemoClock()), release=release)
    return create_app(StandInIssuer(replace(known, clients=clients) if clients else known, KEYS))


def answering(*answers: tuple[int, bytes], **headers: str) -> Any:
    """Return an application that answers one after the other, the last one for ever."""
    left = list(answers)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        status, body = left.pop(0) if len(left) > 1 else left[0]
        fields = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": fields})
        await send({"type": "http.response.body", "body": body})

    return app


def saying(**metadata: object) -> tuple[int, bytes]:
    """Return an answer that is a metadata document."""
    whole = {
        "issuer": ISSUER,
        "jwks_uri": f"{ISSUER}/jwks.json",
        "code_challenge_methods_supported": ["S256"],
    }
    return 200, json.dumps(whole | metadata).encode()


def against(app: Any, look: Callable[[str], Coroutine[Any, Any, Any]]) -> Any:
    """Serve an application and look at it; what is looked at is its URL."""

    async def both() -> Any:
        async with serve(app, ANYWHERE) as port:
            return await look(f"http://127.0.0.1:{port}")

    return asyncio.run(both())
