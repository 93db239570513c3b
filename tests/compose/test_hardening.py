"""What a service could do if it were taken over: nothing to its root, nothing as root."""

import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.compose.deployment import SERVICES, ComposeDeployment

_PROBE = """
import json, os
def can(path):
    try:
        open(path + "/probe", "w").close()
        return True
    except OSError:
        return False
print(json.dumps({"root": can("/") or can("/usr") or can("/etc"), "uid": os.getuid()}))
"""


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_is_bound(deployment: ComposeDeployment, service: str) -> None:
    """Not root, no capability, no new privileges, a root that is read-only, and limits."""
    state = deployment.state(service)
    host, config = state["HostConfig"], state["Config"]
    uid, gid = config["User"].split(":")

    assert int(uid) > 0
    assert int(gid) > 0
    assert host["ReadonlyRootfs"] is True
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert host["Privileged"] is False
    assert [each.replace("=", ":") for each in host["SecurityOpt"]] == ["no-new-privileges:true"]
    assert host["Memory"] > 0
    assert host["NanoCpus"] > 0
    assert host["PidsLimit"] > 0
    assert state["State"]["Health"]["Status"] == "healthy"
    assert host["RestartPolicy"]["Name"] == "unless-stopped"


@pytest.mark.parametrize("service", ["notes", "files", "authz"])
def test_a_service_cannot_write_its_root(deployment: ComposeDeployment, service: str) -> None:
    """Tried, from inside."""
    said = deployment.inside(service, "/opt/authz/bin/python3", "-c", _PROBE)

    assert '"root": false' in said
    assert '"uid": 0' not in said


@pytest.mark.parametrize("service", SERVICES)
def test_a_process_has_no_capability(deployment: ComposeDeployment, service: str) -> None:
    """What the kernel says of the first process: none effective, none to be had."""
    status = deployment.inside(service, "cat", "/proc/1/status")
    found = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)

    assert int(found["CapEff"], 16) == 0
    assert int(found["CapBnd"], 16) == 0
    assert found["NoNewPrivs"] == "1"


def test_images_are_named_by_exact_versions(deployment: ComposeDeployment) -> None:
    """No `latest`, no moving tag, no digest that nobody has resolved."""
    file = YAML(typ="safe").load((deployment.folder / "docker-compose.yml").read_text())
    for service in file["services"].values():
        image = service["image"]
        assert "@" not in image
        name, _, tag = image.partition(":")
        ours = name.startswith("localhost/authz") and tag.startswith("${AUTHZ_VERSION:?")
        assert ours or re.fullmatch(r"v?\d+\.\d+\.\d+", tag), image


def test_secrets_are_of_the_folders_owner(deployment: ComposeDeployment) -> None:
    """Every file of secrets/ but certificates is its owner's alone."""
    secrets: list[Path] = [
        each for each in deployment.folder.glob("secrets/**/*") if each.is_file()
    ]

    assert secrets
    for path in secrets:
        if path.suffix != ".crt":
            assert path.stat().st_mode & 0o777 == 0o600, path
