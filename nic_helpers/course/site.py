"""The course's pages as a site: an index with a card for each notebook, and links from page to page. Works from disk."""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nic_helpers.course import pages
from nic_helpers.course.documents import write_documents
from nic_helpers.settings import PROJECT

POSTER_WIDTH = 480


@dataclass(frozen=True)
class Entry:
    """A notebook on the course's map."""

    name: str
    number: str
    title: str
    summary: str
    built: bool


def write_site(build: Path, notebooks: Sequence[Path], figures: Path = PROJECT / "figures") -> Path:
    """Write ``html/index.html``, and the bars of the pages that there are; return the index."""
    folder = build / "html"
    entries = [entry(path, (folder / f"{path.stem}.html").is_file()) for path in notebooks]
    built = [e for e in entries if e.built]
    for k, e in enumerate(built):
        before, after = built[k - 1] if k else None, built[k + 1] if k + 1 < len(built) else None
        _set_bar(folder / f"{e.name}.html", bar(before, after))
    write_documents(folder)
    cards = [card(e, poster(e.number, build / "figures", figures)) for e in entries]
    index = folder / "index.html"
    folder.mkdir(parents=True, exist_ok=True)
    index.write_text(INDEX.replace("{cards}", "\n".join(cards)), encoding="utf-8")
    return index


def entry(notebook: Path, built: bool) -> Entry:
    """Number, title and summary, as the notebook's first cell of text has them."""
    import nbformat

    nb = nbformat.read(notebook, as_version=4)
    first = next((c.source for c in nb.cells if c.cell_type == "markdown"), "")
    title = re.sub(r"^\d\d\s*[·:–—-]\s*", "", plain(pages.title(nb))) or notebook.stem
    return Entry(notebook.stem, notebook.stem[:2], title, summary(first), built)


def summary(markdown: str, most: int = 200) -> str:
    """One line on what a notebook is for: the first sentence of its goals (or of its first paragraph, or its first points)."""
    text = re.sub(r"^#.*$", "", markdown, count=1, flags=re.M)
    for block in re.split(r"\n\s*\n", text.strip()):
        if re.match(r"\W*(Time|Back|Next|Up|Previous|Needs?|Links?)\b", block):
            continue
        points = re.split(r"^\s*(?:[-*+]|\d+[.)])\s+", block, flags=re.M)  # a lead-in and its points: the first point says it
        block = points[1] if len(points) > 1 else block
        line = re.sub(r"^(?:Goals?|After(?:wards| this)?[^.:]*)\s*[.:]\s*", "", plain(block))
        if line and not line.endswith(":"):
            first = re.match(r".*?[.!?;](?=\s|$)", line)
            line = first[0].rstrip(";") + "." * first[0].endswith(";") if first and len(first[0]) > 20 else line
            return line if len(line) <= most else line[:most].rsplit(" ", 1)[0].rstrip(",;:") + " …"
    return ""


def plain(markdown: str) -> str:
    """Markdown without its marks."""
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", markdown)
    text = re.sub(r"<[^>]+>", "", text)
    text = re.sub(r"(\*\*|__|`)", "", text)
    text = re.sub(r"(?<!\w)[*_]([^*_]+)[*_](?!\w)", r"\1", text)
    return re.sub(r"\s+", " ", text.replace("$", "")).strip()


def poster(number: str, *folders: Path) -> str | None:
    """A notebook's central picture as a small data URI, from the first folder that has it."""
    from PIL import Image

    for folder in folders:
        path = folder / f"{number}_poster.png"
        if path.is_file():
            with Image.open(path) as picture:
                picture = picture.convert("RGBA")
                ground = Image.new("RGBA", picture.size, "white")
                picture = Image.alpha_composite(ground, picture).convert("RGB")
            picture.thumbnail((POSTER_WIDTH, 2 * POSTER_WIDTH), Image.Resampling.LANCZOS)
            file = io.BytesIO()
            picture.save(file, format="webp", quality=85)
            return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
    return None


def card(e: Entry, picture: str | None) -> str:
    """A notebook's card: its picture, its question, its line."""
    image = (
        f'<img src="{picture}" alt="" loading="lazy">' if picture else f'<span class="number" aria-hidden="true">{e.number}</span>'
    )
    inside = f"{image}<span><b>{e.number} · {html.escape(e.title)}</b><small>{html.escape(e.summary)}</small></span>"
    if e.built:
        return f'<li><a href="{e.name}.html">{inside}</a></li>'
    return f'<li class="missing"><div>{inside}<small>Not run yet: <code>./run_all.sh --only {e.number}</code></small></div></li>'


def bar(before: Entry | None, after: Entry | None) -> str:
    """Links to the neighbours and the index."""

    def link(e: Entry | None, text: str, rel: str) -> str:
        if e is None:
            return "<span></span>"
        return f'<a rel="{rel}" href="{e.name}.html" title="{html.escape(e.title)}">{text.format(e.number)}</a>'

    parts = (link(before, "← {}", "prev"), '<a href="index.html">The course</a>', link(after, "{} →", "next"))
    return f'<nav class="course-bar" aria-label="Course">{"".join(parts)}</nav>'


def _set_bar(page: Path, text: str) -> None:
    """Put the bar into its places, over the one that may be there."""
    places = re.compile(re.escape(pages.BAR) + ".*?" + re.escape(pages.BAR_END), flags=re.S)
    old = page.read_text(encoding="utf-8")
    new = places.sub(lambda _: pages.BAR + text + pages.BAR_END, old)
    if new != old:
        page.write_text(new, encoding="utf-8")


INDEX = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>How neural image codecs break under attack, and what helps</title>
<style>
:root { color-scheme: light dark; --ground: #fafaf8; --card: #fff; --text: #1d1d1b; --soft: #5a5a55; --line: #deded8; --link: #0b57a4; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #16171a; --card: #212327; --text: #ececea; --soft: #b3b3ad; --line: #3a3c41; --link: #8ec2ff; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--text); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 1.6em 16px 3em; }
h1 { font-size: clamp(1.4em, 4.5vw, 2em); line-height: 1.2; margin: 0 0 .4em; text-wrap: balance; }
p { color: var(--soft); margin: 0 0 1.6em; max-width: 44em; }
ol { list-style: none; margin: 0; padding: 0; display: grid; gap: 16px;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 300px), 1fr)); }
li > * { display: flex; flex-direction: column; height: 100%; overflow: hidden; color: inherit; text-decoration: none;
  background: var(--card); border: 1px solid var(--line); border-radius: 8px; }
a:hover b, a:focus-visible b { text-decoration: underline; }
a:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
img, .number { width: 100%; height: 170px; border-bottom: 1px solid var(--line); }
img { object-fit: contain; background: #fff; display: block; }
.number { display: grid; place-items: center; font-size: 3em; color: var(--line); }
li span:not(.number) { padding: 12px 14px 14px; display: block; }
b { display: block; color: var(--link); line-height: 1.3; margin-bottom: .35em; }
small { display: block; font-size: .875em; color: var(--soft); }
.missing b { color: var(--soft); }
.missing div > small { padding: 0 14px 14px; margin-top: auto; }
</style>
</head>
<body>
<main>
<h1>How neural image codecs break under attack, and what helps</h1>
<p>A course of notebooks, as run on this computer. The sliders in these pages move as they are. To change a line of code or to
press an attack's button, open the notebook in JupyterLab.</p>
<ol>
{cards}
</ol>
</main>
</body>
</html>
"""
