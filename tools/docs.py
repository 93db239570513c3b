"""Make the pages of docs/ that are tables of the code, or say with `--check` what is stale.

docs/reasons.md says what `core/reason.py` and Envoy's own answers say, docs/configuration.md what
the models say, docs/clients.md what docs/clients.json holds, docs/peers.md what docs/peers.json.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Final, TypedDict

from authz.config.reference import rewrite_page
from authz.core.reason import Reason, RefusalRow
from authz.envoy.render.local_replies import HTTPS_ONLY, OTHERWISE, REPLIES

DOCS: Final = Path(__file__).resolve().parent.parent / "docs"
_HEAD: Final = """\
# Reasons

Every refusal by authz has one of these reasons: the label `reason` of `authz_decisions_total`
(there `allowed` is what was let through), of the decision log and of Envoy's access log, and
`error.data.reason` of the answer. A status "200 (403)" is 200 for a request with an id and a valid
token, and the other one for everything else: 403, 429 and 503 end the sessions of widely used
clients ([decision 11](decisions/0011-refusals.md); `gateway.refusals` changes it).

A `tools/call` refused with 200 gets a result with `isError`, which the model reads (its reason is
`_meta["authz/refusal"].reason`), every other refusal a JSON-RPC error. Both carry a sentence for
people and the request id of the log, with which `authz explain` says more
([troubleshooting.md](troubleshooting.md)). Limits tell `Retry-After`, `RateLimit` and
`RateLimit-Policy`.

`make docs` makes this page from `authz/core/reason.py` and `authz/envoy/render/local_replies.py`.

| reason | status | challenge | JSON-RPC code | what a person reads |
|---|---|---|---|---|
"""
_ENVOY: Final = """
## What Envoy answers by itself
Before authz is asked, or after it has let a request through, Envoy answers with one of these, or
with `malformed_request`, `unknown_server`, `body_too_large`, `rate_limited` or `internal` of the
table above. authz neither logs nor counts them; Envoy's access log tells them by status and
`flags`. A status "200 (503)" is 200 for a request that authz has let through and that has an id.

What Envoy refuses before it has read the headers (a header name with an underscore, HTTP/1.0, no
HTTP) gets a request id of its own; its line in the access log has address, status and `details`,
and no method, host or path. Over HTTP/2 Envoy resets a malformed stream: the line has status 0,
`details` (`http2.unexpected_underscore`) and no request id.

| reason | status | JSON-RPC code | what a person reads |
|---|---|---|---|
"""


def reasons() -> str:
    """Return docs/reasons.md."""
    text = _HEAD
    for row in (reason.row for reason in Reason):
        cells = (f"`{row.label}`", _status(row), _challenge(row), str(row.code), row.sentence)
        text += f"| {' | '.join(cells)} |\n"
    text += _ENVOY
    known = {reason.label for reason in Reason}
    for reply in (*REPLIES, HTTPS_ONLY, OTHERWISE):
        if reply.label not in known:
            fails = reply.status >= HTTPStatus.INTERNAL_SERVER_ERROR
            status = f"200 ({reply.status})" if fails else str(reply.status)
            text += f"| `{reply.label}` | {status} | {reply.code} | {reply.sentence} |\n"
    return text


def _status(row: RefusalRow) -> str:
    status = f"{row.status}, of a GET {row.get_status}" if row.get_status else str(row.status)
    return f"200 ({status})" if row.of_operation else status


def _challenge(row: RefusalRow) -> str:
    """Return what WWW-Authenticate says: nothing for a second factor, which is told in words."""
    if row.status == HTTPStatus.UNAUTHORIZED or row.error == "insufficient_scope":
        return f"`{row.error}`" if row.error else "without an error code"
    return ""


_CLIENTS: Final = """\
# Connect clients

```console
$ authz client-config claude deploy      # what to paste; also for vscode, cursor, inspector
$ authz doctor --outside https://mcp.example.com/files    # as a hosted assistant sees it
$ docker compose logs --since 2h | authz connections --stopped    # where one stopped
```

A client needs the URL of a server and registers itself. Under the private authority of `authz init`
it has to trust `ca.crt`; the first line says how (`NODE_EXTRA_CA_CERTS` for programs on Node.js).
Hosted assistants (claude.ai, ChatGPT) trust public authorities alone
([certificates.md](certificates.md#acme)) and reach port 443 of a public name: run the second line
on another network. More: [troubleshooting.md](troubleshooting.md).

## Scopes of tools

A log-in names the scopes of a server and of all its tools. With `challenge_scopes: own` it names
the server's alone, and a tool's scope is first heard of in a refusal (403 `insufficient_scope`):
TypeScript 2.x, FastMCP 2 and 4, Go 1.8 and mcp-remote then log in anew and ask for it; TypeScript
1.x does not. `authz check-config` warns of it.

## What works

As `make matrix` saw it, which CI runs: each the published package, told one URL, before the real
Envoy with a stand-in for Authelia. (`AUTHZ_RECORD=1 make matrix` writes `docs/clients.json`, of
which `make docs` makes this page.)

| row | what it means |
|---|---|
"""


class _Row(TypedDict):
    """What one client did at one row, as docs/clients.json has it."""

    row: str
    works: bool
    why: str
    seen: str


class _Client(TypedDict):
    """One client of docs/clients.json."""

    title: str
    version: str
    rows: list[_Row]


class _Record(TypedDict):
    """docs/clients.json."""

    rows: dict[str, str]
    clients: list[_Client]


def clients() -> str:
    """Return docs/clients.md."""
    found: _Record = json.loads((DOCS / "clients.json").read_text("utf-8"))
    rows = found["rows"]
    text = _CLIENTS + "".join(f"| {row} | {meaning} |\n" for row, meaning in rows.items())
    text += "\n| client | version | " + " | ".join(rows) + " |\n" + "|---" * (len(rows) + 2) + "|\n"
    for client in found["clients"]:
        works = {row["row"]: "yes" if row["works"] else "**no**" for row in client["rows"]}
        cells = " | ".join(works.get(row, "") for row in rows)
        text += f"| {client['title']} | {client['version']} | {cells} |\n"
    text += "\n## What they show\n\n| row | seen | of |\n|---|---|---|\n"
    for row in rows:
        for said, titles in _said(row, found["clients"]).items():
            text += f"| {row} | {said} | {', '.join(titles)} |\n"
    return text


def _said(row: str, clients: Sequence[_Client]) -> dict[str, list[str]]:
    """Return what there is to know of a row, and of which clients."""
    found: dict[str, list[str]] = {}
    for client in clients:
        for each in client["rows"]:
            if each["row"] == row and (row in _TOLD or each["why"] or not each["works"]):
                failed = "" if each["works"] else "**does not work**"
                said = " ".join(filter(None, (failed, each["why"], _shown(each["seen"]))))
                found.setdefault(said, []).append(client["title"])
    return found


# The rows that end in words of ours: what the client shows of them.
_TOLD: Final = frozenset({"refused tool", "limit", "step-up link", "server away"})


def _shown(seen: str) -> str:
    """Return what was seen as one line of code."""
    text = "".join(letter if letter.isprintable() else "?" for letter in seen.replace("`", "'"))
    text = text.replace("|", "/")
    return f"`{text[:_LONGEST]}{'…' if len(text) > _LONGEST else ''}`"


_LONGEST: Final = 160


_PEERS: Final = """\
# Beside others

To compare authz with another service that Envoy asks, on your own machine:

```console
$ python -m bench.peers --key key.pem --rounds 0           # a key; key.pem.jwks for the other
$ python -m bench.peers --key key.pem --check other=127.0.0.1:9191 --processes other=4711
$ python -m bench.peers --help                             # other filters in the place of ours
```

One Envoy for each, rendered from the same authz.yaml, with what the other takes in the place of
our filter; the same token, body, tool rule (not of jwt_authn) and three limits, in turns in one
run. CPU and switches are of the services and their Redis, for each request. Measured compiled, on
ngh2, on two shared cores, on a day on which all of them were about half as fast as on others, so
that 1,000 a second was nearly all that went through: only ratios travel. Beside it OPA 1.19
(opa-envoy-plugin) and envoyproxy/ratelimit, built from their sources.

`bench.peers --json docs/peers.json` and `make docs` make this page.
"""


class _Figure(TypedDict):
    """One figure of docs/peers.json (bench/result.py, `Found`)."""

    case: str
    figure: str
    value: float
    ratio: float


@dataclass(frozen=True)
class _Aim:
    """How one figure of ours should compare with another's.

    Attributes:
        figure, case: which, and whose.
        bound: of ours divided by theirs.
        at_least: whether more is better.
    """

    figure: str
    case: str
    bound: float
    at_least: bool = False


_OPA: Final = "OPA + ratelimit"
_JWT: Final = "jwt_authn + ratelimit"
_AIMS: Final = (
    _Aim("requests/s", _OPA, 2.0, at_least=True),
    _Aim("requests/s", _JWT, 1.0, at_least=True),
    _Aim("requests/s", "empty check", 0.6, at_least=True),
    _Aim("CPU us", _OPA, 1 / 6),
    _Aim("CPU us at 1000/s", _OPA, 1 / 3),
    _Aim("CPU us at 200/s", _OPA, 1 / 2),
    _Aim("p50 of one us", _JWT, 1.2),
    _Aim("p99 at 1000/s", _OPA, 1.0),
)


def peers() -> str:
    """Return docs/peers.md."""
    found: list[_Figure] = json.loads((DOCS / "peers.json").read_text("utf-8"))
    cases = list(dict.fromkeys(each["case"] for each in found))
    cells = {(each["figure"], each["case"]): each for each in found}
    text = _PEERS + "\n| | " + " | ".join(cases) + " |\n" + "|---" * (len(cases) + 1) + "|\n"
    for figure in dict.fromkeys(each["figure"] for each in found):
        row = [_measured(cells[figure, case], cases[0]) for case in cases]
        text += f"| {figure} | {' | '.join(row)} |\n"
    text += (
        "\nWaiting times are in microseconds; in brackets, the ratio to authz. What we aim at:\n\n"
    )
    text += "| authz to | figure | ratio | aim |\n|---|---|---|---|\n"
    for aim in _AIMS:
        ratio = 1 / cells[aim.figure, aim.case]["ratio"]
        is_reached = ratio >= aim.bound if aim.at_least else ratio <= aim.bound
        word = f"{'at least' if aim.at_least else 'at most'} {aim.bound:.2f}"
        reached = "reached" if is_reached else "**not reached**"
        text += f"| {aim.case} | {aim.figure} | {ratio:.2f} | {word}: {reached} |\n"
    return text


# Below it a figure has a decimal.
_EXACT: Final = 100


def _measured(found: _Figure, ours: str) -> str:
    if not found["value"]:
        return ""
    digits = 1 if found["value"] < _EXACT else 0
    ratio = "" if found["case"] == ours else f" ({found['ratio']:.2f})"
    return f"{found['value']:,.{digits}f}{ratio}"


def pages() -> dict[Path, str]:
    """Return each page and what it should say."""
    configuration = DOCS / "configuration.md"
    return {
        DOCS / "reasons.md": reasons(),
        DOCS / "clients.md": clients(),
        DOCS / "peers.md": peers(),
        configuration: rewrite_page(configuration.read_text("utf-8")),
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
