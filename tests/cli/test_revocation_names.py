"""Commands that revoke, block and lift say what really happened, and name nobody by mistake; on a
real Valkey with log-ins in it.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from authz.audit.chain import AuditChain, TrailKeys
from authz.audit.record import AuditEvent, body
from authz.audit.store import TrailStore
from authz.config.key_files import make_key
from authz.core.ledger import Query, Revoked
from authz.core.principal import Client, LoginRecord, Person
from authz.ledger.data_loss import DataSetTracker
from authz.ledger.keys import RedisKeys
from authz.ledger.redis import RedisLedger, RedisOptions
from authz.login.protocol.grant import Grant
from authz.login.protocol.values import LoginIdentity
from authz.login.store.codes import CodeStore
from authz.login.store.grants import GrantStore
from authz.login.store.people import PeopleStore
from authz.tokens.sealing import Sealer
from tests.cli.test_revocation_commands import TypedCommands
from tests.login.store.test_store import CODE, GRANT
from tests.support.valkey import ValkeyServer, valkey
from tests.telemetry.test_connections import BASE, hosted
from tests.tokens.token_factory import ISSUER

ADA = "71909b80-c6b2-4490-b157-a7cf10eb4136"
BOB = "b0b09b80-c6b2-4490-b157-a7cf10eb4136"
EVE = "e7e09b80-c6b2-4490-b157-a7cf10eb4136"
TEXT = """\
issuer: {{url: 'https://auth.example.test'}}
gateway: {{url: 'https://mcp.example.com', tls: {{certificate: /c, key: /k}}}}
servers: {{files: {{upstream: 'http://files:8000/mcp'}}}}
clients: {{nightly: {{login: direct}}, cursor: {{redirect_uris: ['http://127.0.0.1/cb']}}}}
front_door: {{key_file: {key}}}
"""


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyServer]:
    with valkey() as running:
        yield running


class Deployment:
    """A deployment in whose Redis people have log-ins."""

    def __init__(self, server: ValkeyServer, key: Path) -> None:
        self.server = server
        self._secret = key.read_text()

    def do(self, work: Callable[["Stores"], Awaitable[Any]]) -> Any:
        async def whole() -> Any:
            ledger = RedisLedger(RedisOptions(self.server.url, timeout=20))
            try:
                return await work(Stores(ledger, self._secret))
            finally:
                await ledger.aclose()

        return asyncio.run(whole())

    def log_in(self, subject: str, account: str, email: str = "", **changes: Any) -> None:
        """Log a person in, as the pages do."""

        async def work(stores: "Stores") -> None:
            who = LoginIdentity(subject, frozenset({"pwd"}), 1_700_000_000, account, email)
            await stores.people.keep(who)
            await stores.begin(subject, account, **changes)

        self.do(work)

    def is_refused(self, subject: str, client: str = "one", issued_at: int | None = None) -> bool:
        """Tell whether a new token is refused, as a decision asks it."""
        at = int(time.time()) + 1000 if issued_at is None else issued_at

        async def work(stores: "Stores") -> bool:
            query = Query(
                token_id="t",
                person=Person(ISSUER, subject),
                client=Client(ISSUER, client),
                issued_at=at,
                step_up_key=None,
                step_up=None,
                takes=(),
            )
            return isinstance(await stores.ledger.take(query), Revoked)

        return bool(self.do(work))


class Stores:
    """The stores of the deployment, as its pages and workers have them."""

    def __init__(self, ledger: RedisLedger, secret: str) -> None:
        self.ledger, self.keys = ledger, RedisKeys("authz")
        self.sealer = Sealer((secret,), time.time)
        self.grants = GrantStore(
            ledger.command, self.keys, ISSUER, max_age=86_400, max_lifetime=3600, clock=time.time
        )
        self.people = PeopleStore(
            ledger.command, self.keys, ISSUER, sealer=self.sealer, lifetime=90_000, clock=time.time
        )

    async def begin(self, subject: str, account: str, **changes: Any) -> None:
        now = int(time.time())
        grant: Grant = replace(
            GRANT, account=account, created_at=now, used_at=now, expires_at=now + 600
        )
        grant = replace(grant, **changes)
        codes = CodeStore(self.ledger.command, self.keys, self.sealer, 86_400)
        code = grant.id.rjust(43, "c")
        await codes.issue(code, CODE)
        await codes.take(code)
        record = LoginRecord(
            grant.client, grant.client_id, grant.id, subject, frozenset({"pwd"}), 1, account
        )
        await self.grants.begin(subject, grant, record, 600, codes.key(code))

    async def seen(self, **fields: str) -> None:
        """Write a decision into the audit trail, as a worker does."""
        chain = AuditChain(TrailKeys().newest)
        text = body(AuditEvent.DECISION, tuple(fields.items()))
        person = Person(ISSUER, fields["subject"])
        store = TrailStore(self.ledger.command, self.keys)
        await store.append(chain.name, [chain.add(text, time.time())], [person], 3600)


@pytest.fixture
def deployment(
    tmp_path: Path, server: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Deployment]:
    key = tmp_path / "front_door.pem"
    make_key(key)
    (tmp_path / "authz.yaml").write_text(TEXT.format(key=key))
    monkeypatch.setenv("AUTHZ_REDIS_URL", server.url)
    monkeypatch.setenv("USER", "ops")
    yield Deployment(server, key)
    server.command("FLUSHALL")


@pytest.fixture
def typed(
    deployment: Deployment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> TypedCommands:
    return TypedCommands(tmp_path / "authz.yaml", capsys)


@pytest.mark.parametrize("name", ["ada", "ada@example.com", ADA])
def test_a_name_revokes_the_person_who_has_it(
    typed: TypedCommands, deployment: Deployment, name: str
) -> None:
    """By user name, e-mail address and subject; it says who that is, and what it refuses."""
    deployment.log_in(ADA, "ada", "ada@example.com")
    deployment.log_in(ADA, "ada", "ada@example.com", id="g2")
    deployment.log_in(BOB, "bob", id="g3")

    assert typed("revoke", "--user", name) == 0
    assert f"ada, ada@example.com (subject {ADA})" in typed.out
    assert "refuses: 2" in typed.out
    assert deployment.is_refused(ADA)
    assert not deployment.is_refused(BOB)


@pytest.mark.parametrize(
    ("words", "near"),
    [
        (("--user", "adda"), "did you mean ada"),
        (("--user", "Ada"), "did you mean ada"),
        (("--user", "ada@example.org"), "did you mean ada@example.com"),
        (("--user", "71909b80-c6b2-4490-b157-a7cf10eb4137"), f"did you mean {ADA}"),
        (("--client", "dynamic/evil.exmaple"), "did you mean dynamic/evil.example"),
        (("--client", "corsor"), "did you mean cursor"),
        (("--grant", "g9"), "no log-in is known"),
    ],
)
def test_a_wrong_name_revokes_nothing(
    typed: TypedCommands, deployment: Deployment, words: tuple[str, ...], near: str
) -> None:
    """It ends with 3 and what is like it, and writes nothing; forced, it says that it may do
    nothing.
    """
    deployment.log_in(ADA, "ada", "ada@example.com", client="dynamic/evil.example")
    before = deployment.server.command("DBSIZE")

    assert typed("revoke", *words) == 3
    assert near in typed.err
    assert "nothing was revoked" in typed.err
    assert typed.out == ""
    assert deployment.server.command("DBSIZE") == before
    assert typed("revocations") == 0
    assert typed.out == "nothing is revoked\n"

    assert typed("revoke", *words, "--force", "--json") == 0
    assert (typed.json["known"], typed.json["log_ins"]) == (False, 0)
    assert "forced: nobody is known by that name" in typed.err
    assert not deployment.is_refused(ADA, "dynamic/evil.example")


@pytest.mark.attack("named-like-another")
def test_a_name_that_two_have_revokes_neither(typed: TypedCommands, deployment: Deployment) -> None:
    """Both are told with their subjects, by which each is revoked; force chooses none."""
    deployment.log_in(ADA, "ada")
    deployment.log_in(EVE, "eve", "ada", id="g2")

    for force in ([], ["--force"]):
        assert typed("revoke", "--user", "ada", *force) == 2
        assert ADA in typed.err
        assert EVE in typed.err
    assert not deployment.is_refused(ADA)
    assert not deployment.is_refused(EVE)
    assert typed("revoke", "--user", ADA) == 0
    assert deployment.is_refused(ADA)
    assert not deployment.is_refused(EVE)


@pytest.mark.attack("named-like-another")
def test_whoever_is_called_as_anothers_subject_is_not_revoked_for_it(
    typed: TypedCommands, deployment: Deployment
) -> None:
    """The subject wins, in log-ins and for somebody whom the audit trail alone knows."""
    deployment.log_in(ADA, "ada")
    deployment.log_in(EVE, ADA, id="g2")
    deployment.log_in("e2", BOB, id="g3")
    deployment.do(lambda stores: stores.seen(subject=BOB, client_id="nightly"))

    assert typed("revoke", "--user", ADA) == 0
    assert typed("revoke", "--user", BOB) == 0
    assert [deployment.is_refused(each) for each in (ADA, EVE, BOB, "e2")] == [
        True, False, True, False,
    ]  # fmt: skip


def test_who_used_a_client_of_the_issuer_is_known_from_the_audit_trail(
    typed: TypedCommands, deployment: Deployment
) -> None:
    """Their tokens have no log-in here. What an operator wrote there earlier makes nobody known."""
    deployment.do(lambda stores: stores.seen(subject=BOB, account="bob", client_id="elsewhere"))
    assert typed("revoke", "--user", "john", "--force") == 0
    assert typed("revoke", "--user", "john") == 3

    assert typed("revoke", "--user", "bob") == 0
    assert deployment.is_refused(BOB)
    assert typed("revoke", "--client", "elsewhere") == 0
    assert deployment.is_refused("x", "elsewhere")


def test_one_log_in_is_told_with_its_person(typed: TypedCommands, deployment: Deployment) -> None:
    """So that the operator sees whose it is; a lift of one that has ended brings nothing back."""
    deployment.log_in(ADA, "ada")
    assert typed("revoke", "--grant", "g1") == 0
    assert f"the log-in g1 of ada (subject {ADA})" in typed.out

    shown = typed.out.partition("undo it with: authz ")[2].split()[2]
    deployment.do(lambda stores: stores.grants.end(ADA, "g1", "test"))
    assert typed("revocations", "lift", shown) == 0
    assert "that log-in has ended and does not come back" in typed.out


def test_a_client_is_revoked_by_what_it_is_called_here(
    typed: TypedCommands, deployment: Deployment
) -> None:
    """By its id as listed, its client_id or its name, but never by what it calls itself."""
    deployment.log_in(ADA, "ada", client="dynamic/evil.example", client_id="dyn.1", title="Claude")
    assert typed("clients", "--json") == 0
    (listed,) = typed.json["clients"]
    assert typed.json["people"] == [
        {"subject": ADA, "account": "ada", "email": "", "log_ins": 1, "last": listed["last"]}
    ]
    assert typed("revoke", "--client", "Claude") == 3
    assert typed("revoke", "--client", listed["id"][:6]) == 0
    assert "the client dyn.1" in typed.out
    assert "refuses: 1" in typed.out


def test_people_are_listed_with_their_subjects(
    typed: TypedCommands, deployment: Deployment
) -> None:
    """Who has logged in stands there by the subject that the decision log has; escaped."""
    deployment.log_in(ADA, "ada", "ada@example.com")
    deployment.log_in(BOB, "b\u043eb", id="g2")
    assert typed("clients") == 0
    assert f"ada      {ADA}  ada@example.com" in typed.out.replace("       ", "      ")
    assert "b\\u043eb" in typed.out


def test_a_lift_tells_what_refuses_all_the_same(
    typed: TypedCommands, deployment: Deployment
) -> None:
    """Another revocation, or a block, is not passed over in silence."""
    deployment.log_in(ADA, "ada", client="dynamic/evil.example")
    assert typed("revoke", "--everything") == 0
    assert typed("revoke", "--user", "ada", "--json") == 0
    person = typed.json["revoked"]["id"]
    assert typed("revocations", "lift", person, "--restore") == 0
    assert "this stays revoked: everybody's" in typed.out

    assert typed("revoke", "--client", "dynamic/evil.example", "--json") == 0
    client = typed.json["revoked"]["id"]
    assert typed("clients", "block", "dynamic/evil.example") == 0
    assert typed("revocations", "lift", client, "--json") == 0
    assert any("clients unblock" in each for each in typed.json[0]["still_refused"])
    assert typed("revocations", "lift", "person:0000") == 2


def test_a_block_that_would_not_stop_its_client_is_refused(
    typed: TypedCommands, deployment: Deployment
) -> None:
    """One that logs in at the issuer never comes to the front door; it says what does stop it."""
    assert typed("clients", "block", "nightly") == 2
    assert "authz revoke --client nightly" in typed.err
    assert typed("clients", "block", "cursor") == 0
    assert typed("clients", "--json") == 0
    assert [each["what"] for each in typed.json["blocked"]] == ["cursor"]


def test_an_unblock_tells_what_keeps_a_client_out(
    typed: TypedCommands, deployment: Deployment
) -> None:
    """Another spelling of the block, and a revocation of its tokens; a name that is not blocked."""
    deployment.log_in(ADA, "ada", client="dynamic/evil.example")
    assert typed("revoke", "--client", "dynamic/evil.example") == 0
    assert typed("clients", "block", "dynamic/evil.example") == 0
    assert "log-ins ended: 1" in typed.out
    assert typed("clients", "block", "https://evil.example") == 0
    assert typed("clients", "unblock", "dynamic/evil.example") == 0
    assert "but https://evil.example is blocked, too" in typed.out
    assert "but its tokens are revoked" in typed.out
    assert typed("clients", "unblock", "dynamic/never.example") == 1
    assert "was not blocked" in typed.out


def test_a_redis_that_no_worker_reads_is_told(typed: TypedCommands, deployment: Deployment) -> None:
    """A revocation in another Redis than the service's is no success; one that is read says
    nothing.
    """
    deployment.log_in(ADA, "ada")
    assert typed("revoke", "--user", "ada") == 0
    assert "no worker of the service has read the revocations" in typed.err

    async def read(stores: Stores) -> None:
        await stores.ledger.read(DataSetTracker().read_request)

    deployment.do(read)
    assert typed("revoke", "--user", "ada", "--json") == 0
    assert typed.json["warnings"] == []
    assert typed.err == ""


def test_a_person_of_an_earlier_release_is_revoked_all_the_same(
    typed: TypedCommands, deployment: Deployment
) -> None:
    """Its log-in holds a name and the digest of the subject, which is what a revocation needs."""
    deployment.do(lambda stores: stores.begin(ADA, "ada"))
    for key in deployment.server.command("KEYS", "*log-in*"):
        deployment.server.command("DEL", key)
    assert typed("clients", "--json") == 0
    assert typed.json["people"][0]["subject"] == ""
    assert typed("revoke", "--user", "ada") == 0
    assert deployment.is_refused(ADA)
    assert not deployment.is_refused(BOB)
    assert typed("audit", "--json") == 0
    assert json.loads(typed.out.splitlines()[-1])["record"]["action"] == "revoke"


@pytest.mark.parametrize("who", ["ada", "ada@example.com", ADA])
def test_connections_are_found_by_name(
    typed: TypedCommands, deployment: Deployment, tmp_path: Path, who: str
) -> None:
    """A person's connections by the names that `revoke --user` takes, and nobody else's."""
    deployment.log_in(ADA, "ada", "ada@example.com")
    log = tmp_path / "authz.log"
    other = b"".join(hosted(BASE + 2000, attempt="b1", grant="0c2d"))
    log.write_bytes(b"".join(hosted(BASE)).replace(b'"u-1"', f'"{ADA}"'.encode()) + other)

    assert typed("connections", "--log", str(log), "--person", who, "--json") == 0
    assert [each["person"] for each in typed.json["connections"]] == [ADA]
    assert typed("connections", "--log", str(log), "--person", "u-1", "--json") == 0
    assert [each["person"] for each in typed.json["connections"]] == ["u-1"]


def test_connections_of_nobody_or_of_two_are_not_shown(
    typed: TypedCommands, deployment: Deployment, tmp_path: Path
) -> None:
    """A name that nobody has, or two, is told; it revokes nothing and no word says that it could.

    Who is called as another's subject is not shown in the other's place.
    """
    deployment.log_in(ADA, "ada")
    deployment.log_in(EVE, "ada")
    deployment.log_in(BOB, "u-1")
    log = tmp_path / "authz.log"
    log.write_bytes(b"".join(hosted(BASE)))
    options = ("--log", str(log))
    assert typed("connections", *options, "--person", "nobody") == 3
    assert "no person is known by the name nobody, so none is shown" in typed.err
    assert "revoke" not in typed.err
    assert typed("connections", *options, "--person", "ada") == 2
    assert "--person: ada does not say who is meant; none is shown" in typed.err
    assert ADA in typed.err
    assert typed("connections", *options, "--person", "u-1", "--json") == 0
    assert [each["person"] for each in typed.json["connections"]] == ["u-1"]
