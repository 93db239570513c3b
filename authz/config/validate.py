"""Validate plain values against the models, finding every fault at once.

Invariant: one fault hides no other (tests/config/test_validate.py). What is broken is removed and
the rest validated again, so that rules between values can be checked on what is whole; a finding
that rests on a broken value is dropped, because it could be false.
"""

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from authz.config.model import Config
from authz.config.problems import Fault, Path
from authz.config.pydantic_errors import explain
from authz.config.schema import example, schema_at

_GONE: Final = object()


@dataclass(frozen=True, slots=True)
class Validated:
    """Hold what could be validated.

    Attributes:
        config: the models, without what was broken; None where nothing could be read. It is for
            asking more questions, never for use, where there are faults.
        faults: what is wrong with single values.
        broken: the places that were taken out.
    """

    config: Config | None
    faults: tuple[Fault, ...]
    broken: tuple[Path, ...]

    def trusts(self, fault: Fault) -> bool:
        """Tell whether nothing that a finding rests on is broken."""
        return not any(
            _overlap(path, broken) for path in (fault.path, *fault.reads) for broken in self.broken
        )


def validate(data: object, unread: Iterable[Path] = ()) -> Validated:
    """Validate a document; `unread` are the places whose values were refused before."""
    data = deepcopy(data)
    broken = [taken for path in unread if (taken := _mend(data, path)) is not None]
    refused = tuple(broken)
    faults: tuple[Fault, ...] | None = None
    while True:
        try:
            config = Config.model_validate(data)
        except ValidationError as error:
            found = explain(error)
        else:
            return Validated(config, faults or (), tuple(broken))
        if faults is None:
            faults = tuple(
                fault for fault in found if not any(_overlap(fault.path, path) for path in refused)
            )
        mended = {path for fault in found if (path := _mend(data, fault.path)) is not None}
        if () in mended or mended <= set(broken):
            return Validated(None, faults, tuple(broken))
        broken += mended


def _mend(data: Any, path: Path) -> Path | None:
    """Take out what is broken, and tell what was; None where it is gone already.

    What must be there is replaced by its example. Of a list all is taken out, so that the indexes
    of other findings stay true. () says that the document itself is broken.
    """
    index = next((at for at, part in enumerate(path) if isinstance(part, int)), len(path))
    if index == 0:
        return ()
    *front, last = path[:index]
    for part in front:
        data = data.get(part) if isinstance(data, dict) else None
    if not isinstance(data, dict):
        return None
    if last in schema_at(path[: index - 1]).get("required", ()):
        data[last] = deepcopy(example(schema_at(path[:index])))
    elif data.pop(last, _GONE) is _GONE:
        return None
    return path[:index]


def _overlap(one: Path, other: Path) -> bool:
    """Tell whether one of two places holds the other."""
    length = min(len(one), len(other))
    return one[:length] == other[:length]
