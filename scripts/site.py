"""What mkdocs does for the site besides: pages that live outside docs/, and links to files of the repository.

Pages link to the files that they are about, as they do where the repository is read. In the site such a link
leads to a copy of that file, so that the site is whole by itself.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
DOCS = "docs"

PAGES = {
    "README.md": "readme.md",
    "ARCHITECTURE.md": "architecture.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "benchmarks/README.md": "benchmarks.md",
}
"""Pages outside docs/, by their place in the repository, with their place in the site."""

LINK = re.compile(r"(\]\()([^)\s]+)(\))")
CODE = re.compile(r"^ *```.*?^ *```|`[^`\n]+`", re.M | re.S)
LANGUAGES = {".py": "python", ".lua": "lua", ".sql": "sql", ".yml": "yaml", ".yaml": "yaml", ".js": "js"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages outside docs/, and a copy of each file that some page links to."""
    for origin, uri in PAGES.items():
        files.append(File.generated(config, uri, content=(ROOT / origin).read_text()))
    wanted = {path for file in files.documentation_pages() for path in linked(file)}
    for path in sorted(wanted):
        if in_site(path) == source_uri(path):
            files.append(File.generated(config, source_uri(path), content=source_page(path)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Turn links that are right in the repository into links that are right in the site."""
    if page.file.src_uri.startswith("source/"):
        return markdown
    here = posixpath.dirname(page.file.src_uri) or "."

    def turned(link: re.Match[str]) -> str:
        target = resolved(page.file, link[2])
        if target is None:
            return link[0]
        path, anchor = target
        return f"{link[1]}{posixpath.relpath(in_site(path), here)}{anchor}{link[3]}"

    return outside_code(markdown, turned)


def linked(file: File) -> Iterator[str]:
    """The files of the repository that a page links to."""
    for link in LINK.finditer(CODE.sub(blanked, file.content_string)):
        if target := resolved(file, link[2]):
            yield target[0]


def resolved(file: File, link: str) -> tuple[str, str] | None:
    """Where a link of a page leads: a path in the repository, and an anchor; None: nowhere in it."""
    if "://" in link or link.startswith(("#", "mailto:")):
        return None
    path, mark, anchor = link.partition("#")
    target = posixpath.normpath(posixpath.join(posixpath.dirname(origin(file)), path))
    return (target, mark + anchor) if (ROOT / target).exists() else None


def origin(file: File) -> str:
    """Where a page is in the repository."""
    return {uri: path for path, uri in PAGES.items()}.get(file.src_uri, f"{DOCS}/{file.src_uri}")


def in_site(path: str) -> str:
    """Where a file of the repository is in the site."""
    if path in PAGES:
        return PAGES[path]
    return path.removeprefix(f"{DOCS}/") if path.startswith(f"{DOCS}/") else source_uri(path)


def source_uri(path: str) -> str:
    """Where the copy of a file is in the site."""
    return f"source/{path}.md"


def source_page(path: str) -> str:
    """A file as a page, or the names in a folder. The site's search leaves it out."""
    file = ROOT / path
    if file.is_dir():
        entries = [
            entry for entry in sorted(file.iterdir()) if not entry.name.startswith(("__pycache__", "."))
        ]
        text = "\n".join(entry.name + "/" * entry.is_dir() for entry in entries)
    else:
        text = file.read_text()
    fence = "`" * 8
    return (
        f"---\nsearch:\n  exclude: true\nhide: [toc]\n---\n# {path}\n\n"
        f"{fence}{LANGUAGES.get(file.suffix, 'text')}\n{text.rstrip()}\n{fence}\n"
    )


def outside_code(markdown: str, turned: Callable[[re.Match[str]], str]) -> str:
    """The page with `turned` done to each link that is no part of code."""
    parts, end = [], 0
    for link in LINK.finditer(CODE.sub(blanked, markdown)):
        parts += [markdown[end : link.start()], turned(link)]
        end = link.end()
    return "".join([*parts, markdown[end:]])


def blanked(code: re.Match[str]) -> str:
    """As long as the code, with no link in it."""
    return re.sub(r"[^\n]", " ", code[0])
