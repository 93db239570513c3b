"""What commands share: exit codes, their registration, and how problems are printed."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from authz.config.problems import ConfigProblem, ProblemSeverity

DONE: Final = 0
FAILED: Final = 1
WRONG: Final = 2

Command = Callable[[argparse.Namespace], int]


def command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    words: str,
    run: Command,
    examples: str = "",
) -> argparse.ArgumentParser:
    """Register a command and return its parser, for its own arguments."""
    parser = commands.add_parser(
        name,
        help=words,
        description=words[0].upper() + words[1:] + ".",
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run, parser=parser)
    return parser


class _Given(argparse.Action):
    """Keep an argument only where one was given: argparse also calls for one that was not."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        """Take what was given."""
        del parser, option_string
        if isinstance(values, Path):
            setattr(namespace, self.dest, values)


def config_argument(parser: argparse.ArgumentParser) -> None:
    """Let a command take authz.yaml as its argument, or as `-c`, whichever a person types."""
    parser.add_argument(
        "-c",
        "--config",
        type=Path,
        default=Path("authz.yaml"),
        metavar="FILE",
        help="the same; one of the two is enough",
    )
    parser.add_argument(
        "config",
        action=_Given,
        type=Path,
        nargs="?",
        default=None,
        metavar="FILE",
        help="the configuration (default: authz.yaml)",
    )


def state_argument(parser: argparse.ArgumentParser) -> None:
    """Let a command that only looks be told where `authz up` has its state."""
    parser.add_argument(
        "--state",
        type=Path,
        metavar="DIR",
        help="the state of `authz up` (default: .authz beside authz.yaml)",
    )


def os_words(error: Exception) -> str:
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
