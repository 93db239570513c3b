"""Render the Helm chart's golden files and plain manifests, or say with `--check` what is stale.

Without `helm` (or AUTHZ_HELM, its path) `--check` compares digests: each file says what it was
rendered from.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

from authz import __version__
from authz.setup.answers import SetupAnswers
from authz.setup.write import rules_text

ROOT: Final = Path(__file__).resolve().parent.parent
CHART: Final = ROOT / "kubernetes" / "chart"
GOLDEN: Final = ROOT / "tests" / "kubernetes" / "golden"
KUBERNETES: Final = "1.36.0"
_RULES: Final = CHART / "files" / "rules.yml"
_NAMESPACE: Final = "mcp"


@dataclass(frozen=True, slots=True)
class Rendering:
    """Name one rendered file and what it is rendered from.

    Attributes:
        file: where it is.
        config: authz.yaml.
        values: what `--set` says.
    """

    file: Path
    config: Path
    values: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def arguments(self) -> list[str]:
        """Return what helm is told of the values."""
        pairs = (f"--set={name}={value}" for name, value in self.values.items())
        return [f"--set-file=config={self.config}", *pairs]

    def digest(self) -> str:
        """Return what changes with the chart, the values and authz.yaml."""
        found = hashlib.sha256(repr(sorted(self.values.items())).encode())
        for path in (*sorted(each for each in CHART.rglob("*") if each.is_file()), self.config):
            found.update(f"\0{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
        return found.hexdigest()


PLAIN: Final = Rendering(ROOT / "kubernetes" / "plain.yaml", GOLDEN / "authz.yaml")
EVERYTHING: Final = Rendering(
    GOLDEN / "everything.yaml",
    GOLDEN / "authz.yaml",
    {"monitoring.enabled": "true", "authz.autoscaling.enabled": "true"},
)
ENVOY_GATEWAY: Final = Rendering(
    GOLDEN / "envoy-gateway.yaml",
    GOLDEN / "authz-gateway.yaml",
    {"dataPlane": "envoy-gateway", "tlsSecretName": ""},
)
RENDERINGS: Final = (PLAIN, EVERYTHING, ENVOY_GATEWAY)


def rules() -> str:
    """Return the alerts, which `authz init` writes as well."""
    return rules_text(SetupAnswers("example.com"))


def helm() -> str | None:
    """Return where helm is."""
    return os.environ.get("AUTHZ_HELM") or shutil.which("helm")


def run_helm(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run helm on the chart, whatever it answers."""
    program = helm()
    assert program is not None
    return subprocess.run(  # noqa: S603 - its arguments are ours and a test's
        [program, *arguments], capture_output=True, text=True, check=False, cwd=ROOT
    )


def template(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Render the chart as release `authz` in namespace `mcp`."""
    usual = ["template", "authz", str(CHART), "-n", _NAMESPACE, "--kube-version", KUBERNETES]
    return run_helm(*usual, *arguments)


def rendered(each: Rendering) -> str:
    """Return a golden file.

    Raises:
        RuntimeError: where helm refuses; with what it says.
    """
    done = template(*each.arguments)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return f"{head(each)}{done.stdout}"


def head(each: Rendering) -> str:
    """Return the first line, which says from what the file was rendered."""
    return f"# Made by `make chart`. Do not edit: {each.digest()}\n"


def stale(*, with_helm: bool) -> dict[Path, str | None]:
    """Return the files that are not what the chart says, with their text where helm told it."""
    found: dict[Path, str | None] = {}
    for each in RENDERINGS:
        there = each.file.read_text("utf-8") if each.file.exists() else ""
        text = rendered(each) if with_helm else None
        if there != text if text is not None else not there.startswith(head(each)):
            found[each.file] = text
    return found


def main(arguments: Sequence[str]) -> int:
    """Write the files, or with `--check` exit with 1 where one is stale."""
    checks, with_helm = "--check" in arguments, helm() is not None
    if not checks:
        if not with_helm:
            print("helm is not here: install it, or name it in AUTHZ_HELM")
            return 1
        _RULES.write_text(rules(), "utf-8")
        chart = CHART / "Chart.yaml"
        lines = chart.read_text("utf-8").splitlines()
        versions = {
            "version:": f"version: {__version__}",
            "appVersion:": f'appVersion: "{__version__}"',
        }
        lines = [versions.get(line.partition(" ")[0], line) for line in lines]
        chart.write_text("\n".join(lines) + "\n", "utf-8")
    found = stale(with_helm=with_helm)
    for path, text in found.items():
        if checks or text is None:
            print(f"{path.relative_to(ROOT)} is stale: make chart")
        else:
            path.write_text(text, "utf-8")
    return 1 if found and checks else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
