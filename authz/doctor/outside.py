"""What a hosted assistant sees of a server's URL: name, TLS, challenge, documents, CORS, redirect.

It needs no authz.yaml, so that it runs on any machine outside: what matters is from where.
"""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit

from authz.config.problems import quoted
from authz.core.strict_json import StrictJsonError, loads
from authz.doctor.finding import Finding, note, ok, problem, warning
from authz.doctor.outside_http import (
    Handshake,
    OutsideAnswer,
    OutsideClient,
    OutsideError,
    OutsideFault,
    OutsideUrl,
    is_ipv6,
    read_url,
)

PART: Final = "outside"
_HTTPS: Final = 443
_UNAUTHORIZED: Final = 401
_NOT_FOUND: Final = 404
_OK: Final = 200
_NO_CONTENT: Final = 204
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_SOON: Final = 14 * 86_400.0  # seconds
_SERVERS: Final = 2  # authorization servers that are looked at
_INITIALIZE: Final = (
    b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25",'
    b'"capabilities":{},"clientInfo":{"name":"authz-doctor","version":"1"}}}'
)
_ASKS: Final = {
    "Content-Type": "application/json",
    "Accept": "application/json, text/event-stream",
}
_ORIGIN: Final = "https://assistant.example"
_METADATA: Final = re.compile(r'resource_metadata="([^"\\]{1,2048})"')
# X509_V_ERR_… of OpenSSL's verify(1).
_NO_ISSUER: Final = frozenset({20, 21})
_SELF_SIGNED: Final = frozenset({18, 19})
_EXPIRED: Final = frozenset({9, 10})
_WRONG_NAME: Final = frozenset({62, 63, 64})
_ELSEWHERE: Final = (
    "run `authz doctor --outside URL` on another network (it needs no authz.yaml); here "
    "`--private` looks all the same"
)


async def examine(
    text: str, client: OutsideClient, clock: Callable[[], float] = time.time
) -> list[Finding]:
    """Return what an assistant on the Internet sees of an MCP server's URL."""
    try:
        url = read_url(text)
        if url.scheme != "https":
            raise OutsideError(OutsideFault.BAD_URL)  # noqa: TRY301 - as any other
    except OutsideError:
        fix = "give the server's public URL: https://HOST/SERVER"
        return [problem(PART, "url", f"{quoted(text)} is no https URL", fix)]
    findings = _port(url)
    try:
        addresses = await client.addresses(url.host)
    except OutsideError as error:
        return [*findings, _no_address(url, error.fault)]
    reached, seen = await _tls(url, addresses, client, clock())
    findings += seen
    if reached:
        findings += await _challenge(url, client)
    findings += await _redirect(url, client)
    where = "this is what is seen from this machine, and only from it"
    return [*findings, note(PART, "where", where, "run it on another network as well")]


def _port(url: OutsideUrl) -> list[Finding]:
    if url.port == _HTTPS:
        return []
    message = f"the port is {url.port}: hosted assistants often reach 443 alone"
    return [warning(PART, "port", message, "gateway.url without a port, and 443 forwarded to it")]


def _no_address(url: OutsideUrl, fault: OutsideFault) -> Finding:
    host = quoted(url.host)
    if fault is OutsideFault.PRIVATE:
        message = (
            f"{host} is a private address from here: no hosted assistant could reach it, or this "
            "network answers for the name itself (split DNS)"
        )
        return problem(PART, "private_address", message, _ELSEWHERE)
    fix = "an A (and AAAA) record of the name; a new one takes a while to be seen everywhere"
    return problem(PART, "no_address", f"{host} has no address", fix)


async def _tls(
    url: OutsideUrl, addresses: Sequence[str], client: OutsideClient, now: float
) -> tuple[bool, list[Finding]]:
    """Return whether any address speaks good TLS, and what was seen of each."""
    reached, findings = False, list[Finding]()
    for address in addresses:
        try:
            found = await client.handshake(url, address)
        except OutsideError as error:
            findings.append(_unreachable(url, address, error.fault))
            continue
        if found.fault:
            findings.append(_bad_tls(address, found))
            continue
        reached = True
        findings.append(ok(PART, "tls", f"{quoted(address)}: TLS, and the certificate is trusted"))
        if found.expires is not None and found.expires - now < _SOON:
            days = max(int((found.expires - now) / 86_400), 0)
            message = f"{quoted(address)}: the certificate ends in {days} day(s)"
            findings.append(warning(PART, "certificate_ends", message, "renew it, and look why"))
    if not any(map(is_ipv6, addresses)):
        message = "the name has no IPv6 address (AAAA); assistants that speak IPv6 alone are rare"
        findings.append(note(PART, "no_ipv6", message))
    return reached, findings


def _unreachable(url: OutsideUrl, address: str, fault: OutsideFault) -> Finding:
    message = f"{quoted(address)}, port {url.port}: {fault.value}"
    if is_ipv6(address):
        fix = "let Envoy listen on IPv6 and open the port, or remove the AAAA record"
        return problem(PART, "ipv6_unreachable", f"{message} (or this machine has no IPv6)", fix)
    fix = f"forward port {url.port} of the router and firewall to Envoy's listener"
    return problem(PART, "unreachable", message, fix)


def _bad_tls(address: str, found: Handshake) -> Finding:
    where = quoted(address)
    if found.code in _EXPIRED:
        message = f"{where}: the certificate has ended, or has not begun"
        return problem(PART, "certificate_expired", message, "renew it; look at the clock as well")
    if found.code in _WRONG_NAME:
        message = f"{where}: the certificate is for another name"
        return problem(PART, "certificate_name", message, "a certificate for the host of the URL")
    if found.code in _NO_ISSUER and found.has_issuer_url and not found.is_self_signed:
        message = (
            f"{where}: the certificate of the issuing authority is missing from what is sent. "
            "Browsers fetch it by themselves, assistants do not"
        )
        fix = (
            "gateway.tls.certificate: the whole chain, leaf first, then the intermediate "
            "(`fullchain.pem`, not `cert.pem`)"
        )
        return problem(PART, "intermediate_missing", message, fix)
    if found.code in _NO_ISSUER | _SELF_SIGNED:
        message = f"{where}: the certificate is of an authority that nobody outside trusts"
        fix = "a certificate of a public authority (ACME): hosted assistants take no other"
        return problem(PART, "certificate_untrusted", message, fix)
    message = f"{where}: TLS failed: {quoted(found.fault)}"
    return problem(PART, "tls_failed", message, "let port 443 speak TLS 1.2 or 1.3 for this name")


async def _challenge(url: OutsideUrl, client: OutsideClient) -> list[Finding]:
    """Ask the server without a token, then read the documents that its answer names."""
    try:
        answer = await client.ask(url, "POST", _ASKS, _INITIALIZE)
    except OutsideError as error:
        message = f"a request without a token: {error.fault.value}"
        return [problem(PART, "no_answer", message, "look whether Envoy and `authz serve` run")]
    if answer.status != _UNAUTHORIZED:
        return [_no_challenge(answer)]
    challenge = answer.headers.get("www-authenticate", "")
    named = _METADATA.search(challenge)
    if not challenge.lower().startswith("bearer") or named is None:
        message = "the 401 names no metadata document (WWW-Authenticate: Bearer resource_metadata)"
        fix = "let nothing before the gateway answer in its place, or take headers away"
        return [problem(PART, "challenge", message, fix)]
    findings = [ok(PART, "challenge", "a request without a token gets 401 and the document's URL")]
    members, more = await _document(named[1], client, "the server's metadata (RFC 9728)")
    findings += more
    if members is None:
        return findings
    findings += _resource(url, members)
    servers = members.get("authorization_servers")
    listed = (
        [each for each in servers if isinstance(each, str)] if isinstance(servers, list) else []
    )
    if not listed:
        message = "the server's metadata names no authorization server"
        findings.append(problem(PART, "no_issuer", message, "render Envoy's configuration again"))
    for issuer in listed[:_SERVERS]:
        findings += await _issuer(issuer, client)
    return findings


def _no_challenge(answer: OutsideAnswer) -> Finding:
    status = answer.status
    if status in _REDIRECTS:
        message = f"a request without a token is redirected ({status}): something answers before us"
        fix = "take the log-in page or tunnel's own access rule away from the MCP paths"
        return problem(PART, "challenge_redirect", message, fix)
    if status == _NOT_FOUND:
        message = "there is no MCP server at this URL (404)"
        return problem(PART, "not_found", message, "the URL that `authz client-config` prints")
    if status == _OK:
        message = "a request without a token was answered (200): nothing protects the server"
        return problem(PART, "open", message, "let the name lead to the gateway, not to the server")
    message = f"a request without a token gets {status} in place of 401"
    fix = "`authz explain --request-id` with the answer's x-request-id says why; or it is another's"
    if "x-request-id" in answer.headers:
        message += f", request {quoted(answer.headers['x-request-id'])}"
    return problem(PART, "challenge", message, fix)


def _resource(url: OutsideUrl, members: Mapping[str, object]) -> list[Finding]:
    resource = members.get("resource")
    if isinstance(resource, str) and resource.rstrip("/") == url.text.rstrip("/"):
        return [ok(PART, "resource", "the metadata is of this very URL")]
    shown = quoted(resource) if isinstance(resource, str) else "none"
    message = f"the metadata is of {shown}, not of this URL: clients refuse it (RFC 9728, 3.3)"
    fix = "use that URL in the client, or set gateway.url to the name that people use"
    return [problem(PART, "resource", message, fix)]


async def _issuer(text: str, client: OutsideClient) -> list[Finding]:
    """Look at an authorization server's metadata (RFC 8414, section 3)."""
    name = "the authorization server"
    try:
        issuer = read_url(text)
    except OutsideError:
        fix = "issuer.url or gateway.url, as people outside reach it"
        return [problem(PART, "issuer", f"{name} {quoted(text)} is no URL", fix)]
    path = issuer.path.rstrip("/")
    places = (
        f"{issuer.origin}/.well-known/oauth-authorization-server{path}",
        f"{issuer.origin}{path}/.well-known/openid-configuration",
    )
    findings = list[Finding]()
    for place in places:
        members, findings = await _document(place, client, f"{name}'s metadata (RFC 8414)")
        if members is not None:
            return [*findings, *await _endpoints(text, members, client)]
    return findings


async def _endpoints(
    issuer: str, members: Mapping[str, object], client: OutsideClient
) -> list[Finding]:
    findings = list[Finding]()
    if members.get("issuer") != issuer:
        message = f"the authorization server {quoted(issuer)} calls itself something else"
        fix = "issuer.url, gateway.url and Authelia's own URL have to be one text"
        findings.append(problem(PART, "issuer", message, fix))
    for name in ("authorization_endpoint", "token_endpoint"):
        place = members.get(name)
        if not isinstance(place, str) or not place.startswith("https://"):
            message = f"{name} is missing, or no https URL"
            fix = "let Authelia know its public URL (X-Forwarded-Proto and X-Forwarded-Host)"
            findings.append(problem(PART, "endpoint", message, fix))
    methods = members.get("code_challenge_methods_supported")
    if not isinstance(methods, list) or "S256" not in methods:
        message = "PKCE with S256 is not announced: MCP clients refuse to log in"
        findings.append(problem(PART, "pkce", message, "let Authelia announce S256"))
    if not members.get("registration_endpoint") and not members.get(
        "client_id_metadata_document_supported"
    ):
        message = "clients can neither register nor use a metadata document: each needs its own id"
        fix = "front_door in authz.yaml; or give each client its client_id"
        findings.append(warning(PART, "registration", message, fix))
    token = members.get("token_endpoint")
    if isinstance(token, str):
        findings += await _preflight(token, client)
    return findings


async def _preflight(text: str, client: OutsideClient) -> list[Finding]:
    """Ask as a browser does before a client in a page sends its token request (Fetch, 4.8)."""
    asks = {
        "Origin": _ORIGIN,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type,mcp-protocol-version",
    }
    try:
        answer = await client.ask(read_url(text), "OPTIONS", asks)
    except OutsideError as error:
        message = f"the token endpoint {quoted(text)}: {error.fault.value}"
        fix = "let its name and port be reached from outside, as the server's are"
        return [problem(PART, "token_endpoint", message, fix)]
    if answer.status in (_OK, _NO_CONTENT) and "access-control-allow-origin" in answer.headers:
        return [ok(PART, "token_endpoint", "the token endpoint answers, pages of any origin too")]
    message = (
        "the token endpoint answers no page of another origin (CORS): clients in a browser fail"
    )
    return [warning(PART, "token_cors", message, "front_door in authz.yaml answers them")]


async def _document(
    text: str, client: OutsideClient, name: str
) -> tuple[Mapping[str, object] | None, list[Finding]]:
    """Return the members of a JSON document that clients read, and what is to be said of it."""
    shown = f"{name}, {quoted(text)}"
    try:
        url = read_url(text)
        if url.scheme != "https":
            raise OutsideError(OutsideFault.BAD_URL)  # noqa: TRY301 - as any other
        answer = await client.ask(url, "GET", {"Accept": "application/json", "Origin": _ORIGIN})
    except OutsideError as error:
        fix = "let its host be reached from outside as the server's is"
        return None, [problem(PART, "document", f"{shown}: {error.fault.value}", fix)]
    if answer.status != _OK:
        message = f"{shown}: status {answer.status}"
        fix = "well-known paths have to reach the gateway unchanged, and never be redirected"
        return None, [problem(PART, "document", message, fix)]
    try:
        members = loads(answer.body)
    except StrictJsonError:
        members = None
    if not isinstance(members, dict):
        fix = "something before the gateway answers in its place"
        return None, [problem(PART, "document", f"{shown}: that is no JSON object", fix)]
    if answer.headers.get("access-control-allow-origin") not in ("*", _ORIGIN):
        message = f"{shown}: pages of other origins may not read it (CORS)"
        fix = "let nothing before the gateway take its headers away"
        return members, [warning(PART, "document_cors", message, fix)]
    return members, [ok(PART, "document", f"{shown}: readable")]


async def _redirect(url: OutsideUrl, client: OutsideClient) -> list[Finding]:
    """Look at plain HTTP: a page is sent on to HTTPS, and a token is never taken."""
    if url.port != _HTTPS:
        return []
    plain = read_url(url.text.replace("https://", "http://", 1))
    try:
        answer = await client.ask(plain)
    except OutsideError:
        message = "nothing answers plain HTTP (port 80): people have to type https://"
        return [note(PART, "no_http", message, "gateway.http_listen, and port 80 forwarded")]
    target = urlsplit(answer.headers.get("location", ""))
    if answer.status in _REDIRECTS and (target.scheme, target.hostname) == ("https", url.host):
        return [ok(PART, "http", "plain HTTP leads to HTTPS")]
    message = f"plain HTTP gets {answer.status} and does not lead to HTTPS"
    fix = "let port 80 lead to gateway.http_listen, or to nothing"
    return [warning(PART, "http", message, fix)]
