"""A trained codec with more latent channels."""

from __future__ import annotations

import torch
from compressai.layers import AttentionBlock
from torch import Tensor, nn

from nic_helpers.training.narrow import widths_of


def widen(old: nn.Module, new: nn.Module, x: Tensor) -> None:
    """Give a codec of residual blocks more latents, the pictures unchanged at first.

    The new latents are the principal components of what the old ones cannot tell of the last analysis layer's input,
    scaled to the spread of the weaker old latents. The synthesis and the entropy model start without a use for them.
    """
    (n, m), more = widths_of(old), widths_of(new)[1] - widths_of(old)[1]
    if any(isinstance(layer, AttentionBlock) for layer in (*old.g_a, *old.g_s)):
        raise ValueError("a codec with attention blocks cannot be widened: begin from one without them")
    theirs, ours = dict(old.named_parameters()), dict(new.named_parameters())
    for name, p in ours.items():  # the old codec in a corner of the new one, the rest of it silent
        if p.shape != theirs[name].shape:
            p.mul_(0.1 if name.startswith("entropy_parameters") else 0.0)
        if p.shape == theirs[name].shape or not name.startswith(("h_s.", "context_", "entropy_")):
            p[tuple(slice(k) for k in theirs[name].shape)] = theirs[name]
    # scales and means lie one after the other: [M scales, M means], and so for what the context says
    new_pairs = torch.cat([torch.arange(m) + k * (m + more) for k in (0, 1)])
    layers = [f"entropy_parameters.{i}" for i, layer in enumerate(old.entropy_parameters) if isinstance(layer, nn.Conv2d)]
    for name in [f"h_s.{len(old.h_s) - 1}", "context_prediction", *layers]:
        w, v = ours[name + ".weight"], theirs[name + ".weight"]
        rows = new_pairs if len(v) == 2 * m else torch.arange(len(v))
        columns = torch.arange(v.size(1))
        if name == layers[0]:
            columns = torch.cat((new_pairs, new_pairs + 2 * (m + more)))
        w[rows] = 0
        w[rows[:, None], columns] = v
        ours[name + ".bias"][rows] = theirs[name + ".bias"]
    v = x
    for layer in old.g_a[:-1]:
        v = layer(v)
    blocks = v.unfold(2, 2, 2).unfold(3, 2, 2).permute(0, 2, 3, 1, 4, 5).reshape(-1, 4 * n).double()
    blocks = blocks - blocks.mean(0)
    y = old.g_a[-1](v).permute(0, 2, 3, 1).reshape(-1, m).double()
    rest = blocks - y @ torch.linalg.lstsq(y, blocks).solution
    variances, vectors = torch.linalg.eigh(torch.cov(rest.T))
    parts = vectors[:, -more:].T.reshape(more, n, 2, 2).float()
    spread = y.std(0).quantile(0.5).float()
    conv = new.g_a[-1]
    conv.weight[m:, :, 1:3, 1:3] = parts * spread / variances[-1].sqrt().float()
    raw = conv(v)
    conv.bias[m:] = -raw.mean((0, 2, 3))[m:]
    ours[layers[-1] + ".bias"][m : m + more] = raw.std((0, 2, 3))[m:].clamp_min(0.11)
    ours[layers[-1] + ".bias"][2 * m + more :] = 0
