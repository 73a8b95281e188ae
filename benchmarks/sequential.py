"""Do attacks miss what a context model's real decoder does? They follow the parallel form; the decoder rebuilds one latent after
the other.

NIC_KODAK_DIR=… python benchmarks/sequential.py [--steps 30] [--images 4] [--write]

For each codec with a context model: how far the two forms are apart on clean and attacked images, and three attacks at equal
gradients, all measured on the real decoder's output: the ordinary one (parallel form), the same with straight-through rounding, and
the same with the real decoder in the loop, whose output is compared with the reference while gradients are the parallel form's.
"""

from __future__ import annotations

import argparse
import dataclasses

import pandas as pd
import torch
from tqdm import tqdm

from nic_helpers import attacks, load_codec, metrics
from nic_helpers.codecs.base import Around
from nic_helpers.image_sets import load_named_images
from nic_helpers.images import centre_crop
from nic_helpers.settings import data_dir

ROWS = data_dir() / "results" / "sequential.csv"
CODECS = (("mbt2018", 3), ("mbt2018", 6), ("cheng2020-anchor", 3), ("cheng2020-anchor", 6))


class DecoderInTheLoop(Around):
    """A codec whose output is its real decoder's, with the gradient of its parallel form."""

    def __init__(self, codec):
        super().__init__(codec)
        self.always_rounds = True  # whatever the surrogate

    def __call__(self, x, surrogate="ste", rate=True):
        """The parallel form's pass with the decoder's picture in it."""
        out = self.codec(x, surrogate, rate)
        real = self.codec.reconstruct(x.detach())
        return dataclasses.replace(out, x_hat=out.x_hat + (real - out.x_hat).detach())


def measure(name: str, quality: int, images: dict[str, torch.Tensor], how: attacks.Attack) -> list[dict]:
    """Rows of one codec: an attack and an image each."""
    codec, x = load_codec(name, quality), torch.stack(list(images.values()))
    clean, rows = codec.reconstruct(x), []
    kinds = {
        "parallel form": (codec, how),
        "parallel form, straight-through": (codec, how.with_(surrogate="ste")),
        "decoder in the loop": (DecoderInTheLoop(codec), how.with_(surrogate="ste")),
    }
    gap = metrics.psnr(codec(x, None, rate=False).x_hat, clean)
    for kind, (attacked, attack) in kinds.items():
        x_adv = attack(attacked, x).x_adv
        real = codec.reconstruct(x_adv)
        found = {
            "psnr_own": metrics.psnr(clean, real),
            "forms_apart_clean": gap,
            "forms_apart_attacked": metrics.psnr(codec(x_adv, None, rate=False).x_hat, real),
        }
        of = {
            "codec": name,
            "quality": quality,
            "norm": how.norm,
            "eps_255": round(255 * how.eps),
            "steps": how.steps,
            "kind": kind,
        }
        rows += [of | {"image": image} | {k: round(float(v[i]), 3) for k, v in found.items()} for i, image in enumerate(images)]
    return rows


def main() -> None:
    """Measure, print, and with --write keep the rows."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--steps", type=int, default=30)
    p.add_argument("--images", type=int, default=4)
    p.add_argument("--write", action="store_true", help="write data/results/sequential.csv, which docs/strength.md tells from")
    a = p.parse_args()
    names = ("kodim04", "kodim07", "kodim10", "kodim13")[: a.images]
    whole = {name.split(".")[0]: im for name, im in load_named_images("kodak").items()}
    images = {name: centre_crop(whole[name], 256) for name in names}
    hows = (attacks.PGD(8 / 255, steps=a.steps, norm="l2rms"), attacks.PGD(16 / 255, steps=a.steps))
    todo = tqdm([(*c, how) for c in CODECS for how in hows])
    table = pd.DataFrame(row for name, quality, how in todo for row in measure(name, quality, images, how))
    print(table.groupby(["codec", "quality", "norm", "kind"]).mean(numeric_only=True).round(2).to_string())
    if a.write:
        table.to_csv(ROWS, index=False)


if __name__ == "__main__":
    main()
