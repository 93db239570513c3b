"""The Redis scripts of the log-in, each atomic: it checks before it writes.

All keys of one call are of one deployment, so of one slot.
"""

from importlib.resources import files
from typing import Final

from authz.ledger.script import Script
from authz.ledger.script import run_script as run

__all__ = ["BEGIN", "END", "RENEW", "TAKE_CODE", "UNLOCK", "run"]


def _script(name: str) -> Script:
    return Script(files("authz.login.store").joinpath("lua", f"{name}.lua").read_text("ascii"))


TAKE_CODE: Final = _script("take_code")
BEGIN: Final = _script("begin_grant")
RENEW: Final = _script("renew_grant")
END: Final = _script("end_grant")
UNLOCK: Final = _script("unlock")
