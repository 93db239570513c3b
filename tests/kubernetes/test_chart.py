"""The Helm chart: what it renders, what it refuses, and that no value can say more than its own.

The golden files are what helm renders, where there is one; elsewhere a digest tells that the chart
has changed since. What they say is checked everywhere.
"""

import json
import os
import re
from pathlib import Path

import jsonschema
import pytest
from ruamel.yaml import YAML

from authz import __version__
from authz.cli.main import main as authz
from authz.config.load import load
from tests.kubernetes.manifests import PARTS, Manifests, containers, manifests, parse, values
from tools.chart import (
    CHART,
    ENVOY_GATEWAY,
    EVERYTHING,
    PLAIN,
    RENDERINGS,
    helm,
    rules,
    stale,
    template,
)

SCHEMA = json.loads((CHART / "values.schema.json").read_text("utf-8"))
ALL = pytest.mark.parametrize(
    "path", [each.file for each in RENDERINGS], ids=lambda path: path.stem
)
with_helm = pytest.mark.skipif(helm() is None, reason="no helm here: the golden files are checked")
# Of a name that leads to what is gone, and of Envoy's next look (its default, 5 s).
DNS_REFRESH = 5


def test_the_golden_files_are_what_the_chart_renders() -> None:
    """By helm where there is one, else by the digest of what they were rendered from."""
    assert not stale(with_helm=helm() is not None), "make chart"


def test_the_chart_has_the_alerts_of_every_other_deployment() -> None:
    """One source: what `authz init` writes; and the version is the package's."""
    assert (CHART / "files" / "rules.yml").read_text("utf-8") == rules(), "make chart"
    (rule,) = manifests(EVERYTHING.file).of("PrometheusRule")
    assert rule["spec"] == YAML(typ="safe").load(rules())
    chart = YAML(typ="safe").load((CHART / "Chart.yaml").read_text("utf-8"))
    assert (chart["version"], chart["appVersion"]) == (__version__, __version__)


def test_jobs_are_called_what_the_alerts_call_them() -> None:
    found = manifests(EVERYTHING.file)
    jobs = {
        each["spec"]["podMetricsEndpoints"][0]["relabelings"][0]["replacement"]
        for each in found.of("PodMonitor")
    }
    meant = set(re.findall(r'job="([^"]+)"', rules())) - {"alertmanager", "prometheus"}
    assert jobs == meant


@ALL
def test_pods_are_restricted(path: Path) -> None:
    """As the Pod Security Standard of that name asks; roots are read-only, secrets are files."""
    for name, pod, container in containers(manifests(path)):
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True, name
        assert context["runAsUser"] > 0, name
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["enableServiceLinks"] is False, name
        assert not {"hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"} & set(pod), name
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name
        assert not {"env", "envFrom"} & set(container), name
        assert "hostPort" not in json.dumps(container), name
        assert container["resources"]["limits"]["memory"], name
        assert container["resources"]["requests"]["cpu"], name
        # A part of an image's name that can change what runs.
        assert re.search(r":[^:/]+$", container["image"]), name
        assert not container["image"].endswith(":latest"), name


@ALL
def test_volumes_are_there_and_none_by_subpath(path: Path) -> None:
    """A `subPath` keeps a ConfigMap's old file for ever."""
    for name, pod, container in containers(manifests(path)):
        kinds = {each["name"]: set(each) - {"name"} for each in pod["volumes"]}
        assert all(each <= {"configMap", "secret", "emptyDir"} for each in kinds.values()), name
        for mount in container["volumeMounts"]:
            assert "subPath" not in mount, name
            if kinds[mount["name"]] != {"emptyDir"}:
                assert mount["readOnly"] is True, name


@ALL
def test_what_names_something_names_what_is_there(path: Path) -> None:
    """Selectors, ports of services and probes, budgets and policies."""
    found = manifests(path)
    pods = {
        each["metadata"]["name"]: each["spec"]["template"]["metadata"]["labels"]
        for each in found.of("Deployment")
    }
    selecting = [each["spec"]["selector"]["matchLabels"] for each in found.of("Deployment")]
    selecting += [
        each["spec"]["selector"]["matchLabels"] for each in found.of("PodDisruptionBudget")
    ]
    selecting += [each["spec"]["selector"] for each in found.of("Service")]
    selecting += [each["spec"]["selector"]["matchLabels"] for each in found.of("PodMonitor")]
    for labels in selecting:
        assert [name for name in pods if labels.items() <= pods[name].items()], labels
    for name, _, container in containers(found):
        ports = {each["name"] for each in container.get("ports", ())}
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            if probe in container:
                asked = container[probe].get("httpGet") or container[probe]["tcpSocket"]
                assert asked["port"] in ports, name
    for service in found.of("Service"):
        labels = service["spec"]["selector"]
        (name,) = (name for name in pods if labels.items() <= pods[name].items())
        offered = found.container(name.removeprefix("authz-"))["ports"]
        known = {each["name"] for each in offered} | {each["containerPort"] for each in offered}
        assert {each["targetPort"] for each in service["spec"]["ports"]} <= known
    names = [(each["kind"], each["metadata"]["name"]) for each in found.documents]
    assert len(names) == len(set(names))
    assert {each["metadata"]["namespace"] for each in found.documents} == {"mcp"}


@ALL
def test_an_old_replica_answers_until_its_successor_is_known(path: Path) -> None:
    """A new one is ready first; by then names may lead elsewhere for as long as they are cached."""
    found, said = manifests(path), values()
    config = YAML(typ="safe").load(found.config)
    notice = config.get("service", {}).get("drain_notice", "3s")
    needs = {"authz": int(notice.removesuffix("s")), "pages": 30, "envoy": 0}
    for part in PARTS:
        deployment = found.one("Deployment", f"authz-{part}")["spec"]
        assert deployment["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
        before = found.container(part)["lifecycle"]["preStop"]
        seconds = said[part]["preStopSeconds"]
        if part == "envoy":
            assert before["exec"]["command"][-1].endswith(f"sleep {seconds}")
        else:
            assert before == {"sleep": {"seconds": seconds}}
            assert seconds >= said["dnsCacheSeconds"] + DNS_REFRESH
        grace = deployment["template"]["spec"]["terminationGracePeriodSeconds"]
        assert grace >= seconds + needs[part] + (0 if part == "pages" else 10)
        assert found.one("PodDisruptionBudget", f"authz-{part}")["spec"]["maxUnavailable"] == 1


@ALL
def test_check_and_pages_are_reached_by_envoy_alone(path: Path) -> None:
    """And by who reads metrics, at that port."""
    found = manifests(path)
    for part, port in (("authz", 9001), ("pages", 9002)):
        policy = found.one("NetworkPolicy", f"authz-{part}")["spec"]
        assert policy["policyTypes"] == ["Ingress", "Egress"]
        asking, reading = policy["ingress"]
        assert asking["ports"][0]["port"] == port
        for peer in asking["from"]:
            labels = peer["podSelector"]["matchLabels"]
            assert (
                labels.get("app.kubernetes.io/component") == "envoy"
                or labels.get("gateway.envoyproxy.io/owning-gateway-name") == "eg"
            )
        assert reading["ports"] == [{"protocol": "TCP", "port": "metrics"}]
    (servers,) = found.one("NetworkPolicy", "authz-servers")["spec"]["ingress"]
    assert all(each["podSelector"] for each in servers["from"])


@ALL
def test_no_label_that_a_stranger_can_give_a_pod_lets_it_in(path: Path) -> None:
    """A peer of another namespace is known by that namespace's name, which the cluster gives."""
    for policy in manifests(path).of("NetworkPolicy"):
        for rule in policy["spec"]["ingress"]:
            for peer in rule.get("from", ()):
                if "namespaceSelector" in peer:
                    labels = peer["namespaceSelector"]["matchLabels"]
                    assert labels["kubernetes.io/metadata.name"], policy["metadata"]["name"]


@ALL
def test_envoy_is_reached_by_everybody_only_where_it_believes_nobodys_address(path: Path) -> None:
    found = manifests(path)
    asking, _ = found.one("NetworkPolicy", "authz-envoy")["spec"]["ingress"]
    config = YAML(typ="safe").load(found.config)
    assert asking["ports"] == [{"protocol": "TCP", "port": 8443}]
    assert bool(asking.get("from")) is bool(config["gateway"].get("trusted_hops"))


@ALL
def test_the_real_command_renders_envoys_files(path: Path, tmp_path: Path) -> None:
    """As the init container does, from the ConfigMap's authz.yaml; names lead to every replica."""
    found = manifests(path)
    config = tmp_path / "authz.yaml"
    config.write_text(found.config)
    load(config, {}, secrets=False)
    (container,) = found.pod("envoy")["initContainers"]
    places = {
        "/etc/authz/": f"{tmp_path}/",
        "/etc/envoy": f"{tmp_path}/envoy",
        "/run/envoy": tmp_path,
    }
    said = "\n".join(container["args"])
    for inside, here in places.items():
        said = said.replace(inside, str(here))
    assert authz(said.splitlines()) == 0
    text = (tmp_path / "envoy" / "clusters.yaml").read_text("utf-8")
    clusters = {each["name"]: each for each in YAML(typ="safe").load(text)["resources"]}
    for name, port in (("authz", 9001), ("pages", 9002)):
        (endpoint,) = clusters[name]["load_assignment"]["endpoints"][0]["lb_endpoints"]
        place = endpoint["endpoint"]["address"]["socket_address"]
        assert clusters[name]["type"] == "STRICT_DNS"
        assert "dns_refresh_rate" not in clusters[name]  # 5 s then
        assert (place["address"], place["port_value"]) == (f"authz-{name}.mcp.svc", port)
        service = found.one("Service", f"authz-{name}")["spec"]
        assert service["clusterIP"] == "None"
        assert port in {each["port"] for each in service["ports"]}


def test_each_replica_counts_its_part_while_redis_is_away() -> None:
    """The plain manifests have as many as their authz.yaml says."""
    found = manifests(PLAIN.file)
    config = YAML(typ="safe").load(found.config)
    replicas = found.one("Deployment", "authz-authz")["spec"]["replicas"]
    assert config["redis"]["replicas"] == replicas


def test_envoy_gateway_lets_nothing_pass_that_authz_has_not_allowed() -> None:
    """Each server of authz.yaml has a route of its exact path, and a policy that names it."""
    found = manifests(ENVOY_GATEWAY.file)
    config = YAML(typ="safe").load(found.config)
    for name in config["servers"]:
        called = f"authz-server-{name.replace('_', '.')}"
        (rule,) = found.one("HTTPRoute", called)["spec"]["rules"]
        assert rule["matches"] == [{"path": {"type": "Exact", "value": f"/{name}"}}]
        policy = found.one("SecurityPolicy", called)["spec"]
        (target,) = policy["targetRefs"]
        assert (target["kind"], target["name"]) == ("HTTPRoute", called)
        assert policy["extAuth"] == {
            "failOpen": False,
            "statusOnError": 503,
            "timeout": "3s",
            "bodyToExtAuth": {"maxRequestBytes": 1048576},
            "contextExtensions": [{"name": "server", "type": "Value", "value": name}],
            "grpc": {"backendRefs": [{"name": "authz-authz", "port": 9001}]},
        }
    assert len(found.of("SecurityPolicy")) == len(config["servers"])
    (patch,) = found.of("EnvoyPatchPolicy")
    patched = {each["operation"]["path"] for each in patch["spec"]["jsonPatches"]}
    assert patched == {"pack_as_bytes", "encode_raw_headers", "validate_mutations"}


def _objects(schema: object) -> list[dict[str, object]]:
    if isinstance(schema, list):
        return [found for each in schema for found in _objects(each)]
    if not isinstance(schema, dict):
        return []
    below = [found for each in schema.values() for found in _objects(each)]
    return [
        *([schema] if "properties" in schema and schema.get("type") == "object" else []),
        *below,
    ]


def test_the_schema_knows_every_value_and_no_other() -> None:
    """A typo is refused, and none of ours is."""
    assert all(each["additionalProperties"] is False for each in _objects(SCHEMA))
    jsonschema.validate({**values(), "config": "a: b"}, SCHEMA)
    assert set(values()) == set(SCHEMA["properties"]) - {"global"}
    for wrong in (
        {**values()},  # no config
        {**values(), "config": "a: b", "confg": ""},
        {**values(), "config": "a: b", "dataPlane": "agentgateway"},
        {**values(), "config": "a: b", "envoyGateway": {"failOpen": True}},
        {**values(), "config": "a: b", "secretName": 'a"\nhostNetwork: true'},
        {**values(), "config": "a: b", "image": {"repository": "x\nhostNetwork: true"}},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, SCHEMA)


def _config(tmp_path: Path, old: str = "", new: str = "", base: Path = PLAIN.config) -> str:
    text = base.read_text("utf-8")
    assert old in text
    path = tmp_path / "authz.yaml"
    path.write_text(text.replace(old, new, 1) if old else f"{text}{new}")
    return f"--set-file=config={path}"


@with_helm
@pytest.mark.parametrize(
    ("old", "new", "setting", "said"),
    [
        ("redis: {url", "redis: {deployment", "", "where Redis is"),
        ("redis: {url: 'redis://redis:6379', ", "redis: {sentinel: {}, ", "", "where Redis is"),
        ("", "service: {data_plane: envoy_gateway}\n", "", "data_plane is envoy_gateway"),
        ("", "service: {drain_notice: 2s}\n", "", "drain_notice is too short"),
        ("", "service: {drain_notice: 30s}\n", "", "terminationGracePeriodSeconds: write 80"),
        ("0.0.0.0:8443", "0.0.0.0:443", "", "write 0.0.0.0:8443"),
        ("", "", "tlsSecretName=", "tlsSecretName"),
        ("", "", "authz.preStopSeconds=10", "write 35 or more"),
        ("", "", "pages.terminationGracePeriodSeconds=50", "write 70 or more"),
        ("", "", "authz.unknown=1", "additional properties"),
        ("gateway:", "gateway:\n  trusted_hops: 1", "", "networkPolicy.clients"),
        ("issuer", "- issuer", "", "no YAML"),
    ],
)
def test_what_cannot_work_is_refused(
    tmp_path: Path, old: str, new: str, setting: str, said: str
) -> None:
    done = template(_config(tmp_path, old, new), *([f"--set={setting}"] if setting else []))
    assert done.returncode != 0
    assert said in done.stderr


@with_helm
@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("", "pages: {grafana: {host: g.example.com}}\n", "cannot serve `pages`"),
        ("data_plane: ", "workers: 2, data_plane: ", "write more replicas"),
        ("http://files", "https://files", "servers.files.upstream"),
        ("http://files:8000", "http://files.other.svc:8000", "servers.files.upstream"),
    ],
)
def test_what_envoy_gateway_cannot_express_is_refused(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    config = _config(tmp_path, old, new, ENVOY_GATEWAY.config)
    done = template(config, "--set=dataPlane=envoy-gateway", "--set=tlsSecretName=")
    assert done.returncode != 0
    assert said in done.stderr


@with_helm
def test_each_worker_has_a_port(tmp_path: Path) -> None:
    """Of the container, the Service and the policy."""
    done = template(_config(tmp_path, "", "service: {workers: 3}\n"))
    found, ports = parse(done.stdout), {9001, 9002, 9003}
    assert {each["containerPort"] for each in found.container("authz")["ports"]} == {*ports, 9464}
    service = found.one("Service", "authz-authz")["spec"]["ports"]
    assert {each["targetPort"] for each in service} == {*ports, "metrics"}
    (allowed,) = found.one("NetworkPolicy", "authz-authz")["spec"]["ingress"][0]["ports"]
    assert (allowed["port"], allowed["endPort"]) == (9001, 9003)


HOSTILE = "x\"\n---\nkind: Pod # {{ .Release.Name }} '\t: - ${HOME} \u2028"


@with_helm
def test_no_value_says_more_than_its_own(tmp_path: Path) -> None:
    """Whatever text a value may hold is that text; there is no further document or field."""
    said = tmp_path / "values.yaml"
    text = json.dumps(HOSTILE)
    hostile = {
        "config": f"{PLAIN.config.read_text('utf-8')}# {text}\nx: {text}\n",
        "envoy": {"service": {"annotations": {HOSTILE: HOSTILE}}},
        "monitoring": {"enabled": True, "labels": {HOSTILE: HOSTILE}},
        "nodeSelector": {HOSTILE: HOSTILE},
        "tolerations": [{"key": HOSTILE}],
        "networkPolicy": {"backends": [{"podSelector": {"matchLabels": {HOSTILE: HOSTILE}}}]},
    }
    said.write_text(json.dumps(hostile))
    done = template(f"--values={said}")
    assert done.returncode == 0, done.stderr
    found, usual = parse(done.stdout), _monitored()
    assert _names(found) == _names(usual)
    assert found.config == hostile["config"]
    service = found.one("Service", "authz-envoy")["metadata"]
    assert service["annotations"] == {HOSTILE: HOSTILE}
    for part in PARTS:
        assert found.pod(part)["nodeSelector"] == {HOSTILE: HOSTILE}
        assert found.pod(part)["tolerations"] == [{"key": HOSTILE}]
        assert set(found.pod(part)) - {"nodeSelector", "tolerations"} == set(usual.pod(part))
    for each in found.of("PodMonitor"):
        assert each["metadata"]["labels"][HOSTILE] == HOSTILE


def _monitored() -> Manifests:
    done = template(*PLAIN.arguments, "--set=monitoring.enabled=true")
    return parse(done.stdout)


def _names(found: Manifests) -> list[tuple[str, str]]:
    return sorted((each["kind"], each["metadata"]["name"]) for each in found.documents)


@with_helm
def test_helm_lint_passes() -> None:
    from tools.chart import run_helm  # noqa: PLC0415

    done = run_helm("lint", "--strict", str(CHART), *PLAIN.arguments)
    assert done.returncode == 0, done.stdout


@pytest.mark.skipif(
    not os.environ.get("AUTHZ_KUBERNETES_SCHEMAS"), reason="needs kubeconform and its schemas"
)
@ALL
def test_kubernetes_takes_them(path: Path) -> None:
    """By its own schemas (kubeconform -strict); kinds of others are left out."""
    import subprocess  # noqa: PLC0415

    others = "PodMonitor,PrometheusRule,HTTPRoute,SecurityPolicy,EnvoyPatchPolicy"
    where = os.environ["AUTHZ_KUBERNETES_SCHEMAS"] + "/{{.ResourceKind}}{{.KindSuffix}}.json"
    command = ["kubeconform", "-strict", "-skip", others, "-schema-location", where, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
