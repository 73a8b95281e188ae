"""A defence inside the sender: latents that no clean image has are not coded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from nic_helpers.codecs.base import Codec
from nic_helpers.codecs.neural import NeuralCodec
from nic_helpers.image_sets import load_images


@dataclass(frozen=True)
class SafeZone:
    """Each latent channel is clamped to the range that it has on clean images, widened by the share ``margin`` of its length (after an
    observation of Chen & Ma 2023, arXiv 2112.08691, and JPEG AI's feature clipping).

    ``images``: a list of [3, H, W]; default the bundled set. Called with a learned codec it gives the same codec with another sender:
    the bitstreams are that codec's own, and any receiver of it decodes them. A latent that is held has no gradient.
    """

    margin: float = 0.0
    images: Sequence[Tensor] | None = field(default=None, repr=False)

    def __post_init__(self):
        if not self.margin >= 0:
            raise ValueError(f"margin must be a number, not negative, got {self.margin!r}")

    def __call__(self, codec: Codec) -> NeuralCodec:
        """The codec with that sender; TypeError for one without latents of its own."""
        if not isinstance(codec, NeuralCodec):
            raise TypeError(
                f"{codec!r} shows no latents to clamp: put the safe zone around the learned codec itself, then the rest"
            )
        low, high = self._ranges(codec)
        return codec.with_latents(lambda y: y.clamp(low.to(y), high.to(y)), repr(self))

    @torch.no_grad()
    def _ranges(self, codec: NeuralCodec) -> tuple[Tensor, Tensor]:
        """The lowest and highest value of each channel, [1, M, 1, 1]."""
        seen = [
            codec.latents(image[None])[0].flatten(1) for image in (load_images("bundled") if self.images is None else self.images)
        ]
        low, high = torch.cat(seen, 1).aminmax(dim=1)
        room = self.margin * (high - low)
        return (low - room)[None, :, None, None], (high + room)[None, :, None, None]
