"""Write the deployment folder: secrets, the files that name them, what authz.yaml implies.

Envoy's configuration and the clients of Authelia are made of the authz.yaml that is there, not of
the answers: whoever changed it gets what the change implies.
"""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from secrets import token_hex
from typing import Any, Final
from urllib.parse import urlsplit

import jinja2

from authz import __version__
from authz.authelia import implied
from authz.config import location
from authz.config.endpoints import Unix
from authz.config.key_files import new_private_key, public_half
from authz.config.load import Settings, load
from authz.config.schema import schema_text
from authz.envoy.files import BLIND, STATS_SOCKET, steps
from authz.setup import secrets
from authz.setup.answers import PORTAL, SetupAnswers, from_json
from authz.setup.authority import (
    AUTHORITY,
    AUTHORITY_KEY,
    AUTHORITY_LIFETIME,
    LIFETIME,
    NoAuthorityError,
    read_authority,
)
from authz.setup.certificates import issue, new_authority
from authz.setup.dashboards import DASHBOARDS, dashboard_json
from authz.setup.folder import OWNER, FileOutcome, Folder

ANSWERS: Final = location.ANSWERS
CONFIGURATION: Final = f"{location.FOLDER}/{location.NAME}"
SCHEMA: Final = "authz.schema.json"
AUTHELIA_CLIENTS: Final = "authelia/authz.yml"
_DOOR: Final = "secrets/front_door"
_ENVOY: Final = "envoy"
_ENVOY_ADMIN: Final = "/tmp/envoy-admin.sock"  # noqa: S108 - a container's own
# In the volume that Envoy and authz share.
# The second replica of `authz serve` (docs/upgrade.md), and where Envoy asks it.
REPLICA: Final = "authz-2"
_REPLICA_SOCKET: Final = "/run/authz/replica-2.sock"
# Below Envoy's mem_limit of the compose file, so that it sheds load before it is killed.
_HEAP: Final = 1 << 30
# What the containers of authz mount, by where the folder has authz.yaml.
_MOUNTED: Final = {
    CONFIGURATION: f"{location.FOLDER}:/etc/authz:ro",
    location.NAME: f"{location.NAME}:/etc/authz/authz.yaml:ro",
}
_SINGLE_FILE: Final = re.compile(r"^[^#\n]*authz\.yaml:/\S*/authz\.yaml", re.MULTILINE)
_UNMOUNT: Final = r"s#/authz\.yaml:/etc/authz/authz\.yaml#/authz:/etc/authz#"
_TEMPLATES: Final = {
    ".env": "env",
    ".gitattributes": "gitattributes",
    ".gitignore": "gitignore",
    "docker-compose.yml": "docker-compose.yml",
    "firewall.nft": "firewall.nft",
    CONFIGURATION: "authz.yaml",
    "alertmanager/alertmanager.yml": "alertmanager.yml",
    "grafana/provisioning/dashboards/authz.yml": "grafana-dashboards.yml",
    "grafana/provisioning/datasources/prometheus.yml": "grafana-datasource.yml",
    "prometheus/prometheus.yml": "prometheus.yml",
    "prometheus/rules.yml": "rules.yml",
    "redis/valkey.conf": "valkey.conf",
    "tailscale/serve.json": "serve.json",
}


@dataclass(frozen=True, slots=True)
class SetupResult:
    """Hold what was done.

    Attributes:
        folder: where.
        outcomes: what became of each file.
        stale: files that authz.yaml no longer implies; `render` renews them.
        password_file: where the first person's password is, if we made one; else None.
        move: commands that put authz.yaml into a folder which containers mount as a whole; empty
            where they do.
    """

    folder: Path
    outcomes: Mapping[str, FileOutcome]
    stale: tuple[str, ...]
    password_file: Path | None
    move: tuple[str, ...] = ()


def write_folder(
    root: Path, answers: SetupAnswers, password: str | None, *, render: bool = False
) -> SetupResult:
    """Write what is missing.

    Args:
        root: the folder; made where it is not there.
        answers: what it is made from.
        password: of the first person; None to make one.
        render: whether what is made of authz.yaml replaces what is there.

    Raises:
        ConfigError: where authz.yaml, which somebody changed, is wrong.
        OSError: where something cannot be read or written.
    """
    folder = Folder(root, answers.uid, answers.gid)
    _answers(folder, answers)
    _secrets(folder, answers)
    password_file = _people(folder, answers, password) if answers.ours else None
    configuration = _configuration(root)
    values = {**_values(answers), "mounted": _MOUNTED[configuration]}
    # An engine makes a folder of what is mounted and not there.
    values["authority"] = (root / AUTHORITY).is_file()
    for name, template in _TEMPLATES.items():
        folder.put(configuration if name == CONFIGURATION else name, _text(template, values))
    for dashboard in DASHBOARDS:
        folder.put(f"grafana/dashboards/{dashboard.name}.json", dashboard_json(dashboard))
    if answers.ours:
        folder.put("authelia/configuration.yml", _text("configuration.yml", values))
        folder.folder("data/authelia", private=True)
    for name in (
        "redis",
        "prometheus",
        "alertmanager",
        "grafana",
        *(("tailscale",) if answers.funnel else ()),
    ):
        folder.folder(f"data/{name}", private=True)
    stale = _derived(folder, configuration, render=render)
    return SetupResult(root, folder.outcomes, stale, password_file, _move(root))


def _answers(folder: Folder, answers: SetupAnswers) -> None:
    """Keep the answers; of those that are there `replicas` and `runbooks` alone may change."""
    if folder.put(ANSWERS, answers.to_json()) is FileOutcome.KEPT:
        before = SetupAnswers(**from_json((folder.root / ANSWERS).read_text("utf-8")))
        if replace(before, replicas=answers.replicas, runbooks=answers.runbooks) == answers:
            folder.renew(ANSWERS, answers.to_json())


def _configuration(root: Path) -> str:
    """Return where the folder has authz.yaml: folders of earlier releases have it at the top."""
    old = (root / location.NAME).exists() and not (root / CONFIGURATION).exists()
    return location.NAME if old else CONFIGURATION


def _move(root: Path) -> tuple[str, ...]:
    """Return the commands that end the mount of a single file; none where there is no such."""
    compose = root / "docker-compose.yml"
    if not mounts_single_file(compose):
        return ()
    moved = _configuration(root) != CONFIGURATION
    names = " ".join(name for name in (location.NAME, SCHEMA) if (root / name).exists())
    return (
        *((f"mkdir -p {location.FOLDER} && mv {names} {location.FOLDER}/",) if moved else ()),
        f"sed -i '{_UNMOUNT}' docker-compose.yml",
        "docker compose up -d",
    )


def mounts_single_file(compose: Path) -> bool:
    """Tell whether a docker-compose.yml mounts authz.yaml alone; False where it cannot be read.

    Of a file that is mounted alone a container keeps the old one when an editor replaces it.
    """
    try:
        return _SINGLE_FILE.search(compose.read_text("utf-8")) is not None
    except (OSError, ValueError):
        return False


def compose_text(answers: SetupAnswers, here: str = ".") -> str:
    """Return docker-compose.yml for a folder, as it is read from beside or above that folder."""
    return _text("docker-compose.yml", {**_values(answers), "here": here})


def authelia_clients(root: Path, settings: Settings) -> str:
    """Return what Authelia has to know in a folder: its `AUTHELIA_CLIENTS`, all of it derived."""
    # In the container the key is elsewhere than here.
    return implied(settings.config, door_key=public_half(root / _DOOR)).yaml()


def rules_text(answers: SetupAnswers) -> str:
    """Return prometheus/rules.yml: the alerts of a deployment."""
    return _text("rules.yml", _values(answers))


def _secrets(folder: Folder, answers: SetupAnswers) -> None:
    authz = folder.secret("secrets/redis_authz", secrets.random_secret)
    authelia = None
    if answers.ours:
        authelia = folder.secret("secrets/redis_authelia", secrets.random_secret)
        for name in ("session", "storage", "reset", "hmac"):
            folder.secret(f"secrets/authelia_{name}", secrets.random_secret)
        folder.secret("secrets/authelia_jwk", secrets.signing_key)
    folder.put("secrets/redis_users", secrets.redis_users(authz, authelia), OWNER)
    if answers.login == "front_door":
        folder.secret(_DOOR, new_private_key)
    # Compose wants the file to be there, whether or not the profile is used.
    folder.secret("secrets/tailscale_authkey", str)
    folder.secret("secrets/grafana_admin", secrets.random_password)
    folder.secret("secrets/alert_receiver", str)  # whoever fills in a receiver puts it there
    if not answers.funnel:
        _certificate(folder, answers)


def _certificate(folder: Folder, answers: SetupAnswers) -> None:
    """Make an authority and a certificate where there is none; a key and its certificate together.

    The authority's key is kept for renewals (`authz certificate --renew`); no container has it.
    """
    names = (AUTHORITY_KEY, "secrets/tls/tls.key", "secrets/tls/tls.crt", AUTHORITY)
    if any((folder.root / name).exists() for name in names[1:3]):
        for name in names[1:]:
            folder.outcomes[name] = FileOutcome.UNCHANGED
        return
    hosts = [urlsplit(answers.gateway).hostname or ""]
    if answers.ours and not answers.one_name:
        hosts.append(urlsplit(answers.issuer).hostname or "")
    try:
        authority = read_authority(folder.root)
    except NoAuthorityError:
        authority = new_authority(answers.domain, lifetime=AUTHORITY_LIFETIME)
        _set_aside(folder.root / AUTHORITY_KEY)
        folder.put(AUTHORITY_KEY, authority.key, OWNER)
        folder.renew(AUTHORITY, authority.certificate.decode())
    certificate, key = issue(authority, hosts, lifetime=LIFETIME)
    folder.put(names[1], key, OWNER)
    folder.put(names[2], certificate)


def _set_aside(key: Path) -> None:
    """Rename the key of an authority whose certificate is lost."""
    if key.exists():
        key.rename(key.with_name(f"{key.name}.unused-{token_hex(4)}"))


def _people(folder: Folder, answers: SetupAnswers, password: str | None) -> Path | None:
    users, first = "users/users.yml", "secrets/first_password"
    if (folder.root / users).exists():
        folder.outcomes[users] = FileOutcome.UNCHANGED
        return None
    chosen = folder.secret(first, secrets.random_password) if password is None else password
    values = {
        "user": answers.user,
        "display_name": answers.display_name or answers.user,
        "email": answers.email or f"{answers.user}@{answers.domain}",
        "digest": secrets.password_digest(chosen),
    }
    folder.put(users, _text("users.yml", values), OWNER)
    return folder.root / first if password is None else None


def _derived(folder: Folder, configuration: str, *, render: bool) -> tuple[str, ...]:
    settings = load(folder.root / configuration, {}, secrets=False, authorities=True)
    texts = dict[str, str]()
    texts[str(Path(configuration).with_name(SCHEMA))] = schema_text()
    texts[AUTHELIA_CLIENTS] = authelia_clients(folder.root, settings)
    put = folder.renew if render else folder.put
    stale = [name for name, text in texts.items() if put(name, text) is FileOutcome.KEPT]
    return (*_envoy(folder, settings, render=render), *stale)


def _envoy(folder: Folder, settings: Settings, *, render: bool) -> tuple[str, ...]:
    """Write Envoy's files, and return those that authz.yaml no longer implies.

    They are replaced in an order in which an Envoy that watches them fails no request.
    """
    from authz.envoy import render as envoy  # noqa: PLC0415 - an extra; only this part needs it

    compose = (folder.root / location.COMPOSE).read_text("utf-8")
    # What runs says which replicas there are, not what `init` was told once.
    replicas = (Unix(_REPLICA_SOCKET),) if location.has_service(compose, REPLICA) else ()
    where = envoy.Topology(admin=_ENVOY_ADMIN, stats=STATS_SOCKET, memory=_HEAP, replicas=replicas)
    watches = _watches(compose)
    texts = (envoy.render_watched if watches else envoy.render)(settings, where)
    names = {name: f"{_ENVOY}/{name}" for name in texts}
    if not render:
        put = {name: folder.put(names[name], text) for name, text in texts.items()}
        return tuple(names[name] for name in put if put[name] is FileOutcome.KEPT)
    places = {name: folder.root / each for name, each in names.items()}
    old = {name: path.read_text("utf-8") for name, path in places.items() if path.exists()}
    for name, text in steps(old, texts) if watches else ():
        folder.renew(names[name], text)
        time.sleep(BLIND if old else 0)
    for name, text in texts.items():
        if names[name] not in folder.outcomes:
            folder.renew(names[name], text)
    return ()


def _watches(compose: str) -> bool:
    """Tell whether Envoy is started so that it may watch its files.

    In a folder of an earlier release it is not: it would pass over what it does not know.
    """
    return "--reject-unknown-dynamic-fields" in compose


def _values(answers: SetupAnswers) -> dict[str, Any]:
    return {
        # Where the folder is from the file that names its parts.
        "here": ".",
        "mounted": _MOUNTED[CONFIGURATION],
        "version": __version__,
        "domain": answers.domain,
        "cookie_domain": answers.cookie_domain,
        "portal": f"/{PORTAL}" if answers.one_name else "",
        "gateway": answers.gateway,
        "issuer": answers.issuer,
        "internal": answers.internal,
        "ours": answers.ours,
        "funnel": answers.funnel,
        "authority": not answers.funnel,
        "replicas": {"authz": ""} | ({REPLICA: _REPLICA_SOCKET} if answers.replicas > 1 else {}),
        "front_door": answers.login == "front_door",
        "servers": dict(answers.servers),
        "samples": answers.samples,
        "port": answers.port,
        "bind": answers.bind,
        "runbooks": answers.runbooks,
        "uid": answers.uid,
        "gid": answers.gid,
    }


def _text(template: str, values: Mapping[str, Any]) -> str:
    source = files("authz.setup").joinpath("templates", f"{template}.j2").read_text("utf-8")
    # Nothing is escaped: every answer is of an alphabet that needs no quoting (answers.py).
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - YAML, not HTML
    )
    return environment.from_string(source).render(values)
