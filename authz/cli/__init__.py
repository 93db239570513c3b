"""The command line: one module a command, loaded when it is asked for (tasks.py lists them).

What a script would use has `--json`. Nothing that is printed holds a secret.
"""

from authz.cli.main import main

__all__ = ["main"]
