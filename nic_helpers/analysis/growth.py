"""How a decoder behaves far from any picture: by which power of its latents its output grows."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from nic_helpers.codecs.neural import NeuralCodec

STRETCHES = tuple(2.0**k for k in range(3, 9))  # t: latents that no picture has


def growth_exponent(codec: NeuralCodec, x: Tensor) -> float:
    """The slope of log ‖g_s(t·ŷ)‖ over log t for large t, at the latents ŷ of x [1, 3, H, W]; g_s is the synthesis without its clamp.

    Linear layers have 1. Each IGDN multiplies its input by a root that grows with it, so that three of them can have 8; layers that
    normalise what they are given can have 0. ValueError where the output is no finite number at the largest t.
    """
    with torch.no_grad():
        y_hat = codec.walk(x, None, synthesis=False).y_hat
        sizes = [float(codec.arch.synthesis(t * y_hat).norm()) for t in STRETCHES]
    if not np.isfinite(sizes).all():
        raise ValueError(f"{codec.label}'s synthesis gives no finite numbers for latents {STRETCHES[-1]:g} times as large")
    return float(np.polyfit(np.log(STRETCHES), np.log(sizes), 1)[0])
