"""What the sections of authz.yaml are made of, besides single values.

Law: a section is frozen and takes no key that it does not know; a list names nothing twice.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    PlainValidator,
    StrictInt,
    WithJsonSchema,
)
from pydantic_core import CoreSchema

from authz.config.problems import WrongValueError, shown
from authz.core.exchanges import SERVER_REQUESTS
from authz.core.limits import Per

K = TypeVar("K")
V = TypeVar("V")


class Section(BaseModel):
    """Hold one mapping of the file."""

    # Error texts of pydantic would repeat values; ours are made in `words`.
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

_WORDS: Final = ("client", "user", "address")
_SETS: Final = {
    frozenset({"client"}): Per.CLIENT,
    frozenset({"user"}): Per.USER,
    frozenset({"client", "user"}): Per.CLIENT_USER,
    frozenset({"address"}): Per.ADDRESS,
}


def _per(value: object) -> Per:
    words = value if isinstance(value, list) else [value]
    known = [word for word in words if isinstance(word, str) and word in _WORDS]
    per = _SETS.get(frozenset(known))
    if per is None or len(known) != len(words) or len(set(known)) != len(known):
        what = "this list" if isinstance(value, list) else shown(value)
        raise WrongValueError(
            f"{what} is not what a limit counts by",
            "write client, user, address or [client, user]",
        )
    return per


CountedBy = Annotated[
    Per,
    PlainValidator(_per),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": list(_WORDS)},
                {
                    "type": "array",
                    "items": {"enum": list(_WORDS)},
                    "minItems": 1,
                    "maxItems": 2,
                    "uniqueItems": True,
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


class _OrWord:
    """Add the words to the JSON Schema of the mapping."""

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Return the alternatives."""
        return {"anyOf": [{"enum": list(_FACTORS)}, handler(schema)], "examples": ["totp"]}


InAWord = Annotated[V, BeforeValidator(_factor), _OrWord()]
