"""`authz clients`: who has come to the front door, and blocking one."""

import json
import shlex
import sys
from typing import Final, NamedTuple

import click

from authz.cli.common import (
    DONE,
    FAILED,
    CommandError,
    LeafCommand,
    command_group,
    print_table,
)
from authz.cli.login_stores import LoginStores, login_stores
from authz.cli.revocation_commands import (
    UNREAD,
    DeploymentOptions,
    LedgerRequest,
    deployment_options,
    is_read,
    note_options,
    recorded,
    run_on_ledger,
    shown_id,
    shown_moment,
    shown_text,
)
from authz.core.principal import Client
from authz.ledger.keys import client_field
from authz.ledger.redis import RedisLedger
from authz.ledger.revocations import read_entry
from authz.login.clients.operator_names import called, spellings
from authz.login.protocol.members import digest
from authz.login.protocol.people import KnownPerson
from authz.login.store.blocklist import Blocklist, BlocklistEntry
from authz.login.store.known_clients import SHORT, KnownClient, block, count_grants

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
for clients of authz.yaml. A client that is listed has a log-in that has not ended; a person is
listed with the subject, by which the decision log and `authz revoke --user` know them, for as long
as a log-in may last after the last one.
"""
_BLOCKING: Final = """\
CLIENT is an id as listed, a client_id, or a name.
Its log-ins end at once, on every worker, and nobody can log in with it until it is unblocked.
"""
_HEAD: Final = ("ID", "NAME", "CALLS ITSELF", "PEOPLE", "SERVERS", "LOG-INS", "LAST", "BLOCKED")
_PEOPLE: Final = ("PERSON", "SUBJECT", "E-MAIL", "LOG-INS", "LAST")
_MOST: Final = 3  # of people or servers in one cell
_LONGEST: Final = 40
_NAMED: Final = click.argument("what", metavar="CLIENT")


class _Listed(NamedTuple):
    """What is listed."""

    clients: tuple[KnownClient, ...]
    people: tuple[KnownPerson, ...]
    blocks: tuple[BlocklistEntry, ...]


@command_group("clients", _EXAMPLES, "block|unblock")
@deployment_options
def run(*, deployment: DeploymentOptions) -> int:
    """List."""

    async def work(ledger: RedisLedger, request: LedgerRequest) -> _Listed:
        stores = _stores(ledger, request)
        return _Listed(
            await stores.known_clients(), await stores.known_people(), await stores.blocks.all()
        )

    clients, people, blocks = run_on_ledger(deployment, work)
    if deployment.as_json:
        blocked = [
            {"what": each.what, "at": each.at, "by": each.by, "reason": each.reason}
            for each in blocks
        ]
        listed = [client.to_json() for client in clients]
        known = [person.to_json() for person in people]
        print(json.dumps({"clients": listed, "people": known, "blocked": blocked}, indent=2))
        return DONE
    if clients:
        print_table([_HEAD, *map(_row, clients)])
    else:
        print("nobody is logged in")
    if people:
        print()
        print_table([_PEOPLE, *map(_person_row, people)])
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

    async def work(ledger: RedisLedger, request: LedgerRequest) -> _Blocked:
        stores = _stores(ledger, request)
        known = [each.called for each in await stores.known_clients()]
        config = request.settings.config
        name = called(what, known, config.named)
        if name in config.named and config.login_of(name) == "direct":
            raise CommandError(
                f"{_plain(name)} logs in at the issuer, not at the front door, so a block would not"
                f" stop it; nothing was blocked. Use: authz revoke --client {shlex.quote(name)}"
            )
        note = request.note(by, reason)
        one = BlocklistEntry(name, int(request.now), note.by, note.reason)
        async with recorded(request, "block", name, note, client_id=name):
            ended = await block(stores.grants, stores.blocks, one)
        # As a log-in looks for it; and whatever began before that looked.
        stands = await stores.blocks.blocked(name, frozenset())
        left = await count_grants(stores.grants, name)
        read = await is_read(ledger, request)
        return _Blocked(name, ended, left, stands, "" if read else request.options.url)

    done = run_on_ledger(deployment, work)
    is_done = done.stands and not done.left
    if deployment.as_json:
        answer = {"blocked": done.name if done.stands else None, "ended": done.ended}
        print(json.dumps({**answer, "left": done.left}))
    elif is_done:
        print(f"blocked {_plain(done.name)}; log-ins ended: {done.ended}")
        if not done.ended:
            print("nobody was logged in under that name: look at `authz clients` if that surprises")
        undo = f"authz clients unblock {shlex.quote(_plain(done.name))}{deployment.options()}"
        print(f"undo it with: {undo}")
    if not done.stands:
        print("authz: the block is not there: somebody unblocked it meanwhile", file=sys.stderr)
    if done.left:
        print(f"authz: {done.left} of its log-ins have not ended: block again", file=sys.stderr)
    if done.unread:
        print(f"authz: {UNREAD.format(url=done.unread)}", file=sys.stderr)
    return DONE if is_done else FAILED


class _Blocked(NamedTuple):
    """What a block has come to.

    Attributes:
        name: the client_id or name.
        ended, left: how many log-ins ended, and how many there still are.
        stands: whether a log-in finds the block.
        unread: the Redis, where no worker reads it; else empty.
    """

    name: str
    ended: int
    left: int
    stands: bool
    unread: str


@run.command("unblock", cls=LeafCommand, help="Let a client come again.", epilog=_BLOCKING)
@_NAMED
@deployment_options
@note_options
def run_unblock(*, deployment: DeploymentOptions, what: str, by: str, reason: str) -> int:
    """Let one come again."""

    async def work(ledger: RedisLedger, request: LedgerRequest) -> tuple[str, bool, list[str]]:
        stores = _stores(ledger, request)
        name, note = await _blocked(what, stores.blocks), request.note(by, reason)
        async with recorded(request, "unblock", name, note, client_id=name) as effect:
            was = effect.happened = await stores.blocks.unblock(name)
        return name, was, await _still_refused(ledger, request, stores.blocks, name)

    name, was, refused = run_on_ledger(deployment, work)
    if deployment.as_json:
        print(json.dumps({"unblocked": name if was else None, "still_refused": refused}))
        return DONE if was else FAILED
    print(f"unblocked {_plain(name)}" if was else f"{_plain(name)} was not blocked")
    for words in refused:
        print(f"but {words}")
    return DONE if was else FAILED


async def _still_refused(
    ledger: RedisLedger, request: LedgerRequest, blocks: Blocklist, name: str
) -> list[str]:
    """Return what keeps a client out that is not, or no longer, blocked by that name."""
    others = [each.what for each in await blocks.all() if each.what in spellings(name)]
    notes = [f"{_plain(other)} is blocked, too" for other in others]
    field = client_field(Client(request.settings.config.issuer.url, name))
    revoked = (await ledger.revocations()).get(field)
    if revoked is not None and revoked.issued_until is None:
        shown = shown_id(read_entry(field, revoked))
        notes.append(f"its tokens are revoked: authz revocations lift {shown}")
    return notes


def _stores(ledger: RedisLedger, request: LedgerRequest) -> LoginStores:
    """Return the stores of a deployment with a front door.

    Raises:
        CommandError: where it has none.
    """
    stores = login_stores(ledger, request)
    if stores is None:
        raise CommandError("authz.yaml has no front_door, so no clients come to it")
    return stores


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


def _person_row(person: KnownPerson) -> tuple[str, ...]:
    return (
        shown_text(person.account) or "-",
        shown_text(person.subject) or f"person:{person.name}",
        shown_text(person.email) or "-",
        str(person.log_ins),
        shown_moment(person.last),
    )


def _few(names: set[str]) -> str:
    listed = sorted(map(_plain, names))
    more = len(listed) - _MOST
    return ", ".join(listed[:_MOST]) + (f" and {more} more" if more > 0 else "")


def _plain(text: str) -> str:
    """Return what a client or person chose as a terminal may show it."""
    plain = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text[:_LONGEST])
    return plain + ("…" if len(text) > _LONGEST else "")
