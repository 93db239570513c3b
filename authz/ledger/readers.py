"""Whether a service reads the revocations that a command has written.

Each worker leaves a mark with every reading of the revocations (authz.ledger.data_loss). Its time
to live tells when it was left.
"""

from typing import Final

from authz.ledger.data_loss import MARK_LIFETIME_MS
from authz.ledger.keys import RedisKeys
from authz.ledger.login_records import Command, scan

# Seconds without a reading after which no worker is taken to read here: twelve readings.
QUIET: Final = 60.0


async def seconds_since_reading(command: Command, keys: RedisKeys) -> float | None:
    """Return how long ago a worker read the revocations last; None where no mark is left.

    Raises:
        UnavailableError: where Redis did not answer, or does not let its user look.
    """
    newest = -1
    async for found in scan(command, keys.mark("*")):
        for key in found:
            newest = max(newest, int(await command("PTTL", key)))
    return None if newest < 0 else max(MARK_LIFETIME_MS - newest, 0) / 1000
