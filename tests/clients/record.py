"""docs/clients.json: what each client did when it was last recorded."""

import json
from collections.abc import Mapping
from typing import Final

from tests.clients.clients import CLIENTS, ROOT
from tests.clients.rows import ROWS, Outcome

BUILD: Final = ROOT / "build/clients.json"
DOCS: Final = ROOT / "docs/clients.json"


def recorded() -> dict[str, dict[str, Outcome]]:
    """Return what was recorded, by client and row."""
    if not DOCS.exists():
        return {}
    return {
        client["name"]: {row["row"]: Outcome(row["works"], row["seen"]) for row in client["rows"]}
        for client in json.loads(DOCS.read_text("utf-8"))["clients"]
        if client["name"] in CLIENTS
    }


def versions() -> dict[str, str]:
    """Return the version that each client had then."""
    if not DOCS.exists():
        return {}
    found = json.loads(DOCS.read_text("utf-8"))["clients"]
    return {client["name"]: client["version"] for client in found}


def written(seen: Mapping[str, Mapping[str, Outcome]]) -> str:
    """Return the file: all that tools/docs.py makes docs/clients.md of."""
    clients = [
        {
            "name": name,
            "title": client.title,
            "version": client.version(),
            "rows": [
                {
                    "row": row,
                    "works": seen[name][row].works,
                    "seen": seen[name][row].seen,
                    "why": client.why.get(row, ""),
                }
                for row in ROWS
                if row in seen[name]
            ],
        }
        for name, client in CLIENTS.items()
        if name in seen
    ]
    rows = {row: str(run.__doc__) for row, run in ROWS.items()}
    found = {"rows": rows, "clients": clients}
    return json.dumps(found, indent=1, ensure_ascii=True) + "\n"
