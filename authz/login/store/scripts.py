"""The Redis scripts of the log-in, each atomic: it checks before it writes.

All keys of one call are of one deployment, so of one slot.
"""

from typing import Final

from authz.ledger.script import Script, load_script


def _script(name: str) -> Script:
    return load_script("authz.login.store", "lua", f"{name}.lua")


TAKE_CODE: Final = _script("take_code")
BEGIN: Final = _script("begin_grant")
RENEW: Final = _script("renew_grant")
END: Final = _script("end_grant")
UNLOCK: Final = _script("unlock")
REPLACE: Final = _script("replace")
