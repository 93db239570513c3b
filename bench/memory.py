"""Memory after many decisions against memory after a tenth of them.

Many tokens, on the fast transport, everything on. Only Allows count: on a machine that does other
things Redis is now and then later than its 50 ms.

    python -m bench.memory [decisions]
"""

import asyncio
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from bench.load import Load
from bench.result import Found, compare, show
from bench.transports import CONFIG, METHOD, allowed, started_full, step_up
from tests.support.service import running_issuer
from tests.support.valkey import valkey
from tests.support.values import call, request
from tests.support.wire import check_request
from tests.tokens.token_factory import rsa_signer

TOKENS = 200


def resident(pid: int) -> float:
    """Return the resident memory of a process in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no VmRSS")


def run(decisions: int) -> list[Found]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="m")))
        issuer = stack.enter_context(running_issuer())
        redis = stack.enter_context(valkey())
        asyncio.run(step_up(redis.url))
        path = folder / "authz.yaml"
        path.write_text(CONFIG.format(issuer=issuer.address, redis=redis.url, transport="auto"))
        socket = folder / "check.sock"
        command = ["authz", "serve", "-c", str(path), "--status", "127.0.0.1:0", "--check"]
        server = stack.enter_context(started_full(command, folder, "m", socket))
        refused = [0]

        def good(raw: bytes) -> bool:
            refused[0] += not allowed(raw)
            return True

        now = int(time.time())
        loads = []
        for number in range(TOKENS):
            times = {"iat": now - 5 - number, "nbf": now - 5 - number, "exp": now + 86_400}
            bearer = f"Bearer {rsa_signer().token(times)}"
            message = check_request(request(call("read_file"), authorization=bearer))
            loads.append(Load(server.path, METHOD, message, good, size=1))
        found: dict[str, list[list[float]]] = {}
        done, log = 0, folder / "m.log"
        for target in (decisions // 10, decisions // 2, decisions):
            while done < target:
                for load in loads:
                    load.run(50, 50)
                done += 50 * TOKENS - refused[0]
                refused[0] = 0
                log.write_text("")  # nobody needs a gigabyte of lines
            found[f"after {target}"] = [[resident(server.pid)]]
        for load in loads:
            load.close()
    return compare("memory", ["MiB"], found, next(iter(found)))


if __name__ == "__main__":
    show(run(int(sys.argv[1]) if sys.argv[1:] else 1_000_000))
