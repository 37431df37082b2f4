"""The site builds strictly: every page is in the navigation, every link and anchor is there.

What a reader's browser fetches comes from the site itself.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from support.documentation import build_site
from support.testbed import ROOT

# What makes a browser fetch an address by itself; a link that somebody clicks does not.
FETCHED = {"src", "srcset", "data", "poster", "xlink:href"}
LINKS = {"canonical", "prev", "next", "alternate"}  # relations that are not fetched
CSS_ADDRESS = re.compile(r"url\(\s*['\"]?([^'\")]+)|@import\s+['\"]([^'\"]+)")
ELSEWHERE = re.compile(r"^\s*(?:[a-z]+:)?//", re.IGNORECASE)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site; return its folder."""
    folder = tmp_path_factory.mktemp("site")
    done = build_site(ROOT / "mkdocs.yml", folder)
    assert done.returncode == 0, done.stderr
    return folder


class Page(HTMLParser):
    """The addresses that a page fetches, and the text of its paragraphs outside of code."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.text: list[str] = []
        self._code = self._paragraph = 0
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.fetched += [value for name, value in values.items() if name in FETCHED]
        if tag == "link" and not LINKS & set(values.get("rel", "").split()):
            self.fetched.append(values.get("href", ""))
        self.fetched += addresses_of_css(values.get("style", ""))
        self._code += tag in ("code", "pre", "script", "style")
        self._paragraph += tag in ("p", "td")

    def handle_endtag(self, tag: str) -> None:
        self._code -= tag in ("code", "pre", "script", "style")
        self._paragraph -= tag in ("p", "td")

    def handle_data(self, data: str) -> None:
        if self._paragraph and not self._code:
            self.text.append(data)


def addresses_of_css(text: str) -> list[str]:
    return [first or second for first, second in CSS_ADDRESS.findall(text)]


def pages(site: Path) -> Iterator[tuple[str, Page]]:
    for file in sorted(site.rglob("*.html")):
        yield file.relative_to(site).as_posix(), Page(file.read_text())


def test_every_file_of_docs_is_a_page(site: Path) -> None:
    sources = {file.relative_to(ROOT / "docs") for file in (ROOT / "docs").rglob("*.md")}
    assert len(sources) > 20
    assert {site / source.with_suffix(".html") for source in sources} <= set(site.rglob("*.html"))


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    fetched = [
        (file, address)
        for file, page in pages(site)
        for address in page.fetched
        if ELSEWHERE.match(address)
    ]
    for suffix in ("*.css", "*.svg"):
        for file in site.rglob(suffix):
            addresses = addresses_of_css(file.read_text())
            fetched += [(file.name, one) for one in addresses if ELSEWHERE.match(one)]
    assert fetched == []


def test_what_is_fetched_would_be_found() -> None:
    page = Page(
        '<link rel="canonical" href="https://a/"><link rel="stylesheet" href="https://b/c.css">'
        '<script src="//d/e.js"></script><p style="background: url(https://f/g.png)">'
        '<a href="https://h/">'
    )
    found = [address for address in page.fetched if ELSEWHERE.match(address)]
    assert found == ["https://b/c.css", "//d/e.js", "https://f/g.png"]


def test_the_markdown_means_the_same_as_on_a_code_host(site: Path) -> None:
    """Lists, tables and links are none where a blank line or an indentation is missing."""
    marks = re.compile(r"^\s*(?:[-*]|\d+\.) |^\||```|\*\*|\]\(|^#+ ", re.MULTILINE)
    left = [(file, text) for file, page in pages(site) for text in page.text if marks.search(text)]
    assert left == []


def test_the_reference_is_complete(site: Path) -> None:
    for path in (ROOT / "crds").glob("*.yaml"):
        spec = yaml.safe_load(path.read_text())["spec"]
        [version], kind = spec["versions"], spec["names"]["kind"]
        page = (site / "reference" / f"{kind.lower()}.html").read_text()
        schema = version["schema"]["openAPIV3Schema"]["properties"]
        for field in (*schema["spec"]["properties"], *schema["status"]["properties"]):
            assert re.search(rf">(?:spec\.|status\.)?{field}<", page), f"{kind}: {field}"
    for name in ("gateway-api", "session-pod-api"):
        document = json.loads((site / "reference" / f"{name}.json").read_text())
        page = (site / "reference" / f"{name}.html").read_text()
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                assert f"{method.upper()} {path}" in page
                assert f'id="{operation["operationId"].lower()}"' in page


def test_links_lead_to_the_repository_where_it_is_published(tmp_path: Path) -> None:
    extra = {"source": "https://code.example/wasession"}
    done = build_site(configure(tmp_path, ROOT / "docs", extra=extra), tmp_path / "site")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "site" / "benchmarks.html").read_text()
    results = "tests/bench/session_pod/results.json"
    assert f'href="https://code.example/wasession/blob/main/{results}"' in page


@pytest.mark.parametrize(
    ("fault", "reported"),
    [
        ("[a page](nowhere.md)", "nowhere.md"),
        ("[an anchor](backup.md#nowhere)", "nowhere"),
        ("[a file](../nowhere.py)", "nowhere.py"),
    ],
)
def test_a_link_that_leads_nowhere_fails_the_build(
    fault: str,
    reported: str,
    tmp_path: Path,
) -> None:
    done = build_site(with_docs(tmp_path, fault), tmp_path / "site")
    assert done.returncode == 1
    assert reported in done.stderr


def test_a_page_that_is_not_in_the_navigation_fails_the_build(tmp_path: Path) -> None:
    config = with_docs(tmp_path, "")
    (tmp_path / "docs" / "forgotten.md").write_text("# Forgotten\n")
    done = build_site(config, tmp_path / "site")
    assert done.returncode == 1
    assert "forgotten.md" in done.stderr


def test_a_folder_of_the_navigation_stands_for_its_pages(tmp_path: Path) -> None:
    config = with_docs(tmp_path, "")
    (tmp_path / "docs" / "runbooks").mkdir(exist_ok=True)
    (tmp_path / "docs" / "runbooks" / "new-alert.md").write_text("# New alert\n")
    done = build_site(config, tmp_path / "site")
    assert done.returncode == 0, done.stderr
    assert "runbooks/new-alert.html" in (tmp_path / "site" / "sizing.html").read_text()


def with_docs(folder: Path, end: str) -> Path:
    """Copy docs/ with ``end`` at the end of a page; return the configuration that builds it."""
    shutil.copytree(ROOT / "docs", folder / "docs")
    page = folder / "docs" / "faq.md"
    page.write_text(f"{page.read_text()}\n{end}\n")
    return configure(folder, folder / "docs")


def configure(folder: Path, docs: Path, **more: object) -> Path:
    """Write a configuration of the site with other settings; return its path."""
    config = {
        "INHERIT": str(ROOT / "mkdocs.yml"),
        "docs_dir": str(docs),
        "hooks": [str(ROOT / "website" / "hooks.py")],
        **more,
    }
    (folder / "mkdocs.yml").write_text(yaml.safe_dump(config))
    return folder / "mkdocs.yml"


def test_files_that_are_no_pages_have_links_that_lead_somewhere() -> None:
    """The site's own build checks its pages; these are read in the repository alone."""
    for name in ("README.md", "tests/support/cluster/README.md", "tests/support/fakes/README.md"):
        file = ROOT / name
        for target in re.findall(r"\]\(([^()\s#]+)[^()\s]*\)", file.read_text()):
            assert ":" in target or (file.parent / target).exists(), f"{name}: {target}"
