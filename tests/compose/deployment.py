"""A deployment as a person has it: `authz init`, then `docker compose up`; and ways to look at it.

The folder is changed as a person would change it: files of theirs in place, then `authz init
--render`.
"""

import base64
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import pyotp

from authz.setup.answers import PORTAL
from authz_demo.environment import free_port
from authz_demo.loopback import LoopbackNetwork
from authz_demo.person import BrowserUser
from tests.compose.engine import Engine, compose_command
from tests.compose.images import SAMPLES
from tests.compose.stand_in import configuration

DOMAIN: Final = "compose.test"
# Of web interfaces behind the log-in, where a test has some.
PAGES: Final = f"ops.{DOMAIN}"
USER: Final = "john"
PASSWORD: Final = "correct horse battery staple"
SERVICES: Final = (
    "envoy",
    "authz",
    "authz-pages",
    "authelia",
    "redis",
    "prometheus",
    "alertmanager",
    "notes",
    "files",
)
_HEALTHY: Final = 300
# Who is told of alerts, where a test starts somebody.
RECEIVER: Final = "receiver"


@dataclass(slots=True)
class ComposeDeployment:
    """Hold one that runs.

    Attributes:
        engine: where.
        folder: what `authz init` wrote.
        project: its name for Compose.
        port: where the gateway is on this machine.
        person: who can log in.
        one_name: whether the portal is under a path of the gateway's name.
        seen: what callers saw while a service was away, for the summary.
    """

    engine: Engine
    folder: Path
    project: str
    port: int
    person: BrowserUser
    one_name: bool = False
    seen: dict[str, str] = field(default_factory=dict)

    @property
    def gateway(self) -> str:
        """Return the gateway's URL."""
        return f"https://mcp.{DOMAIN}:{self.port}"

    @property
    def issuer(self) -> str:
        """Return the issuer."""
        if self.one_name:
            return f"{self.gateway}/{PORTAL}"
        return f"https://auth.{DOMAIN}:{self.port}"

    @property
    def network(self) -> LoopbackNetwork:
        """Return how clients reach it: its names are this machine, and its own authority."""
        names = (f"mcp.{DOMAIN}", PAGES, *(() if self.one_name else (f"auth.{DOMAIN}",)))
        return LoopbackNetwork(dict.fromkeys(names, self.port), self.folder / "ca.crt")

    def compose(self, *arguments: str, timeout: float = 180, check: bool = True) -> str:
        """Run Compose in the folder.

        Raises:
            AssertionError: with what it said, where it failed and `check` is set.
        """
        done = subprocess.run(
            [*compose_command(), "-p", self.project, *arguments],
            cwd=self.folder,
            env=self.engine.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode and check:
            raise AssertionError(f"{arguments}: {done.stdout}")
        return done.stdout

    def container(self, service: str) -> str:
        """Return the id of a service's container."""
        found = self.containers(service)
        assert len(found) == 1, (service, found)
        return found[0]

    def containers(self, service: str) -> list[str]:
        """Return the ids of a service's containers."""
        labels = (f"com.docker.compose.project={self.project}", f"{_SERVICE}={service}")
        filters = [argument for label in labels for argument in ("--filter", f"label={label}")]
        return self.engine.run("ps", "-aq", "--no-trunc", *filters).split()

    def state(self, service: str) -> Mapping[str, Any]:
        """Return what the engine knows of a service's container."""
        return self.engine.inspect(self.container(service))[0]

    def inside(self, service: str, *command: str, check: bool = True) -> str:
        """Run a command in a service's container."""
        return self.engine.run("exec", self.container(service), *command, check=check)

    def from_within(self, service: str, script: str, *arguments: str) -> Any:
        """Run Python in the network of a service's container; return the JSON that it prints."""
        return self._python(f"container:{self.container(service)}", script, *arguments)

    def from_network(self, name: str, script: str, *arguments: str) -> Any:
        """Run Python in a container of its own on one of the networks."""
        return self._python(f"{self.project}_{name}", script, *arguments)

    def addresses(self, service: str) -> list[str]:
        """Return a service's addresses, one for each of its networks."""
        networks = self.state(service)["NetworkSettings"]["Networks"].values()
        return [each["IPAddress"] for each in networks if each["IPAddress"]]

    def kill(self, service: str) -> None:
        """Kill a service's process as the kernel would; wait until its policy started it anew."""
        before = self.state(service)["State"]
        pid = before["Pid"]
        assert pid > 1
        kill = f"import os; os.kill({pid}, 9); print('null')"
        options = ("--pid=host", "--user=0:0", "--cap-add=KILL")
        self._python("none", kill, options=options)
        self.until(
            lambda: self.state(service)["State"]["StartedAt"] != before["StartedAt"],
            f"{service} to be started again",
        )
        self.until_healthy(service)

    def kill_worker(self, service: str) -> None:
        """Kill one of the workers of a service, whose parent starts it anew."""
        options = ("--pid=host", "--user=0:0", "--cap-add=KILL")
        parent = str(self.state(service)["State"]["Pid"])
        assert self._python("none", _KILL, parent, options=options), "there are no workers"

    def until_healthy(self, *services: str) -> None:
        """Wait until the engine calls services healthy."""
        self.until(lambda: all(map(self._healthy, services)), f"{services} to be healthy")

    def until(self, holds: Callable[[], bool], what: str, seconds: float = _HEALTHY) -> None:
        """Wait for something that comes by itself."""
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end, f"waited {seconds} s for {what}"
            time.sleep(0.3)

    def _healthy(self, service: str) -> bool:
        states = [each["State"] for each in self.engine.inspect(*self.containers(service))]
        return bool(states) and all(
            state["Running"] and state["Health"]["Status"] == "healthy" for state in states
        )

    def _python(
        self, network: str, script: str, *arguments: str, options: Sequence[str] = ()
    ) -> Any:
        # Through base64: the script may hold anything.
        code = base64.b64encode(script.encode()).decode()
        loader = f"import base64; exec(base64.b64decode('{code}'))"
        command = ("--entrypoint=/opt/authz/bin/python3", SAMPLES, "-c", loader, *arguments)
        said = self.engine.run("run", "--rm", f"--network={network}", *options, *command)
        return json.loads(said.strip().splitlines()[-1])

    # --- making it ----------------------------------------------------------------------------

    def write(self) -> None:
        """Write the folder, and change in it what tests need otherwise."""
        one_name = ("--one-name",) if self.one_name else ()
        init(self.folder, "--port", str(self.port), "--bind", "127.0.0.1", *one_name)
        # A load is many calls of one person, from one address; and nobody waits 15 s for figures.
        _edit(self.folder / "authz/authz.yaml", "rate: 60/minute", "rate: 1000000/minute")
        _edit(self.folder / "authz/authz.yaml", "rate: 120/minute", "rate: 1000000/minute")
        _edit(self.folder / "authz/authz.yaml", "rate: 150/15 seconds", "rate: 1000000/minute")
        more = "  address_calls: 100000/second\n  streams_per_user: 4096\n"
        _edit(self.folder / "authz/authz.yaml", "  listen:", f"{more}  listen:")
        _edit(self.folder / "prometheus/prometheus.yml", "_interval: 15s", "_interval: 1s")
        # Alerts fire at once where what they say holds, and somebody is told at once.
        rules = self.folder / "prometheus/rules.yml"
        rules.write_text(re.sub(r"\bfor: \d+m$", "for: 1s", rules.read_text(), flags=re.MULTILINE))
        told = f"  - name: person\n    webhook_configs: [{{url: 'http://{RECEIVER}:8080/'}}]"
        _edit(self.folder / "alertmanager/alertmanager.yml", "  - name: person", told)
        _edit(self.folder / "alertmanager/alertmanager.yml", "group_wait: 30s", "group_wait: 1s")
        # An alert that fired while all this started would be told again after five minutes only.
        _edit(
            self.folder / "alertmanager/alertmanager.yml",
            "group_interval: 5m",
            "group_interval: 2s",
        )
        if find_spec("authz.server.worker_pool") is not None:
            _edit(self.folder / "authz/authz.yaml", "service: {", "service: {workers: 2, ")
        self.probe_often()
        self.render()

    def render(self) -> None:
        """Have everything follow authz.yaml, as somebody who has edited it."""
        init(self.folder, "--render")
        issuer = self.folder / "data/authelia/stand-in.json"
        issuer.write_text(configuration(self.folder, self.person))
        _same_owner(issuer)

    def probe_often(self) -> None:
        """Have probes closer together, as long as before failing: this machine may be busy."""
        _edit(self.folder / "docker-compose.yml", "interval: 5s", "interval: 1s")
        _edit(self.folder / "docker-compose.yml", "retries: 12", "retries: 60")


# Kill the last child of a process; print whether there was one.
_KILL: Final = """
import glob, os, sys
tasks = glob.glob(f"/proc/{sys.argv[1]}/task/*/children")
children = [child for task in tasks for child in open(task).read().split()]
if children:
    os.kill(int(children[-1]), 9)
print("true" if children else "false")
"""
_SERVICE: Final = "com.docker.compose.service"


def plan(
    engine: Engine, folder: Path, *, one_name: bool = False, name: str = ""
) -> ComposeDeployment:
    """Return a deployment that is yet to be written."""
    person = BrowserUser(USER, PASSWORD, pyotp.random_base32())
    project = f"authz-test-{os.getpid()}{'-one' if one_name else ''}{name}"
    return ComposeDeployment(engine, folder, project, free_port(), person, one_name)


def init(folder: Path, *arguments: str) -> dict[str, Any]:
    """Run `authz init` as somebody would."""
    command = [sys.executable, "-m", "authz", "init", str(folder), "--json"]
    command += ["--domain", DOMAIN, "--user", USER, "--password-file", "-", *arguments]
    done = subprocess.run(command, input=PASSWORD, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def _edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def _same_owner(path: Path) -> None:
    owner = path.parent.stat()
    if os.geteuid() == 0:
        os.chown(path, owner.st_uid, owner.st_gid)
    path.chmod(0o600)
