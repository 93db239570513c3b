"""`authz clients`: who has come to the front door, and blocking one."""

import json
import shlex
from typing import Final

import click

from authz.cli.common import (
    DONE,
    FAILED,
    CommandError,
    LeafCommand,
    command_group,
    print_table,
)
from authz.cli.revocation_commands import (
    DeploymentOptions,
    LedgerRequest,
    deployment_options,
    note_options,
    record_in_trail,
    run_on_ledger,
    shown_moment,
)
from authz.ledger.keys import RedisKeys
from authz.ledger.redis import RedisLedger
from authz.login.clients.operator_names import called, spellings
from authz.login.protocol.members import digest
from authz.login.store.blocklist import Blocklist, BlocklistEntry
from authz.login.store.grants import GrantStore
from authz.login.store.known_clients import SHORT, KnownClient, block, known_clients

_EXAMPLES: Final = """\
examples:
  authz clients
  authz clients --json
  authz clients block 3f9a12bc44d0 --reason 'asks for everything'
  authz clients block https://evil.example
  authz clients unblock https://evil.example
A client is named by its id as listed, its client_id, or its name; a name means all of that name:
every log-in that ends at one host or whose document is there (HOST, which is dynamic/HOST and
https://HOST), or every one that ends with a program on a person's computer (dynamic/loopback), but
for clients of authz.yaml. Who is listed has a log-in that has not ended.
"""
_BLOCKING: Final = """\
CLIENT is an id as listed, a client_id, or a name.
Its log-ins end at once, on every worker, and nobody can log in with it until it is unblocked.
"""
_HEAD: Final = ("ID", "NAME", "CALLS ITSELF", "PEOPLE", "SERVERS", "LOG-INS", "LAST", "BLOCKED")
_MOST: Final = 3  # of people or servers in one cell
_LONGEST: Final = 40
_NAMED: Final = click.argument("what", metavar="CLIENT")


@command_group("clients", _EXAMPLES, "block|unblock")
@deployment_options
def run(*, deployment: DeploymentOptions) -> int:
    """List."""

    async def work(
        ledger: RedisLedger, request: LedgerRequest
    ) -> tuple[tuple[KnownClient, ...], tuple[BlocklistEntry, ...]]:
        grants, blocks = _stores(ledger, request)
        return await known_clients(grants, blocks), await blocks.all()

    clients, blocks = run_on_ledger(deployment, work)
    if deployment.as_json:
        blocked = [
            {"what": each.what, "at": each.at, "by": each.by, "reason": each.reason}
            for each in blocks
        ]
        listed = [client.to_json() for client in clients]
        print(json.dumps({"clients": listed, "blocked": blocked}, indent=2))
        return DONE
    if clients:
        print_table([_HEAD, *map(_row, clients)])
    else:
        print("nobody is logged in")
    for each in blocks:
        why = f": {_plain(each.reason)}" if each.reason else ""
        print(f"blocked {_plain(each.what)} {shown_moment(each.at)} {_plain(each.by)}{why}")
    return DONE


@run.command("block", cls=LeafCommand, help="Block a client.", epilog=_BLOCKING)
@_NAMED
@deployment_options
@note_options
def run_block(*, deployment: DeploymentOptions, what: str, by: str, reason: str) -> int:
    """Block one, and end its log-ins."""

    async def work(ledger: RedisLedger, request: LedgerRequest) -> tuple[str, int]:
        grants, blocks = _stores(ledger, request)
        known = [each.called for each in await known_clients(grants, blocks)]
        name = called(what, known, request.settings.config.named)
        note = request.note(by, reason)
        one = BlocklistEntry(name, int(request.now), note.by, note.reason)
        ended = await block(grants, blocks, one)
        await record_in_trail(request, "block", name, note, client_id=name)
        return name, ended

    blocked, ended = run_on_ledger(deployment, work)
    if deployment.as_json:
        print(json.dumps({"blocked": blocked, "ended": ended}))
        return DONE
    print(f"blocked {_plain(blocked)}; log-ins ended: {ended}")
    if not ended:
        print("nobody was logged in under that name: look at `authz clients` if that surprises")
    undo = f"authz clients unblock {shlex.quote(_plain(blocked))}{deployment.options()}"
    print(f"undo it with: {undo}")
    return DONE


@run.command("unblock", cls=LeafCommand, help="Let a client come again.", epilog=_BLOCKING)
@_NAMED
@deployment_options
@note_options
def run_unblock(*, deployment: DeploymentOptions, what: str, by: str, reason: str) -> int:
    """Let one come again."""

    async def work(ledger: RedisLedger, request: LedgerRequest) -> tuple[str, bool]:
        _, blocks = _stores(ledger, request)
        name, note = await _blocked(what, blocks), request.note(by, reason)
        was = await blocks.unblock(name)
        if was:
            await record_in_trail(request, "unblock", name, note, client_id=name)
        return name, was

    name, was = run_on_ledger(deployment, work)
    if deployment.as_json:
        print(json.dumps({"unblocked": name if was else None}))
    else:
        print(f"unblocked {_plain(name)}" if was else f"{_plain(name)} was not blocked")
    return DONE if was else FAILED


def _stores(ledger: RedisLedger, request: LedgerRequest) -> tuple[GrantStore, Blocklist]:
    """Return the stores of a deployment with a front door.

    Raises:
        CommandError: where it has none.
    """
    config = request.settings.config
    if config.front_door is None:
        raise CommandError("authz.yaml has no front_door, so no clients come to it")
    keys = RedisKeys(request.options.deployment)
    grants = GrantStore(
        ledger.command,
        keys,
        config.issuer.url,
        max_age=int(config.front_door.grant_max_age),
        max_lifetime=int(config.issuer.max_lifetime + config.issuer.leeway),
        clock=lambda: request.now,
    )
    return grants, Blocklist(ledger.command, keys)


async def _blocked(what: str, blocks: Blocklist) -> str:
    """Return the block that a person means: whole, or by the id of its client."""
    names = [each.what for each in await blocks.all()]
    begun = [name for name in names if digest(name)[:SHORT] == what.lower()]
    return next((each for each in (*spellings(what), *begun) if each in names), what)


def _row(client: KnownClient) -> tuple[str, ...]:
    return (
        client.id,
        _plain(client.name),
        _plain(client.client_name),
        _few(client.people),
        _few(client.servers),
        str(client.log_ins),
        shown_moment(client.last),
        "yes" if client.blocked else "",
    )


def _few(names: set[str]) -> str:
    listed = sorted(map(_plain, names))
    more = len(listed) - _MOST
    return ", ".join(listed[:_MOST]) + (f" and {more} more" if more > 0 else "")


def _plain(text: str) -> str:
    """Return what a client or person chose as a terminal may show it."""
    plain = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text[:_LONGEST])
    return plain + ("…" if len(text) > _LONGEST else "")
