"""Sets of images by name: the bundled one, Kodak, any folder."""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import pooch
from PIL import Image
from torch import Tensor

from nic_helpers.images import centre_crop, load_image, pixels_sha256
from nic_helpers.settings import data_dir

#: Pillow knows these by their first bytes and has no pixels of them, or only through another program.
_NO_PIXELS = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
#: What lies beside images and is no image: left out without a word.
_BESIDE = {".csv", ".db", ".html", ".ini", ".json", ".log", ".md", ".txt", ".tsv", ".xml", ".xmp", ".yaml", ".yml"}
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
KODAK_SHA256 = (  # of the pixels, as :func:`pixels_sha256` has them: files differ from mirror to mirror
    "a00210743353594464ac67e680a41710f484444ca5f9dfddeb570de25c428273",
    "ae5a495df4ec40e0941265440ccf98973915b4190ab803e37a23ca93dd43a07e",
    "234e61f585503f2a44400f5561131e8a512ef2c15328cd83d5cdbf10e2616cf2",
    "e88e788fca00e6c723bb66ff45edb8cb56091ee284dcb73e3909834f2c96eeb6",
    "ed3d1ee770909d3b27903b52ce19ee59a9bf24621a7bf1fb57b90677da880cb6",
    "7f45158999fa297d1cfbd292b3e2f3f5b27770701c3473155c211c3f512cc97f",
    "4e3664bf6fe865b49f15f7b554efa7dbecaf73ae0e8699f2e307bf07849f1264",
    "889c3740e4ed54ca53d11ae735a44d15fa24fe312b3bd1609a80618a4092c208",
    "f8453140e63a42301a6dbebb849a3cc40d34e4e59580eb1f372f7f5460df0dbe",
    "fabe11b5c4f028394e093a5b5907e5fabc8072da0d5334fb3a38547a7e1be842",
    "ab4dd9bf8431e717d33892b3ba03c63bfea3c7fa72c2610010de7df3c194c075",
    "f412db2168e599949aac26bd3264f111b23a684f30a21cfd320e9e95bc69bbae",
    "875703d56fb9396f478b5d7d3b18e2b77c17147a685c6dc2567e1c574aaf01e3",
    "2bd5029ee75ac1697542e5b05624e8afe186e3250abd7513d6a806b52084c2f0",
    "b5353e7511277009922ecbdebfc6418fec53aa1b2a08d44fc957a7540825697b",
    "ed21745fd32fce95cc2c6af7fc52b1b15e590c7a14ab18ab34bd65ecaf955ac7",
    "566bc866664e9b06dc86e2654051b454844efe17322dbf7e24156d8243f1943e",
    "3475af71066f3ca8206eb12cfc989ebe9c6e44820a96604e88ae018606e1f7bd",
    "7956408ef24222d37ac53f579bd24d5b2c3557b16c657e8b71c1b6ae9f18de1b",
    "666ce8f2db5566a123bb081e70618f6f4c4253df960f3b41bb9dcc3dd134f3cf",
    "2d6902daf7c4486b7c8c04d834091841a2b38c8f0c81cd7a963a6510b34a2a6a",
    "f430842120c108b67725ada96b8b7b2a914f6a0915eacd5595064c6c1a5d70a0",
    "81992a83592267e69125666f3e3e04c1819529b4c4c1e55fde0a6a741bac4219",
    "e3e3ccc3e795b82a3da66934409dfe98ce0f5aadc6d7767543c506453599bb98",
)
KODAK = {f"kodim{i:02d}.png": digest for i, digest in enumerate(KODAK_SHA256, 1)}


def image_files(folder: str | Path) -> list[Path]:
    """The files of a folder that Pillow can read, whatever their suffix, in name order; a warning names the others."""
    folder = Path(folder)
    if folder.is_file():
        raise NotADirectoryError(
            f"{folder} is a file where a folder of images is wanted: nic_helpers.images.load_image(path) reads one image"
        )
    if not folder.is_dir():
        raise FileNotFoundError(f"no such folder of images: {folder}. There are 'bundled', 'kodak', or a folder's path")
    Image.init()  # all of Pillow's formats, and those of plug-ins that registered themselves
    formats = sorted(set(Image.OPEN) - _NO_PIXELS)
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() not in _BESIDE and not p.name.startswith("."))
    named = {suffix for suffix, name in Image.registered_extensions().items() if name in formats}
    found = [p for p in files if p.is_file() and (p.suffix.lower() in named or _opens(p, formats))]
    others = sorted({p.name for p in files} - {p.name for p in found})
    if not found:
        there = f": it holds {_some(others)}" if others else ": it is empty"
        raise FileNotFoundError(
            f"no readable image in {folder}{there}. Give a folder of image files that Pillow reads (PNG, JPEG, WebP, AVIF, TIFF …)"
        )
    if others:
        warnings.warn(
            f"left out of {folder}, as Pillow cannot read them: {_some(others)}. Convert what is to be used to PNG", stacklevel=2
        )
    return found


def _some(names: list[str], most: int = 20) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _opens(path: Path, formats: list[str]) -> bool:
    try:
        with Image.open(path, formats=formats):
            return True
    except Exception:  # Pillow's readers raise many kinds
        return False


def _bundled_image(file: str, top: int, left: int) -> Tensor:
    import skimage

    image = load_image(Path(skimage.__file__).parent / "data" / file)
    return image[:, top : top + BUNDLED_SIZE, left : left + BUNDLED_SIZE].contiguous()


def _kodak() -> dict[str, Callable[[], Tensor]]:
    folder = os.environ.get("NIC_KODAK_DIR")
    if not folder:
        return {name: functools.partial(_fetched_kodak_image, name) for name in KODAK}
    missing = [name for name in KODAK if not (Path(folder) / name).is_file()]
    if missing:
        raise FileNotFoundError(f"NIC_KODAK_DIR={folder} lacks {', '.join(missing)}")
    return {name: functools.partial(_kodak_image, Path(folder) / name) for name in KODAK}


def _kodak_image(path: Path) -> Tensor:
    image = load_image(path)
    if pixels_sha256(image) != KODAK[path.name]:
        raise ValueError(f"{path} is not the well-known Kodak image (the SHA-256 of its pixels differs)")
    return image


def _fetched_kodak_image(name: str) -> Tensor:
    path = data_dir() / "kodak" / name
    if path.is_file():
        with suppress(OSError, ValueError):
            return _kodak_image(path)
        path.unlink()  # damaged: fetched again
    url = os.environ.get("NIC_KODAK_URL") or KODAK_URL
    try:  # pooch writes to a temporary file and moves it: an interrupted download leaves nothing behind
        return _kodak_image(Path(pooch.create(path=path.parent, base_url=url, registry={name: None}).fetch(name)))
    except Exception as error:
        path.unlink(missing_ok=True)
        here = sum((path.parent / n).is_file() for n in KODAK)
        raise ConnectionError(
            f"cannot fetch Kodak's {name} from {url} ({type(error).__name__}: {error}). "
            f"{here} of 24 are in {path.parent} and will not be fetched again. Run again when the network "
            "is there, or put kodim01.png … kodim24.png in a folder and set NIC_KODAK_DIR to it, or use "
            "load_images('bundled')."
        ) from error


class ImageSet(Mapping[str, Tensor]):
    """Images by name: names are known at once, an image is read where it is asked for, and not kept.

    ``source``, ``lossless_only``: as of :func:`load_named_images`; ``crop``: pixels a side of the centre that is given of each.
    """

    def __init__(self, source: str | Path = "bundled", *, crop: int | None = None, lossless_only: bool = False):
        if not isinstance(source, (str, os.PathLike)):
            raise TypeError(f"images come from 'bundled', 'kodak' or a folder's path, got {type(source).__name__}")
        self.source, self.crop = source, crop
        if source == "bundled":
            self._read = {
                k: functools.partial(_bundled_image, *v) for k, v in BUNDLED.items() if not lossless_only or v[0].endswith(".png")
            }
        elif source == "kodak":
            self._read = _kodak()
        else:
            self._read = {p.name: functools.partial(load_image, p) for p in image_files(source)}

    def __getitem__(self, name: str) -> Tensor:
        image = self._read[name]()
        return centre_crop(image, self.crop) if self.crop else image

    def __contains__(self, name) -> bool:
        return name in self._read

    def __iter__(self) -> Iterator[str]:
        return iter(self._read)

    def __len__(self) -> int:
        return len(self._read)

    def read(self, most: int | None = None, on_error: str = "skip") -> dict[str, Tensor]:
        """The images, or the first ``most`` of them. ``on_error``, of a folder's: "skip" leaves out a file that cannot be read, with
        a warning that names it; "raise" stops there."""
        if on_error not in ("skip", "raise"):
            raise ValueError(f"on_error must be 'skip' or 'raise', got {on_error!r}")
        skip, images = on_error == "skip" and self.source not in ("bundled", "kodak"), {}
        for name in self:
            if len(images) == most:
                break
            try:
                images[name] = self[name]
            except OSError as error:
                if not skip:
                    raise
                warnings.warn(f"{error}: skipped", stacklevel=3)
        if not images:
            raise FileNotFoundError(f"no readable image in {self.source}: each of its {len(self)} files is damaged")
        return images


def in_words(source: str | Path, n: int) -> str:
    """n images of a source, in words for a caption: a folder of one's own is called by its name."""
    images = f"image{'s' * (n != 1)}"
    known = {"bundled": f"bundled {images}", "kodak": f"Kodak {images}"}.get(source)
    return f"{n} {known or f'{images} of {Path(source).resolve().name}'}"


def load_named_images(source: str | Path = "bundled", *, lossless_only: bool = False, on_error: str = "skip") -> dict[str, Tensor]:
    """Images by name: ``"bundled"`` (256×256 crops of images that scikit-image installs), ``"kodak"``, or a folder.

    Returns name -> [3, H, W] in [0, 1] on the 8-bit grid, a folder's by file name: all files that Pillow reads. ``on_error="skip"``
    leaves out a damaged file and warns with its name; ``"raise"`` stops there. ``lossless_only`` leaves out bundled images stored
    as JPEG files. Kodak comes from ``NIC_KODAK_DIR``, else is downloaded once, each image checked by the SHA-256 of its pixels.
    """
    return ImageSet(source, lossless_only=lossless_only).read(on_error=on_error)


def load_images(source: str | Path = "bundled", **kwargs) -> list[Tensor]:
    """The images of :func:`load_named_images` as a list of [3, H, W] tensors."""
    return list(load_named_images(source, **kwargs).values())
