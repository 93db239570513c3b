"""Whether the issuer can be reached, says its own name rightly, and publishes usable keys.

Law: it is asked as the service asks it, with the same client, bounds and headers.
"""

import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import Final

import httpx

from authz.config.model import IssuerConfig
from authz.config.problems import quoted, shown
from authz.doctor.finding import Finding, enumerated, note, ok, problem, warning
from authz.tokens.documents import Fault, IssuerError, get, issuer_client
from authz.tokens.issuer import IssuerAddress
from authz.tokens.jwk import KeySet, KeySetError, read_key_set

PART: Final = "issuer"
_PATIENCE: Final = 5.0
_TICK: Final = 1.0  # the Date header has whole seconds
_FORWARDED: Final = (
    "let issuer.internal lead to Authelia itself (server.address in its configuration), or have "
    "what stands between pass on X-Forwarded-Proto and X-Forwarded-Host"
)
_ADDRESS: Final = "correct issuer.internal (or issuer.url) in authz.yaml, or start Authelia"
_TLS: Final = (
    "name its authority in the environment variable SSL_CERT_FILE, or let issuer.internal lead to "
    "Authelia over plain http inside your own network"
)
_KEYS: Final = "look at identity_providers.oidc.jwks in Authelia's configuration"


@dataclass(frozen=True, slots=True)
class Examined:
    """Hold what was found, and what later looks need.

    Attributes:
        findings: in the order they were made.
        metadata: the issuer's; empty where none is to be believed.
        keys: those that may verify; None where there are none.
    """

    findings: tuple[Finding, ...]
    metadata: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
    keys: KeySet | None = None


class Ear:
    """Hear every answer of a client.

    Attributes:
        last: the newest answer; None before the first.
    """

    def __init__(self, client: httpx.AsyncClient) -> None:
        """Listen to a client."""
        self.last: httpx.Response | None = None
        client.event_hooks = {"response": [self._hear]}

    async def _hear(self, response: httpx.Response) -> None:
        self.last = response


async def examine(issuer: IssuerConfig, clock: Callable[[], float] = time.time) -> Examined:
    """Look at the issuer of a configuration."""
    address = IssuerAddress(issuer.url, issuer.internal)
    async with issuer_client(timeout=_PATIENCE) as client:
        ear = Ear(client)
        try:
            metadata = await _metadata(address, client, ear)
        except IssuerError as error:
            return Examined((_unreadable(issuer, error, ear),))
        said = metadata.get("issuer")
        if said != issuer.url:
            return Examined((_misspelled(issuer.url, said),))
        findings = [ok(PART, "metadata", f"{quoted(issuer.url)} answers and says its own name")]
        findings += _skew(ear, clock(), issuer.leeway)
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
            return Examined(tuple(findings), metadata, keys)
    return Examined(tuple(findings), metadata)


async def _metadata(
    address: IssuerAddress, client: httpx.AsyncClient, ear: Ear
) -> Mapping[str, object]:
    first, second = address.metadata()
    try:
        return await get(client, first)
    except IssuerError as error:
        if error.fault not in {Fault.STATUS, Fault.UNAUTHORIZED}:
            raise
        if ear.last is not None and ear.last.status_code != httpx.codes.NOT_FOUND:
            raise
    return await get(client, second)


def _unreadable(issuer: IssuerConfig, error: IssuerError, ear: Ear) -> Finding:
    where = quoted(issuer.internal or issuer.url)
    status = ear.last.status_code if error.fault is Fault.STATUS and ear.last is not None else None
    if error.fault is Fault.UNREACHABLE and _is_tls(error):
        words = f"the certificate of {where} is not trusted here, or not for this name"
        return problem(PART, "tls", words, _TLS)
    if error.fault is Fault.UNREACHABLE:
        words = f"{where} does not answer ({error.detail})"
        return problem(PART, "unreachable", words, _ADDRESS)
    if status == httpx.codes.BAD_REQUEST:
        words = f"{where} answers 400, as Authelia does where the two headers do not arrive"
        return problem(PART, "forwarded_headers", words, _FORWARDED)
    if status is not None and httpx.codes.is_redirect(status):
        words = f"{where} redirects; documents are not fetched from elsewhere"
        return problem(PART, "redirect", words, _FORWARDED)
    words = f"{where} has no metadata: {error.detail}"
    return problem(PART, "no_metadata", words, _ADDRESS)


def _is_tls(error: BaseException | None) -> bool:
    """Tell whether TLS is at the bottom of an error."""
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _misspelled(ours: str, said: object) -> Finding:
    """Say how the two spellings differ: tokens have Authelia's, and strings are compared."""
    words = f"the issuer calls itself {shown(said)}, authz.yaml calls it {quoted(ours)}"
    if not isinstance(said, str):
        return problem(PART, "wrong_issuer", words, "correct issuer.url in authz.yaml")
    if said.startswith("http://"):
        return problem(
            PART, "forwarded_headers", f"{words}: X-Forwarded-Proto was lost", _FORWARDED
        )
    if said.rstrip("/").lower() == ours.rstrip("/").lower():
        exact = f"write issuer.url: {quoted(said)} in authz.yaml, to the letter"
        return problem(PART, "wrong_issuer", words, exact)
    mend = f"write issuer.url: {quoted(said)}, if that is what tokens shall say; else {_FORWARDED}"
    return problem(PART, "wrong_issuer", words, mend)


def _skew(ear: Ear, now: float, leeway: float) -> Iterator[Finding]:
    try:
        assert ear.last is not None
        theirs = parsedate_to_datetime(ear.last.headers["date"]).timestamp()
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
    words = f"no key is usable: it publishes {has}; authz takes {wanted}"
    mend = "name the algorithm in issuer.algorithms, or add such a key to Authelia's oidc.jwks"
    return problem(PART, "no_usable_key", words, mend)


def _about_keys(keys: KeySet) -> Iterator[Finding]:
    names = enumerated(key.key_id for key in keys.keys)
    yield ok(PART, "keys", f"{len(keys.keys)} usable key(s): {names}")
    if keys.skipped:
        yield note(PART, "skipped_keys", f"{keys.skipped} key(s) of its key set are of no use here")
