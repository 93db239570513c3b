"""Our service beside others behind the same Envoy: throughput, CPU, switches and waiting times.

One Envoy for each case, all rendered from the same authz.yaml, with what a peer takes in the place
of our ext_authz filter; the same request and upstream, in turns within each round. A peer is any
ext_authz service that runs already, by its address (`--check`), or whatever HTTP filters stand in
the filter's place (`--filters`: JSON with `filters`, `clusters` and `processes`). CPU and switches
are those of the processes that are named for it; for us the worker and its Valkey.

The token is an RS256 JWT, signed with the key of `--key`; a peer is set up with its JWKS before.
"""

import argparse
import asyncio
import json
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from authz.config.endpoints import Unix
from authz.envoy.render import Topology, render
from bench.edge import EXT_AUTHZ, IN_FLIGHT, of_edge, replace_filter, upstream
from bench.load import undisturbed
from bench.result import Found, as_json, compare
from bench.steady import spent
from bench.transports import CONFIG, ROOT, started, started_full, step_up, trees
from bench.web import WebLoad
from tests.support import edge
from tests.support.envoy import running_envoy
from tests.support.load import post
from tests.support.service import running_issuer
from tests.support.valkey import valkey
from tests.tokens.token_factory import TokenSigner, rsa_signer

OURS: Final = "authz"
RATES: Final = (1_000, 200)
FIGURES: Final = (
    "requests/s",
    "CPU us",
    "p50 of one us",
    *(f"{figure} at {rate}/s" for rate in RATES for figure in ("CPU us", "switches", "p50", "p99")),
)
_TYPE: Final = "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz"
_HTTP2: Final = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
EXAMPLES: Final = """\
examples:
  python -m bench.peers                                    # the empty check and no check beside us
  python -m bench.peers --check other=127.0.0.1:9191 --processes other=4711,4712
  python -m bench.peers --key key.pem --rounds 0           # key.pem and key.pem.jwks, for a peer
  python -m bench.peers --key key.pem --filters opa=opa.json --filters jwt=jwt.json --json all.json
"""


@dataclass(frozen=True)
class Peer:
    """What stands in the place of our ext_authz filter, and the processes whose CPU is counted.

    Attributes:
        filters, clusters: of Envoy's configuration; None for the filter as it is rendered.
        processes: by name.
        check: where the rendered filter asks.
    """

    filters: Sequence[Mapping[str, Any]] | None
    clusters: Sequence[Mapping[str, Any]]
    processes: Mapping[str, int]
    check: str = ""


def ext_authz(address: str, processes: Sequence[int]) -> Peer:
    """Return a peer that is asked by gRPC, with the whole body, and fails closed."""
    service = {"envoy_grpc": {"cluster_name": "peer"}, "timeout": "1s"}
    body = {"max_request_bytes": 1 << 20, "pack_as_bytes": True}
    config = {"@type": _TYPE, "grpc_service": service, "with_request_body": body}
    where: dict[str, Any]
    if address.startswith("unix:"):
        where = {"pipe": {"path": address.removeprefix("unix:")}}
    else:
        host, _, port = address.rpartition(":")
        where = {"socket_address": {"address": host, "port_value": int(port)}}
    endpoint = {"lb_endpoints": [{"endpoint": {"address": where}}]}
    http2 = {"@type": _HTTP2, "explicit_http_config": {"http2_protocol_options": {}}}
    cluster = {
        "name": "peer",
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": "peer", "endpoints": [endpoint]},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2
        },
    }
    named = {f"{number}": pid for number, pid in enumerate(processes)}
    return Peer([{"name": EXT_AUTHZ, "typed_config": config}], [cluster], named)


def from_file(path: Path, processes: Sequence[int]) -> Peer:
    """Return the peer of a file of JSON.

    Raises:
        ValueError: where it is none.
    """
    found = json.loads(path.read_text("utf-8"))
    pids = processes or found.get("processes", [])
    named = {f"{number}": int(pid) for number, pid in enumerate(pids)}
    return Peer(found["filters"], found.get("clusters", []), named)


def with_filters(text: str, peer: Peer) -> str:
    """Return Envoy's configuration with a peer's filters in the place of ours."""
    if peer.filters is None:
        return text
    return replace_filter(text, EXT_AUTHZ, peer.filters, peer.clusters)


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value below which a share of them lies."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def measure(load: WebLoad, processes: Mapping[str, int], requests: int) -> list[float]:
    """Return a row of `FIGURES`."""

    def cost(send: Callable[[], float], count: int) -> tuple[float, float, float]:
        before = spent(dict(processes))
        seconds = send()
        after = spent(dict(processes))
        used = dict.fromkeys(("us", "switches"), 0.0)
        for (_, kind), value in (after - before).items():
            used[kind] += value
        return seconds, used["us"] / count, used["switches"] / count

    seconds, cpu, _ = cost(lambda: load.run(requests, IN_FLIGHT), requests)
    load.run(requests // 10, 1)
    row = [requests / seconds, cpu, statistics.median(load.latencies) * 1e6]
    for rate in RATES:
        count = max(rate, requests // 4) if rate == RATES[0] else max(100, requests // 8)
        _, cpu, switches = cost(lambda n=count, r=rate: load.paced(n, r), count)  # type: ignore[misc]
        row += [cpu, switches, *(quantile(load.latencies, s) * 1e6 for s in (0.5, 0.99))]
    return row


def signer(path: Path | None) -> TokenSigner:
    """Return what signs the token, with the key of a file, which is made where there is none.

    Raises:
        OSError, ValueError: where the file cannot be read.
    """
    found = rsa_signer()
    if path is None:
        return found
    if path.exists():
        key = load_pem_private_key(path.read_bytes(), None)
        if not isinstance(key, rsa.RSAPrivateKey):
            raise ValueError(f"{path} holds no RSA key")
        return TokenSigner(key, found.kid, found.alg)
    if not isinstance(found.key, rsa.RSAPrivateKey):
        raise TypeError
    path.touch(0o600)
    path.write_bytes(found.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    Path(f"{path}.jwks").write_text(json.dumps({"keys": [found.jwk()]}))
    return found


def run(
    peers: Mapping[str, Peer],
    rounds: int,
    requests: int,
    *,
    transport: str,
    request: bytes,
    jwk: dict[str, object],
) -> list[Found]:
    """Measure all cases in turns; ratios are to us, compiled where that tree is there."""
    tree = trees().get("compiled ", ROOT)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="p")))
        issuer = stack.enter_context(running_issuer())
        issuer.keys = [jwk]
        redis = stack.enter_context(valkey())
        behind = stack.enter_context(upstream(folder))
        asyncio.run(step_up(redis.url))
        config = CONFIG.format(issuer=issuer.address, redis=redis.url, transport=transport)
        (folder / "authz.yaml").write_text(config)
        command = ["authz", "serve", "-c", str(folder / "authz.yaml"), "--status", "127.0.0.1:0"]
        service = stack.enter_context(
            started_full([*command, "--check"], folder, "ours", folder / "ours.sock", tree)
        )
        assert redis.process is not None
        own = {"worker": service.pid, "redis": redis.process.pid}
        empty = stack.enter_context(started(["bench.empty", "ngh2"], folder, "empty", tree))
        cases = {
            OURS: Peer(None, (), own, service.path),
            "empty check": Peer(None, (), {"worker": empty.pid}, empty.path),
            "no check": Peer((), (), {}),
            **peers,
        }
        loads = dict[str, WebLoad]()
        for number, (name, peer) in enumerate(cases.items()):
            place = folder / f"e{number}"
            place.mkdir()
            where = Topology(
                authz=(Unix(peer.check or f"{place}/nobody"),),
                admin=f"{place}/admin",
                folder=str(place),
                upstreams={"files": Unix(str(behind))},
            )
            files = dict(render(edge.settings(of_edge(config)), where))
            files["envoy.yaml"] = with_filters(files["envoy.yaml"], peer)
            running = stack.enter_context(running_envoy(files, place, place / "admin"))
            address = ("127.0.0.1", running.port("gateway"))
            loads[name] = WebLoad(address, request, IN_FLIGHT)
            stack.callback(loads[name].close)
            undisturbed(loads[name].run, requests // 4, IN_FLIGHT)
        rows: dict[str, list[list[float]]] = {name: [] for name in cases}
        for number in range(rounds):
            for name, load in loads.items():
                rows[name].append(undisturbed(measure, load, cases[name].processes, requests))
                said = f"round {number + 1} of {rounds}: {name}: {rows[name][-1][0]:.0f}/s"
                print(said, file=sys.stderr)
    return compare("peers", FIGURES, rows, OURS)


def show_by_figure(found: Sequence[Found]) -> None:
    """Print a line a figure, a column a case, each with its ratio to us."""
    cells = {(each.case, each.figure): f"{each.value:9.1f} ({each.ratio:5.2f})" for each in found}
    cases = list(dict.fromkeys(each.case for each in found))
    print(f"{'ratios to ' + OURS:20}" + "".join(f"{case:>18}" for case in cases))
    for figure in FIGURES:
        print(f"{figure:20}" + "".join(f"{cells[case, figure]:>18}" for case in cases))


def _named(text: str) -> tuple[str, str]:
    name, found, value = text.partition("=")
    if not found or not re.fullmatch(r"[\w .+-]+", name):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    found = argparse.ArgumentParser(
        prog="python -m bench.peers",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    repeated: dict[str, Any] = {"action": "append", "type": _named, "default": []}
    found.add_argument(
        "--check", metavar="NAME=ADDRESS", help="host:port or unix:/path, of gRPC", **repeated
    )
    found.add_argument(
        "--filters", metavar="NAME=FILE", help="what stands in the filter's place", **repeated
    )
    found.add_argument(
        "--processes", metavar="NAME=PID,...", help="whose CPU is that peer's", **repeated
    )
    found.add_argument("--request", type=Path, help="a whole HTTP/1.1 request, for all of them")
    found.add_argument("--key", type=Path, help="of RSA (PEM); made where it is not there")
    found.add_argument("--transport", default="auto", help="of ours (default: auto)")
    found.add_argument("--rounds", type=int, default=5)
    found.add_argument("--requests", type=int, default=4_000, help="in flight, a round")
    found.add_argument("--json", type=Path, help="write the figures there, too")
    return found


def peers_of(chosen: argparse.Namespace) -> dict[str, Peer]:
    """Return the peers of a command line."""
    processes = {name: [int(one) for one in pids.split(",")] for name, pids in chosen.processes}
    found = {name: ext_authz(address, processes.get(name, ())) for name, address in chosen.check}
    return found | {
        name: from_file(Path(file), processes.get(name, ())) for name, file in chosen.filters
    }


def main(arguments: Sequence[str]) -> int:
    chosen = parser().parse_args(arguments)
    key = signer(chosen.key)
    if not chosen.rounds:
        return 0
    now = int(time.time())
    token = key.token({"iat": now - 5, "nbf": now - 5, "exp": now + 86_400})
    request = post(token) if chosen.request is None else chosen.request.read_bytes()
    found = run(
        peers_of(chosen),
        chosen.rounds,
        chosen.requests,
        transport=chosen.transport,
        request=request,
        jwk=key.jwk(),
    )
    show_by_figure(found)
    if chosen.json is not None:
        chosen.json.write_text(as_json(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
