import os
import re

import nbformat
import pytest
from PIL import Image

from nic_helpers.course import pages, runner, site
from nic_helpers.settings import PROJECT


def notebook(first, code="1 + 1"):
    parameters = nbformat.v4.new_code_cell("profile = 'quick'", metadata={"tags": ["parameters"]})
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(first), parameters, nbformat.v4.new_code_cell(code)])
    nb.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return nb


@pytest.fixture
def course(tmp_path):
    """Three notebooks, of which two have pages, and a build folder."""
    folder, build = tmp_path / "notebooks", tmp_path / "build"
    folder.mkdir()
    texts = {
        "00_one": "# 00 · Is it one?\n\n**Goals.** See *one* & see it well. Then more.",
        "01_two": "# 01 · What is two?\n\n**Time.** Long.\n\nAfter it you can:\n\n- count to `two`,\n  or more;\n- stop.",
        "02_three": "# 02 · Three\n\n**Back:** [01](01_two.ipynb)",
    }
    for name, text in texts.items():
        nbformat.write(notebook(text), folder / f"{name}.ipynb")
    for name in ("00_one", "02_three"):
        pages.write_html(folder / f"{name}.ipynb", build / "html" / f"{name}.html")
    return folder, build, sorted(folder.glob("*.ipynb"))


def test_the_index_has_a_card_for_each_notebook(course, tmp_path):
    _, build, notebooks = course
    (build / "figures").mkdir()
    Image.new("RGB", (900, 600), "red").save(build / "figures" / "00_poster.png")
    index = site.write_site(build, notebooks, tmp_path / "none").read_text()
    assert 'href="00_one.html"' in index and "00 · Is it one?" in index and "See one &amp; see it well." in index
    assert "count to two, or more." in index and "run_all.sh --only 01" in index and 'href="01_two.html"' not in index
    assert index.count("<img ") == 1 and 'src="data:image/webp' in index
    assert not re.search(r"https?://|<script", index) and "prefers-color-scheme: dark" in index and "{cards}" not in index


def test_a_page_has_its_neighbours_and_the_index(course):
    folder, build, notebooks = course
    for _ in range(2):  # a second time, too
        site.write_site(build, notebooks)
        page = (build / "html" / "00_one.html").read_text()
        assert page.count('<nav class="course-bar"') == 2 and page.count('href="02_three.html"') == 2, (
            "the one between is not built"
        )
        assert 'rel="prev"' not in page and page.count('href="index.html"') == 2
    pages.write_html(folder / "01_two.ipynb", build / "html" / "01_two.html")
    site.write_site(build, notebooks)
    page = (build / "html" / "00_one.html").read_text()
    assert 'href="01_two.html"' in page and 'href="02_three.html"' not in page


def test_the_repository_s_documents_are_pages_too(course):
    """Also those that documents lead to; what has no page keeps its words and loses its link, and a second time nothing changes."""
    folder, build, notebooks = course
    text = "# 00 · One\n\n[strength](../docs/strength.md), [rows](../data/results/05_optimisers.csv), [two](02_three.ipynb)"
    nbformat.write(notebook(text), folder / "00_one.ipynb")
    pages.write_html(folder / "00_one.ipynb", build / "html" / "00_one.html")
    for _ in range(2):
        site.write_site(build, notebooks)
        page = (build / "html" / "00_one.html").read_text()
        assert 'href="docs-strength.html"' in page and 'href="02_three.html"' in page
        assert "rows" in page and "optimisers.csv" not in page
        document = (build / "html" / "docs-strength.html").read_text()
        assert 'src="data:image/png' in document and "<h1" in document and not re.search(r'href="[^"]*\.(md|ipynb)"', document)
        for link in re.findall(r'href="([^"#:]+)', document):
            assert re.match(r"\d\d_", link) or (build / "html" / link).is_file(), link


def test_a_folded_cell_is_folded_in_the_page_and_its_answer_is_not(tmp_path):
    nb = notebook("# 00 · One", code="counted = 1")
    nb.cells.append(nbformat.v4.new_code_cell("print(counted + 1)", metadata={"jupyter": {"source_hidden": True}}))
    nb.cells[-1].outputs = [nbformat.v4.new_output("stream", text="it was two")]
    nbformat.write(nb, tmp_path / "00_one.ipynb")
    pages.write_html(tmp_path / "00_one.ipynb", tmp_path / "00_one.html")
    page = (tmp_path / "00_one.html").read_text()
    folded = re.findall(r'<details class="course-folded">.*?</details>', page, flags=re.S)
    assert len(folded) == 1 and "print" in folded[0] and "it was two" not in folded[0] and "it was two" in page


def test_a_page_fetches_nothing_and_shows_no_dead_control(tmp_path):
    nb = notebook("# 00 · A < B\n\n[next](01_two.ipynb#exercises)")
    view = {pages.WIDGET_MIME: {"model_id": "1"}, "text/plain": "VBox(children=(IntSlider(value=0),))"}
    nb.cells[-1].outputs = [
        nbformat.v4.new_output("display_data", view),
        nbformat.v4.new_output("display_data", {**view, "text/html": "<b>player</b>"}),
    ]
    nb.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {"state": {}, "version_major": 2, "version_minor": 0}}
    nbformat.write(nb, tmp_path / "00_one.ipynb")
    pages.write_html(tmp_path / "00_one.ipynb", tmp_path / "00_one.html")
    page = (tmp_path / "00_one.html").read_text()
    assert "VBox" not in page and "<b>player</b>" in page and page.count(pages.ONLY_LIVE) == 1
    assert not re.search(r'<(?:script|link|img)[^>]*(?:src|href)="(?:http|")|from ["\']https?:|cdnjs|unpkg|require\.min', page)
    assert "<title>00 · A &lt; B</title>" in page and 'href="01_two.html#exercises"' in page


def test_every_notebook_of_the_course_has_a_title_and_a_line():
    notebooks = sorted((PROJECT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    for e in (site.entry(path, True) for path in notebooks):
        assert len(e.title) > 5 and 20 < len(e.summary) <= 202 and not re.search(r"[*`\[\]]|^\d\d", e.title + e.summary), e


def test_html_writes_pages_from_what_was_run_or_runs(course, capsys):
    folder, build, _ = course
    before = dict(os.environ)
    try:
        assert runner.main(["--html", "--only", "00"], folder, build) == 0  # nothing was run: runs
        assert "ok" in capsys.readouterr().out and (build / "executed" / "00_one.ipynb").is_file()
        (build / "html" / "00_one.html").unlink()
        stamp = (build / "executed" / "00_one.ipynb").stat().st_mtime_ns
        assert runner.main(["--html"], folder, build) == 0
        said = capsys.readouterr().out
        assert "page written, not run" in said and "has not been run" in said and "index.html" in said
        assert (build / "html" / "00_one.html").is_file() and (build / "executed" / "00_one.ipynb").stat().st_mtime_ns == stamp
        assert runner.main(["--html", "--publish", "--profile", "standard"], folder, build) == 2
    finally:
        os.environ.clear()
        os.environ.update(before)
