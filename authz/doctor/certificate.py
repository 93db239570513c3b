"""The certificate: its files as Envoy and clients take them, and whether Envoy serves them."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from authz.config.certificates import CertificateFlaw, read_certificate_file
from authz.config.load import Settings
from authz.config.location import init_folder
from authz.config.problems import quoted
from authz.config.tls_files import TlsFault, host_tls, served_hosts, tls_faults
from authz.doctor.finding import Finding, enumerated, note, ok, problem, warning
from authz.http.served_certificate import served_serial
from authz.setup.authority import LIFETIME, authority_end
from authz.setup.gateway_place import gateway_place

PART: Final = "certificate"
# Some clients get on all the same.
_WARNINGS: Final = frozenset({
    CertificateFlaw.EXPIRES_SOON,
    CertificateFlaw.CHAIN_ORDER,
    CertificateFlaw.CHAIN_INCOMPLETE,
})  # fmt: skip


def examine(
    settings: Settings,
    path: Path,
    clock: Callable[[], float] = time.time,
    place: tuple[str, int] | None = None,
) -> Iterator[Finding]:
    """Look at the two files, at what Envoy serves, and at the authority of `authz init`.

    Args:
        settings: authz.yaml.
        path: of it.
        clock: seconds since the epoch.
        place: host and port where Envoy is reached from here; None: as published or as it listens.
    """
    config = settings.config
    tls = host_tls(config, path)
    if tls is None:
        return
    here = config.model_copy(update={"gateway": config.gateway.model_copy(update={"tls": tls})})
    faults = list(tls_faults(here, clock()))
    yield from map(_finding, faults)
    certificate = Path(tls.certificate)
    try:
        found = read_certificate_file(certificate)
    except (OSError, ValueError):
        return
    end = datetime.fromtimestamp(found.not_after, UTC)
    days = int((found.not_after - clock()) // 86400)
    if not faults:
        message = f"for {enumerated(found.names)} until {end:%Y-%m-%d} ({days} days)"
        yield ok(PART, "fits", message)
    served = served_serial(*(place or gateway_place(config, path)), served_hosts(config)[0])
    if served not in {None, found.serial}:
        message = (
            f"Envoy serves another (serial {served}) than {quoted(str(certificate))} holds"
            f" ({found.serial}): it does not notice what is not renamed into place"
        )
        fix = "authz certificate --install CHAIN KEY, also as the hook: docs/certificates.md"
        yield problem(PART, "not_served", message, fix)
    yield from _authority(path, clock())


def _finding(fault: TlsFault) -> Finding:
    if fault.is_unread:
        message = f"gateway.tls.{fault.field} cannot be read here: {fault.wrong}"
        return note(PART, "unread", message, "run doctor where Envoy runs, as its user or root")
    flaw = fault.flaw
    message = f"gateway.tls.{fault.field}: it {fault.wrong}"
    make = warning if flaw in _WARNINGS else problem
    return make(PART, "unusable" if flaw is None else flaw.value, message, fault.right)


def _authority(path: Path, now: float) -> Iterator[Finding]:
    folder = init_folder(path.parent)
    end = None if folder is None else authority_end(folder)
    if end is not None and end - now < LIFETIME.total_seconds():
        message = f"the authority of ca.crt ends in {max(0, int((end - now) // 86400))} days"
        fix = "authz certificate --new-authority, then trust ca.crt on every client"
        yield warning(PART, "authority_ends", message, fix)
