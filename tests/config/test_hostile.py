"""Whatever stands in a file: settings or `ConfigError`, nothing else."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from authz.config.load import Settings, load, read
from authz.config.problems import ConfigError, ProblemSeverity

KEYS = [
    *("issuer", "gateway", "servers", "clients", "redis", "limits", "telemetry", "service", "url"),
    *(
        "upstream",
        "tools",
        "scopes",
        "machines",
        "second_factor",
        "evidence",
        "per",
        "rate",
        "cost",
    ),
    *("resource", "nested", "groups", "versions", "tls", "listen", "origins", "a", "<<", "default"),
]
WORDS = [
    *("https://a.example.com", "http://a:1/b", "60/minute", "5m", "any", "totp", "none", "true"),
    *("", "~", "&a", "*a", "!t", "!!binary", "'", '"', "[", "{", "-", "?", ":", "|", ">", "%", "@"),
    *("0", "-1", ".nan", "1e999", "9" * 30, "client", "user", "\\", "\t", "\0", "\ufeff", "\ud800"),
    *("[client, user]", "{per: user, rate: 1/day}", "#", "---", "...", "\u2028", "\x85", "é", "😀"),
]


def lines() -> st.SearchStrategy[str]:
    """Return texts that look like the file, and are not."""
    key = st.sampled_from(KEYS) | st.text(max_size=3)
    value = st.sampled_from(WORDS) | st.text(max_size=6)
    line = st.builds(
        lambda indent, dash, name, joint, text: f"{'  ' * indent}{dash}{name}{joint}{text}",
        st.integers(0, 4),
        st.sampled_from(["", "", "- ", "? "]),
        key,
        st.sampled_from([": ", ":", " ", ": [", ": {"]),
        value,
    )
    return st.lists(line, max_size=12).map("\n".join)


def outcome_of(text: str) -> Settings | ConfigError:
    try:
        return read(text, "authz.yaml", {"AUTHZ_REDIS_PASSWORD": "x"})
    except ConfigError as error:
        return error


def check(text: str) -> None:
    """Check that what comes of a text is whole: right settings, or errors that can be found."""
    outcome = outcome_of(text)
    if isinstance(outcome, Settings):
        assert all(problem.severity is ProblemSeverity.WARNING for problem in outcome.warnings)
        return
    assert any(problem.severity is ProblemSeverity.ERROR for problem in outcome.problems)
    assert all(problem.line >= 1 and problem.column >= 1 for problem in outcome.problems)
    assert all(problem.wrong and problem.right for problem in outcome.problems)
    assert all("\n" not in str(problem) for problem in outcome.problems)


@given(st.text())
def test_any_text(text: str) -> None:
    """Any text is settings or problems with a place."""
    check(text)


@given(lines())
def test_text_that_looks_right(text: str) -> None:
    """Nearly right text is settings or problems with a place."""
    check(text)


@given(data=st.data())
def test_example_with_noise(data: st.DataObject, example: str) -> None:
    """The example with a few lines replaced, doubled or cut is settings or problems."""
    text = example.split("\n")
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text) - 1))
        new = data.draw(st.sampled_from(text) | lines())
        text[at : at + data.draw(st.integers(0, 2))] = [new]
    check("\n".join(text))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200))
def test_any_bytes(data: bytes, tmp_path: Path) -> None:
    """Bytes that are no configuration are problems."""
    path = tmp_path / "authz.yaml"
    path.write_bytes(data)

    with pytest.raises(ConfigError):
        load(path, {})


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("a: " + "9" * 200_000, id="digits"),
        pytest.param("a: " + "[" * 200_000, id="brackets"),
        pytest.param("{" * 200_000, id="braces"),
        pytest.param("? " * 100_000, id="keys"),
        pytest.param("- " * 100_000, id="dashes"),
        pytest.param("a: " + "x" * 200_000, id="long"),
        pytest.param('a: "' + "\\x41" * 50_000 + '"', id="escapes"),
        pytest.param("&a " * 1000, id="anchors"),
        pytest.param("a: &a [*a]", id="itself"),
        pytest.param("!!python/object/apply:os.system [id]", id="tag"),
    ],
)
def test_pathological(text: str, complaints: Callable[[str], list[str]]) -> None:
    """Text made to hurt is problems."""
    assert complaints(text)
