"""By which layers of a codec a change grows: the distance of two recompressed pictures over that of the pictures, layer by layer.

Layer-wise distance magnify ratio, after Wu et al. 2024 (arXiv 2405.07717); the definition is our reading of it (METHODS: f_<l are the
layers of analysis, quantiser and synthesis before layer l, F is the whole codec):

    M_l = ‖f_<l(F(x')) − f_<l(F(x))‖ / ‖f_<l(x') − f_<l(x)‖,    LDMR_l = M_l / M_l+1,    CDMR_l = M_1 / M_l+1

Two unrelated images give 1 at every layer, noise ends below 1.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pandas as pd
import torch
from compressai.layers import GDN
from torch import Tensor, nn

from nic_helpers.codecs.base import Codec
from nic_helpers.codecs.linear import LinearCodec
from nic_helpers.codecs.neural import NeuralCodec
from nic_helpers.codecs.quantisers import round_true
from nic_helpers.images import as_images

KINDS = {"Conv2d": "convolution", "ConvTranspose2d": "convolution", "LeakyReLU": "activation", "ReLU": "activation"}


def ldmr(codec: Codec, x: Tensor, x_adv: Tensor) -> pd.DataFrame:
    """How much each layer magnifies the distance between x and x' [B, 3, H, W].

    A row an image and layer, in the order of the signal: ``layer`` ("g_a.0" … "quantiser" … "g_s.6"), ``kind`` ("convolution", "GDN",
    "IGDN", "quantiser", or the block's class), ``ldmr``, ``cdmr``. For context models the quantiser is that of the parallel form.
    TypeError for a codec whose layers are not to be seen.
    """
    if not isinstance(codec, (NeuralCodec, LinearCodec)):
        raise TypeError(f"{codec!r} shows no layers: give a learned codec")
    x, x_adv = as_images(x), as_images(x_adv)
    with torch.no_grad():
        again = [codec.reconstruct(v) for v in (x, x_adv)]
        before = [_features(codec, v) for v in (x, x_adv)]
        after = [_features(codec, v) for v in again]
    names = list(before[0])
    ratio = torch.stack([_apart(after, n) / _apart(before, n) for n in names])  # [layers + 1, B], the input first
    kinds = {"quantiser": "quantiser"} | _kinds(codec)
    rows = []
    for k, name in enumerate(names[1:]):
        for image in range(len(x)):
            values = {"ldmr": float(ratio[k, image] / ratio[k + 1, image]), "cdmr": float(ratio[0, image] / ratio[k + 1, image])}
            rows.append({"image": image, "layer": name, "kind": kinds[name], **values})
    return pd.DataFrame(rows)


def kind_of(layer: nn.Module) -> str:
    """What a layer is, in a word."""
    if isinstance(layer, GDN):
        return "IGDN" if layer.inverse else "GDN"
    return KINDS.get(type(layer).__name__, "convolution" if isinstance(layer, nn.Sequential) else type(layer).__name__)


def _kinds(codec: NeuralCodec | LinearCodec) -> dict[str, str]:
    if isinstance(codec, LinearCodec):
        return {"g_a.0": "convolution", "g_s.0": "convolution"}
    return {name: kind_of(layer) for name, layer in _layers(codec)}


def _layers(codec: NeuralCodec) -> list[tuple[str, nn.Module]]:
    return [(f"{part}.{n}", layer) for part in ("g_a", "g_s") for n, layer in getattr(codec.model, part).named_children()]


def _apart(pair: list[dict[str, Tensor]], name: str) -> Tensor:
    return (pair[1][name] - pair[0][name]).flatten(1).norm(dim=1)


@contextlib.contextmanager
def _noted(layers: list[tuple[str, nn.Module]], seen: dict[str, Tensor]) -> Iterator[None]:
    """What each layer gives is noted; afterwards the model is as it was."""
    hooks = [layer.register_forward_hook(lambda _, __, out, name=name: seen.__setitem__(name, out)) for name, layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _features(codec: NeuralCodec | LinearCodec, x: Tensor) -> dict[str, Tensor]:
    """What comes out of each layer for images x, the images themselves first, the clamped output last."""
    if isinstance(codec, LinearCodec):
        return codec.features(x)
    # one by one: some architectures take a batch apart themselves, and a hook would see its last image alone
    parts = [_of_one(codec, image[None]) for image in x]
    return {name: torch.cat([p[name] for p in parts]) for name in parts[0]}


def _of_one(codec: NeuralCodec, x: Tensor) -> dict[str, Tensor]:
    arch, layers = codec.arch, _layers(codec)
    seen: dict[str, Tensor] = {}
    with _noted(layers, seen):
        padded = arch.pad(x)
        y = arch.analysis(padded)
        y_hat = arch.latents(y, round_true)
        y_hat = codec.walk(x, None, synthesis=False).y_hat if y_hat is None else y_hat
        arch.synthesis(y_hat)
    first, last = [n for n, _ in layers if n.startswith("g_a")], [n for n, _ in layers if n.startswith("g_s")]
    ordered = {"input": padded} | {n: seen[n] for n in first} | {"quantiser": y_hat} | {n: seen[n] for n in last}
    return ordered | {last[-1]: ordered[last[-1]].clamp(0, 1)}
