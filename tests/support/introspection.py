"""An issuer with an introspection endpoint, over real HTTP, that does as a test says."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qs

from tests.support.listening import listening
from tests.tokens.test_issuer import Play, Writer, metadata
from tests.tokens.token_factory import ISSUER

ASK: Final = "/api/oidc/introspection"


@dataclass
class IntrospectionSite:
    """An issuer whose introspection endpoint answers with bytes, or plays a scene.

    Any GET brings its metadata, but for the pages that are named.
    """

    page: bytes | Play
    metadata: bytes | Play
    forms: list[tuple[Mapping[str, str], Mapping[str, list[str]]]] = field(default_factory=list)
    pages: dict[str, bytes] = field(default_factory=dict)
    paths: list[str] = field(default_factory=list)
    url: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: Writer) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
            method, path, _ = head[0].split(" ")
            self.paths.append(f"{method} {path}")
            page = self.pages.get(path, self.metadata)
            if method == "POST":
                page = self.page
                body = await reader.readexactly(int(headers["content-length"]))
                self.forms.append((headers, parse_qs(body.decode(), strict_parsing=True)))
            if isinstance(page, bytes):
                writer.write(page)
                await writer.drain()
            else:
                await page(writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client went away, as it should
        finally:
            writer.close()


def named(endpoint: object = f"{ISSUER}{ASK}") -> bytes:
    return metadata(introspection_endpoint=endpoint)


@asynccontextmanager
async def site(page: bytes | Play, names: bytes | None = None) -> AsyncIterator[IntrospectionSite]:
    """Run such an issuer as long as the block does."""
    served = IntrospectionSite(page, named() if names is None else names)
    async with listening(served.serve) as port:
        served.url = f"http://127.0.0.1:{port}"
        yield served
