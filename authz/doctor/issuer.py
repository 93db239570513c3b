"""Whether the issuer can be reached, states its own identifier, and publishes usable keys.

It is asked with the service's own client, bounds and headers.
"""

import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import Final

import httpx

from authz.config import urls
from authz.config.model import IssuerConfig
from authz.config.problems import quoted, shown
from authz.doctor.finding import Finding, enumerated, note, ok, problem, warning
from authz.tokens.issuer import IssuerAddress
from authz.tokens.issuer_http import IssuerError, IssuerFault, get, issuer_client
from authz.tokens.jwk import KeySet, KeySetError, read_key_set

PART: Final = "issuer"
_PATIENCE: Final = 5.0
_TICK: Final = 1.0  # the Date header has whole seconds
_FORWARDED: Final = (
    "let issuer.internal lead to Authelia itself (server.address in its configuration), or have "
    "what stands between pass on X-Forwarded-Proto and X-Forwarded-Host"
)
_KNOWN: Final = (
    "write issuer.url of authz.yaml as session.cookies[].authelia_url of Authelia's configuration "
    "has it, to the letter"
)
_ADDRESS: Final = "correct issuer.internal (or issuer.url) in authz.yaml, or start Authelia"
_TLS: Final = (
    "name its authority in the environment variable SSL_CERT_FILE, or let issuer.internal lead to "
    "Authelia over plain http inside your own network"
)
_KEYS: Final = "look at identity_providers.oidc.jwks in Authelia's configuration"


@dataclass(frozen=True, slots=True)
class IssuerReport:
    """Hold what was found, and what later looks need.

    Attributes:
        findings: in the order they were made.
        metadata: the issuer's; empty where none is to be believed.
        keys: those that may verify; None where there are none.
    """

    findings: tuple[Finding, ...]
    metadata: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    keys: KeySet | None = None


class ResponseRecorder:
    """Hear every answer of a client.

    Attributes:
        last: the newest answer; None before the first.
    """

    def __init__(self, client: httpx.AsyncClient) -> None:
        """Listen to a client."""
        self.last: httpx.Response | None = None
        client.event_hooks = {"response": [self._record]}

    async def _record(self, response: httpx.Response) -> None:
        self.last = response


async def examine(issuer: IssuerConfig, clock: Callable[[], float] = time.time) -> IssuerReport:
    """Look at the issuer of a configuration."""
    address = IssuerAddress(issuer.url, issuer.internal)
    async with issuer_client(timeout=_PATIENCE) as client:
        responses = ResponseRecorder(client)
        try:
            metadata = await _metadata(address, client, responses)
        except IssuerError as error:
            return IssuerReport((_unreadable(issuer, error, responses),))
        said = metadata.get("issuer")
        if said != issuer.url:
            return IssuerReport((_misspelled(issuer.url, said),))
        findings = [ok(PART, "metadata", f"{quoted(issuer.url)} answers and says its own name")]
        findings += _skew(responses, clock(), issuer.leeway)
        findings += _lacks(metadata)
        try:
            target = address.endpoint("jwks_uri", metadata.get("jwks_uri"))
            document = await get(client, target)
            keys = read_key_set(document, frozenset[str](issuer.algorithms))
        except IssuerError as error:
            findings.append(problem(PART, "no_keys", f"its keys: {error.detail}", _KEYS))
        except KeySetError:
            findings.append(_unusable(document, issuer.algorithms))
        else:
            findings += _about_keys(keys)
            return IssuerReport(tuple(findings), metadata, keys)
    return IssuerReport(tuple(findings), metadata)


async def _metadata(
    address: IssuerAddress, client: httpx.AsyncClient, responses: ResponseRecorder
) -> Mapping[str, object]:
    first, second = address.metadata()
    try:
        return await get(client, first)
    except IssuerError as error:
        if error.fault not in {IssuerFault.STATUS, IssuerFault.UNAUTHORIZED}:
            raise
        if responses.last is not None and responses.last.status_code != httpx.codes.NOT_FOUND:
            raise
    return await get(client, second)


def _unreadable(issuer: IssuerConfig, error: IssuerError, responses: ResponseRecorder) -> Finding:
    where = quoted(issuer.internal or issuer.url)
    status = (
        responses.last.status_code
        if error.fault is IssuerFault.STATUS and responses.last is not None
        else None
    )
    if error.fault is IssuerFault.UNREACHABLE and _is_tls(error):
        message = f"the certificate of {where} is not trusted here, or not for this name"
        return problem(PART, "tls", message, _TLS)
    if error.fault is IssuerFault.UNREACHABLE:
        message = f"{where} does not answer ({error.detail})"
        return problem(PART, "unreachable", message, _ADDRESS)
    if status == httpx.codes.BAD_REQUEST:
        message = (
            f"{where} answers 400, as Authelia does where {quoted(issuer.url)} is not among its "
            "session.cookies[].authelia_url, or X-Forwarded-Proto and -Host do not arrive"
        )
        return problem(PART, "unknown_url", message, f"{_KNOWN}; else {_FORWARDED}")
    if status is not None and httpx.codes.is_redirect(status):
        message = f"{where} redirects; documents are not fetched from elsewhere"
        return problem(PART, "redirect", message, _FORWARDED)
    message = f"{where} has no metadata: {error.detail}"
    path = urls.split(issuer.url).path
    fix = f"write server.address: 'tcp://:9091{path}' in Authelia's configuration, or {_ADDRESS}"
    return problem(PART, "no_metadata", message, fix if path else _ADDRESS)


def _is_tls(error: BaseException | None) -> bool:
    """Tell whether TLS is at the bottom of an error."""
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _misspelled(ours: str, said: object) -> Finding:
    """Say how the two spellings differ: tokens have Authelia's, and strings are compared."""
    message = f"the issuer calls itself {shown(said)}, authz.yaml calls it {quoted(ours)}"
    if not isinstance(said, str):
        return problem(PART, "wrong_issuer", message, "correct issuer.url in authz.yaml")
    if said.startswith("http://"):
        return problem(
            PART, "forwarded_headers", f"{message}: X-Forwarded-Proto was lost", _FORWARDED
        )
    if said.rstrip("/").lower() == ours.rstrip("/").lower():
        exact = f"write issuer.url: {quoted(said)} in authz.yaml, to the letter"
        return problem(PART, "wrong_issuer", message, exact)
    fix = f"write issuer.url: {quoted(said)}, if that is what tokens shall say; else {_FORWARDED}"
    return problem(PART, "wrong_issuer", message, fix)


def _skew(responses: ResponseRecorder, now: float, leeway: float) -> Iterator[Finding]:
    try:
        assert responses.last is not None
        theirs = parsedate_to_datetime(responses.last.headers["date"]).timestamp()
    except (KeyError, ValueError, OverflowError, AssertionError):
        yield note(PART, "no_date", "its answer has no Date, so its clock cannot be compared")
        return
    ahead = theirs - now
    # Between the Date and now lie up to a second of rounding and the way of the answer.
    if abs(ahead) <= leeway + _TICK:
        yield ok(PART, "clock", "its clock agrees with ours")
        return
    direction = "ahead of" if ahead > 0 else "behind"
    yield problem(
        PART,
        "clock_skew",
        f"its clock is {abs(ahead):.0f} s {direction} ours; issuer.leeway is {leeway:g} s",
        "set both clocks by NTP",
    )


def _lacks(metadata: Mapping[str, object]) -> Iterator[Finding]:
    methods = metadata.get("code_challenge_methods_supported")
    if not isinstance(methods, list) or "S256" not in methods:
        yield warning(
            PART,
            "no_s256",
            "its metadata does not name PKCE with S256, and MCP clients then refuse to log in",
            "use Authelia 4.39.20 or newer",
        )


def _unusable(document: Mapping[str, object], algorithms: tuple[str, ...]) -> Finding:
    entries = document.get("keys")
    published = [
        alg
        for entry in (entries if isinstance(entries, list) else [])
        if isinstance(entry, dict) and isinstance(alg := entry.get("alg"), str)
    ]
    has, wanted = enumerated(published), ", ".join(algorithms)
    message = f"no key is usable: it publishes {has}; authz takes {wanted}"
    fix = "name the algorithm in issuer.algorithms, or add such a key to Authelia's oidc.jwks"
    return problem(PART, "no_usable_key", message, fix)


def _about_keys(keys: KeySet) -> Iterator[Finding]:
    names = enumerated(key.key_id for key in keys.keys)
    yield ok(PART, "keys", f"{len(keys.keys)} usable key(s): {names}")
    if keys.skipped:
        yield note(PART, "skipped_keys", f"{keys.skipped} key(s) of its key set are of no use here")
