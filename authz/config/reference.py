"""The tables of docs/configuration.md, made from the JSON Schema.

`python -m authz.config.reference docs/configuration.md` writes the part between the markers anew; a
test fails where it is stale.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from authz.config.problems import listed
from authz.config.pydantic_errors import flow
from authz.config.schema import Schema, json_schema, resolved

BEGIN: Final = "<!-- fields: written by authz.config.reference -->"
END: Final = "<!-- fields: end -->"


def tables() -> str:
    """Return a heading, a sentence and a table for every section, outermost first."""
    return "\n".join(line for path, node in _sections() for line in _table(path, node))


def rewrite_page(page: str) -> str:
    """Return a page with the part between the markers made anew.

    Raises:
        ValueError: where a marker is missing.
    """
    before, rest = page[: page.index(BEGIN)], page[page.index(END) :]
    return f"{before}{BEGIN}\n\n{tables()}\n{rest}"


def _sections() -> Iterator[tuple[str, Schema]]:
    """Yield every section once, under the first name that leads to it."""
    waiting: list[tuple[str, Schema]] = [("", json_schema())]
    seen: set[str] = set()
    while waiting:
        path, node = waiting.pop(0)
        if node["description"] in seen:
            continue
        seen.add(node["description"])
        yield path, node
        for name, member in node["properties"].items():
            waiting += _inner(f"{path}.{name}".lstrip("."), member)


def _inner(path: str, member: Schema) -> Iterator[tuple[str, Schema]]:
    """Yield the sections that stand in a field, in its list or in its mapping."""
    if "items" in member:
        yield from _inner(f"{path}[]", member["items"])
    elif isinstance(member.get("additionalProperties"), dict):
        yield from _inner(f"{path}.<name>", member["additionalProperties"])
    else:
        node = resolved({key: member[key] for key in ("$ref", "anyOf") if key in member})
        if "properties" in node:
            yield path, node


def _table(path: str, node: Schema) -> Iterator[str]:
    heading = f"`{path}`" if path else "The file"
    yield from (f"### {heading}", "", node["description"], "")
    yield from ("| field | takes | default | meaning |", "|---|---|---|---|")
    required = node.get("required", ())
    for name, member in node["properties"].items():
        default = "**required**" if name in required else _default(member)
        # pydantic leaves a description out that the section itself has.
        cells = (f"`{name}`", _takes(member), default, resolved(member)["description"])
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
    yield ""


def _default(member: Schema) -> str:
    return f"`{flow(member['default'])}`" if "default" in member else "none"


def _takes(member: Schema) -> str:
    """Return what a field takes, in words."""
    if "$comment" in member:
        comment: str = member["$comment"]
        return comment
    if "anyOf" in member:
        return " or ".join(_takes(choice) for choice in member["anyOf"])
    if member.get("enum") == [True]:
        return "`true`"
    if "enum" in member:
        return listed(f"`{word}`" for word in member["enum"] if isinstance(word, str))
    if "items" in member:
        return f"list of: {_takes(member['items'])}"
    if "maximum" in member:
        return f"{member['minimum']} to {member['maximum']}"
    if isinstance(member.get("additionalProperties"), dict):
        return "mapping by name"
    return {"boolean": "`true` or `false`"}.get(member.get("type", ""), "mapping")


def main() -> None:
    """Write the pages that are named as arguments anew."""
    for name in sys.argv[1:]:
        page = Path(name)
        page.write_text(rewrite_page(page.read_text()))


if __name__ == "__main__":
    main()
