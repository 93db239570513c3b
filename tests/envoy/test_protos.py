"""The stubs: current, in nobody's way, and numbered as Envoy numbers them."""

import importlib
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from authz.envoy import codec, list_codec
from authz.envoy.pb import (
    POOL,
    core_pb2,
    external_auth_pb2,
    external_processor_pb2,
    health_pb2,
    http_status_pb2,
    status_pb2,
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # envoy-data-plane is older than its pydantic
    from envoy_data_plane.envoy.service.auth import v3 as envoy_auth
    from envoy_data_plane.envoy.service.ext_proc import v3 as envoy_ext_proc

official_health: Any = importlib.import_module("grpc_health.v1.health_pb2")
ROOT = Path(__file__).parent.parent.parent
FILES = (core_pb2, external_auth_pb2, external_processor_pb2, http_status_pb2, status_pb2)
TYPES = {
    FieldDescriptor.TYPE_STRING: "string",
    FieldDescriptor.TYPE_BYTES: "bytes",
    FieldDescriptor.TYPE_INT32: "int32",
    FieldDescriptor.TYPE_INT64: "int64",
    FieldDescriptor.TYPE_UINT32: "uint32",
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_ENUM: "enum",
    FieldDescriptor.TYPE_MESSAGE: "message",
}


def protos(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(root / "tools" / "protos.py"), *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)


def test_stubs_are_current() -> None:
    """The stubs in the repository are what protos/ makes."""
    done = protos(ROOT, "--check")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_a_changed_proto_makes_the_check_red(tmp_path: Path) -> None:
    """A number changed in protos/, or a stub left over, is named by --check and mended without."""
    for part in ("protos", "tools", "authz/envoy/pb"):
        shutil.copytree(ROOT / part, tmp_path / part)
    health = tmp_path / "protos" / "health.proto"
    health.write_text(health.read_text().replace("string service = 1;", "string service = 2;"))
    (tmp_path / "authz" / "envoy" / "pb" / "old_pb2.py").write_text("")
    red = protos(tmp_path, "--check")
    assert red.returncode == 1
    assert [line.split()[0] for line in red.stdout.splitlines()] == [
        "authz/envoy/pb/health_pb2.py",
        "authz/envoy/pb/old_pb2.py",
    ]
    assert protos(tmp_path).returncode == 0
    assert protos(tmp_path, "--check").returncode == 0


def test_unknown_arguments_change_nothing() -> None:
    """A misspelt --check does not write."""
    assert protos(ROOT, "--chekc").returncode == 2


def test_stubs_stay_out_of_the_default_pool() -> None:
    """Other packages' stubs of the same messages load before and after ours."""
    program = (
        "from grpc_health.v1 import health_pb2 as first\n"
        "from authz.envoy.pb import health_pb2 as ours, external_auth_pb2\n"
        "from google.protobuf import descriptor_pb2, descriptor_pool\n"
        "other = descriptor_pb2.FileDescriptorProto()\n"
        "external_auth_pb2.DESCRIPTOR.CopyToProto(other)\n"
        "del other.dependency[:], other.message_type[:], other.service[:]\n"
        "other.message_type.add(name='CheckRequest')\n"
        "descriptor_pool.Default().Add(other)\n"
        "assert first.HealthCheckRequest is not ours.HealthCheckRequest\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT, timeout=60)


def pairs(ours: Descriptor, theirs: Any) -> Iterator[tuple[Descriptor, Any]]:
    """Yield our message with Envoy's, and so on for every message inside."""
    yield ours, theirs
    for field in ours.fields:
        inner = field.message_type
        if inner is not None and not is_map(field) and inner.file.package != "google.protobuf":
            yield from pairs(inner, theirs._betterproto.cls_by_field[field.name])


def is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


ROOTS = (
    (external_auth_pb2.CheckRequest.DESCRIPTOR, envoy_auth.CheckRequest),
    (external_auth_pb2.CheckResponse.DESCRIPTOR, envoy_auth.CheckResponse),
    (external_processor_pb2.ProcessingRequest.DESCRIPTOR, envoy_ext_proc.ProcessingRequest),
    (external_processor_pb2.ProcessingResponse.DESCRIPTOR, envoy_ext_proc.ProcessingResponse),
)
MESSAGES = {ours.full_name: (ours, theirs) for root in ROOTS for ours, theirs in pairs(*root)}
FIELDS = [
    pytest.param(field, theirs, id=f"{name}.{field.name}")
    for name, (ours, theirs) in MESSAGES.items()
    for field in ours.fields
]


@pytest.mark.parametrize(("field", "theirs"), FIELDS)
def test_fields_have_envoys_number_and_type(field: FieldDescriptor, theirs: Any) -> None:
    """A field has the number, type, multiplicity and oneof that Envoy gives it."""
    meta = theirs._betterproto.meta_by_field_name[field.name]
    group = field.containing_oneof.name if field.containing_oneof else None
    if is_map(field):
        assert field.message_type is not None
        key, value = (TYPES[part.type] for part in field.message_type.fields)
        ours: tuple[object, ...] = (field.number, "map", False, group, (key, value))
        of = (meta.map_meta[0].proto_type, meta.map_meta[1].proto_type)
    else:
        ours = (field.number, TYPES[field.type], field.is_repeated, group, None)
        of = None
    assert ours == (meta.number, meta.proto_type, meta.repeated, meta.group, of)


@pytest.mark.parametrize(("ours", "theirs"), MESSAGES.values(), ids=MESSAGES)
def test_messages_have_envoys_name(ours: Descriptor, theirs: Any) -> None:
    """A message has Envoy's full name; theirs writes a nested one in one word."""
    package = ours.file.package
    word = ours.full_name.removeprefix(f"{package}.").replace(".", "")
    module = theirs.__module__.removeprefix("envoy_data_plane.")
    assert (package, word.lower()) == (module, theirs.__name__.lower())


def test_every_message_of_ours_was_compared() -> None:
    """No message in protos/ escapes the comparison with Envoy's."""
    defined = {
        inner.full_name
        for file in FILES
        for message in file.DESCRIPTOR.message_types_by_name.values()
        for inner in (message, *message.nested_types)
        if not inner.GetOptions().map_entry
    }
    assert defined == set(MESSAGES)


ENUMS = {
    field.enum_type.full_name: (field.enum_type, theirs._betterproto.cls_by_field[field.name])
    for ours, theirs in MESSAGES.values()
    for field in ours.fields
    if field.enum_type is not None
}


@pytest.mark.parametrize(("ours", "theirs"), ENUMS.values(), ids=ENUMS)
def test_enums_have_envoys_numbers(ours: Any, theirs: type[IntEnum]) -> None:
    """A member of an enum has the number that Envoy gives it."""
    expected = {member.name: member.value for member in theirs}
    assert {value.name: value.number for value in ours.values}.items() <= expected.items()


def test_the_path_of_the_check_is_envoys() -> None:
    """Envoy calls the path at which we answer."""
    service = POOL.FindServiceByName(codec.AUTHORIZATION)
    paths = {f"/{service.full_name}/{method}" for method in service.methods_by_name}
    assert paths == set(envoy_auth.AuthorizationBase().__mapping__())
    assert paths == {"/envoy.service.auth.v3.Authorization/Check"}


def test_the_path_of_the_processor_is_envoys() -> None:
    """Envoy opens its streams of responses at the path at which we answer."""
    service = POOL.FindServiceByName(list_codec.PROCESSOR)
    paths = {f"/{service.full_name}/{method}" for method in service.methods_by_name}
    assert paths == set(envoy_ext_proc.ExternalProcessorBase().__mapping__())


def test_health_is_the_official_protocol() -> None:
    """Health has the official names, numbers and kinds of call; List alone is not offered."""
    ours = POOL.FindServiceByName(codec.HEALTH)
    theirs = official_health.DESCRIPTOR.services_by_name["Health"]
    assert ours.full_name == theirs.full_name == "grpc.health.v1.Health"
    assert set(ours.methods_by_name) == {"Check", "Watch"}
    for name, method in ours.methods_by_name.items():
        other = theirs.methods_by_name[name]
        for kind in ("input_type", "output_type"):
            mine, official = getattr(method, kind), getattr(other, kind)
            assert mine.full_name == official.full_name
            assert shape(mine) == shape(official)
        streams = (method.client_streaming, method.server_streaming)
        assert streams == (other.client_streaming, other.server_streaming)


def shape(message: Descriptor) -> list[tuple[object, ...]]:
    return [(field.name, field.number, field.type, enum_of(field)) for field in message.fields]


def enum_of(field: FieldDescriptor) -> dict[str, int]:
    values = field.enum_type.values if field.enum_type is not None else ()
    return {value.name: value.number for value in values}


@pytest.mark.parametrize("serving", [True, False])
def test_health_answers_are_read_by_the_official_stubs(serving: bool) -> None:
    """An answer of ours says the same to the official client."""
    answer = official_health.HealthCheckResponse.FromString(codec.encode_health(serving=serving))
    expected = official_health.HealthCheckResponse.SERVING
    assert (answer.status == expected) is serving
    assert answer.status != official_health.HealthCheckResponse.UNKNOWN
    assert health_pb2.HealthCheckRequest(service="a").SerializeToString() == b"\n\x01a"
