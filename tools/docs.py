"""Make the pages of docs/ that are tables of the code, or say with `--check` what is stale.

Law: docs/reasons.md says what `core/reason.py` says, docs/configuration.md what the models say.
"""

import sys
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Final

from authz.config.reference import rewritten
from authz.core.reason import Reason, Row

DOCS: Final = Path(__file__).resolve().parent.parent / "docs"
_HEAD: Final = """\
# Reasons

Every refusal has one of these reasons. It is the `reason` label of `authz_decisions_total`, the
`reason` of the decision log and of Envoy's access log, and `error.data.reason` of the answer (of a
tool's result `result._meta["authz/refusal"].reason`). `allowed` is the label of what was let
through. A status "200 (403)" is 200 for a request with an id and a valid token, and the other one
for everything else ([decision 11](decisions/0011-refusals.md), `gateway.refusals`). This page is
made by `make docs` from `authz/core/reason.py`.

| reason | status | challenge | JSON-RPC code | what a person reads |
|---|---|---|---|---|
"""


def reasons() -> str:
    """Return docs/reasons.md."""
    rows = (reason.row for reason in Reason)
    return _HEAD + "".join(
        f"| `{row.label}` | {_status(row)} | {_challenge(row)} | {row.code} | {row.sentence} |\n"
        for row in rows
    )


def _status(row: Row) -> str:
    return f"200 ({row.status})" if row.of_operation else str(row.status)


def _challenge(row: Row) -> str:
    """Return what WWW-Authenticate says: nothing for a second factor, which is told in words."""
    if row.status == HTTPStatus.UNAUTHORIZED or row.error == "insufficient_scope":
        return f"`{row.error}`" if row.error else "without an error code"
    return ""


def pages() -> dict[Path, str]:
    """Return each page and what it should say."""
    configuration = DOCS / "configuration.md"
    return {
        DOCS / "reasons.md": reasons(),
        configuration: rewritten(configuration.read_text("utf-8")),
    }


def main(arguments: Sequence[str]) -> int:
    """Write the pages, or with `--check` exit with 1 where one is stale."""
    stale = [
        (path, text)
        for path, text in pages().items()
        if not path.exists() or path.read_text("utf-8") != text
    ]
    for path, text in stale:
        if "--check" in arguments:
            print(f"{path.name} is stale: make docs")
        else:
            path.write_text(text, "utf-8")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
