"""URIs of MCP resources and the patterns of rules about them.

A URI is compared as the server's own text. Nothing is decoded or repaired: what parsers could read
as another URI is not strict, and refused where resources are named.

Invariant: a strict URI has one spelling, so that no other strict text leads to the same thing by
RFC 3986's normalisation (section 6.2) or the WHATWG URL Standard's (tests/core/
test_resource_uris.py).
"""

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from ipaddress import IPv4Address, IPv6Address
from itertools import accumulate
from typing import Final
from unicodedata import normalize
from urllib.parse import quote, unquote_to_bytes

MAX_WILDCARDS: Final = 4
_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]{0,31}(?=:)")
# RFC 3986, section 3: what may stand in a path, and after it in a query. No fragment: a client
# keeps it, and a server that gets it drops it.
_PATH: Final = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-F]{2})*")
_QUERY: Final = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-F]{2})*")
_HOST: Final = re.compile(r"[a-z0-9._~!$&'()*+,;=-]+")
# Of a scheme that no browser knows, where it is a name of the server's.
_NAME: Final = re.compile(r"(?:[a-z0-9._~!$&'()*+,;=-]|%[0-9A-F]{2})+")
_AUTHORITY: Final = re.compile(r"(\[[0-9a-f:.]{2,45}\]|[^\[\]:@]*)(?::([1-9][0-9]{0,4}))?")
_ESCAPE: Final = re.compile("%([0-9A-F]{2})")
# What has another spelling without the escape (RFC 3986, 6.2.2.2), what ends a segment, what
# would be an escape once more, and controls.
_NEVER_ESCAPED: Final = frozenset(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/\\%\x7f"
) | frozenset(range(32))
# WHATWG URL Standard, "special schemes", with the ports that it leaves out.
_SPECIAL: Final = {"http": "80", "https": "443", "ws": "80", "wss": "443", "ftp": "21", "file": ""}
# The end of a file's name that some systems leave out: they open `/a./b` as `/a/b`.
_SHORTENED: Final = re.compile(r"(?:\.|%20)(?:/|$)")
# RFC 6570: an expression of a URI template.
_EXPRESSION: Final = re.compile(r"\{([+#./;?&]?)([A-Za-z0-9_.]+(?::[0-9]{1,4}|\*)?"
                                r"(?:,[A-Za-z0-9_.]+(?::[0-9]{1,4}|\*)?)*)\}")  # fmt: skip
# Section 3.2: what an expression begins with, what stands between its values, and whether these are
# named; `#` is left out, since a fragment is the client's.
_OPERATORS: Final = {
    "": ("", ",", False), "+": ("", ",", False), ".": (".", ".", False), "/": ("/", "/", False),
    ";": (";", ";", True), "?": ("?", "&", True), "&": ("&", "&", True),
}  # fmt: skip
_KEPT: Final = ":/?#[]@!$&'()*+,;="  # section 3.2.3, reserved expansion


def is_strict_uri(text: str) -> bool:
    """Tell whether a text is an absolute URI in its one spelling.

    Lower-case scheme and host, no user, no port that the scheme has anyway, no dot or empty
    segment, no fragment, no dot or blank at the end of a file's name; escapes are upper-case and of
    what needs one: neither letters, digits, `-._~` nor slashes, backslashes, percent signs and
    controls, and valid UTF-8 in NFKC.
    """
    scheme = _SCHEME.match(text)
    if scheme is None:
        return False
    path, mark, query = text[scheme.end() + 1 :].partition("?")
    if path.startswith("//"):
        authority, slash, rest = path[2:].partition("/")
        if not _is_strict_authority(scheme.group(), authority):
            return False
        path = slash + rest
    elif scheme.group() in _SPECIAL:
        return False
    return (
        # Something is named, and with a special scheme there is a path.
        (path != "" or (scheme.group() not in _SPECIAL and len(text) > scheme.end() + 3))
        and not (mark and not query)
        and _PATH.fullmatch(path) is not None
        and _QUERY.fullmatch(query) is not None
        and _has_strict_segments(path)
        and (scheme.group() != "file" or _SHORTENED.search(path) is None)
        and _has_strict_escapes(text)
    )


def is_strict_template(text: str) -> bool:
    """Tell whether a text is a URI, or a template of URIs (RFC 6570), in its one spelling."""
    return _SCHEME.match(text) is not None and is_strict_uri(_EXPRESSION.sub("x", text))


def expand(template: str, values: Mapping[str, str], longest: int) -> str:
    """Return a template with the values that are known; what is not known stays an expression.

    Values keep their slashes and other reserved characters, as a server that replaces text keeps
    them: the strictest reading, where dot segments show.

    Args:
        template: a strict one.
        values: by name.
        longest: characters that all values have at most, each as often as it is named.

    Raises:
        ValueError: where a value is to be cut, which servers do or do not, or they are too long:
            a template may name one of a megabyte a thousand times.
    """
    named_values = (
        values.get(name, "")
        for expression in _EXPRESSION.finditer(template)
        for name in _names(expression[2])
    )
    if any(total > longest for total in accumulate(map(len, named_values))):
        raise ValueError("values that are too long")

    def filled(expression: re.Match[str]) -> str:
        operator, specs = expression.groups()
        names = _names(specs)
        if operator not in _OPERATORS or values.keys().isdisjoint(names):
            return expression.group()
        if ":" in specs:
            raise ValueError("a value that is to be cut")
        first, between, named = _OPERATORS[operator]
        found = [
            (f"{name}=" if named else "")
            + (quote(values[name], safe=_KEPT) if name in values else f"{{{name}}}")
            for name in names
        ]
        return first + between.join(found)

    return _EXPRESSION.sub(filled, template)


def _names(specs: str) -> list[str]:
    """Return the names of an expression, without what says how their values are put."""
    return [spec.removesuffix("*").partition(":")[0] for spec in specs.split(",")]


def is_pattern(text: str) -> bool:
    """Tell whether a text is a strict URI in which `*` may stand, or `*` alone.

    Where there is an authority, `*` stands behind it or is the pattern's last character: a pattern
    that could end within a host would match hosts of others.
    """
    if text == "*":
        return True
    if text.count("*") > MAX_WILDCARDS or "**" in text:
        return False
    scheme, _, rest = text.partition(":")
    if "*" in scheme:
        return False
    if rest.startswith("//"):
        authority, slash, _ = rest[2:].partition("/")
        if "*" in authority.removesuffix("" if slash else "*"):
            return False
    filled = text.replace("*", "x")
    # `https://*` stands for a path, too.
    return is_strict_uri(f"{filled}/x" if rest == "//*" and scheme != "file" else filled)


def matches(uri: str, pattern: str) -> bool:
    """Tell whether a pattern matches: `*` is any run of characters, slashes too, and none."""
    start, wildcard, _ = pattern.partition("*")
    if not wildcard:
        return uri == pattern
    if not uri.startswith(start):  # of many patterns most end here
        return False
    # Nothing but `*` is a wildcard: a `?` begins the query, a bracket an IPv6 address.
    return fnmatchcase(uri, pattern.replace("[", "[[]").replace("?", "[?]"))


def _is_strict_authority(scheme: str, authority: str) -> bool:
    if scheme == "file":
        return authority == ""
    parts = _AUTHORITY.fullmatch(authority)
    if parts is None:
        return False
    host, port = parts.groups()
    if scheme not in _SPECIAL:
        named = host == "" and port is None
        return named or _NAME.fullmatch(host) is not None or _is_ipv6(host)
    if port == _SPECIAL[scheme]:
        return False
    return _is_ipv6(host) if host.startswith("[") else _is_strict_host(host)


def _is_strict_host(host: str) -> bool:
    """Tell whether a host of the web is in its one spelling: `0x7f.1` is 127.0.0.1 to browsers."""
    if _HOST.fullmatch(host) is None or host.endswith("."):
        return False
    last = host.rpartition(".")[2]
    if not (last.isdigit() or last.startswith("0x")):
        return True
    try:
        return str(IPv4Address(host)) == host
    except ValueError:
        return False


def _is_ipv6(host: str) -> bool:
    try:
        return host == f"[{IPv6Address(host.removeprefix('[').removesuffix(']'))}]"
    except ValueError:
        return False


def _has_strict_segments(path: str) -> bool:
    *segments, last = path.removeprefix("/").split("/")
    # What stands behind `;` some servers cut off before they resolve dots.
    return all(_is_strict_segment(each) for each in segments) and (
        not last or _is_strict_segment(last)
    )


def _is_strict_segment(segment: str) -> bool:
    return segment.partition(";")[0] not in {"", ".", ".."}


def _has_strict_escapes(text: str) -> bool:
    if "%" not in text:
        return True
    if any(int(escaped, 16) in _NEVER_ESCAPED for escaped in _ESCAPE.findall(text)):
        return False
    try:
        decoded = unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        return False
    return decoded.isprintable() and normalize("NFKC", decoded) == decoded
