"""Check Envoy's certificate and key as Envoy will read them, and as clients will see them.

Nothing of a private key stands in a message.
"""

import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from authz.config.certificates import LONGEST, CertificateFault, CertificateFlaw, certificate_faults
from authz.config.files import read_regular
from authz.config.location import init_folder
from authz.config.model import Config, TlsConfig
from authz.config.problems import Fault, ProblemSeverity

_MOUNTED: Final = "/run/tls/"


@dataclass(frozen=True, slots=True)
class TlsFault:
    """Say what is wrong with one of the two files.

    Attributes:
        field: of `gateway.tls`.
        file: its path.
        wrong: in words that follow the path.
        right: what would be right, beginning with a verb.
        is_unread: whether it could not be read here; Envoy may run elsewhere, or as another user.
        is_refused: whether Envoy does not take the two.
        flaw: what kind of fault it is; None for one of the file or of TLS itself.
    """

    field: str
    file: str
    wrong: str
    right: str
    is_unread: bool = False
    is_refused: bool = True
    flaw: CertificateFlaw | None = None


def tls_fault(config: Config) -> TlsFault | None:
    """Return why Envoy cannot use the certificate and its key; None where it can."""
    return next((each for each in tls_faults(config, time.time()) if each.is_refused), None)


def inspect_tls(config: Config) -> list[Fault]:
    """Return all that is wrong, as faults of the configuration: what Envoy takes is a warning."""
    return [
        Fault(
            ("gateway", "tls", each.field),
            f"the file cannot be read here: {each.wrong}" if each.is_unread else f"it {each.wrong}",
            each.right,
            ProblemSeverity.ERROR
            if each.is_refused and not each.is_unread
            else ProblemSeverity.WARNING,
        )
        for each in tls_faults(config, time.time())
    ]


def served_hosts(config: Config) -> list[str]:
    """Return the hosts that the certificate has to be for: the gateway's, the portal's, pages'."""
    urls = [config.gateway.url, *([config.issuer.url] if config.issuer.serve else [])]
    urls += map(config.page_url, config.pages)
    return list(dict.fromkeys(urlsplit(url).hostname or "" for url in urls))


def host_tls(config: Config, configuration: Path) -> TlsConfig | None:
    """Return `gateway.tls` with the files as this machine has them.

    Args:
        config: what names them.
        configuration: its file. In a folder of `authz init` its `secrets/tls` is a container's
            `/run/tls`.
    """
    tls, folder = config.gateway.tls, init_folder(configuration.parent)
    if tls is None or folder is None:
        return tls
    names = {
        field: folder / "secrets/tls" / Path(file).name if file.startswith(_MOUNTED) else file
        for field, file in (("certificate", tls.certificate), ("key", tls.key))
    }
    return tls.model_copy(update={field: str(file) for field, file in names.items()})


def tls_faults(config: Config, now: float) -> Iterator[TlsFault]:
    """Yield all that is wrong with the two files, what Envoy refuses first.

    Args:
        config: names them.
        now: seconds since the epoch.
    """
    tls = config.gateway.tls
    if tls is None:
        return
    contents = {}
    for field, file in (("certificate", tls.certificate), ("key", tls.key)):
        try:
            contents[field] = read_regular(Path(file), LONGEST)
        except OSError as error:
            right = "make it before `authz up`, or check where Envoy runs"
            yield TlsFault(field, file, f"{error.strerror}", right, is_unread=True)
            return
    found = list(
        certificate_faults(contents["certificate"], contents["key"], served_hosts(config), now)
    )
    yield from (_named(each, tls) for each in found)
    if not any(each.flaw.is_refused for each in found) and not _loads(tls):
        wrong = "and the key are no pair that TLS can use"
        yield TlsFault("certificate", tls.certificate, wrong, "write the two files of one pair")


def _named(fault: CertificateFault, tls: TlsConfig) -> TlsFault:
    field, file = ("key", tls.key) if fault.flaw.of_key else ("certificate", tls.certificate)
    return TlsFault(
        field, file, fault.wrong, fault.right, is_refused=fault.flaw.is_refused, flaw=fault.flaw
    )


def _loads(tls: TlsConfig) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
            tls.certificate, tls.key, password=_no_password
        )
    except (OSError, ValueError):  # ssl.SSLError is an OSError
        return False
    return True


def _no_password() -> str:
    """Refuse a key that needs a password: Envoy could not read it either, and nobody can type."""
    raise ValueError("the key is encrypted")
