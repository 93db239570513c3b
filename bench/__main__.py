"""Every bench in turn, each a ratio to a named baseline in the same run.

    python -m bench [--full] [--json FILE] [NAME...]

Short by default (about two minutes); `--full` takes as long as the figures in docs/performance.md.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path

from bench import audit, core, defences, edge, ledger, lists, memory, otlp, token_cache, transports
from bench.result import Found, as_json, show

Tables = Sequence[Sequence[Found]]

BENCHES: dict[str, Callable[[bool], Tables]] = {
    "core": lambda full: [asyncio.run(core.run(50 if full else 10))],
    "token_cache": lambda full: asyncio.run(token_cache.run(200 if full else 30)),
    "ledger": lambda full: asyncio.run(
        ledger.run(*((7, 6400, 1_000_000) if full else (2, 1920, 100_000)))
    ),
    "defences": lambda full: asyncio.run(defences.run(*((15, 6400) if full else (3, 1920)))),
    "transports": lambda full: transports.run(*((7, 8000) if full else (2, 2000))),
    "edge": lambda full: [edge.run(*((7, 4000) if full else (2, 1500)))],
    "lists": lambda full: lists.run(*((7, 1500) if full else (2, 500))),
    "audit": lambda full: [audit.main(50 if full else 10)],
    "otlp": lambda full: [otlp.run(30 if full else 6)],
    "memory": lambda full: [memory.run(1_000_000 if full else 50_000)],
}


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--full", action="store_true", help="as long as it takes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHES))
    chosen = parser.parse_args(arguments)
    os.environ.setdefault("PYTHONDONTWRITEBYTECODE", "1")
    found = list[Sequence[Found]]()
    for name in chosen.names or BENCHES:
        for table in BENCHES[name](chosen.full):
            show(table)
            found.append(table)
            # After each: who stops a long run keeps what there is.
            if chosen.json is not None:
                chosen.json.write_text(as_json(list(chain(*found))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
