"""The commands by task: what each is for, and one example. Nothing here imports a command."""

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Final, NamedTuple


class Task(Enum):
    """Name what somebody comes to do."""

    SET_UP = "Set up"
    RUN = "Run"
    CONNECT = "Connect clients and servers"
    OPERATE = "Operate"
    DIAGNOSE = "Diagnose"


class CommandEntry(NamedTuple):
    """Describe one command: its task, its help, and the example that `authz` alone shows."""

    task: Task
    summary: str
    example: str


COMMANDS: Final[Mapping[str, CommandEntry]] = MappingProxyType({
    "init": CommandEntry(
        Task.SET_UP,
        "write a folder that runs with Docker Compose",
        "authz init deploy --domain home.example.com",
    ),
    "check-config": CommandEntry(
        Task.SET_UP, "check authz.yaml and say all that is wrong", "authz check-config authz.yaml"
    ),
    "authelia-config": CommandEntry(
        Task.SET_UP,
        "print the part of Authelia's configuration that authz.yaml implies",
        "authz authelia-config authz.yaml",
    ),
    "envoy-config": CommandEntry(
        Task.SET_UP,
        "print Envoy's configuration",
        "authz envoy-config authz.yaml -o /etc/envoy",
    ),
    "schema": CommandEntry(
        Task.SET_UP,
        "print the JSON Schema of authz.yaml",
        "authz schema > authz.schema.json",
    ),
    "up": CommandEntry(
        Task.RUN, "run Envoy, Valkey and the service on this machine", "authz up -c authz.yaml"
    ),
    "serve": CommandEntry(Task.RUN, "run the service", "authz serve -c authz.yaml"),
    "pages": CommandEntry(
        Task.RUN, "serve the log-in and the step-up", "authz pages -c authz.yaml"
    ),
    "demo": CommandEntry(Task.RUN, "run the whole and walk through it", "authz demo --once"),
    "client-config": CommandEntry(
        Task.CONNECT,
        "print what to paste into an MCP client",
        "authz client-config claude authz.yaml",
    ),
    "login": CommandEntry(
        Task.CONNECT,
        "log in, and get a token to try a server with",
        "authz login authz.yaml --server files",
    ),
    "add-server": CommandEntry(
        Task.CONNECT,
        "write a server into authz.yaml, and say what remains to be done",
        "authz add-server github http://github-mcp:8000/mcp",
    ),
    "identity-keys": CommandEntry(
        Task.CONNECT,
        "print the key set with which MCP servers verify who calls",
        "authz identity-keys authz.yaml",
    ),
    "tools": CommandEntry(
        Task.OPERATE,
        "show a server's tools with the rules that each meets, and approve them",
        "authz tools files",
    ),
    "clients": CommandEntry(Task.OPERATE, "list who has come, and block one", "authz clients"),
    "revoke": CommandEntry(
        Task.OPERATE, "take tokens back, at once", "authz revoke --user ada"
    ),
    "limits": CommandEntry(
        Task.OPERATE, "show who has used how much of which limit, and reset one", "authz limits"
    ),
    "revocations": CommandEntry(
        Task.OPERATE, "list what was taken back, and lift it", "authz revocations"
    ),
    "certificate": CommandEntry(
        Task.OPERATE,
        "show the certificate that Envoy serves, and renew it",
        "authz certificate deploy",
    ),
    "audit": CommandEntry(
        Task.OPERATE,
        "show who did what, and verify the trail",
        "authz audit --person ada --since 2d",
    ),
    "notify": CommandEntry(
        Task.OPERATE,
        "list who is told of security events, and send a test message",
        "authz notify --test phone",
    ),
    "status": CommandEntry(
        Task.DIAGNOSE,
        "say what each program runs, and whether that is what is written",
        "authz status authz.yaml",
    ),
    "doctor": CommandEntry(
        Task.DIAGNOSE,
        "look at a deployment: what is wrong, and which line mends it",
        "authz doctor authz.yaml",
    ),
    "connections": CommandEntry(
        Task.DIAGNOSE,
        "say where each client's connection stopped, from the logs",
        "authz connections --log authz.log --since 2h",
    ),
    "explain": CommandEntry(
        Task.DIAGNOSE,
        "say why a request is allowed or refused, step by step",
        "authz explain authz.yaml --server files --token-file FILE",
    ),
})  # fmt: skip
