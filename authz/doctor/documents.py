"""Whether client id metadata documents can be fetched from here, as `authz pages` fetches them.

Clients that prefer a document (Codex does) do not fall back to registration where it cannot be had,
so a gateway without a way out to the Internet locks them out while its metadata invites them.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from authz.config.model import Config
from authz.config.problems import quoted
from authz.doctor.finding import Finding, note, ok, problem, warning
from authz.login.clients.documents import document_host, read_document
from authz.login.clients.faults import DocumentFault
from authz.login.clients.fetching import Fetcher, FetchError, SystemResolver
from authz.login.clients.lookup import DocumentError, Fetch
from authz.login.clients.redirects import RedirectRules
from authz.login.clients.registry import redirect_rules

PART: Final = "clients"
# What assistants publish for everybody. One that answers at all is enough: the way out is there.
PUBLISHED: Final = (
    "https://claude.ai/oauth/mcp-oauth-client-metadata",
    "https://chatgpt.com/oauth/client.json",
    "https://vscode.dev/oauth/client-metadata.json",
)
_NO_WAY: Final = frozenset(
    {
        DocumentFault.NO_ADDRESS,
        DocumentFault.UNREACHABLE,
        DocumentFault.LATE,
        DocumentFault.TLS,
        DocumentFault.PROTOCOL,
        DocumentFault.PRIVATE_ADDRESS,
    }
)
_WAY_OUT: Final = (
    "let `authz pages` reach names and port 443 on the Internet, or write "
    "front_door.metadata_hosts: [] so that clients register instead"
)
_TRUST: Final = "SSL_CERT_FILE, where a proxy has certificates of its own; or "


async def examine(
    config: Config, named: Sequence[str], fetch: Fetch | None = None
) -> list[Finding]:
    """Fetch documents: those that are named, else the published ones.

    Args:
        config: of a deployment.
        named: client ids that are URLs, as they were given.
        fetch: how; None for the network.
    """
    door = config.front_door
    if door is None or config.login != "front_door":
        return []
    hosts = door.metadata_hosts
    if hosts == ():
        return [note(PART, "documents_off", "metadata documents are not taken: clients register")]
    resolver = SystemResolver()
    try:
        how = fetch or Fetcher(resolver)
        if named:
            rules = redirect_rules(config, door)
            return [await _named(url, how, rules, hosts) for url in named]
        published = [
            url for url in PUBLISHED if hosts is None or (document_host(url) or "") in hosts
        ]
        return _judged(await _outcomes(published, how))
    finally:
        resolver.close()


async def _named(
    url: str, fetch: Fetch, rules: RedirectRules, hosts: Sequence[str] | None
) -> Finding:
    host = document_host(url)
    if host is None:
        return _of_no_use(url, DocumentFault.URL)
    if hosts is not None and host not in hosts:
        return _of_no_use(url, DocumentFault.HOST_NOT_TAKEN)
    try:
        client = read_document(url, host, (await fetch(url, host)).body, rules)
    except (FetchError, DocumentError) as error:
        return _of_no_use(url, error.fault, error.description)
    how = "by private_key_jwt" if client.authentication is not None else "as a public client"
    message = f"the metadata document {quoted(url)} is good; it comes {how}"
    return ok(PART, "document_good", message)


def _of_no_use(url: str, fault: DocumentFault, message: str = "") -> Finding:
    said = f"the metadata document {quoted(url)} is of no use: {message or fault.description}"
    return problem(PART, f"document_{fault.value}", said, _mend(fault))


async def _outcomes(published: Sequence[str], fetch: Fetch) -> Mapping[str, DocumentFault | None]:
    async def outcome(url: str) -> DocumentFault | None:
        try:
            await fetch(url, document_host(url) or "")
        except FetchError as error:
            return error.fault
        return None

    return dict(zip(published, await asyncio.gather(*map(outcome, published)), strict=True))


def _judged(outcomes: Mapping[str, DocumentFault | None]) -> list[Finding]:
    if not outcomes:
        message = (
            "whether documents can be fetched was not tried: none is known of the listed hosts"
        )
        return [note(PART, "documents_not_tried", message, "give one with --client-id URL")]
    faults = [fault for fault in outcomes.values() if fault in _NO_WAY]
    reached = [document_host(url) or "" for url, fault in outcomes.items() if fault not in _NO_WAY]
    if reached:
        return [ok(PART, "documents", f"metadata documents can be fetched (asked: {reached[0]})")]
    reasons = "; ".join(
        f"{document_host(url)}: {fault.description}" for url, fault in outcomes.items() if fault
    )
    message = (
        "no client's metadata document can be fetched from here, so clients that come by one "
        f"cannot log in ({reasons})"
    )
    return [warning(PART, "documents_out_of_reach", message, _mend(faults[0]))]


def _mend(fault: DocumentFault) -> str:
    if fault in _NO_WAY:
        return (_TRUST if fault is DocumentFault.TLS else "") + _WAY_OUT
    if fault is DocumentFault.HOST_NOT_TAKEN:
        return "front_door.metadata_hosts in authz.yaml"
    return "tell whoever publishes it, or name the client under clients in authz.yaml"
