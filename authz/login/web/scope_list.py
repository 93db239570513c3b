"""The scopes on the consent page: what each means and opens, and which may be left out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from authz.core.policy import OperationKind
from authz.login.protocol.authorization import AuthorizationRequest
from authz.login.protocol.resources import ResourceServer

_MOST: Final = 8  # patterns of one kind
_FIELD: Final = "scope-"
_KINDS: Final = {
    OperationKind.TOOL: "Tools",
    OperationKind.ANNOTATION: "Tools by what the server says of them",
    OperationKind.PROMPT: "Prompts",
    OperationKind.RESOURCE: "Resources",
}
# Of scopes that authz.yaml says nothing of.
_WORDS: Final = {
    "openid": "know that it is you",
    "offline_access": "stay connected without asking you each time, until you end it",
    "profile": "your name",
    "email": "your e-mail address",
    "groups": "the groups that you are in",
}


@dataclass(frozen=True, slots=True)
class OpenedPatterns:
    """Hold the operations of one kind that a scope opens.

    Attributes:
        kind: in words.
        patterns: a few of them, as authz.yaml has them.
        more: how many are not among them.
    """

    kind: str
    patterns: tuple[str, ...]
    more: int


@dataclass(frozen=True, slots=True)
class ScopeLine:
    """Hold one scope as the page shows it.

    Attributes:
        scope: itself.
        words: what it means; empty where nobody says so.
        opens: the operations that need it.
        field: the name of its box in the form; empty where it cannot be left out.
        is_needed: whether that is said because others can be left out.
    """

    scope: str
    words: str
    opens: tuple[OpenedPatterns, ...]
    field: str
    is_needed: bool


def scope_lines(
    wanted: AuthorizationRequest, server: ResourceServer, words: Mapping[str, str]
) -> list[ScopeLine]:
    """Return the scopes of a request in their order.

    Args:
        wanted: what is asked.
        server: which it is asked of.
        words: what the operator says of scopes (`scopes` of authz.yaml).
    """
    return [
        ScopeLine(
            scope=scope,
            words=words.get(scope) or _WORDS.get(scope, ""),
            opens=_opened(server, scope),
            field=_field(wanted, scope) if scope in wanted.optional else "",
            is_needed=bool(wanted.optional) and scope in server.needed,
        )
        for scope in wanted.scopes
    ]


def unwanted_scopes(wanted: AuthorizationRequest, form: Mapping[str, str]) -> frozenset[str]:
    """Return the scopes whose boxes a person has emptied: a browser sends the ticked ones only."""
    return frozenset(scope for scope in wanted.optional if _field(wanted, scope) not in form)


def _field(wanted: AuthorizationRequest, scope: str) -> str:
    return f"{_FIELD}{wanted.optional.index(scope)}"


def _opened(server: ResourceServer, scope: str) -> tuple[OpenedPatterns, ...]:
    found = []
    for kind, words in _KINDS.items():
        every = [each.pattern for each in server.opens.get(scope, ()) if each.kind is kind]
        if every:
            found.append(OpenedPatterns(words, tuple(every[:_MOST]), len(every[_MOST:])))
    return tuple(found)
