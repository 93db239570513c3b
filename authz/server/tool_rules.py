"""Which rules of a server meet which of the tools that it lists, and which meet none.

For those who show or check it; the decision itself is made in `authz.core.evaluation`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from typing import Final

from authz.core.catalogue import MAX_NAME, Catalogue, Sighting, ToolDefinition, catalogue_of
from authz.core.evaluation import is_offered
from authz.core.json_pointer import JsonPointer
from authz.core.policy import OperationKind, Rule, RuleTarget, Server

_MOST: Final = 256  # members of a schema that are looked through for a name
_ALIKE: Final = 0.75  # how alike names are, of difflib; tools of one server share their words
_WILD: Final = frozenset("*?[")
# Beside any of these a schema may allow members that its `properties` do not name.
_COMPOSED: Final = frozenset(
    {"$ref", "$dynamicRef", "allOf", "anyOf", "oneOf", "if", "not", "patternProperties"}
)


@dataclass(frozen=True, slots=True)
class UnknownArgument:
    """Say that a rule judges or keeps an argument that no tool's schema has.

    Attributes:
        rule: as authz.yaml names it, `@` before an annotation.
        member: `when` or `audit`.
        pointer: as authz.yaml writes it.
        tool: whose schema lacks it.
        near: the members of that schema that were probably meant, the nearest first.
    """

    rule: str
    member: str
    pointer: str
    tool: str
    near: tuple[str, ...]


def catalogue_of_list(definitions: Iterable[ToolDefinition]) -> Catalogue:
    """Return the catalogue of one list."""
    return catalogue_of([Sighting(each, 0) for each in definitions])


def rules_of(server: Server, tool: str, catalogue: Catalogue) -> list[str]:
    """Return the rules that a tool meets, as authz.yaml names them."""
    annotations = catalogue.annotations(tool)
    named = dict.fromkeys(str(each.pattern) for each in server.matching(OperationKind.TOOL, tool))
    return [*named, *(f"@{each.value}" for each in server.annotations if each in annotations)]


def unmatched_rules(server: Server, catalogue: Catalogue) -> list[str]:
    """Return the rules that match nothing that is listed: a typo, or a tool that is gone."""
    met = {rule for tool in catalogue.tools for rule in rules_of(server, tool, catalogue)}
    every = list(dict.fromkeys(str(each.pattern) for each in server.operations(OperationKind.TOOL)))
    every += [f"@{each.value}" for each in server.annotations]
    return [rule for rule in every if rule not in met]


def nearest_tools(rule: str, names: Iterable[str]) -> Sequence[str]:
    """Return the listed tools that a rule probably means, the nearest first; three at most.

    Args:
        rule: a tool's name or a pattern, of which the wildcards are left out.
        names: of the listed tools.
    """
    plain = "".join(letter for letter in rule if letter not in _WILD)
    wild = plain != rule
    known = {name.lower(): name for name in names}
    if not wild:
        return [known[each] for each in get_close_matches(plain.lower(), known, 3, _ALIKE)]
    # A pattern is compared with as much of each name as it has letters.
    heads: dict[str, str] = {}
    for lower, name in known.items():
        part = lower[-len(plain) :] if rule[:1] in _WILD else lower[: len(plain)]
        heads.setdefault(part, name)
    return [heads[each] for each in get_close_matches(plain.lower(), heads, 3, _ALIKE)]


def refused_tools(server: Server, catalogue: Catalogue) -> list[str]:
    """Return the listed tools that no rule offers, so that everybody is refused."""
    return [name for name in catalogue.tools if not is_offered(server, name, catalogue)]


def unknown_arguments(
    server: Server, definitions: Iterable[ToolDefinition]
) -> Iterator[UnknownArgument]:
    """Yield conditions and audit pointers that lead to no member of a listed tool's schema.

    A schema counts only as far as its `properties` are all that it has: beside composition, and
    where no properties are named, any member may be there.
    """
    targets = [target for target in server.targets() if any(_pointers(target.rule))]
    if not targets:
        return
    listed = list(definitions)
    catalogue = catalogue_of_list(listed)
    for definition in listed:
        schema = definition.value.get("inputSchema")
        for target in targets:
            if not _applies(target, definition.name, catalogue):
                continue
            sign = "@" if target.kind is OperationKind.ANNOTATION else ""
            for member, pointer in _pointers(target.rule):
                near = _missing(schema, pointer)
                if near is not None:
                    rule = f"{sign}{target.pattern}"
                    yield UnknownArgument(rule, member, pointer.text, definition.name, near)


def _pointers(rule: Rule) -> Iterator[tuple[str, JsonPointer]]:
    yield from (("when", condition.pointer) for condition in rule.when)
    yield from (("audit", pointer) for pointer in rule.audit)


def _applies(target: RuleTarget[Rule], tool: str, catalogue: Catalogue) -> bool:
    if target.kind is OperationKind.TOOL:
        return target.matches(tool)
    if target.kind is OperationKind.ANNOTATION:
        return any(each.value == target.pattern for each in catalogue.annotations(tool))
    return False


def _missing(schema: object, pointer: JsonPointer) -> tuple[str, ...] | None:
    """Return the nearest members where a pointer leaves a schema; None where it may lead on."""
    found = schema
    for token in pointer.tokens:
        if not isinstance(found, Mapping) or _COMPOSED & found.keys():
            return None
        properties = found.get("properties")
        if not isinstance(properties, Mapping) or not properties:
            return None
        if token not in properties:
            names = [str(each) for each in islice(properties, _MOST) if len(each) <= MAX_NAME]
            return tuple(get_close_matches(token, names, 3))
        found = properties[token]
    return None
