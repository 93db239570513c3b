"""README.md and docs/ say what is true: their files exist, their authz.yaml loads."""

import re
import textwrap
from pathlib import Path

import pytest

from authz.config.load import read
from authz.core.reason import Reason
from authz.envoy.render.local_replies import OTHERWISE, REPLIES
from authz.telemetry.metrics import Metrics
from tests.support.command_lines import understand

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text("utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "CONTRIBUTING.md"]


def blocks(language: str) -> list[str]:
    found = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    return [textwrap.dedent(block) for block in found]


def test_the_smallest_file_of_the_readme_is_right() -> None:
    """What the README starts with loads as it stands, with the safe defaults that it promises."""
    settings = read(blocks("yaml")[0], "authz.yaml", {}, secrets=False)
    server = settings.policy.servers["notes"]

    assert server.resource == "https://mcp.example.com/notes"
    assert [(each.quota, each.window, each.counts.value) for each in server.rule.limits] == [
        (60, 60, "operations"),
        (120, 60, "operations"),
        (150, 15, "handshakes"),
    ]
    assert settings.config.gateway.tls is not None
    assert settings.config.gateway.tls.minimum == "1.3"
    assert settings.policy.origins == frozenset()
    assert settings.policy.max_body == 1 << 20


def test_every_path_of_the_readme_is_there_on_a_new_machine() -> None:
    """A folder that the README names it makes before; nobody's home stands in it."""
    made = re.findall(r"^ *\$ sudo install -d [^/\n]*(/[\w/]+)", README, re.MULTILINE)
    named = re.findall(r"(?<![\w.:~/-])(/(?:etc|run|srv|var|opt|home|usr|tmp)/[\w./-]*)", README)
    assert made
    assert named
    for path in named:
        assert any(path == each or path.startswith(f"{each}/") for each in made), path


def test_the_larger_example_of_the_readme_is_right() -> None:
    """The second file adds to the first and loads too."""
    first = blocks("yaml")[0].split("servers:")[0]
    settings = read(first + blocks("yaml")[1], "authz.yaml", {}, secrets=False)

    assert settings.policy.servers["files"].machines == {"nightly-backup"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file(page: Path) -> None:
    """A relative link of a page names a file or folder of this repository."""
    for link in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text("utf-8")):
        assert (page.parent / link).exists(), link


def test_every_page_that_a_message_names_is_there() -> None:
    """`docs/compose.md`, and `docs/compose.md, "Secrets in git"`, in the sources and templates."""
    files = [each for end in ("py", "j2") for each in (ROOT / "authz").rglob(f"*.{end}")]
    text = "\n".join(each.read_text("utf-8") for each in files)
    titles = re.findall(r'(docs/[\w/-]+\.md), "([^"]+)"', text)
    assert titles
    for page in set(re.findall(r"\bdocs/[\w/-]+\.md", text)):
        assert (ROOT / page).exists(), page
    for page, title in titles:
        assert re.search(rf"^#+ {title}$", (ROOT / page).read_text("utf-8"), re.MULTILINE), title


def sources() -> list[str]:
    """Every source file with its folders, and a slash before."""
    folders = ("authz", "bench", "demo", "tests", "tools")
    found = [path for folder in folders for path in (ROOT / folder).rglob("*.*")]
    return [f"/{path.relative_to(ROOT)}" for path in found if "node_modules" not in path.parts]


def test_every_file_that_a_page_names_exists() -> None:
    """`core/decision.py` and the like, in text or a diagram, end the path of a file here."""
    files = sources()
    # Decisions say what was true when they were made.
    for page in [each for each in PAGES if each.parent.name != "decisions"]:
        text = page.read_text("utf-8")
        for name in re.findall(r"[\w-]+(?:/[\w.-]+)+\.(?:py|lua|j2)\b", text):
            assert any(path.endswith(f"/{name}") for path in files), (page.name, name)


def test_every_command_line_of_the_readme_is_understood() -> None:
    """Each `authz …` of the README in backticks with an option parses."""
    lines = re.findall(r"`authz ([a-z-]+ [^`]+)`", README)
    assert lines
    for line in lines:
        understand(" ".join(line.split()))


# What stands before the words of a command line: on the host, or in a folder of `authz init`.
_BEFORE = r"^ *\$ (?:authz|docker compose (?:exec|run --rm)(?: -T)? (?:authz authz|authz|doctor)) "


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_line_of_a_page_is_understood(page: Path) -> None:
    """Each line of a console block that runs `authz` parses, in a container or not."""
    text = page.read_text("utf-8")
    for line in re.findall(rf"{_BEFORE}([a-z][^#\n|]*)", text, re.MULTILINE):
        understand(re.split(r" (?:[<>]|2>|&&|\\)", line)[0])


def headings(page: Path) -> set[str]:
    """The anchors of a page, as GitHub makes them of its headings, and those of its own."""
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    plain = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title).lower() for title in titles]
    made = {re.sub(r"[^\w -]", "", title).strip().replace(" ", "-") for title in plain}
    return made | set(re.findall(r'<a id="([^"]+)"', text))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_heading(page: Path) -> None:
    """A link with an anchor names a heading of its page."""
    links = re.findall(r"\]\((?!https?://)([^)#]*\.md|)#([^)]+)\)", page.read_text("utf-8"))
    for file, anchor in links:
        assert anchor in headings(page.parent / file if file else page), (file, anchor)


def test_every_target_of_the_readme_is_in_the_makefile() -> None:
    """`make X` in the README and CONTRIBUTING.md is a target."""
    makefile = (ROOT / "Makefile").read_text("utf-8")
    pages = README + (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    for target in set(re.findall(r"make ([a-z]+)", pages)) - {"demos"}:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_metric_is_told() -> None:
    """docs/operations.md has a row for every metric, and no other."""
    page = (ROOT / "docs" / "operations.md").read_text("utf-8")
    told = set(re.findall(r"^\| `(authz_[a-z_]+)`", page, re.MULTILINE))
    metrics = Metrics()
    declared = {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in metrics.registry.collect()
    }

    assert declared == told


def test_every_reason_is_told() -> None:
    """docs/reasons.md has a row for every reason, and one for what only Envoy says."""
    page = (ROOT / "docs" / "reasons.md").read_text("utf-8")
    ours, envoys = (
        re.findall(r"^\| `([a-z_]+)`", part, re.MULTILINE) for part in page.split("## What Envoy")
    )

    assert ours == [each.label for each in Reason]
    assert {*ours, *envoys} >= {each.label for each in (*REPLIES, OTHERWISE)}


def test_every_key_of_the_ledger_is_told() -> None:
    """docs/ledger.md has a row for each kind of key in Redis, of what `authz serve` keeps."""
    page = (ROOT / "docs" / "ledger.md").read_text("utf-8")
    folders = ("ledger", "audit", "server")
    text = "\n".join(
        path.read_text("utf-8")
        for each in folders
        for path in (ROOT / "authz" / each).rglob("*.py")
    )
    kinds = {
        *re.findall(r'self\._tag \+ b"([a-z-]+)', text),
        *re.findall(r'keys\.record(?:_set)?\("([a-z-]+)"', text),
        *re.findall(r'^_(?:KIND|REPORTS): Final = "([a-z-]+)"', text, re.MULTILINE),
    }
    assert len(kinds) > 20
    for kind in kinds:
        assert re.search(rf"`{kind}[:`]", page), kind


def test_every_event_of_the_log_is_told() -> None:
    """docs/operations.md names each event, by itself or by how it begins (`tools_…`)."""
    page = (ROOT / "docs" / "operations.md").read_text("utf-8")
    text = "\n".join(path.read_text("utf-8") for path in (ROOT / "authz").rglob("*.py"))
    events = set(re.findall(r'\b_?recorder\.event\(\s*"([a-z_]+)"', text))
    assert len(events) > 20
    for event in events:
        begins = {f"`{event[: at + 1]}…`" for at, letter in enumerate(event) if letter == "_"}
        assert f"`{event}`" in page or any(each in page for each in begins), event


def test_the_project_has_fifty_words_of_its_own_at_most() -> None:
    """docs/terminology.md: a reader of OAuth, Envoy and Redis learns no language besides."""
    page = (ROOT / "docs" / "terminology.md").read_text("utf-8")
    terms = re.findall(r"^\| ((?:\*\*|`).*?) \|", page, re.MULTILINE)

    assert 30 < sum(len(each.split(", ")) for each in terms) <= 50
