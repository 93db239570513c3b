"""Whether the running Envoy asks authz, and asks as authz.yaml has it.

`/config_dump` of its admin socket is compared with what would be rendered; nothing is changed.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML

from authz.config.load import Settings
from authz.config.problems import quoted
from authz.doctor.finding import Finding, note, ok, problem, warning
from authz.envoy.files import STATS_SOCKET, SUBSCRIPTIONS, UpdateCounts, update_counts
from authz.http.unix_socket import get_bounded

PART: Final = "envoy"
# Where Envoy tells its statistics where its admin socket is its own (`authz init`).
STATS: Final = Path(STATS_SOCKET)
_PATIENCE: Final = 5.0
_LARGEST: Final = 64 << 20
_FILTER: Final = "envoy.filters.http.ext_authz"
# Clusters of servers (authz/envoy/render/clusters.py, which needs envoy-data-plane).
_SERVER: Final = "mcp:"
# Routes that lead nowhere: of requests without a token (authz/envoy/render/routes.py).
_TOKENLESS: Final = "no-token:"
# The first release of each minor version that has the fixes of August 2026: CVE-2026-73511 and
# -73551 (paths normalised to another than the upstream has), CVE-2026-50572 and -73547
# (ext_authz), nine more. A later minor version has them from the start; an earlier one has none.
_FIXED: Final = {36: 10, 37: 6, 38: 4, 39: 1}
_VERSION: Final = re.compile(r"[0-9a-f]+/1\.(\d{1,3})\.(\d{1,3})(?:-[^/]*)?/")
_UPGRADE: Final = "run a newer release of Envoy; compose has envoyproxy/envoy:v1.40.0"
# `FORWARDED_PORTS` of authz/envoy/render/filters.py, which needs envoy-data-plane.
_WITH_PORT: Final = r"rbac\.forwarded_with_port\.shadow_allowed$"
_BARE: Final = (
    "have the proxy write bare addresses; Azure's Application Gateway: a rewrite rule that sets"
    " X-Forwarded-For to {var_add_x_forwarded_for_proxy}"
)
_RENDER: Final = (
    "authz envoy-config authz.yaml -o …; an Envoy that does not watch these files has to be"
    " restarted"
)
_STRICT: Final = "start Envoy with --reject-unknown-dynamic-fields"
# What no rendered configuration ever has, also where there is none to compare with.
_NEVER: Final[Mapping[tuple[str, ...], str]] = {
    ("failure_mode_allow",): "lets everything through while authz is away",
    ("failure_mode_allow_header_add",): "lets requests through while authz is away",
    ("with_request_body", "allow_partial_message"): "shows authz a part of a long body only",
}
_NAMES: Final = {
    ("failure_mode_allow",): "failure_mode_allow",
    ("with_request_body",): "no_bodies",
    ("with_request_body", "allow_partial_message"): "partial_bodies",
}


@dataclass(frozen=True, slots=True)
class ExtAuthzSettings:
    """Hold what one Envoy says of its ext_authz.

    Attributes:
        filters: the configuration of every such filter.
        routes: the settings of each route that is asked about, by its name. Envoy shows a
            `context_extensions` without its values, so the server is not in it.
    """

    filters: tuple[Mapping[str, Any], ...]
    routes: Mapping[str, Mapping[str, Any]]


def examine(settings: Settings, admin: Path, *, named: bool) -> list[Finding]:
    """Look at the Envoy behind an admin socket.

    Args:
        settings: authz.yaml.
        admin: the socket.
        named: whether somebody gave the path; a socket that is not at the usual place is none
            of our business.
    """
    try:
        server = _ask(admin, "/server_info")
        listeners = _ask(admin, "/listeners?format=json")
        dump = _ask(admin, "/config_dump")
    except (OSError, HTTPException, ValueError, RecursionError) as error:
        found = [*_updates(_counts(STATS))]
        if found and not named:
            return found
        message = f"its admin socket {quoted(str(admin))} does not answer ({type(error).__name__})"
        fix = "give the path of admin.address in envoy.yaml with --envoy-admin, as its user or root"
        return [(problem if named else note)(PART, "unreachable", message, fix)]
    findings = [*_age(server), *_listeners(listeners), *_forwarded(admin)]
    counts = _counts(admin)
    findings += [*_updates(counts), *_lenient(server, watches=bool(counts))]
    actual = read(dump)
    if not actual.filters:
        message = "no listener of it asks authz (there is no ext_authz filter)"
        return [*findings, problem(PART, "no_filter", message, _RENDER)]
    expected = _rendered(settings, admin)
    # The dump has a static listener twice: as it was read, and as it runs.
    wrong = list(dict.fromkeys([*_filters(actual, expected), *_routes(actual, expected)]))
    if expected is None:
        message = "it was not compared with what would be rendered: envoy-data-plane is missing"
        wrong.append(note(PART, "not_compared", message, "pip install 'authz[envoy]'"))
    return findings + (wrong or [ok(PART, "agrees", "it asks authz as authz.yaml has it")])


def _counts(place: Path) -> dict[str, UpdateCounts]:
    """Return what Envoy says of the files that it watches, at one of its two sockets."""
    asked = {name: update_counts(place, prefix) for name, prefix in SUBSCRIPTIONS.items()}
    return {name: counts for name, counts in asked.items() if counts is not None}


def _updates(known: Mapping[str, UpdateCounts]) -> Iterator[Finding]:
    refused = {name: counts.refused for name, counts in known.items() if counts.refused}
    for name, count in refused.items():
        message = f"it refused {name} {count} time(s) since it started, and went on as before"
        fix = "Envoy's log says why; once authz.yaml is mended, reload"
        yield warning(PART, "update_refused", message, fix)
    if known and not refused:
        yield ok(PART, "follows", f"it watches {', '.join(known)}, and has refused none of them")


def _lenient(server: Any, *, watches: bool) -> Iterator[Finding]:
    """Yield whether an Envoy that watches files passes over what it does not know in them."""
    options = server.get("command_line_options") if isinstance(server, dict) else None
    if not isinstance(options, dict) or options.get("reject_unknown_dynamic_fields"):
        return
    if watches:
        message = "it passes over fields that it does not know in the files that it watches"
        yield problem(PART, "lenient", message, _STRICT)


def _ask(admin: Path, path: str) -> Any:
    """Return the JSON document at a path of the admin interface.

    Raises:
        OSError, HTTPException, ValueError: where there is none.
    """
    return json.loads(get_bounded(admin, path, _PATIENCE, _LARGEST))


def upstream_sockets(admin: Path) -> dict[str, str]:
    """Return the Unix sockets by which Envoy reaches servers, by their names; none it does not say.

    `/clusters` of the admin interface has where each endpoint is (envoy.admin.v3.Clusters).
    """
    try:
        document = _ask(admin, "/clusters?format=json")
    except (OSError, HTTPException, ValueError, RecursionError):
        return {}
    found = dict[str, str]()
    for cluster in _mappings(document):
        name, hosts = cluster.get("name"), cluster.get("host_statuses")
        if isinstance(name, str) and name.startswith(_SERVER) and isinstance(hosts, list):
            paths = [each["path"] for each in _mappings(hosts) if isinstance(each.get("path"), str)]
            # Behind the server's name comes the digest of its upstream.
            server = name.removeprefix(_SERVER).partition(":")[0]
            if paths:
                found[server] = paths[-1]
    return found


def _age(document: Any) -> Iterator[Finding]:
    """Yield whether Envoy lacks published fixes (`version` of envoy.admin.v3.ServerInfo)."""
    version = document.get("version") if isinstance(document, dict) else None
    found = _VERSION.match(version) if isinstance(version, str) else None
    if found is None:
        message = "it does not say which release it is"
        yield note(PART, "version_unknown", message, "look at what `envoy --version` prints")
        return
    minor, patch = int(found[1]), int(found[2])
    if patch < _FIXED.get(minor, math.inf if minor < min(_FIXED) else 0):
        message = (
            f"it is Envoy 1.{minor}.{patch}, without the fixes of August 2026 to path "
            "normalisation (CVE-2026-73511, CVE-2026-73551) and "
            "ext_authz (CVE-2026-50572, CVE-2026-73547)"
        )
        yield problem(PART, "too_old", message, _UPGRADE)


def _forwarded(admin: Path) -> Iterator[Finding]:
    """Yield whether a proxy writes ports into X-Forwarded-For (envoy/render/filters.py)."""
    try:
        document = _ask(admin, f"/stats?format=json&filter={_WITH_PORT}")
    except (OSError, HTTPException, ValueError, RecursionError):
        return
    stats = document.get("stats") if isinstance(document, dict) else None
    values = [each.get("value") for each in stats or [] if isinstance(each, dict)]
    count = sum(value for value in values if isinstance(value, int))
    if count:
        message = (
            f"the proxy before it wrote address:port into X-Forwarded-For ({count} requests since "
            "Envoy started), which Envoy does not read: all of them count as the proxy's address"
        )
        yield warning(PART, "forwarded_with_port", message, _BARE)


def _listeners(document: Any) -> Iterator[Finding]:
    statuses = document.get("listener_statuses") if isinstance(document, dict) else None
    names = [str(each.get("name")) for each in statuses or [] if isinstance(each, dict)]
    if names:
        yield ok(PART, "listens", f"it answers; its listeners are {', '.join(names)}")
    else:
        yield problem(PART, "no_listener", "it listens nowhere", _RENDER)


def read(document: Any) -> ExtAuthzSettings:
    """Return what a configuration says of ext_authz, wherever in it that stands."""
    filters: list[Mapping[str, Any]] = []
    routes: dict[str, Mapping[str, Any]] = {}
    for found in _mappings(document):
        if found.get("name") == _FILTER and isinstance(found.get("typed_config"), dict):
            filters.append(found["typed_config"])
        route = found.get("typed_per_filter_config")
        settings = route.get(_FILTER) if isinstance(route, dict) else None
        if isinstance(settings, dict) and not settings.get("disabled"):
            check = settings.get("check_settings")
            routes[str(found.get("name"))] = check if isinstance(check, dict) else {}
    return ExtAuthzSettings(tuple(filters), routes)


def _mappings(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for member in value.values():
            yield from _mappings(member)
    elif isinstance(value, list):
        for member in value:
            yield from _mappings(member)


def _rendered(settings: Settings, admin: Path) -> ExtAuthzSettings | None:
    """Return what would be rendered; None without envoy-data-plane."""
    try:
        from authz.envoy.render import Topology, render  # noqa: PLC0415 - an extra
    except ImportError:
        return None
    text = render(settings, Topology(admin=str(admin)))["envoy.yaml"]
    return read(YAML(typ="safe").load(text))


def _flat(value: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], object]:
    """Return the leaves of a filter's settings; where and how long authz is asked is left out."""
    if not isinstance(value, dict):
        return {path: value}
    leaves: dict[tuple[str, ...], object] = {}
    for name, member in value.items():
        if name not in {"@type", "grpc_service", "stat_prefix"}:
            leaves |= _flat(member, (*path, name))
    return leaves


def _filters(actual: ExtAuthzSettings, expected: ExtAuthzSettings | None) -> Iterator[Finding]:
    wanted = None if expected is None else _flat(expected.filters[0])
    for settings in actual.filters:
        seen = _flat(settings)
        for path, message in _NEVER.items():
            if seen.get(path):
                name = ".".join(path)
                yield problem(PART, _NAMES.get(path, "differs"), f"{name}: it {message}", _RENDER)
        if "with_request_body" not in settings:
            message = "it shows authz no bodies, and every POST is refused (with_request_body)"
            yield problem(PART, "no_bodies", message, _RENDER)
        elif wanted is not None:
            for path in sorted({*seen, *wanted} - _NEVER.keys()):
                if seen.get(path) != wanted.get(path):
                    message = f"{'.'.join(path)} is not as authz.yaml has it"
                    yield problem(PART, "differs", message, _RENDER)


def _routes(actual: ExtAuthzSettings, expected: ExtAuthzSettings | None) -> Iterator[Finding]:
    for name, check in actual.routes.items():
        body = check.get("with_request_body") or {}
        unread = check.get("disable_request_body_buffering") and not name.startswith(_TOKENLESS)
        if unread or body.get("allow_partial_message"):
            message = f"the route {quoted(name)} shows authz no whole bodies"
            yield problem(PART, "no_bodies", message, _RENDER)
    if expected is None:
        return
    for name in sorted(expected.routes.keys() - actual.routes.keys()):
        yield problem(PART, "missing_route", f"it asks about no route {quoted(name)}", _RENDER)
    for name in sorted(actual.routes.keys() - expected.routes.keys()):
        message = f"it has a route {quoted(name)} that authz.yaml does not have"
        yield problem(PART, "unknown_route", message, _RENDER)
