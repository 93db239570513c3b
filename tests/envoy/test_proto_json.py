"""Messages as plain values: those that betterproto2 itself writes."""

from collections.abc import Sequence
from importlib import import_module
from pkgutil import iter_modules

import betterproto2
import pytest
from envoy_data_plane.envoy.config.core.v3 import (
    HeaderValueOption,
    HeaderValueOptionHeaderAppendAction,
    Metadata,
    TypedExtensionConfig,
)
from envoy_data_plane.envoy.config.overload.v3 import ThresholdTrigger
from envoy_data_plane.envoy.config.route.v3 import Route, RouteMatch
from envoy_data_plane.envoy.extensions.resource_monitors.fixed_heap.v3 import FixedHeapConfig
from envoy_data_plane.envoy.type.v3 import HttpStatus, StatusCode
from envoy_data_plane.google.protobuf import Any, BytesValue, Struct, Value

from authz.envoy import render
from authz.envoy.render import bootstrap, proto_json
from authz.envoy.render.listener import certificate
from authz.envoy.render.proto_json import pack, to_plain
from authz.envoy.render.settings import envoy_settings
from tests.envoy.test_render import FRONT_DOOR, SOMEWHERE, configuration

SNAKE = betterproto2.Casing.SNAKE
PACKING = [
    each
    for each in map(
        import_module, (f"{render.__name__}.{it.name}" for it in iter_modules(render.__path__))
    )
    if hasattr(each, "pack") and each is not proto_json
]


def rendered(text: str) -> Sequence[betterproto2.Message]:
    settings = envoy_settings(configuration(text), SOMEWHERE)
    found: list[betterproto2.Message] = [bootstrap.bootstrap(settings, SOMEWHERE)]
    if settings.gateway.tls is not None:
        found.append(certificate(settings.gateway.tls))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("text", ["", FRONT_DOOR], ids=["example", "front door"])
def test_the_whole_configuration_is_what_betterproto2_writes(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With every packed message read back from its bytes, as betterproto2 does it."""
    plain = [to_plain(each) for each in rendered(text)]

    assert len(PACKING) > 10
    for module in PACKING:
        monkeypatch.setattr(module, "pack", Any.pack)
    assert plain == [each.to_dict(casing=SNAKE) for each in rendered(text)]


@pytest.mark.parametrize(
    "message",
    [
        HttpStatus(),
        HttpStatus(code=StatusCode(403)),
        FixedHeapConfig(max_heap_size_bytes=1 << 60),
        HeaderValueOption(
            append_action=HeaderValueOptionHeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD,
            keep_empty_value=True,
        ),
        ThresholdTrigger(0.5),
        Metadata(
            filter_metadata={
                "a": Struct(fields={"b": Value(number_value=1.0), "c": Value(string_value="")})
            },
        ),
        Route(name="", match=RouteMatch(prefix="")),
        Route(match=RouteMatch(prefix="/", case_sensitive=False)),
    ],
    ids=lambda each: type(each).__name__,
)
def test_a_message_is_what_betterproto2_writes(message: betterproto2.Message) -> None:
    """Defaults are left out, 64 bits are text, enums are names, wrapped values are bare."""
    assert to_plain(message) == message.to_dict(casing=SNAKE)


@pytest.mark.parametrize(
    "message", [HttpStatus(code=StatusCode(200)), Struct(fields={}), BytesValue(value=b"1")]
)
def test_a_packed_message_is_what_an_any_of_its_bytes_is(message: betterproto2.Message) -> None:
    """A type with a form of its own stands under `value`."""
    assert to_plain(pack(message)) == Any.pack(message).to_dict(casing=SNAKE)


def test_a_packed_message_has_no_bytes_that_could_lose_it() -> None:
    """Whoever packs something around it into bytes would have the defaults of what is inside."""
    with pytest.raises(TypeError, match="use `pack`"):
        Any.pack(TypedExtensionConfig(name="a", typed_config=pack(HttpStatus())))


def test_what_is_no_mapping_is_refused() -> None:
    """A file begins with a mapping; an infinite number would be text."""
    with pytest.raises(TypeError, match="BytesValue"):
        to_plain(BytesValue(value=b"1"))
    with pytest.raises(ValueError, match="infinite"):
        to_plain(ThresholdTrigger(float("inf")))
