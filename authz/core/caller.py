"""A principal as text, for the metadata that Envoy keeps between a request and its response.

Invariant: what is read is the principal that was written (tests/core/test_caller.py). The text is
trusted as the rest of that metadata is: authz alone writes it, and Envoy sends it nowhere else.
"""

import json
from dataclasses import fields
from typing import Any, Final

from authz.core.principal import LoginRecord, Principal
from authz.core.strict_json import loads

# The members that JSON has no type for.
_SETS: Final = ("scopes", "groups", "amr")


class CallerError(ValueError):
    """Say that a text is no principal of ours."""


def write_caller(principal: Principal) -> str:
    """Return a principal as a text in ASCII."""
    values = {each.name: getattr(principal, each.name) for each in fields(Principal)}
    login = principal.login
    if login is not None:
        record = {each.name: getattr(login, each.name) for each in fields(LoginRecord)}
        values["login"] = record | {"amr": sorted(login.amr)}
    for name in _SETS:
        values[name] = None if values[name] is None else sorted(values[name])
    return json.dumps(values, separators=(",", ":"))


def read_caller(text: str) -> Principal:
    """Return the principal of a text.

    Raises:
        CallerError: where it is none.
    """
    try:
        values: Any = loads(text.encode())
        login = values["login"]
        if login is not None:
            values["login"] = LoginRecord(**login | {"amr": frozenset(login["amr"])})
        for name in _SETS:
            values[name] = None if values[name] is None else frozenset(values[name])
        # A worker of before wrote no claims.
        claims = tuple((name, value) for name, value in values.get("claims", ()))
        return Principal(**values | {"audience": tuple(values["audience"]), "claims": claims})
    except (KeyError, TypeError, ValueError):
        raise CallerError("no principal") from None
