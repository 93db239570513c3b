"""What real clients do at the gateway, row by row; docs/clients.md tells it to people."""

import os

import pytest

from tests.clients.clients import CLIENTS, ClientUnderTest
from tests.clients.record import recorded, versions
from tests.clients.rows import ROWS, ClientNotConnectedError, Outcome, Visit, run

RECORDING = os.environ.get("AUTHZ_RECORD") == "1"


@pytest.mark.parametrize("row", list(ROWS))
def test_client(row: str, client: ClientUnderTest, visit: Visit, seen: dict[str, Outcome]) -> None:
    """A client does not do less than docs/clients.json says."""
    try:
        outcome = run(row, visit)
    except ClientNotConnectedError as error:
        outcome = Outcome(works=False, seen=f"it does not get in: {error}")
    seen[row] = outcome
    if not RECORDING:
        assert outcome.works >= recorded()[client.name][row].works, outcome.seen


@pytest.mark.skipif(RECORDING, reason="docs/clients.json is being written")
def test_every_client_is_recorded_with_its_version_and_its_reasons() -> None:
    """docs/clients.json is of the locked versions, and says of what does not work why."""
    assert versions() == {name: client.version() for name, client in CLIENTS.items()}
    for name, rows in recorded().items():
        assert list(rows) == list(ROWS)
        unexplained = {row for row, was in rows.items() if not was.works}
        assert unexplained <= set(CLIENTS[name].why), name
