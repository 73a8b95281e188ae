"""The smallest codec of two transforms, as a user would write it: averages over blocks of 4 pixels."""

import torch.nn.functional as F

from nic_helpers.codecs.transforms import TransformCodec


class Blocks(TransformCodec):
    name = "blocks"

    def analysis(self, x):
        return F.avg_pool2d(x, 4)

    def synthesis(self, y):
        return F.interpolate(y, scale_factor=4.0)
