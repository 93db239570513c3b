"""URLs of authz.yaml: which spellings are accepted, and their parts.

A URL is accepted in one spelling only, so that equal places are equal texts: audiences, issuers and
origins are compared as strings, never normalised (RFC 9068, section 4; RFC 8707). A refusal names
the spelling that would be accepted, where there is one.
"""

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from types import MappingProxyType
from typing import Final, NamedTuple

from authz.config.problems import WrongValueError, quoted
from authz.config.value_types import Notation

_URL: Final = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<path>[^?#]*)"
    r"(?P<query>\?[^#]*)?(?P<fragment>#.*)?\Z"
)
_AUTHORITY: Final = re.compile(
    r"(?P<host>[a-z0-9_](?:[a-z0-9_.-]{0,251}[a-z0-9_])?|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{1,5}))?\Z"
)
_VISIBLE: Final = re.compile(r"[\x21-\x7e]{1,520}\Z")
_PATH: Final = re.compile(r"(?:/[A-Za-z0-9._~-]+)*\Z")
_PORTS: Final = {"http": 80, "https": 443}
_MAX_PORT: Final = 65535


class Url(NamedTuple):
    """Hold the parts of an accepted URL.

    Attributes:
        scheme: `https` or `http`.
        host: the name, lower case; IPv6 in brackets.
        port: always known, also where the URL leaves it out.
        path: empty, or with a slash in front.
    """

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """Return what clients write in Host and `:authority`, without a default port."""
        return self.authorities[0]

    @property
    def authorities(self) -> tuple[str, ...]:
        """Return every Host that means this origin (RFC 9110, section 4.2.3); no other does."""
        full = f"{self.host}:{self.port}"
        return (self.host, full) if self.port == _PORTS[self.scheme] else (full,)


class PathShape(Enum):
    """Name what may follow the host."""

    NONE = "no path"
    OPTIONAL = "a path or none"
    REQUIRED = "a path"
    SLASH = "a path or none, with a slash at its end or not"


@dataclass(frozen=True, slots=True)
class UrlShape:
    """Describe the URLs that one field takes.

    Attributes:
        what: what the URL is, with its article.
        schemes: the accepted ones; the last is the advice for any other.
        path: what may follow the host.
        example: a right value.
    """

    what: str
    schemes: tuple[str, ...]
    path: PathShape
    example: str

    def notation(self) -> Notation:
        """Return the annotation; its pattern is the schema's; `explain` decides."""
        pattern = rf"(?:{'|'.join(self.schemes)})://[\x21-\x7e]{{1,512}}"
        return Notation(self.what, pattern, self.example, explain=self.explain)

    def explain(self, text: str) -> None:
        """Raise `WrongValueError` where the text is spelled otherwise than these URLs are."""
        complaint = self.complaint(text)
        if complaint is None:
            return
        mended = self._mended(text)
        advice = f"write for example {self.example}" if mended is None else f"write {mended}"
        raise WrongValueError(f"{quoted(text)} {complaint}", advice)

    def complaint(self, text: str) -> str | None:
        """Return the first thing that is wrong with a URL, or None."""
        match = _URL.match(text)
        if match is None or not _VISIBLE.match(text):
            return f"is not {self.what}"
        for words, applies in _COMPLAINTS:
            if applies(match, self):
                return words.format(schemes=" or ".join(f"{name}://" for name in self.schemes))
        return None

    def _mended(self, text: str) -> str | None:
        """Return the accepted spelling of nearly the same, or None where there is none.

        A text with `@` may hold a password in places that look like something else.
        """
        match = _URL.match(text)
        if match is None or "@" in text:
            return None
        scheme = match["scheme"].lower()
        scheme = scheme if scheme in self.schemes else self.schemes[-1]
        authority = match["authority"].lower().removesuffix(f":{_PORTS[scheme]}")
        path = "" if self.path is PathShape.NONE else re.sub("/+", "/", match["path"]).rstrip("/")
        mended = f"{scheme}://{authority}{path}"
        return mended if self.complaint(mended) is None else None


def _bad_host(match: re.Match[str], _: UrlShape) -> bool:
    parts = _AUTHORITY.match(match["authority"])
    if parts is None or ".." in parts["host"] or not 0 < int(parts["port"] or 1) <= _MAX_PORT:
        return True
    if not parts["host"].startswith("["):
        return False
    try:
        ipaddress.IPv6Address(parts["host"][1:-1])
    except ValueError:
        return True
    return False


def _bad_slash(match: re.Match[str], shape: UrlShape) -> bool:
    return match["path"].endswith("/") and shape.path is not PathShape.SLASH


def _dotted(match: re.Match[str], _: UrlShape) -> bool:
    inner = match["path"].removesuffix("/").split("/")[1:]
    return any(segment in {"", ".", ".."} for segment in inner)


# In this order, the first that applies is said.
_COMPLAINTS: Final[tuple[tuple[str, Callable[[re.Match[str], UrlShape], bool]], ...]] = (
    ("holds a user name or a password", lambda match, _: "@" in match.string),
    ("does not begin with {schemes}", lambda match, shape: match["scheme"] not in shape.schemes),
    (
        "has upper-case letters in its host",
        lambda match, _: match["authority"] != match["authority"].lower(),
    ),
    ("has no valid host and port", _bad_host),
    (
        "names the default port",
        lambda match, _: match["authority"].endswith(f":{_PORTS[match['scheme']]}"),
    ),
    ("has a query", lambda match, _: match["query"] is not None),
    ("has a fragment", lambda match, _: match["fragment"] is not None),
    (
        "has a path",
        lambda match, shape: shape.path is PathShape.NONE and match["path"] not in {"", "/"},
    ),
    ("ends in a slash", _bad_slash),
    ("has an empty or a dot segment in its path", _dotted),
    (
        "has characters other than letters, digits and . _ ~ - in its path",
        lambda match, _: not _PATH.match(match["path"].removesuffix("/")),
    ),
    (
        "has no path",
        lambda match, shape: shape.path is PathShape.REQUIRED and not match["path"],
    ),
)


def split(url: str) -> Url:
    """Return the parts of a URL that one of the shapes has accepted; ports are filled in."""
    match = _URL.match(url)
    assert match is not None
    parts = _AUTHORITY.match(match["authority"])
    assert parts is not None
    port = int(parts["port"] or _PORTS[match["scheme"]])
    return Url(match["scheme"], parts["host"], port, match["path"])


_HTTP: Final = ("http", "https")
ISSUER: Final = UrlShape(
    "an issuer's URL", ("https",), PathShape.OPTIONAL, "https://auth.example.com"
).notation()
INTERNAL: Final = UrlShape("a URL", _HTTP, PathShape.NONE, "http://authelia:9091").notation()
OTLP: Final = UrlShape("a URL", _HTTP, PathShape.OPTIONAL, "http://collector:4318").notation()
GATEWAY: Final = UrlShape(
    "the gateway's URL", ("https",), PathShape.NONE, "https://mcp.example.com"
).notation()
RESOURCE: Final = UrlShape(
    "a resource's URL", ("https",), PathShape.REQUIRED, "https://mcp.example.com/files"
).notation()
_NOTIFY: Final = UrlShape(
    "a URL", ("http", "https"), PathShape.OPTIONAL, "https://ntfy.example.com/authz"
)


def _explain_notify(text: str) -> None:
    """Say what is wrong, never a word of the text: the URL of a webhook is a secret."""
    complaint = _NOTIFY.complaint(text)
    if complaint is not None:
        raise WrongValueError(f"the URL {complaint}", f"write for example {_NOTIFY.example}")


NOTIFY: Final = replace(_NOTIFY.notation(), explain=_explain_notify, secret=True)
_UPSTREAM: Final = UrlShape("a URL", _HTTP, PathShape.SLASH, "http://files:8000/mcp")


def _explain_upstream(text: str) -> None:
    """Say how a Unix socket is written: a path alone leaves open what the server is asked for."""
    if text.startswith("unix:"):
        raise WrongValueError(
            f"{quoted(text)} has no Host and no path for the server to be asked by",
            "write for example http://localhost:8000/mcp, and the socket's path as socket",
        )
    _UPSTREAM.explain(text)


UPSTREAM: Final = replace(_UPSTREAM.notation(), explain=_explain_upstream)
PAGE: Final = UrlShape(
    "the URL of a web interface", _HTTP, PathShape.NONE, "http://grafana:3000"
).notation()
ORIGIN: Final = UrlShape(
    "a web origin", _HTTP, PathShape.NONE, "https://inspector.example.com"
).notation()

# --- URLs of other kinds ---------------------------------------------------------------------

# These run in the browser, or lead nowhere that the client is (RFC 9700, section 4.1).
_NO_REDIRECT: Final = frozenset({"javascript", "data", "vbscript", "file", "blob", "about"})
_LOOPBACK: Final = re.compile(r"http://(?:127\.0\.0\.1|\[::1\]|localhost)(?::[0-9]{1,5})?(?:/|\Z)")


def _explain_redirect(text: str) -> None:
    scheme, colon, rest = text.partition(":")
    if not colon or not rest or scheme.lower() in _NO_REDIRECT:
        return  # the pattern says the rest
    if "#" in text:
        raise WrongValueError(
            f"{quoted(text)} has a fragment", f"write {quoted(text.partition('#')[0])}"
        )
    if scheme.lower() == "http" and not _LOOPBACK.match(text):
        raise WrongValueError(
            f"{quoted(text)} sends codes over the network unprotected",
            "write https://, or a loopback address such as http://127.0.0.1/callback",
        )


REDIRECT: Final = Notation(
    "a redirect URI",
    rf"(?!(?:{'|'.join(sorted(_NO_REDIRECT))}):)[a-z][a-z0-9+.-]*:[\x21\x22\x24-\x7e]{{1,512}}",
    "https://claude.ai/api/mcp/auth_callback",
    explain=_explain_redirect,
)


_REDIS_FORMS: Final = MappingProxyType({
    "sentinel": ("sentinels", "redis+sentinel://s1:26379,s2:26379/mymaster"),
    "cluster": ("a cluster", "redis+cluster://n1:6379,n2:6379"),
})  # fmt: skip
_REDIS_HOST: Final = r"(?:[A-Za-z0-9_.-]{1,253}|\[[0-9a-f:.]{2,45}\])(?::[0-9]{1,5})?"
_REDIS: Final = (
    rf"rediss?://{_REDIS_HOST}(?:/[0-9]{{0,3}})?"
    rf"|rediss?\+sentinel://{_REDIS_HOST}(?:,{_REDIS_HOST}){{0,31}}/[A-Za-z0-9._-]{{1,128}}"
    r"(?:/[0-9]{0,3})?"
    rf"|rediss?\+cluster://{_REDIS_HOST}(?:,{_REDIS_HOST}){{0,31}}/?"
    r"|unix:///[A-Za-z0-9._/-]{1,106}"
)


def _explain_redis(text: str) -> None:
    """Say where a password belongs, and which form is meant; never a word of the text itself."""
    if "@" in text or "?" in text:
        raise WrongValueError(
            "a Redis URL may hold no user name, password or query",
            "keep the password in a file (redis.password_file) or in AUTHZ_REDIS_PASSWORD, "
            "the user name in redis.username",
        )
    if re.fullmatch(_REDIS, text):
        return
    kind = text.partition("://")[0].partition("+")[2]
    if kind in _REDIS_FORMS:
        what, right = _REDIS_FORMS[kind]
        raise WrongValueError(
            f"what stands here is not a Redis URL of {what}", f"write for example {right}"
        )
    if "," in text:
        raise WrongValueError(
            "several hosts, and not whether they are sentinels or nodes of a cluster",
            "write for example " + " or ".join(right for _, right in _REDIS_FORMS.values()),
        )


REDIS: Final = Notation(
    "a Redis URL",
    _REDIS,
    "redis://redis:6379/0",
    explain=_explain_redis,
    secret=True,
)
