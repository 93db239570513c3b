"""What the audit trail costs a whole Check, with a trail and without, in turns in one run.

The trail writes to a real Valkey meanwhile, so that its share of the processor is in the figure.
`answer` is what the answers cost alone, `CPU` includes the recording and the writing.

    python -m bench.audit [rounds]
"""

import asyncio
import io
import sys
import time
from dataclasses import replace

from authz.audit.chain import TrailKeys
from authz.audit.store import TrailBound
from authz.audit.trail import AuditTrail, TrailSettings
from authz.ledger.deadline import Deadline
from authz.ledger.redis import RedisOptions
from authz.server.check import Check, Snapshot
from authz.server.refusal_limiter import RefusalLimiter
from authz.telemetry.audit import EventLog
from authz.telemetry.metrics import Metrics
from authz.telemetry.recorder import Recorder
from authz.tokens.claims import ClaimRules
from authz.tokens.verifier import TokenVerifier
from bench.result import Found, compare, show
from bench.token_cache import POLICY, NoLedger
from tests.support.valkey import valkey
from tests.support.values import call, request
from tests.support.wire import check_request
from tests.tokens.token_factory import ISSUER, TokenBench, rsa_signer

BATCH = 500
WITHOUT = "without"


async def run(rounds: int, url: str) -> list[Found]:
    recorder = Recorder(Metrics(), EventLog("json", io.StringIO()))
    verifier = TokenVerifier(TokenBench().keys, ClaimRules(ISSUER, leeway=30, max_lifetime=7200))
    now = int(time.time())
    token = rsa_signer().token({"iat": now, "nbf": now, "exp": now + 3600})
    await verifier.verify(token)
    settings = TrailSettings(
        RedisOptions(url), TrailBound(100_000, 86_400), TrailKeys((b"k" * 32,))
    )
    trail = AuditTrail(settings, recorder)
    trail.start()
    plain = Snapshot(POLICY, verifier, NoLedger(), Deadline(5.0))
    check = Check(plain, recorder, RefusalLimiter())
    raw = check_request(request(call("read_file"), authorization=f"Bearer {token}"))
    snapshots = {WITHOUT: plain, "with": replace(plain, trail=trail)}
    rows: dict[str, list[list[float]]] = {name: [] for name in snapshots}
    for number in range(rounds + 1):
        order = list(snapshots.items())
        for name, snapshot in order if number % 2 else reversed(order):
            check.snapshot = snapshot
            began, answering = time.process_time(), 0.0
            for _ in range(BATCH):
                asked = time.thread_time()
                await check(raw)
                answering += time.thread_time() - asked
                await asyncio.sleep(0)  # the next turn, in which a record is made
            # As long as the writer needs, so that its work counts where it belongs.
            await asyncio.sleep(0.25)
            spent = time.process_time() - began
            if number:  # the first round does not count
                rows[name].append([answering / BATCH * 1e6, spent / BATCH * 1e6])
    await trail.aclose()
    lost = recorder.metrics.registry.get_sample_value(
        "authz_audit_records_total", {"outcome": "lost"}
    )
    assert not lost, f"{lost} records were lost"
    return compare("audit", ["answer µs", "CPU µs"], rows, WITHOUT)


def main(rounds: int) -> list[Found]:
    """Measure on a server of its own."""
    with valkey() as server:
        found = asyncio.run(run(rounds, server.url))
        info = server.command("INFO", "memory")
        length = server.command("XLEN", "{authz}:audit")
        used = server.command("MEMORY", "USAGE", "{authz}:audit", "SAMPLES", 0)
        print(
            f"{length} records: {used / length:.0f} bytes each; {info['used_memory_human']} in all"
        )
    return found


if __name__ == "__main__":
    show(main(int(sys.argv[1]) if sys.argv[1:] else 20))
