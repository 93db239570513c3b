"""Complete the answers from flags, an earlier run, and, on a terminal, a person.

A password is never an argument and never shown.
"""

import getpass
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from authz.setup.answers import AnswerError, SetupAnswers, from_json

_LONGEST_PASSWORD: Final = 1024
_SHORTEST_PASSWORD: Final = 8
Ask = Callable[[str], str]


def earlier_answers(folder: Path, name: str) -> dict[str, Any]:
    """Return the answers of an earlier run in a folder; none where there was none.

    Raises:
        AnswerError: where they cannot be read as such.
        OSError: where the file cannot be read.
    """
    path = folder / name
    return from_json(path.read_text("utf-8")) if path.exists() else {}


def complete_answers(
    given: Mapping[str, Any], before: Mapping[str, Any], ask: Ask | None
) -> tuple[SetupAnswers, bool]:
    """Return the answers, and whether a person was asked.

    Args:
        given: what the flags say.
        before: what an earlier run was told.
        ask: asks a person; None where nobody is there.

    Raises:
        AnswerError: where an answer is missing or cannot be used.
    """
    values = {**before, **given}
    asked = False
    if "domain" not in values:
        if ask is None:
            raise AnswerError("domain: write --domain, as home.example.com")
        asked = True
        words = "Domain that the names end in, as home.example.com [demo.localhost]: "
        values["domain"] = _answer(ask, words, "domain", "demo.localhost")
        if not values.get("user"):
            words = "Name of the first person [admin]: "
            values["user"] = _answer(ask, words, "user", "admin")
    return SetupAnswers(**values), asked


def _answer(ask: Ask, words: str, name: str, default: str) -> str:
    """Ask until the answer can be used; with the question comes what was wrong with the last."""
    question = words
    while True:
        values: dict[str, Any] = {"domain": "demo.localhost"}
        values[name] = ask(question).strip() or default
        try:
            SetupAnswers(**values)
        except AnswerError as error:
            question = f"{error}\n{words}"
        else:
            return str(values[name])


def read_password(file: str | None, *, ask: bool) -> str | None:
    """Return the first person's password: of a file, or typed twice; None to make one.

    Raises:
        AnswerError: where it is none, or the two differ.
        OSError: where the file cannot be read.
    """
    if file is None and not ask:
        return None
    if file is not None:
        stream = sys.stdin if file == "-" else Path(file).open(encoding="utf-8")  # noqa: SIM115
        with stream:
            typed = stream.read(_LONGEST_PASSWORD + 1).rstrip("\r\n")
    else:
        typed = getpass.getpass("Password (empty: one is made): ")
        if not typed:
            return None
        if getpass.getpass("Again: ") != typed:
            raise AnswerError("password: the two differ")
    if not _SHORTEST_PASSWORD <= len(typed) <= _LONGEST_PASSWORD or not typed.isprintable():
        raise AnswerError("password: write 8 to 1024 characters on one line")
    return typed
