"""What the documents say about settings, routes and files is so."""

import re
from pathlib import Path
from typing import Any

import pytest

from taskrunner.api import role
from taskrunner.api.page import FILES
from taskrunner.settings import Settings, env_name
from taskrunner.store.tasks import open_store

TOP = Path(__file__).parent.parent
DOCS = sorted([*TOP.glob("*.md"), *(TOP / "docs").rglob("*.md")])
NAMES = [str(path.relative_to(TOP)) for path in DOCS]
LONGEST = 160  # characters


def prose(path: Path) -> str:
    """The document without its blocks of code."""
    return re.sub(r"(?ms)^```.*?^```", "", path.read_text())


def anchors(path: Path) -> set[str]:
    """What a link to a heading of the document may end with."""
    headings = re.findall(r"(?m)^#+ (.+)$", prose(path))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_there_are_documents() -> None:
    assert {"README.md", "CHANGELOG.md", "docs/guarantees.md", "docs/operations.md", "docs/handlers.md", "docs/api.md"} <= set(NAMES)


@pytest.mark.parametrize("path", DOCS, ids=NAMES)
def test_links_lead_somewhere(path: Path) -> None:
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", prose(path)) if "://" not in link]
    broken = []
    for link in links:
        file, _, anchor = link.partition("#")
        target = (path.parent / file) if file else path
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_nobody_is_told_to_fetch_the_package_of_a_stranger() -> None:
    """taskrunner is in no index: who asks one for that name gets something else."""
    places = [
        *DOCS,
        *(path for folder in ("app", "deploy") for path in (TOP / folder).rglob("*") if path.suffix != ".pyc" and path.is_file()),
    ]
    told = re.compile(rb"(pip|uv|pipx|poetry) (install|add) [^\n.]*\btaskrunner\b|taskrunner\[")
    assert [str(path.relative_to(TOP)) for path in places if told.search(path.read_bytes())] == []


@pytest.mark.parametrize("path", DOCS, ids=NAMES)
def test_lines_fit_a_screen(path: Path) -> None:
    assert [line for line in path.read_text().splitlines() if len(line) > LONGEST] == []


def shown(default: Any) -> str:
    """A default as the table writes it."""
    match default:
        case None | ():
            return "–"
        case tuple():
            return f"`{','.join(default)}`"
        case float():
            return f"`{default:.10g}`"
    return f"`{default}`".replace(str(Path.home()), "~")


def test_the_table_of_settings_is_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    rows = re.findall(r"(?m)^\| `([A-Z_]+)` \| (.+?) \| (.+?) \|$", (TOP / "README.md").read_text())
    settings = {
        env_name(name): (shown(field.get_default(call_default_factory=True, validated_data={})), field.description)
        for name, field in Settings.model_fields.items()
    }
    assert {name: (default, meaning) for name, default, meaning in rows} == settings
    assert len(rows) == len(settings)


async def test_the_api_has_the_routes_that_are_documented_and_no_others(dsn: str) -> None:
    documented = set(re.findall(r"`(GET|POST|PATCH|PUT|DELETE) (/[^\s`?]*)", (TOP / "docs" / "api.md").read_text()))
    settings = Settings()
    async with open_store(dsn, settings) as store:
        application = role.Rooms(store).application()
        routes = {(route.method, route.resource.canonical) for route in application.router.routes() if route.resource}
    assert documented == {(method, path) for method, path in routes if method != "HEAD" and path not in FILES.keys() - {"/", "/api/docs"}}
