"""Controls over pictures that are computed beforehand, so that no move of a slider waits for a codec; and a live button.

:func:`explore` shows the pictures of one combination of choices at a time. In JupyterLab it is an ipywidget; in an
exported page it is a small player in plain JavaScript, which needs neither a kernel nor a network. Draw the key frames
as a static figure first: paper, and a run without a screen, show only that.
"""

from __future__ import annotations

import base64
import html
import io
import itertools
import json
import re
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import ipywidgets
from matplotlib.figure import Figure
from torch import Tensor

from nic_helpers.images import png_bytes

WIDGET_MIME = "application/vnd.jupyter.widget-view+json"
NOT_LIVE = "This cell is live: open the notebook in JupyterLab"
FIGURE_DPI = 120


@dataclass(frozen=True)
class Frame:
    """What one combination of choices shows: pictures by name ([3, H, W] in [0, 1], or matplotlib figures) and a line."""

    pictures: Mapping[str, Tensor | Figure]
    text: str = ""


@dataclass(frozen=True)
class Picture:
    """A picture as the bytes of a file."""

    data: bytes
    format: str  # png or webp
    size: tuple[int, int]  # pixels, [width, height]
    drawn: bool  # a figure, not a photograph

    @property
    def uri(self) -> str:
        return f"data:image/{self.format};base64,{base64.b64encode(self.data).decode()}"


def explore(
    axes: Mapping[str, Sequence[Hashable]],
    frames: Mapping[Hashable, Frame],
    flicker: tuple[str, str] | None = None,
    describes: str = "",
) -> Explorer:
    """The frames of every combination of the axes' labels, one at a time, chosen by a slider or a list per axis.

    ``axes``: name -> labels in order. ``frames``: one frame for each combination, by the tuple of its labels (with one
    axis the label alone will do). ``flicker`` names two pictures of a frame that take turns in one place.
    ``describes``: what the pictures show, for readers who cannot see them.
    """
    axes = {str(name): list(labels) for name, labels in axes.items()}
    _check_axes(axes)
    keyed = _check_frames(axes, frames)
    names = list(next(iter(keyed.values())).pictures)
    if flicker is not None:
        flicker = tuple(flicker)
        if len(flicker) != 2 or flicker[0] == flicker[1] or not set(flicker) <= set(names):
            raise ValueError(f"flicker takes two of the pictures' names, {names}, and got {flicker!r}")
    seen: dict[int, Picture] = {}  # a source image that all frames share is packed once
    packed = {key: {n: _pack(p, f"{n!r} of frame {key}", seen) for n, p in f.pictures.items()} for key, f in keyed.items()}
    for frame in keyed.values():
        _close(frame.pictures.values())
    _check_sizes(packed, flicker)
    return Explorer(axes, packed, {key: str(f.text) for key, f in keyed.items()}, flicker, describes)


def _check_axes(axes: dict[str, list]) -> None:
    if not axes:
        raise ValueError('explore needs at least one axis, like {"ε": ["2/255", "8/255"]}')
    for name, labels in axes.items():
        if not labels:
            raise ValueError(f"axis {name!r} has no labels: give at least one")
        if len({str(label) for label in labels}) < len(labels):
            raise ValueError(f"axis {name!r} has a label twice: {labels}; each label must differ")


def _check_frames(axes: dict[str, list], frames: Mapping) -> dict[tuple, Frame]:
    wanted = list(itertools.product(*axes.values()))
    keyed = {key if isinstance(key, tuple) and (len(axes) > 1 or key in wanted) else (key,): f for key, f in frames.items()}
    missing, unknown = [k for k in wanted if k not in keyed], [k for k in keyed if k not in wanted]
    if missing:
        raise ValueError(f"{len(missing)} of {len(wanted)} combinations have no frame, first {missing[0]}: add them to frames")
    if unknown:
        raise ValueError(f"frame {unknown[0]} is no combination of the axes' labels: leave it out, or add its labels to axes")
    names = None
    for key in wanted:
        frame = keyed[key]
        if not isinstance(frame, Frame):
            raise ValueError(f'frame {key} is a {type(frame).__name__}: write Frame({{"name": picture}}, "text")')
        if not frame.pictures:
            raise ValueError(f"frame {key} has no pictures: give at least one")
        names = names or list(frame.pictures)
        if list(frame.pictures) != names:
            raise ValueError(
                f"frame {key} has the pictures {list(frame.pictures)}, the first frame {names}: give all the same names"
            )
    return {key: keyed[key] for key in wanted}


def _check_sizes(packed: dict[tuple, dict[str, Picture]], flicker: tuple[str, str] | None) -> None:
    first_key, first = next(iter(packed.items()))
    for key, pictures in packed.items():
        for name, picture in pictures.items():
            if picture.size != first[name].size:
                raise ValueError(
                    f"picture {name!r} has {picture.size} pixels in frame {key} and {first[name].size} in frame {first_key}:"
                    " make them one size, or the view jumps"
                )
    if flicker and first[flicker[0]].size != first[flicker[1]].size:
        raise ValueError(f"{flicker[0]!r} and {flicker[1]!r} take turns in one place: make them one size")


def _pack(picture: Tensor | Figure, what: str, seen: dict[int, Picture] | None = None) -> Picture:
    """A picture as the smaller of PNG and lossless WebP; ``seen`` keeps what has been packed, by identity."""
    seen = {} if seen is None else seen
    if id(picture) not in seen:
        if isinstance(picture, Figure):
            file = io.BytesIO()
            picture.savefig(file, format="png", dpi=FIGURE_DPI, bbox_inches=None, facecolor="white")
            seen[id(picture)] = _smaller(file.getvalue(), drawn=True)
        else:
            _check_picture(picture, what)
            seen[id(picture)] = _smaller(png_bytes(picture), drawn=False)
    return seen[id(picture)]


def _smaller(png: bytes, drawn: bool) -> Picture:
    from PIL import Image

    image = Image.open(io.BytesIO(png)).convert("RGB")
    file = io.BytesIO()
    image.save(file, format="webp", lossless=True, quality=40, method=3)
    data, kind = min((file.getvalue(), "webp"), (png, "png"), key=lambda pair: len(pair[0]))
    return Picture(data, kind, image.size, drawn)


def _check_picture(picture, what: str) -> None:
    if not isinstance(picture, Tensor):
        raise ValueError(f"picture {what} is a {type(picture).__name__}: give a tensor [3, H, W] in [0, 1] or a matplotlib figure")
    if picture.dim() != 3 or picture.shape[0] != 3 or not picture.numel():
        hint = ": take one image of the batch, x[0]" if picture.dim() == 4 else ""
        raise ValueError(f"picture {what} has shape {list(picture.shape)}, and [3, H, W] is wanted{hint}")
    if not picture.is_floating_point():
        raise ValueError(f"picture {what} is {picture.dtype}: give floats in [0, 1], like x.float() / 255")
    low, high = float(picture.min()), float(picture.max())
    if not (low >= -1e-6 and high <= 1 + 1e-6):  # NaN fails too
        raise ValueError(f"picture {what} has values from {low:.3g} to {high:.3g}: bring them into [0, 1], like x.clamp(0, 1)")


def _close(pictures) -> None:
    """A figure that is a frame is not drawn a second time at the end of the cell."""
    from matplotlib import pyplot

    for picture in pictures:
        if isinstance(picture, Figure):
            pyplot.close(picture)


def ordered(labels: Sequence) -> bool:
    """Whether labels are steps of a scale (numbers, all but one of them at least), which a slider suits; else a list does."""
    number = re.compile(r"(?:\w+\s*=\s*)?[-+−±≈~<>≤≥×*]*\s*\.?\d")
    return len(labels) > 1 and sum(bool(number.match(str(label))) for label in labels) >= max(
        len(labels) - 1, 2 * (len(labels) == 2)
    )


def css_width(picture: Picture, several: bool) -> int:
    """The width on the screen: photographs at a whole multiple of their pixels."""
    if picture.drawn:
        return picture.size[0] * 3 // 4
    return picture.size[0] * max(1, round((320 if several else 400) / picture.size[0]))


class Explorer:
    """What :func:`explore` returns: ``widget`` for JupyterLab, ``html`` for pages; a notebook shows whichever it can."""

    def __init__(self, axes: dict[str, list], frames: dict[tuple, dict[str, Picture]], texts: dict[tuple, str], flicker, describes):
        self.axes, self.frames, self.texts, self.flicker, self.describes = axes, frames, texts, flicker, describes
        self.key = next(iter(frames))
        self._widget = None

    @property
    def names(self) -> list[str]:
        """The pictures' names."""
        return list(self.frames[self.key])

    @property
    def widget(self) -> ipywidgets.VBox:
        """The ipywidget, made once: the controls, the pictures, the line of text."""
        if self._widget is None:
            self._widget = self._make_widget()
        return self._widget

    def _make_widget(self) -> ipywidgets.VBox:
        self.controls = [_control(name, labels) for name, labels in self.axes.items()]
        self.images = {n: _image(p, len(self.names) - bool(self.flicker) > 1) for n, p in self.frames[self.key].items()}
        for name, image in self.images.items():
            image.alt = self._alt(name)
        self.text = ipywidgets.HTML(_line(self.texts[self.key]))
        boxes = {name: ipywidgets.VBox([ipywidgets.Label(name), image]) for name, image in self.images.items()}
        row = [ipywidgets.HBox(list(boxes.values()), layout={"flex_flow": "row wrap", "max_width": "100%"})]
        if self.flicker:
            row.insert(0, self._make_turns(boxes))
        for control in self.controls:
            control.observe(lambda _: self._move(tuple(c.value for c in self.controls)), names="value")
        head = ipywidgets.HBox(self.controls, layout={"flex_flow": "row wrap", "max_width": "100%"})
        return ipywidgets.VBox([head, *row, self.text], layout={"align_items": "flex-start"})

    def _make_turns(self, boxes: dict[str, ipywidgets.VBox]) -> ipywidgets.HBox:
        """Buttons for the picture to see, and a play button that alternates them."""
        self.turns = ipywidgets.ToggleButtons(
            options=list(self.flicker), tooltips=["show this picture in the place of the other"] * 2
        )
        self.turns.style.button_width = "auto"
        self.play = ipywidgets.Play(min=0, max=1, interval=600, repeat=True, show_repeat=False)

        def turn(_=None) -> None:
            for name in self.flicker:
                boxes[name].layout.display = None if name == self.turns.value else "none"

        self.turns.observe(turn, names="value")
        self.play.observe(lambda change: setattr(self.turns, "index", change["new"]), names="value")
        turn()
        return ipywidgets.HBox([self.turns, self.play], layout={"flex_flow": "row wrap"})

    def _move(self, key: tuple) -> None:
        self.key = key
        for name, picture in self.frames[key].items():
            image = self.images[name]
            if image.value != picture.data:
                with image.hold_sync():
                    image.format, image.value = picture.format, picture.data
        self.text.value = _line(self.texts[key])

    def _alt(self, name: str) -> str:
        return f"{self.describes}: {name}" if self.describes else name

    @property
    def html(self) -> str:
        """The player: complete in itself, and with its first frame where scripts do not run."""
        several = len(self.names) - bool(self.flicker) > 1
        uris: list[str] = []
        place: dict[bytes, int] = {}  # each picture is embedded once; the first frame's are the page's images themselves
        for pictures in self.frames.values():
            for picture in pictures.values():
                if picture.data not in place:
                    place[picture.data] = len(uris)
                    uris.append(picture.uri)
        first = [place[p.data] for p in self.frames[self.key0].values()]
        data = {
            "sizes": [len(labels) for labels in self.axes.values()],
            "labels": [[str(label) for label in labels] for labels in self.axes.values()],
            "uris": ["" if k in first else uri for k, uri in enumerate(uris)],
            "frames": [[place[p.data] for p in pictures.values()] for pictures in self.frames.values()],
            "texts": list(self.texts.values()),
            "flicker": [self.names.index(name) for name in self.flicker or ()],
            "names": self.names,
        }
        images = [self._figure(name, picture, several) for name, picture in self.frames[self.key0].items()]
        return PLAYER.format(
            label=html.escape(self.describes or "Pictures with controls"),
            controls="".join(_input(name, labels) for name, labels in self.axes.items()),
            turns=TURNS if self.flicker else "",
            pictures="".join(images),
            text=html.escape(self.texts[self.key0]),
            count=len(self.frames),
            data=json.dumps(data, ensure_ascii=False).replace("<", "\\u003c"),
            style=STYLE,
            script=SCRIPT,
        )

    @property
    def key0(self) -> tuple:
        """The first combination, which a page shows first."""
        return next(iter(self.frames))

    def _figure(self, name: str, picture: Picture, several: bool) -> str:
        width, height = picture.size
        return (
            f'<figure><img src="{picture.uri}" width="{width}" height="{height}" alt="{html.escape(self._alt(name))}"'
            f' style="width:{css_width(picture, several)}px"><figcaption>{html.escape(name)}</figcaption></figure>'
        )

    def __repr__(self) -> str:
        return f"{len(self.frames)} frames by {', '.join(self.axes)}"

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        view = self.widget._repr_mimebundle_()
        return {"text/plain": repr(self), "text/html": self.html, **({WIDGET_MIME: view[WIDGET_MIME]} if view else {})}


def _control(name: str, labels: list) -> ipywidgets.SelectionSlider | ipywidgets.Dropdown:
    options = [(str(label), label) for label in labels]
    style = {"description_width": "initial"}
    if ordered(labels):
        return ipywidgets.SelectionSlider(options=options, description=name, continuous_update=False, style=style)
    return ipywidgets.Dropdown(options=options, description=name, style=style, layout={"width": "auto"})


def _image(picture: Picture, several: bool) -> ipywidgets.Image:
    layout = {"width": f"{css_width(picture, several)}px", "max_width": "100%", "height": "auto", "object_fit": "contain"}
    return ipywidgets.Image(value=picture.data, format=picture.format, layout=layout)


def _line(text: str) -> str:
    return f'<span style="white-space:pre-line">{html.escape(text)}</span>'


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


class Live:
    """What :func:`live` returns: a button that starts the work, one that stops it, how far it is, and what it shows."""

    def __init__(self, make: Callable[[], Iterator], button: str):
        self.make, self._thread, self._stop = make, None, threading.Event()
        self.start = ipywidgets.Button(description=button, button_style="primary")
        self.cancel = ipywidgets.Button(description="Cancel", disabled=True)
        self.progress = ipywidgets.FloatProgress(min=0.0, max=1.0, layout={"width": "200px", "max_width": "100%"})
        self.image = ipywidgets.Image(layout={"display": "none", "max_width": "100%", "height": "auto"})
        self.text = ipywidgets.HTML()
        self.start.on_click(lambda _: self.begin())
        self.cancel.on_click(lambda _: self._stop.set())
        row = ipywidgets.HBox([self.start, self.cancel, self.progress], layout={"flex_flow": "row wrap"})
        self.widget = ipywidgets.VBox([row, self.image, self.text], layout={"align_items": "flex-start"})

    def begin(self) -> None:
        """Start the work in the background, unless it runs."""
        if self._thread and self._thread.is_alive():
            return
        self._stop.clear()
        self.start.disabled, self.cancel.disabled = True, False
        self.progress.value, self.text.value = 0.0, _line("working …")
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def wait(self, seconds: float | None = None) -> None:
        """Until the work has ended."""
        if self._thread:
            self._thread.join(seconds)

    def _work(self) -> None:
        steps = None
        try:
            steps = self.make()
            if not hasattr(steps, "__next__"):
                raise TypeError("the function given to live must yield (fraction, picture, text), one step at a time")
            for step in steps:
                if self._stop.is_set():
                    break
                self._show(*step)
                if self._stop.is_set():
                    break
            if self._stop.is_set():
                self.text.value += _line("\nStopped. Press the button to begin again.")
        except Exception as error:
            self.text.value = _line(
                f"That did not work: {type(error).__name__}: {error}\nChange the cell that the message is about, run it, and try again."
            )
        finally:
            if hasattr(steps, "close"):
                steps.close()
            self.start.disabled, self.cancel.disabled = False, True

    def _show(self, fraction: float, picture: Tensor | Figure | None, text: str = "") -> None:
        self.progress.value = min(max(float(fraction), 0.0), 1.0)
        if picture is not None:
            packed = _pack(picture, "of a live step")
            _close([picture])
            with self.image.hold_sync():
                self.image.format, self.image.value = packed.format, packed.data
            self.image.layout.width, self.image.layout.display = f"{css_width(packed, False)}px", None
        self.text.value = _line(str(text))

    def __repr__(self) -> str:
        return NOT_LIVE

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        view = self.widget._repr_mimebundle_()
        shown = {"text/plain": NOT_LIVE, "text/html": f"<p><em>{NOT_LIVE}.</em></p>"}
        return {**shown, **({WIDGET_MIME: view[WIDGET_MIME]} if view else {})}


def live(make: Callable[[], Iterator[tuple[float, Tensor | Figure | None, str]]], button: str = "Attack") -> Live:
    """A button that runs ``make()``, a generator of (fraction done, picture, text), in the background until it ends or is stopped.

    Nothing runs before the button is pressed; a page, or a run without a screen, says in one line that the cell is live.
    """
    if not callable(make):
        raise ValueError("live takes a function that yields (fraction, picture, text): give its name, without brackets")
    return Live(make, button)


def frame_slider(frames: Sequence[Tensor], labels: Sequence[str], texts: Sequence[str], description: str = "ε"):
    """A slider that shows one precomputed frame [3, H, W] at a time, with a line of text under it."""
    if not len(frames) == len(labels) == len(texts) or not len(frames):
        raise ValueError("frame_slider needs as many labels and texts as frames, and at least one")
    pictures = [png_bytes(f) for f in frames]
    width = max(frames[0].shape[2], 384)
    slider = ipywidgets.SelectionSlider(
        options=[(label, k) for k, label in enumerate(labels)], description=description, continuous_update=False
    )
    image = ipywidgets.Image(value=pictures[0], format="png", layout={"width": f"{width}px", "max_width": "100%"})
    text = ipywidgets.HTML(texts[0])

    def show(change) -> None:
        image.value, text.value = pictures[change["new"]], texts[change["new"]]

    slider.observe(show, names="value")
    return ipywidgets.VBox([slider, image, text], layout={"align_items": "flex-start"})
