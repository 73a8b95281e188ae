"""An architecture that the package does not have, as one file: channel-wise context with latent residual prediction (as in Zou 2022 and
Liu 2023), untrained. What the package's own architectures pass, it passes too."""

import torch
import torch.nn.functional as F
from torch import nn

from nic_helpers.codecs.google import MeanScale


class ChannelWise(MeanScale):
    name, module, slices = "channel-wise", MeanScale.module, 4

    @classmethod
    def build(cls, n, m):
        model, c = super().build(n, m), m // cls.slices
        model.predict = nn.ModuleList(nn.Conv2d(2 * m + k * c, 2 * c, 3, padding=1) for k in range(cls.slices))
        model.residual = nn.ModuleList(nn.Conv2d(2 * m + (k + 1) * c, c, 3, padding=1) for k in range(cls.slices))
        return model

    def code(self, coder, y=None, z=None):
        side, done = coder.tap("side", self.h_s(coder.bottleneck("z", z))), []
        for k, part in enumerate([None] * self.slices if y is None else y.chunk(self.slices, 1)):
            seen = torch.cat((side, *(coder.tap("context", d) for d in done)), 1)
            scales, means = self.predict[k](seen).chunk(2, 1)
            part = coder.gaussian("y", part, F.softplus(scales), means)
            done.append(part + 0.5 * torch.tanh(self.residual[k](torch.cat((seen, part), 1))))
        return torch.cat(done, 1)
