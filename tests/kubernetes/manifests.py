"""Rendered manifests as Kubernetes reads them, with little of them typed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

PARTS = ("authz", "pages", "envoy")
Plain = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Manifests:
    """Hold the documents of one rendered file."""

    documents: Sequence[Plain]

    def of(self, kind: str) -> list[Plain]:
        return [each for each in self.documents if each["kind"] == kind]

    def one(self, kind: str, name: str) -> Plain:
        (found,) = (each for each in self.of(kind) if each["metadata"]["name"] == name)
        return found

    def pod(self, part: str) -> Plain:
        """Return the specification of a deployment's pods."""
        spec: Plain = self.one("Deployment", f"authz-{part}")["spec"]["template"]["spec"]
        return spec

    def container(self, part: str) -> Plain:
        (found,) = self.pod(part)["containers"]
        container: Plain = found
        return container

    @property
    def config(self) -> str:
        """Return authz.yaml."""
        return str(self.one("ConfigMap", "authz")["data"]["authz.yaml"])


def parse(text: str) -> Manifests:
    """Read a stream of documents; a key that stands twice is an error."""
    loaded = YAML(typ="safe").load_all(text)
    return Manifests([each for each in loaded if each is not None])


def manifests(path: Path) -> Manifests:
    return parse(path.read_text("utf-8"))


def containers(found: Manifests) -> Iterator[tuple[str, Plain, Plain]]:
    """Yield each container with its pod and a name for messages."""
    for deployment in found.of("Deployment"):
        pod = deployment["spec"]["template"]["spec"]
        for container in (*pod.get("initContainers", ()), *pod["containers"]):
            yield f"{deployment['metadata']['name']}/{container['name']}", pod, container


def values() -> Plain:
    """Return the chart's values.yaml."""
    from tools.chart import CHART  # noqa: PLC0415

    found: Plain = YAML(typ="safe").load((CHART / "values.yaml").read_text("utf-8"))
    return found
