"""`authz certificate`: what Envoy serves, and a new one put in its place."""

import json
import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click

from authz.cli.common import DONE, FAILED, FILE, CommandError, command, config_argument, json_option
from authz.config.certificates import (
    LONGEST,
    CertificateFault,
    ServerCertificate,
    certificate_faults,
    read_certificate,
)
from authz.config.files import read_regular
from authz.config.load import load
from authz.config.location import ANSWERS, init_folder
from authz.config.model import Config
from authz.config.problems import quoted
from authz.config.tls_files import host_tls, served_hosts
from authz.http.served_certificate import served_serial
from authz.setup.authority import (
    LIFETIME,
    NoAuthorityError,
    authority_end,
    read_authority,
    replace_authority,
)
from authz.setup.certificate_files import announce, replace_pair
from authz.setup.certificates import issue
from authz.setup.gateway_place import gateway_place, read_answers

_EXAMPLES: Final = """\
examples:
  authz certificate deploy                                    what is served, and until when
  authz certificate deploy --install fullchain.pem privkey.pem     as an ACME client's hook
  authz certificate deploy --renew                            under the authority of `authz init`
  authz certificate deploy --new-authority                    before that one ends
docs/certificates.md has the hooks of certbot, acme.sh, lego and Caddy.
exit status: 0 done, and served where Envoy could be asked; 1 not, or something is wrong with it
"""
_PATIENCE: Final = 10.0
_PAUSE: Final = 0.05


@dataclass(frozen=True, slots=True)
class Deployment:
    """Say what the command is about.

    Attributes:
        config: authz.yaml.
        certificate, key: the files as they are found on this machine.
        place: where Envoy is reached from here.
        folder: that of `authz init`; None where there is none.
    """

    config: Config
    certificate: Path
    key: Path
    place: tuple[str, int]
    folder: Path | None


@command("certificate", _EXAMPLES)
@config_argument
@click.option(
    "--install",
    type=FILE,
    nargs=2,
    metavar="CHAIN KEY",
    help="Take these two files (PEM): checked, then put in place in one step.",
)
@click.option("--renew", is_flag=True, help="Make a new one under the authority of the folder.")
@click.option(
    "--new-authority", is_flag=True, help="Make a new authority; ca.crt has the old one as well."
)
@json_option("Say it as JSON.")
def run(
    *,
    config: Path,
    install: tuple[Path, Path] | None,
    renew: bool,
    new_authority: bool,
    as_json: bool,
) -> int:
    """Show or replace it; what is replaced is asked of Envoy."""
    if new_authority and as_json:
        raise click.UsageError("--new-authority has no --json")
    if (install is not None) + renew + new_authority > 1:
        raise click.UsageError("one of --install, --renew and --new-authority at a time")
    deployment = _deployment(config)
    try:
        if new_authority:
            return _new_authority(deployment, config)
        if install is not None:
            _install(deployment, *install)
        elif renew:
            _renew(deployment)
        texts = _read(deployment.certificate), _readable(deployment.key)
    except OSError as error:
        if error.filename is None:
            raise
        raise CommandError(f"{error.filename}: {error.strerror}", FAILED) from None
    return _show(deployment, *texts, as_json=as_json, changed=renew or install is not None)


def _deployment(path: Path) -> Deployment:
    config = load(path, os.environ, secrets=False).config
    tls = host_tls(config, path)
    if tls is None:
        raise CommandError(f"{path} has no gateway.tls: something in front of Envoy ends TLS")
    return Deployment(
        config,
        Path(tls.certificate),
        Path(tls.key),
        gateway_place(config, path),
        init_folder(path.parent),
    )


def _install(deployment: Deployment, chain: Path, key: Path) -> None:
    texts = _read(chain), _read(key)
    _check(deployment.config, *texts, origin=chain)
    there = deployment.certificate, deployment.key
    if [each.resolve() for each in there] == [chain.resolve(), key.resolve()]:
        announce(deployment.certificate)
    else:
        replace_pair(*there, *texts)


def _check(config: Config, chain: bytes, key: bytes, origin: Path) -> None:
    """Refuse what Envoy or clients would refuse.

    Raises:
        CommandError: where anything is wrong.
    """
    faults = list(certificate_faults(chain, key, served_hosts(config), time.time()))
    if faults:
        told = "; ".join(f"it {each.wrong}: {each.right}" for each in faults)
        raise CommandError(f"{origin} is not taken, the old one stays: {told}", FAILED)


def _renew(deployment: Deployment) -> None:
    folder = _folder(deployment)
    try:
        authority = read_authority(folder)
        chain, key = issue(authority, served_hosts(deployment.config), lifetime=LIFETIME)
    except NoAuthorityError as error:
        right = "--new-authority makes one, which clients have to trust anew"
        raise CommandError(
            f"there is no authority to renew under: {error}; {right}", FAILED
        ) from None
    except ValueError as error:
        raise CommandError(f"it cannot be renewed: {error}; see --new-authority", FAILED) from None
    _check(deployment.config, chain, key, deployment.certificate)
    replace_pair(deployment.certificate, deployment.key, chain, key)


def _new_authority(deployment: Deployment, path: Path) -> int:
    folder, answers = _folder(deployment), read_answers(path)
    if answers is None:
        raise CommandError(f"{folder / ANSWERS} is not what `authz init` wrote", FAILED)
    replace_authority(folder, answers.domain, answers.uid, answers.gid)
    print("ca.crt has a new authority, and the one before it.")
    print("Next: have every client trust ca.crt, then `authz certificate --renew` in this folder.")
    return DONE


def _folder(deployment: Deployment) -> Path:
    if deployment.folder is None:
        raise CommandError("only a folder of `authz init` has an authority of its own", FAILED)
    return deployment.folder


def _show(
    deployment: Deployment, chain: bytes, key: bytes | None, *, as_json: bool, changed: bool
) -> int:
    try:
        found = read_certificate(chain)
    except ValueError:
        raise CommandError(
            f"{deployment.certificate} holds no certificate in PEM", FAILED
        ) from None
    hosts = served_hosts(deployment.config)
    faults = list(certificate_faults(chain, key, hosts, time.time()))
    served = _served(deployment, found.serial if changed else None)
    wrong = bool(faults) or (served is not None and served != found.serial)
    if as_json:
        print(json.dumps(_json(found, faults, served), indent=2))
    else:
        _print(deployment, found, faults, served)
    return FAILED if wrong else DONE


def _json(
    found: ServerCertificate, faults: list[CertificateFault], served: str | None
) -> dict[str, Any]:
    return {
        "names": list(found.names),
        "issuer": found.issuer,
        "serial": found.serial,
        "not_before": found.not_before,
        "not_after": found.not_after,
        "served_serial": served,
        "faults": [
            {"flaw": each.flaw.value, "wrong": each.wrong, "right": each.right} for each in faults
        ],
    }


def _print(
    deployment: Deployment,
    found: ServerCertificate,
    faults: list[CertificateFault],
    served: str | None,
) -> None:
    print(f"for      {', '.join(map(_printable, found.names)) or 'nobody'}")
    print(f"by       {_printable(found.issuer)}")
    print(f"until    {_date(found.not_after)}, serial {found.serial}")
    ends = None if deployment.folder is None else authority_end(deployment.folder)
    if ends is not None:
        print(f"ca.crt   until {_date(ends)}")
    host, port = deployment.place
    if served is None:
        print(f"served   not known: nobody answers at {host}:{port} from here")
    elif served == found.serial:
        print(f"served   yes, at {host}:{port}")
    else:
        print(
            f"served   NO: Envoy at {host}:{port} has serial {served}; files that are not renamed"
        )
        print("         into place it does not notice: --install (docs/certificates.md)")
    for each in faults:
        print(f"wrong    it {each.wrong}; {each.right}")


def _date(moment: float) -> str:
    left = moment - time.time()
    days = f"{int(left // 86400)} days" if left > 0 else "it has ended"
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M} UTC ({days})"


def _printable(text: str) -> str:
    return text if text.isprintable() else quoted(text)


def _served(deployment: Deployment, wanted: str | None) -> str | None:
    """Return the serial number that Envoy serves, None without answer; the wanted one may come."""
    host = served_hosts(deployment.config)[0]
    end = time.monotonic() + _PATIENCE
    while True:
        found = served_serial(*deployment.place, host)
        if found is None or wanted in {None, found} or time.monotonic() > end:
            return found
        time.sleep(_PAUSE)


def _read(file: Path) -> bytes:
    return read_regular(file, LONGEST)


def _readable(file: Path) -> bytes | None:
    """Return a key; None where only Envoy may read it."""
    try:
        return _read(file)
    except PermissionError:
        return None
