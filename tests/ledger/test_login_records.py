"""Login records are read as they were written, or not at all, each under its own token."""

import asyncio
import json
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.core.ledger import UnavailableError
from authz.core.principal import LoginRecord
from authz.ledger.keys import RedisKeys
from authz.ledger.login_records import LoginRecords, decode, encode
from authz.ledger.redis import RedisLedger, RedisOptions
from tests.ledger.queries import connected, patient
from tests.support.valkey import ValkeyServer
from tests.support.values import login_record

TOKEN = "eyJ.payload.signature"
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
RECORDS = st.builds(
    LoginRecord,
    client=NAMES,
    client_id=NAMES,
    grant=NAMES,
    subject=NAMES,
    amr=st.frozensets(st.text(st.characters(exclude_categories=["Cs"]))),
    auth_time=st.integers(0, 2**53),
    account=st.text(st.characters(exclude_categories=["Cs"])),
    redirect_uri=NAMES | st.just(""),
    ends_at=NAMES | st.just(""),
    document_host=NAMES | st.just(""),
)
LATER = ("redirect_uri", "ends_at", "document_host")
GOOD = json.loads(encode(login_record()))


@given(record=RECORDS)
def test_a_record_is_read_as_it_was_written(record: LoginRecord) -> None:
    """Whatever people and clients are called."""
    assert decode(encode(record)) == record


def test_a_record_of_before_is_read_and_half_a_one_is_not() -> None:
    """Where a log-in ended was not kept once: an update of ours ends nobody's log-in."""
    old = {name: value for name, value in GOOD.items() if name not in LATER}

    found = decode(json.dumps(old).encode())
    assert found is not None
    assert (found.redirect_uri, found.ends_at, found.document_host) == ("", "", "")
    assert decode(json.dumps(old | {"ends_at": "loopback"}).encode()) is None


@given(value=st.binary() | st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner)
    | st.dictionaries(st.sampled_from([*GOOD, "x"]), inner)
).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_any_bytes_are_a_whole_record_or_none(value: bytes) -> None:
    """Nothing raises, and half a record is none."""
    found = decode(value)

    assert found is None or encode(found) is not None


@pytest.mark.attack("hostile-amr")
@pytest.mark.parametrize(
    "changes",
    [
        {"amr": "otp"}, {"amr": ["otp", ["mfa"]]}, {"amr": [["otp", "mfa"]]}, {"amr": None},
        {"amr": {"otp": True}}, {"amr": ["otp", 1]}, {"amr": ["otp", None]},
        {"auth_time": "5"}, {"auth_time": 5.0}, {"auth_time": True}, {"auth_time": -1},
        {"auth_time": None}, {"subject": ""}, {"subject": None}, {"subject": 5}, {"grant": ""},
        {"client": ""}, {"client_id": ""}, {"account": None}, {"more": 1},
    ],
    ids=str,
)  # fmt: skip
def test_a_record_of_another_shape_is_none(changes: dict[str, object]) -> None:
    """A list of words, a whole number of seconds, names that are there, and nothing besides."""
    assert decode(json.dumps(GOOD).encode()) == login_record()
    assert decode(json.dumps(GOOD | changes).encode()) is None


@pytest.mark.attack("hostile-amr")
@pytest.mark.parametrize("member", GOOD)
def test_a_record_without_a_member_or_with_one_twice_is_none(member: str) -> None:
    """As strict as a token's claims."""
    less = {name: value for name, value in GOOD.items() if name != member}
    twice = json.dumps(GOOD)[:-1] + f", {json.dumps(member)}: {json.dumps(GOOD[member])}}}"

    assert decode(json.dumps(less).encode()) is None
    assert decode(twice.encode()) is None


def test_a_record_is_under_the_digest_of_its_token(server: ValkeyServer, deployment: str) -> None:
    """For as long as it was given, and shorter where it is told to end; the token is not kept."""

    async def run() -> None:
        async with connected(patient(server, deployment)) as ledger:
            log_ins = LoginRecords(ledger.command, RedisKeys(deployment))
            assert await log_ins.get(TOKEN) is None
            await log_ins.put(TOKEN, login_record(), 3600)
            assert await log_ins.get(TOKEN) == login_record()
            assert await log_ins.get(TOKEN + "x") is None

            (key,) = server.command("KEYS", f"*{deployment}*")
            assert key.endswith(b"log-in:" + sha256(TOKEN.encode()).hexdigest().encode())
            assert TOKEN.encode() not in server.command("GET", key)
            assert 3500 < server.command("TTL", key) <= 3600
            await log_ins.expire(TOKEN)
            assert 0 < server.command("TTL", key) <= 60
            await log_ins.expire(TOKEN, 3000)
            assert server.command("TTL", key) <= 60

    asyncio.run(run())


def test_other_deployments_have_other_records(server: ValkeyServer, deployment: str) -> None:
    """One Redis may serve several."""

    async def run() -> None:
        async with connected(patient(server, deployment)) as ledger:
            await LoginRecords(ledger.command, RedisKeys(deployment)).put(TOKEN, login_record(), 60)
            assert await LoginRecords(ledger.command, RedisKeys("other")).get(TOKEN) is None

    asyncio.run(run())


def test_what_is_no_text_is_a_fault(server: ValkeyServer, deployment: str) -> None:
    """A key of another type: Redis does not answer the question, so nobody is judged by it."""

    async def run() -> None:
        keys = RedisKeys(deployment)
        server.command("HSET", keys.login_record(sha256(TOKEN.encode()).hexdigest()), "a", "b")
        async with connected(patient(server, deployment)) as ledger:
            with pytest.raises(UnavailableError):
                await LoginRecords(ledger.command, keys).get(TOKEN)

    asyncio.run(run())


def test_without_redis_there_is_no_answer() -> None:
    """Not `no record`: that would throw a log-in away."""

    async def run() -> None:
        ledger = RedisLedger(RedisOptions("redis://127.0.0.1:1", timeout=5))
        log_ins = LoginRecords(ledger.command, RedisKeys("x"))
        for work in (
            log_ins.get(TOKEN),
            log_ins.put(TOKEN, login_record(), 1),
            log_ins.expire(TOKEN),
        ):
            with pytest.raises(UnavailableError):
                await work
        await ledger.aclose()

    asyncio.run(run())
