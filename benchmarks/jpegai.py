"""How far does the one full-size, fully trained codec within reach go apart? JPEG AI's transforms beside the bundled codecs.

NIC_KODAK_DIR=… NIC_JPEGAI_DIR=… python benchmarks/jpegai.py [--steps 60] [--images 4] [--write]

The attacks at their limit, in the box and in the ball, at 8 and 16 of 255; sign noise as a control. JPEG AI has no rate here (see
codecs/jpegai.py), so that the picture alone is attacked. --write: data/results/08_jpegai.csv, which notebook 08 shows.
"""

from __future__ import annotations

import argparse

import pandas as pd
import torch
from tqdm import tqdm

from nic_helpers import attacks, load_codec, metrics
from nic_helpers.image_sets import load_named_images
from nic_helpers.images import centre_crop
from nic_helpers.settings import data_dir

CODECS = (("jpegai-vm33", None), ("bmshj2018-hyperprior", 6), ("cheng2020-anchor", 6))
LEVELS = (16, 8)


def contestants(eps: float, steps: int) -> dict[str, attacks.Attack]:
    """The attacks of the robustness study that end lowest, one step, and noise."""
    fast = {"precision": "auto"}
    return {
        "sign noise": attacks.RandomNoise(eps, kind="sign"),
        "FGSM": attacks.FGSM(eps),
        "continuation": attacks.Continuation(eps, steps=steps, **fast),
        "continuation, ball": attacks.Continuation(eps, steps=steps, norm="l2rms", **fast),
    }


def main() -> None:
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--steps", type=int, default=60)
    p.add_argument("--images", type=int, default=4)
    p.add_argument("--write", action="store_true")
    a = p.parse_args()
    chosen = dict(list(load_named_images("kodak").items())[3::6][: a.images])
    x = torch.stack([centre_crop(v, 256) for v in chosen.values()])
    found = []
    jobs = [(name, q, level) for level in LEVELS for name, q in CODECS]
    for name, quality, level in tqdm(jobs):
        codec = load_codec(name, quality) if quality else load_codec(name)
        for label, attack in contestants(level / 255, a.steps).items():
            rows = metrics.before_after(codec, x, attack(codec, x).x_adv, list(chosen), real_rate=False)
            found.append(rows.assign(codec_label=codec.label, attack=label, eps_255=level, norm=attack.norm))
        table = pd.concat(found, ignore_index=True)
        print(
            table.groupby(["eps_255", "codec_label", "attack"], sort=False)[["psnr_clean", "psnr_recon", "psnr_own"]]
            .mean()
            .round(2)
        )
        if a.write:
            keep = ["codec", "codec_label", "image", "attack", "norm", "eps_255", "psnr_clean", "psnr_own", "psnr_source"]
            keep += ["psnr_recon", "psnr_input", "delta_own", "delta_source", "delta_amp", "blow_up"]
            table[keep].assign(profile="standard").to_csv(
                data_dir() / "results" / "08_jpegai.csv", index=False, float_format="%.5g"
            )


if __name__ == "__main__":
    main()
