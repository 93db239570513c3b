"""No secret is where it could be read by somebody who may look at containers, logs or images."""

import asyncio
import json
import subprocess
from collections.abc import Iterator

from tests.compose import caller
from tests.compose.deployment import PASSWORD, SERVICES, ComposeDeployment
from tests.compose.images import AUTHZ, ROOT, SAMPLES


def secrets(deployment: ComposeDeployment) -> Iterator[tuple[str, str]]:
    """Yield every secret of the folder, with its name."""
    yield "password", PASSWORD
    assert deployment.person.totp_secret is not None
    yield "totp", deployment.person.totp_secret
    for path in deployment.folder.glob("secrets/**/*"):
        if path.is_file() and path.suffix != ".crt" and path.name != "redis_users":
            text = path.read_text().strip()
            # Of a key the part that is the key.
            if text:
                yield path.name, text.splitlines()[1] if text.startswith("-----") else text


def test_no_secret_is_told(deployment: ComposeDeployment) -> None:
    """Not by `inspect`, not by the logs, not by Compose: after a log-in, and with its token too."""
    _, token = asyncio.run(caller.log_in(deployment, "notes", "2026-07-28"))
    told = {"compose config": deployment.compose("config")}
    for service in SERVICES:
        told[f"inspect {service}"] = json.dumps(deployment.state(service))
        told[f"logs {service}"] = deployment.engine.run("logs", deployment.container(service))
        told[f"top {service}"] = deployment.engine.run("top", deployment.container(service))

    found = [
        (name, where)
        for name, secret in (*secrets(deployment), ("token", token))
        for where, text in told.items()
        if secret in text
    ]
    assert found == []
    assert sum(map(len, told.values())) > 10_000


def test_no_secret_is_in_an_image(deployment: ComposeDeployment) -> None:
    """Every byte of our two images is looked at."""
    wanted = {name: secret.encode() for name, secret in secrets(deployment)}
    save = ["docker", "save", AUTHZ, SAMPLES]
    found: set[str] = set()
    size = 0
    with subprocess.Popen(save, env=deployment.engine.env, stdout=subprocess.PIPE) as saved:
        assert saved.stdout is not None
        tail = b""
        while chunk := saved.stdout.read(1 << 22):
            window = tail + chunk
            found |= {name for name, secret in wanted.items() if secret in window}
            tail = window[-4096:]
            size += len(chunk)

    assert size > 50 << 20
    assert found == set()


def test_an_image_runs_the_compiled_decision(deployment: ComposeDeployment) -> None:
    """Where this machine can compile for the image, the image has the compiled files."""
    where = ("/opt/authz/bin/python3", "-c", "import authz.core.decision as d; print(d.__file__)")

    can = {wheel.name.split("-")[-1] for wheel in (ROOT / "dist" / "authz").glob("*.whl")}
    assert "any.whl" in can
    assert deployment.inside("authz", *where).strip().endswith(".so" if len(can) > 1 else ".py")


def test_an_image_installs_nothing(deployment: ComposeDeployment) -> None:
    """There is no pip in ours, and its own packages are all that it has."""
    pip = ("/opt/authz/bin/python3", "-c", "import pip")

    assert "No module named" in deployment.inside("authz", *pip, check=False)
