"""Notations of single values."""

import limits
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from authz.config import value_types
from authz.config.endpoints import Tcp, Unix
from authz.config.problems import WrongValueError
from authz.config.value_types import Counted, CountedBy, Rate, duration
from authz.core.limits import Per

AGE = duration("1s", "1d", "5m")


def wrong(notation: value_types.Notation, value: object) -> str:
    with pytest.raises(WrongValueError) as caught:
        notation.read(value)
    return f"{caught.value.wrong}; {caught.value.right}"


@pytest.mark.parametrize(
    ("text", "seconds"), [("1s", 1), ("1500ms", 1.5), ("90m", 5400), ("24h", 86400), ("1d", 86400)]
)
def test_durations(text: str, seconds: float) -> None:
    """A duration is one number with one unit."""
    assert AGE.read(text) == seconds


@pytest.mark.parametrize("value", ["5", "5 m", "m", "-5m", "1h30m", "1.5h", "5M", "5m\n", 5, True])
def test_no_durations(value: object) -> None:
    """What has no unit, a blank, a sign, a fraction or a newline is no duration."""
    assert "is not a duration; write for example 5m" in wrong(AGE, value)


@pytest.mark.parametrize("value", ["0s", "999ms", "2d", "999999999d"])
def test_durations_out_of_range(value: str) -> None:
    """A duration outside of its field's range is answered with the range."""
    assert wrong(AGE, value) == f'"{value}" is out of range; write 1s to 1d'


@pytest.mark.parametrize(
    "text", ["localtime", "posixrules", "posix/UTC", "right/UTC", "europe/berlin", "../UTC", "UTC/"]
)
def test_what_is_no_zone_of_every_machine(text: str) -> None:
    """What a machine alone calls so is another zone on the next one, and another day."""
    said = f'"{text}" is not a time zone of the IANA database; write for example Europe/Berlin'
    assert wrong(value_types.TIME_ZONE, text) == said


@pytest.mark.parametrize("text", ["Europe/Berlin", "UTC", "Etc/GMT+3", "America/Indiana/Knox"])
def test_zones(text: str) -> None:
    """As the IANA database names them."""
    assert value_types.TIME_ZONE.read(text) == text


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("60/minute", Rate(60, 60)),
        ("60/minutes", Rate(60, 60)),
        ("60 per minute", Rate(60, 60)),
        ("10/2 minutes", Rate(10, 120)),
        ("10/2minutes", Rate(10, 120)),
        ("60/60 seconds", Rate(60, 60)),
        ("1000/day", Rate(1000, 86400)),
        ("1/month", Rate(1, 30 * 86400)),
    ],
)
def test_rates(text: str, rate: Rate) -> None:
    """A rate is a number over one window, in the notation of the limits library."""
    assert value_types.RATE.read(text) == rate


@pytest.mark.parametrize(
    "value",
    [
        "60/minit",
        "10/minute;5/second",
        "10/minute, 5/second",
        "1/0 minute",
        "1/00 minute",
        "-1/minute",
        "1.5/minute",
        "60/MINUTE",
        "1/year",
        "60/minute\n",
        " 60/minute",
        "9999999999999/minute",
        60,
        True,
        float("nan"),
        None,
        ["60/minute"],
    ],
)
def test_no_rates(value: object) -> None:
    """Two rates, no time, other letters or types are no rate, whatever limits makes of them."""
    assert wrong(value_types.RATE, value).endswith("is not a rate; write for example 60/minute")


@pytest.mark.parametrize("value", ["0/minute", "1000000001/minute", "1/32 day", "1/2 month"])
def test_rates_out_of_range(value: str) -> None:
    """A rate that admits nothing, anything, or looks back over more than 31 days is refused."""
    assert wrong(value_types.RATE, value)


@given(
    st.integers(1, 10**9),
    st.integers(1, 40),
    st.sampled_from(["second", "minute", "hour", "day", "minutes"]),
    st.sampled_from(["/", " per ", " / "]),
)
def test_rates_are_those_of_limits(quota: int, count: int, unit: str, joint: str) -> None:
    """What is accepted means what the limits library says, and its text means the same."""
    text = f"{quota}{joint}{count} {unit}"
    theirs = limits.parse(text)
    try:
        ours = value_types.RATE.read(text)
    except WrongValueError:
        assert theirs.get_expiry() > 31 * 86400
        return

    assert isinstance(ours, Rate)
    assert (theirs.amount, theirs.get_expiry()) == (ours.quota, ours.window)
    assert value_types.RATE.read(str(ours)) == ours


@pytest.mark.parametrize(("text", "size"), [("1KiB", 1024), ("1MiB", 1 << 20), ("16MiB", 16 << 20)])
def test_sizes(text: str, size: int) -> None:
    """A size is a number of KiB or MiB."""
    assert value_types.SIZE.read(text) == size


@pytest.mark.parametrize("value", ["0KiB", "17MiB", "1GiB", "1MB", "1024", 1024])
def test_no_sizes(value: object) -> None:
    """Other units, bare numbers, nothing and more than Envoy should buffer are no sizes."""
    assert wrong(value_types.SIZE, value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("127.0.0.1:9000", Tcp("127.0.0.1", 9000)),
        ("[::1]:9000", Tcp("::1", 9000)),
        ("unix:/run/a.sock", Unix("/run/a.sock")),
        ("0.0.0.0:0", Tcp("0.0.0.0", 0)),
    ],
)
def test_sockets(text: str, value: Tcp | Unix) -> None:
    """A socket is an IP address with a port, or a path; its text is what was written."""
    assert value_types.SOCKET.read(text) == value
    assert str(value) == text


@pytest.mark.parametrize(
    "value",
    [
        "unix:relative",
        "unix:/" + "a" * 107,
        "1.2.3:1",
        "[::1",
        "::1:80",
        "a.example.com:80",
        "999.0.0.1:80",
        80,
    ],
)
def test_no_sockets(value: object) -> None:
    """Names, relative or over-long paths and half addresses are no sockets."""
    assert "is not a Unix socket or an IP address with a port" in wrong(value_types.SOCKET, value)


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        (":80", "0.0.0.0:80"),
        ("*:80", "0.0.0.0:80"),
        ("80", "0.0.0.0:80"),
        ("localhost:80", "127.0.0.1:80"),
    ],
)
def test_listen_advice(value: str, advice: str) -> None:
    """Spellings of other programs are answered with ours."""
    assert wrong(value_types.LISTEN, value).endswith(f"write {advice}")


@pytest.mark.parametrize(
    ("notation", "good", "bad"),
    [
        (value_types.SERVER_NAME, "a-1_b", ["", "A", "-a", "a/b", "a.b", "a" * 64, "a\n", "ä"]),
        (value_types.CLIENT_ID, "https://x.example/c.json", ["", "a b", "a\n", "ä", "a" * 256]),
        (value_types.TOOL_PATTERN, "ns/read_*?.x:y", ["", "[ab]", "a b", 'a"', "a\\", "a\n", "é"]),
        (value_types.SCOPE, "mcp:files", ["", "a b", 'a"', "a\\", "a\n", "é"]),
        (value_types.LIMIT_NAME, "a.b-c_1", ["", "a:b", 'a"', "a b", "é"]),
        (value_types.FILE, "/run/x y", ["x", "./x", "/", "/a\nb", ""]),
        (value_types.GROUP, "Büro 2", ["", "a\nb", "a\x00"]),
    ],
)
def test_names(notation: value_types.Notation, good: str, bad: list[str]) -> None:
    """Names keep to characters that are safe where they go: paths, labels, headers, Redis."""
    assert notation.read(good) == good
    for text in bad:
        assert wrong(notation, text)


@pytest.mark.parametrize(
    "notation",
    [value for value in vars(value_types).values() if isinstance(value, value_types.Notation)],
    ids=lambda notation: notation.example,
)
def test_examples(notation: value_types.Notation) -> None:
    """Every example is right."""
    assert notation.read(notation.example) is not None


@pytest.mark.parametrize("per", Per)
def test_every_limit_dimension_can_be_written(per: Per) -> None:
    """`per` of authz.yaml takes each dimension: a word, or a list of words."""
    words = per.value.split(",")
    written = words if len(words) > 1 else words[0]
    if per is Per.CLAIM:
        read: Counted = TypeAdapter(CountedBy).validate_python({"claim": "tenant"})
        assert (read, str(read)) == (Counted(per, "tenant"), "claim=tenant")
        return

    assert TypeAdapter(CountedBy).validate_python(written) == Counted(per)
