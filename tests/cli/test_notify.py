"""`authz notify`: who is told, and what came back of a test message."""

import json
from pathlib import Path

import pytest

from authz.cli.main import main
from tests.support.hostile_target import hang, status, target_server

_FILE = """\
issuer: {{url: https://auth.example.com}}
gateway: {{url: https://mcp.example.com}}
servers: {{files: {{upstream: "http://files:8000/mcp"}}}}
notify:
  phone: {{form: ntfy, url: "{one}/authz", token_file: {token}, events: [tool_changed]}}
  chat: {{form: slack, url_file: {url}}}
"""


def _config(folder: Path, one: str, two: str) -> str:
    for name, text in (("token", "tk_hunter2"), ("url", f"{two}/hook/hunter2")):
        (folder / name).write_text(text)
        (folder / name).chmod(0o600)
    path = folder / "authz.yaml"
    path.write_text(_FILE.format(one=one, token=folder / "token", url=folder / "url"))
    return str(path)


def test_a_test_message_is_sent_once_to_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One takes it, one refuses: both are said, the status is 1, and no secret is shown."""
    with target_server(status(200)) as one, target_server(status(404)) as two:
        path = _config(tmp_path, one.url, two.url)

        assert main(["notify", "-c", path, "--test", "--json"]) == 1
        out = capsys.readouterr().out
        said = {each["target"]: each for each in json.loads(out)}
        assert said["phone"] == {
            "target": "phone",
            "form": "ntfy",
            "events": ["tool_changed"],
            "sent": True,
            "status": 200,
            "detail": "status 200",
        }
        assert (said["chat"]["sent"], said["chat"]["status"]) == (False, 404)
        assert "hunter2" not in out
        assert [len(one.posted), len(two.posted)] == [1, 1]
        assert json.loads(one.posted[0].body)["topic"] == "authz"
        assert two.posted[0].path == "/hook/hunter2"

        assert main(["notify", "phone", "-c", path, "--test"]) == 0
        assert "sent (status 200)" in capsys.readouterr().out


def test_targets_are_listed_and_a_mistyped_one_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without --test nothing is sent; an unknown target, and no target at all, are status 2."""
    with target_server(hang) as one:
        path = _config(tmp_path, one.url, one.url)
        assert main(["notify", "-c", path]) == 0
        out = capsys.readouterr().out
        assert "phone" in out
        assert "hunter2" not in out
        assert main(["notify", "fone", "-c", path]) == 2
        assert "did you mean phone?" in capsys.readouterr().err
        assert one.connections == 0
    text = Path(path).read_text().partition("notify:")[0]
    Path(path).write_text(text)
    assert main(["notify", "-c", path]) == 2
