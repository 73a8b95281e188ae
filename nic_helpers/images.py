"""Images in, images out: the bundled set, Kodak, any folder; always RGB float tensors in [0, 1] on the 8-bit grid."""

from __future__ import annotations

import hashlib
import io
import math
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor


def to_8bit(x: Tensor) -> Tensor:
    """x clamped to [0, 1] and rounded to multiples of 1/255; in float32 where x has less, which cannot hold these."""
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    return torch.round(x.clamp(0, 1) * 255) / 255


def to_uint8(x: Tensor) -> np.ndarray:
    """[3, H, W] in [0, 1] -> uint8 array [H, W, 3]."""
    return (x.detach().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()


def from_pil(image: Image.Image) -> Tensor:
    """A Pillow image of any mode -> float tensor [3, H, W] on the 8-bit grid.

    The EXIF orientation is applied; greyscale is repeated; palettes are expanded; 16-bit grey is scaled (not clipped)
    to 8 bits (of 16-bit colour Pillow gives the upper byte); transparency is laid over white; CMYK is converted with
    Pillow's plain formula; of an animation the picture it stands at is taken, which is its first.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        image = _to_8bit_grey(image)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    array = np.array(image.convert("RGB"))
    return torch.from_numpy(array).permute(2, 0, 1).contiguous().float().div_(255)


def pixels_sha256(x: Tensor) -> str:
    """SHA-256 of an image's [3, H, W] 8-bit samples in the order [H, W, 3]: the same for every file that holds these pixels."""
    return hashlib.sha256(to_uint8(x).tobytes()).hexdigest()


def _to_8bit_grey(image: Image.Image) -> Image.Image:
    """A 16-bit, 32-bit or floating-point grey image in 8 bits: the smallest usual range that holds its values."""
    values = np.asarray(image, dtype=np.float64)
    ranges = (65535,) if image.mode.startswith("I;16") else ((1, 255, 65535) if image.mode == "F" else (255, 65535))
    top = next((t for t in ranges if values.max() <= t), None)
    if top is None or not values.min() >= 0:
        raise ValueError(f"grey values from {values.min()} to {values.max()} fit no usual range")
    return Image.fromarray(np.rint(values * 255.0 / top).astype(np.uint8))


def to_pil(x: Tensor) -> Image.Image:
    """[3, H, W] in [0, 1] -> Pillow RGB image."""
    return Image.fromarray(to_uint8(x))


def check_images(x: Tensor | Iterable[Tensor], smallest: int = 1) -> None:
    """Raise an error that names the problem unless x is [B, 3, H, W] (or a list of [3, H, W]) in [0, 1].

    TypeError, saying how to make images of it, for what is neither tensor nor list; else ValueError.
    """
    if isinstance(x, (list, tuple)):
        if not x:
            raise ValueError("an empty list of images: give at least one [3, H, W] tensor")
        for k, image in enumerate(x):
            if not isinstance(image, Tensor) or image.dim() != 3:
                raise ValueError(f"each image of a list must be a tensor [3, H, W], got {_instead(image)}")
            try:
                check_images(image[None], smallest)
            except ValueError as error:
                raise ValueError(f"image {k} of the list: {error}") from None
        return
    if not isinstance(x, Tensor):
        raise TypeError(f"images must be a tensor [B, 3, H, W] or a list of [3, H, W], got {_instead(x)}")
    if x.dim() != 4 or x.size(1) != 3:
        raise ValueError(f"images must be a tensor [B, 3, H, W], got {_instead(x)}")
    if x.size(0) == 0:
        raise ValueError("an empty batch of images: give at least one")
    if not x.is_floating_point():
        raise ValueError(f"images must be floating point in [0, 1], got {x.dtype}: divide 8-bit values by 255")
    if min(x.shape[2:]) < smallest:
        raise ValueError(f"images must be at least {smallest}×{smallest} pixels, got {x.size(2)}×{x.size(3)} (H×W)")
    low, high = map(float, x.detach().aminmax())  # NaN where any is NaN
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError("images contain NaN or infinite values")
    if low < 0 or high > 1:
        rounding = low > -0.01 and high < 1.01
        what = "a little outside: x.clamp(0, 1) takes them back" if rounding else "divide by 255, or clamp"
        raise ValueError(f"images must lie in [0, 1], got [{low:.8g}, {high:.8g}]: {what}")


def as_images(x: Tensor | Iterable[Tensor], smallest: int = 1) -> Tensor | list[Tensor]:
    """x as one tensor [B, 3, H, W] or a list of [3, H, W] (also of what a generator yields), after :func:`check_images`."""
    x = list(x) if isinstance(x, (Iterator, tuple)) else x
    check_images(x, smallest)
    return x


def _instead(x) -> str:
    """What was given where images were wanted, and how to make some of it."""
    what, hint = type(x).__name__, ""
    if isinstance(x, Tensor):
        match what := tuple(x.shape):
            case (3, _, _):
                hint = "add a batch dimension with x[None]"
            case (_, _, 3):
                hint = "the channels come first: x.permute(2, 0, 1)"
            case (_, 3, _, _):
                hint = "a list holds images without the batch dimension: x[0]"
            case (_, _, _, 3):
                hint = "the channels come first: x.permute(0, 3, 1, 2)"
            case (_, 1, _, _):
                hint = "grey is repeated with x.expand(-1, 3, -1, -1)"
            case (_, 4, _, _):
                hint = "x[:, :3] leaves the alpha channel out"
    elif isinstance(x, np.ndarray):
        what = f"a numpy array {x.shape} of {x.dtype}"
        hint = "torch.from_numpy(array).permute(2, 0, 1)[None] makes [1, 3, H, W] of [H, W, 3]; divide 8-bit values by 255"
    elif isinstance(x, (str, os.PathLike)):
        hint = "load_images(…) reads a set, nic_helpers.images.load_image(path)[None] one file"
    elif isinstance(x, Image.Image):
        hint = "nic_helpers.images.from_pil(image)[None] makes a tensor of it"
    elif isinstance(x, Mapping):
        hint = "list(x.values()) has its images"
    return f"{what}; {hint}" if hint else f"{what}"


def load_image(path: str | Path) -> Tensor:
    """One image file -> [3, H, W] in [0, 1]. A file that is no image, or a truncated one, raises OSError naming it.

    Of a file with several pictures (animations, pages) the first is taken, with a warning.
    """
    try:
        with Image.open(path) as image:
            image.load()
            # what phones add (MPO) and layers (PSD) are no pictures of their own
            if getattr(image, "is_animated", False) and image.format not in ("MPO", "PSD"):
                warnings.warn(f"{path} holds {image.n_frames} pictures: the first is taken", stacklevel=2)
            return from_pil(image)
    except FileNotFoundError:
        raise
    except Exception as error:  # Pillow's readers raise many kinds for damaged files
        raise OSError(f"cannot read {path} as an image: {error}") from error


def png_bytes(x: Tensor) -> bytes:
    """[3, H, W] in [0, 1] -> the bytes of a PNG."""
    buffer = io.BytesIO()
    to_pil(x).save(buffer, "png")
    return buffer.getvalue()


def centre_crop(x: Tensor, size: int) -> Tensor:
    """The central size×size part of [..., H, W]; what is smaller than that is returned whole along that side."""
    top, left = (max(0, (side - size) // 2) for side in x.shape[-2:])
    return x[..., top : top + size, left : left + size].contiguous()
