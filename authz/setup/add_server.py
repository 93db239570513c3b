"""Add an MCP server to an authz.yaml that somebody keeps, and to the networks of an `init` folder.

Invariant: what is written is a configuration without errors that says what it said and the server
besides; nothing is written where one of the files cannot be (tests/setup/test_add_server.py).
"""

import ipaddress
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from authz.config import urls
from authz.config.files import locked_folder, write_draft
from authz.config.load import Settings, read, read_text
from authz.config.location import ANSWERS, COMPOSE, DOCTOR, has_service, init_folder
from authz.config.problems import ConfigError
from authz.config.value_types import SERVER_NAME
from authz.config.yaml_edit import EditError, append_item, set_member
from authz.setup.answers import AnswerError, SetupAnswers, from_json
from authz.setup.write import AUTHELIA_CLIENTS, authelia_clients

_LONGEST_URL: Final = 2048


class AddServerError(ValueError):
    """Say why a server is not added, and what would be right."""


@dataclass(frozen=True, slots=True)
class NewServer:
    """Hold what somebody wants to add.

    Attributes:
        name: of the server, and the path of its public URL.
        upstream: its URL, as Envoy reaches it.
        scopes, groups: what it asks for; empty for nothing.
    """

    name: str
    upstream: str
    scopes: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()

    @property
    def members(self) -> dict[str, object]:
        """Return its members in authz.yaml."""
        found: dict[str, object] = {"upstream": self.upstream}
        found |= {"scopes": list(self.scopes)} if self.scopes else {}
        return found | ({"groups": list(self.groups)} if self.groups else {})


@dataclass(frozen=True, slots=True)
class AddedServer:
    """Say what adding a server changes.

    Attributes:
        settings: the configuration with it.
        url: where clients find it.
        texts: the new text of each file, by its path, in the order in which they are written.
        network: the network that it shares with Envoy; empty outside of an `init` folder.
        folder: the `init` folder; None outside.
        replaced: whether it was there, and has another upstream now.
        restarts: the services of the compose file that have to be started anew.
    """

    settings: Settings
    url: str
    texts: Mapping[Path, str]
    network: str = ""
    folder: Path | None = None
    replaced: bool = False
    restarts: tuple[str, ...] = ()


def add_server(
    file: Path, new: NewServer, env: Mapping[str, str], *, replaces: bool, dry_run: bool
) -> AddedServer:
    """Add it, and write what that changes.

    Args:
        file: authz.yaml; a link stays one.
        new: the server.
        env: the environment.
        replaces: whether one that is there gets the upstream, and keeps its rules.
        dry_run: whether nothing is written.

    Raises:
        AddServerError: where it cannot be added; nothing is written.
        ConfigError: where authz.yaml has an error, or would have one.
        OSError: where a file cannot be read or written.
    """
    file = file.resolve()
    with locked_folder(file.parent):
        found = _planned(file, new, env, replaces=replaces)
        if not dry_run:
            _write_all(found.texts)
        return found


def _check_words(new: NewServer) -> None:
    """Refuse what could be anything else than a name and a URL.

    Raises:
        AddServerError: where it is.
    """
    if re.fullmatch(SERVER_NAME.pattern, new.name) is None:
        raise AddServerError(f"the name has to be {SERVER_NAME.what}, as {SERVER_NAME.example}")
    url = new.upstream
    if len(url) > _LONGEST_URL or not (url.isascii() and url.isprintable()) or " " in url:
        raise AddServerError("the URL has to be of printable ASCII without blanks, and not so long")
    if not url.startswith(("http://", "https://")):
        raise AddServerError(
            f"write the URL as Envoy reaches the server, for example http://{new.name}:8000/mcp"
        )


def _planned(file: Path, new: NewServer, env: Mapping[str, str], *, replaces: bool) -> AddedServer:
    _check_words(new)
    text = read_text(file)
    before = read(text, str(file), env, secrets=False)
    servers = before.config.servers
    there = servers.get(new.name)
    if there is not None and not replaces:
        raise AddServerError(
            f"there is a server {new.name} already, at {there.upstream}; --replace gives it the new"
            " URL and keeps its rules"
        )
    if there is not None and (there.socket is not None or new.scopes or new.groups):
        raise AddServerError(
            f"--replace changes the URL alone, and {new.name} has a socket, or rules were given:"
            f" edit {file}"
        )
    try:
        if there is not None:
            edited = set_member(text, ("servers", new.name), "upstream", new.upstream)
        else:
            edited = set_member(text, ("servers",), new.name, new.members)
    except EditError as error:
        raise AddServerError(
            f"{file} is written in a way that is not edited here ({error}); add by hand, under"
            f" servers: {new.name}: {json.dumps(new.members)}"
        ) from None
    settings = read(edited, str(file), env, secrets=False)
    url = settings.config.resource(new.name)
    folder = init_folder(file.parent)
    if folder is None:
        return AddedServer(settings, url, {file: edited}, replaced=there is not None)
    texts = _of_folder(folder, new)
    authelia = _of_authelia(folder, before, settings)
    network = "" if _is_address(new.upstream) else f"mcp-{new.name}"
    # authz.yaml last: a service that watches it takes it at once.
    return AddedServer(
        settings,
        url,
        {**texts, **authelia, file: edited},
        network,
        folder,
        replaced=there is not None,
        restarts=("authelia",) if authelia else (),
    )


def _of_authelia(folder: Path, before: Settings, after: Settings) -> dict[Path, str]:
    """Return what Authelia has to know of now, where its file is as `authz init` wrote it.

    What somebody has written into it stays: that is told instead (`AddedServer.restarts`).
    """
    path = folder / AUTHELIA_CLIENTS
    try:
        there = read_text(path)
    except (ConfigError, OSError):
        return {}
    text = authelia_clients(folder, after)
    if there != authelia_clients(folder, before) or there == text:
        return {}
    return {path: text}


def _is_address(upstream: str) -> bool:
    """Tell whether Envoy reaches the server by an address: no network of ours leads there."""
    try:
        ipaddress.ip_address(urls.split(upstream).host.strip("[]"))
    except ValueError:
        return False
    return True


def is_elsewhere(upstream: str) -> bool:
    """Tell whether a server is on another machine: an address or a name with dots, not loopback."""
    host = urls.split(upstream).host.strip("[]").rstrip(".")
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return "." in host and not host.endswith(".localhost")


def _of_folder(folder: Path, new: NewServer) -> dict[Path, str]:
    """Return what the files of an `init` folder become: its answers, the networks.

    Raises:
        AddServerError: where one is not what `authz init` wrote.
    """
    found = dict[Path, str]()
    answers = folder / ANSWERS
    try:
        said = SetupAnswers(**from_json(read_text(answers)))
        now = replace(said, servers={**said.servers, new.name: new.upstream})
    except AnswerError as error:
        raise AddServerError(str(error)) from None
    if now != said:
        found[answers] = now.to_json()
    compose = folder / COMPOSE
    if _is_address(new.upstream) or not compose.exists():
        return found
    text, network = read_text(compose), f"mcp-{new.name}"
    try:
        edited = text
        # Not a part of another name: mcp-git of mcp-github.
        if re.search(rf"(?<![\w.-]){re.escape(network)}(?![\w.-])", text) is None:
            edited = append_item(edited, ("services", "envoy", "networks"), network)
            if has_service(text, DOCTOR):
                edited = append_item(edited, ("services", DOCTOR, "networks"), network)
            internal = {"internal": True}
            edited = set_member(edited, ("networks",), network, internal, braces=True)
    except EditError as error:
        raise AddServerError(
            f"{compose} is written in a way that is not edited here ({error}); give Envoy the"
            f" network {network} (internal: true) by hand, and run this again"
        ) from None
    return found | ({compose: edited} if edited != text else {})


# --- writing ------------------------------------------------------------------------------------


def _write_all(texts: Mapping[Path, str]) -> None:
    """Write drafts of all files, then rename each: a full disk changes none of them."""
    drafts = dict[Path, Path]()
    try:
        for path, text in texts.items():
            there = path.stat()
            owner = (there.st_uid, there.st_gid)
            drafts[path] = write_draft(path, text, there.st_mode & 0o7777, owner)
        for path, draft in drafts.items():
            draft.replace(path)
    finally:
        for draft in drafts.values():
            draft.unlink(missing_ok=True)
