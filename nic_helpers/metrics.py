"""Quality, rate and before/after quantities: one row per image, the names of the course's methods page."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import pandas as pd
import torch
from pytorch_msssim import ms_ssim as _ms_ssim
from pytorch_msssim import ssim as _ssim
from torch import Tensor

from nic_helpers.codecs.base import Coded, Images, check_codec, own_precision, real_bpp
from nic_helpers.images import as_images, check_images, to_8bit

PSNR_CAP = 100.0  # dB; the PSNR of identical images is infinite, and is reported as this
BLOW_UP = 15.0  # dB; an attacked reconstruction further than this from the clean one counts as a blow-up
MS_SSIM_SMALLEST = 161  # pixels; MS-SSIM halves the image four times under an 11-pixel window


def _same(a: Tensor, b: Tensor) -> None:
    check_images(a)
    check_images(b)
    if a.shape != b.shape:
        raise ValueError(f"images of different shapes cannot be compared: {tuple(a.shape)} and {tuple(b.shape)}")


def _both(x: Images, x_adv: Images) -> tuple[Images, Images]:
    """Two sets of images of the same kind, number and shapes; else an error that says what they are."""
    x, x_adv = as_images(x), as_images(x_adv)
    if isinstance(x, Tensor) != isinstance(x_adv, Tensor) or len(x) != len(x_adv):
        what = ", ".join(f"a batch of {len(v)}" if isinstance(v, Tensor) else f"a list of {len(v)}" for v in (x, x_adv))
        raise ValueError(f"images go together as two batches of the same shape, or two lists of the same length, got {what}")
    for k, (a, b) in enumerate(zip(x, x_adv, strict=True)):
        if a.shape != b.shape:
            raise ValueError(f"images of different shapes cannot be compared: {tuple(a.shape)} and {tuple(b.shape)} (number {k})")
    return x, x_adv


def _named(names: Sequence[str] | None, count: int) -> list:
    """A name for each of so many images: their numbers where none are given."""
    if isinstance(names, str) or (names is not None and len(names) != count):
        raise ValueError(f"names must be a list with one name for each of the {count} image(s), got {names!r}")
    return list(range(count) if names is None else names)


def on_lists(metric):
    """Let a metric of two batches also take two lists of [3, H, W] of any sizes; values per image in one tensor."""

    @functools.wraps(metric)
    def wrapped(a: Images, b: Images) -> Tensor:
        if isinstance(a, Tensor) and isinstance(b, Tensor):
            return metric(a, b)
        a, b = _both(a, b)
        return torch.cat([metric(p[None], q[None]) for p, q in zip(a, b, strict=True)])

    return wrapped


@on_lists
def mse(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared error per image [B] of two batches [B, 3, H, W] in [0, 1], as 8-bit images."""
    _same(a, b)
    return ((to_8bit(a).double() - to_8bit(b).double()) ** 2).mean((1, 2, 3))


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """PSNR in dB per image [B] over all three channels, as 8-bit images; 100 for identical ones."""
    return (-10 * torch.log10(mse(a, b).clamp_min(1e-30))).clamp_max(PSNR_CAP)


@on_lists
@own_precision()
def ssim(a: Tensor, b: Tensor) -> Tensor:
    """SSIM per image [B] (Wang 2004: 11×11 Gaussian window, σ 1.5), mean over RGB; NaN below 11 pixels."""
    _same(a, b)
    if min(a.shape[2:]) < 11:
        return torch.full((len(a),), math.nan, dtype=torch.float64)
    return _ssim(to_8bit(a).float(), to_8bit(b).float(), data_range=1.0, size_average=False).double()


@on_lists
@own_precision()
def ms_ssim(a: Tensor, b: Tensor) -> Tensor:
    """MS-SSIM per image [B] (Wang 2003, five scales), mean over RGB; NaN where a side is below 161 pixels."""
    _same(a, b)
    if min(a.shape[2:]) < MS_SSIM_SMALLEST:
        return torch.full((len(a),), math.nan, dtype=torch.float64)
    return _ms_ssim(to_8bit(a).float(), to_8bit(b).float(), data_range=1.0, size_average=False).double()


#: Full-reference qualities: name -> function of two batches.
QUALITIES = {"psnr": psnr, "ssim": ssim, "ms_ssim": ms_ssim}


def check_measures(names: Sequence[str]) -> tuple[str, ...]:
    """Names of full-reference qualities, in the order of :data:`QUALITIES`; ValueError where one is unknown or ``psnr`` is missing."""
    if isinstance(names, str) or not isinstance(names, Sequence) or not set(names) <= set(QUALITIES) or "psnr" not in names:
        raise ValueError(f"measures must be a sequence of {', '.join(QUALITIES)}, 'psnr' among them, got {names!r}")
    return tuple(n for n in QUALITIES if n in names)


def achieved(x: Tensor, x_adv: Tensor) -> dict[str, Tensor]:
    """What a perturbation really is: ``linf`` and ``rms`` (on [0, 1]) and ``psnr_input`` (dB) per image [B]."""
    delta = (x_adv - x).double().flatten(1)
    return {"linf": delta.abs().amax(1), "rms": delta.pow(2).mean(1).sqrt(), "psnr_input": psnr(x, x_adv)}


@torch.no_grad()
def quality_table(codec, x: Images, names: list[str] | None = None) -> pd.DataFrame:
    """A row per image: ``bpp`` (real bytes over original pixels), ``psnr``, ``ssim``, ``ms_ssim`` of one codec."""
    check_codec(codec)
    x = as_images(x)
    names = _named(names, len(x))
    coded = codec.roundtrip(x)
    rows = []
    for name, image, x_hat, bpp in zip(names, x, coded.x_hat, real_bpp(coded.streams, x), strict=True):
        row = {"image": name, **describe(codec), "bpp": bpp}
        row |= {n: float(f(image[None], x_hat[None])) for n, f in QUALITIES.items()}
        rows.append(row)
    return pd.DataFrame(rows)


def describe(codec) -> dict:
    """Which codec a row is about: name, quality, λ, where its weights come from and their SHA-256 (12 digits)."""
    weights = codec.weights
    return {
        "codec": codec.name,
        "quality": codec.quality,
        "lmbda": codec.lmbda,
        "weights": weights.source if weights else "",
        "weights_sha256": weights.sha256[:12] if weights else "",
    }


@torch.no_grad()
def before_after(
    codec,
    x: Images,
    x_adv: Images,
    names: list[str] | None = None,
    real_rate: bool = True,
    coded: tuple[Coded, Coded] | None = None,
    measures: Sequence[str] = tuple(QUALITIES),
) -> pd.DataFrame:
    """What an attack did to a codec: a DataFrame with one row per image.

    Parameters: x, x_adv [B, 3, H, W] (or lists of [3, H, W]) in [0, 1], source and attacked; ``names`` of the images;
    ``real_rate=False`` leaves out the real bitstreams (and their columns), which saves the entropy coding; ``coded``: what
    ``codec.roundtrip`` gave for x and for x', where that is known already; ``measures``: the full-reference qualities (SSIM and
    MS-SSIM take longer than the coding of a small image, and PSNR next to nothing). A codec that draws at random draws for x'
    what it draws for x (``codec.for_images``), unless ``coded`` says otherwise.

    Columns, with C the codec and Q a full-reference quality (``psnr`` in dB, ``ssim``, ``ms_ssim``):
    ``Q_clean`` Q(x, C(x)) · ``Q_source`` Q(x, C(x')) · ``Q_own`` Q(x', C(x')) · ``Q_recon`` Q(C(x), C(x')) ·
    ``Q_input`` Q(x, x') · ``Q_oracle`` Q(C(x), x') · ``delta_source``, ``delta_own``, ``delta_amp`` (dB; with a suffix
    ``_ssim``, ``_ms_ssim`` for the others), where ``delta_amp`` is the amplification (Chen & Ma's vulnerability index) ·
    ``psnr_drop_percent`` · ``delta_d``, ``delta_d_rel`` the rise of the codec's own MSE on the 0–255 scale ·
    ``bpp_clean``, ``bpp_attacked`` (real bytes over original pixels), ``delta_r``, ``delta_r_rel``, ``bpp_ratio`` ·
    ``linf``, ``rms`` of the perturbation · ``blow_up`` (psnr_recon below 15 dB).
    """
    check_codec(codec)
    x, x_adv = _both(x, getattr(x_adv, "x_adv", x_adv))  # what an attack gives is taken too
    names, measures = _named(names, len(x)), check_measures(measures)
    codec = codec.for_images(x)
    if real_rate or coded:
        clean, attacked = coded or (codec.roundtrip(x), codec.roundtrip(x_adv))
        rates = list(zip(real_bpp(clean.streams, x), real_bpp(attacked.streams, x), strict=True))
        clean, attacked = clean.x_hat, attacked.x_hat
    else:
        clean, attacked, rates = codec.reconstruct(x), codec.reconstruct(x_adv), None
    rows = []
    for k in range(len(x)):
        a, b, c, d = (part[k][None] for part in (x, x_adv, clean, attacked))
        row = {"image": names[k], **describe(codec)}
        row |= _qualities(a, b, c, d, measures)
        own, own_clean = (255**2 * float(mse(*pair)) for pair in ((b, d), (a, c)))
        row["delta_d"] = own - own_clean
        row["delta_d_rel"] = (own - own_clean) / own_clean if own_clean else math.nan
        if rates:
            before, after = rates[k]
            row |= {
                "bpp_clean": before,
                "bpp_attacked": after,
                "delta_r": after - before,
                "delta_r_rel": (after - before) / before,
                "bpp_ratio": after / before,
            }
        row |= {n: float(v) for n, v in achieved(a, b).items() if n != "psnr_input"}
        row["blow_up"] = row["psnr_recon"] < BLOW_UP
        rows.append(row)
    return pd.DataFrame(rows)


def _qualities(x: Tensor, x_adv: Tensor, clean: Tensor, attacked: Tensor, measures: Sequence[str]) -> dict[str, float]:
    pairs = {
        "clean": (x, clean),
        "source": (x, attacked),
        "own": (x_adv, attacked),
        "recon": (clean, attacked),
        "input": (x, x_adv),
        "oracle": (clean, x_adv),
    }
    row = {}
    for q in measures:
        f = QUALITIES[q]
        value = {p: float(f(*pair)) for p, pair in pairs.items()}
        row |= {f"{q}_{p}": v for p, v in value.items()}
        suffix = "" if q == "psnr" else f"_{q}"
        row[f"delta_source{suffix}"] = value["clean"] - value["source"]
        row[f"delta_own{suffix}"] = value["clean"] - value["own"]
        row[f"delta_amp{suffix}"] = value["input"] - value["recon"]
    row["psnr_drop_percent"] = 100 * row["delta_source"] / row["psnr_clean"]
    return row
