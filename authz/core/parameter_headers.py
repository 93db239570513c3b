"""Headers that repeat arguments: `Mcp-Param-*` (MCP 2026-07-28).

MCP, Streamable HTTP, "Custom Headers from Tool Parameters". Servers must compare them with the
body, and some do not: the official one skips that where it cannot list its own tools, and a load
balancer has the headers alone. Which argument a header repeats stands in the tool's schema, which
is the server's word. So a header is taken for all arguments of its name, and all of them have to
say what it says.

Invariant: what passes here, the official server takes for the same as the body, whichever argument
of that name its schema means (tests/core/test_parameter_headers.py).
"""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Final

from authz.core.conditions import MAX_NUMBER
from authz.core.mcp import decode_mirror
from authz.core.strict_json import folded

PREFIX: Final = "mcp-param-"
# Bounded: reading digits takes quadratic time.
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,30})(?:\.[0-9]{1,30})?(?:[eE][+-]?[0-9]{1,3})?")


def parameter_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that repeat arguments, with the values that were sent."""
    return {name: value for name, value in headers.items() if name.startswith(PREFIX)}


def repeat_arguments(headers: Mapping[str, str], arguments: Mapping[str, object] | None) -> bool:
    """Tell whether every header that repeats an argument says what the body says.

    Args:
        headers: lower-case name to value; of a header that came twice, joined by a comma.
        arguments: of the call, read strictly; None where they are no object.
    """
    sent = parameter_headers(headers)
    if not sent:
        return True
    if arguments is None:
        return False
    named = _values(arguments)
    return all(
        _repeats(decode_mirror(value), named.get(folded(name[len(PREFIX) :]), []))
        for name, value in sent.items()
    )


def _values(arguments: Mapping[str, object]) -> dict[str, list[object]]:
    """Return all values by the names of their members, in objects within objects too."""
    found = dict[str, list[object]]()
    left = [arguments]
    while left:
        for name, value in left.pop().items():
            found.setdefault(folded(name), []).append(value)
            if isinstance(value, dict):
                left.append(value)
    return found


def _repeats(text: str | None, values: list[object]) -> bool:
    return text is not None and bool(values) and all(_says(text, value) for value in values)


def _says(text: str, value: object) -> bool:
    """Tell whether a header's text says a value: a text, a number or a truth value."""
    if isinstance(value, str):
        return text == value
    if isinstance(value, bool):  # which is an int to Python
        return text == ("true" if value else "false")
    if not isinstance(value, int | float) or not -MAX_NUMBER <= value <= MAX_NUMBER:
        return False
    return _NUMBER.fullmatch(text) is not None and Decimal(text) == Decimal(repr(value))
