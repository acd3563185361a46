"""Hooks of mkdocs.yml: files that lie outside docs/ join the site, and links into the repository work there too.

The pages are read in three places: in a checkout, on a code host and on the site. Links are written for the first two
(``../../examples``), and turned here into what the site has: a page, or the path alone where it has none.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
JOINED = {
    "CHANGELOG.md": "project/changelog.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "SECURITY.md": "project/security.md",
    "benchmarks/RESULTS.md": "project/results.md",
}
"""Pages of the repository, and what they are called on the site."""
_SOURCES = {page: source for source, page in JOINED.items()}
_LINK = re.compile(r"\[([^\]]+)\]\(([^)\s#:]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    for source, page in JOINED.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    return relinked(markdown, page.file.src_uri)


def relinked(markdown: str, page: str) -> str:
    """``markdown`` of ``page`` (its path on the site) with links that lead somewhere on the site."""
    source = _SOURCES.get(page, f"docs/{page}")

    def link(match: re.Match[str]) -> str:
        text, target, anchor = match[1], match[2], match[3] or ""
        there = os.path.normpath(PurePosixPath(source).parent / target)
        if there in JOINED:
            there = f"docs/{JOINED[there]}"
        if there.startswith("docs/") and not (ROOT / there).is_dir():
            return f"[{text}]({os.path.relpath(there, PurePosixPath('docs', page).parent)}{anchor})"
        return text if text.startswith("`") or text == there else f"{text} (`{there}`)"

    return _LINK.sub(link, markdown)
