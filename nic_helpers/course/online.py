"""What a sender gains who changes the picture before it is coded, step by step: rows for notebook 13."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

import pandas as pd
from torch import Tensor

from nic_helpers.attacks.base import Attack
from nic_helpers.codecs.base import Codec, real_bpp
from nic_helpers.defences import OnlineUpdate, Refine
from nic_helpers.metrics import mse, psnr

METHODS = {"refine": Refine, "online update": OnlineUpdate}


def ladder(
    codec: Codec, images: Mapping[str, Tensor], attack: Attack, steps: Mapping[str, Sequence[int]], objective=None
) -> pd.DataFrame:
    """Each method of ``METHODS`` at each of its ``steps``, and none, on clean images [3, H, W] and on what ``attack`` makes of them on
    the bare codec (a static attack): a row an image, ``picture`` ("clean", "attacked"), ``method`` and ``steps``.

    ``bpp``: real bytes; ``psnr_own`` and ``psnr_source`` (dB): to the picture that was sent, and to the clean one; ``cost``:
    R + λ·255²·MSE to what was sent; ``seconds``: the encoder's.
    """
    rows = []
    for name, image in images.items():
        x = image[None]
        codec.encode(x)  # warm
        for picture, sent in (("clean", x), ("attacked", attack(codec, x, objective).x_adv)):
            for method, count, defended in _defended(codec, steps):
                began = time.perf_counter()
                streams = defended.encode(sent)
                seconds = time.perf_counter() - began
                decoded, bpp = defended.decode(streams), real_bpp(streams, sent)[0]
                row = {"image": name, "picture": picture, "method": method, "steps": count, "bpp": bpp, "seconds": seconds}
                row |= {"psnr_own": float(psnr(sent, decoded)), "psnr_source": float(psnr(x, decoded))}
                rows.append(row | {"cost": bpp + codec.lmbda * 255**2 * float(mse(sent, decoded))})
    return pd.DataFrame(rows).assign(codec=codec.name, quality=codec.quality, weights=codec.weights.source)


def _defended(codec: Codec, steps: Mapping[str, Sequence[int]]) -> Iterator[tuple[str, int, Codec]]:
    yield "none", 0, codec
    for method, counts in steps.items():
        for count in counts:
            yield method, count, METHODS[method](steps=count)(codec)


def combined(codecs: Mapping[str, Codec], images: Mapping[str, Tensor], attack: Attack, refine: int = 2) -> pd.DataFrame:
    """Several codecs with and without refinement, each attacked through all that it is (an adaptive attack): a row a codec, image and
    ``method`` with ``psnr_clean`` and ``psnr_own`` (dB, to the clean and to the attacked picture)."""
    rows = []
    for label, codec in codecs.items():
        for method, defended in (("none", codec), ("refine", Refine(steps=refine)(codec))):
            for name, image in images.items():
                x = image[None]
                x_adv = attack(defended, x).x_adv
                own = {"psnr_clean": x, "psnr_own": x_adv}
                row = {"codec": label, "image": name, "method": method}
                rows.append(row | {k: float(psnr(v, defended.reconstruct(v))) for k, v in own.items()})
    return pd.DataFrame(rows)


def changes(rows: pd.DataFrame) -> pd.DataFrame:
    """Of :func:`ladder`'s rows, each method's ``psnr_own``, ``cost``, ``bpp`` and ``seconds`` less the plain codec's on the same picture;
    indexed by ``picture``, ``method``, ``steps`` and ``image``."""
    values = ["psnr_own", "cost", "bpp", "seconds"]
    found = rows.set_index(["picture", "method", "steps", "image"])[values]
    bare = rows[rows["method"] == "none"].set_index(["picture", "image"])[values]
    return found - bare.reindex(found.index.droplevel(["method", "steps"])).to_numpy()


def against_who_knows(study: pd.DataFrame) -> pd.DataFrame:
    """Of notebook 11's rows, how much nearer to each other the outputs stay with each method (dB of the PSNR that the attacks lower), by
    method, budget and image: under the ``static`` attack, and under the worse of it and the ``adaptive`` one."""
    names = {f"picture, {attacker}": attacker for attacker in ("static", "adaptive")}
    part = study[study["attack"].isin(names)].assign(attacker=study["attack"].map(names))
    wide = part.pivot_table(index=["defence", "eps_255", "image"], columns="attacker", values="psnr_recon")
    bare = wide.loc["none"]["adaptive"]
    found = {}
    for method in METHODS:
        kept = pd.DataFrame({"static": wide.loc[method]["static"], "adaptive": wide.loc[method].min(axis=1)})
        found[method] = kept.sub(bare, axis=0).dropna()
    return pd.concat(found, names=["method"])
