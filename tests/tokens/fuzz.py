"""Fuzz the readers of what issuers and callers write: `python -m tests.tokens.fuzz N`.

Invariant: damaged headers, tokens, introspection answers and key sets are refused or mean what the
undamaged ones meant; nothing else is raised, and nobody else is let in. Damage is random, from a
seed that is printed; the number of inputs is an argument. Not part of the suite: hypothesis is.
"""

import asyncio
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

from authz.core.principal import Principal
from authz.core.reason import Reason
from authz.core.strict_json import StrictJsonError, loads
from authz.tokens.cache import token_digest
from authz.tokens.introspection_result import read_introspection_result
from authz.tokens.issuer_http import IssuerError
from authz.tokens.jwk import DEFAULT_ALGORITHMS, KeySetError, read_key_set
from tests.tokens.opaque import ANSWER, TOKEN
from tests.tokens.token_factory import (
    CLAIMS,
    NOW,
    RULES,
    TokenBench,
    ec_signer,
    outcome_of,
    rsa_signer,
)

# What tends to matter: structure, escapes, extremes, names that decide.
_PIECES: Final = (
    b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"null", b"true", b"-1", b"1e999", b"9" * 400,
    b"\\u0000", b"\\ud800", b"\xff", b"\xc3\xa9", b" ", b"\n", b".", b"=", b"==", b"none", b"HS256",
    b'"alg":"none",', b'"kid":"x",', b'"crit":["x"],', b'"active":true,', b'"sub":"admin",',
    b'"exp":1e10,', b'"aud":[],', b'"iss":"https://evil.test",', b'"use":"enc",', b'"kty":"oct",',
)  # fmt: skip
_MOST: Final = 4


def damaged(data: bytes, chance: random.Random) -> bytes:
    """Return a text with one to four random wounds."""
    for _ in range(chance.randint(1, _MOST)):
        at = chance.randrange(len(data) + 1)
        end = min(len(data), at + chance.choice((0, 1, 1, 2, 8, 40)))
        piece = chance.choice(
            (b"", bytes([chance.randrange(256)]), chance.choice(_PIECES), data[at:end] * 2)
        )
        data = data[:at] + piece + data[end:]
    return data


class Fuzzer:
    """Hold what is damaged, and what came of it."""

    def __init__(self, seed: int, runner: asyncio.Runner) -> None:
        self.chance = random.Random(seed)
        self.runner = runner
        self.bench = TokenBench(capacity=50)
        self.signer = ec_signer()
        self.header = json.dumps(self.signer.header()).encode()
        self.claims = json.dumps(CLAIMS).encode()
        self.tokens = [rsa_signer().token().encode(), self.signer.token().encode()]
        self.answer = json.dumps(ANSWER).encode()
        self.keys = json.dumps({"keys": [rsa_signer().jwk(), self.signer.jwk()]}).encode()

    def judge(self, token: str) -> str:
        outcome = self.runner.run(outcome_of(self.bench.verifier.verify(token)))
        if isinstance(outcome, Principal):
            assert (outcome.issuer, outcome.subject) == (CLAIMS["iss"], CLAIMS["sub"]), outcome
            return "the same person"
        assert isinstance(outcome, Reason), outcome
        return outcome.label

    def one_header(self) -> str:
        """A header that is damaged and then signed: the issuer itself is hostile."""
        return self.judge(self.signer.compact(damaged(self.header, self.chance), self.claims))

    def one_token(self) -> str:
        """A good token that is damaged on the way."""
        token = damaged(self.chance.choice(self.tokens), self.chance)
        return self.judge(token.decode("latin-1"))

    def one_answer(self) -> str:
        """An introspection answer."""
        try:
            answer = loads(damaged(self.answer, self.chance))
            if not isinstance(answer, Mapping):
                return "no object"
            found = read_introspection_result(answer, RULES, token_digest(TOKEN), NOW - 1, NOW)
        except (StrictJsonError, IssuerError) as error:
            return type(error).__name__
        if found.principal is None:
            return "no principal"
        assert found.active is True
        assert answer["active"] is True
        assert found.principal.issuer == RULES.issuer
        return "a principal"

    def one_key_set(self) -> str:
        """A key set."""
        try:
            found = read_key_set(loads(damaged(self.keys, self.chance)), DEFAULT_ALGORITHMS)
        except (StrictJsonError, KeySetError) as error:
            return type(error).__name__
        return f"{len(found.keys)} key(s)"


def main(inputs: int, seed: int) -> int:
    """Run each target so often; the first surprise ends it with its traceback."""
    with asyncio.Runner() as runner:
        fuzzer = Fuzzer(seed, runner)
        targets: tuple[Callable[[], str], ...] = (
            fuzzer.one_token,
            fuzzer.one_header,
            fuzzer.one_answer,
            fuzzer.one_key_set,
        )
        print(f"seed {seed}, {inputs} inputs for each of {len(targets)} targets")
        for target in targets:
            begin, seen = time.perf_counter(), Counter[str]()
            for _ in range(inputs):
                seen[target()] += 1
            took = time.perf_counter() - begin
            print(f"{target.__name__}: {inputs} inputs in {took:.0f} s: {dict(seen.most_common())}")
    return 0


if __name__ == "__main__":
    sys.exit(
        main(int(sys.argv[1]) if sys.argv[1:] else 10_000, random.SystemRandom().getrandbits(32))
    )
