"""When the authorities end by which Envoy trusts servers with https.

Envoy tells the end of the first certificate of its file, whichever authority a server's own
certificate is under. Where the file is known here, that one is looked for.

Invariant: whatever Envoy or a server says ends in findings
(tests/doctor/test_upstream_authorities.py).
"""

import ssl
import warnings
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.utils import CryptographyDeprecationWarning

from authz.config.files import read_regular
from authz.config.model import Config
from authz.doctor.finding import Finding, ok, problem, warning
from authz.envoy.files import statistics
from authz.http.served_certificate import served_certificate

PART: Final = "servers"
_LONGEST: Final = 8 << 20
_HTTPS: Final = 443
_DAY: Final = 86400.0
_SOON: Final = 14 * _DAY
# The cluster of a server (authz/envoy/render/clusters.py), as Envoy writes it in statistics.
_CLUSTER: Final = "cluster.mcp_"
_MIDDLE: Final = ".ssl.certificate."
_REGEX: Final = r"^cluster\.mcp_.+\.ssl\.certificate\..+\.expiration_unix_time_seconds$"
_FIX: Final = (
    "put an authority that lasts into the file that Envoy trusts, and restart Envoy"
    " (docs/certificates.md, Expiry)"
)


def examine(config: Config, places: Sequence[Path], now: float) -> Iterator[Finding]:
    """Say of each server with https when its authority ends; nothing where nobody knows.

    Args:
        config: authz.yaml.
        places: sockets at which Envoy may tell its statistics.
        now: seconds since the epoch.
    """
    names = [
        name
        for name, server in config.servers.items()
        if server.upstream.startswith("https:") and server.socket is None
    ]
    if not names:
        return
    told = next(filter(None, map(_told, places)), {})
    ends = dict[str, float]()
    for name in names:
        end = _signers_end(config.servers[name].upstream)
        if end is None:
            end = told.get(name)
        if end is not None:
            ends[name] = end
    late = [_finding(name, end, now) for name, end in ends.items() if end - now < _SOON]
    yield from late
    if ends and not late:
        first = datetime.fromtimestamp(min(ends.values()), UTC)
        message = f"the authorities of servers with https last until {first:%Y-%m-%d}"
        yield ok(PART, "authorities_last", message)


def _finding(name: str, end: float, now: float) -> Finding:
    if end <= now:
        message = f"{name}: the authority by which Envoy trusts it has ended"
        return problem(PART, "authority_ended", message, _FIX)
    days = int((end - now) // _DAY)
    message = f"{name}: the authority by which Envoy trusts it ends in {days} days"
    return warning(PART, "authority_ends", message, _FIX)


def _told(place: Path) -> Mapping[str, float]:
    """Return when the first authority of each server ends, as Envoy says."""
    found = dict[str, float]()
    for name, value in statistics(place, _REGEX).items():
        server = name.removeprefix(_CLUSTER).partition(_MIDDLE)[0]
        if value.isdecimal() and len(value) < len("10000000000"):
            found[server] = min(float(value), found.get(server, float(value)))
    return found


def _signers_end(upstream: str) -> float | None:
    """Return when the authority ends that signed a server's certificate; None if it is not here."""
    parts = urlsplit(upstream)
    # None, whatever its type says, where OpenSSL has no such file.
    file = ssl.get_default_verify_paths().cafile or "/dev/null"
    if parts.hostname is None:
        return None
    own = served_certificate(parts.hostname, parts.port or _HTTPS, parts.hostname)
    if own is None:
        return None
    try:
        with warnings.catch_warnings():
            # Systems carry authorities that are older than RFC 5280, with a serial of 0.
            warnings.simplefilter("ignore", CryptographyDeprecationWarning)
            trusted = x509.load_pem_x509_certificates(read_regular(Path(file), _LONGEST))
        ends = [each.not_valid_after_utc.timestamp() for each in trusted if _has_signed(each, own)]
    except (OSError, ValueError):
        return None
    return max(ends, default=None)


def _has_signed(authority: x509.Certificate, own: x509.Certificate) -> bool:
    if authority.subject != own.issuer:
        return False
    try:
        own.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True
