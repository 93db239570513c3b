"""Python's garbage collector, told what kind of program this is.

Law: what is garbage is still found, only less often; memory stays flat (docs/performance.md).
"""

import gc
from typing import Final

# Objects made before a look at the youngest. The default, 700, is what ten decisions in flight
# make: they were looked at again and again while they waited for Redis.
_YOUNG: Final = 20_000
_OLDER: Final = 10


def calm() -> None:
    """Leave alone what is there for good, and look for garbage less often.

    To be called once, when the service is built: modules and the configuration are most of what
    there is, and hold nothing that will be thrown away.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _OLDER, _OLDER)
