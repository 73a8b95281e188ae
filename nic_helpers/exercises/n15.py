"""Exercises of notebook 15: a rate counted by hand, a step found for a rate, a slope measured without a gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from nic_helpers import load_images
from nic_helpers.codecs.transforms import TransformCodec
from nic_helpers.exercises.base import Number, Write


class Averages(TransformCodec):
    """Averages of blocks: small, for tests."""

    name, multiple = "averages", 4

    def analysis(self, x):
        return torch.nn.functional.avg_pool2d(x, 4)

    def synthesis(self, y):
        return torch.nn.functional.interpolate(y, scale_factor=4.0)


def _make(step: float) -> TransformCodec:
    return Averages(step, 4, device="cpu")


def _x() -> Tensor:
    return torch.stack([im[:, 64:128, 64:128] for im in load_images("bundled")[:2]])


def coded() -> dict:
    """A codec and images."""
    return {"codec": _make(1 / 32), "x": _x()}


def to_be_coded() -> dict:
    """What makes a codec of a step, images, and a rate."""
    return {"make": _make, "x": _x(), "bpp": rate(_make(1 / 32), _x())}


def pictures() -> dict:
    """Images."""
    return {"x": _x()}


def rate(codec, x: Tensor) -> float:
    """Bits of the real files over all pixels."""
    return 8 * sum(len(s) for s in codec.encode(x)) / (x.shape[0] * x.shape[2] * x.shape[3])


def find_step(make, x, bpp):
    """The step, between two that are sure to enclose it, halved again and again on a scale of factors."""
    low, high = 1e-3, 1.0
    for _ in range(12):
        middle = (low * high) ** 0.5
        if rate(make(middle), x) > bpp:
            low = middle
        else:
            high = middle
    return high


def one_step(make, x, bpp):
    """Whatever the rate, the same step."""
    return 0.5


def too_fine(make, x, bpp):
    """A step with which the files are larger than allowed."""
    return 1e-3


def judge_step(answer, make, x, bpp) -> str | None:
    """Files at most as large as allowed, and not much smaller; at two rates, so that no number is right by chance."""
    for wanted in (bpp, 0.7 * bpp):
        step = answer(make, x, wanted)
        if not isinstance(step, float | int) or not 0 < step < float("inf"):
            return f"the step must be a number above 0, and is {step!r}"
        found = rate(make(float(step)), x)
        if found > wanted * 1.001:
            return f"with your step {step:.4g} the files take {found:.3f} bits per pixel, more than the {wanted:.3f} allowed"
        if found < 0.9 * wanted:
            return f"with your step {step:.4g} the files take {found:.3f} bits per pixel; a finer step would still keep to {wanted:.3f}"
    return None


def slope(f, x, v, h):
    """The difference of two values on both sides, over the way between them."""
    return (f(x + h * v) - f(x - h * v)) / (2 * h)


def one_side(f, x, v, h):
    """The value ahead less the value here: off by the curve."""
    return (f(x + h * v) - f(x)) / h


def half_the_way(f, x, v, h):
    """Both sides, over half of the way between them."""
    return (f(x + h * v) - f(x - h * v)) / h


def judge_slope(answer, x) -> str | None:
    """Two functions whose slope is known, along a direction drawn at random, within 1 %."""
    x = x.double()
    v = torch.rand(x.shape, generator=torch.Generator().manual_seed(0), dtype=x.dtype)
    known = {
        "the sum of u³": (lambda u: (u**3).sum(), 3 * x**2),
        "the sum of exp(2u)": (lambda u: (2 * u).exp().sum(), 2 * (2 * x).exp()),
    }
    for name, (f, gradient) in known.items():
        found, right = answer(f, x, v, 0.05), float((gradient * v).sum())
        try:
            found = float(found)
        except (TypeError, ValueError, RuntimeError):
            return f"slope must return one number, and returned {type(found).__name__}"
        if not abs(found / right - 1) < 0.01:
            return f"the slope of {name} along v is {right:.4g}, and yours is {found:.4g} (h = 0.05)"
    return None


EXERCISES = [
    Number(
        "15.1",
        rate,
        tolerance=2e-3,
        hints=(
            "A file's length in bytes is `len(stream)`; there are 8 bits in a byte.",
            "Divide the bits of all files by the pixels (height × width, no colours) of all images: `codec.encode(x)` has the files.",
        ),
        example=coded,
    ),
    Write(
        "15.2",
        find_step,
        judge=judge_step,
        hints=(
            "A larger step makes smaller files. So the right one can be enclosed.",
            "Begin with 0.001 and 1. Try the middle; keep the half in which the rate crosses what is allowed. Do it twelve times.",
            "The middle of two steps that differ by a factor is `(low * high) ** 0.5`. Return the larger end: it keeps to the rate.",
        ),
        wrong={"always the same": one_step, "too fine": too_fine},
        example=to_be_coded,
    ),
    Write(
        "15.3",
        slope,
        judge=judge_slope,
        hints=(
            "A slope is a difference of values over the way between them. No gradient is needed: call `f` twice.",
            "Go to both sides of `x`: with `f(x)` itself as one end, the curve of `f` gets into your answer.",
            "The two ends `x + h * v` and `x - h * v` are `2 * h` apart.",
        ),
        wrong={"one side only": one_side, "half the way": half_the_way},
        example=pictures,
    ),
]
