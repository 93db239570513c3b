"""Sealed values: they open for us, for their purpose, in their time, in one spelling."""

import json
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.config.key_files import new_private_key
from authz.core.second_factor import Method, StepUpNeed
from authz.core.step_up import StepUpTicket
from authz.tokens import base64url
from authz.tokens.sealing import LONGEST, NotSealedError, Sealer, sealing_secrets
from authz.tokens.tickets import LIFETIME, open_ticket, seal_ticket
from tests.tokens.token_factory import TokenClock, b64, unhurried

OLD, NEW = "o" * 32, "n" * 32
CLOCK = TokenClock(1_800_000_000.0)
SEALER = Sealer([NEW], CLOCK)
VALUE = {"client": "claude", "scopes": ["a", "b"], "at": 5, "none": None}
SEALED = SEALER.seal("refresh", VALUE, 60)
values = st.dictionaries(
    st.text(), st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(), max_size=5
)


def opens(text: str, purpose: str = "refresh", sealer: Sealer = SEALER) -> bool:
    try:
        sealer.open(purpose, text)
    except NotSealedError:
        return False
    return True


def surrogates(value: object) -> bool:
    return any(0xD800 <= ord(each) < 0xE000 for each in str(value))


@given(value=values, purpose=st.sampled_from(["refresh", "code", "step-up-ticket"]))
@unhurried
def test_what_is_sealed_opens_as_it_was(value: dict[str, object], purpose: str) -> None:
    """And in characters that need no escaping in a URL."""
    if surrogates(value):
        return
    text = SEALER.seal(purpose, value, 60)

    assert SEALER.open(purpose, text) == value
    assert text.isascii()
    assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.")


def test_nothing_of_it_can_be_read_and_no_two_are_alike() -> None:
    """The value is encrypted, with a nonce of its own."""
    parts = SEALED.split(".")

    assert b"claude" not in b"".join(base64url.decode(part) for part in parts if part)
    assert SEALER.seal("refresh", VALUE, 60) != SEALED


@pytest.mark.attack("sealed-value-altered")
@pytest.mark.parametrize("at", range(0, len(SEALED), 7))
def test_no_character_of_it_can_be_another(at: int) -> None:
    """Altered anywhere it is none, and it has one spelling: what is used once cannot come twice."""
    for other in "A_x.":
        if other != SEALED[at]:
            assert not opens(SEALED[:at] + other + SEALED[at + 1 :])
    for last in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_":
        assert opens(SEALED[:-1] + last) is (last == SEALED[-1])


@pytest.mark.attack("sealed-value-altered")
@pytest.mark.parametrize(
    "text",
    ["", ".", "....", "a.b.c.d.e", "é", "\ud800", "x" * (LONGEST + 1), SEALED + "=", SEALED + "\n",
     " " + SEALED, SEALED + ".", SEALED.upper(), SEALED.rpartition(".")[0] + "."],
)  # fmt: skip
def test_junk_is_refused_without_a_crash(text: str) -> None:
    """Whatever it is."""
    assert not opens(text)


@given(text=st.text() | st.from_regex(r"[A-Za-z0-9_-]{0,40}(\.[A-Za-z0-9_-]{0,40}){4}"))
@unhurried
def test_any_text_is_refused_without_a_crash(text: str) -> None:
    """Nothing raises but the one word for it."""
    assert not opens(text)


@pytest.mark.parametrize(
    "changes",
    [
        {"kid": None}, {"kid": 5}, {"kid": []}, {"kid": "x"}, {"typ": "code"}, {"typ": 5},
        {"alg": "none"}, {"alg": "RSA-OAEP"}, {"alg": "A256GCMKW"}, {"alg": None},
        {"alg": "PBES2-HS256+A128KW", "p2c": 10**9}, {"enc": "A128CBC-HS256"}, {"zip": "DEF"},
        {"crit": ["x"]}, {"jwk": {}},
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.attack("sealed-value-altered")
def test_no_header_of_a_strangers_choice_counts(changes: dict[str, object]) -> None:
    """The algorithm is ours, and the header is authenticated."""
    head, _, rest = SEALED.partition(".")
    header = json.loads(base64url.decode(head)) | changes

    assert not opens(f"{b64(json.dumps(header).encode())}.{rest}")


@pytest.mark.attack("sealed-value-for-another-purpose")
@pytest.mark.parametrize("purpose", ["code", "Refresh", "", "refresh "])
def test_it_opens_for_its_purpose_only(purpose: str) -> None:
    """A refresh token is no code, and a link no refresh token."""
    assert not opens(SEALED, purpose)


@pytest.mark.parametrize(
    ("passed", "expected"), [(0, True), (59.9, True), (60, False), (10**9, False)]
)
def test_it_ends_at_its_end(passed: float, expected: bool) -> None:
    """By the second, and for good."""
    clock = TokenClock(CLOCK.now + passed)

    assert opens(SEALED, sealer=Sealer([NEW], clock)) is expected


def test_keys_rotate() -> None:
    """The newest seals, all open, and one that was taken out opens nothing any more."""
    before = Sealer([OLD], CLOCK)
    between = Sealer([NEW, OLD], CLOCK)
    after = Sealer([NEW], CLOCK)
    old, new = before.seal("x", {}, 60), between.seal("x", {}, 60)

    assert opens(old, "x", between)
    assert opens(new, "x", between)
    assert opens(new, "x", after)
    assert not opens(old, "x", after)
    assert not opens(new, "x", before)
    assert between.mac_key("m") == [*after.mac_key("m"), *before.mac_key("m")]
    assert after.mac_key("m") != after.mac_key("n")


def test_one_key_twice_is_one() -> None:
    """A file that lists a key twice seals and opens as ever."""
    twice = Sealer([NEW, NEW], CLOCK)

    assert opens(SEALED, sealer=twice)
    assert len(twice.mac_key("m")) == 1
    with pytest.raises(ValueError, match="nothing to seal with"):
        Sealer([], CLOCK)


def test_keys_come_of_a_file_or_of_the_private_key() -> None:
    """Blank lines count for nothing, short ones are refused, an empty file is no file."""
    assert sealing_secrets(None, "pem") == ("pem",)
    assert sealing_secrets(f"{NEW}\n\n  {OLD} \n", "pem") == (NEW, OLD)
    for file in ("", "\n", "short\n", f"{NEW}\nshort"):
        with pytest.raises(ValueError, match="no key"):
            sealing_secrets(file, "pem")


def test_a_seal_file_opens_what_was_sealed_before_there_was_one() -> None:
    """A line with the private key that keys were made of: it opens, and the newest line seals;
    what is no private key in base64 is refused.
    """
    pem = new_private_key()
    line = f"key_file:{b64encode(pem.encode()).decode()}"
    before = Sealer(sealing_secrets(None, pem), CLOCK)
    between = Sealer(sealing_secrets(f"{NEW}\n{line}\n", new_private_key()), CLOCK)
    after = Sealer(sealing_secrets(NEW, pem), CLOCK)
    old, new = before.seal("x", {}, 60), between.seal("x", {}, 60)

    assert opens(old, "x", between)
    assert opens(new, "x", after)
    assert not opens(new, "x", before)
    assert not opens(old, "x", after)
    assert between.mac_key("m") == [*after.mac_key("m"), *before.mac_key("m")]
    for junk in (f"key_file:{'*' * 40}", f"key_file:{b64encode(b'x' * 40).decode()}", line[:-9]):
        with pytest.raises(ValueError, match=r"no base64|no private key"):
            sealing_secrets(f"{NEW}\n{junk}", pem)


# --- tickets ----------------------------------------------------------------------------------

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)
TICKETS = st.builds(
    StepUpTicket,
    *[TEXTS] * 6,
    st.none() | TEXTS,
    st.builds(
        StepUpNeed,
        st.sampled_from([Method.ANY, Method.TOTP]),
        st.none() | st.integers(1, 10**6),
    ),
    st.integers(0, 2**40),
)


@given(ticket=TICKETS)
@unhurried
def test_a_ticket_opens_as_it_was_sealed(ticket: StepUpTicket) -> None:
    """Person, grant, client, server, tool, need and moment."""
    assert open_ticket(SEALER, seal_ticket(SEALER, ticket)) == ticket


@pytest.mark.parametrize(
    "value", [{}, {"issuer": "x"}, {"method": 99, "tool": None, "age": None, "at": 1}]
)
def test_half_a_ticket_is_none(value: dict[str, object]) -> None:
    """Nor is what was sealed for something else, or ended."""
    with pytest.raises(NotSealedError):
        open_ticket(SEALER, SEALER.seal("step-up-ticket", value, LIFETIME))
    with pytest.raises(NotSealedError):
        open_ticket(SEALER, SEALED)
