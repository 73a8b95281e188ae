"""Images in, images out: the bundled set, Kodak, any folder; always RGB float tensors in [0, 1] on the 8-bit grid."""

from __future__ import annotations

import io
import math
import os
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pooch
import torch
from PIL import Image, ImageOps
from torch import Tensor

from nic_helpers.settings import data_dir

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".gif"}

#: Bundled set: (file among scikit-image's installed data, top, left) of a 256×256 crop. The last one is stored as
#: JPEG, so it stays out of rate–distortion plots: JPEG would be asked to code its own artefacts.
BUNDLED = {
    "astronaut": ("astronaut.png", 0, 96),
    "chelsea": ("chelsea.png", 20, 80),
    "coffee": ("coffee.png", 60, 150),
    "motorcycle": ("motorcycle_left.png", 150, 250),
    "ihc": ("ihc.png", 128, 128),
    "rocket": ("rocket.jpg", 100, 250),
}
BUNDLED_SIZE = 256

KODAK_URL = "https://r0k.us/graphics/kodak/kodak/"
KODAK_SHA256 = (
    "a56e27cbf5f843c048b6af1d6e090760e9c92fadba88b7dee0205918a37523bd",
    "4f4b74a79237e311d72cad958237b5f7088d8bce1c82305ebefe1a70e3022dfd",
    "e25ca1ff2f0c0cb5fdfd5f9b0a0bb21ac4c3de3c84a67f35b09a85d3306249db",
    "e3b946107c5d3441c022f678d0c3caf1e224d81b1604ba840a4f88e562de61aa",
    "10349e963c5c813d327852f82c1795fa4148d69fedffc4c589bee458e3ac3d53",
    "363510303b715d4cbc384e1ce227e466b613a09e1b71ae985882bf8e7fbd9b18",
    "b77d3f006f42414bb242222e0482e750c0fb9e5ee8d4bed2f6f11c5605fe54a4",
    "ba23983c76b4832ee0e8af0592664756841a16779acd69f792e268fb6d13d6e7",
    "6a4361c2fc194feb4edaa9f9a4a0620fb9943e460ac7fdf037fb0f6dd6607a7d",
    "9dfb70f5867c29ff9ed6313683f19b3d867849e40fbc0c4c54a4a89df341cf23",
    "7936814b58b5387fce2e4e2488b4ec830dadd95fa9520f358ddb30990b50f2b6",
    "d78c37c2f04f23761ed2367dd77e2db584ddd4c3950833fecf89f199a8126980",
    "bc34a3ce58dea09dce1704c997171602de90cb34d0c8503a988b77f473d39b08",
    "55a94550ff18f3246c4074fd32b77b0c74447c26b6ad274d564d999c0450ba6e",
    "7538cbb80cb9103606c48b806eae57d56c885c7f90b9b3be70a41160f9cbb683",
    "a89c7268ccd4718ba424a99fc4643c572cf692ca6eae887185ceb4e9f11d2e54",
    "37afcc89fbdcb76d9518e04b2fc011027e2f4cd14b3b2f83cefd721641a47c5b",
    "1a9258c365988961d87a0598725b609139c303ad48a5aad6c503c3b1a87849aa",
    "b7450b264b1b0a411390d8931b112c27905a992520fc90569dc4b920aa32bbdc",
    "3b46c71e3b92a563820ba32936be8330c586c41f938efd94be938386aae4328a",
    "ac958597c82073f6bb65129c68f72b651db5b9efd82e11547d07350214bc268b",
    "1cee58eb1f2d9c7ebb254d208a03c783ce6cf2c4d8c2cf45e235dd23b4ce1b29",
    "e3111a2fd4da24af15d6459ef9eacfe54106b38e27b4a21821b75c3f5d2d5baf",
    "1071c68372cc5a01435c2c225a5cf7d4bb803846ec08bb6b3d6721b156d7cb96",
)
KODAK = {f"kodim{i:02d}.png": digest for i, digest in enumerate(KODAK_SHA256, 1)}


# ------------------------------------------------------------------------------------------------------- tensors
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
    to 8 bits; transparency is laid over white; CMYK is converted with Pillow's plain formula.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        image = _to_8bit_grey(image)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    array = np.array(image.convert("RGB"))
    return torch.from_numpy(array).permute(2, 0, 1).contiguous().float() / 255


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
    """Raise a ValueError that names the problem unless x is [B, 3, H, W] (or a list of [3, H, W]) in [0, 1]."""
    if not isinstance(x, Tensor):
        x = list(x)
        if not x:
            raise ValueError("an empty list of images: give at least one [3, H, W] tensor")
        for image in x:
            if not isinstance(image, Tensor) or image.dim() != 3:
                shape = tuple(image.shape) if isinstance(image, Tensor) else type(image).__name__
                raise ValueError(f"each image of a list must be a tensor [3, H, W], got {shape}")
            check_images(image[None], smallest)
        return
    if x.dim() != 4 or x.size(1) != 3:
        hint = "; add a batch dimension with x[None]" if x.dim() == 3 else ""
        raise ValueError(f"images must be a tensor [B, 3, H, W], got {tuple(x.shape)}{hint}")
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
        raise ValueError(f"images must lie in [0, 1], got [{low:.4g}, {high:.4g}]: divide by 255, or clamp")


# ---------------------------------------------------------------------------------------------------------- files
def load_image(path: str | Path) -> Tensor:
    """One image file -> [3, H, W] in [0, 1]. A file that is no image, or a truncated one, raises OSError naming it."""
    try:
        with Image.open(path) as image:
            image.load()
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


def load_folder(folder: str | Path, on_error: str = "skip") -> dict[str, Tensor]:
    """Every image of a folder, by file name and in name order.

    ``on_error="skip"`` leaves out a file that cannot be read and warns with its name; ``"raise"`` stops there.
    """
    folder = Path(folder)
    if on_error not in ("skip", "raise"):
        raise ValueError(f"on_error must be 'skip' or 'raise', got {on_error!r}")
    if not folder.is_dir():
        raise FileNotFoundError(f"no such folder of images: {folder}")
    images = {}
    for path in sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES):
        try:
            images[path.name] = load_image(path)
        except OSError as error:
            if on_error == "raise":
                raise
            warnings.warn(f"{error}: skipped", stacklevel=2)
    if not images:
        raise FileNotFoundError(f"no readable image in {folder} (looked for {', '.join(sorted(SUFFIXES))})")
    return images


def _bundled(lossless_only: bool) -> dict[str, Tensor]:
    import skimage

    folder = Path(skimage.__file__).parent / "data"
    chosen = {k: v for k, v in BUNDLED.items() if not lossless_only or v[0].endswith(".png")}
    return {
        name: load_image(folder / file)[:, top : top + BUNDLED_SIZE, left : left + BUNDLED_SIZE].contiguous()
        for name, (file, top, left) in chosen.items()
    }


def _kodak() -> dict[str, Tensor]:
    folder = os.environ.get("NIC_KODAK_DIR")
    if folder:
        missing = [name for name in KODAK if not (Path(folder) / name).is_file()]
        if missing:
            raise FileNotFoundError(f"NIC_KODAK_DIR={folder} lacks {', '.join(missing)}")
        for name, digest in KODAK.items():
            if pooch.file_hash(str(Path(folder) / name)) != digest:
                raise ValueError(f"{Path(folder) / name} is not the well-known Kodak image (its SHA-256 differs)")
        return {name: load_image(Path(folder) / name) for name in KODAK}
    fetcher = pooch.create(
        path=data_dir() / "kodak",
        base_url=os.environ.get("NIC_KODAK_URL") or KODAK_URL,
        registry={name: f"sha256:{digest}" for name, digest in KODAK.items()},
    )
    images = {}
    for name in KODAK:
        try:
            images[name] = load_image(fetcher.fetch(name))
        except Exception as error:
            raise ConnectionError(
                f"cannot fetch Kodak's {name} from {fetcher.base_url} ({type(error).__name__}: {error}). "
                f"{len(images)} of 24 are in {fetcher.path} and will not be fetched again. Run again when the network "
                "is there, or put kodim01.png … kodim24.png in a folder and set NIC_KODAK_DIR to it, or use "
                "load_images('bundled')."
            ) from error
    return images


def load_named_images(
    source: str | Path = "bundled", *, lossless_only: bool = False, on_error: str = "skip"
) -> dict[str, Tensor]:
    """Images by name: ``"bundled"`` (256×256 crops of images that scikit-image installs), ``"kodak"``, or a folder.

    Returns name -> [3, H, W] in [0, 1] on the 8-bit grid. ``lossless_only`` leaves out bundled images stored as JPEG files.
    Kodak comes from ``NIC_KODAK_DIR``, else is downloaded once, each file checked by its SHA-256.
    """
    if source == "bundled":
        return _bundled(lossless_only)
    if source == "kodak":
        return _kodak()
    return load_folder(source, on_error)


def load_images(source: str | Path = "bundled", **kwargs) -> list[Tensor]:
    """The images of :func:`load_named_images` as a list of [3, H, W] tensors."""
    return list(load_named_images(source, **kwargs).values())


def centre_crop(x: Tensor, size: int) -> Tensor:
    """The central size×size part of [..., H, W]; what is smaller than that is returned whole along that side."""
    top, left = (max(0, (side - size) // 2) for side in x.shape[-2:])
    return x[..., top : top + size, left : left + size].contiguous()
