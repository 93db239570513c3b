"""The checks of `fuzz` on inputs that atheris finds by coverage.

`python -m tests.tokens.coverage_fuzz TARGET -runs=N`; targets: token, header, answer, keys. atheris
is not in the lock file: it installs on few versions of Python.
"""

import asyncio
import importlib
import json
import sys
from collections.abc import Callable

from authz.core.strict_json import StrictJsonError, loads
from authz.tokens.cache import token_digest
from authz.tokens.introspection_result import read_introspection_result
from authz.tokens.issuer_http import IssuerError
from authz.tokens.jwk import DEFAULT_ALGORITHMS, KeySetError, read_key_set
from tests.tokens.fuzz import Fuzzer
from tests.tokens.opaque import TOKEN
from tests.tokens.token_factory import CLAIMS, NOW, RULES


def targets(fuzzer: Fuzzer) -> dict[str, Callable[[bytes], object]]:
    """Return what takes the fuzzer's bytes, by name."""
    claims = json.dumps(CLAIMS).encode()

    def answer(data: bytes) -> None:
        try:
            found = loads(data)
            if isinstance(found, dict):
                read_introspection_result(found, RULES, token_digest(TOKEN), NOW - 1, NOW)
        except (StrictJsonError, IssuerError):
            return

    def keys(data: bytes) -> None:
        try:
            read_key_set(loads(data), DEFAULT_ALGORITHMS)
        except (StrictJsonError, KeySetError):
            return

    return {
        "token": lambda data: fuzzer.judge(data.decode("latin-1")),
        "header": lambda data: fuzzer.judge(fuzzer.signer.compact(data, claims)),
        "answer": answer,
        "keys": keys,
    }


def main(name: str, arguments: list[str]) -> None:
    """Fuzz one target; atheris ends the process."""
    atheris = importlib.import_module("atheris")
    with asyncio.Runner() as runner:
        target = targets(Fuzzer(0, runner))[name]
        atheris.instrument_all()
        atheris.Setup([sys.argv[0], *arguments], target)
        atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
