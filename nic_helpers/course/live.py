"""A button that runs an attack step by step, shows how far it is, and can be stopped."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import ipywidgets
from matplotlib.figure import Figure
from torch import Tensor

from nic_helpers.course.frames import close, css_width, line, pack

WIDGET_MIME = "application/vnd.jupyter.widget-view+json"
NOT_LIVE = "This cell is live: open the notebook in JupyterLab"
WANTED = "the function given to live must yield (fraction, picture, text), one step at a time"


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
        self.progress.value, self.text.value = 0.0, line("working …")
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
                raise TypeError(WANTED)
            for step in steps:
                if self._stop.is_set():
                    break
                if not isinstance(step, tuple | list):
                    raise TypeError(WANTED)
                self._show(*step)
                if self._stop.is_set():
                    break
            if self._stop.is_set():
                self.text.value += line("\nStopped. Press the button to begin again.")
        except Exception as error:
            self.text.value = line(
                f"That did not work: {type(error).__name__}: {error}\nChange the cell that the message is about, run it, and try again."
            )
        finally:
            if hasattr(steps, "close"):
                steps.close()
            self.start.disabled, self.cancel.disabled = False, True

    def _show(self, fraction: float, picture: Tensor | Figure | None, text: str = "") -> None:
        self.progress.value = min(max(float(fraction), 0.0), 1.0)
        if picture is not None:
            packed = pack(picture, "of a live step")
            close([picture])
            with self.image.hold_sync():
                self.image.format, self.image.value = packed.format, packed.data
            self.image.layout.width, self.image.layout.display = f"{css_width(packed, False)}px", None
        self.text.value = line(str(text))

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
