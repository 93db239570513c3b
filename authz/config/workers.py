"""Where each worker answers Check, told from the one address of `service.check`.

Law: one worker has exactly that address; of several each has one of its own, so that Envoy can
choose between them request by request, and see the health of each.
"""

from pathlib import PurePosixPath
from typing import TypeVar

from authz.config.value_types import Tcp, Unix

At = TypeVar("At", Tcp, Unix, Tcp | Unix)


def places(check: At, workers: int) -> tuple[At, ...]:
    """Return the address of every worker, in their order.

    Args:
        check: `service.check`, or what stands in its place.
        workers: how many there are.

    Returns:
        Of `127.0.0.1:9001` the ports 9001, 9002 and so on; of `unix:/x/check.sock` the sockets
        `/x/check-0.sock`, `/x/check-1.sock` and so on.
    """
    if workers == 1:
        return (check,)
    if isinstance(check, Tcp):
        return tuple(Tcp(check.host, check.port + number) for number in range(workers))
    path = PurePosixPath(check.path)
    names = (f"{path.stem}-{number}{path.suffix}" for number in range(workers))
    return tuple(Unix(str(path.with_name(name))) for name in names)
