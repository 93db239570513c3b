"""What commands share: exit codes, their declaration, options, and how problems are printed."""

import json
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import wraps
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import click

from authz.cli.tasks import COMMANDS
from authz.config.location import find_configuration
from authz.config.problems import ConfigProblem, ProblemSeverity

DONE: Final = 0
FAILED: Final = 1
WRONG: Final = 2
FILE: Final = click.Path(path_type=Path, readable=False)
AUTHZ_YAML: Final = Path("authz.yaml")
_MAX_TOKEN_FILE: Final = 64 * 1024
_JSON: Final = "authz.cli.json"
_WORDS: Final = "authz.cli.words"
_ASKED: Final = "authz.cli.asked"

F = TypeVar("F", bound=Callable[..., Any])


class CommandError(click.ClickException):
    """End a command with a message on standard error and an exit status."""

    def __init__(self, message: str, status: int = WRONG) -> None:
        """Take what to say; the status is 2, asked wrongly, where nothing else is given."""
        super().__init__(message)
        self.status = status


class OutOfReachError(CommandError):
    """Say that what a command asks cannot be reached from here."""

    def __init__(self, message: str) -> None:
        """Take what to say."""
        super().__init__(message, FAILED)


# --- declaring commands -------------------------------------------------------------------------


class _PlainEpilog(click.Command):
    """Print the examples of a command as they are written: click would wrap them."""

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Return the words of the usage line; `[FILE]` is the last argument of each command."""
        found = super().collect_usage_pieces(ctx)
        if _file_option(self) is None:
            return found
        return (
            [*found[:1], "[FILE]", *found[1:]]
            if isinstance(self, click.Group)
            else [*found, "[FILE]"]
        )

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the epilog unwrapped."""
        del ctx
        if self.epilog:
            formatter.write(f"\n{self.epilog}")


class LeafCommand(_PlainEpilog):
    """Refuse arguments that are too many without repeating them: one may be a secret."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, and say that there is something left without saying what."""
        ctx.allow_extra_args = True
        left = super().parse_args(ctx, _with_named_file(self, ctx, args))
        if left and not ctx.resilient_parsing:
            raise click.UsageError("it takes fewer arguments than these", ctx)
        return left


class CommandGroup(_PlainEpilog, click.Group):
    """Name the nearest command where one is mistyped, and repeat no word that was typed."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse; the path of authz.yaml may stand in place of the first word."""
        return super().parse_args(ctx, _with_named_file(self, ctx, args))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the first word names."""
        known = self.list_commands(ctx)
        if args[0] not in known and not ctx.resilient_parsing:
            lists = f"; {ctx.command_path} --help lists them"
            near = nearest(args[0], known) or lists
            raise click.UsageError(f"there is no such command{near}", ctx)
        return super().resolve_command(ctx, args)


def _file_option(command: click.Command) -> click.Option | None:
    """Return `-c` of a command that declares no argument FILE (`config_option`)."""
    return next(
        (
            each
            for each in command.params
            if isinstance(each, click.Option) and each.name == "config"
        ),
        None,
    )


def _with_named_file(command: click.Command, ctx: click.Context, args: list[str]) -> list[str]:
    """Return arguments with `-c` before the word that is the path of authz.yaml, where one is.

    Beside arguments of the command's own, or its commands, a word is that path where it cannot be
    anything else: it has a slash, ends in .yaml or .yml, or leads to an authz.yaml that is there.
    """
    option = _file_option(command)
    if option is None or ctx.resilient_parsing:
        return args
    needed = sum(isinstance(each, click.Argument) and each.required for each in command.params)
    takes_value = {
        name
        for each in command.params
        if isinstance(each, click.Option) and not each.is_flag and not each.count
        for name in each.opts
    }
    positions, skip = list[int](), False
    for number, word in enumerate(args):
        if skip:
            skip = False
        elif word == "--":
            break
        elif word.startswith("-") and word != "-":
            skip = word in takes_value
        else:
            positions.append(number)
            if isinstance(command, click.Group):
                break
    found = [each for each in positions[needed:] if _is_path_of_configuration(args[each])]
    if isinstance(command, click.Group):
        found = [each for each in found if args[each] not in command.commands]
    if not found:
        return args
    if len(found) > 1 or any(_is_option(word, option) for word in args):
        raise click.UsageError("the configuration is given twice", ctx)
    return [*args[: found[0]], option.opts[0], *args[found[0] :]]


def _is_option(word: str, option: click.Option) -> bool:
    long = option.opts[-1]
    return word in option.opts or word.startswith((f"{long}=", option.opts[0]))


def _is_path_of_configuration(word: str) -> bool:
    if "/" in word or word.endswith((".yaml", ".yml")):
        return True
    try:
        return find_configuration(Path(word)).is_file()
    except (OSError, ValueError):
        return False


def nearest(word: str, known: Collection[str]) -> str:
    """Return a question about the name that was probably meant; nothing where none is near."""
    found = get_close_matches(word, known, 1)
    return f"; did you mean {found[0]}?" if found else ""


def command(name: str, examples: str = "") -> Callable[[Callable[..., int]], click.Command]:
    """Declare a command of `COMMANDS`; its function returns the exit status."""
    declared: Callable[[Callable[..., int]], click.Command] = _declared(LeafCommand, name, examples)
    return declared


def command_group(name: str, examples: str, metavar: str) -> Callable[[Any], click.Group]:
    """Declare a command that does something alone and has commands of its own."""
    declared: Callable[[Any], click.Group] = _declared(
        CommandGroup,
        name,
        examples,
        invoke_without_command=True,
        subcommand_metavar=f"[{metavar} …]",
    )
    return declared


def _declared(kind: Any, name: str, examples: str, **settings: Any) -> Any:
    summary = COMMANDS[name].summary
    text = f"{summary[0].upper()}{summary[1:]}."
    return click.command(name, cls=kind, help=text, short_help=summary, epilog=examples, **settings)


# --- options ------------------------------------------------------------------------------------


def config_argument(function: F) -> F:
    """Pass `config`, the path of authz.yaml: an argument, or `-c`, whichever a person types."""

    @click.argument("file", required=False, type=FILE, metavar="[FILE]")
    @click.option(
        "-c",
        "--config",
        "option",
        type=FILE,
        metavar="FILE",
        help="The file or its folder (default: authz.yaml); one of FILE and -c is enough.",
    )
    @wraps(function)
    def wrapped(*, file: Path | None, option: Path | None, **rest: Any) -> int:
        if file is not None and option is not None and file != option:
            raise click.UsageError("the configuration is given twice, as FILE and with -c")
        config = find_configuration(file or option or AUTHZ_YAML)
        keep_config(config)
        status: int = function(config=config, **rest)
        return status

    return cast("F", wrapped)


def config_option(function: F) -> F:
    """Pass `config`, the path of authz.yaml, to a command with arguments of its own, or commands.

    Every command takes it as the argument FILE, too: `_with_named_file`.
    """
    option = click.option(
        "-c",
        "--config",
        type=FILE,
        metavar="FILE",
        help="The file or its folder (default: authz.yaml); one of FILE and -c is enough.",
    )
    return option(function)


@dataclass(frozen=True, slots=True)
class AskedCommand:
    """Hold what was asked: the words after `authz`, which authz.yaml, and the command's context."""

    words: tuple[str, ...]
    config: Path
    context: click.Context


def keep_words(ctx: click.Context, words: Sequence[str]) -> None:
    """Keep the words of the command line, for what is said where the command fails."""
    ctx.meta[_WORDS] = tuple(words)


def keep_config(config: Path) -> None:
    """Keep which authz.yaml is meant, for the same."""
    ctx = click.get_current_context()
    ctx.meta[_ASKED] = AskedCommand(ctx.meta.get(_WORDS, ()), config, ctx)


def asked_command(ctx: click.Context) -> AskedCommand | None:
    """Return what was asked; None where no command came so far that reads authz.yaml."""
    found = ctx.meta.get(_ASKED)
    return found if isinstance(found, AskedCommand) else None


def state_option(function: F) -> F:
    """Pass `state`, where `authz up` has its state, to a command that only looks."""
    option = click.option(
        "--state",
        type=FILE,
        metavar="DIR",
        help="The state of `authz up` (default: .authz beside authz.yaml).",
    )
    return option(function)


def json_option(text: str) -> Callable[[F], F]:
    """Pass `as_json`; errors of authz.yaml are then printed as JSON, too."""
    return click.option("--json", "as_json", is_flag=True, callback=_keep_json, help=text)


def _keep_json(ctx: click.Context, _: click.Parameter, value: bool) -> bool:
    ctx.meta[_JSON] = ctx.meta.get(_JSON, False) or value
    return value


def wants_json(ctx: click.Context) -> bool:
    """Tell whether `--json` was given."""
    return bool(ctx.meta.get(_JSON))


def read_token_file(name: str) -> str:
    """Return what stands in the file of a token, or on standard input (`-`).

    Raises:
        CommandError: where it cannot be read, or is no token. The path is not repeated: a token
            may have been pasted in its place.
    """
    try:
        if name == "-":
            data = sys.stdin.buffer.read(_MAX_TOKEN_FILE + 1)
        else:
            with Path(name).open("rb") as file:
                data = file.read(_MAX_TOKEN_FILE + 1)
    except (OSError, ValueError) as error:
        words = error.strerror if isinstance(error, OSError) else "that is no path"
        raise CommandError(f"--token-file: {words}") from None
    if len(data) > _MAX_TOKEN_FILE or not data.isascii():
        raise CommandError("--token-file: that is no token")
    return data.decode("ascii")


# --- printing -----------------------------------------------------------------------------------


def describe_os_error(error: Exception) -> str:
    """Return what the system refused, without its number: `FILE: No such file or directory`."""
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    return f"{error.filename}: {error.strerror}" if error.filename else error.strerror


def print_problems(problems: Sequence[ConfigProblem], *, as_json: bool = False) -> None:
    """Print problems: for people on standard error, as JSON on standard output."""
    if as_json:
        print(json.dumps([problem.to_json() for problem in problems], indent=2))
        return
    for problem in problems:
        print(problem, file=sys.stderr)
    errors = sum(problem.severity is ProblemSeverity.ERROR for problem in problems)
    if errors:
        print(f"{errors} error(s)", file=sys.stderr)


def print_table(rows: Sequence[tuple[str, ...]]) -> None:
    """Print rows in columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
