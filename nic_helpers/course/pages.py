"""Executed notebooks as HTML pages that fetch nothing from elsewhere and run without a kernel."""

from __future__ import annotations

import html
import re
from pathlib import Path

WIDGET_MIME = "application/vnd.jupyter.widget-view+json"
ONLY_LIVE = "<p><em>This control works in JupyterLab only: open the notebook there.</em></p>"
BAR = "<!-- course bar -->"  # stands where the links to the neighbours go, see nic_helpers.course.site
BAR_END = "<!-- end of bar -->"
# a cell that JupyterLab shows folded is folded in the page, too, and opens without a script
FOLDING = """{%- extends 'lab/index.html.j2' -%}
{%- block input_group -%}
{%- if (cell.metadata.get('jupyter') or {}).get('source_hidden') -%}
<details class="course-folded"><summary>how this is counted</summary>{{ super() }}</details>
{%- else -%}
{{ super() }}
{%- endif -%}
{%- endblock input_group -%}
"""

# after the template's own style: readable lines, and nothing wider than the screen but in a box of its own that scrolls
STYLE = """<style>
body.jp-Notebook { margin: 0 auto; padding: 0 8px 2em; max-width: 1080px; overflow-wrap: break-word; }
.jp-Notebook img, .jp-Notebook svg, .jp-Notebook video { max-width: 100%; height: auto; }
.jp-RenderedHTMLCommon, .jp-OutputArea-output { overflow-x: auto; min-width: 0; max-width: 100%; }
.jp-RenderedHTMLCommon > math[display=block] { display: block math; overflow-x: auto; max-width: 100%; padding: .3em 0; }
.jp-Cell-inputWrapper, .jp-Cell-outputWrapper, .jp-InputArea, .jp-OutputArea-child, .jp-Editor { min-width: 0; }
.jp-RenderedText pre { word-break: normal; overflow-wrap: anywhere; }
.jp-InputArea-editor { overflow-x: auto; }
.course-folded > summary { cursor: pointer; width: max-content; padding: .15em .4em; margin-left: calc(var(--jp-cell-prompt-width) + 4px);
  font: 13px/1.4 system-ui, sans-serif; color: #6b6b66; }
.course-folded > summary:hover, .course-folded > summary:focus { color: #0b57a4; text-decoration: underline; }
.course-bar { display: flex; flex-wrap: wrap; gap: .3em 1.2em; justify-content: space-between; padding: .6em 4px;
  font: 14px/1.4 system-ui, sans-serif; border-bottom: 1px solid #ccc; margin-bottom: .8em; }
main ~ .course-bar { border-bottom: 0; border-top: 1px solid #ccc; margin: 1.2em 0 0; }
.course-bar a { color: #0b57a4; text-decoration: none; padding: .25em 0; }
.course-bar a:hover, .course-bar a:focus { text-decoration: underline; }
@media (max-width: 760px) {
  body.jp-Notebook { padding: 0 4px 2em; }
  .jp-InputPrompt, .jp-OutputPrompt { display: none !important; }
  .jp-Cell { padding: 4px; }
  .course-folded > summary { margin-left: 0; }
  .jp-InputArea-editor .highlight pre { font-size: 12px; }
}
@media print { .course-bar { display: none; } }
</style>"""


def write_html(notebook: Path, page: Path) -> None:
    """An executed notebook as one HTML file: formulas as MathML, controls as plain JavaScript, links leading to pages."""
    import nbformat
    from nbconvert import HTMLExporter
    from nbconvert.preprocessors.coalescestreams import CoalesceStreamsPreprocessor

    nb = nbformat.read(notebook, as_version=4)
    without_kernel(nb)
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            cell.source = formulas_to_mathml(cell.source)
    exporter = HTMLExporter(raw_template=FOLDING, mathjax_url="", require_js_url="", mermaid_js_url="")
    exporter.register_preprocessor(CoalesceStreamsPreprocessor, enabled=True)  # of a progress bar its last state
    body, _ = exporter.from_notebook_node(nb)
    body = re.sub(r'<script src="">\s*</script>', "", body)
    body = re.sub(r'<script type="module">(?:(?!</script>).)*mermaid.*?</script>', "", body, count=1, flags=re.S)
    body = re.sub(r"<title>.*?</title>", f"<title>{html.escape(title(nb) or notebook.stem)}</title>", body, count=1, flags=re.S)
    body = body.replace("</head>", STYLE + "</head>", 1)
    body = re.sub(r"(<body[^>]*>)", rf"\1{BAR}{BAR_END}", body, count=1)
    start, end, rest = body.rpartition("</body>")
    body = f"{start}{BAR}{BAR_END}{end}{rest}"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(re.sub(r'href="(\d\d_\w+)\.ipynb(#[^"]*)?"', r'href="\1.html\2"', body), encoding="utf-8")


def without_kernel(nb) -> None:
    """Of each output that has a control for JupyterLab, what a page can show in its place."""
    nb.metadata.pop("widgets", None)
    for cell in nb.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if data.pop(WIDGET_MIME, None) is not None:
                data.setdefault("text/html", ONLY_LIVE)


def title(nb) -> str:
    """A notebook's title: the heading of its first cell of text."""
    for cell in nb.cells:
        if cell.cell_type == "markdown" and (found := re.search(r"^#\s+(.+)$", cell.source, flags=re.M)):
            return found[1].strip()
    return ""


def formulas_to_mathml(text: str) -> str:
    """Markdown with its $…$ and $$…$$ turned into MathML, which browsers draw themselves."""
    from latex2mathml.converter import convert

    text = re.sub(r"\$\$(.+?)\$\$", lambda m: convert(m[1].strip(), display="block"), text, flags=re.S)
    text = re.sub(r"(?<![\\$])\$([^$\n]+)\$", lambda m: convert(m[1]), text)
    # a prime is a raised sign as it is: raised and made smaller once more it is a speck
    return re.sub(
        r"<msup>(<mi>[^<]+</mi>)<mi>(&#x0203[23];)</mi></msup>", r'<mrow>\1<mo lspace="0" rspace="0">\2</mo></mrow>', text
    )
