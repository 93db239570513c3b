"""What docs/clients.json holds is told as words."""

from tests.clients.record import DOCS
from tests.clients.rows import times


def test_once_is_not_1_times() -> None:
    """One is said as one, here and in what was recorded."""
    assert [times(opened) for opened in (0, 1, 2)] == [
        "0 times in the browser",
        "once in the browser",
        "2 times in the browser",
    ]
    assert '"1 times' not in DOCS.read_text("utf-8")
