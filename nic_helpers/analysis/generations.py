"""What happens when a picture is compressed again and again: decoded, rounded to 8 bits, encoded, and so on.

analysis.recompress(codec, x, 50)                   # a row per image and generation
analysis.settled(rows)                              # after which generation each picture stands still
attacks.PGD(8/255)(analysis.Repeated(codec, 3), x)  # an attack through three generations
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import pandas as pd
import torch
from torch import Tensor

from nic_helpers.codecs.base import Around, Codec, CodecOutput, Images, by_size, check_codec
from nic_helpers.images import as_images, check_images, pixels_sha256, to_8bit
from nic_helpers.metrics import describe, psnr

KEY = ["codec", "quality", "image"]


def again(codec: Codec, x: Tensor, count: int, crop: int = 0) -> Iterator[tuple[bytes, Tensor]]:
    """The ``count`` generations of one image [3, H, W], one after another: the file, and the 8-bit picture [3, h, w] decoded from it.

    ``crop``: before each generation but the first so many rows are cut off at the top and columns on the left, so that the picture lies
    differently on the codec's grid.
    """
    check_images(x[None])
    if count < 1 or crop < 0 or (count - 1) * crop >= min(x.shape[1:]):
        raise ValueError(f"{count} generations with a crop of {crop} cannot be made of a picture {x.size(1)}×{x.size(2)}")
    for generation in range(count):
        x = x[:, crop:, crop:] if generation else x
        coded = codec.roundtrip(x[None].contiguous())
        x = to_8bit(coded.x_hat[0])
        yield coded.streams[0], x


def recompress(
    codec: Codec, x: Images, count: int = 50, source: Images | None = None, names: Sequence[str] | None = None, crop: int = 0
) -> pd.DataFrame:
    """Compress images ``count`` times: a DataFrame with a row per image and generation.

    Parameters: x [B, 3, H, W] (or a list of [3, H, W]) in [0, 1], what is compressed first; ``source``: the images that x was made of
    (default: x); ``names`` of the images; ``crop`` as of :func:`again`.

    Columns: ``image``, the codec's, ``generation`` (1: the file made of x) · ``psnr_source`` (dB, to the source) · ``psnr_first`` (dB, to
    generation 1; 100 where they are the same) · ``moved`` (root mean square in 8-bit levels of what this generation changed of its
    input) · ``bpp`` (real bytes with header and side information, over the pixels of the picture that was encoded) · ``picture`` (a
    fingerprint of the pixels). All on the part of the picture that the crop has left.
    """
    check_codec(codec)
    x = as_images(x)
    source = x if source is None else as_images(source)
    names = range(len(x)) if names is None else names
    rows = []
    for name, image, reference in zip(names, x, source, strict=True):
        found = _one(codec, image, reference, count, crop)
        rows += [{"image": name, **describe(codec), "generation": k, **row} for k, row in enumerate(found, 1)]
    return pd.DataFrame(rows)


@torch.no_grad()
def _one(codec: Codec, image: Tensor, source: Tensor, count: int, crop: int) -> list[dict]:
    """The rows of one image. A picture that has been there before goes on as it did then, so nothing is computed twice."""
    rows, seen, first, before = [], {}, None, image
    for stream, picture in again(codec, image, count, crop):
        height, width = picture.shape[1:]
        first = picture if first is None else first
        before, here, start = (v[:, -height:, -width:] for v in (before, source, first))
        rows.append(
            {
                "psnr_source": float(psnr(here[None], picture[None])),
                "psnr_first": float(psnr(start[None], picture[None])),
                "moved": 255 * float((picture - before).double().square().mean().sqrt()),
                "bpp": 8 * len(stream) / (height * width),
                "picture": pixels_sha256(picture)[:12],
            }
        )
        before = picture
        if not crop and rows[-1]["picture"] in seen:
            break
        seen[rows[-1]["picture"]] = len(rows)
    if len(rows) < count:
        period = len(rows) - seen[rows[-1]["picture"]]
        while len(rows) < count:
            rows.append(dict(rows[-period]))
    return rows


def settled(rows: pd.DataFrame, by: Sequence[str] = KEY) -> pd.DataFrame:
    """Where each picture comes to rest, a row for each group ``by`` of :func:`recompress`'s rows.

    ``settled``: the generation after which the picture repeats itself, ``period``: after how many generations it comes back (1: it
    stands still; more: it goes round). Both are NaN where the run was too short to see it.
    """

    def rest(group: pd.DataFrame) -> pd.Series:
        pictures = group.sort_values("generation")["picture"].tolist()
        first = {}
        for k, picture in enumerate(pictures, 1):
            if picture in first:
                return pd.Series({"settled": float(first[picture]), "period": float(k - first[picture])})
            first[picture] = k
        return pd.Series({"settled": math.nan, "period": math.nan})

    return rows.groupby(list(by), sort=False)[["generation", "picture"]].apply(rest).reset_index()


class Repeated(Around):
    """A codec applied ``times`` times, each time to the 8-bit picture of the time before, as one codec: its file is the last one.

    An attack on it goes through all of them.
    """

    def __init__(self, codec: Codec, times: int):
        super().__init__(codec)
        if times < 1:
            raise ValueError(f"times must be at least 1, got {times!r}")
        self.times = times

    def __repr__(self) -> str:
        return f"Repeated({self.codec!r}, {self.times})"

    @property
    def label(self) -> str:
        """Short name for tables and legends."""
        return f"{self.codec.label}, {self.times} times"

    def __call__(self, x: Images, surrogate: str | None = "ste", rate: bool = True) -> CodecOutput | list[CodecOutput]:
        """A differentiable pass through all of them: pictures are rounded to 8 bits between two, and the gradient goes straight through
        that; with the surrogate "identity", which rounds nothing, they are not."""
        if not isinstance(x, Tensor):
            return [self(image[None], surrogate, rate) for image in as_images(x)]
        for _ in range(self.times - 1):
            x = self.codec(x, surrogate, rate=False).x_hat
            x = x if surrogate == "identity" else x + (to_8bit(x) - x).detach()
        return self.codec(x, surrogate, rate)

    @torch.no_grad()
    def _before_last(self, x: Images) -> Images:
        for _ in range(self.times - 1):
            y = self.codec.reconstruct(x)
            x = to_8bit(y) if isinstance(y, Tensor) else [to_8bit(image) for image in y]
        return x

    @by_size
    def reconstruct(self, x: Images, surrogate: str | None = None) -> Images:
        """What is decoded from the last file."""
        return self.codec.reconstruct(self._before_last(x)) if surrogate is None else super().reconstruct(x, surrogate)

    def encode(self, x: Images) -> list[bytes]:
        """The last file of each image."""
        return self.codec.encode(self._before_last(x))

    def decode(self, streams: Sequence[bytes], *args, **kwargs) -> Images:
        """The inner codec's: the last file is one of its files."""
        return self.codec.decode(streams, *args, **kwargs)

    def bytes_per_pixel(self, gradient: bool) -> float:
        """With a gradient, the inner codec's as many times."""
        return self.codec.bytes_per_pixel(gradient) * (self.times if gradient else 1)
