"""Every reason has a remedy, and every field that one names is in authz.yaml."""

import pytest
from pydantic import BaseModel

from authz.config.model import (
    ClientConfig,
    Config,
    FrontDoorConfig,
    IntrospectionConfig,
    SecondFactorConfig,
    ServerConfig,
    ToolConfig,
)
from authz.core.reason import Reason
from authz.core.remediation import REMEDIATIONS, named

# What stands under a name that the operator chose, and in place of a word.
UNDER: dict[str, type[BaseModel]] = {
    "<server>": ServerConfig,
    "<client>": ClientConfig,
    "<pattern>": ToolConfig,
}
OPTIONAL: dict[str, type[BaseModel]] = {
    "second_factor": SecondFactorConfig,
    "introspection": IntrospectionConfig,
    "front_door": FrontDoorConfig,
}


def test_there_is_a_remedy_for_every_reason() -> None:
    """Whatever is refused can be explained."""
    assert set(REMEDIATIONS) == set(Reason)


@pytest.mark.parametrize(
    "field", sorted({field for remedy in REMEDIATIONS.values() for field in remedy.fields})
)
def test_every_field_is_one_of_the_configuration(field: str) -> None:
    """Nobody is sent to look for a field that is not there."""
    model: type[BaseModel] | None = Config
    for part in field.split("."):
        if part in UNDER:
            model = UNDER[part]
            continue
        assert model is not None
        assert part in model.model_fields
        inner = model.model_fields[part].annotation
        model = inner if isinstance(inner, type) and issubclass(inner, BaseModel) else None
        model = model or OPTIONAL.get(part)


def test_names_take_the_place_of_their_kind() -> None:
    """A field is told as it stands in this operator's file."""
    assert named("servers.<server>.groups", {"server": "files"}) == "servers.files.groups"
