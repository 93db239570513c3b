"""When the authorities end by which Envoy trusts servers with https.

Envoy tells the end of the first certificate of its file, whichever authority a server's own
certificate is under. Where the file is known here (`upstream_ca`, or the system's), that one is
looked for.

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

from authz.config.certificates import ENDS_SOON, format_days, load_certificates
from authz.config.files import read_regular
from authz.config.load import Settings
from authz.config.model import ServerConfig
from authz.doctor.finding import Finding, ok, problem, warning
from authz.envoy.files import statistics
from authz.http.served_certificate import served_certificate

PART: Final = "servers"
_LONGEST: Final = 8 << 20
_HTTPS: Final = 443
# The cluster of a server (authz/envoy/render/clusters.py), as Envoy writes it in statistics.
_CLUSTER: Final = "cluster.mcp_"
_MIDDLE: Final = ".ssl.certificate."
_REGEX: Final = r"^cluster\.mcp_.+\.ssl\.certificate\..+\.expiration_unix_time_seconds$"
_FIX: Final = (
    "put an authority that lasts into the file that Envoy trusts, and restart Envoy"
    " (docs/certificates.md, Expiry)"
)
_FIX_OWN: Final = (
    "put an authority that lasts into the file of servers.{name}.upstream_ca"
    " (docs/certificates.md, Expiry)"
)


def examine(settings: Settings, places: Sequence[Path], now: float) -> Iterator[Finding]:
    """Say of each server with https when its authority ends; nothing where nobody knows.

    Args:
        settings: authz.yaml.
        places: sockets at which Envoy may tell its statistics.
        now: seconds since the epoch.
    """
    config = settings.config
    names = [
        name for name, server in config.servers.items() if server.upstream.startswith("https:")
    ]
    if not names:
        return
    told = next(filter(None, map(_told, places)), {})
    ends = dict[str, float]()
    for name in names:
        end = _signers_end(config.servers[name], settings.authorities.get(name))
        if end is None:
            end = told.get(name)
        if end is not None:
            ends[name] = end
    late = [
        _finding(
            name, end, now, _FIX_OWN.format(name=name) if name in settings.authorities else _FIX
        )
        for name, end in ends.items()
        if end - now < ENDS_SOON
    ]
    yield from late
    if ends and not late:
        first = datetime.fromtimestamp(min(ends.values()), UTC)
        message = f"the authorities of servers with https last until {first:%Y-%m-%d}"
        yield ok(PART, "authorities_last", message)


def _finding(name: str, end: float, now: float, fix: str) -> Finding:
    if end <= now:
        message = f"{name}: the authority by which Envoy trusts it has ended"
        return problem(PART, "authority_ended", message, fix)
    days = format_days(end - now)
    message = f"{name}: the authority by which Envoy trusts it ends in {days}"
    return warning(PART, "authority_ends", message, fix)


def _told(place: Path) -> Mapping[str, float]:
    """Return when the first authority of each server ends, as Envoy says."""
    found = dict[str, float]()
    for name, value in statistics(place, _REGEX).items():
        server = name.removeprefix(_CLUSTER).partition(_MIDDLE)[0]
        if value.isdecimal() and len(value) < len("10000000000"):
            found[server] = min(float(value), found.get(server, float(value)))
    return found


def _signers_end(server: ServerConfig, authorities: str | None) -> float | None:
    """Return when the authority ends that signed a server's certificate; None if it is not here.

    Args:
        server: its entry in authz.yaml.
        authorities: its private ones, PEM; None for the system's and SSL_CERT_FILE.
    """
    parts = urlsplit(server.upstream)
    if parts.hostname is None or server.socket is not None:
        return None
    own = served_certificate(parts.hostname, parts.port or _HTTPS, parts.hostname)
    if own is None:
        return None
    try:
        with warnings.catch_warnings():
            # Systems carry authorities that are older than RFC 5280, with a serial of 0.
            warnings.simplefilter("ignore", CryptographyDeprecationWarning)
            trusted = load_certificates(_system() if authorities is None else authorities.encode())
        ends = [each.not_valid_after_utc.timestamp() for each in trusted if _has_signed(each, own)]
    except (OSError, ValueError):
        return None
    return max(ends, default=None)


def _system() -> bytes:
    # None, whatever its type says, where OpenSSL has no such file.
    file = ssl.get_default_verify_paths().cafile or "/dev/null"
    return read_regular(Path(file), _LONGEST)


def _has_signed(authority: x509.Certificate, own: x509.Certificate) -> bool:
    if authority.subject != own.issuer:
        return False
    try:
        own.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True
