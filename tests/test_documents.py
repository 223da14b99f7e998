"""What the program has is documented, and what is documented is there."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import typer
import yaml

import timbred
from docs.hooks.settings import settings_reference as settings_page
from timbred.cli.main import app
from timbred.config import SETTINGS
from timbred.errors import CODES
from timbred.protocol.describe import protocol_reference as protocol_page
from timbred.protocol.schema import EVENTS, REQUESTS

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *ROOT.glob("*/README.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
BY_HAND = (
    "README.md",
    "CONTRIBUTING.md",
    "docs/guide.md",
    "docs/access.md",
    "docs/laptop-and-rack.md",
    "docs/architecture.md",
    "docs/concepts.md",
    "docs/python.md",
    "docs/touchdesigner.md",
    "docs/oscquery.md",
    "docs/max.md",
    "docs/ableton-live.md",
    "docs/puredata.md",
    "docs/supercollider.md",
)


def read(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def code_in(text: str) -> str:
    """Code of a page, a line each: fenced blocks, and code within sentences."""
    fenced = re.findall(r"^```[^\n]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    prose = re.sub(r"^```[^\n]*\n.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return "\n".join([*fenced, *re.findall(r"`([^`\n]+)`", prose)])


def commands(command: object, path: str = "timbred") -> list[str]:
    """Every command's words, `timbred models pull`."""
    children: dict[str, object] = getattr(command, "commands", {})
    return [path, *(words for name, child in children.items() for words in commands(child, f"{path} {name}"))]


def anchor(heading: str) -> str:
    """A heading's name in links."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize(
    ("page", "made", "command"),
    [
        ("docs/protocol.md", protocol_page, "-m timbred.protocol.describe"),
        ("docs/settings.md", settings_page, "docs/hooks/settings.py"),
    ],
)
def test_documents_that_are_generated_are_up_to_date(page: str, made: Callable[[], str], command: str) -> None:
    assert read(page).strip() == made().strip(), f"run: make docs (python {command} > {page})"


@pytest.mark.parametrize("made", [protocol_page, settings_page])
def test_documents_that_are_generated_are_equal_on_every_machine(made: Callable[[], str]) -> None:
    assert str(Path.home()) not in made()


@pytest.mark.parametrize("name", [setting.name for setting in SETTINGS])
def test_documents_contain_every_setting(name: str) -> None:
    assert f"`{name}`" in read("docs/settings.md")


@pytest.mark.parametrize("address", sorted({entry.address for entry in (*REQUESTS, *EVENTS)}))
def test_documents_contain_every_address(address: str) -> None:
    assert address in read("docs/protocol.md")


@pytest.mark.parametrize("code", CODES)
def test_documents_contain_every_error_code_with_its_remedy(code: str) -> None:
    rows = [line for line in read("docs/guide.md").splitlines() if line.startswith(f"| `{code}` |")]
    assert len(rows) == 1
    assert all(cell.strip() for cell in rows[0].strip("|").split("|"))
    assert f"`{code}`" in read("docs/protocol.md")


def test_documents_have_no_unknown_error_code() -> None:
    table = read("docs/guide.md").partition("## Error codes")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `([\w-]+)` \|", table, re.MULTILINE)) == set(CODES)


@pytest.mark.parametrize("words", commands(typer.main.get_command(app)))
def test_documents_contain_every_command(words: str) -> None:
    assert f"### `{words}`" in read("docs/settings.md")


@pytest.mark.parametrize("page", BY_HAND)
def test_documents_name_only_existing_commands_and_settings(page: str) -> None:
    text = read(page)
    known = {words.split()[1] for words in commands(typer.main.get_command(app)) if " " in words}
    shell = re.findall(r"^(?:\.venv/bin/)?timbred ([a-z]+)", code_in(text), re.MULTILINE)
    assert shell or page in ("CONTRIBUTING.md", "docs/architecture.md", "docs/concepts.md")
    assert set(shell) <= known
    settings = {setting.name for setting in SETTINGS}
    for name in re.findall(r"--set ([\w.]+)=", text):
        assert name in settings or re.fullmatch(r"models\.\w+\.source", name), name


@pytest.mark.parametrize("page", BY_HAND)
def test_documents_name_only_existing_addresses(page: str) -> None:
    known = {entry.address for entry in (*REQUESTS, *EVENTS)}
    for address in re.findall(r"(?<!\w)/timbred/[a-z]+(?:\.[a-z]+)?(?:/\w+)?", read(page)):
        if "." in address or address in known or address.startswith("/timbred/settings/"):
            continue
        raise AssertionError(f"{page}: there is no {address}")


@pytest.mark.parametrize("page", BY_HAND)
def test_documents_name_only_existing_make_targets(page: str) -> None:
    targets = set(re.findall(r"^([\w-]+):", read("Makefile"), re.MULTILINE))
    reported = {
        word for words in re.findall(r"(?:^|`)make ([a-z -]+)", read(page), re.MULTILINE) for word in words.split()
    }
    assert reported <= targets


def test_documents_begin_with_the_two_commands() -> None:
    text = read("README.md")
    assert (
        text.index("pipx install") < text.index("timbred demo") < text.index("timbred doctor") < text.index("make demo")
    )
    assert text.index("make demo") < text.index("make test") < text.index("## A first request")


def test_documents_name_only_existing_files() -> None:
    for page in BY_HAND:
        for name in re.findall(r"`((?:bridges|daemon|tests|training|benchmarks|docs)/[\w/.-]+)`", read(page)):
            assert (ROOT / name).exists(), f"{page}: {name}"
    for name in re.findall(
        r"`((?:protocol|transports|requests|ipc|models|engine|dsp|audiofile|storage|player|discovery)/[\w/]+\.py)`",
        read("docs/architecture.md"),
    ):
        assert (ROOT / "daemon" / "timbred" / name).is_file(), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_documents_links_have_a_target(page: Path) -> None:
    for target in LINK.findall(page.read_text("utf-8")):
        if "://" in target:
            continue
        path, _, heading = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name}: {target}"
        if heading:
            anchors = {anchor(one) for one in HEADING.findall(file.read_text("utf-8"))}
            assert heading in anchors, f"{page.name}: {target}"


def test_documents_changelog_has_dated_versions_and_known_headings() -> None:
    text = read("CHANGELOG.md")
    versions = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert versions[0] == "Unreleased"
    dated = [re.fullmatch(r"(\d+\.\d+\.\d+) - (\d{4}-\d\d-\d\d)", version) for version in versions[1:]]
    assert all(dated), versions
    assert next(match[1] for match in dated if match) == timbred.__version__
    kinds = set(re.findall(r"^### (.+)$", text, re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def nav_pages(entry: object) -> list[str]:
    """Pages of a part of the site's navigation."""
    if isinstance(entry, str):
        return [entry]
    parts: Iterable[object] = entry.values() if isinstance(entry, dict) else entry if isinstance(entry, list) else ()
    return [page for part in parts for page in nav_pages(part)]


def test_documents_are_listed_once_in_the_site_navigation() -> None:
    listed = nav_pages(yaml.safe_load(read("mkdocs.yml"))["nav"])
    pages = {page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")}
    outside = set(re.findall(r'^    "[^"]+": "([^"]+\.md)",$', read("docs/hooks/site.py"), re.MULTILINE))
    assert {"index.md", "contributing.md", "changelog.md"} <= outside
    assert sorted(listed) == sorted(pages | outside)


def test_documents_name_every_bridge() -> None:
    for folder in sorted((ROOT / "bridges").iterdir()):
        assert f"bridges/{folder.name}/" in read("docs/guide.md"), folder.name
