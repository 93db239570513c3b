"""The command line: commands that are loaded when they are asked for, and how each ends.

Invariant: exit status 0 is done, 1 is failed, 2 is asked wrongly (arguments or authz.yaml); the
value of an option or argument that a command does not have, which may be a secret in the wrong
place, is not repeated in an error (tests/cli/test_mistakes.py).
"""

import os
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Final

import click
from click.shell_completion import CompletionItem, shell_complete

from authz import __version__
from authz.cli.common import (
    FAILED,
    WRONG,
    CommandError,
    CommandGroup,
    OutOfReachError,
    describe_os_error,
    keep_words,
    nearest,
    print_problems,
    wants_json,
)
from authz.cli.tasks import COMMANDS, Task
from authz.config.problems import ConfigError

_COMPLETE: Final = "_AUTHZ_COMPLETE"
_ABOUT: Final = "An Envoy ext_authz sidecar for MCP servers behind Authelia."
_EPILOG: Final = """\
`authz` alone shows an example of each. Completion for bash (zsh and fish likewise):
  eval "$(_AUTHZ_COMPLETE=bash_source authz)"

exit status: 0 done, 1 failed, 2 asked wrongly (arguments or authz.yaml)
"""


class _Commands(CommandGroup):
    """Know every command by its entry, and import the module of one only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, task by task."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"authz.cli.{cmd_name.replace('-', '_')}")
        found: click.Command = module.run
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands under their tasks."""
        del ctx
        widest = max(map(len, COMMANDS))
        for task in Task:
            entries = [(name, each) for name, each in COMMANDS.items() if each.task is task]
            with formatter.section(task.value):
                formatter.write_dl([(name.ljust(widest), each.summary) for name, each in entries])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete names without importing a command."""
        names = [name for name in COMMANDS if name.startswith(incomplete)]
        return [
            *(CompletionItem(name, help=COMMANDS[name].summary) for name in names),
            *click.Command.shell_complete(self, ctx, incomplete),
        ]


@click.group(
    "authz",
    cls=_Commands,
    help=_ABOUT,
    epilog=_EPILOG,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, message="authz %(version)s")
@click.pass_context
def commands(ctx: click.Context) -> int:
    """Show the tasks where no command is named."""
    if ctx.invoked_subcommand is None:
        print("\n".join(_tasks()), file=sys.stderr)
    return WRONG


def _tasks() -> Iterator[str]:
    yield _ABOUT
    for task in Task:
        yield f"\n{task.value}:"
        for each in COMMANDS.values():
            if each.task is task:
                yield f"  {each.example}"
                yield f"      {each.summary}"
    yield "\nauthz --help lists the commands; authz COMMAND --help has options and examples."


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    if instruction := os.environ.get(_COMPLETE):
        sys.exit(shell_complete(commands, {}, "authz", _COMPLETE, instruction))
    words = list(sys.argv[1:] if argv is None else argv)
    context = click.Context(commands)
    try:
        with commands.make_context("authz", words) as context:
            keep_words(context, words)
            status: int = commands.invoke(context)
            return status
    except click.exceptions.Exit as done:  # after --help or --version
        sys.exit(done.exit_code)
    except click.UsageError as error:
        _print_usage_error(error)
        sys.exit(WRONG)
    except CommandError as error:
        return _print_command_error(error, context)
    except ConfigError as error:
        return _print_config_error(error, context)
    except BrokenPipeError:
        # Whoever read us has seen enough; without this Python complains at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (KeyboardInterrupt, EOFError):
        # Somebody who was asked, or waited, has gone.
        print("\nauthz: stopped", file=sys.stderr)
        return FAILED
    except OSError as error:
        print(f"authz: {describe_os_error(error)}", file=sys.stderr)
        return FAILED


def _print_command_error(error: CommandError, context: click.Context) -> int:
    print(f"authz: {error.message}", file=sys.stderr)
    if isinstance(error, OutOfReachError):
        _print_compose_line(context)
    return error.status


def _print_config_error(error: ConfigError, context: click.Context) -> int:
    """Print what is wrong; only where else it is done, if files of containers are all that is."""
    if wants_json(context) or not _print_compose_line(context):
        print_problems(error.problems, as_json=wants_json(context))
    return WRONG


def _print_compose_line(context: click.Context) -> bool:
    from authz.cli.compose_line import print_compose_line  # noqa: PLC0415 - `--help` is quick

    return print_compose_line(context)


def _print_usage_error(error: click.UsageError) -> None:
    message = error.format_message()
    if isinstance(error, click.NoSuchOption):
        near = nearest(error.option_name, error.possibilities or ())
        message = f"there is no option {error.option_name}{near}"
    path = "authz" if error.ctx is None else error.ctx.command_path
    usage = "" if error.ctx is None else f"{error.ctx.get_usage()}\n"
    print(f"{usage}{path}: error: {message}", file=sys.stderr)
