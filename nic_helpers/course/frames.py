"""Pictures with a line of text, packed as files once, and checked before a widget shows them."""

from __future__ import annotations

import base64
import html
import io
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from torch import Tensor

from nic_helpers.images import png_bytes

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


def check_axes(axes: dict[str, list]) -> None:
    if not axes:
        raise ValueError('explore needs at least one axis, like {"ε": ["2/255", "8/255"]}')
    for name, labels in axes.items():
        if not labels:
            raise ValueError(f"axis {name!r} has no labels: give at least one")
        if len({str(label) for label in labels}) < len(labels):
            raise ValueError(f"axis {name!r} has a label twice: {labels}; each label must differ")


def check_frames(axes: dict[str, list], frames: Mapping) -> dict[tuple, Frame]:
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


def check_sizes(packed: dict[tuple, dict[str, Picture]], flicker: tuple[str, str] | None) -> None:
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


def pack(picture: Tensor | Figure, what: str, seen: dict[int, Picture] | None = None) -> Picture:
    """A picture as the smaller of PNG and lossless WebP; ``seen`` keeps what has been packed, by identity."""
    seen = {} if seen is None else seen
    if id(picture) not in seen:
        if isinstance(picture, Figure):
            file = io.BytesIO()
            picture.savefig(file, format="png", dpi=FIGURE_DPI, bbox_inches=picture.bbox_inches, facecolor="white")
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


def close(pictures) -> None:
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


def line(text: str) -> str:
    return f'<span style="white-space:pre-line">{html.escape(text)}</span>'
