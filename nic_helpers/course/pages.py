"""Executed notebooks as HTML pages."""

from __future__ import annotations

import re
from pathlib import Path


def write_html(notebook: Path, page: Path) -> None:
    """An executed notebook as one HTML file: formulas as MathML, links between notebooks leading to their pages."""
    import nbformat
    from nbconvert import HTMLExporter

    nb = nbformat.read(notebook, as_version=4)
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            cell.source = formulas_to_mathml(cell.source)
    exporter = HTMLExporter(mathjax_url="")  # nothing of the page is fetched from elsewhere to show a formula
    body, _ = exporter.from_notebook_node(nb)
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(re.sub(r'href="(\d\d_\w+)\.ipynb"', r'href="\1.html"', body), encoding="utf-8")


def formulas_to_mathml(text: str) -> str:
    """Markdown with its $…$ and $$…$$ turned into MathML, which browsers draw themselves."""
    from latex2mathml.converter import convert

    text = re.sub(r"\$\$(.+?)\$\$", lambda m: convert(m[1].strip(), display="block"), text, flags=re.S)
    return re.sub(r"(?<![\\$])\$([^$\n]+)\$", lambda m: convert(m[1]), text)
