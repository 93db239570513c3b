"""Command lines of pages and docs: whether they are understood, without running them."""

import click

from authz.cli.main import commands


def understand(line: str) -> None:
    """Parse what follows `authz`, and fail where it is not understood."""
    command: click.Command = commands
    context = click.Context(commands, info_name="authz")
    words = line.split()
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        name, found, words = command.resolve_command(context, words)
        assert found is not None
        command, context = found, click.Context(found, context, name)
    command.make_context(context.info_name, words)
