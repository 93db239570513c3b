"""What the list filter costs: a tools/call that it leaves alone, and a tools/list that it filters.

Two Envoys of the rendered configuration (plaintext, one thread) ask one service; the second lacks
the filter. Both requests get the same JSON answer of 50 tools, of which the rule allows half. Every
answer has to be 200. The service's share of the processor is in the figure.

    python -m bench.lists [rounds [requests]]
"""

import asyncio
import json
import os
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from bench.edge import envoy, of_edge, upstream
from bench.load import undisturbed
from bench.result import Found, compare, show
from bench.transports import CONFIG, cpu_seconds, started_full, step_up, token, trees
from bench.web import WebLoad
from tests.support.load import HOST
from tests.support.service import running_issuer
from tests.support.valkey import valkey
from tests.support.values import call, rpc

IN_FLIGHT, TOOLS = 64, 50
FILTER, WITH, WITHOUT = "envoy.filters.http.composite", "with the filter", "without"
MESSAGES = {"tools/call": call("read_file"), "tools/list": rpc("tools/list")}


def tool_list() -> str:
    """Return an answer to tools/list: every second tool is one that the rule allows."""
    schema = {"type": "object", "properties": {"path": {"type": "string"}}}
    tools = [
        {
            "name": f"{'read' if number % 2 else 'write'}_{number}",
            "description": "Do one thing with one file of a folder, and say what came of it.",
            "inputSchema": schema,
        }
        for number in range(TOOLS)
    ]
    return json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"tools": tools}})


def post(body: bytes, bearer: str) -> bytes:
    """Return a whole HTTP/1.1 request."""
    head = (
        f"POST /files HTTP/1.1\r\nhost: {HOST}\r\ncontent-type: application/json\r\n"
        "accept: application/json, text/event-stream\r\nmcp-protocol-version: 2025-11-25\r\n"
        f"authorization: Bearer {bearer}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def measure(load: WebLoad, pids: list[int], requests: int) -> list[float]:
    """Return µs of the processor of Envoy and of the service for a request, and the p50 of one."""
    used = [cpu_seconds(pid) for pid in pids]
    load.run(requests, IN_FLIGHT)
    spent = [cpu_seconds(pid) - begin for pid, begin in zip(pids, used, strict=True)]
    load.run(requests // 10, 1)
    p50 = statistics.median(load.latencies)
    return [*(each / requests * 1e6 for each in spent), p50 * 1e6]


def run(rounds: int, requests: int) -> list[list[Found]]:
    """Measure both messages through both Envoys in turns, after a round that does not count."""
    kind, tree = list(trees().items())[-1]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="b")))
        issuer = stack.enter_context(running_issuer())
        redis = stack.enter_context(valkey())
        behind = stack.enter_context(upstream(folder, tool_list()))
        asyncio.run(step_up(redis.url))
        config = CONFIG.format(issuer=issuer.address, redis=redis.url, transport="auto")
        path, check = folder / "authz.yaml", folder / "authz.sock"
        path.write_text(config)
        command = ["authz", "serve", "-c", str(path), "--status", "127.0.0.1:0", "--check"]
        service = stack.enter_context(started_full(command, folder, "authz", check, tree))
        text = of_edge(config)
        edges = {
            case: stack.enter_context(envoy(text, str(check), behind, without))
            for case, without in {WITH: "", WITHOUT: FILTER}.items()
        }
        bearer, found = token(), []
        for message, body in MESSAGES.items():
            loads = {
                case: (WebLoad(("127.0.0.1", port), post(body, bearer), IN_FLIGHT), pid)
                for case, (port, pid) in edges.items()
            }
            rows: dict[str, list[list[float]]] = {case: [] for case in loads}
            for number in range(rounds + 1):
                order = list(loads.items())
                for case, (load, pid) in order if number % 2 else reversed(order):
                    figures = undisturbed(measure, load, [pid, service.pid], requests)
                    if number:
                        rows[case].append(figures)
            for load, _ in loads.values():
                load.close()
            figures_of = ["Envoy CPU µs", "authz CPU µs", "p50 of one µs"]
            found.append(compare(f"lists, {kind}{message}", figures_of, rows, WITHOUT))
    return found


if __name__ == "__main__":
    os.environ.setdefault("PYTHONDONTWRITEBYTECODE", "1")
    numbers = [int(word) for word in sys.argv[1:]]
    for each in run(*(numbers + [7, 1500][len(numbers) :])):
        show(each)
