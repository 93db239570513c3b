"""Several worker processes on one Redis admit together what one would."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.valkey import ValkeyServer

WORKERS = 4
ROOT = Path(__file__).parents[2]


def run_contenders(server: ValkeyServer, deployment: str, *numbers: int) -> tuple[list[int], int]:
    """Let four processes begin together; return the moments of all admissions, and of the end."""
    words = [server.url, deployment, *map(str, numbers)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.ledger.contention", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for _ in range(WORKERS)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        results = []
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in processes:
            out, _ = process.communicate(timeout=120)
            results.append(json.loads(out))
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    admitted = sorted(moment for result in results for moment in result["admitted"])
    return admitted, max(result["last"] for result in results)


@pytest.mark.attack("exactly-100-of-2000")
def test_of_two_thousand_takes_in_four_processes_exactly_a_hundred_pass(
    server: ValkeyServer, deployment: str
) -> None:
    """2,000 concurrent takes against a limit of 100 a day: exactly 100 are admitted."""
    admitted, _ = run_contenders(server, deployment, 100, 86_400, 500, 1, 0)

    assert len(admitted) == 100


@pytest.mark.attack("window-edge")
def test_across_the_edges_of_windows_the_bound_holds(server: ValkeyServer, deployment: str) -> None:
    """With 40 a second and all the load that fits, no second anywhere admits more than 40."""
    quota = 40
    admitted, last = run_contenders(server, deployment, quota, 1, 8, 1_000_000, 1600)

    most = max(sum(begin <= each <= begin + 1000 for each in admitted) for begin in admitted)
    assert most == quota
    # All of it came back within a window and a slot; that is what the run lasted beyond.
    assert last - admitted[0] >= 1600
    assert len(admitted) >= 2 * quota
