"""The types of fields of authz.yaml: notations of single values, lists, sections.

A notation is one pattern, which the JSON Schema shows, and one parser behind it, which may be
stricter and never laxer (tests/config/test_schema.py). Values that look alike are not guessed: `30`
is no duration.
"""

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import limits
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainValidator,
    StrictInt,
    Tag,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, core_schema

from authz.config.endpoints import LONGEST_SOCKET, Tcp, Unix
from authz.config.problems import WrongValueError, shown
from authz.core import resource_uris
from authz.core.conditions import (
    MAX_NUMBER,
    Matches,
    PatternError,
    Scalar,
    is_strict_path,
    matches,
)
from authz.core.exchanges import SERVER_REQUESTS
from authz.core.json_pointer import JsonPointer, JsonPointerError, parse
from authz.core.limits import Per

K = TypeVar("K")
V = TypeVar("V")
N = TypeVar("N")


@dataclass(frozen=True, slots=True)
class Notation:
    """Read a value that authz.yaml writes as text; an annotation for pydantic.

    Attributes:
        what: what the value is, with its article, for "... is not a duration".
        pattern: what the text must match as a whole; also the JSON Schema's.
        example: a right value.
        parse: from the matching text to the value, or None where it is none after all; raises
            `WrongValueError` where it can say more.
        explain: looks at any text first; raises `WrongValueError` where it can say more.
        secret: whether a wrong value could be a pasted password, which is then not repeated.
        bounds: what `parse` takes of what matches, for the reference.
    """

    what: str
    pattern: str
    example: str
    parse: Callable[[str], object] = str
    explain: Callable[[str], None] | None = None
    secret: bool = False
    bounds: str = ""

    def read(self, value: object) -> object:
        """Return the parsed value.

        Raises:
            WrongValueError: where it is none.
        """
        if isinstance(value, str) and self.explain is not None:
            self.explain(value)
        if isinstance(value, str) and re.fullmatch(self.pattern, value):
            parsed = self.parse(value)
            if parsed is not None:
                return parsed
        subject = "what stands here" if self.secret else shown(value)
        raise WrongValueError(f"{subject} is not {self.what}", f"write for example {self.example}")

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Validate with `read` alone, whatever the annotated type is."""
        return core_schema.no_info_plain_validator_function(self.read)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Return the pattern, an example, and in `$comment` the words for the reference."""
        return {
            "type": "string",
            "pattern": f"^(?:{self.pattern})$",
            "examples": [self.example],
            "$comment": self.what + self.bounds,
        }


# --- durations and sizes ---------------------------------------------------------------------

_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION: Final = r"([0-9]{1,9})(ms|s|m|h|d)"


def seconds(text: str) -> float:
    """Return the seconds of a duration that matches the notation."""
    match = re.fullmatch(_DURATION, text)
    assert match is not None
    return int(match[1]) * _SECONDS[match[2]]


def duration(low: str, high: str, example: str) -> Notation:
    """Return the notation of a duration between two others, both included; its value: seconds."""

    def parse(text: str) -> float:
        value = seconds(text)
        if not seconds(low) <= value <= seconds(high):
            raise WrongValueError(f"{shown(text)} is out of range", f"write {low} to {high}")
        return value

    return Notation("a duration", _DURATION, example, parse, bounds=f", {low} to {high}")


_UNITS: Final = {"KiB": 1 << 10, "MiB": 1 << 20}
_MAX_SIZE: Final = 16 << 20


def _size(text: str) -> int:
    value = int(text[:-3]) * _UNITS[text[-3:]]
    if not 1 <= value <= _MAX_SIZE:
        raise WrongValueError(f"{shown(text)} is out of range", "write 1KiB to 16MiB")
    return value


SIZE: Final = Notation("a size", r"[0-9]{1,6}(?:KiB|MiB)", "1MiB", _size, bounds=", 1KiB to 16MiB")

# --- rates -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rate:
    """Hold a quota over one window in seconds; its text is the one way to write it."""

    quota: int
    window: int
    monthly: bool = dataclass_field(default=False, compare=False)  # written `/month`, not 30 days

    def __str__(self) -> str:
        """Return the notation with the largest unit that divides the window."""
        unit, length = next(pair for pair in _WINDOWS if self.window % pair[1] == 0)
        count = self.window // length
        return f"{self.quota}/{unit}" if count == 1 else f"{self.quota}/{count} {unit}s"


_WINDOWS: Final = (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1))
_LONGEST_WINDOW: Final = 31 * 86400
_LARGEST_QUOTA: Final = 1_000_000_000


def _rate(text: str) -> Rate:
    # limits.parse alone would take "10/minute;5/second" for its first half and "1/0 minute" for
    # "1/minute"; the pattern lets neither come here.
    item = limits.parse(text)
    monthly = item.GRANULARITY.name == "month" and item.multiples == 1
    rate = Rate(item.amount, item.get_expiry(), monthly)
    if not 1 <= rate.quota <= _LARGEST_QUOTA:
        raise WrongValueError(
            f"{shown(text)} is out of range", f"write 1 to {_LARGEST_QUOTA} requests"
        )
    if rate.window > _LONGEST_WINDOW:
        raise WrongValueError(
            f"{shown(text)} has a window over 31 days", "write a window of 31 days at most"
        )
    return rate


RATE: Final = Notation(
    "a rate",
    r"[0-9]{1,12} ?(?:/|per) ?(?:[1-9][0-9]{0,6} ?)?(?:second|minute|hour|day|month)s?",
    "60/minute",
    _rate,
)


def _rates(value: object) -> tuple[object, ...]:
    values = value if isinstance(value, list) and value else [value]
    rates = _unique(tuple([RATE.read(each) for each in values]))
    return tuple(rates)


_RATE_SCHEMA: Final = {
    "type": "string",
    "pattern": f"^(?:{RATE.pattern})$",
    "examples": [RATE.example],
    "$comment": RATE.what,
}
Rates = Annotated[
    tuple[Rate, ...],
    PlainValidator(_rates),
    WithJsonSchema(
        {
            "anyOf": [
                _RATE_SCHEMA,
                {"type": "array", "items": _RATE_SCHEMA, "minItems": 1, "uniqueItems": True},
            ],
            "examples": [RATE.example],
        }
    ),
]

# --- names ---------------------------------------------------------------------------------------

HOST: Final = Notation(
    "a host name in lower case", r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?", "claude.ai"
)
SERVER_NAME: Final = Notation(
    "a server name of a-z, 0-9, _ and -", r"[a-z0-9][a-z0-9_-]{0,62}", "files"
)
TARGET_NAME: Final = Notation("a name of a-z, 0-9, _ and -", r"[a-z0-9][a-z0-9_-]{0,62}", "phone")
PAGE_PATH: Final = Notation(
    "a path without dot segments and without a slash at its end",
    r"(?:/(?!\.\.?(?:/|\Z))[A-Za-z0-9._~-]{1,64}){1,8}",
    "/grafana",
)
CLIENT_ID: Final = Notation(
    "a client id of printable ASCII without blanks", r"[\x21-\x7e]{1,255}", "claude"
)
TOOL_PATTERN: Final = Notation(
    "a tool name or pattern (letters, digits, _ . - / : and the wildcards * and ?)",
    r"[A-Za-z0-9_./:*?-]{1,128}",
    "delete_*",
)
PROMPT_PATTERN: Final = Notation(
    "a prompt name or pattern (letters, digits, _ . - / : and the wildcards * and ?)",
    TOOL_PATTERN.pattern,
    "review_*",
)


def _resource_pattern(text: str) -> str:
    if not resource_uris.is_pattern(text):
        raise WrongValueError(
            f"{shown(text)} is no URI in its one spelling",
            "write scheme and host in lower case, no dot or empty segments, no fragment, escapes "
            "for nothing that needs none, and * behind the host or at the end",
        )
    return text


RESOURCE_PATTERN: Final = Notation(
    "a resource's URI, * in it for any run of characters",
    r"\*|[a-z][a-z0-9+.-]{0,31}:[!$-;=?-Z\[\]_a-z~]{1,223}",
    "file:///public/*",
    _resource_pattern,
)


def _pointer(text: str) -> JsonPointer:
    try:
        return parse(text)
    except JsonPointerError as fault:
        raise WrongValueError(f"{shown(text)} is no JSON Pointer: {fault}", "write /path") from None


POINTER: Final = Notation(
    "a JSON Pointer (RFC 6901)", r"/[^\x00-\x1f\x7f]{0,255}", "/path", _pointer
)


def _path_prefix(text: str) -> str:
    if not is_strict_path(text) or text.endswith("/") != (text == "/"):
        raise WrongValueError(
            f"{shown(text)} is no folder in its one spelling",
            "write an absolute path without dot segments, escapes or a slash at its end",
        )
    return text


FOLDER: Final = Notation(
    "a folder's absolute path", r"/[^\x00-\x1f\x7f]{0,255}", "/data", _path_prefix
)


def _expression(text: str) -> Matches:
    try:
        return matches(text)
    except PatternError as fault:
        raise WrongValueError(
            f"{shown(text)} cannot be used: {fault}", "see RE2's syntax"
        ) from None


EXPRESSION: Final = Notation(
    "a regular expression of RE2, for the whole text",
    r"[^\x00-\x1f\x7f]{1,256}",
    "feature/[a-z0-9-]+",
    _expression,
)


def _scalar(value: object) -> Scalar:
    if isinstance(value, str | bool):
        return value
    return _number(value)


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise WrongValueError(f"{shown(value)} is not a value to compare", "write for example 100")
    # NaN and infinities among the rest.
    if not -MAX_NUMBER <= value <= MAX_NUMBER:
        raise WrongValueError(
            f"{shown(value)} is read differently by programs", f"write up to {MAX_NUMBER}"
        )
    return value


_SIZED: Final = {"type": "number", "minimum": -MAX_NUMBER, "maximum": MAX_NUMBER}
ScalarValue = Annotated[
    Scalar,
    PlainValidator(_scalar),
    WithJsonSchema(
        {
            "anyOf": [{"type": "string"}, {"type": "boolean"}, _SIZED],
            "$comment": "text, a number, `true` or `false`",
            "examples": ["public"],
        }
    ),
]
NumberValue = Annotated[
    float,
    PlainValidator(_number),
    WithJsonSchema(_SIZED | {"$comment": "a number", "examples": [100]}),
]


def _share(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise WrongValueError(f"{shown(value)} is not a share", "write 0 to 1, for example 0.01")
    return float(value)


Share = Annotated[
    float,
    PlainValidator(_share),
    WithJsonSchema(
        {
            "type": "number",
            "minimum": 0,
            "maximum": 1,
            "$comment": "a number from 0 to 1",
            "examples": [0.01],
        }
    ),
]
METHOD: Final = Notation(
    "the name of a method",
    r"[A-Za-z0-9_$][A-Za-z0-9_$.:-]*(/[A-Za-z0-9_$][A-Za-z0-9_$.:-]*)*",
    "x-search/run",
)
LIMIT_NAME: Final = Notation(
    "a name of letters, digits, _ . and -", r"[A-Za-z0-9_.-]{1,64}", "deletions"
)
DEPLOYMENT: Final = Notation("a name of a-z, 0-9, _ and -", r"[a-z0-9][a-z0-9_-]{0,31}", "authz")
# RFC 6749, section 3.3: NQCHAR.
SCOPE: Final = Notation("a scope", r"[\x21\x23-\x5b\x5d-\x7e]{1,128}", "mcp:files")
# Shown to people: no control character, no line break.
SENTENCE: Final = Notation(
    "a sentence of one line, of 1 to 200 characters",
    r"(?=\S)[^\x00-\x1f\x7f-\x9f\u2028\u2029]{1,200}",
    "read your files",
)
# What RFC 7519, RFC 9068, RFC 7662, OpenID Connect and Authelia have given a meaning to already.
_REGISTERED: Final = frozenset({
    "iss", "sub", "aud", "exp", "nbf", "iat", "jti", "typ", "sid", "azp", "act", "may_act",
    "cnf", "events", "nonce", "auth_time", "acr", "amr", "at_hash", "c_hash", "s_hash", "rat",
    "scope", "scp", "client_id", "active", "username", "token_type", "token_use",
    "token_introspection", "ext", "groups", "roles", "entitlements", "name", "given_name",
    "family_name", "middle_name", "nickname", "preferred_username", "profile", "picture",
    "website", "email", "email_verified", "alt_emails", "gender", "birthdate", "zoneinfo",
    "locale", "phone_number", "phone_number_verified", "address", "updated_at",
})  # fmt: skip


def _unregistered(text: str) -> str:
    if text in _REGISTERED:
        raise WrongValueError(
            f"{shown(text)} means something else already", "write for example mcp_assurance"
        )
    return text


ASSURANCE_CLAIM: Final = Notation(
    "a claim name of letters, digits, _ . : / and -",
    r"[A-Za-z][A-Za-z0-9_.:/-]{0,127}",
    "mcp_assurance",
    _unregistered,
    bounds=", none that has a meaning already",
)
# No control characters: a group stands in a header for the upstream.
GROUP: Final = Notation("a group", r"[^\x00-\x1f\x7f]{1,128}", "staff")


def _zone(text: str) -> str | None:
    try:
        ZoneInfo(text)
    except (OSError, ValueError, ZoneInfoNotFoundError):
        return None
    return text


TIME_ZONE: Final = Notation(
    "a time zone of the IANA database",
    # What stands beside the zones of a machine, and may be another zone on the next one.
    r"(?!localtime|posixrules|(?:posix|right)/)[A-Za-z0-9_+-]{1,40}(?:/[A-Za-z0-9_+-]{1,40}){0,2}",
    "Europe/Berlin",
    _zone,
)
SUBJECT: Final = Notation(
    "a subject", r"(?=\S)[^\x00-\x1f\x7f]{1,256}", "52b134ec-d812-4022-82b4-9100df7e1418"
)
USER_NAME: Final = Notation("a user name", r"[\x21-\x7e]{1,128}", "authz", secret=True)
FILE: Final = Notation("an absolute path", r"/[^\x00-\x1f\x7f]{1,1023}", "/run/secrets/tls.crt")
AUTHORITY_FILE: Final = Notation("an absolute path", FILE.pattern, "/etc/authz/internal-ca.crt")
PINS_FILE: Final = Notation("an absolute path", FILE.pattern, "/etc/authz/pins/files.json")
# A password pasted where its file belongs looks like a relative path.
SECRET_FILE: Final = Notation("an absolute path", FILE.pattern, "/run/secrets/redis", secret=True)
HEADERS_FILE: Final = Notation(
    "an absolute path", FILE.pattern, "/run/secrets/otlp-headers", secret=True
)
KEY_FILE: Final = Notation(
    "an absolute path", FILE.pattern, "/run/secrets/introspection.pem", secret=True
)
DOOR_KEY_FILE: Final = Notation(
    "an absolute path", FILE.pattern, "/run/secrets/front-door.pem", secret=True
)
IDENTITY_KEY_FILE: Final = Notation(
    "an absolute path", FILE.pattern, "/run/secrets/identity.pem", secret=True
)
SEAL_FILE: Final = Notation("an absolute path", FILE.pattern, "/run/secrets/seal", secret=True)
KEY_ID: Final = Notation("a key id of printable ASCII", r"[\x21-\x7e]{1,128}", "authz-es256")

# --- listen addresses ----------------------------------------------------------------------------


_TCP: Final = r"(?:[0-9.]{7,15}|\[[0-9a-f:.]{2,45}\]):[0-9]{1,5}"
# sockaddr_un.sun_path holds 108 bytes, the last of them NUL.
_UNIX: Final = r"unix:/[\x21-\x7e]{1,106}"
_MAX_PORT: Final = 65535


def _tcp(text: str) -> Tcp | None:
    host, _, port = text.rpartition(":")
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None
    return Tcp(str(address), int(port)) if int(port) <= _MAX_PORT else None


def _tcp_or_unix(text: str) -> Tcp | Unix | None:
    return Unix(text.removeprefix("unix:")) if text.startswith("unix:") else _tcp(text)


def _explain_listen(text: str) -> None:
    """Answer the spellings that other programs take: `:8443`, `localhost:8443`, `8443`."""
    match = re.fullmatch(r"(localhost|\*|):?([0-9]{1,5})", text)
    if match is not None:
        host = "127.0.0.1" if match[1] == "localhost" else "0.0.0.0"  # noqa: S104 - advice only
        raise WrongValueError(f"{shown(text)} names no IP address", f"write {host}:{match[2]}")


def _listen(example: str) -> Notation:
    return Notation("an IP address with a port", _TCP, example, _tcp, _explain_listen)


LISTEN: Final = _listen("0.0.0.0:8443")
METRICS: Final = _listen("127.0.0.1:9464")
SOCKET: Final = Notation(
    "a Unix socket or an IP address with a port",
    f"{_UNIX}|{_TCP}",
    "unix:/run/authz/check.sock",
    _tcp_or_unix,
    _explain_listen,
)

# --- sockets of others -----------------------------------------------------------------------


def _explain_socket(text: str) -> None:
    """Answer the spellings that other programs take, and say what the system would not."""
    bare = re.sub(r"^unix:(?://(?=/))?", "", text)
    if bare.startswith("@"):
        # It has no owner and no mode: whoever is there first answers, with the callers' names.
        raise WrongValueError(
            f"{shown(text)} is an abstract socket, which any process may listen on",
            "write the path of a socket in a folder of its server's",
        )
    if bare != text and bare.startswith("/"):
        raise WrongValueError(f"{shown(text)} is not a path alone", f"write {bare}")
    if text.startswith("/") and len(text) > LONGEST_SOCKET:
        raise WrongValueError(
            f"{shown(text)} is too long for a Unix socket",
            f"write a path of {LONGEST_SOCKET} characters at most; it has {len(text)}",
        )


UPSTREAM_SOCKET: Final = Notation(
    "the absolute path of a Unix socket",
    # sockaddr_un.sun_path, as above; a slash at the end is a folder.
    r"/[\x21-\x7e]{0,105}[\x21-\x2e\x30-\x7e]",
    "/run/files/mcp.sock",
    Unix,
    _explain_socket,
)

# --- sections and lists ------------------------------------------------------------------------


class Section(BaseModel):
    """Hold one mapping of the file."""

    # Error texts of pydantic would repeat values; ours are made in `pydantic_errors`.
    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, hide_input_in_errors=True
    )


def field(description: str, default: object = ..., **more: Any) -> Any:
    """Return a pydantic field; without a default it must be written."""
    return Field(default, description=description, **more)


def _unique(values: tuple[V, ...]) -> tuple[V, ...]:
    for value in values:
        if values.count(value) > 1:
            raise WrongValueError(f"names {shown(value)} twice", "name it once")
    return values


FrozenMap = Annotated[Mapping[K, V], AfterValidator(MappingProxyType)]
NonEmptyMap = Annotated[Mapping[K, V], Field(min_length=1), AfterValidator(MappingProxyType)]
Listing = Annotated[tuple[V, ...], AfterValidator(_unique)]
NonEmpty = Annotated[tuple[V, ...], Field(min_length=1), AfterValidator(_unique)]
Count = Annotated[StrictInt, Field(ge=1, le=1_000_000)]
# Of what a server can serve at a time.
PerUser = Annotated[StrictInt, Field(ge=1, le=SERVER_REQUESTS)]

# --- a TLS version, which looks like a number ------------------------------------------------

_TLS: Final[dict[object, str]] = {1.2: "1.2", 1.3: "1.3"}


def _tls(value: object) -> object:
    return _TLS.get(value, value) if isinstance(value, float) else value


TlsVersion = Annotated[
    Literal["1.3", "1.2"], BeforeValidator(_tls), WithJsonSchema({"enum": ["1.3", "1.2", 1.3, 1.2]})
]

# --- whose requests a limit counts -----------------------------------------------------------


def _countable(text: str) -> str:
    try:
        return _unregistered(text)
    except WrongValueError as fault:
        raise WrongValueError(fault.wrong, "write for example tenant") from None


CLAIM: Final = Notation(
    ASSURANCE_CLAIM.what,
    ASSURANCE_CLAIM.pattern,
    "tenant",
    _countable,
    bounds=ASSURANCE_CLAIM.bounds,
)


@dataclass(frozen=True, slots=True)
class Counted:
    """Hold whose requests a limit counts together, and of a claim its name."""

    per: Per
    claim: str = ""

    def __str__(self) -> str:
        """Return it as names of limits have it."""
        return f"{self.per.value}={self.claim}" if self.claim else self.per.value


_COUNTED: Final = ("client", "user", "address", "grant", "group")
_SETS: Final = {
    frozenset({"client"}): Per.CLIENT,
    frozenset({"user"}): Per.USER,
    frozenset({"client", "user"}): Per.CLIENT_USER,
    frozenset({"address"}): Per.ADDRESS,
    frozenset({"grant"}): Per.GRANT,
    frozenset({"group"}): Per.GROUP,
}


def _per(value: object) -> Counted:
    if isinstance(value, Mapping) and value.keys() == {"claim"}:
        return Counted(Per.CLAIM, str(CLAIM.read(value["claim"])))
    words = value if isinstance(value, list) else [value]
    known = [word for word in words if isinstance(word, str) and word in _COUNTED]
    per = _SETS.get(frozenset(known))
    if per is None or len(known) != len(words) or len(set(known)) != len(known):
        what = "this list" if isinstance(value, list) else shown(value)
        raise WrongValueError(
            f"{what} is not what a limit counts by",
            "write client, user, address, grant, group, [client, user] or {claim: tenant}",
        )
    return Counted(per)


CountedBy = Annotated[
    Counted,
    PlainValidator(_per),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": list(_COUNTED)},
                {
                    "type": "array",
                    "items": {"enum": list(_COUNTED)},
                    "minItems": 1,
                    "maxItems": 2,
                    "uniqueItems": True,
                },
                {
                    "type": "object",
                    "description": "Whose requests a limit counts together, by a claim.",
                    "properties": {
                        "claim": {
                            "type": "string",
                            "pattern": f"^(?:{CLAIM.pattern})$",
                            "$comment": CLAIM.what + CLAIM.bounds,
                            "description": "The claim of the access token, or of the issuer's "
                            "answer about it: text, a whole number or a truth value; whatever else "
                            "counts as absent, and those without it count together.",
                        }
                    },
                    "required": ["claim"],
                    "additionalProperties": False,
                },
            ],
            "examples": [["client", "user"]],
        }
    ),
]

# --- a second factor, in a word or as a mapping ----------------------------------------------

_FACTORS: Final[dict[str, object]] = {
    "any": {"method": "any"},
    "totp": {"method": "totp"},
    "none": None,
}


def _factor(value: object) -> object:
    if not isinstance(value, str):
        return value
    if value not in _FACTORS:
        raise WrongValueError(
            f"{shown(value)} is not a second factor",
            "write any, totp, none or a mapping such as {method: totp, max_login_age: 5m}",
        )
    return _FACTORS[value]


def _approval(value: object) -> object:
    if value == "each_call":
        return {}
    # Not left to the mapping: what it would advise, a time, asks for less than each call does.
    if value is not None and (not isinstance(value, Mapping) or "each_call" in value):
        raise WrongValueError(
            f"{shown(value)} is not an approval",
            "write each_call, or for how long an approval of the tool holds: {for: 10m}",
        )
    return value


def _audit(value: object) -> object:
    return {"to": "off"} if value == "off" else value


@dataclass(frozen=True, slots=True)
class _OrWords:
    """Add words to the JSON Schema of the mapping that they stand for."""

    words: tuple[str, ...]
    example: str

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Return the alternatives."""
        return {"anyOf": [{"enum": list(self.words)}, handler(schema)], "examples": [self.example]}


# Names of alternatives, which `pydantic_errors` leaves out of the places of faults.
ALTERNATIVES: Final = ("[number]", "[mapping]")
NumberOr = Annotated[
    Annotated[N, Tag("[number]")] | Annotated[V, Tag("[mapping]")],
    Discriminator(lambda value: ALTERNATIVES[isinstance(value, Mapping | BaseModel)]),
]
InAWord = Annotated[V, BeforeValidator(_factor), _OrWords(tuple(_FACTORS), "totp")]
AuditOr = Annotated[V, BeforeValidator(_audit), _OrWords(("off",), "off")]
EachCallOr = Annotated[V, BeforeValidator(_approval), _OrWords(("each_call",), "each_call")]
