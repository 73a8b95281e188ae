"""Codecs behind one protocol: learned ones with real bitstreams and a differentiable path, classical ones, programs in files.

codec = load_codec("bmshj2018-hyperprior", quality=3)
streams = codec.encode(x)          # list[bytes], one per image
y = codec.decode(streams)          # what the receiver sees
out = codec(x)                     # x_hat and estimated bits, differentiable
"""

from nic_helpers.codecs.base import Codec, CodecOutput, Coded, real_bpp, stack
from nic_helpers.codecs.bitstream import BitstreamError
from nic_helpers.codecs.classical import CLASSICAL
from nic_helpers.codecs.linear import LinearCodec
from nic_helpers.codecs.load import available_qualities, codec_names, load_codec
from nic_helpers.codecs.neural import NeuralCodec
from nic_helpers.codecs.registry import ARCHITECTURES

__all__ = [
    "ARCHITECTURES",
    "CLASSICAL",
    "BitstreamError",
    "Codec",
    "CodecOutput",
    "Coded",
    "LinearCodec",
    "NeuralCodec",
    "available_qualities",
    "codec_names",
    "load_codec",
    "real_bpp",
    "stack",
]
