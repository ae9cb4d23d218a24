"""The documentation's site: it builds without a warning, is whole, and needs nothing from elsewhere."""

from __future__ import annotations

import importlib
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from markdown_it import MarkdownIt

from tests.site import ROOT, built_site

DOCS = ROOT / "docs"
PUBLIC = [
    "inturn",
    "inturn.agent",
    "inturn.channels",
    "inturn.errors",
    "inturn.persistence",
    "inturn.session",
]
OUTSIDE = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"]
WRITTEN = sorted(page for page in DOCS.glob("**/*.md") if page.parent.name != "reference")
WRITTEN += [ROOT / name for name in OUTSIDE]
"""The pages that are no docstrings."""
COUNTED = {"li", "ol", "ul", "pre", "table", "tr", "h1", "h2", "h3", "blockquote", "strong", "em"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built_site(tmp_path_factory)


class Elements(HTMLParser):
    """Counts the elements of an article; `marks` are the IDs of all, `loaded` what a browser would load."""

    def __init__(self, html: str, *, inside: bool) -> None:
        super().__init__()
        self.inside = inside
        self.count: Counter[str] = Counter()
        self.marks: set[str] = set()
        self.loaded: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.inside |= tag == "article" and "md-content__inner" in values.get("class", "")
        if self.inside and tag in COUNTED:
            self.count[tag] += 1
        if "id" in values:
            self.marks.add(values["id"])
        if tag in ("img", "script", "iframe", "source", "video", "audio", "embed"):
            self.loaded.append(values.get("src", ""))
        if tag == "link" and values.get("rel") not in ("canonical", "prev", "next"):
            self.loaded.append(values.get("href", ""))

    def handle_endtag(self, tag: str) -> None:
        self.inside &= tag != "article"


def page_of(site: Path, source: Path) -> Path:
    if source.is_relative_to(DOCS):
        return site / source.relative_to(DOCS).with_suffix(".html")
    return site / f"{source.stem.lower()}.html"


def test_every_page_is_in_it(site: Path) -> None:
    assert [page for page in [*DOCS.glob("**/*.md"), *WRITTEN] if not page_of(site, page).exists()] == []


def test_every_page_is_found_under_one_heading_of_four() -> None:
    # Its tag makes Python's own objects, which are none of this test's business.
    text = re.sub(r"!!python/\S+ .*", "null", (ROOT / "mkdocs.yml").read_text())
    headings = {title: entry for each in yaml.safe_load(text)["nav"] for title, entry in each.items()}

    assert list(headings) == ["Home", "Tutorial", "How-to", "Reference", "Explanation"]
    named = re.findall(r"[\w./-]+\.md", str(headings))
    assert sorted(named) == sorted(set(named))


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    for page in site.glob("**/*.html"):
        html = page.read_text()
        elements = Elements(html, inside=False)
        assert [url for url in elements.loaded if re.match(r"(https?:)?//", url)] == [], page
        # What the theme's program would fetch for them is on the web.
        assert 'class="mermaid"' not in html, page
    for sheet in site.glob("**/*.css"):
        assert not re.search(r"@import|url\(\s*['\"]?(https?:)?//", sheet.read_text()), sheet


@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_name_is_in_the_reference(site: Path, module: str) -> None:
    marks: set[str] = set()
    for page in (site / "reference").glob("*.html"):
        marks |= Elements(page.read_text(), inside=False).marks
    documented = {mark.rpartition(".")[2] for mark in marks if mark.startswith("inturn.")}

    assert [name for name in importlib.import_module(module).__all__ if name not in documented] == []


@pytest.mark.parametrize("source", WRITTEN, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_reads_as_it_does_in_the_repository(site: Path, source: Path) -> None:
    """The site's Markdown is another dialect: it wants four spaces where others want two."""
    text = re.sub(r"\A---\n.*?\n---\n", "", source.read_text(), flags=re.S)
    expected = Elements(MarkdownIt("commonmark").enable("table").render(text), inside=True)
    found = Elements(page_of(site, source).read_text(), inside=False)

    assert expected.count == found.count
