"""The files that Envoy watches: their names, and their replacement without a failed request.

Invariant: whichever of the files Envoy has read, no route leads to a cluster that is not there: a
new cluster comes before its route, an old one goes after it (tests/envoy/test_files.py). Each file
is replaced by a rename, whole or not at all.

Needs neither envoy-data-plane nor a running Envoy.
"""

import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from authz import __version__
from authz.config.files import READABLE, locked_folder, write_atomically
from authz.config.yaml_writer import comment_text, to_yaml
from authz.http.unix_socket import get_bounded

# Where Envoy tells its statistics in a container.
STATS_SOCKET: Final = "/run/authz/envoy-stats.sock"
ENVOY_FILE: Final = "envoy.yaml"
CERTIFICATE_FILE: Final = "certificate.yaml"
CLUSTERS_FILE: Final = "clusters.yaml"
LISTENERS_FILE: Final = "listeners.yaml"
ROUTES_FILE: Final = "routes.yaml"
RENDERED_FILE: Final = "rendered.json"

_HEADER: Final = "From authz.yaml by `authz envoy-config`. Do not edit: it is replaced."
_VERSION: Final = re.compile(r'^version_info: "?([0-9a-f]{16})"?$', re.MULTILINE)
# Where Envoy counts what became of a file; `certificate.yaml` only says where the pair is.
SUBSCRIPTIONS: Final = {
    CLUSTERS_FILE: "cluster_manager.cds",
    LISTENERS_FILE: "listener_manager.lds",
    ROUTES_FILE: "http.gateway.rds.gateway",
}
_WARMING: Final = "cluster_manager.warming_clusters"
_REFUSED: Final = ("update_rejected", "update_failure")
_LARGEST: Final = 1 << 20
_ANSWER: Final = 2.0
_LOOK: Final = 0.02
# Seconds in which Envoy has taken a file: a name that cannot be resolved takes DNS's own time.
_PATIENCE: Final = 15.0
# Seconds between two files where Envoy does not say that it has taken the first.
BLIND: Final = 1.0


class Step(NamedTuple):
    """Write one file."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class EnvoyUpdate:
    """Say what became of new files.

    Attributes:
        changed: the files that are not what they were.
        refused: the file that Envoy did not take; empty where it refused none. All files are then
            what they were, and Envoy goes on with them.
        confirmed: whether Envoy said that it has taken them all.
        restart: whether `envoy.yaml` changed, which Envoy reads only at its start.
    """

    changed: tuple[str, ...] = ()
    refused: str = ""
    confirmed: bool = True
    restart: bool = False


def rendered_mark(source: str, authorities: Mapping[str, str]) -> dict[str, str]:
    """Return what `rendered.json` says of the release and the configuration that files are of.

    Args:
        source: the text of authz.yaml.
        authorities: what the files of `upstream_ca` hold, by server.
    """
    mark = {"release": __version__, "source": _digest(source)}
    if authorities:
        mark["authorities"] = _digest(json.dumps(sorted(authorities.items())))
    return mark


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def watched_text(resources: Sequence[Mapping[str, object]]) -> str:
    """Return a watched file (envoy.service.discovery.v3.DiscoveryResponse).

    Its version is a digest of its resources, by which Envoy says which it has taken.
    """
    body = to_yaml({"resources": list(resources)})
    version = hashlib.sha256(body.encode()).hexdigest()[:16]
    return comment_text([_HEADER]) + to_yaml({"version_info": version}) + body


def steps(old: Mapping[str, str], new: Mapping[str, str]) -> list[Step]:
    """Return what to write, in order; nothing where all is as it was.

    Args:
        old: the text of each file that is there, by name.
        new: the text of each file that shall be there.
    """
    order = (CERTIFICATE_FILE, LISTENERS_FILE, ROUTES_FILE)
    found = [Step(CLUSTERS_FILE, _united(old.get(CLUSTERS_FILE), new[CLUSTERS_FILE]))]
    found += [Step(name, new[name]) for name in order if name in new]
    found.append(Step(CLUSTERS_FILE, new[CLUSTERS_FILE]))
    found += [Step(name, new[name]) for name in (ENVOY_FILE, RENDERED_FILE)]
    now, needed = dict(old), list[Step]()
    for step in found:
        if now.get(step.name) != step.text:
            needed.append(step)
        now[step.name] = step.text
    return needed


def _united(old: str | None, new: str) -> str:
    """Return the new clusters, and those of the old ones whose names are not among them."""
    wanted = _resources(new)
    names = {each.get("name") for each in wanted}
    kept = [each for each in _resources(old or "") if each.get("name") not in names]
    return watched_text([*wanted, *kept]) if kept else new


def _resources(text: str) -> list[dict[str, Any]]:
    try:
        document = YAML(typ="safe").load(text)
    except YAMLError:
        return []  # of somebody else: Envoy did not take it either
    resources = document.get("resources") if isinstance(document, dict) else None
    found = resources if isinstance(resources, list) else []
    return [each for each in found if isinstance(each, dict)]


def replace_files(
    folder: Path,
    new: Mapping[str, str],
    stats: Path | None,
    *,
    patience: float = _PATIENCE,
    pause: Callable[[float], None] = time.sleep,
) -> EnvoyUpdate:
    """Replace the files of a folder, one after the other, as Envoy takes them.

    Args:
        folder: where they are; made where it is missing.
        new: their texts, by name.
        stats: the socket at which Envoy tells its statistics; None where there is none.
        patience: seconds that Envoy has to take each.
        pause: waits so many seconds.

    Raises:
        OSError: where one cannot be read or written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with locked_folder(folder):
        old = {name: text for name in new if (text := _text(folder / name)) is not None}
        todo = steps(old, new)
        envoy = _Envoy(stats, patience, pause, blind=bool(old))
        confirmed = True
        for number, step in enumerate(todo):
            before = envoy.ask(step.name)
            write(folder / step.name, step.text)
            outcome = envoy.follow(step, before)
            if outcome is _Outcome.REFUSED:
                for done in dict.fromkeys(each.name for each in reversed(todo[: number + 1])):
                    if done in old:
                        write(folder / done, old[done])
                return EnvoyUpdate(refused=step.name, confirmed=False)
            confirmed = confirmed and outcome is _Outcome.TAKEN
        changed = tuple(name for name in new if old.get(name) != new[name])
        restart = ENVOY_FILE in old and ENVOY_FILE in changed
        return EnvoyUpdate(changed, confirmed=confirmed, restart=restart)


def write(path: Path, text: str) -> None:
    """Put a file in place of another one by a rename, which Envoy watches for.

    Raises:
        OSError: where that is not possible; nothing is left then.
    """
    # They hold no secret, and Envoy may run as another user.
    write_atomically(path, text, READABLE)


def _text(path: Path) -> str | None:
    try:
        return path.read_text("utf-8")
    except (FileNotFoundError, ValueError):
        return None


# --- what Envoy says ------------------------------------------------------------------------------


class UpdateCounts(NamedTuple):
    """Say what Envoy has done with one kind of file.

    Attributes:
        version: of the file that it took last.
        refused: how many it did not take.
        warming: how many clusters are not ready yet.
    """

    version: str
    refused: int
    warming: int


class _Outcome(Enum):
    TAKEN = "taken"
    REFUSED = "refused"
    UNSEEN = "unseen"


class _Envoy:
    """Wait until Envoy has taken a file."""

    def __init__(
        self,
        stats: Path | None,
        patience: float,
        pause: Callable[[float], None],
        *,
        blind: bool,
    ) -> None:
        """Take the socket; `blind` is whether to wait where nobody answers there."""
        self._stats = stats
        self._patience = patience
        self._pause = pause
        self._blind = blind

    def ask(self, name: str) -> UpdateCounts | None:
        """Return what became of a file so far; None where Envoy does not say."""
        prefix = SUBSCRIPTIONS.get(name)
        if prefix is None or self._stats is None:
            return None
        return update_counts(self._stats, prefix)

    def follow(self, step: Step, before: UpdateCounts | None) -> _Outcome:
        """Return once Envoy has taken a file or not, or does not say so in time."""
        if step.name not in SUBSCRIPTIONS:
            return _Outcome.TAKEN
        if before is None:
            if self._blind:
                self._pause(BLIND)
            return _Outcome.UNSEEN
        wanted = _VERSION.search(step.text)
        until = time.monotonic() + self._patience
        while time.monotonic() < until:
            now = self.ask(step.name)
            if now is not None and now.refused > before.refused:
                return _Outcome.REFUSED
            if now is not None and wanted and now.version == wanted[1] and not now.warming:
                return _Outcome.TAKEN
            self._pause(_LOOK)
        return _Outcome.UNSEEN


def update_counts(stats: Path, prefix: str) -> UpdateCounts | None:
    """Return what Envoy says of one subscription; None where it says nothing."""
    said = statistics(stats, rf"^({re.escape(prefix)}\.(version_text|update_)|{_WARMING}$)")
    version = said.get(f"{prefix}.version_text")
    if version is None:
        return None
    refused = sum(int(said.get(f"{prefix}.{name}", "0")) for name in _REFUSED)
    return UpdateCounts(version.strip('"'), refused, int(said.get(_WARMING, "0")))


def statistics(stats: Path, regex: str) -> dict[str, str]:
    """Return statistics by name; nothing where Envoy does not answer, or says too much."""
    try:
        data = get_bounded(stats, f"/stats?filter={quote(regex)}", _ANSWER, _LARGEST)
    except (OSError, HTTPException, ValueError):
        return {}
    lines = (line.partition(": ") for line in data.decode("utf-8", "replace").splitlines())
    return {name: value for name, _, value in lines}
