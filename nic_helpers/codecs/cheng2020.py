"""Cheng2020's residual transforms, without and with attention, under Minnen's entropy model with a context."""

from __future__ import annotations

from compressai.layers import AttentionBlock, ResidualBlock, ResidualBlockUpsample, conv3x3
from compressai.models import Cheng2020Anchor, Cheng2020Attention, JointAutoregressiveHierarchicalPriors
from torch import nn

from nic_helpers.codecs.google import Autoregressive, by_quality


class Anchor(Autoregressive):
    """Residual blocks and sub-pixel convolutions."""

    name, module = "cheng2020-anchor", Cheng2020Anchor
    paper = "Cheng et al., Learned image compression with discretized Gaussian mixture likelihoods, CVPR 2020"
    qualities = tuple(range(1, 7))
    published_widths = by_quality((128,), (192,), 4, 6)
    channels_last = False
    activations = 150.0
    memory = (37.0, 7.5)

    @classmethod
    def build(cls, *widths):
        """N, M; M is N where it is left out."""
        model = cls.module(widths[0])
        if len(widths) == 2 and widths[1] != widths[0]:
            _widen_latents(model, *widths)
        return model.float()

    @classmethod
    def widths_of(cls, state):
        """N, M."""
        return state["g_a.0.conv1.weight"].size(0), state["h_a.0.weight"].size(1)


class Attention(Anchor):
    """The same with simplified attention blocks."""

    name, module = "cheng2020-attn", Cheng2020Attention


def _widen_latents(model: Cheng2020Anchor, n: int, m: int) -> None:
    """Give a Cheng2020 codec M ≠ N latent channels: every layer at the latents' resolution gets M, all others keep N.

    CompressAI's class has M = N, and M bounds the quality: a compact codec needs more latents than it can afford
    channels at full resolution.
    """
    k = max(i for i, layer in enumerate(model.g_a) if isinstance(layer, nn.Conv2d))
    model.g_a[k] = conv3x3(n, m, stride=2)
    for transform, ends in ((model.g_a, range(k + 1, len(model.g_a))), (model.g_s, (0,))):
        for i in ends:
            if isinstance(transform[i], AttentionBlock):
                transform[i] = AttentionBlock(m)
    k = min(i for i, layer in enumerate(model.g_s) if isinstance(layer, ResidualBlock))
    model.g_s[k], model.g_s[k + 1] = ResidualBlock(m, m), ResidualBlockUpsample(m, n, 2)
    model.h_a[0], model.h_s[-1] = conv3x3(m, n), conv3x3(n * 3 // 2, m * 2)
    joint = JointAutoregressiveHierarchicalPriors(1, m)
    model.context_prediction, model.entropy_parameters = joint.context_prediction, joint.entropy_parameters
    model.M = m
