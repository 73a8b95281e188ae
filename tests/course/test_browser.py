"""The course in a real browser: JupyterLab as a reader opens it, and exported pages with and without JavaScript.

Needs Chromium (Debian: apt install chromium; NIC_CHROMIUM names another one) and the test extra's playwright; skipped without.
"""

import contextlib
import itertools
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
import urllib.request

import nbformat
import pytest
import torch

from nic_helpers.course import pages
from nic_helpers.course.widgets import WIDGET_MIME, Frame, explore
from nic_helpers.settings import PROJECT

CHROMIUM = os.environ.get("NIC_CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
SHA = "async e => { const b = await (await fetch(e.src)).arrayBuffer(); const h = await crypto.subtle.digest('SHA-256', b);"
SHA += " return [...new Uint8Array(h)].map(x => x.toString(16).padStart(2, '0')).join('') }"

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt install chromium, or name one with NIC_CHROMIUM")

SMALL = [
    """import time
import torch
from nic_helpers.course.widgets import Frame, explore, live
ramp = torch.linspace(0, 1, 128).expand(3, 96, 128)""",
    """frames = {}
for k, e in enumerate(["1/255", "2/255", "4/255"]):
    for codec in ["hyperprior", "mbt2018"]:
        pictures = {"source": ramp, "attacked": (ramp * (1 - 0.3 * k)).flip(1 + (codec > "i"))}
        frames[e, codec] = Frame(pictures, f"ε = {e}, {codec}: file ×{k + 1}")
explore({"ε": ["1/255", "2/255", "4/255"], "codec": ["hyperprior", "mbt2018"]}, frames, flicker=("source", "attacked"))""",
    """def steps():
    for k in range(400):
        time.sleep(0.02)
        yield k / 399, ramp * k / 399, f"step {k}"
live(steps, button="Attack")""",
]


@pytest.fixture(scope="module")
def chromium():
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install -e .[test]")
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def tab(chromium):
    """A function that opens a tab of a given width; errors of the page's own scripts fail the test."""
    contexts, errors = [], []

    def open_tab(width=1280, height=900, **options):
        contexts.append(chromium.new_context(viewport={"width": width, "height": height}, **options))
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: errors.append(error))
        page.set_default_timeout(60_000)
        return page

    yield open_tab
    for context in contexts:
        context.close()
    assert not errors


def notebook(sources):
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    nb.cells.insert(0, nbformat.v4.new_markdown_cell("# 90 · Small: does it move?\n\nLong lines. " + "A word and another. " * 40))
    nb.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return nb


# Exported pages


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The page of a notebook with two axes, a pair that flickers, a wide table and a long line of code."""
    ramp = torch.linspace(0, 1, 128).expand(3, 96, 128)
    frames = {
        (e, c): Frame({"source": ramp, "attacked": (ramp * e / 4).flip(d)}, f"{e}, {c}")
        for e in (1, 2, 4)
        for c, d in (("a", 1), ("b", 2))
    }
    nb = notebook(["x = 1  # " + "a long line " * 30])
    shown = explore({"ε": [1, 2, 4], "codec": ["a", "b"]}, frames, flicker=("source", "attacked"), describes="a ramp")
    table = "<table><tr>" + "".join(f"<td>column{k}</td>" for k in range(40)) + "</tr></table>"
    for data in (shown._repr_mimebundle_() | {WIDGET_MIME: {"model_id": "0"}}, {"text/html": table, "text/plain": ""}):
        nb.cells[-1].outputs.append(nbformat.v4.new_output("display_data", data))
    folder = tmp_path_factory.mktemp("page")
    nbformat.write(nb, folder / "90_small.ipynb")
    pages.write_html(folder / "90_small.ipynb", folder / "90_small.html")
    return (folder / "90_small.html").as_uri()


@pytest.mark.parametrize("width", [1280, 390])
def test_a_pages_slider_moves_by_mouse_and_keyboard(exported, tab, width):
    page, asked = tab(width), []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(exported)
    slider, text, images = page.locator("input[type=range]"), page.locator(".nic-text"), page.locator(".nic-explore img")
    before = images.nth(1).evaluate(SHA)
    assert text.inner_text() == "1, a" and images.nth(0).is_visible() and not images.nth(1).is_visible()
    place = slider.bounding_box()
    page.mouse.click(place["x"] + place["width"] - 6, place["y"] + place["height"] / 2)
    assert text.inner_text() == "4, a" and page.locator("output").inner_text() == "4"
    after = images.nth(1).evaluate(SHA)
    slider.focus()
    page.keyboard.press("ArrowLeft")
    assert text.inner_text() == "2, a" and len({before, after, images.nth(1).evaluate(SHA)}) == 3
    page.locator("select").select_option(label="b")
    assert text.inner_text() == "2, b"
    page.keyboard.press("f")
    assert images.nth(1).is_visible() and not images.nth(0).is_visible()
    page.get_by_role("button", name="alternate").click()
    images.nth(0).wait_for(state="visible")
    images.nth(1).wait_for(state="visible")
    page.get_by_role("button", name="shown").press("Enter")  # stops the alternation, and shows the other
    assert page.get_by_role("button", name="alternate").get_attribute("aria-pressed") == "false"
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert all(url.startswith(("file:", "data:", "blob:")) for url in asked)


def test_a_page_without_javascript_has_its_figures(exported, tab):
    page = tab(java_script_enabled=False)
    page.goto(exported)
    images = page.locator(".nic-explore img")
    assert images.count() == 2 and all(images.nth(k).bounding_box()["height"] > 90 for k in range(2))
    assert page.locator(".nic-text").is_visible() and not page.locator("input").is_visible()
    assert "Without JavaScript" in page.locator("noscript").inner_text()


# JupyterLab


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """JupyterLab on the loopback, in folders of its own, with copies of the course's notebooks and a small one."""
    top = tmp_path_factory.mktemp("lab")
    root, runtime = top / "course", top / "runtime"
    (root / "notebooks").mkdir(parents=True)
    for path in (PROJECT / "notebooks").glob("*.ipynb"):
        shutil.copy2(path, root / "notebooks")
    nbformat.write(notebook(SMALL), root / "notebooks" / "90_small.ipynb")
    own = {f"JUPYTER_{name}_DIR": str(top / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
    own |= {"JUPYTERLAB_SETTINGS_DIR": str(top / "settings"), "JUPYTERLAB_WORKSPACES_DIR": str(top / "workspaces")}
    own |= {"IPYTHONDIR": str(top / "ipython"), "NIC_BUILD_DIR": str(top / "build"), "JUPYTER_PREFER_ENV_PATH": "1"}
    news = top / "settings" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    news.parent.mkdir(parents=True)
    news.write_text('{"fetchNews": "false"}')  # or its question lies over the notebook
    token = secrets.token_hex(16)
    command = [sys.executable, "-P", "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1"]
    command += [
        "--ServerApp.port=0",
        f"--ServerApp.root_dir={root}",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]
    with (top / "log").open("w") as log:
        server = subprocess.Popen(
            command, cwd=root, env={**os.environ, **own, "JUPYTER_TOKEN": token}, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            url = address(server, runtime, top / "log")
            yield root, url, token
        finally:
            for kernel in ask(url, token, "api/kernels") if server.poll() is None else []:
                ask(url, token, f"api/kernels/{kernel['id']}", "DELETE")
            server.terminate()
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()


def address(server, runtime, log):
    for _ in range(600):
        assert server.poll() is None, log.read_text()
        for path in runtime.glob("jpserver-*.json"):
            with contextlib.suppress(ValueError, OSError):
                url = f"http://127.0.0.1:{json.loads(path.read_text())['port']}/"
                urllib.request.urlopen(url + "api", timeout=5).close()
                return url
        time.sleep(0.2)
    raise AssertionError(log.read_text())


def ask(url, token, what, method="GET"):
    request = urllib.request.Request(url + what, method=method, headers={"Authorization": f"token {token}"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.loads(answer.read() or "null")


def run_all(page, lab, name, seconds):
    """Open a notebook from the file browser, run all of it, and return its cells as saved."""
    root, url, token = lab
    page.goto(f"{url}lab/workspaces/{name}/tree/notebooks?token={token}&reset")
    page.locator(f'.jp-DirListing-item[title^="Name: {name}.ipynb"]').dblclick()
    page.locator(".jp-NotebookPanel .jp-Notebook").wait_for()
    page.wait_for_function("() => /Idle/.test(document.querySelector('#jp-main-statusbar')?.innerText)")
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.locator('.lm-Menu-item[data-command="runmenu:run-all"]').click()
    end, quiet = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        page.wait_for_timeout(500)
        quiet = quiet + 1 if all(k["execution_state"] == "idle" for k in ask(url, token, "api/kernels")) else 0
        if quiet >= 4:
            page.keyboard.press("Control+s")
            page.wait_for_timeout(1000)
            cells = [c for c in nbformat.read(root / "notebooks" / f"{name}.ipynb", as_version=4).cells if c.cell_type == "code"]
            failed = [o for c in cells for o in c.outputs if o.output_type == "error"]
            assert not failed, failed[0]
            if all(c.execution_count for c in cells if c.source.strip()):
                return cells
            quiet = 0
    raise AssertionError(f"{name} did not finish in {seconds} s")


def scroll_to(page, locator):
    """JupyterLab draws only the cells in view: go through the notebook until one has it."""
    page.locator(".jp-WindowedPanel-outer").first.evaluate("e => e.scrollTo(0, 0)")
    for _ in range(200):
        page.wait_for_timeout(150)
        if locator.count() and locator.first.is_visible():
            locator.first.scroll_into_view_if_needed()
            page.wait_for_timeout(300)
            return locator.first
        step = "e => { const y = e.scrollTop; e.scrollBy(0, e.clientHeight / 2); return e.scrollTop > y }"
        if not page.locator(".jp-WindowedPanel-outer").first.evaluate(step):
            page.wait_for_timeout(500)
            if not locator.count():
                break
    raise AssertionError("not in the notebook")


def move_slider(page):
    """The notebook's first slider, by mouse and by keyboard: each changes the picture's bytes and the text."""
    handle = scroll_to(page, page.locator(".jp-OutputArea-output .noUi-handle"))
    output = page.locator(".jp-OutputArea-output").filter(has=page.locator(".noUi-handle")).first
    seen = [state(output)]
    track, at = output.locator(".noUi-base").first.bounding_box(), handle.bounding_box()
    page.mouse.move(at["x"] + at["width"] / 2, at["y"] + at["height"] / 2)
    page.mouse.down()
    page.mouse.move(track["x"] + track["width"], at["y"] + at["height"] / 2, steps=8)
    page.mouse.up()
    seen.append(changed(page, output, seen[-1]))
    handle.focus()
    page.keyboard.press("ArrowLeft")
    seen.append(changed(page, output, seen[-1]))
    assert all(a[0] != b[0] and a[1] != b[1] for a, b in itertools.pairwise(seen))
    return output


def state(output):
    return [output.locator("img").nth(k).evaluate(SHA) for k in range(output.locator("img").count())], output.inner_text()


def changed(page, output, before, seconds=10):
    end = time.monotonic() + seconds
    while (now := state(output))[0] == before[0] or now[1] == before[1]:
        assert time.monotonic() < end, f"nothing moved: {now[1]}"
        page.wait_for_timeout(50)
    return now


def test_the_controls_move_in_jupyterlab(lab, tab):
    page = tab(1280, 1000)
    run_all(page, lab, "90_small", 120)
    output = move_slider(page)
    assert output.locator("input[type=range]").count() == 0, "the page's player shows beside the widget"
    images = output.locator("img")
    output.get_by_role("button", name="attacked").press("Enter")
    images.nth(1).wait_for(state="visible")
    assert not images.nth(0).is_visible()
    before = state(output)
    output.locator("select").select_option(label="mbt2018")
    assert "mbt2018" in changed(page, output, before)[1]
    scroll_to(page, page.get_by_role("button", name="Attack", exact=True)).click()
    page.get_by_text("step 3", exact=False).wait_for()
    page.get_by_role("button", name="Cancel", exact=True).click()
    page.get_by_text("Stopped.").wait_for()


@pytest.mark.parametrize("name", ["00_start_here", "03_fgsm"])
def test_a_notebook_runs_in_jupyterlab_and_its_slider_moves(lab, tab, name):
    page = tab(1280, 1000)
    cells = run_all(page, lab, name, 900)
    assert any(WIDGET_MIME in o.get("data", {}) and "frames by" in o.data["text/plain"] for c in cells for o in c.outputs)
    dots = scroll_to(page, page.locator(".jp-InputPlaceholder"))
    folded = page.locator(".jp-CodeCell").filter(has=page.locator(".jp-InputPlaceholder")).first.element_handle()
    assert folded.query_selector(".jp-OutputArea-output").is_visible() and not folded.query_selector(".jp-InputArea")
    dots.click()
    folded.wait_for_selector(".jp-InputArea", state="visible")
    move_slider(page)
