"""The repository's Markdown pages that the course links to, as pages of the site: so that it reads without the repository beside it."""

from __future__ import annotations

import base64
import html
import posixpath
import re
from pathlib import Path

from nic_helpers.course import pages
from nic_helpers.settings import PROJECT

LINK = re.compile(r'<a\b[^>]*?href="([^"#:]+)(#[^"]*)?"[^>]*>(.*?)</a>', flags=re.S)
PICTURE = re.compile(r'(<img\b[^>]*?src=")([^":]+)(")')
HEAD = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ margin: 0 auto; max-width: 60em; padding: 0 16px 3em; font: 16px/1.55 system-ui, sans-serif; color: #1d1d1b; }}
body {{ overflow-wrap: break-word; }}
img {{ max-width: 100%; }}
table {{ border-collapse: collapse; display: block; overflow-x: auto; font-size: .9em; }}
td, th {{ border: 1px solid #ccc; padding: .25em .5em; text-align: left; }}
pre {{ overflow-x: auto; background: #f5f5f2; padding: .6em; }}
a {{ color: #0b57a4; }}
</style></head><body><p><a href="index.html">The course</a></p>
"""


def write_documents(folder: Path) -> list[Path]:
    """Write every document that a page in ``folder`` leads to, and those that it leads to; links in the pages then lead there.

    A link to another file of the repository loses its link and keeps its text. Returns the documents' pages.
    """
    wanted: list[str] = []
    for page in sorted(folder.glob("[0-9][0-9]_*.html")):
        old = page.read_text(encoding="utf-8")
        new = _redirected(old, "notebooks", folder, wanted)
        if new != old:
            page.write_text(new, encoding="utf-8")
    wanted += [found[1] for p in folder.glob("*.html") for found in re.finditer(r"<!-- document (\S+) -->", p.read_text("utf-8"))]
    written: dict[str, Path] = {}
    while left := [name for name in wanted if name not in written]:
        for name in left:
            written[name] = folder / page_name(name)
            body = _redirected(_body(name), posixpath.dirname(name), folder, wanted)
            title = re.search(r"<h1[^>]*>(.*?)</h1>", body, flags=re.S)
            head = HEAD.format(title=re.sub("<[^>]+>", "", title[1]) if title else html.escape(name))
            written[name].write_text(f"{head}<!-- document {name} -->{body}</body></html>\n", encoding="utf-8")
    return list(written.values())


def page_name(document: str) -> str:
    """The page of a document, whose path is given from the repository's root."""
    return document.removesuffix(".md").replace("/", "-") + ".html"


def _body(document: str) -> str:
    """The document as HTML, its pictures inside."""
    from nbconvert.filters.markdown_mistune import markdown2html_mistune

    source = PROJECT / document
    body = markdown2html_mistune(pages.formulas_to_mathml(source.read_text(encoding="utf-8")))

    def embedded(found: re.Match) -> str:
        picture = source.parent / found[2]
        if not picture.is_file():
            return found[0]
        return f"{found[1]}data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()}{found[3]}"

    return PICTURE.sub(embedded, re.sub(r'<a class="anchor-link"[^>]*>.*?</a>', "", body))


def _redirected(text: str, base: str, folder: Path, wanted: list[str]) -> str:
    """HTML with its links into the repository leading to pages; the documents among them are added to ``wanted``."""

    def link(found: re.Match) -> str:
        target, mark, inside = posixpath.normpath(posixpath.join(base, found[1])), found[2] or "", found[3]
        if (folder / found[1]).is_file():  # leads to a page already
            return found[0]
        if target.endswith(".md") and (PROJECT / target).is_file():
            wanted.append(target)
            return f'<a href="{page_name(target)}{mark}">{inside}</a>'
        if re.fullmatch(r"notebooks/\d\d_\w+\.ipynb", target):
            return f'<a href="{Path(target).stem}.html{mark}">{inside}</a>'
        return inside if (PROJECT / target).exists() else found[0]

    return LINK.sub(link, text)
