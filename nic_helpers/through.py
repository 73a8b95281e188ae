"""Attacking what has no gradient, or a different one each time: a codec seen through BPDA, and the draws of a random one."""

from __future__ import annotations

import torch
from torch import Tensor

from nic_helpers.codecs import CodecOutput, Images, real_bpp


class BPDA:
    """Backward pass differentiable approximation (Athalye 2018, arXiv 1802.00420): any codec, with a gradient.

    Forward it is the codec itself, backward the identity: of the *whole* codec, so it is for one that has no gradient at all.
    (A pre-processing without one in front of a neural codec should approximate that step alone, and keep the codec's gradient.)
    Its rate is that of the real files and has no gradient.
    Everything else (``encode``, ``decode``, ``reconstruct``, ``name`` …) is the codec's own.
    """

    differentiable = True
    always_rounds = True  # whatever the surrogate

    def __init__(self, codec):
        self._codec = codec

    def __getattr__(self, name: str):
        return getattr(self._codec, name)

    def __repr__(self) -> str:
        return f"BPDA({self._codec!r})"

    def __call__(self, x: Images, surrogate: str | None = "ste", rate: bool = True) -> CodecOutput | list[CodecOutput]:
        """The codec's true output on x [B, 3, H, W], with the gradient of the identity (none for ``surrogate=None``)."""
        if not isinstance(x, Tensor):
            return [self(image[None], surrogate, rate) for image in x]
        with torch.no_grad():
            coded = self._codec.roundtrip(x.detach().clamp(0, 1)) if rate else None
            x_hat = coded.x_hat if rate else self._codec.reconstruct(x.detach().clamp(0, 1))
        bits = {}
        if rate:
            bpp = torch.tensor(real_bpp(coded.streams, x), dtype=x.dtype, device=x.device)
            bits = {"file": bpp * x.size(2) * x.size(3)}
        # true rounding has gradient zero, as in the neural codecs
        x_hat = x_hat.to(x) + ((x - x.detach()) if surrogate is not None else 0 * (x - x.detach()))
        return CodecOutput(x_hat, bits, x.size(2) * x.size(3))


def eot(codec, draws: int = 8) -> list:
    """Expectation over transformation (Athalye 2018, arXiv 1707.07397): ``draws`` versions of a randomised codec.

    An attack on the list climbs the mean over them. A randomised codec has ``redrawn(k)``: itself with other draws.
    Raises TypeError for a codec that has none, ValueError for fewer than one draw.
    """
    if not hasattr(codec, "redrawn"):
        raise TypeError(f"{codec!r} draws nothing at random: attack it as it is")
    if draws < 1:
        raise ValueError(f"draws must be at least 1, got {draws}")
    return [codec.redrawn(k) for k in range(draws)]
