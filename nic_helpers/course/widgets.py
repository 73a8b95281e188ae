"""Sliders over frames that are computed beforehand, so that a drag never waits for a codec."""

from __future__ import annotations

from collections.abc import Sequence

import ipywidgets
from torch import Tensor

from nic_helpers.images import png_bytes


def frame_slider(frames: Sequence[Tensor], labels: Sequence[str], texts: Sequence[str], description: str = "ε"):
    """A slider that shows one precomputed frame [3, H, W] at a time, with a line of text under it.

    Draw the same frames as a static grid first: HTML and headless runs show only that.
    """
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
