"""Exercises of notebook 15: a rate counted by hand, a step found for a rate, a control of the attack's own size."""

from __future__ import annotations

import torch
from torch import Tensor

from nic_helpers import attacks, load_codec, load_images
from nic_helpers.codecs.transforms import TransformCodec
from nic_helpers.exercises.base import Number, Write, image_like
from nic_helpers.images import to_8bit


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


def attacked() -> dict:
    """Images and what an attack made of them."""
    return {"x": _x(), "x_adv": attacks.PGD(8 / 255, steps=2)(load_codec("bmshj2018-hyperprior", 3, device="cpu"), _x()).x_adv}


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


def same_size(x, x_adv):
    """Uniform noise, each image's scaled to the RMS of its attack, on the 8-bit grid."""
    rms = (x_adv - x).square().mean((1, 2, 3), keepdim=True).sqrt()
    noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    noisy, size = x, rms * 3**0.5  # what is uniform in ±a has the root mean square a/√3
    for _ in range(4):  # what clamping took is given back
        noisy = to_8bit((x + size * noise).clamp(0, 1))
        size = size * rms / (noisy - x).square().mean((1, 2, 3), keepdim=True).sqrt().clamp_min(1e-6)
    return noisy


def the_attack(x, x_adv):
    """Not a control: the attack itself."""
    return x_adv


def the_limit(x, x_adv):
    """Noise that fills the whole box, which the attack does not."""
    signs = torch.randint(0, 2, x.shape, generator=torch.Generator().manual_seed(0)) * 2.0 - 1
    return to_8bit((x + 2 * (x_adv - x).abs().max() * signs).clamp(0, 1))


def judge_control(answer, x, x_adv) -> str | None:
    """The same RMS on each image within 5 %, and nothing of the attack's pattern."""
    noisy = answer(x, x_adv)
    if (wrong := image_like(noisy, x)) is not None:
        return wrong
    noise, attack = (noisy - x).flatten(1), (x_adv - x).flatten(1)
    ratio = noise.square().mean(1).sqrt() / attack.square().mean(1).sqrt()
    if (ratio - 1).abs().max() > 0.05:
        k = int((ratio - 1).abs().argmax())
        return f"on image {k} your noise has {ratio[k]:.2f} times the attack's root mean square; it should have once"
    alike = torch.nn.functional.cosine_similarity(noise, attack).abs().max()
    return f"your noise still goes along with the attack (cosine {alike:.2f}); draw it at random" if alike > 0.1 else None


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
        same_size,
        judge=judge_control,
        hints=(
            "The root mean square of an image's change: `(x_adv - x).square().mean((1, 2, 3), keepdim=True).sqrt()`.",
            "Uniform noise between −a and a has the root mean square a/√3, until it is clamped to [0, 1]: what is lost there is missing.",
            "Measure what came out, enlarge the noise by what is missing, and clamp again; three times are enough.",
        ),
        wrong={"the attack itself": the_attack, "twice as large": the_limit},
        example=attacked,
    ),
]
