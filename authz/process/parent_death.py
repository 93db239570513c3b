"""Become another program, which the kernel kills when the process that started it is gone.

Run as a script: `python -I -S parent_death.py PARENT PROGRAM [ARGUMENT...]`. PROGRAM then has this
process id and no extra parent; however the parent went, the kernel sends SIGKILL (prctl(2)).

A script in place of `preexec_fn`: code between fork and exec may not take a lock, and Python
code always may.
"""

import ctypes
import os
import signal
import sys
from typing import Final

_PR_SET_PDEATHSIG: Final = 1  # prctl(2)
_CANNOT_TIE: Final = 125
_CANNOT_RUN: Final = 127
_NOT_IGNORED: Final = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGPIPE,
    signal.SIGXFSZ,
)


def main(parent: int, argv: list[str]) -> int:
    """Tie this process to its parent and become the program; return only where that failed.

    The kernel watches the parent's *thread* that started us (prctl(2)), so a thread that starts
    services must live as long as they do. Children of the program are not tied: one that starts
    its own must end them.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
        return _complain("cannot be tied to its parent", ctypes.get_errno(), _CANNOT_TIE)
    # The parent may have died before the line above; then nobody would ever be told.
    if os.getppid() != parent:
        return _CANNOT_TIE
    # Python ignores two, and a shell those of the keyboard for what it runs in the background;
    # what is ignored stays ignored over exec.
    for number in _NOT_IGNORED:
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(argv[0], argv)  # noqa: S606 - no shell is the point
    except OSError as error:
        return _complain(f"cannot run {argv[0]}", error.errno or 0, _CANNOT_RUN)


def _complain(words: str, number: int, status: int) -> int:
    sys.stderr.write(f"{words}: {os.strerror(number)}\n")
    return status


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
