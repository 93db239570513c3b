"""Change a YAML text in one place and leave every other byte of it: comments, order, quotes.

Invariant: after an edit the text means what it meant, and what was put in besides; where that
cannot be said, nothing is edited (tests/config/test_yaml_edit.py).
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from authz.config.yaml_writer import to_yaml


class EditError(ValueError):
    """Say that a text is of a shape that is not edited here."""


def set_member(
    text: str, path: Sequence[str], key: str, value: object, *, braces: bool = False
) -> str:
    """Return the text with a member more in the mapping at a path, or with another scalar there.

    Args:
        text: one YAML document, a mapping.
        path: keys from the top; a mapping that is missing there is made.
        key: of the member. Where there is one, it and the value have to be scalars.
        value: mappings, lists, strings, numbers and booleans.
        braces: whether it stands in one line, with braces.

    Raises:
        EditError: where that cannot be done without touching the rest.
    """
    root = _root(text)
    node, left = root, list(path)
    while left:
        found = _member(node, left[0])
        if found is None:
            break
        node = _mapping(found)
        left.pop(0)
    for name in reversed(left[1:]):
        key, value = name, {key: value}
    if left:
        key, value = left[0], {key: value}
    there = _member(node, key)
    if there is not None:
        edited = _replaced(text, there, value)
    elif node.flow_style:
        edited = _into_flow(text, node, f"{_quoted(key)}: {_flow(value)}")
    else:
        member = f"{_quoted(key)}: {_flow(value)}" if braces else to_yaml({key: value})
        edited = _into_block(text, node, member)
    _check(text, edited, (*path[: len(path) - len(left)], key), value)
    return edited


def append_item(text: str, path: Sequence[str], item: str) -> str:
    """Return the text with an item more at the end of a list of scalars.

    Raises:
        EditError: as `set_member`.
    """
    node: Node = _root(text)
    for key in path:
        found = _member(_mapping(node), key)
        if found is None:
            raise EditError(f"there is no {'.'.join(path)}")
        node = found
    if not isinstance(node, SequenceNode) or not node.flow_style:
        raise EditError(f"{'.'.join(path)} is no list in brackets")
    edited = _into_flow(text, node, _quoted(item))
    _check(text, edited, tuple(path), [*(each.value for each in node.value), item])
    return edited


def _root(text: str) -> MappingNode:
    try:
        return _mapping(YAML(typ="safe", pure=True).compose(text))
    # What the scanner lets through for odd documents (yaml_loader.py).
    except (YAMLError, ArithmeticError, AttributeError, LookupError, TypeError) as error:
        raise EditError("it is not YAML that can be read") from error


def _mapping(node: Node | None) -> MappingNode:
    if not isinstance(node, MappingNode):
        raise EditError("it is no mapping")
    return node


def _member(node: MappingNode, key: str) -> Node | None:
    found: list[Node] = [value for name, value in node.value if name.value == key]
    return found[-1] if found else None


def _replaced(text: str, node: Node, value: object) -> str:
    if not isinstance(node, ScalarNode) or isinstance(value, Mapping | list):
        raise EditError("it is there, and is no single value")
    if node.style in {"|", ">"}:
        raise EditError("it is written over several lines")
    start, end = node.start_mark.index, node.end_mark.index
    return f"{text[:start]}{_quoted(value)}{text[end:]}"


def _into_flow(text: str, node: Node, more: str) -> str:
    """Return the text with something before the bracket that ends a mapping or list."""
    end = node.end_mark.index - 1
    before = text[:end].rstrip()
    last = max((_end(each) for each in _nodes(node)), default=node.start_mark.index + 1)
    # A comma after the last member may stand, with comments behind it.
    comma = "" if "," in _code(text[last:end]) or not node.value else ", "
    if "#" in text[last:end]:
        return f"{text[:end]}{comma}{more}{text[end:]}"
    gap = " " if before.endswith(",") else ""
    return f"{before}{comma}{gap}{more}{text[len(before) : end]}{text[end:]}"


def _code(text: str) -> str:
    return "".join(line.partition("#")[0] for line in text.splitlines())


def _into_block(text: str, node: MappingNode, member: str) -> str:
    """Return the text with a member after the last line of a block."""
    last = max((_end(each) for each in _nodes(node)), default=-1)
    if last < 0:
        raise EditError("it is empty")
    column = node.value[0][0].start_mark.column
    line_end = text.find("\n", last)
    # The end of a text over several lines is the beginning of the line after it.
    if last and text[last - 1] == "\n":
        line_end = last - 1
    head, tail = (text, "") if line_end < 0 else (text[: line_end + 1], text[line_end + 1 :])
    newline = "" if head.endswith("\n") else "\n"
    lines = "".join(f"{' ' * column}{line}\n" for line in member.splitlines())
    return f"{head}{newline}{lines}{tail}"


def _nodes(node: Node) -> list[Node]:
    """Return the nodes below one that end where something is written."""
    if isinstance(node, MappingNode):
        inner = [each for pair in node.value for each in pair]
    else:
        inner = list(node.value) if isinstance(node, SequenceNode) else []
    found = list[Node]()
    for each in inner:
        if isinstance(each, ScalarNode) or each.flow_style:
            found.append(each)
        found += _nodes(each)
    return found


def _end(node: Node) -> int:
    index: int = node.end_mark.index
    return index


def _flow(value: object) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_quoted(k)}: {_flow(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return _quoted(value)


def _quoted(value: object) -> str:
    """Return a scalar as it may stand in braces, too."""
    if isinstance(value, str) and not value.isascii():
        return json.dumps(value)
    return to_yaml({"x": value}).removeprefix("x: ").removesuffix("\n")


def _check(before: str, after: str, path: Sequence[str], value: object) -> None:
    """Refuse an edit that says anything else than what was meant."""
    old, new = _plain(before), _plain(after)
    place = old = dict(old)
    for key in path[:-1]:
        # A copy: what an alias shares must not change in its other places.
        place[key] = dict(place.get(key) or {})
        place = place[key]
    place[path[-1]] = value
    if old != new:
        raise EditError("it is written in a way that is not edited here")


def _plain(text: str) -> Any:
    try:
        return YAML(typ="safe", pure=True).load(text)
    except (
        YAMLError,
        ArithmeticError,
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
    ) as error:
        raise EditError("it is not YAML that can be read") from error
