"""docs/authelia.md says what is so; the real Authelia was started with its files, word for word."""

import re
from pathlib import Path

from authz.authelia import implied
from authz.config.load import read
from tests.support.command_lines import understand

PAGE = (Path(__file__).parents[2] / "docs" / "authelia.md").read_text("utf-8")


def test_its_authz_yaml_is_right() -> None:
    """The first file loads without a warning, and every key of the table is in what it implies."""
    text = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[0]
    settings = read(text, "authz.yaml", {}, secrets=False)
    printed = implied(settings.config).yaml()

    assert settings.warnings == ()
    for key in ("access_token_signed_response_alg", "audience", "authorization_policy"):
        assert f"| `{key}" in PAGE
        assert f"{key}:" in printed
    assert "$REPLACE$" in PAGE
    assert "$REPLACE$" in printed


def test_its_command_lines_are_understood() -> None:
    """Each `authz …` line parses."""
    lines = re.findall(r"^\$ authz ([^<>\n]+)", PAGE, re.MULTILINE)
    lines += re.findall(r"`authz ([a-z-]+ [^`>]+)", PAGE)

    assert len(lines) >= 4
    for line in lines:
        understand(line)
