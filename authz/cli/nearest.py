"""What was probably meant where a command or an option is mistyped.

Law: values are not repeated, which may be secrets in the wrong place; only names of commands and
options are.
"""

import argparse
import re
from collections.abc import Collection, Sequence
from difflib import get_close_matches
from typing import Final

_OPTION: Final = re.compile(r"--[a-z][a-z-]*")


def unknown_command(argv: Sequence[str], commands: Collection[str]) -> str | None:
    """Return what to say of the first word; None where it is a command or an option."""
    first = argv[0] if argv else "-"
    if first.startswith("-") or first in commands:
        return None
    return f"there is no such command{_near(first, commands) or '; authz --help lists them'}"


def unknown_arguments(left: Sequence[str], parser: argparse.ArgumentParser) -> str:
    """Return what to say of arguments that a command does not take."""
    known = _OPTION.findall(parser.format_usage())
    options = [each.partition("=")[0] for each in left if each.startswith("-")]
    if not options:
        return "it takes fewer arguments than these"
    return "; ".join(f"there is no option {each}{_near(each, known)}" for each in options)


def _near(word: str, known: Collection[str]) -> str:
    found = get_close_matches(word, known, 1)
    return f"; did you mean {found[0]}?" if found else ""
