"""Where a log-in may end: which redirect URIs may be registered, and whether a sent one is.

Invariant: URIs are compared as strings and never normalised (RFC 9700, section 4.1.3); only the
port of a loopback address is free (RFC 8252, section 7.3). What two programs could read in two
ways, or what would lead into a browser or over the network in clear, is not registered.
"""

import ipaddress
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

LONGEST: Final = 512  # characters
LOOPBACK: Final = "loopback"

_CHARACTER: Final = r"(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})"  # RFC 3986, section 3.3
_TAIL: Final = rf"(?P<path>(?:/{_CHARACTER}*)*)(?P<query>(?:\?(?:{_CHARACTER}|[/?])*)?)"
_PORT: Final = r"(?P<port>(?::[1-9][0-9]{0,4})?)"
_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HTTPS: Final = re.compile(
    rf"https://(?P<host>{_LABEL}(?:\.{_LABEL})*|\[[0-9a-f:.]{{2,45}}\]){_PORT}{_TAIL}\Z"
)
_LOCAL: Final = re.compile(rf"http://(?P<host>127\.0\.0\.1|\[::1\]|localhost){_PORT}{_TAIL}\Z")
# RFC 3986, section 2, without the fragment's `#`.
_PRIVATE: Final = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*):[A-Za-z0-9._~!$&'()*+,;=:@/?%\[\]-]+\Z"
)
# None of them hands a code to a program (RFC 9700, section 4.1): web schemes have rules of their
# own, the others run or show something in the browser.
_NOT_PRIVATE: Final = frozenset(
    {"http", "https", "javascript", "data", "vbscript", "file", "filesystem", "blob", "about"}
    | {"ftp", "ws", "wss", "view-source", "mailto", "tel", "sms", "intent"}
)
# A control character or a backslash is no better for being written as an escape.
_ESCAPED_TRAP: Final = re.compile(r"%(?:[01][0-9a-f]|7f|5c)", re.IGNORECASE)
_ESCAPED_DOT: Final = re.compile(r"%2e", re.IGNORECASE)
# Browsers take a host whose last label looks like a number for an IPv4 address (URL Standard).
_NUMERIC: Final = re.compile(r"(?:[0-9]+|0x[0-9a-f]*)\Z")
_MAX_PORT: Final = 65535
_LONGEST_HOST: Final = 253


@dataclass(frozen=True, slots=True)
class RedirectRules:
    """Say which redirect URIs clients may have that nobody configured.

    Attributes:
        private: the URIs with a scheme of a program's own, each compared exactly.
        ours: hosts that are nobody's but ours and the issuer's: a page that named one as the
            client's would be believed.
    """

    private: frozenset[str] = frozenset()
    ours: frozenset[str] = frozenset()

    def allow(self, uri: str) -> bool:
        """Tell whether a client may register this."""
        if len(uri) > LONGEST:
            return False
        if uri in self.private:
            own = _PRIVATE.match(uri)
            return own is not None and own["scheme"] not in _NOT_PRIVATE
        web = _web(uri)
        return web is not None and web["host"] not in self.ours


def is_registered(sent: str, registered: Iterable[str]) -> bool:
    """Tell whether a redirect URI that was sent is one of the registered.

    The host of a loopback address counts, too: what listens at `localhost` is not always what
    listens at 127.0.0.1 (RFC 8252, section 8.3).
    """
    registered = tuple(registered)
    if sent in registered:
        return True
    here = _local(sent)
    return here is not None and any(_local(each) == here for each in registered)


def redirect_host(uri: str) -> str:
    """Return where a redirect URI leads, for names and pages: a host, `loopback`, or a scheme.

    A host of one label ends with a dot, so that it cannot pass for `loopback` or a scheme.
    """
    web = _web(uri)
    if web is None:
        return uri.partition(":")[0]
    host = web["host"]
    if _leads_here(host):
        return LOOPBACK
    return host if "." in host or ":" in host else f"{host}."


def place_of(uri: str) -> str:
    """Return where a redirect URI leads as `redirect_host`, but a scheme with its colon.

    So that no scheme reads as a host: `com.example.app:` is a program, `com.example.app` is not.
    What a file spells otherwise than clients may leads to its host all the same.
    """
    if is_private(uri):
        return f"{uri.partition(':')[0]}:"
    if _web(uri) is not None:
        return redirect_host(uri)
    host = urlsplit(uri).hostname or ""
    return LOOPBACK if _leads_here(host) else host


def is_private(uri: str) -> bool:
    """Tell whether a URI that the rules allow has a scheme of a program's own."""
    return not uri.startswith(("http://", "https://"))


def _web(uri: str) -> re.Match[str] | None:
    """Return the parts of an https URI, or of an http one of this machine."""
    found = _HTTPS.match(uri) or _LOCAL.match(uri)
    return found if found is not None and _unmistakable(found) else None


def _local(uri: str) -> tuple[str, str, str] | None:
    """Return host, path and query of a loopback URI: all but its port."""
    found = _LOCAL.match(uri)
    if found is None or not _unmistakable(found):
        return None
    return found["host"], found["path"], found["query"]


def _unmistakable(uri: re.Match[str]) -> bool:
    if int(uri["port"][1:] or 1) > _MAX_PORT or _ESCAPED_TRAP.search(uri.string):
        return False
    # Where no path stands between, some parsers look for a user in the query: `host?@other/`.
    if uri["query"] and not uri["path"]:
        return False
    segments = _ESCAPED_DOT.sub(".", uri["path"]).split("/")
    return not {".", ".."}.intersection(segments) and _is_host(uri["host"])


def _is_host(host: str) -> bool:
    """Tell whether a host is a name or an address in its one spelling."""
    if len(host) > _LONGEST_HOST:
        return False
    try:
        if host.startswith("["):
            return _spelled(ipaddress.IPv6Address(host[1:-1])) == host[1:-1]
        if _NUMERIC.match(host.rpartition(".")[2]):
            return str(ipaddress.IPv4Address(host)) == host
    except ValueError:
        return False
    return True


def _spelled(address: ipaddress.IPv6Address) -> str:
    """Return an address as browsers write it (URL Standard).

    Of a mapped IPv4 address `str` returns this before Python 3.13, and a dotted end since.
    """
    if address.ipv4_mapped is None:
        return str(address)
    return "::ffff:{:x}:{:x}".format(*struct.unpack(">HH", address.packed[12:]))


def _leads_here(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):  # RFC 6761, section 6.3
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    inner = getattr(address, "ipv4_mapped", None) or address
    return bool(inner.is_loopback or inner.is_unspecified)
