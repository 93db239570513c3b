"""`authz revoke` and `authz revocations` as they are typed, on a real Valkey."""

import asyncio
import io
import json
import pkgutil
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from authz.audit.chain import AuditChain, TrailKeys
from authz.audit.record import AuditEvent, body
from authz.audit.store import TrailStore
from authz.cli import main
from authz.config.key_files import make_key
from authz.config.load import load
from authz.core.ledger import Query, Revoked, Taken, UnavailableError
from authz.core.limits import Take, bucket_id
from authz.core.principal import Client, Person
from authz.ledger.keys import RedisKeys
from authz.ledger.limit_usage import LimitedCaller, limits_of
from authz.ledger.redis import RedisLedger, RedisOptions
from tests.ledger.queries import query
from tests.support.valkey import ValkeyServer, valkey
from tests.tokens.opaque import TOKEN
from tests.tokens.token_factory import ISSUER, rsa_signer

TEXT = """\
issuer: {url: 'https://auth.example.test'}
gateway: {url: 'https://mcp.example.com', tls: {certificate: /c, key: /k}, max_stream: 90s}
servers: {files: {upstream: 'http://files:8000/mcp'}}
clients: {claude: {}}
"""
ADA = Person(ISSUER, "ada")


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyServer]:
    with valkey() as running:
        yield running


@pytest.fixture
def config(tmp_path: Path, server: ValkeyServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    path = tmp_path / "authz.yaml"
    path.write_text(TEXT)
    monkeypatch.setenv("AUTHZ_REDIS_URL", server.url)
    monkeypatch.setenv("USER", "ops")
    yield path
    server.command("FLUSHALL")


class TypedCommands:
    """Type commands, and keep what they print."""

    def __init__(self, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.config = config
        self._capsys = capsys
        self.out, self.err = "", ""

    def __call__(self, *words: str) -> int:
        try:
            code = main([*words, "-c", str(self.config)])
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else 1
        self.out, self.err = self._capsys.readouterr()
        return code

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def typed(config: Path, capsys: pytest.CaptureFixture[str]) -> TypedCommands:
    return TypedCommands(config, capsys)


def asked(server: ValkeyServer, issued_at: int, **changes: Any) -> object:
    """Return what the ledger says to a token of ada's."""

    async def go() -> object:
        ledger = RedisLedger(RedisOptions(server.url, timeout=20))
        try:
            given = {"token_id": "t", "person": ADA, "client": Client(ISSUER, "claude")} | changes
            return await ledger.take(
                Query(issued_at=issued_at, step_up_key=None, step_up=None, takes=(), **given)
            )
        finally:
            await ledger.aclose()

    return asyncio.run(go())


def test_a_user_is_revoked_listed_and_lifted(typed: TypedCommands, server: ValkeyServer) -> None:
    """The list tells who, when and why; a lift lets new log-ins pass and no old token."""
    now = int(time.time())
    assert typed("revoke", "--user", "ada", "--force", "--reason", "laptop stolen") == 0
    assert "until this is lifted" in typed.out
    assert "refresh token" in typed.out
    assert "90 s" in typed.out
    assert asked(server, now + 1000) == Revoked("person")
    assert isinstance(asked(server, now, person=Person(ISSUER, "bob")), Taken)

    assert typed("revocations") == 0
    assert all(words in typed.out for words in ("of the person ada", "ops", "laptop stolen"))
    shown = typed.out.splitlines()[1].split()[0]

    assert typed("revocations", "lift", shown, "--by", "boss") == 0
    assert "new log-ins pass" in typed.out
    assert asked(server, now) == Revoked("person")
    assert isinstance(asked(server, now + 1000), Taken)

    assert typed("revocations", "lift", shown) == 2
    assert "--restore" in typed.err
    assert typed("revocations", "lift", shown, "--restore", "--json") == 0
    assert typed.json[0]["left"] is None
    assert isinstance(asked(server, now), Taken)
    assert typed("revocations") == 0
    assert typed.out == "nothing is revoked\n"


def test_one_log_in_of_the_front_door_is_revoked_by_its_grant(
    typed: TypedCommands, server: ValkeyServer
) -> None:
    """All its tokens, refreshed ones too, and those of no other log-in; lifted like a person's."""
    now = int(time.time())
    assert typed("revoke", "--grant", "g-1", "--force", "--reason", "laptop stolen") == 0
    assert "all of the log-in g-1" in typed.out
    assert asked(server, now + 1000, grant="g-1") == Revoked("grant")
    assert isinstance(asked(server, now, grant="g-2"), Taken)
    assert isinstance(asked(server, now), Taken)

    assert typed("revocations", "--json") == 0
    (entry,) = typed.json
    assert (entry["what"], entry["name"]) == ("grant", "g-1")
    assert typed("revocations", "lift", entry["id"]) == 0
    assert asked(server, now, grant="g-1") == Revoked("grant")
    assert isinstance(asked(server, now + 1000, grant="g-1"), Taken)
    assert typed("revocations", "lift", entry["id"], "--restore") == 0


def signed(expires_in: int) -> str:
    now = int(time.time())
    return rsa_signer().token({"iat": now - 60, "nbf": now - 60, "exp": now + expires_in})


@pytest.mark.parametrize("token", [signed(3600), TOKEN], ids=["jwt", "opaque"])
def test_a_token_is_read_from_standard_input_and_never_printed(
    typed: TypedCommands, server: ValkeyServer, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    """Neither the answer, the list nor Redis holds a token."""
    stdin = io.TextIOWrapper(io.BytesIO(f" {token}\r\n".encode()))
    monkeypatch.setattr("sys.stdin", stdin)

    assert typed("revoke", "--token-file", "-", "--json") == 0

    entry = typed.json["revoked"]
    kind, _, token_id = entry["id"].partition(":")
    assert kind == "token"
    assert asked(server, 1, token_id=token_id) == Revoked("token")
    assert entry["until"] is not None
    stored = server.command("HGETALL", "{authz}:revocations")
    assert token not in typed.out + str(stored)
    assert typed("revocations", "lift", entry["id"]) == 0
    assert isinstance(asked(server, 1, token_id=token_id), Taken)


def test_a_token_that_expired_long_ago_is_told(typed: TypedCommands, tmp_path: Path) -> None:
    """Nobody is told that what is not kept is revoked."""
    file = tmp_path / "token"
    file.write_text(signed(-2 * 86_400))
    assert typed("revoke", "--token-file", str(file)) == 2
    assert "expired" in typed.err

    file.write_text(signed(-10))
    assert typed("revoke", "--token-file", str(file)) == 0
    assert typed("revoke", "--token-file", str(file), "--issued-before", "now") == 2


def test_everything_is_what_exists_now(typed: TypedCommands, server: ValkeyServer) -> None:
    """Without a moment `--everything` is now, and what an issuer's fast clock signed goes too."""
    before = int(time.time())
    assert typed("revoke", "--everything") == 0

    assert asked(server, before) == Revoked("everything")
    assert asked(server, before + 10) == Revoked("everything")  # issuer.leeway
    assert isinstance(asked(server, before + 1000), Taken)
    assert typed("revocations", "--json") == 0
    assert [each["id"] for each in typed.json] == ["everything"]


def test_a_moment_is_iso_8601_or_an_epoch(typed: TypedCommands, server: ValkeyServer) -> None:
    """Tokens that were issued at that second are taken back, later ones are not."""
    moment = int(time.time()) - 86_400
    iso = datetime.fromtimestamp(moment, timezone(timedelta(hours=2))).isoformat()
    assert typed("revoke", "--client", "claude", "--issued-before", iso) == 0
    assert asked(server, moment) == Revoked("client")
    assert isinstance(asked(server, moment + 1), Taken)
    assert "without --issued-before" in typed.out
    undo = typed.out.partition("undo it with: authz ")[2].splitlines()[0]
    assert typed(*undo.split()) == 0
    assert isinstance(asked(server, moment), Taken)

    assert typed("revoke", "--client", "claude", "--issued-before", str(moment + 9), "--json") == 0
    assert asked(server, moment + 9) == Revoked("client")
    assert typed.json["revoked"]["issued_until"] == moment + 9


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["revoke"], id="nothing"),
        pytest.param(["revoke", "--user", "a", "--client", "b"], id="two"),
        pytest.param(["revoke", "--user", ""], id="no-name"),
        pytest.param(["revoke", "--user", " ada"], id="blanks"),
        pytest.param(["revoke", "--user", "a\x1b[2J"], id="escape"),
        pytest.param(["revoke", "--user", "a", "--reason", "x" * 201], id="long-reason"),
        pytest.param(["revoke", "--user", "a", "--by", "x\ny"], id="odd-by"),
        pytest.param(["revoke", "--user", "a", "--issued-before", "yesterday"], id="no-moment"),
        pytest.param(
            ["revoke", "--user", "a", "--issued-before", "2026-01-01T00:00:00"], id="no-zone"
        ),
        pytest.param(["revoke", "--user", "a", "--issued-before", "9999999999"], id="ahead"),
        pytest.param(["revoke", "--everything", "--issued-before=-1"], id="before-time"),
        pytest.param(["revoke", "--everything", "--issued-before", "9" * 5000], id="digits"),
        pytest.param(["revoke", "--everything", "--issued-before", "1767225600"], id="long-ago"),
        pytest.param(["revoke", "--token-file", "/nowhere"], id="no-file"),
        pytest.param(["revoke", "--token-file", "/dev/zero"], id="endless-file"),
        pytest.param(["revoke", "--token-file", __file__], id="no-token"),
        pytest.param(["revocations", "lift"], id="no-id"),
        pytest.param(["revocations", "lift", "person:absent"], id="no-such-id"),
    ],
)
def test_what_makes_no_sense_changes_nothing(
    typed: TypedCommands, server: ValkeyServer, words: list[str]
) -> None:
    """It ends with 2 and words, and nothing is written."""
    assert typed(*words) == 2

    assert typed.err
    assert "Traceback" not in typed.err
    assert server.command("DBSIZE") == 0


def test_without_a_redis_it_says_so(
    typed: TypedCommands, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A service that keeps revocations in its own memory cannot be written to."""
    monkeypatch.delenv("AUTHZ_REDIS_URL")

    assert typed("revoke", "--user", "ada", "--force") == 2
    assert "no Redis to ask" in typed.err

    (tmp_path / ".authz").mkdir()
    (tmp_path / ".authz" / "redis-password").write_text("p" * 43)
    assert typed("revoke", "--user", "ada", "--force") == 1
    assert "nobody answers there" in typed.err


def test_a_redis_that_refuses_is_told(
    typed: TypedCommands, server: ValkeyServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A user that may only read can list, and is told that it may not revoke."""
    rights = ("~*", "+hgetall", "-hset", "-hdel")
    server.command("ACL", "SETUSER", "reader", "on", ">p", *rights)
    (tmp_path / "password").write_text("p\n")
    monkeypatch.setenv("AUTHZ_REDIS_USERNAME", "reader")
    monkeypatch.setenv("AUTHZ_REDIS_PASSWORD_FILE", str(tmp_path / "password"))

    assert typed("revocations") == 0
    assert typed("revoke", "--user", "ada", "--force") == 1
    assert "its user may not do this" in typed.err

    (tmp_path / "password").write_text("q\n")
    assert typed("revocations", "--json") == 1
    assert "it refuses the user or the password" in typed.err


def test_options_may_stand_on_either_side_of_lift(
    typed: TypedCommands, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is given before the word is not undone by what is not given after it."""
    typed("revoke", "--user", "ada", "--force", "--json")
    name = typed.json["revoked"]["id"]

    assert main(["revocations", "-c", str(config), "--json", "lift", name]) == 0
    assert json.loads(capsys.readouterr().out)[0]["lifted"]["name"] == "ada"


@pytest.fixture
def with_door(config: Path, tmp_path: Path) -> Path:
    """Return the configuration of a deployment to which clients come by the front door."""
    key = tmp_path / "front_door.pem"
    make_key(key)
    config.write_text(
        f"{TEXT}front_door: {{key_file: {key}}}\n".replace("clients: {claude: {}}", "")
    )
    return config


@pytest.mark.usefixtures("with_door")
def test_a_host_alone_is_blocked(typed: TypedCommands) -> None:
    """All that ends there or has its document there; and it is let in again in any spelling."""
    assert typed("clients", "block", "Evil.example") == 0
    assert "blocked dynamic/evil.example" in typed.out
    assert typed("clients", "--json") == 0
    assert [each["what"] for each in typed.json["blocked"]] == ["dynamic/evil.example"]
    assert typed("clients", "unblock", "https://evil.example") == 0
    assert "unblocked dynamic/evil.example" in typed.out


@pytest.mark.usefixtures("with_door")
def test_what_would_stop_nobody_is_not_blocked(typed: TypedCommands) -> None:
    """A word that can be no client's is refused, with the forms, and nothing is written."""
    assert typed("clients", "block", "vscode") == 2
    assert "dynamic/HOST" in typed.err
    assert "did you mean dynamic/vscode?" in typed.err
    assert typed("clients", "--json") == 0
    assert typed.json["blocked"] == []


def test_what_an_operator_does_is_in_the_audit_trail(typed: TypedCommands) -> None:
    """Who, why and whose, found by the person; each command is a chain that verifies."""
    assert typed("revoke", "--user", "ada", "--force", "--reason", "lost laptop") == 0
    (listed,) = (typed("revocations", "--json"), typed.json)[1]
    assert typed("revocations", "lift", listed["id"], "--by", "eve") == 0

    assert typed("audit", "--person", "ada", "--json") == 0
    found = [json.loads(line)["record"] for line in typed.out.splitlines()]
    assert [(each["event"], each["action"], each["by"]) for each in found] == [
        ("operator", "revoke", "ops"),
        ("operator", "lift", "eve"),
    ]
    assert found[0]["why"] == "lost laptop"
    assert typed("audit", "--verify") == 0


class _Halfway(NamedTuple):
    """A command, and the call that does it and fails then."""

    action: str
    place: str
    words: tuple[str, ...]


@pytest.mark.attack("console: a change without a record")
@pytest.mark.usefixtures("with_door")
@pytest.mark.parametrize(
    "halfway",
    [
        _Halfway("revoke", "authz.ledger.revocations.revoke", ("revoke", "--user", "a", "--force")),
        _Halfway("block", "authz.cli.clients.block", ("clients", "block", "good.example")),
        _Halfway(
            "unblock",
            "authz.login.store.blocklist.Blocklist.unblock",
            ("clients", "unblock", "evil.example"),
        ),
        _Halfway("lift", "authz.ledger.revocations._lift", ("revocations", "lift")),
    ],
)
@pytest.mark.parametrize("fault", [UnavailableError("redis", "gone"), KeyboardInterrupt()])
def test_what_fails_halfway_is_in_the_audit_trail(
    typed: TypedCommands,
    monkeypatch: pytest.MonkeyPatch,
    halfway: _Halfway,
    fault: BaseException,
) -> None:
    """It is done, and then Redis is gone or the operator gives up: the record says unknown; what
    was done before it of several has its own.
    """
    assert typed("clients", "block", "evil.example") == 0
    for name in ("eve", "mallory"):
        assert typed("revoke", "--user", name, "--force") == 0
    words, is_second = halfway.words, halfway.action == "lift"
    if is_second:
        typed("revocations", "--json")
        words = (*words, *(each["id"] for each in typed.json))
    module, _, name = halfway.place.rpartition(".")
    owner = pkgutil.resolve_name(module)
    real, calls = getattr(owner, name), [0]

    async def half(*args: Any, **options: Any) -> Any:
        calls[0] += 1
        done = await real(*args, **options)
        if is_second and calls[0] == 1:
            return done
        raise fault

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, half)
        with suppress(KeyboardInterrupt):
            assert typed(*words, "--reason", "why not") != 0
    assert typed("audit", "--json") == 0
    records = [json.loads(line)["record"] for line in typed.out.splitlines()]
    found = [each for each in records if each.get("why") == "why not"]
    assert {each["action"] for each in found} == {halfway.action}
    outcomes = [each.get("outcome", "") for each in found]
    assert outcomes == (["", "unknown"] if is_second else ["unknown"])


@pytest.mark.usefixtures("with_door")
def test_what_was_refused_has_no_record(typed: TypedCommands) -> None:
    """Nothing was done, so nothing is in the trail."""
    assert typed("revocations", "lift", "person:0123456789ab") != 0
    assert typed("clients", "unblock", "good.example") != 0
    assert typed("audit", "--json") == 0
    assert not typed.out.strip()


def test_limits_are_listed_by_name_and_reset(typed: TypedCommands, server: ValkeyServer) -> None:
    """Who was seen in the audit trail is listed with what is used of each limit; a reset forgets
    that one, is in the trail with who and why, and names nothing twice.
    """
    assert typed("limits") == 0
    assert "nobody has used any" in typed.out
    caller = LimitedCaller("ada", "claude", "Ada")

    async def use() -> None:
        ledger = RedisLedger(RedisOptions(server.url, timeout=20))
        try:
            settings = load(typed.config, {"AUTHZ_REDIS_URL": server.url})
            principal = caller.principal(ISSUER)
            takes = tuple(
                Take(bucket_id(each, principal, ""), each) for each in limits_of(settings.policy)
            )
            for _ in range(2):
                await ledger.take(query(*takes))
            fields = (
                ("verdict", "allow"),
                ("subject", "ada"),
                ("account", "Ada"),
                ("client_id", "claude"),
            )
            chain = AuditChain(TrailKeys().newest)
            record = chain.add(body(AuditEvent.DECISION, fields), time.time())
            store = TrailStore(ledger.command, RedisKeys("authz"))
            await store.append(chain.name, [record], [None], 3600)
        finally:
            await ledger.aclose()

    asyncio.run(use())
    assert typed("limits", "--json") == 0
    first = typed.json[0]
    assert (first["person"], first["client"], first["used"]) == ("Ada", "claude", 2)
    assert typed("limits", "--person", "ada") == 0
    assert "claude" in typed.out
    assert typed("limits", "--person", "bob") == 0
    assert "claude" not in typed.out
    assert typed("limits", "reset", "4f1") == 2
    assert typed("limits", "reset", "000000000000") == 1
    assert typed("limits", "reset", first["id"][:12], "--reason", "a loop") == 0
    assert typed("limits", "reset", first["id"]) == 1
    assert typed("audit", "--all") == 0
    assert "reset_limit" in typed.out
    assert "a loop" in typed.out
