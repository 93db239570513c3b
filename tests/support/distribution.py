"""Which tests one process of xdist runs one after the other, and which of them begin first."""

from collections.abc import Mapping
from typing import Final

from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]

# Of the files that start programs, those that take longest: what begins late ends alone.
LONGEST: Final = (
    "server/test_worker_pool.py",
    "server/test_envoy_follow.py",
    "e2e/test_chromium.py",
    "server/test_drain.py",
    "server/test_service.py",
    "local/test_up.py",
    "server/test_redis_changes.py",
    "server/test_pyvoy.py",
    "server/test_transports.py",
    "e2e/test_lists_restart.py",
    "e2e/test_lists.py",
    "login/web/test_pages_chromium.py",
    "e2e/test_front_door_scenario.py",
)
# By session fixture of tests/e2e: the files that use it. Each starts seven processes; in one
# process of xdist they are started once.
TOGETHER: Final[Mapping[str, tuple[str, ...]]] = {
    "door": (
        "test_chromium.py",
        "test_approval.py",
        "test_connections.py",
        "test_ends_at_issuer.py",
        "test_front_door.py",
        "test_names.py",
        "test_slow_documents.py",
        "test_step_up.py",
        "test_typescript.py",
    ),
    "whole": ("test_whole.py", "test_doctor.py", "test_revoke.py"),
}
_UNIT_OF: Final = {
    f"tests/e2e/{name}": fixture for fixture, names in TOGETHER.items() for name in names
}


def unit(path: str) -> str:
    """Return what the tests of a file are distributed with: its name, or that of a fixture."""
    return _UNIT_OF.get(path, path)


class SharingScheduling(LoadFileScheduling):  # type: ignore[misc]
    """Give each file to one process, as `--dist loadfile`, and files that share a fixture too."""

    def _split_scope(self, nodeid: str) -> str:
        """Return what a test is distributed with: what xdist means its schedulers to override."""
        return unit(nodeid.partition("::")[0])
