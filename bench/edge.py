"""End to end through Envoy: with the check and without, 64 in flight and one at a time.

An Envoy of the rendered configuration (plaintext, one thread), the same without ext_authz as the
baseline, and before both an upstream that answers at once (another Envoy). Everything of the
check is on, as in bench.transports. Every answer has to be the upstream's 200. The empty check,
ngh2 around a check that allows at once, is what no service behind ext_authz can do better.

    python -m bench.edge [rounds [requests]]
"""

import asyncio
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from authz.config.endpoints import Unix
from authz.envoy.render import Topology, render
from bench.load import undisturbed
from bench.result import Found, compare, show
from bench.transports import (
    CONFIG,
    TRANSPORTS,
    cpu_seconds,
    started,
    started_full,
    step_up,
    token,
    trees,
    wait,
)
from bench.web import WebLoad
from tests.support import edge
from tests.support.envoy import BINARY, running_envoy
from tests.support.load import HOST, post
from tests.support.service import running_issuer
from tests.support.valkey import valkey

IN_FLIGHT = 64
EXT_AUTHZ = "envoy.filters.http.ext_authz"
_HCM = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3"
_ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"


@contextmanager
def upstream(folder: Path, body: str = "{}") -> Iterator[Path]:
    """Run an Envoy that answers everything with 200 and the same JSON, on a socket."""
    path = folder / "upstream"
    typed = {"header": {"key": "content-type", "value": "application/json"}}
    route = {
        "match": {"prefix": "/"},
        "direct_response": {"status": 200, "body": {"inline_string": body}},
        "response_headers_to_add": [
            typed | {"append_action": "OVERWRITE_IF_EXISTS_OR_ADD"},
        ],
    }
    manager = {
        "@type": f"{_HCM}.HttpConnectionManager",
        "stat_prefix": "upstream",
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": _ROUTER}}],
        "route_config": {
            "virtual_hosts": [{"name": "a", "domains": ["*"], "routes": [route]}],
            "max_direct_response_body_size_bytes": 1 << 20,
        },
    }
    name = "envoy.filters.network.http_connection_manager"
    listener = {
        "address": {"pipe": {"path": str(path)}},
        "filter_chains": [{"filters": [{"name": name, "typed_config": manager}]}],
    }
    text = json.dumps({"static_resources": {"listeners": [listener]}})
    command = [BINARY, "--disable-hot-restart", "--concurrency", "1", "--log-level", "error"]
    process = subprocess.Popen([*command, "--config-yaml", text])
    try:
        wait(lambda: path.exists() or process.poll() is not None)
        yield path
    finally:
        process.terminate()
        process.wait()


def of_edge(config: str) -> str:
    """Return authz.yaml of a bench as the edge in front of it is rendered from."""
    return config.replace(
        "gateway: {url: https://mcp.example.test}",
        f"gateway: {{url: 'https://{HOST}', listen: '127.0.0.1:0', address_calls: 1000000/second}}",
    )


def replace_filter(
    text: str,
    filter_name: str,
    filters: Sequence[Mapping[str, Any]] = (),
    clusters: Sequence[Mapping[str, Any]] = (),
) -> str:
    """Return a configuration with others, or none, in the place of an HTTP filter."""
    document = YAML(typ="safe").load(text)

    def put(node: object) -> None:
        if isinstance(node, dict):
            if "http_filters" in node:
                node["http_filters"] = [
                    new
                    for old in node["http_filters"]
                    for new in (filters if old["name"] == filter_name else [old])
                ]
            overrides = node.get("typed_per_filter_config")
            if isinstance(overrides, dict):
                overrides.pop(filter_name, None)
            for each in node.values():
                put(each)
        elif isinstance(node, list):
            for each in node:
                put(each)

    put(document)
    document["static_resources"]["clusters"] += clusters
    return json.dumps(document)


@contextmanager
def envoy(config: str, check: str, upstream: Path, without: str = "") -> Iterator[tuple[int, int]]:
    """Run the edge, less one HTTP filter where it is named; yields its port and process id."""
    with tempfile.TemporaryDirectory(prefix="e") as name:
        folder = Path(name)
        where = Topology(
            authz=(Unix(check or f"{folder}/nobody"),),
            admin=f"{folder}/admin",
            folder=name,
            upstreams={"files": Unix(str(upstream))},
        )
        files = dict(render(edge.settings(config), where))
        if without:
            files["envoy.yaml"] = replace_filter(files["envoy.yaml"], without)
        with running_envoy(files, folder, folder / "admin") as running:
            yield running.port("gateway"), running.process.pid


def _measure(load: WebLoad, pid: int, requests: int) -> list[float]:
    used = cpu_seconds(pid)
    seconds = load.run(requests, IN_FLIGHT)
    used = cpu_seconds(pid) - used
    load.run(requests // 10, 1)
    p50 = statistics.median(load.latencies)
    return [requests / seconds, used / requests * 1e6, p50 * 1e6]


def run(rounds: int, requests: int) -> list[Found]:
    """Measure, and return requests per second, CPU of Envoy and p50 one at a time."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="b")))
        issuer = stack.enter_context(running_issuer())
        redis = stack.enter_context(valkey())
        behind = stack.enter_context(upstream(folder))
        asyncio.run(step_up(redis.url))
        loads: dict[str, tuple[WebLoad, int]] = {}
        message = post(token())
        for (kind, tree), transport in itertools.product(trees().items(), TRANSPORTS):
            config = CONFIG.format(issuer=issuer.address, redis=redis.url, transport=transport)
            name = f"{kind}{transport}".replace(" ", "-")
            path = folder / f"{name}.yaml"
            path.write_text(config)
            check = folder / f"{name}.sock"
            command = ["authz", "serve", "-c", str(path), "--status", "127.0.0.1:0", "--check"]
            stack.enter_context(started_full(command, folder, name, check, tree))
            text = of_edge(config)
            cases = {f"{kind}{transport}": str(check)}
            if not loads:
                empty = started(["bench.empty", "ngh2"], folder, "empty")
                cases |= {"no check": "", "empty check": stack.enter_context(empty).path}
            for case, asked in cases.items():
                without = "" if asked else EXT_AUTHZ
                port, pid = stack.enter_context(envoy(text, asked, behind, without))
                loads[case] = WebLoad(("127.0.0.1", port), message, IN_FLIGHT), pid
        for load, _ in loads.values():
            undisturbed(load.run, requests // 4, IN_FLIGHT)
        rows: dict[str, list[list[float]]] = {case: [] for case in loads}
        for _ in range(rounds):
            for case, (load, pid) in loads.items():
                rows[case].append(undisturbed(_measure, load, pid, requests))
        for load, _ in loads.values():
            load.close()
    return compare("edge", ["requests/s", "Envoy CPU µs", "p50 of one µs"], rows, "no check")


if __name__ == "__main__":
    os.environ.setdefault("PYTHONDONTWRITEBYTECODE", "1")
    numbers = [int(word) for word in sys.argv[1:]]
    show(run(*(numbers + [7, 4000][len(numbers) :])))
