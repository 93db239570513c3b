"""The compose file as Compose reads it, whatever was answered; no engine is needed for this."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from authz.setup.answers import SetupAnswers
from authz.setup.write import write_folder
from tests.compose.engine import NoEngineError, compose_command

_HERE = SetupAnswers(domain="home.example.com")
_VARIANTS = {
    "front door": _HERE,
    "direct": replace(_HERE, login="direct"),
    "funnel": SetupAnswers(domain="n.tail1.ts.net", funnel="n.tail1.ts.net"),
    "theirs": replace(_HERE, issuer_url="https://login.example.com"),
    "own": replace(_HERE, servers={"git": "http://git-mcp:8080/mcp"}),
}


@pytest.mark.parametrize("answers", _VARIANTS.values(), ids=_VARIANTS)
def test_compose_understands_the_file(tmp_path: Path, answers: SetupAnswers) -> None:
    """It says nothing, which is all that it says of a file without a mistake."""
    try:
        compose = compose_command()
    except NoEngineError as error:
        pytest.skip(f"!!! {error} !!!")
    write_folder(tmp_path, answers, None)

    done = subprocess.run(
        [*compose, "config", "-q"], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
