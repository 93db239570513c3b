"""Find what is wrong between values.

An error: the service could not do what the file says, or would do what nobody can have meant. A
warning: it does exactly what the file says, and a person should look again.
"""

from authz.config.lint import (
    deployment,
    front_door,
    notify,
    pages,
    rules,
    satisfiability,
    telemetry,
    tokens,
)
from authz.config.model import Config
from authz.config.problems import Fault


def lint(config: Config) -> list[Fault]:
    """Return every fault between values."""
    modules = (deployment, front_door, rules, pages, tokens, satisfiability, telemetry, notify)
    return [fault for module in modules for check in module.CHECKS for fault in check(config)]
