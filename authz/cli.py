"""The command line: one function a command, and exit codes that mean something.

Law: 0 is done, 1 is failed, 2 is asked wrongly (arguments or authz.yaml). What a script would use
has `--json`. Nothing printed here holds a secret.
"""

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from authz import __version__
from authz.config.load import Settings, load
from authz.config.problems import ConfigErrors, Problem, Severity
from authz.config.schema import schema_text

DONE: Final = 0
FAILED: Final = 1
WRONG: Final = 2

Command = Callable[[argparse.Namespace], int]

_EPILOG: Final = """\
examples:
  authz check-config authz.yaml            say everything that is wrong, with lines
  authz schema > authz.schema.json         for editors: complete and check while typing
  authz envoy-config authz.yaml -o /etc/envoy
  authz envoy-config authz.yaml --fragment only the pieces for an Envoy that you have
  authz serve -c authz.yaml                the service alone
  authz up -c authz.yaml                   Envoy, Valkey and the service on this machine
  authz demo --once                        the whole with a stand-in issuer, and a walk

exit status: 0 done, 1 failed, 2 asked wrongly (arguments or authz.yaml)
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    arguments = _parser().parse_args(argv)
    command: Command = arguments.run
    try:
        return command(arguments)
    except ConfigErrors as errors:
        _print_problems(errors.problems, as_json=getattr(arguments, "json", False))
        return WRONG
    except BrokenPipeError:
        # Whoever read us has seen enough; without this Python complains at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        print(f"authz: {error}", file=sys.stderr)
        return FAILED


# --- the commands -----------------------------------------------------------------------------


def _check_config(arguments: argparse.Namespace) -> int:
    settings = load(arguments.config, os.environ)
    if arguments.json:
        _print_problems(settings.warnings, as_json=True)
        return DONE
    _print_problems(settings.warnings, as_json=False)
    servers = ", ".join(settings.policy.servers)
    print(f"{arguments.config} is right: {len(settings.policy.servers)} server(s): {servers}")
    return DONE


def _schema(_: argparse.Namespace) -> int:
    print(schema_text(), end="")
    return DONE


def _envoy_config(arguments: argparse.Namespace) -> int:
    # Rendering needs envoy-data-plane, which the service does not.
    from authz.envoy.render import Topology, fragment, render  # noqa: PLC0415 - said above

    settings = load(arguments.config, os.environ, secrets=False)
    for problem in settings.warnings:
        print(problem, file=sys.stderr)
    where = Topology(admin=arguments.admin, folder=arguments.folder or arguments.output or "")
    if not where.folder:
        where = Topology(admin=arguments.admin)
    if arguments.fragment:
        print(fragment(settings, where), end="")
        return DONE
    files = render(settings, where)
    if arguments.output is None:
        for name, text in files.items():
            print(f"# --- {name}" if len(files) > 1 else "", text, sep="\n", end="")
        return DONE
    folder = Path(arguments.output)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)
        print(folder / name)
    return DONE


def _serve(arguments: argparse.Namespace) -> int:
    from authz.server.main import serve  # noqa: PLC0415 - keeps the other commands quick

    return serve(arguments.config, os.environ, arguments.check, arguments.status)


def _up(arguments: argparse.Namespace) -> int:
    from authz.local.up import default_folder, once_ready, up  # noqa: PLC0415 - as above

    settings = _loaded(arguments.config, os.environ)
    folder = arguments.state or default_folder(arguments.config)
    when_ready = once_ready if arguments.once_ready else None
    path = arguments.config.absolute()
    return asyncio.run(up(settings, path, folder, os.environ, when_ready=when_ready))


def _demo(arguments: argparse.Namespace) -> int:
    try:
        from authz.demo.run import demo  # noqa: PLC0415 - needs the extra `demo`
    except ImportError as error:
        print(f"authz: the demo needs more packages: pip install 'authz[demo]' ({error})")
        return FAILED
    return demo(once=arguments.once, state=arguments.state)


# --- the parser -------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="authz",
        description="An Envoy ext_authz sidecar for MCP servers behind Authelia.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"authz {__version__}")
    commands = parser.add_subparsers(metavar="command", required=True)

    check = _command(
        commands, "check-config", "check authz.yaml and say all that is wrong", _check_config
    )
    _config_argument(check)
    check.add_argument("--json", action="store_true", help="problems as a JSON list")

    _command(commands, "schema", "print the JSON Schema of authz.yaml", _schema)

    envoy = _command(commands, "envoy-config", "print Envoy's configuration", _envoy_config)
    _config_argument(envoy)
    envoy.add_argument("--fragment", action="store_true", help="only filter, cluster and routes")
    envoy.add_argument("-o", "--output", metavar="DIR", help="write the files there")
    envoy.add_argument("--folder", metavar="DIR", help="where Envoy will find them (as --output)")
    envoy.add_argument(
        "--admin", default="/run/authz/envoy-admin.sock", metavar="PATH",
        help="Envoy's admin socket (default: %(default)s)",
    )  # fmt: skip

    serve = _command(commands, "serve", "run the service", _serve)
    _config_option(serve)
    serve.add_argument("--check", metavar="ADDRESS", help="in place of service.check")
    serve.add_argument("--status", metavar="ADDRESS", help="in place of telemetry.metrics")

    up = _command(commands, "up", "run Envoy, Valkey and the service on this machine", _up)
    _config_option(up)
    up.add_argument("--state", type=Path, metavar="DIR", help="default: .authz beside authz.yaml")
    up.add_argument("--once-ready", action="store_true", help="stop as soon as all is ready")

    demo = _command(commands, "demo", "run the whole and walk through it", _demo)
    demo.add_argument("--once", action="store_true", help="end after the walk")
    demo.add_argument("--state", type=Path, metavar="DIR", help="default: a temporary folder")
    return parser


def _command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    words: str,
    run: Command,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=words, description=words.capitalize() + ".")
    parser.set_defaults(run=run)
    return parser


def _config_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, nargs="?", default=Path("authz.yaml"))


def _config_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-c", "--config", type=Path, default=Path("authz.yaml"), metavar="FILE",
        help="default: %(default)s",
    )  # fmt: skip


# --- what is printed --------------------------------------------------------------------------


def _loaded(path: Path, env: Mapping[str, str]) -> Settings:
    settings = load(path, env)
    _print_problems(settings.warnings, as_json=False)
    return settings


def _print_problems(problems: Sequence[Problem], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([problem.to_json() for problem in problems], indent=2))
        return
    for problem in problems:
        print(problem, file=sys.stderr)
    errors = sum(problem.severity is Severity.ERROR for problem in problems)
    if errors:
        print(f"{errors} error(s)", file=sys.stderr)
