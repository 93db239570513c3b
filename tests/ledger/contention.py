"""A process of its own that takes as fast as it can; `python -m tests.ledger.contention` runs it.

Arguments: the options' URL and deployment, quota, window in seconds, how many callers at once,
how many takes each, and after how many milliseconds of Redis' clock to stop (0: never). It says
"ready", waits for a line, and prints the moments of its admissions and of its last answer.
"""

import asyncio
import json
import sys

from authz.core.ledger import Taken
from authz.ledger.redis import RedisOptions
from tests.ledger.queries import connected, query, take, timed


async def main(url: str, deployment: str, *numbers: int) -> None:
    """Take from the ledger with all callers at once."""
    quota, window, callers, takes, span = numbers
    asked = query(take(quota=quota, window=window), take("other", quota=1_000_000))
    admitted, last, stop = list[int](), 0, 0
    options = RedisOptions(url, deployment=deployment, timeout=20, connections=16)
    async with connected(options) as ledger:

        async def caller() -> None:
            nonlocal last, stop
            for _ in range(takes):
                now, answer = await timed(ledger, asked)
                last, stop = max(last, now), stop or now + span
                if isinstance(answer, Taken):
                    admitted.append(now)
                if span and now >= stop:
                    break

        await ledger.ping()
        print("ready", flush=True)  # noqa: T201 - its protocol
        sys.stdin.readline()
        await asyncio.gather(*(caller() for _ in range(callers)))
    print(json.dumps({"admitted": admitted, "last": last}), flush=True)  # noqa: T201


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])))
