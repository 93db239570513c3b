"""The answers that a deployment folder is made from, each checked.

They go into YAML, host names, paths and Authelia's configuration without quoting, so each is of a
small alphabet.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlsplit

from authz.config.value_types import SERVER_NAME

SAMPLES: Final = MappingProxyType(
    {"notes": "http://notes:8000/mcp", "files": "http://files:8000/mcp"}
)
LOGINS: Final = ("front_door", "direct")
# Names of services of the compose file, and paths of the front door.
_TAKEN: Final = frozenset(
    {"envoy", "authz", "authz-2", "authz-pages", "authelia", "redis", "tailscale"}
    | {"prometheus", "alertmanager", "doctor"}
    | {"authorize", "token", "revoke", "register"}
)
_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})+")
_USER: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_EMAIL: Final = re.compile(r"[A-Za-z0-9._+-]{1,64}@[A-Za-z0-9.-]{1,253}")
# Letters of any script, blanks and a little more; never a quote or a line break.
_NAME: Final = re.compile(r"[^\W_](?:[\w .,-]{0,62}[\w.])?")
_UPSTREAM: Final = re.compile(
    r"https?://[A-Za-z0-9.-]{1,253}(?::[0-9]{1,5})?(?:/[A-Za-z0-9._~/-]*)?"
)
_ADDRESS: Final = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}")
PORTAL: Final = "auth"  # the path of the portal where there is one name
_LONGEST_DOMAIN: Final = 240  # `auth.` and `mcp.` come before it, and a name ends at 253
_PORTS: Final = range(1, 65536)
RUNBOOKS: Final = "docs/runbooks.md"
_PAGE: Final = re.compile(r"https?://[A-Za-z0-9.-]{1,253}(?::[0-9]{1,5})?/[A-Za-z0-9._~/-]{0,500}")


_KINDS: Final = MappingProxyType({"servers": dict, "one_name": bool})


class AnswerError(ValueError):
    """Say which answer cannot be used, and what would be right."""


@dataclass(frozen=True, slots=True)
class SetupAnswers:
    """Hold what a folder is made from.

    Attributes:
        domain: what the gateway's and the portal's names end in.
        user, display_name, email: the first person.
        servers: the upstream of each MCP server, by name.
        port: where the gateway is reached.
        bind: on which IPv4 address of the machine.
        funnel: the node's whole name where Tailscale Funnel leads in, instead of a port.
        one_name: whether the portal is under a path of the gateway's name, instead of a name, or
            behind Funnel a port, of its own.
        issuer_url: of an Authelia that somebody has; empty where the folder brings one.
        login: `front_door`, or `direct`: where MCP clients log in.
        internal: how that one is reached from our networks.
        uid, gid: who owns the folder, and is what the containers run as.
        replicas: of the service that decides.
        runbooks: where docs/runbooks.md is on the web: alerts link it.
    """

    domain: str
    user: str = "admin"
    display_name: str = ""
    email: str = ""
    servers: Mapping[str, str] = field(default_factory=lambda: SAMPLES)
    port: int = 443
    bind: str = "0.0.0.0"  # noqa: S104 - a gateway is there to be reached; a container's port
    funnel: str = ""
    one_name: bool = False
    issuer_url: str = ""
    login: str = "front_door"
    internal: str = "http://authelia:9091"
    uid: int = 65532
    gid: int = 65532
    replicas: int = 1
    runbooks: str = RUNBOOKS

    def __post_init__(self) -> None:
        """Refuse what cannot be used.

        Raises:
            AnswerError: with the answer and what would be right.
        """
        for words, value, pattern, right in (
            ("domain", self.domain, _DOMAIN, "lower-case labels and dots, as home.example.com"),
            ("user", self.user, _USER, "a-z, 0-9, dots, dashes and underlines, as john"),
            ("display name", self.display_name or self.user, _NAME_OR_USER, "letters and blanks"),
            ("email", self.email or "a@b", _EMAIL, "an address, as john@example.com"),
            ("bind", self.bind, _ADDRESS, "an IPv4 address of this machine, as 127.0.0.1"),
            ("internal", self.internal, _UPSTREAM, "a URL, as http://authelia:9091"),
        ):
            _check(words, value, pattern, right)
        if len(self.domain) > _LONGEST_DOMAIN:
            raise AnswerError("domain: it is too long for a host name before it")
        if self.funnel:
            _check("funnel", self.funnel, _DOMAIN, "the node's whole name, as mcp.tail1234.ts.net")
        if self.login not in LOGINS:
            raise AnswerError("login: write front_door or direct")
        if self.runbooks != RUNBOOKS:
            _check("runbooks", self.runbooks, _PAGE, "a URL, as https://wiki.example.com/authz")
        _numbers(self)
        if not self.servers:
            raise AnswerError("server: name one, as notes=http://notes:8000/mcp")
        for name, upstream in self.servers.items():
            _server(name, upstream)
        if self.one_name:
            _one_name(self)

    @property
    def ours(self) -> bool:
        """Tell whether the folder brings an Authelia."""
        return not self.issuer_url

    @property
    def gateway(self) -> str:
        """Return the gateway's URL."""
        return f"https://{self.funnel}" if self.funnel else f"https://mcp.{self.domain}{self._port}"

    @property
    def issuer(self) -> str:
        """Return the issuer: a name, or behind Funnel a port, of its own; or a path."""
        if self.issuer_url:
            return self.issuer_url
        if self.one_name:
            return f"{self.gateway}/{PORTAL}"
        # A node has one name; Funnel lets three ports in, 443, 8443 and 10000.
        return (
            f"https://{self.funnel}:8443"
            if self.funnel
            else f"https://auth.{self.domain}{self._port}"
        )

    @property
    def cookie_domain(self) -> str:
        """Return the domain of the portal's cookie: where there is one name, that name alone."""
        host = urlsplit(self.gateway).hostname or ""
        return host if self.funnel or self.one_name else self.domain

    @property
    def samples(self) -> tuple[str, ...]:
        """Return the servers that are our samples."""
        return tuple(name for name, url in self.servers.items() if SAMPLES.get(name) == url)

    @property
    def _port(self) -> str:
        return "" if self.port == 443 else f":{self.port}"  # noqa: PLR2004 - https's own

    def to_json(self) -> str:
        """Return the answers for the next run; none is secret."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return json.dumps(values | {"servers": dict(self.servers)}, indent=2) + "\n"


def from_json(text: str) -> dict[str, Any]:
    """Return the answers of an earlier run, to be completed by what is said now.

    Raises:
        AnswerError: where it is not what `to_json` writes.
    """
    try:
        values = json.loads(text)
    except ValueError:
        values = None
    known = {each.name: each.type for each in fields(SetupAnswers)}
    if not isinstance(values, dict) or not values.keys() <= known.keys():
        raise AnswerError(
            "init.json: it is not what authz init wrote; remove it, and say all again"
        )
    numbers = {"port", "uid", "gid", "replicas"}
    for name, value in values.items():
        kind = int if name in numbers else _KINDS.get(name, str)
        if type(value) is not kind:
            raise AnswerError(f"init.json: {name} is not what authz init wrote")
    return values


def _one_name(answers: SetupAnswers) -> None:
    if answers.issuer_url:
        raise AnswerError("one-name: it is for the Authelia that the folder brings")
    if PORTAL in answers.servers:
        raise AnswerError(f"server: {PORTAL} is where the portal is; take another name")


def _numbers(answers: SetupAnswers) -> None:
    if answers.replicas not in {1, 2}:
        raise AnswerError("replicas: write 1 or 2")
    if answers.port not in _PORTS:
        raise AnswerError("port: write 1 to 65535")
    if answers.uid < 1 or answers.gid < 1:
        raise AnswerError("owner: root is nobody to run as; write UID:GID of somebody else")


def _server(name: object, upstream: object) -> None:
    if not isinstance(name, str) or re.fullmatch(SERVER_NAME.pattern, name) is None:
        raise AnswerError(f"server: a name is of a-z, 0-9, _ and -, as {SERVER_NAME.example}")
    if name in _TAKEN:
        raise AnswerError(f"server: {name} is a name of ours; take another one")
    if isinstance(upstream, str) and upstream.startswith(("unix:", "/")):
        raise AnswerError(
            f"server: {name} is in a container of its own, which shares a network with Envoy and no"
            f" folder; write {name}=http://{name}:8000/mcp"
        )
    if not isinstance(upstream, str) or _UPSTREAM.fullmatch(upstream) is None:
        raise AnswerError(f"server: {name} needs a URL, as {name}=http://{name}:8000/mcp")


_NAME_OR_USER: Final = re.compile(rf"(?:{_NAME.pattern})|(?:{_USER.pattern})")


def _check(words: str, value: str, pattern: re.Pattern[str], right: str) -> None:
    if pattern.fullmatch(value) is None:
        raise AnswerError(f"{words}: write {right}")
