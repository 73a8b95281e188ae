"""Which branch of an entropy model makes an attacked file grow: each is set to what a harmless image gives it, one at a time.

Entropy causal intervention, after Wu et al. 2024 (arXiv 2405.07717), whose formulas could not be read: the definitions are our reading.
Bits are estimates, and saturate near 30 a symbol.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import torch
from torch import Tensor

from nic_helpers.attacks.loop import uniform_noise
from nic_helpers.codecs.base import Codec
from nic_helpers.codecs.coders import Walk
from nic_helpers.codecs.neural import NeuralCodec
from nic_helpers.images import as_images, to_8bit

COUNTERPARTS = ("clean", "noise", "recompressed")
#: The interventions: name -> the coder's branches that are set together.
BRANCHES: Mapping[str, tuple[str, ...]] = {
    "none": (),
    "samples": ("samples",),
    "context": ("context",),
    "hyperprior": ("z",),
    "samples and context": ("samples", "context"),
}


def counterpart_of(codec: Codec, x: Tensor, x_adv: Tensor, counterpart: str, seed: int = 0) -> Tensor:
    """The harmless images [B, 3, H, W] whose branches replace the attacked ones': "clean", the sources; "noise", the sources with
    noise of the attack's root mean square; "recompressed", what the codec makes of the attacked ones."""
    if counterpart == "clean":
        return x
    if counterpart == "recompressed":
        return codec.reconstruct(x_adv)
    if counterpart != "noise":
        raise ValueError(f"counterpart must be one of {', '.join(COUNTERPARTS)}, got {counterpart!r}")
    rms = (x_adv - x).square().mean((1, 2, 3), keepdim=True).sqrt()
    return to_8bit((x + 3**0.5 * rms * uniform_noise(x, seed)).clamp(0, 1))


def eci(codec: Codec, x: Tensor, x_adv: Tensor, counterpart: str = "clean", seed: int = 0) -> pd.DataFrame:
    """Relative changes from the clean image to the attacked one, with nothing set and with each branch set from the counterpart.

    x, x' [B, 3, H, W]. A row an image and ``branch`` (:data:`BRANCHES`, those that the codec has): ``mean``, of the mean |ŷ − μ|;
    ``scale``, of the mean σ; ``r_z``, ``r_y`` and ``r``, of the bits: 0.5 is half as much again. Where a codec predicts no means, μ is 0;
    what it has not got is NaN. TypeError for a codec without an entropy model to look into.
    """
    if not isinstance(codec, NeuralCodec):
        raise TypeError(f"{codec!r} has no entropy model to intervene in: give a learned codec")
    x, x_adv = as_images(x), as_images(x_adv)
    with torch.no_grad():
        other = codec.walk(counterpart_of(codec, x, x_adv, counterpart, seed), None).taps
        clean, tables = _measured(codec.walk(x, None)), []
        for name, branches in BRANCHES.items():
            own = tuple("y" if b == "samples" and "samples" not in other else b for b in branches)  # of a factorised codec
            if set(own) <= set(other):
                attacked = _measured(codec.walk(x_adv, None, set_to={b: other[b] for b in own}))
                tables.append((attacked / clean - 1).assign(branch=name, image=range(len(x)), counterpart=counterpart))
    return pd.concat(tables, ignore_index=True)[["image", "counterpart", "branch", "mean", "scale", "r_z", "r_y", "r"]]


def _measured(w: Walk) -> pd.DataFrame:
    """What is compared, an image a row."""
    bits, nothing = w.bits(), torch.full((len(w.y),), torch.nan)
    samples = w.taps.get("samples", w.taps.get("y"))
    samples = torch.cat(samples, 1) if isinstance(samples, list) else samples
    away = samples if w.means is None else samples - w.means
    columns = {
        "mean": away.abs().mean((1, 2, 3)),
        "scale": nothing if w.scales is None else w.scales.clamp_min(0.11).mean((1, 2, 3)),
        "r_z": bits.get("z", nothing),
        "r_y": bits["y"],
        "r": sum(bits.values()),
    }
    return pd.DataFrame({name: v.double().cpu().numpy() for name, v in columns.items()})
