"""What Envoy Gateway's own translator makes of the chart, as a configuration of one Envoy.

    AUTHZ_EGCTL=egctl python -m tests.kubernetes.translated

writes golden/translated.yaml. egctl is built by
`go install github.com/envoyproxy/gateway/cmd/egctl@v1.9.0`.
"""

import hashlib
import json
import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML

from authz.config.yaml_writer import to_yaml
from tests.kubernetes.manifests import Manifests, manifests
from tools.chart import ENVOY_GATEWAY, GOLDEN

TRANSLATED: Final = GOLDEN / "translated.yaml"
_KINDS: Final = ("HTTPRoute", "SecurityPolicy", "EnvoyPatchPolicy", "Service")
# The one Service of the chart without an address of its own gets one here: egctl is told of no
# EndpointSlice, and answers 500 in place of each route while authz has no endpoint.
_ADDRESS: Final = "10.0.0.9"
_AROUND: Final = """\
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: eg}
spec: {controllerName: gateway.envoyproxy.io/gatewayclass-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: eg, namespace: mcp}
spec:
  gatewayClassName: eg
  listeners: [{name: https, protocol: HTTP, port: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: files, namespace: mcp}
spec: {clusterIP: 10.0.0.1, ports: [{port: 8000}]}
---
apiVersion: v1
kind: Service
metadata: {name: notes, namespace: mcp}
spec: {clusterIP: 10.0.0.2, ports: [{port: 8000}]}
"""


def digest(found: Manifests) -> str:
    """Return what changes with what Envoy Gateway is told."""
    specs = [each["spec"] for kind in _KINDS[:3] for each in found.of(kind)]
    return hashlib.sha256(json.dumps(specs, sort_keys=True).encode()).hexdigest()


def head(found: Manifests) -> str:
    """Return the first line of the golden file."""
    return f"# By tests/kubernetes/translated.py (egctl 1.9.0). Do not edit: {digest(found)}\n"


def translate(found: Manifests) -> Mapping[str, Any]:
    """Return what the translator says."""
    documents = [each for each in found.documents if each["kind"] in _KINDS]
    text = json.dumps(documents).replace('"clusterIP": "None"', f'"clusterIP": "{_ADDRESS}"')
    parts = [_AROUND, *map(json.dumps, json.loads(text))]
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write("\n---\n".join(parts))
        file.flush()
        command = [os.environ["AUTHZ_EGCTL"], "x", "translate", "--from", "gateway-api"]
        command += ["--to", "gateway-api,xds", "--type", "all", "--output", "yaml"]
        command += ["--add-missing-resources", "--file", file.name]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    said: Mapping[str, Any] = YAML(typ="safe").load(done.stdout)
    return said


def envoy(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return its listener, routes and clusters in one file; sockets stand for the network."""
    kinds = {each["@type"].rpartition(".")[2]: each for each in said["xds"]["mcp/eg"]["configs"]}
    (routes,) = (
        each["routeConfig"]
        for each in kinds["RoutesConfigDump"]["dynamicRouteConfigs"]
        if each["routeConfig"]["name"] == "mcp/eg/https"
    )
    (listener,) = (
        each["activeState"]["listener"]
        for each in kinds["ListenersConfigDump"]["dynamicListeners"]
        if each["activeState"]["listener"]["name"] == "mcp/eg/https"
    )
    clusters = [each["cluster"] for each in kinds["ClustersConfigDump"]["dynamicActiveClusters"]]
    for each in (routes, listener, *clusters):
        each.pop("@type")
    listener.pop("accessLog")
    listener["address"] = {"socketAddress": {"address": "127.0.0.1", "portValue": 0}}
    (http,) = listener["defaultFilterChain"]["filters"]
    http["typedConfig"].pop("accessLog")
    http["typedConfig"].pop("rds")
    http["typedConfig"]["routeConfig"] = routes
    for cluster in clusters:
        name = cluster["name"]
        cluster.pop("edsClusterConfig")
        cluster.pop("loadBalancingPolicy")
        cluster["type"] = "STATIC"
        place = "AUTHZ" if "extauth" in name else "FILES" if "-server-files/" in name else "/other"
        endpoint = {"endpoint": {"address": {"pipe": {"path": place}}}}
        cluster["loadAssignment"] = {
            "clusterName": name,
            "endpoints": [{"lbEndpoints": [endpoint]}],
        }
    return {
        "admin": {"address": {"pipe": {"path": "ADMIN"}}},
        "staticResources": {"listeners": [listener], "clusters": clusters},
    }


def accepted(said: Mapping[str, Any]) -> bool:
    """Tell whether Envoy Gateway accepts all that the chart gives it."""
    kinds = ("securityPolicies", "httpRoutes", "envoyPatchPolicies")
    text = json.dumps([said.get(kind) for kind in kinds])
    return '"status": "False"' not in text and all(said.get(kind) for kind in kinds[:2])


def main() -> None:
    """Write the golden file."""
    found = manifests(ENVOY_GATEWAY.file)
    said = translate(found)
    assert accepted(said), said
    Path(TRANSLATED).write_text(head(found) + to_yaml(envoy(said)), "utf-8")


if __name__ == "__main__":
    main()
