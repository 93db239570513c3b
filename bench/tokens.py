"""What many tokens cost: a warm one, many in rotation, and as many of which half are new.

Each token is another person's, with a step-up of its own in Valkey. The service is asked directly,
64 at once, everything on as in bench.transports; the cases in turns within each round. A round of
`half of them new` has a new token after each known one: its signature is verified, and its keys in
Redis are new, too.

    python -m bench.tokens [--tokens N] [--rounds N] [--transport NAME]
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from authz.core.ledger import StepUpKey
from authz.core.principal import Person
from authz.core.second_factor import Method
from authz.ledger.redis import RedisLedger, RedisOptions
from bench.load import Load, undisturbed
from bench.result import Found, compare, show
from bench.transports import CONFIG, IN_FLIGHT, METHOD, ROOT, allowed, cpu_seconds, started_full
from bench.transports import trees as trees_here
from tests.support.service import running_issuer
from tests.support.valkey import valkey
from tests.support.values import call, request
from tests.support.wire import check_request
from tests.tokens.token_factory import rsa_signer

WARM = "one token"


async def step_ups(url: str, subjects: Sequence[str]) -> None:
    """Record what the tool's rule looks for, for each person."""
    ledger = RedisLedger(RedisOptions(url, timeout=5))
    now = int(time.time())
    for begin in range(0, len(subjects), 64):
        async with asyncio.TaskGroup() as tasks:
            for subject in subjects[begin : begin + 64]:
                key = StepUpKey(Person("https://auth.example.test", subject), "mcp-2fa", "files")
                tasks.create_task(ledger.record_step_up(key, Method.TOTP, now - 10, 86_400))
    await ledger.aclose()


def message(subject: str) -> bytes:
    """Return a CheckRequest with a new token of a person."""
    now = int(time.time())
    times = {"iat": now - 5, "nbf": now - 5, "exp": now + 3_600}
    token = rsa_signer().token({**times, "sub": subject, "jti": subject})
    return check_request(request(call("read_file"), authorization=f"Bearer {token}"))


def run(tokens: int, rounds: int, transport: str) -> list[Found]:
    """Measure; ratios are to one warm token."""
    tree = trees_here().get("compiled ", ROOT)
    half = tokens // 2
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="t")))
        issuer = stack.enter_context(running_issuer())
        redis = stack.enter_context(valkey())
        subjects = [f"person-{number}" for number in range(tokens + half * rounds)]
        asyncio.run(step_ups(redis.url, subjects))
        messages = list(map(message, subjects))
        known, new = messages[:tokens], messages[tokens:]
        path = folder / "authz.yaml"
        text = CONFIG.format(issuer=issuer.address, redis=redis.url, transport=transport)
        path.write_text(text)
        command = ["authz", "serve", "-c", str(path), "--status", "127.0.0.1:0", "--check"]
        service = stack.enter_context(
            started_full(command, folder, "ours", folder / "ours.sock", tree)
        )
        assert redis.process is not None
        load = Load(service.path, METHOD, known[0], allowed)
        stack.callback(load.close)
        undisturbed(load.each_once, known, IN_FLIGHT)
        rows: dict[str, list[list[float]]] = {}
        for number in range(rounds):
            fresh = new[number * half : (number + 1) * half]
            mixed = [one for pair in zip(known, fresh, strict=False) for one in pair]
            cases = {
                WARM: [known[0]] * tokens,
                f"{tokens:,} known": known,
                "half of them new": mixed,
            }
            for name, sent in cases.items():
                used, in_redis = service.cpu(), cpu_seconds(redis.process.pid)
                # Not again where it was disturbed: a token is new once.
                seconds = load.each_once(sent, IN_FLIGHT)
                row = [len(sent) / seconds, (service.cpu() - used) / len(sent) * 1e6]
                row.append((cpu_seconds(redis.process.pid) - in_redis) / len(sent) * 1e6)
                rows.setdefault(name, []).append(row)
    return compare("tokens", ["decisions/s", "CPU µs", "Redis CPU µs"], rows, WARM)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.tokens", description=__doc__)
    parser.add_argument("--tokens", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--transport", default="auto")
    chosen = parser.parse_args(arguments)
    show(run(chosen.tokens, chosen.rounds, chosen.transport))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
