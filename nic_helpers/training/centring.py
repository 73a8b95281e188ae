"""Optimiser steps that leave the mean of what a layer gives alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Centring:
    """Optimiser steps as if each convolution of the transforms saw inputs of mean zero; what it computes is unchanged.

    With inputs a = c + ã the layer is W·ã + (b + W·c): for W and b' = b + W·c the gradient of W loses the share that
    only moves the bias, and b follows W's step. Cheng2020's analysis needs it most: its principal-component start lifts
    activations by five standard deviations, so that a small step of W shifts everything after it.
    """

    def __init__(self, model: nn.Module, x: Tensor):
        self._means: dict[nn.Conv2d, Tensor] = {}
        hooks = [
            layer.register_forward_pre_hook(lambda layer, a: self._means.__setitem__(layer, a[0].mean((0, 2, 3))))
            for transform in (model.g_a, model.g_s)
            for layer in transform.modules()
            if isinstance(layer, nn.Conv2d)
        ]
        with torch.no_grad():
            model.g_s(torch.round(model.g_a(x)))
        for hook in hooks:
            hook.remove()

    @torch.no_grad()
    def centre_gradients(self) -> None:
        """Between ``backward`` and the optimiser's step."""
        self._before = {layer: layer.weight.clone() for layer in self._means}
        for layer, mean in self._means.items():
            layer.weight.grad -= layer.bias.grad[:, None, None, None] * mean[None, :, None, None]

    @torch.no_grad()
    def follow(self) -> None:
        """After the optimiser's step: the biases make up for what the weights' step did to the mean."""
        for layer, mean in self._means.items():
            layer.bias -= (layer.weight - self._before[layer]).sum((2, 3)) @ mean
