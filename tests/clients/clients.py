"""The clients of the matrix: what they are, where they are installed, how they are started."""

import json
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parents[1]
BUILT: Final = ROOT / "build/clients"
_VENVS: Final = ROOT / ".venv-clients"
NODE22: Final = HERE / "node/node_modules/.bin/node"


@dataclass(frozen=True, slots=True)
class ClientUnderTest:
    """Describe one client.

    Attributes:
        name: the word that selects it.
        title: what people call it.
        version: reads its version from its lock file.
        program: what runs its driver.
        needs: what has to be there.
        env: what it has to be told, `{authority}` being the certificate authority.
    """

    name: str
    title: str
    version: Callable[[], str]
    program: tuple[str, ...]
    needs: Path
    env: Mapping[str, str]

    @property
    def why(self) -> Mapping[str, str]:
        """Return what to know, by row: why it does not work, or how it does."""
        return WHY.get(self.name, {})

    @property
    def missing(self) -> str:
        """Return what this machine lacks to run it."""
        return "" if self.needs.exists() else f"{self.needs.relative_to(ROOT)} is missing"


def locked(path: Path, package: str) -> Callable[[], str]:
    """Return how a version is read from a lock file of Python, npm, Go or Rust."""

    def read() -> str:
        text = path.read_text("utf-8")
        quoted = re.escape(package)
        patterns = {
            ".lock": rf'^(?:{quoted}==(\S+)|name = "{quoted}"\nversion = "(.+)")',
            ".json": rf'"node_modules/{quoted}": \{{\s+"version": "(.+)"',
            ".mod": rf"{quoted} v(\S+)",
        }
        found = re.search(patterns[path.suffix], text, re.MULTILINE)
        assert found is not None, f"{package} is not in {path}"
        return next(group for group in found.groups() if group)

    return read


_PYTHON: Final = {"SSL_CERT_FILE": "{authority}"}
_NODE: Final = {"NODE_EXTRA_CA_CERTS": "{authority}"}


def _python(
    name: str, title: str, *, package: str, driver: str, lock: Path, python: Path
) -> ClientUnderTest:
    return ClientUnderTest(
        name,
        title,
        locked(lock, package),
        (str(python), str(HERE / "python" / driver)),
        python,
        _PYTHON,
    )


def _venv(name: str) -> Path:
    return _VENVS / name / "bin/python"


def _lock(name: str) -> Path:
    return HERE / f"python/requirements-{name}.lock"


_ALL: Final = (
    _python(
        "python-1",
        "Python SDK 1.x",
        package="mcp",
        driver="mcp1.py",
        lock=ROOT / "requirements-mcp1.lock",
        python=ROOT / ".venv-mcp1/bin/python",
    ),
    _python(
        "python-2",
        "Python SDK 2.x",
        package="mcp",
        driver="mcp2.py",
        lock=ROOT / "requirements.lock",
        python=Path(sys.executable),
    ),
    _python(
        "fastmcp-2",
        "FastMCP 2",
        package="fastmcp",
        driver="fastmcp_client.py",
        lock=_lock("fastmcp2"),
        python=_venv("fastmcp2"),
    ),
    _python(
        "fastmcp-4",
        "FastMCP 4",
        package="fastmcp",
        driver="fastmcp_client.py",
        lock=_lock("fastmcp4"),
        python=_venv("fastmcp4"),
    ),
    _python(
        "langchain",
        "LangChain adapters",
        package="langchain-mcp-adapters",
        driver="langchain_client.py",
        lock=_lock("langchain"),
        python=_venv("langchain"),
    ),
    ClientUnderTest(
        "typescript-1",
        "TypeScript SDK 1.x",
        locked(ROOT / "tests/typescript/package-lock.json", "@modelcontextprotocol/sdk"),
        ("node", str(ROOT / "tests/typescript/matrix.mjs")),
        ROOT / "tests/typescript/node_modules",
        _NODE,
    ),
    ClientUnderTest(
        "typescript-2",
        "TypeScript SDK 2.x",
        locked(HERE / "typescript2/package-lock.json", "@modelcontextprotocol/client"),
        ("node", str(HERE / "typescript2/client.mjs")),
        HERE / "typescript2/node_modules",
        _NODE,
    ),
    ClientUnderTest(
        "go",
        "Go SDK",
        locked(HERE / "go/go.mod", "github.com/modelcontextprotocol/go-sdk"),
        (str(BUILT / "go"),),
        BUILT / "go",
        _PYTHON,
    ),
    ClientUnderTest(
        "rmcp",
        "rmcp (Rust SDK)",
        locked(HERE / "rust/Cargo.lock", "rmcp"),
        (str(BUILT / "rust/debug/authz-tests-rmcp"),),
        BUILT / "rust/debug/authz-tests-rmcp",
        _PYTHON,
    ),
    ClientUnderTest(
        "mcp-remote",
        "mcp-remote",
        locked(HERE / "mcp-remote/package-lock.json", "mcp-remote"),
        (sys.executable, str(HERE / "python/mcp_remote.py")),
        HERE / "mcp-remote/node_modules",
        {**_NODE, "MCP_REMOTE": str(HERE / "mcp-remote/node_modules/.bin/mcp-remote")},
    ),
    ClientUnderTest(
        "inspector",
        "MCP Inspector CLI",
        locked(HERE / "inspector/package-lock.json", "@modelcontextprotocol/inspector"),
        (sys.executable, str(HERE / "python/inspector.py")),
        HERE / "inspector/node_modules",
        {
            **_NODE,
            "MCP_AUTO_OPEN_ENABLED": "true",
            "MCP_INSPECTOR_SECRET_STORE": "file",
            "NODE": str(NODE22),
            "INSPECTOR": str(HERE / "inspector/node_modules/.bin/mcp-inspector"),
        },
    ),
    ClientUnderTest(
        "codex",
        "Codex",
        locked(HERE / "codex/package-lock.json", "@openai/codex"),
        (sys.executable, str(HERE / "python/codex.py")),
        HERE / "codex/node_modules",
        {**_PYTHON, "CODEX": str(HERE / "codex/node_modules/.bin/codex")},
    ),
)
CLIENTS: Final = {client.name: client for client in _ALL}


_ANEW: Final = "Its session is over when the server lost it; connecting anew works."
WHY: Final[Mapping[str, Mapping[str, str]]] = {
    "python-1": {"server away": _ANEW},
    "fastmcp-2": {"server away": _ANEW},
    "typescript-1": {"server away": _ANEW},
    "typescript-2": {"server away": _ANEW},
    "inspector": {
        "progress": "Its command line prints no progress.",
        "elicitation": "Its command line declares no elicitation, so the server does not ask.",
    },
    "codex": {
        "log in": (
            "Through its app server, with registration: its own metadata document cannot be "
            "fetched from a machine without a way out."
        ),
        "progress": "Its app server showed none of a call outside a turn; no model was tried.",
        "elicitation": "Its app server cancels a question outside a turn; no model was tried.",
    },
}


def command(client: ClientUnderTest, told: Mapping[str, str]) -> list[str]:
    """Return how a client's driver is started."""
    return [*client.program, json.dumps(told)]


def node() -> str:
    """Return the Node.js that clients run on."""
    return shutil.which("node") or ""
