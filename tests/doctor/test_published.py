"""What clients are told through the gateway, one thing wrong at a time, over real TLS."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from authz.config.load import Settings, read
from authz.config.server_metadata import server_metadata
from authz.doctor import published
from authz.doctor.finding import Finding, Severity
from authz.setup.certificates import CertificateFiles, write_certificates
from authz_demo.serving import Address, ServingCertificate, bind, serve
from tests.doctor.kit import diagnoses, problems, the

PRM = "/.well-known/oauth-protected-resource/files"
ASM = "/.well-known/oauth-authorization-server"
TEXT = """\
issuer: {{url: https://auth.example.test}}
front_door: {{key_file: /nowhere.pem}}
redis: {{url: redis://redis:6379/0}}
gateway: {{url: 'https://127.0.0.1:{port}'}}
servers: {{files: {{upstream: 'http://files:8000/mcp'}}}}
"""

Change = Callable[[dict[str, Any], str], None]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> CertificateFiles:
    return write_certificates(tmp_path_factory.mktemp("tls"), ["127.0.0.1"])


def right(settings: Settings) -> dict[str, Any]:
    """Answers by path: status, headers and body, as the gateway's own are."""
    gateway = settings.config.gateway.url
    server = settings.policy.servers["files"]
    resource = {"resource": server.resource, "authorization_servers": [gateway]}
    cors = {"access-control-allow-origin": "*", "content-type": "application/json"}
    challenge = {"www-authenticate": f'Bearer resource_metadata="{server.metadata_url}"'}
    return {
        PRM: (200, dict(cors), resource),
        ASM: (200, dict(cors), server_metadata(settings.config)),
        "/files": (401, challenge, {}),
    }


def answer(found: dict[str, Any]) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        status, headers, body = found.get(scope["path"], (404, {}, {}))
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        fields = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": fields})
        await send({"type": "http.response.body", "body": data})

    return app


def look(files: CertificateFiles, change: Change | None = None, *, trusted: bool = True) -> Any:
    async def both() -> list[Finding]:
        found: dict[str, Any] = {}
        tls = ServingCertificate(files.certificate, files.key)
        async with serve(answer(found), Address(), tls) as port:
            settings = read(TEXT.format(port=port), "authz.yaml", {}, secrets=False)
            found |= right(settings)
            if change is not None:
                change(found, settings.config.gateway.url)
            return await published.examine(settings, files.authority if trusted else None)

    return asyncio.run(both())


def test_a_gateway_is_asked_under_its_name_where_it_is_reached(tmp_path: Path) -> None:
    """At another address and port: Host, SNI and the certificate's name are those of its URL."""
    named = write_certificates(tmp_path, ["mcp.example.test"])
    url = "https://mcp.example.test"

    async def both(answers_for: str) -> list[Finding]:
        found: dict[str, Any] = {}
        tls = ServingCertificate(named.certificate, named.key)
        async with serve(answer(found), Address(), tls) as port:
            text = TEXT.replace("https://127.0.0.1:{port}", answers_for).format()
            settings = read(text, "authz.yaml", {}, secrets=False)
            found |= right(settings)
            return await published.examine(settings, named.authority, ("127.0.0.1", port))

    assert diagnoses(asyncio.run(both(url))) == ["issuer", "found"]
    assert problems(asyncio.run(both("https://other.example.test"))) == ["other_name"]


def test_a_sound_gateway_has_no_findings_but_good_ones(files: CertificateFiles) -> None:
    """Documents and challenge, to the letter."""
    assert diagnoses(look(files)) == ["issuer", "found"]


def said(path: str, **members: object) -> Change:
    def change(found: dict[str, Any], _: str) -> None:
        found[path][2].update(members)

    return change


def with_status(path: str, status: int, **headers: str) -> Change:
    def change(found: dict[str, Any], _: str) -> None:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        found[path] = (status, {**found[path][1], **fields}, found[path][2])

    return change


def without_cors(found: dict[str, Any], _: str) -> None:
    del found[PRM][1]["access-control-allow-origin"]


def a_page(found: dict[str, Any], _: str) -> None:
    found[PRM] = (200, {"content-type": "text/html"}, b"<h1>Welcome\x1b[2J</h1>")


@pytest.mark.parametrize(
    ("change", "diagnosis", "told"),
    [
        pytest.param(
            said(ASM, issuer="https://mcp.example.test"), "other_issuer", "gateway.url", id="issuer"
        ),
        pytest.param(
            said(PRM, resource="https://127.0.0.1/files"), "other_resource", "resource", id="port"
        ),
        pytest.param(
            said(PRM, authorization_servers=["https://auth.example.test"]),
            "other_authorization_server",
            "render",
            id="another authorization server",
        ),
        pytest.param(without_cors, "no_cors", "render", id="no CORS"),
        pytest.param(a_page, "no_json", "as they are", id="a page"),
        pytest.param(with_status(PRM, 404), "no_document", "render", id="404"),
        pytest.param(with_status(PRM, 429), "no_document", "as they are", id="429"),
        pytest.param(
            with_status(PRM, 301, location="https://elsewhere/\u202e"),
            "redirect",
            "as they are",
            id="a redirect",
        ),
        pytest.param(with_status("/files", 200), "open", "Envoy", id="open"),
        pytest.param(with_status("/files", 503), "no_authz", "authz serve", id="503"),
        pytest.param(with_status("/files", 404), "no_challenge", "render", id="no route"),
        pytest.param(
            with_status("/files", 401, www_authenticate="Basic"), "no_challenge", "", id="Basic"
        ),
    ],
)
def test_each_fault_is_one_problem(
    files: CertificateFiles, change: Change, diagnosis: str, told: str
) -> None:
    """Named with the line that mends it; nothing of an answer acts on a terminal."""
    found = look(files, change)
    assert problems(found) == [diagnosis]
    assert told in the(found, diagnosis).fix
    assert all(str(each).replace("\n", "").isprintable() for each in found)


def test_an_authority_that_is_not_trusted_here(files: CertificateFiles) -> None:
    """A warning: clients may trust it, and the fix says that they have to."""
    (found,) = look(files, trusted=False)
    assert (found.diagnosis, found.severity) == ("untrusted", Severity.WARNING)
    assert "clients need the authority" in found.fix


def test_nobody_there_and_plain_http() -> None:
    """The port that nothing listens at; what speaks http where the URL says https."""

    async def plain() -> list[Finding]:
        async with serve(answer({})) as port:
            return await published.examine(
                read(TEXT.format(port=port), "authz.yaml", {}, secrets=False)
            )

    assert problems(asyncio.run(plain())) == ["no_tls"]
    with bind(Address()) as bound:  # bound, and not listening
        port = bound.getsockname()[1]
        settings = read(TEXT.format(port=port), "authz.yaml", {}, secrets=False)
        assert diagnoses(asyncio.run(published.examine(settings))) == ["refused"]


def test_a_file_that_is_no_authority(tmp_path: Path) -> None:
    """It is told, and nothing is asked unverified."""
    (tmp_path / "ca.crt").write_text("no PEM")
    settings = read(TEXT.format(port=1), "authz.yaml", {}, secrets=False)
    assert problems(asyncio.run(published.examine(settings, tmp_path / "ca.crt"))) == [
        "authorities"
    ]
