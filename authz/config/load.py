"""Load authz.yaml: parse, validate, lint, read the files that it names, compile.

Invariant: nothing else than `ConfigError` is raised for what a file, its secrets or the environment
hold (tests/config/test_hostile.py).
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from authz.config.compile import compile_policy
from authz.config.digest import ConfigDigest, digest_document, digest_named
from authz.config.lint import lint
from authz.config.model import Config
from authz.config.pins import PinFile, read_pins
from authz.config.problems import ConfigError, ConfigProblem, Fault, ProblemSeverity, field_name
from authz.config.secret_files import Secrets, inspect_files, read_secrets, secret_files
from authz.config.tls_files import inspect_tls
from authz.config.upstream_authorities import read_authorities
from authz.config.validate import validate
from authz.config.yaml_loader import SIZE, Position, Tree, UnreadableError, read_tree
from authz.core.policy import Policy


@dataclass(frozen=True, slots=True)
class Settings:
    """Hold everything that one configuration says.

    Attributes:
        config: the file, as written, with defaults.
        policy: what decisions are made of.
        secrets: from files and the environment.
        warnings: what a person should look at; nothing that stops the service.
        digest: names it.
        text: the text of the file.
        authorities: what the certificates of servers with `upstream_ca` may be signed by, PEM, by
            server; empty where the files were not read.
    """

    config: Config
    policy: Policy
    secrets: Secrets
    warnings: tuple[ConfigProblem, ...]
    digest: ConfigDigest
    text: str = field(default="", repr=False)
    authorities: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)

    @property
    def filters_lists(self) -> bool:
        """Tell whether an Envoy of our rendering has lists to send for filtering."""
        ours = self.config.service.data_plane == "envoy"
        return ours and any(server.filtered for server in self.policy.servers.values())

    def is_same(self, other: "Settings") -> bool:
        """Tell whether nothing differs that could have an effect; secrets are compared, too."""
        return (self.digest, self.config, self.policy, self.secrets, self.authorities) == (
            other.digest,
            other.config,
            other.policy,
            other.secrets,
            other.authorities,
        )


def watched_files(config: Config) -> Iterator[Path]:
    """Yield the files that authz reads because a configuration names them."""
    yield from secret_files(config)
    pins = (server.pins for server in config.servers.values())
    yield from (Path(each.file) for each in pins if each is not None)
    authorities = (server.upstream_ca for server in config.servers.values())
    yield from (Path(each) for each in authorities if each is not None)


def load(
    path: Path,
    env: Mapping[str, str],
    *,
    secrets: bool = True,
    tls: bool = False,
    authorities: bool = False,
) -> Settings:
    """Read a file.

    Args:
        path: where authz.yaml is; shown in problems as given.
        env: the environment.
        secrets: whether to read the files that it names; without, a file can be checked and Envoy's
            configuration rendered on a machine that has none of them.
        tls: whether to look at Envoy's certificate and key, which only Envoy needs.
        authorities: whether to read the files of `upstream_ca` though `secrets` is off: Envoy's
            configuration holds them.

    Raises:
        ConfigError: with every problem, where there is an error among them.
    """
    text = read_text(path)
    return read(text, str(path), env, secrets=secrets, tls=tls, authorities=authorities)


def read(
    text: str,
    file: str,
    env: Mapping[str, str],
    *,
    secrets: bool = True,
    tls: bool = False,
    authorities: bool = False,
) -> Settings:
    """Read a text as `load` reads a file; `file` is the name that problems show.

    Raises:
        ConfigError: as `load`.
    """
    try:
        tree = read_tree(text)
    except UnreadableError as error:
        fault = Fault((), error.wrong, error.right)
        raise ConfigError([_problem(file, fault, error.place)]) from None
    unread = [fault.path for fault, _ in tree.faults if not fault.on_key]
    validated = validate(tree.data, unread)
    found, values, pins = list(validated.faults), Secrets(), dict[str, PinFile]()
    trusted = dict[str, str]()
    if validated.config is not None:
        values, between = _between(validated.config, env, secrets=secrets)
        if secrets:
            pins, more = read_pins(validated.config)
            between += more
        if secrets or authorities:
            trusted, more = read_authorities(validated.config, Path(file), time.time())
            between += more
        between += inspect_tls(validated.config) if tls else []
        found += filter(validated.trusts, between)
    problems = _problems(file, tree, found)
    errors = [problem for problem in problems if problem.severity is ProblemSeverity.ERROR]
    if validated.config is None or errors:
        raise ConfigError(problems)
    approved = {name: each.digests for name, each in pins.items()}
    policy = compile_policy(validated.config, approved)
    digest = ConfigDigest(
        digest_document(tree.data),
        digest_named(values.from_files(validated.config), approved, trusted) if secrets else "",
    )
    return Settings(
        validated.config, policy, values, problems, digest, text, MappingProxyType(trusted)
    )


def _between(
    config: Config, env: Mapping[str, str], *, secrets: bool
) -> tuple[Secrets, list[Fault]]:
    """Return the secrets, and what is wrong between values and with the files they name."""
    faults = lint(config)
    if not secrets:
        return Secrets(), faults
    values, more = read_secrets(config, env)
    return values, faults + more + inspect_files(config)


def _problems(file: str, tree: Tree, faults: Iterable[Fault]) -> tuple[ConfigProblem, ...]:
    """Return the problems in the order of the file."""
    placed = [*tree.faults, *((fault, tree.place(fault)) for fault in faults)]
    problems = {_problem(file, fault, place) for fault, place in placed}
    return tuple(sorted(problems, key=lambda problem: (problem.line, problem.column, str(problem))))


def _problem(file: str, fault: Fault, place: Position) -> ConfigProblem:
    field = field_name(fault.path)
    return ConfigProblem(
        file, place.line, place.column, field, fault.wrong, fault.right, fault.severity
    )


def read_text(path: Path) -> str:
    """Return the text of a file.

    Raises:
        ConfigError: where it cannot be read, is too large, or is no UTF-8.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(SIZE + 1)
        if len(data) > SIZE:
            raise ConfigError([_whole(path, "larger than 256 KiB", "split or shorten it")])
        return data.decode()
    except OSError as error:
        words = f"cannot be read: {error.strerror}"
        raise ConfigError([_whole(path, words, "give the path of authz.yaml")]) from None
    except ValueError:
        raise ConfigError([_whole(path, "not UTF-8 text", "save it as UTF-8")]) from None


def _whole(path: Path, wrong: str, right: str) -> ConfigProblem:
    """Return a problem that has no line."""
    return ConfigProblem(str(path), 0, 0, "", wrong, right)
