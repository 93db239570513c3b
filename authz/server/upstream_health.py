"""Whether Envoy reaches the servers, pages and the issuer, by its own figures, for the console.

It is asked now and then, on the socket that tells its statistics and nothing else, by a thread: no
decision waits for it, and no server is called for it. An upstream is away where connections to it
fail and none has been made since.

Invariant: what is read is bounded in size and time; an Envoy that does not answer is told as such
(tests/server/test_upstream_health.py).
"""

import re
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import quote

from authz.config.model import Config
from authz.core.ledger import UnavailableError
from authz.http.unix_socket import get_bounded
from authz.ledger.activity import UpstreamState

_FILTER: Final = r"^cluster\.(mcp_|admin_|issuer\.).*upstream_cx_(total|connect_fail|none_healthy)$"
_SOURCE: Final = f"/stats?filter={quote(_FILTER)}"
_LINE: Final = re.compile(
    r"cluster\.(.+)\.upstream_cx_(total|connect_fail|none_healthy): (\d{1,18})\Z"
)
_PATIENCE: Final = 2.0  # seconds
_LONGEST: Final = 1 << 20  # bytes; an upstream has some hundred


class _Connections(NamedTuple):
    """Count connections to one upstream since Envoy began: made, and failed or not to be tried."""

    made: int = 0
    failed: int = 0

    @classmethod
    def read(cls, numbers: Mapping[str, int]) -> "_Connections":
        failed = numbers.get("connect_fail", 0)
        made = numbers.get("total", 0) - failed
        return cls(made, failed + numbers.get("none_healthy", 0))


class UpstreamHealth:
    """Tell how the upstreams of one Envoy are."""

    def __init__(self, path: str) -> None:
        """Take the socket at which Envoy tells its statistics."""
        self._path = Path(path)
        self._counted: dict[str, _Connections] = {}
        self._states: dict[str, UpstreamState] = {}

    def look(self, config: Config) -> Mapping[str, UpstreamState]:
        """Return the state of each upstream of a configuration, by what operators call it.

        Raises:
            UnavailableError: where Envoy does not answer.
        """
        try:
            raw = get_bounded(self._path, _SOURCE, _PATIENCE, _LONGEST)
        except (OSError, HTTPException, ValueError) as error:
            raise UnavailableError("envoy", "its statistics do not answer") from error
        counted = dict[str, dict[str, int]]()
        for line in raw.decode("utf-8", "replace").splitlines():
            found = _LINE.match(line)
            if found is not None:
                counted.setdefault(found[1], {})[found[2]] = int(found[3])
        names = _names(config)
        for stat, numbers in counted.items():
            self._judge(stat, _Connections.read(numbers))
        return {name: self._states.get(stat, UpstreamState.UNUSED) for stat, name in names.items()}

    def _judge(self, stat: str, now: "_Connections") -> None:
        """Judge an upstream by what has been counted since the last time."""
        before = self._counted.get(stat, _Connections())
        if now.made < before.made or now.failed < before.failed:  # Envoy began anew
            before = _Connections()
            self._states.pop(stat, None)
        if now.made > before.made:
            self._states[stat] = UpstreamState.WELL
        elif now.failed > before.failed:
            self._states[stat] = UpstreamState.AWAY
        self._counted[stat] = now


def _names(config: Config) -> Mapping[str, str]:
    """Return what operators call each upstream, by Envoy's name of it in its statistics."""
    found = {f"mcp_{name}": f"server {name}" for name in config.servers}
    found |= {f"admin_{name}": f"page {name}" for name in config.pages}
    return found | {"issuer": "issuer's portal"} if config.issuer.serve else found
