"""A real Envoy that asks authz otherwise than authz.yaml has it."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from authz.config.load import Settings
from authz.doctor import envoy
from authz.doctor.finding import Finding, Severity
from authz.envoy.render import Topology, render
from tests.doctor.kit import SERVERS, diagnoses, problems, settings, the
from tests.support.envoy import running_envoy

Examine = Callable[..., list[Finding]]
BODY = """\
                      with_request_body:
                        max_request_bytes: 1048576
                        pack_as_bytes: true
"""
# Of the routes to a server; that of requests without a token is about no bodies.
CHECK = f"{'':32}context_extensions:\n{'':34}server: notes\n"
THEN = f"{'':34}upstream: "


@pytest.fixture(scope="module")
def examine() -> Iterator[Examine]:
    """Return a look at an Envoy whose rendered configuration was changed.

    To render takes a second of CPU, so it is done once, and once more by the doctor.
    """
    # Short: the path of a Unix socket has 108 bytes at most.
    folder = Path(tempfile.mkdtemp(prefix="d"))
    admin, sound = folder / "admin", settings()
    rendered = render(sound, Topology(admin=str(admin), folder=str(folder)))["envoy.yaml"]
    expected = envoy._rendered(sound, admin)

    def look(before: str = "", after: str = "", known: Settings | None = None) -> list[Finding]:
        assert before in rendered
        files = {"envoy.yaml": rendered.replace(before, after)}
        with running_envoy(files, folder, admin), pytest.MonkeyPatch.context() as patch:
            if known is None:
                patch.setattr(envoy, "_rendered", lambda *_: expected)
            return envoy.examine(known or sound, admin, named=True)

    yield look
    shutil.rmtree(folder)


def test_a_sound_one(examine: Examine) -> None:
    """Of an Envoy that runs what was rendered there is nothing to say but that."""
    assert diagnoses(examine(known=settings())) == ["listens", "agrees"]


@pytest.mark.parametrize(
    ("before", "after", "diagnosis"),
    [
        pytest.param(
            BODY, f"{BODY}{'':22}failure_mode_allow: true\n", "failure_mode_allow", id="fails-open"
        ),
        pytest.param(BODY, "", "no_bodies", id="no-bodies"),
        pytest.param(
            BODY, f"{BODY}{'':24}allow_partial_message: true\n", "partial_bodies", id="partial"
        ),
        pytest.param("max_request_bytes: 1048576", "max_request_bytes: 99", "differs", id="size"),
        pytest.param(
            f'- name: "mcp:notes"\n{"":26}match',
            f'- name: "mcp:other"\n{"":26}match',
            "missing_route",
            id="routes",
        ),
        pytest.param(
            CHECK + THEN,
            f"{'':32}disable_request_body_buffering: true\n{CHECK}{THEN}",
            "no_bodies",
            id="route",
        ),
    ],
)
def test_one_thing_is_otherwise(examine: Examine, before: str, after: str, diagnosis: str) -> None:
    """What Envoy runs otherwise than it was rendered is named."""
    found = examine(before, after)

    assert diagnosis in problems(found)
    assert set(problems(found)) <= {diagnosis, "unknown_route"}
    fixes = [each.fix for each in found if each.diagnosis == diagnosis]
    assert all("envoy-config" in fix for fix in fixes)


def test_one_that_runs_an_older_authz_yaml(examine: Examine) -> None:
    """The routes of a server that was added since are told, and a body that may be longer."""
    newer = settings(servers=SERVERS + "  more: {upstream: 'http://more:1'}\n")

    assert problems(examine(known=newer)) == ["missing_route"] * 3


@pytest.mark.parametrize("value", [0, 3, "3", None])
def test_a_proxy_that_writes_ports_is_named(
    monkeypatch: pytest.MonkeyPatch, value: int | str | None
) -> None:
    """Where Envoy has counted one, and only then; what is no count says nothing."""
    stats = {"stats": [{"name": "x", "value": value}, 7]}
    known = {f"/stats?format=json&filter={envoy._WITH_PORT}": stats}
    monkeypatch.setattr(envoy, "_ask", lambda _, path: known.get(path, {}))
    found = envoy.examine(settings(), Path("admin"), named=True)

    said = [each for each in found if each.diagnosis == "forwarded_with_port"]
    assert len(said) == (value == 3)
    assert all("{var_add_x_forwarded_for_proxy}" in each.fix for each in said)


def test_nobody_there(tmp_path: Path) -> None:
    """A socket that somebody named has to be there; the usual one may be missing."""
    admin = tmp_path / "admin"

    assert problems(envoy.examine(settings(), admin, named=True)) == ["unreachable"]
    assert problems(envoy.examine(settings(), admin, named=False)) == []


def test_an_envoy_of_somebody_else() -> None:
    """A configuration without our filter, and one that is no configuration, hold nothing."""
    assert envoy.read({"configs": [{"name": "envoy.filters.http.router"}]}).filters == ()
    assert envoy.read(["x", None, 7]).filters == ()


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("1.39.0", ["too_old"]), ("1.39.1", []), ("1.39.3", []), ("1.38.3", ["too_old"]),
        ("1.38.4", []), ("1.38.4-dev", []), ("1.37.5", ["too_old"]), ("1.37.6", []),
        ("1.36.9", ["too_old"]), ("1.36.10", []), ("1.35.13", ["too_old"]), ("1.9.0", ["too_old"]),
        ("1.40.0", []), ("1.41.0", []),
    ],
)  # fmt: skip
def test_an_envoy_without_published_fixes_is_named(
    monkeypatch: pytest.MonkeyPatch, version: str, expected: list[str]
) -> None:
    """By the release that it says it is, as the admin socket has it."""
    server = {"version": f"8a2a7e1c3f00/{version}/Clean/RELEASE/BoringSSL"}
    known = {"/server_info": server, "/listeners?format=json": {}, "/config_dump": {}}
    monkeypatch.setattr(envoy, "_ask", lambda _, path: known.get(path, {}))
    found = problems(envoy.examine(settings(), Path("admin"), named=True))

    assert found == [*expected, "no_listener", "no_filter"]


@pytest.mark.parametrize("server", [None, [], {}, {"version": 7}, {"version": "1.39.0"}])
def test_one_that_does_not_say_what_it_is(monkeypatch: pytest.MonkeyPatch, server: object) -> None:
    """It is told, and is no problem."""
    known = {"/server_info": server, "/listeners?format=json": {}, "/config_dump": {}}
    monkeypatch.setattr(envoy, "_ask", lambda _, path: known.get(path, {}))
    found = envoy.examine(settings(), Path("admin"), named=True)

    assert the(found, "version_unknown").severity is Severity.NOTE
    assert "too_old" not in problems(found)
