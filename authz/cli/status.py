"""`authz status`: what each running program has in force, beside authz.yaml as it is written."""

import asyncio
import json
import os
from pathlib import Path
from typing import Final

import click

from authz.cli.common import DONE, FAILED, command, config_argument, json_option, print_table
from authz.config.load import load
from authz.doctor.running import ask_programs, mount_problem

_EXAMPLES: Final = """\
examples:
  authz status authz.yaml
  authz status authz.yaml --json
A digest names what a program runs: the first half authz.yaml, the second the files that it names.
exit status: 0 all run what is written, 1 one does not or does not say, 2 asked wrongly
"""


@command("status", _EXAMPLES)
@config_argument
@json_option("The answer as JSON.")
def run(*, config: Path, as_json: bool) -> int:
    """Ask, and print what was said."""
    settings = load(config, os.environ)
    programs = asyncio.run(ask_programs(settings.config))
    written = settings.digest
    problems = {each.name: each.problem(written) for each in programs}
    mounted, harmful = mount_problem(config)
    if as_json:
        said = {
            "written": str(written),
            "mount": mounted,
            "programs": [
                {
                    "name": each.name,
                    "config": each.config,
                    "version": each.version,
                    "problem": problems[each.name],
                }
                for each in programs
            ],
        }
        print(json.dumps(said, indent=2))
    else:
        rows = [("", "configuration", "version", "")]
        rows += [("authz.yaml", str(written), "", "as written")]
        rows += [
            (each.name, each.config or "-", each.version or "-", problems[each.name] or "the same")
            for each in programs
        ]
        print_table(rows)
        if mounted:
            click.echo(f"\n{mounted}", err=True)
    return FAILED if harmful or any(problems.values()) else DONE
