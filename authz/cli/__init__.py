"""The command line: a room with one file a command.

Law: exit status 0 is done, 1 is failed, 2 is asked wrongly (arguments or authz.yaml). What a script
would use has `--json`. Nothing that is printed holds a secret.
"""

from authz.cli.main import main

__all__ = ["main"]
