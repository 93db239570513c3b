"""Settings that no reload changes, and the program that has to be started anew for each."""

from collections.abc import Iterator
from functools import reduce
from typing import Final

from authz.config.model import Config

# The programs, by what starts them.
SERVE: Final = "authz serve"
PAGES: Final = "authz pages"
_OF_SERVE: Final = (
    "service.check",
    "service.workers",
    "service.transport",
    "telemetry.metrics",
    "telemetry.log",
    "telemetry.otlp",
    "gateway.max_body",
)
_OF_PAGES: Final = ("service.pages", "telemetry.pages_metrics", "telemetry.log", "telemetry.otlp")


def restarts_of_serve(old: Config, new: Config) -> list[str]:
    """Return what `authz serve` has to be started anew for, in words."""
    return list(_words(SERVE, _OF_SERVE, old, new))


def restarts_of_pages(old: Config, new: Config) -> list[str]:
    """Return what `authz pages` has to be started anew for, in words."""
    return list(_words(PAGES, _OF_PAGES, old, new))


def _words(program: str, fields: tuple[str, ...], old: Config, new: Config) -> Iterator[str]:
    for field in fields:
        if _value(old, field) != _value(new, field):
            yield f"{field} has changed: restart {program}, which keeps the old value till then"


def _value(config: Config, field: str) -> object:
    return reduce(getattr, field.split("."), config)
