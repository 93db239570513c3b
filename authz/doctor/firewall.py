"""Whether the kernel bounds the connections of one address, as firewall.nft of `authz init` has it.

Envoy counts the connections of all addresses together, so one of them could hold every place.
"""

import shutil
import subprocess
from pathlib import Path
from typing import Final

from authz.config.location import init_folder
from authz.config.problems import quoted
from authz.doctor.finding import Finding, note, ok

PART: Final = "firewall"
RULES: Final = "firewall.nft"
_TABLE: Final = ("list", "chain", "inet", "authz", "connections")
_PATIENCE: Final = 5.0


def examine(folder: Path, trusted_hops: int) -> list[Finding]:
    """Look at the rules that the kernel has, where the folder has any to load.

    Args:
        folder: of authz.yaml; in what `authz init` wrote, the rules are one folder up.
        trusted_hops: proxies before Envoy; with one, every connection is the proxy's.
    """
    rules = (init_folder(folder) or folder) / RULES
    if trusted_hops or not rules.is_file():
        return []
    fix = f"as root, where the port is published, also at boot: nft -f {quoted(str(rules))}"
    listed = _listed()
    if listed is None:
        message = "whether one address can hold all connections is not known: nft cannot be asked"
        return [note(PART, "unknown", message, fix)]
    if "ct count over" not in listed:
        message = "one address can hold all of gateway.max_connections and lock the others out"
        return [note(PART, "unbounded", message, fix)]
    return [ok(PART, "bounded", "the connections of one address are bounded")]


def _listed() -> str | None:
    """Return the chain as the kernel has it, empty where there is none; None where nobody says."""
    nft = shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if nft is None:
        return None
    try:
        found = subprocess.run(  # noqa: S603 - a fixed path and fixed words
            [nft, *_TABLE], capture_output=True, text=True, timeout=_PATIENCE, check=False
        )
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return None
    if found.returncode == 0:
        return found.stdout
    return "" if "No such file" in found.stderr else None
