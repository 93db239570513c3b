"""Encoding: a denial is never OK, an allow says so, and no header splits."""

import json
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from authz.core.answers import HttpAnswer, UpstreamChanges
from authz.core.reason import Reason
from authz.envoy import codec
from authz.envoy.pb.core_pb2 import HeaderValueOption
from authz.envoy.pb.external_auth_pb2 import CheckResponse

unhurried = settings(deadline=None)  # a busy machine is no failure


def denied(answer: HttpAnswer) -> CheckResponse:
    return CheckResponse.FromString(codec.encode_deny(answer))


@unhurried
@given(st.integers(200, 599))
def test_a_denial_is_never_ok(status: int) -> None:
    """Whatever its HTTP status, a denial has a gRPC status other than OK and a denied_response."""
    response = denied(HttpAnswer(status, (), b""))
    assert response.status.code in {3, 7, 8, 14, 16}
    assert response.WhichOneof("http_response") == "denied_response"
    assert response.denied_response.status.code == status


@pytest.mark.parametrize(
    ("status", "code"),
    [(200, 7), (400, 3), (401, 16), (403, 7), (404, 7), (413, 3), (415, 3), (429, 8), (503, 14)],
)
def test_denials_have_the_code_of_their_status(status: int, code: int) -> None:
    """The gRPC code tells the kind of denial."""
    assert denied(HttpAnswer(status, (), b"")).status.code == code


@pytest.mark.parametrize("reason", Reason, ids=lambda reason: reason.label)
def test_every_reason_can_be_answered(reason: Reason) -> None:
    """No row of the table has a status that the codec refuses."""
    assert denied(HttpAnswer(reason.row.status, (), b"")).status.code != 0


@pytest.mark.parametrize("status", [-1, 0, 100, 199, 600, 999])
def test_a_status_that_ends_no_exchange_is_an_error(status: int) -> None:
    """Envoy would send 0 as 403 and 999 as it is: neither was meant."""
    with pytest.raises(ValueError, match="final HTTP status"):
        codec.encode_deny(HttpAnswer(status, (), b""))


@unhurried
@given(st.binary(max_size=30))
@example(b"\xff")
def test_a_body_is_utf8_or_an_error(body: bytes) -> None:
    """The body of an answer arrives byte for byte, or ValueError says that it cannot."""
    try:
        body.decode()
    except UnicodeDecodeError:
        with pytest.raises(ValueError, match="utf-8"):
            codec.encode_deny(HttpAnswer(401, (), body))
    else:
        assert denied(HttpAnswer(401, (), body)).denied_response.body.encode() == body


def test_an_allow_always_has_a_status() -> None:
    """An allow without any change still says OK in words of its own."""
    raw = codec.encode_allow(UpstreamChanges((), (), ()))
    response = CheckResponse.FromString(raw)
    assert raw != b""
    assert response.HasField("status")
    assert response.status.code == 0


@pytest.mark.attack("stream-outlives-token")
@given(st.integers(1, 2**40))
def test_an_allow_says_how_long_the_exchange_lasts(milliseconds: int) -> None:
    """In the header that Envoy's router takes for its timeout, beside the headers that are set."""
    raw = codec.encode_allow(UpstreamChanges((("x-a", "1"),), lasts=milliseconds))
    options = CheckResponse.FromString(raw).ok_response.headers

    assert [(each.header.key, each.header.value) for each in options] == [
        ("x-a", "1"), ("x-envoy-upstream-rq-timeout-ms", str(milliseconds)),
    ]  # fmt: skip
    assert {each.append_action for each in options} == {
        HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
    }


def test_no_time_is_never_said_to_envoy() -> None:
    """For Envoy 0 is no bound at all."""
    assert b"timeout" not in codec.encode_allow(UpstreamChanges((), lasts=0))
    with pytest.raises(ValueError, match="no time"):
        codec.encode_allow(UpstreamChanges((), lasts=-1))


def every_option(response: CheckResponse) -> list[HeaderValueOption]:
    denial, allowed = response.denied_response, response.ok_response
    return [*denial.headers, *allowed.headers, *allowed.response_headers_to_add]


def encode_every_way(name: str, value: str) -> list[Callable[[], bytes]]:
    pair = ((name, value),)
    return [
        lambda: codec.encode_deny(HttpAnswer(401, pair, b"")),
        lambda: codec.encode_allow(UpstreamChanges(pair)),
        lambda: codec.encode_allow(UpstreamChanges((), (), pair)),
    ]


NAMES = st.one_of(st.text(max_size=6), st.from_regex(r"[a-zA-Z-]{1,8}", fullmatch=True))
VALUES = st.one_of(st.text(max_size=8), st.text(st.characters(max_codepoint=130), max_size=8))


@pytest.mark.attack("header-splitting")
@unhurried
@given(NAMES, VALUES)
@example("x-authz-subject", "alice\r\nx-authz-groups: admin")
@example("x-authz-subject", "alice\n")
@example("x-authz-subject", "alice\0")
@example("x-authz-subject", "al\u0130ce")
@example("x-authz-subject", "alice\x7f")
@example("x-authz-subject", " alice")
@example("x-authz-subject", "alice ")
@example("x-authz-subject\r\nx-authz-groups", "admin")
@example("x-authz-subject\n", "admin")
@example("", "value")
@example(":path", "/other")
@example("\u212aey", "value")
def test_no_header_splits(name: str, value: str) -> None:
    """A header goes out as the one header that was meant, or ValueError says that it cannot."""
    for encode in encode_every_way(name, value):
        try:
            raw = encode()
        except ValueError:
            continue
        (option,) = every_option(CheckResponse.FromString(raw))
        assert (option.header.key, option.header.value) == (name.lower(), value)
        assert name.isascii()
        assert option.header.raw_value == b""  # Envoy ignores it in answers
        assert set(option.header.key) <= set("abcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+.^`|~-")
        assert all(" " <= character <= "~" for character in value)
        assert value == value.strip()


@unhurried
@given(VALUES.filter(lambda value: value.isascii() and value.isprintable()))
def test_what_http_can_carry_is_carried(value: str) -> None:
    """The strictness refuses nothing that is printable ASCII without blanks at its ends."""
    for encode in encode_every_way("X-Name", value.strip()):
        (option,) = every_option(CheckResponse.FromString(encode()))
        assert option.header.value == value.strip()


@pytest.mark.attack("header-splitting")
@unhurried
@given(NAMES)
@example("cookie\r\n")
@example("")
def test_no_odd_name_is_removed(name: str) -> None:
    """A name to remove is a header name, or ValueError says that it is none."""
    try:
        raw = codec.encode_allow(UpstreamChanges((), (name,)))
    except ValueError:
        return
    removed = CheckResponse.FromString(raw).ok_response.headers_to_remove
    assert removed == [name.lower()]
    assert name.isascii()
    assert not set(name) & set("_:\r\n\0 ")


@pytest.mark.attack("identity-headers-spoofed")
@unhurried
@given(st.lists(st.sampled_from(["x-a", "x-b", "x-c"]), unique=True))
def test_every_header_takes_the_place_of_others(names: list[str]) -> None:
    """No header of ours is ever added beside one that the client or the upstream sent."""
    headers = tuple((name, "v") for name in names)
    for raw in (
        codec.encode_deny(HttpAnswer(401, headers, b"")),
        codec.encode_allow(UpstreamChanges(headers, (), headers)),
    ):
        for option in every_option(CheckResponse.FromString(raw)):
            assert option.append_action == HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD


@pytest.mark.parametrize(
    "upstream",
    [
        pytest.param(UpstreamChanges((("x-a", "1"), ("X-A", "2"))), id="set-twice"),
        pytest.param(UpstreamChanges((("X-A", "1"),), ("x-a",)), id="set-and-removed"),
        pytest.param(UpstreamChanges((("x-a", "1"),), ("X-a",)), id="set-and-removed-other-case"),
        pytest.param(UpstreamChanges((("host", "evil.example"),)), id="host"),
        pytest.param(UpstreamChanges((), (), (("x-a", "1"), ("x-a", "2"))), id="answered-twice"),
    ],
)
def test_contradictions_are_errors(upstream: UpstreamChanges) -> None:
    """What Envoy would silently resolve in some way is not sent."""
    with pytest.raises(ValueError, match="header"):
        codec.encode_allow(upstream)


def test_a_header_cannot_be_answered_twice() -> None:
    """Of two headers of one name in a denial only the last would arrive."""
    with pytest.raises(ValueError, match="twice"):
        codec.encode_deny(HttpAnswer(401, (("a", "1"), ("A", "2")), b""))


def test_the_fallback_denies_in_json_rpc() -> None:
    """What is sent when anything raises is a 503 that MCP clients can show."""
    response = CheckResponse.FromString(codec.FALLBACK_DENY)
    assert response.status.code == 14
    assert response.WhichOneof("http_response") == "denied_response"
    assert response.denied_response.status.code == 503
    headers = {option.header.key: option.header.value for option in every_option(response)}
    assert headers["content-type"] == "application/json-rpc"
    assert int(headers["retry-after"]) > 0
    body = json.loads(response.denied_response.body)
    assert (body["jsonrpc"], body["id"]) == ("2.0", "")
    assert body["error"]["code"] == Reason.INTERNAL.row.code


@unhurried
@given(
    st.lists(st.tuples(st.sampled_from(["x-a", "x-b", "x-c"]), st.text("ab:/ ", max_size=300))),
    st.sets(st.sampled_from(["cookie", "authorization", "x-d"])),
    st.lists(st.tuples(st.sampled_from(["r-1", "r-2"]), st.text("ab", max_size=300))),
)
def test_an_allow_is_what_protobuf_itself_would_write(
    given_headers: list[tuple[str, str]], removed: set[str], told: list[tuple[str, str]]
) -> None:
    """Written in two parts, one of them known already: read back, it is one whole message."""
    sets = {name: value.strip() for name, value in given_headers}
    response = dict(told)
    whole = CheckResponse()
    whole.status.code = 0
    allowed = whole.ok_response
    allowed.SetInParent()
    for options, headers in (
        (allowed.headers, sets),
        (allowed.response_headers_to_add, response),
    ):
        for name, value in headers.items():
            option = options.add()
            option.append_action = HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
            option.header.key, option.header.value = name, value
    allowed.headers_to_remove.extend(sorted(removed))

    for _ in range(2):
        raw = codec.encode_allow(
            UpstreamChanges(tuple(sets.items()), tuple(sorted(removed)), tuple(response.items()))
        )
        assert CheckResponse.FromString(raw) == whole
        assert raw.startswith(b"\n\x00\x1a")


@unhurried
@given(
    st.lists(
        st.tuples(st.sampled_from(["id", "form", "request_id"]), st.text(max_size=300)),
        unique_by=lambda pair: pair[0],
    )
)
def test_metadata_is_what_protobuf_itself_would_read(values: list[tuple[str, str]]) -> None:
    """The hand-written Struct of an allow says each text under its name, whatever it holds."""
    raw = codec.encode_allow(UpstreamChanges((("x-a", "1"),), metadata=tuple(values)))
    response = CheckResponse.FromString(raw)

    assert response.HasField("ok_response")
    assert response.status.code == 0
    found = response.dynamic_metadata.fields
    assert {name: found[name].string_value for name in found} == dict(values)


@pytest.mark.parametrize("reason", Reason, ids=lambda reason: reason.label)
def test_a_denial_tells_envoy_its_reason(reason: Reason) -> None:
    """The access log has it whatever the status is."""
    raw = codec.encode_deny(HttpAnswer(200, (), b""), reason.label)
    fields = CheckResponse.FromString(raw).dynamic_metadata.fields

    assert fields["reason"].string_value == reason.label
