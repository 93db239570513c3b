"""`authz status`: what each running program has in force, and how its parts are."""

import asyncio
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from authz.cli.common import (
    DONE,
    FAILED,
    command,
    config_argument,
    json_option,
    print_problems,
    print_table,
)
from authz.cli.compose_line import is_right_without_files
from authz.config.addresses import AddressError, read_tcp
from authz.config.digest import ConfigDigest
from authz.config.endpoints import Tcp
from authz.config.load import load, read_text
from authz.config.location import init_folder
from authz.config.problems import ConfigError, ConfigProblem
from authz.doctor.running import (
    ProgramPlaces,
    RunningProgram,
    ask_programs,
    mount_problem,
    places_in,
    places_of,
)

_EXAMPLES: Final = """\
examples:
  authz status authz.yaml
  authz status authz.yaml --json
  authz status authz.yaml --replica 10.0.0.12:9464   one more `authz serve`; may be repeated
A digest names what a program runs: the first half authz.yaml, the second the files that it names.
What is wrong with a part (keys, Redis, audit trail) is said below the table.
Every address of a name is asked, so that replicas show themselves where one name leads to all.
exit status: 0 all run what is written, 1 one does not or does not say, or authz.yaml has an error,
2 asked wrongly
"""


@command("status", _EXAMPLES)
@config_argument
@click.option(
    "--replica",
    "replicas",
    multiple=True,
    metavar="HOST:PORT",
    help="Where another replica of `authz serve` has its metrics; may be repeated.",
)
@json_option("The answer as JSON.")
def run(*, config: Path, replicas: tuple[str, ...], as_json: bool) -> int:
    """Ask, and print what was said."""
    places, written, errors = _written(config)
    programs = asyncio.run(ask_programs(places, _places(replicas)))
    problems = {each.name: each.problem(written) for each in programs}
    mounted, harmful = mount_problem(config)
    if as_json:
        said = {
            "written": None if written is None else str(written),
            "errors": [each.to_json() for each in errors],
            "mount": mounted,
            "programs": [
                {
                    "name": each.name,
                    "config": each.config,
                    "version": each.version,
                    "problem": problems[each.name],
                    "parts": dict(each.parts),
                    "trouble": dict(each.trouble),
                }
                for each in programs
            ],
        }
        print(json.dumps(said, indent=2))
    else:
        _print(programs, problems, written)
        if errors:
            print_problems(errors)
        if mounted:
            click.echo(f"\n{mounted}", err=True)
    return FAILED if errors or harmful or any(problems.values()) else DONE


def _written(config: Path) -> tuple[ProgramPlaces, ConfigDigest | None, Sequence[ConfigProblem]]:
    """Return where programs answer, what is written, and its errors.

    Raises:
        ConfigError: where the file cannot be read at all, or this is the host of containers that
            alone have what it names.
    """
    try:
        settings = load(config, os.environ)
    except ConfigError as error:
        if init_folder(config.parent) is not None and is_right_without_files(config):
            raise
        return places_in(read_text(config)), None, error.problems
    return places_of(settings.config), settings.digest, ()


def _places(replicas: Sequence[str]) -> list[Tcp]:
    try:
        return [read_tcp("--replica", each) for each in replicas]
    except AddressError as error:
        raise click.UsageError(str(error)) from None


def _print(
    programs: Sequence[RunningProgram],
    problems: dict[str, str],
    written: ConfigDigest | None,
) -> None:
    rows = [("", "configuration", "version", "")]
    if written is None:
        rows += [("authz.yaml", "-", "", "it has an error, and is not in force")]
    else:
        rows += [("authz.yaml", str(written), "", "as written")]
    rows += [
        (each.name, each.config or "-", each.version or "-", problems[each.name] or "the same")
        for each in programs
    ]
    print_table(rows)
    for each in programs:
        for part, words in each.trouble.items():
            click.echo(f"{each.name}: {json.dumps(part)[1:-1]}: {json.dumps(words)[1:-1]}")
