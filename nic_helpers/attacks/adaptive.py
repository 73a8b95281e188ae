"""Attacking what has no gradient, or a different one each time: a codec seen through BPDA, and the draws of a random one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nic_helpers.codecs.base import Around, Codec, CodecOutput, Coded, Images, by_size, check_codec, real_bpp
from nic_helpers.codecs.bitstream import DECODED_PIXELS


class BPDA(Around):
    """Backward pass differentiable approximation (Athalye 2018, arXiv 1802.00420): any codec, with a gradient.

    Forward it is the codec itself, backward the identity: of the *whole* codec, so it is for one that has no gradient at all.
    (A step without one in front of a neural codec is a :class:`~nic_helpers.defences.Defended`: it approximates that step alone,
    and keeps the codec's gradient.) Its rate is that of the real files and has no gradient; its files are the codec's own.
    """

    def __init__(self, codec: Codec):
        super().__init__(codec)
        self.differentiable = self.always_rounds = True  # whatever the surrogate

    def __repr__(self) -> str:
        return f"BPDA({self.codec!r})"

    @property
    def label(self) -> str:
        """The codec's own."""
        return self.codec.label

    def __call__(self, x: Images, surrogate: str | None = "ste", rate: bool = True) -> CodecOutput | list[CodecOutput]:
        """The codec's true output on x [B, 3, H, W], with the gradient of the identity (none for ``surrogate=None``)."""
        if not isinstance(x, Tensor):
            return [self(image[None], surrogate, rate) for image in x]
        with torch.no_grad():
            coded = self.codec.roundtrip(x.detach().clamp(0, 1)) if rate else None
            x_hat = coded.x_hat if rate else self.codec.reconstruct(x.detach().clamp(0, 1))
        bits = {}
        if rate:
            bpp = torch.tensor(real_bpp(coded.streams, x), dtype=x.dtype, device=x.device)
            bits = {"file": bpp * x.size(2) * x.size(3)}
        # true rounding has gradient zero, as in the neural codecs
        x_hat = x_hat.to(x) + ((x - x.detach()) if surrogate is not None else 0 * (x - x.detach()))
        return CodecOutput(x_hat, bits, x.size(2) * x.size(3))

    @by_size
    def reconstruct(self, x: Images, surrogate: str | None = None) -> Images:
        """The codec's own reconstruction; with a surrogate, with the identity's gradient."""
        return self.codec.reconstruct(x) if surrogate is None else self(x, surrogate, rate=False).x_hat

    def roundtrip(self, x: Images) -> Coded:
        """The codec's own files and what they decode to."""
        return self.codec.roundtrip(x)

    def encode(self, x: Images) -> list[bytes]:
        """The codec's own files."""
        return self.codec.encode(x)

    def decode(self, streams: Sequence[bytes], most_pixels: float = DECODED_PIXELS) -> Images:
        """The codec's own decoding."""
        return self.codec.decode(streams, most_pixels)


def eot(codec: Codec, draws: int = 8) -> list[Codec]:
    """Expectation over transformation (Athalye 2018, arXiv 1707.07397): ``draws`` versions of a randomised codec.

    An attack on the list climbs the mean over them. A randomised codec has ``redrawn(k)``: itself with other draws.
    Raises TypeError for a codec that draws nothing, ValueError for fewer than one draw.
    """
    check_codec(codec)
    if draws < 1:
        raise ValueError(f"draws must be at least 1, got {draws}")
    return [codec.redrawn(k) for k in range(draws)]
