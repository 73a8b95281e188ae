"""The player of exported pages: controls and pictures in plain HTML and JavaScript, without a kernel or a network."""

from __future__ import annotations

import html
import json

from nic_helpers.course.frames import Picture, css_width, ordered


def player(explorer) -> str:
    """The page's form of an explorer (widgets.py): with its first frame even where scripts do not run."""
    several = len(explorer.names) - bool(explorer.flicker) > 1
    uris: list[str] = []
    place: dict[bytes, int] = {}  # each picture is embedded once; the first frame's are the page's images themselves
    for pictures in explorer.frames.values():
        for picture in pictures.values():
            if picture.data not in place:
                place[picture.data] = len(uris)
                uris.append(picture.uri)
    first = [place[p.data] for p in explorer.frames[explorer.key0].values()]
    data = {
        "sizes": [len(labels) for labels in explorer.axes.values()],
        "labels": [[str(label) for label in labels] for labels in explorer.axes.values()],
        "uris": ["" if k in first else uri for k, uri in enumerate(uris)],
        "frames": [[place[p.data] for p in pictures.values()] for pictures in explorer.frames.values()],
        "texts": list(explorer.texts.values()),
        "flicker": [explorer.names.index(name) for name in explorer.flicker or ()],
        "names": explorer.names,
    }
    images = [_figure(explorer, name, picture, several) for name, picture in explorer.frames[explorer.key0].items()]
    return PLAYER.format(
        label=html.escape(explorer.describes or "Pictures with controls"),
        controls="".join(_input(name, labels) for name, labels in explorer.axes.items()),
        turns=TURNS if explorer.flicker else "",
        pictures="".join(images),
        text=html.escape(explorer.texts[explorer.key0]),
        count=len(explorer.frames),
        data=json.dumps(data, ensure_ascii=False).replace("<", "\\u003c"),
        style=STYLE,
        script=SCRIPT,
    )


def _figure(explorer, name: str, picture: Picture, several: bool) -> str:
    width, height = picture.size
    return (
        f'<figure><img src="{picture.uri}" width="{width}" height="{height}" alt="{html.escape(explorer.alt(name))}"'
        f' style="width:{css_width(picture, several)}px"><figcaption>{html.escape(name)}</figcaption></figure>'
    )


def _input(name: str, labels: list) -> str:
    if ordered(labels):
        return (
            f'<label><span>{html.escape(name)}</span><input type="range" min="0" max="{len(labels) - 1}" step="1" value="0"'
            f' aria-valuetext="{html.escape(str(labels[0]))}"><output>{html.escape(str(labels[0]))}</output></label>'
        )
    options = "".join(f'<option value="{k}">{html.escape(str(label))}</option>' for k, label in enumerate(labels))
    return f"<label><span>{html.escape(name)}</span><select>{options}</select></label>"


PLAYER = """<div class="nic-explore" role="group" aria-label="{label}">{style}
<div class="nic-controls" hidden>{controls}{turns}</div>
<noscript><p>Without JavaScript, this is the first of {count} views; the notebook has them all.</p></noscript>
<div class="nic-pictures">{pictures}</div>
<p class="nic-text" aria-live="polite">{text}</p>
<script type="application/json">{data}</script>{script}</div>"""

TURNS = """<span class="nic-turns"><button type="button" title="show the other picture in the same place (key: f)"></button>
<button type="button" aria-pressed="false">alternate</button></span>"""

STYLE = """<style>
.nic-explore { max-width: 100%; margin: .5em 0; font-family: system-ui, sans-serif; font-size: 14px; line-height: 1.45; }
.nic-explore .nic-controls:not([hidden]) { display: flex; flex-wrap: wrap; gap: .4em 1.6em; align-items: center; margin-bottom: .5em; }
.nic-explore label { display: flex; align-items: center; gap: .6em; max-width: 100%; }
.nic-explore input[type=range] { width: 14em; max-width: 55vw; min-width: 6em; height: 2em; }
.nic-explore output { min-width: 5em; font-variant-numeric: tabular-nums; }
.nic-explore select, .nic-explore button { font: inherit; padding: .25em .7em; min-height: 2.2em; }
.nic-explore button[aria-pressed=true] { outline: 2px solid currentColor; }
.nic-explore .nic-pictures { display: flex; flex-wrap: wrap; gap: .8em; }
.nic-explore figure { margin: 0; max-width: 100%; }
.nic-explore figure img { display: block; max-width: 100%; height: auto; }
.nic-explore figcaption { font-size: 13px; opacity: .8; }
.nic-explore .nic-away { display: none; }
.nic-explore .nic-text { white-space: pre-line; margin: .5em 0 0; min-height: 1.5em; }
</style>"""

SCRIPT = """<script>(function () {
  const box = document.currentScript.closest(".nic-explore");
  if (!box || box.dataset.on) return;
  box.dataset.on = "1";
  const d = JSON.parse(box.querySelector('script[type="application/json"]').textContent);
  const images = [...box.querySelectorAll("figure img")], figures = [...box.querySelectorAll("figure")];
  d.frames[0].forEach((k, i) => { d.uris[k] = images[i].src; });
  const keep = d.uris.map((uri) => { const i = new Image(); i.src = uri; return i; });
  const inputs = [...box.querySelectorAll("input, select")], text = box.querySelector(".nic-text");
  function draw() {
    let at = 0;
    inputs.forEach((input, a) => {
      at = at * d.sizes[a] + Number(input.value);
      if (input.type === "range") {
        input.setAttribute("aria-valuetext", d.labels[a][input.value]);
        input.nextElementSibling.textContent = d.labels[a][input.value];
      }
    });
    d.frames[at].forEach((k, i) => { if (images[i].src !== d.uris[k]) images[i].src = keep[k].src; });
    text.textContent = d.texts[at];
  }
  inputs.forEach((input) => input.addEventListener("input", draw));
  if (d.flicker.length) {
    const [swap, run] = box.querySelectorAll(".nic-turns button");
    let shown = 0, timer = null;
    const turn = () => {
      d.flicker.forEach((i, k) => figures[i].classList.toggle("nic-away", k !== shown));
      swap.textContent = "shown: " + d.names[d.flicker[shown]];
    };
    const next = () => { shown = 1 - shown; turn(); };
    const stop = () => { clearInterval(timer); timer = null; run.setAttribute("aria-pressed", "false"); };
    swap.addEventListener("click", () => { stop(); next(); });
    run.addEventListener("click", () => {
      if (timer) return stop();
      timer = setInterval(next, 600);
      run.setAttribute("aria-pressed", "true");
    });
    box.addEventListener("keydown", (e) => {
      if (e.key === "f" && !e.ctrlKey && !e.metaKey && !e.altKey) { stop(); next(); e.preventDefault(); }
    });
    turn();
  }
  box.querySelector(".nic-controls").hidden = false;
  draw();
})();</script>"""
