"""Whether metadata documents can be fetched: what is so, and which line mends what is not."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest

from authz.doctor.documents import PUBLISHED, examine
from authz.doctor.finding import Finding, Severity
from authz.login.clients.faults import DocumentFault
from authz.login.clients.fetching import Fetched, FetchError
from tests.doctor.kit import settings, the

DOOR = "front_door: {{key_file: /k.pem{more}}}\n"
URL = "https://client.example.test/client.json"
GOOD = {"client_id": URL, "redirect_uris": ["https://client.example.test/cb"]}
NO_WAY = (
    DocumentFault.NO_ADDRESS,
    DocumentFault.UNREACHABLE,
    DocumentFault.LATE,
    DocumentFault.TLS,
    DocumentFault.PRIVATE_ADDRESS,
)


def look(
    *named: str,
    more: str = "",
    answer: Any = GOOD,
    rest: str | None = None,
    faults: Mapping[str, DocumentFault] | None = None,
) -> list[Finding]:
    """Look over a web that answers everybody alike; a fault, or what documents say."""
    asked: list[str] = []

    async def fetch(url: str, host: str) -> Fetched:
        asked.append(url)
        fault = (faults or {}).get(host, answer)
        if isinstance(fault, DocumentFault):
            raise FetchError(fault)
        return Fetched(json.dumps(fault).encode(), None)

    config = settings(rest=DOOR.format(more=more) if rest is None else rest).config
    found = asyncio.run(examine(config, named, fetch))
    assert len(asked) <= max(len(named), len(PUBLISHED))
    return found


def test_a_way_out_is_told() -> None:
    """One host that answers is enough, whatever it answers: the others may have moved."""
    for answer in (GOOD, DocumentFault.NOT_FOUND, DocumentFault.STATUS):
        assert the(look(answer=answer), "documents").severity is Severity.OK
    some = {"claude.ai": DocumentFault.LATE, "vscode.dev": DocumentFault.NO_ADDRESS}
    assert the(look(faults=some), "documents").severity is Severity.OK


@pytest.mark.parametrize("fault", NO_WAY)
def test_no_way_out_is_a_warning_with_its_reason(fault: DocumentFault) -> None:
    """Clients that prefer documents (Codex) do not fall back to registration."""
    found = the(look(answer=fault), "documents_out_of_reach")

    assert found.severity is Severity.WARNING
    assert fault.description in found.message
    assert "metadata_hosts: []" in found.fix
    assert ("SSL_CERT_FILE" in found.fix) == (fault is DocumentFault.TLS)


def test_only_listed_hosts_are_asked() -> None:
    """An operator's list holds for the doctor, too; an empty one is none."""
    assert the(look(more=", metadata_hosts: [claude.ai]"), "documents").message.count("claude.ai")
    none = the(look(more=", metadata_hosts: [a.example]"), "documents_not_tried")
    off = the(look(more=", metadata_hosts: []"), "documents_off")
    assert none.severity is off.severity is Severity.NOTE
    assert look(rest="") == []


@pytest.mark.parametrize("fault", list(DocumentFault))
def test_a_named_document_of_no_use_is_a_problem(fault: DocumentFault) -> None:
    """By the name of what is wrong with it."""
    found = the(look(URL, answer=fault), f"document_{fault.value}")
    assert found.severity is Severity.PROBLEM
    assert found.message.endswith(fault.description)


def test_a_named_document_is_read_as_the_pages_read_it() -> None:
    """What it says counts, and how its client authenticates is told."""
    assert "as a public client" in the(look(URL), "document_good").message
    keyed = GOOD | {
        "token_endpoint_auth_method": "private_key_jwt",
        "jwks_uri": "https://client.example.test/jwks.json",
    }
    assert "private_key_jwt" in the(look(URL, answer=keyed), "document_good").message
    wrong = the(look(URL, answer=GOOD | {"client_id": "x"}), "document_unusable")
    assert "client_id is not its own URL" in wrong.message
    for ours in ("mcp.example.test", "auth.example.test"):
        ends_here = GOOD | {"redirect_uris": [f"https://{ours}/cb"]}
        found = the(look(URL, answer=ends_here), "document_unusable")
        assert "no redirect URI is allowed here" in found.message
    assert the(look("http://x/c"), "document_url").severity is Severity.PROBLEM
    other = the(look(URL, more=", metadata_hosts: [claude.ai]"), "document_host_not_taken")
    assert "metadata_hosts" in other.fix
