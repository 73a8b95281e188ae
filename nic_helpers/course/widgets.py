"""Controls over pictures that are computed beforehand, so that no move of a slider waits for a codec; and a live button.

:func:`explore` shows the pictures of one combination of choices at a time. In JupyterLab it is an ipywidget; in an
exported page it is a small player in plain JavaScript (player.py), which needs neither a kernel nor a network. Draw the key
frames as a static figure first: paper, and a run without a screen, show only that.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import ipywidgets

from nic_helpers.course.frames import Frame, Picture, check_axes, check_frames, check_sizes, close, css_width, line, ordered, pack
from nic_helpers.course.live import NOT_LIVE, WIDGET_MIME, Live, live
from nic_helpers.course.player import player

__all__ = ["NOT_LIVE", "WIDGET_MIME", "Explorer", "Frame", "Live", "explore", "live", "ordered"]


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
    check_axes(axes)
    keyed = check_frames(axes, frames)
    names = list(next(iter(keyed.values())).pictures)
    if flicker is not None:
        flicker = tuple(flicker)
        if len(flicker) != 2 or flicker[0] == flicker[1] or not set(flicker) <= set(names):
            raise ValueError(f"flicker takes two of the pictures' names, {names}, and got {flicker!r}")
    seen: dict[int, Picture] = {}  # a source image that all frames share is packed once
    packed = {key: {n: pack(p, f"{n!r} of frame {key}", seen) for n, p in f.pictures.items()} for key, f in keyed.items()}
    for frame in keyed.values():
        close(frame.pictures.values())
    check_sizes(packed, flicker)
    return Explorer(axes, packed, {key: str(f.text) for key, f in keyed.items()}, flicker, describes)


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
            image.alt = self.alt(name)
        self.text = ipywidgets.HTML(line(self.texts[self.key]))
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
        self.text.value = line(self.texts[key])

    def alt(self, name: str) -> str:
        """What a picture shows, in words."""
        return f"{self.describes}: {name}" if self.describes else name

    @property
    def html(self) -> str:
        """The player for pages, complete in itself."""
        return player(self)

    @property
    def key0(self) -> tuple:
        """The first combination, which a page shows first."""
        return next(iter(self.frames))

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
