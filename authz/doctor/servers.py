"""Whether each MCP server can be asked as Envoy asks it, and whether its tools are those of rules.

A server is asked without any identity, from where this runs. A fault is named by what else answers:
the other scheme, another Host, another path.

Invariant: whatever a server says ends in findings, within bounds of time and size
(tests/doctor/test_servers.py).
"""

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final, NamedTuple

import httpx

from authz.config import urls
from authz.config.endpoints import Unix
from authz.config.load import Settings
from authz.config.model import ServerConfig
from authz.config.problems import WrongValueError, quoted
from authz.config.upstream_authorities import upstream_trust
from authz.core.catalogue import (
    Catalogue,
    PinState,
    Sighting,
    ToolDefinition,
    catalogue_of,
    pin_state,
)
from authz.core.policy import MODERN, Server
from authz.core.strict_json import StrictJsonError, loads
from authz.doctor.exchange import (
    ExchangeError,
    ExchangeFault,
    Target,
    exchange,
    opens_event_stream,
    speaks_tls,
)
from authz.doctor.finding import Finding, note, ok, problem, warning
from authz.http.bounded import BoundedResponse, media_type
from authz.server import sample
from authz.server.tool_lists import ToolListError, list_tools
from authz.server.tool_rules import (
    nearest_tools,
    refused_tools,
    unknown_arguments,
    unmatched_rules,
)

PART: Final = "servers"
_WHOLE: Final = 30.0  # seconds for one server
_SECONDS: Final = 5.0
_SHORT: Final = 3.0
_AT_ONCE: Final = 8
_SHOWN: Final = 10  # names in one sentence
_WILD: Final = frozenset("*?[")
# Where the software of MCP servers usually answers.
_USUAL: Final = ("/mcp", "/mcp/", "/", "")

Seen = Callable[[str], Awaitable[Sequence[Sighting]]]


class Row(NamedTuple):
    """Say what a fault is called, what it means, and what to do, with names in braces."""

    diagnosis: str
    message: str
    fix: str


_UPSTREAM: Final = "servers.{name}.upstream in authz.yaml, or start the server there"
_TRUST: Final = (
    "name the file of its authority in servers.{name}.upstream_ca, and let the server send its "
    "whole chain; or write http:// where the network between is your own"
)
_OTHER_AUTHORITY: Final = Row(
    "untrusted",
    "the certificate of {url} is of another authority than that of servers.{name}.upstream_ca, or "
    "its chain is not whole",
    "write the authority's certificate into that file, and let the server send its whole chain",
)
_FAULTS: Final[Mapping[ExchangeFault, Row]] = {
    ExchangeFault.NO_NAME: Row("no_name", "the name in {url} is not known here", _UPSTREAM),
    ExchangeFault.REFUSED: Row("refused", "nobody listens at {url}", f"the port of {_UPSTREAM}"),
    ExchangeFault.LATE: Row("late", "{url} does not answer in time", _UPSTREAM),
    ExchangeFault.NO_ROUTE: Row("no_route", "no way leads to {url} from here", _UPSTREAM),
    ExchangeFault.NO_SOCKET: Row(
        "no_socket",
        "nobody listens at its socket",
        "servers.{name}.socket in authz.yaml, or start the server there",
    ),
    ExchangeFault.NOT_PERMITTED: Row(
        "socket_mode",
        "this user may not connect to its socket",
        "let Envoy's user write to it: its mode and group",
    ),
    ExchangeFault.UNTRUSTED: Row(
        "untrusted",
        "the certificate of {url} is of an authority that is not trusted here, or its chain is "
        "not whole",
        _TRUST,
    ),
    ExchangeFault.OTHER_NAME: Row(
        "other_name",
        "the certificate of {url} is for another name",
        "write the name that the certificate has into servers.{name}.upstream",
    ),
    ExchangeFault.EXPIRED: Row(
        "expired", "the certificate of {url} has expired", "renew the server's certificate"
    ),
    ExchangeFault.NOT_YET_VALID: Row(
        "not_yet_valid",
        "the certificate of {url} is not valid yet",
        "set the clocks of both machines, or wait",
    ),
    ExchangeFault.TLS: Row("tls", "TLS with {url} fails", "look at the server's own log"),
    ExchangeFault.NO_TLS: Row(
        "speaks_http",
        "{url} speaks plain http, and https is written",
        "write http:// in servers.{name}.upstream",
    ),
    ExchangeFault.WANTS_TLS: Row(
        "speaks_https",
        "{url} speaks https, and plain http is written",
        "write https:// in servers.{name}.upstream",
    ),
    ExchangeFault.NO_HTTP: Row(
        "no_http",
        "what answers at {url} is no HTTP",
        "the port of servers.{name}.upstream; a server that speaks MCP over stdio needs a wrapper "
        "that speaks Streamable HTTP",
    ),
    ExchangeFault.TOO_LARGE: Row(
        "too_large", "the answer of {url} is too long", "look at what listens there"
    ),
    ExchangeFault.COMPRESSED: Row(
        "compressed",
        "the answer of {url} is compressed, though asked not to be",
        "turn compression off at the server, or at what stands before it: lists are not filtered "
        "otherwise",
    ),
}
# What may only be so from here: Envoy may be on another network, or another user.
_OF_THE_PLACE: Final = frozenset(
    {
        ExchangeFault.NO_NAME,
        ExchangeFault.NO_ROUTE,
        ExchangeFault.LATE,
        ExchangeFault.NO_SOCKET,
        ExchangeFault.NOT_PERMITTED,
    }
)
_PATH: Final = "the path of servers.{name}.upstream"
_OWN_LOG: Final = "look at the server's own log"
_HOST: Final = Row(
    "host_check",
    "{url} refuses the Host of servers.{name}.upstream, as servers do against DNS rebinding",
    "let the server take that Host (the official Python SDK: allowed_hosts of "
    "TransportSecuritySettings), or write the name that it knows",
)
_STATUS: Final[Mapping[int, Row]] = {
    404: Row("not_found", "nothing of MCP is at {url} (404)", _PATH),
    405: Row("no_post", "{url} takes no POST (405), which Streamable HTTP is", _PATH),
    421: _HOST,
    403: Row("forbidden", "{url} refuses us (403)", "look at what the server asks of its callers"),
    406: Row("not_acceptable", "{url} gives neither JSON nor an event stream (406)", _PATH),
    413: Row("too_small", "{url} takes no body of a few hundred bytes (413)", _OWN_LOG),
    415: Row("media_type", "{url} takes no JSON (415)", _PATH),
    429: Row("limited", "{url} has a limit of its own, and it is reached (429)", _OWN_LOG),
    500: Row("fails", "{url} fails (500)", _OWN_LOG),
    502: Row(
        "bad_gateway",
        "what answers at {url} is a proxy that does not reach the server (502)",
        "the proxy's log, or lead servers.{name}.upstream to the server itself",
    ),
    503: Row("not_ready", "{url} is not ready (503)", _OWN_LOG),
    504: Row(
        "gateway_timeout",
        "what answers at {url} is a proxy that waits for the server in vain (504)",
        "the proxy's log, or lead servers.{name}.upstream to the server itself",
    ),
}


@dataclass(frozen=True, slots=True)
class _Asked:
    """Hold one server, as it is asked."""

    name: str
    config: ServerConfig
    rules: Server
    beside_envoy: bool
    trust: ssl.SSLContext | None

    def finding(self, row: Row, *, soft: bool = False, **more: str) -> Finding:
        """Return what a row says of this server.

        Args:
            row: with names in braces.
            soft: whether it may be so from here alone.
            more: what fills them in besides `name` and `url`; quoted, where it is not ours.
        """
        names = {"name": self.name, "url": quoted(self.config.upstream), **more}
        message = f"{self.name}: {row.message.format(**names)}"
        fix = row.fix.format(**names)
        if not soft or self.beside_envoy:
            return problem(PART, row.diagnosis, message, fix)
        elsewhere = "; nothing is wrong if Envoy reaches it from where it runs: ask there"
        return warning(PART, row.diagnosis, message, fix + elsewhere)

    def fault(self, fault: ExchangeFault) -> Finding:
        """Return what it means that there is no response."""
        row = _FAULTS[fault]
        if fault is ExchangeFault.UNTRUSTED and self.config.upstream_ca is not None:
            row = _OTHER_AUTHORITY
        return self.finding(row, soft=fault in _OF_THE_PLACE)

    def ok(self, diagnosis: str, message: str) -> Finding:
        """Return that something is well."""
        return ok(PART, diagnosis, f"{self.name}: {message}")

    def target(self, **headers: str) -> Target:
        """Return where it is, with the headers of a first message."""
        sent, _ = self.message()
        socket = None if self.config.socket is None else self.config.socket.path
        return Target(self.config.upstream, socket, {**sent, **headers}, verify=self.trust)

    def message(self) -> tuple[Mapping[str, str], bytes]:
        """Return a first message, of the older protocol where the server may speak that."""
        legacy = set(self.config.versions) - {MODERN}
        if not legacy:
            headers, body = sample.message({MODERN}, "tools/list")
        else:
            version = max(legacy)
            headers, body = sample.message({version}, "initialize")
            body["params"] = {
                "protocolVersion": version,
                "capabilities": {},
                "clientInfo": sample.CLIENT_INFO,
            }
            del headers["mcp-protocol-version"]  # it is being negotiated
        return headers, json.dumps(body).encode("ascii")


async def examine(
    settings: Settings,
    seen: Seen | None = None,
    *,
    sockets: Mapping[str, str] = MappingProxyType({}),
    beside_envoy: bool = False,
) -> list[Finding]:
    """Look at every server, several at a time.

    Args:
        settings: authz.yaml.
        seen: returns what workers have seen of a server's tools; None where nobody knows.
        sockets: of Unix, by which Envoy reaches servers whatever authz.yaml says, by name.
        beside_envoy: whether what is out of reach from here is so for Envoy too.
    """
    places = asyncio.Semaphore(_AT_ONCE)

    async def one(name: str, config: ServerConfig) -> list[Finding]:
        if name in sockets:
            config = config.model_copy(update={"socket": Unix(sockets[name])})
        trust = upstream_trust(settings.authorities, name)
        asked = _Asked(name, config, settings.policy.servers[name], beside_envoy, trust)
        async with places:
            try:
                async with asyncio.timeout(_WHOLE):
                    return await _server(asked, seen)
            except TimeoutError:
                return [asked.fault(ExchangeFault.LATE)]

    servers = settings.config.servers.items()
    found = await asyncio.gather(*(one(name, config) for name, config in servers))
    return [finding for each in found for finding in each]


async def _server(asked: _Asked, seen: Seen | None) -> list[Finding]:
    try:
        listed = await list_tools(asked.config, verify=asked.trust)
    except ToolListError as error:
        trouble = await _trouble(asked, str(error))
        sightings = () if seen is None else await seen(asked.name)
        return [trouble, *_seen_lately(asked, sightings)]
    found = asked.ok("lists", f"it answers, and lists {len(listed.definitions)} tools")
    catalogue = catalogue_of([Sighting(each, 0) for each in listed.definitions])
    rejected = list(_rejected(asked, len(listed.rejected)))
    compared = await asyncio.to_thread(list, compare(asked.rules, listed.definitions, catalogue))
    return [found, *rejected, *compared]


def _rejected(asked: _Asked, count: int) -> Iterator[Finding]:
    if count:
        message = f"{asked.name}: {count} of what it lists are no tools: clients do not get them"
        yield warning(PART, "no_tools", message, f"`authz tools {asked.name}` says why")


def _seen_lately(asked: _Asked, sightings: Sequence[Sighting]) -> list[Finding]:
    """Compare what clients were shown last, where a server cannot be asked from here."""
    if not sightings:
        return []
    catalogue = catalogue_of(sightings)
    message = f"it was seen through Envoy within a day, with {len(catalogue.tools)} tools"
    lately = [
        each.definition
        for each in sightings
        if each.definition.digest in catalogue.tools[each.definition.name].digests
    ]
    return [asked.ok("seen", message), *compare(asked.rules, lately, catalogue)]


# --- why there is no list ------------------------------------------------------------------------


async def _trouble(asked: _Asked, said: str) -> Finding:
    """Say why a server gives no list, by one more question and what follows from its answer."""
    try:
        asked, answer = await _answer(asked)
    except ExchangeError as error:
        return asked.fault(error.fault)
    if httpx.codes.is_redirect(answer.status):
        return _redirected(asked, answer)
    if answer.status == httpx.codes.UNAUTHORIZED:
        return _asks_who(asked, answer)
    if answer.status in {403, 421} and await _checks_host(asked, answer.status):
        return asked.finding(_HOST)
    if answer.status == httpx.codes.BAD_REQUEST and await _wants_tls(asked):
        return asked.fault(ExchangeFault.WANTS_TLS)
    if answer.status in {404, 405}:
        return await _elsewhere(asked, _STATUS[answer.status])
    if answer.status in _STATUS:
        return asked.finding(_STATUS[answer.status])
    if httpx.codes.is_success(answer.status) and not _is_mcp(answer):
        return await _elsewhere(asked, _other(answer))
    if httpx.codes.is_success(answer.status):
        message = f"{asked.name}: it answers, and gives no list of tools: {said}"
        fix = f"`authz tools {asked.name}`, and the server's own log; a server may have no tools"
        return warning(PART, "no_list", message, fix)
    row = Row("status", "{url} answers with HTTP status {status}", _OWN_LOG)
    return asked.finding(row, status=str(answer.status))


async def _answer(asked: _Asked) -> tuple[_Asked, BoundedResponse]:
    """Return what a first message is answered, and in which protocol further ones are to be sent.

    A server of 2026-07-28 alone may refuse the older protocol (400) before it looks at Host and
    path: only the newer one shows what is wrong with these.

    Raises:
        ExchangeError: where there is no answer.
    """
    answer = await _post(asked)
    if answer.status != httpx.codes.BAD_REQUEST or MODERN not in asked.config.versions:
        return asked, answer
    newer = replace(asked, config=asked.config.model_copy(update={"versions": [MODERN]}))
    return newer, await _post(newer)


async def _post(asked: _Asked) -> BoundedResponse:
    _, content = asked.message()
    return await exchange(asked.target(), method="POST", content=content, seconds=_SECONDS)


def _is_mcp(answer: BoundedResponse) -> bool:
    media = media_type(answer.headers.get("content-type", ""))
    if media == "text/event-stream":
        return True
    try:
        found = loads(answer.body)
    except StrictJsonError:
        return False
    return isinstance(found, dict) and found.get("jsonrpc") == "2.0"


def _other(answer: BoundedResponse) -> Row:
    media = media_type(answer.headers.get("content-type", ""))
    if media in {"text/html", "application/xhtml+xml"}:
        return Row("html", "{url} answers with a page for people (HTML), not with MCP", _PATH)
    return Row("no_mcp", "what {url} answers is no MCP", _PATH)


def _redirected(asked: _Asked, answer: BoundedResponse) -> Finding:
    location = answer.headers.get("location", "")
    try:
        right = str(httpx.URL(asked.config.upstream).join(location))
        urls.UPSTREAM.read(right)
        fix = "write servers.{name}.upstream: {right}, if the server is there"
    except (httpx.InvalidURL, ValueError):
        right, fix = "", _PATH
    row = Row(
        "redirect",
        "{url} redirects ({status}) to {location}; Envoy follows no redirect, and clients would "
        "be sent where they cannot come",
        fix,
    )
    return asked.finding(
        row, status=str(answer.status), location=quoted(location), right=quoted(right)
    )


def _asks_who(asked: _Asked, answer: BoundedResponse) -> Finding:
    if asked.config.identity == "signed":
        message = f"{asked.name}: it answers 401 to us, who bring no x-authz-identity, as it should"
        fix = "a call through Envoy shows whether it takes the signed identity (docs/servers.md)"
        return note(PART, "asks_identity", message, fix)
    own = "www-authenticate" in answer.headers
    message = "{url} asks for a token of its own (401)" if own else "{url} answers 401"
    return asked.finding(
        Row(
            "own_login",
            f"{message}: the caller's token is never passed on to it, so nobody gets in",
            "turn its own log-in off, or have it take who calls from authz: identity: signed "
            "(docs/servers.md)",
        )
    )


async def _checks_host(asked: _Asked, status: int) -> bool:
    """Tell whether another Host is answered otherwise."""
    _, content = asked.message()
    port = urls.split(asked.config.upstream).port
    for host in ("localhost", f"localhost:{port}", f"127.0.0.1:{port}"):
        try:
            answer = await exchange(
                asked.target(host=host), method="POST", content=content, seconds=_SHORT
            )
        except ExchangeError:
            return False
        if answer.status not in {403, 421}:
            return True
    return status == httpx.codes.MISDIRECTED_REQUEST


async def _wants_tls(asked: _Asked) -> bool:
    if urls.split(asked.config.upstream).scheme == "https":
        return False
    try:
        async with asyncio.timeout(_SHORT):
            return await speaks_tls(asked.target())
    except TimeoutError:
        return False


async def _elsewhere(asked: _Asked, row: Row) -> Finding:
    """Say which of the usual paths answers, or that the transport is the old one."""
    url = urls.split(asked.config.upstream)
    base = asked.config.upstream.removesuffix(url.path) if url.path else asked.config.upstream
    slash = url.path[:-1] if url.path.endswith("/") else f"{url.path}/"
    paths = [each for each in dict.fromkeys((slash, *_USUAL)) if each != url.path]
    found = await asyncio.gather(*(_lists_at(asked, f"{base}{path}") for path in paths))
    for path, lists in zip(paths, found, strict=True):
        if lists:
            fix = "write servers.{name}.upstream: {right}, which answers"
            return asked.finding(row._replace(fix=fix), right=quoted(base + path))
    if await opens_event_stream(asked.target(), _SHORT):
        message = "{url} speaks HTTP with SSE of MCP 2024-11-05, which authz does not guard"
        fix = "have the server speak Streamable HTTP (MCP 2025-03-26 or newer), and write its path"
        return asked.finding(Row("old_transport", message, fix))
    return asked.finding(row)


async def _lists_at(asked: _Asked, url: str) -> bool:
    try:
        urls.UPSTREAM.read(url)
        config = asked.config.model_copy(update={"upstream": url})
        await list_tools(config, seconds=_SHORT, verify=asked.trust)
    except (ToolListError, WrongValueError):
        return False
    return True


# --- the tools beside the rules ------------------------------------------------------------------


def compare(
    rules: Server, definitions: Iterable[ToolDefinition], catalogue: Catalogue
) -> Iterator[Finding]:
    """Yield where rules and the tools that a server lists miss each other."""
    look = f"`authz tools {rules.name}` shows each tool with its rules"
    for rule in unmatched_rules(rules, catalogue):
        near = nearest_tools(rule, catalogue.tools)
        where = f"servers.{rules.name}.{_section(rule)}"
        if near and not _WILD & set(rule):
            message = (
                f"{rules.name}: it lists no tool {quoted(rule)}, of which authz.yaml has a rule"
            )
            fix = f"{where}: did you mean {_names(near)}?"
            yield problem(PART, "unknown_tool", message, fix)
        else:
            message = f"{rules.name}: the rule {quoted(rule)} matches no tool that it lists"
            meant = f": did you mean {_names(near)}?" if near else f"; {look}"
            yield warning(PART, "rule_without_tool", message, where + meant)
    for each in unknown_arguments(rules, definitions):
        message = (
            f"{rules.name}: {each.member} of {quoted(each.rule)} names {quoted(each.pointer)}, "
            f"which the schema of {quoted(each.tool)} does not have"
        )
        where = f"servers.{rules.name}.{_section(each.rule)}"
        if each.near:
            fix = f"{where}: did you mean {_names(each.near)}?"
            yield problem(PART, "unknown_argument", message, fix)
        else:
            yield warning(PART, "unknown_argument", message, where)
    refused = refused_tools(rules, catalogue)
    if refused:
        message = f"{rules.name}: no rule offers {_names(refused)}: calls of them are refused"
        yield note(
            PART, "not_offered", message, f"servers.{rules.name}.tools, if that is not meant"
        )
    if rules.pins is not None:
        pins = rules.pins
        states = {name: pin_state(pins, catalogue, name) for name in catalogue.tools}
        changed = [name for name, state in states.items() if state is not PinState.APPROVED]
        if changed:
            message = f"{rules.name}: not as they were approved, or never: {_names(changed)}"
            yield warning(PART, "not_approved", message, f"`authz tools {rules.name} --diff`")


def _section(rule: str) -> str:
    return "annotations" if rule.startswith("@") else "tools"


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(quoted(name) for name in names[:_SHOWN]) + more
