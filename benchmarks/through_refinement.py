"""Does refinement hold against an attacker who takes the derivative of its steps, too? hyperprior q6, box of 16/255.

NIC_KODAK_DIR=… python benchmarks/through_refinement.py [--images 4] [--steps 40] [--write]

Three attackers with as many gradients each: one who knows nothing of it (static), one whose gradient passes the refinement's steps by
(as in notebook 11), and one whose gradient goes through them (defences.Unrolled). --write: data/results/13_through.csv (notebook 13).
"""

from __future__ import annotations

import argparse

import pandas as pd
import torch

from nic_helpers import attacks, defences, load_codec, metrics
from nic_helpers.image_sets import load_named_images
from nic_helpers.images import centre_crop
from nic_helpers.settings import data_dir

LEVEL = 16


def main() -> None:
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--images", type=int, default=4)
    p.add_argument("--steps", type=int, default=40)
    p.add_argument("--write", action="store_true")
    a = p.parse_args()
    chosen = dict(list(load_named_images("kodak").items())[1::6][: a.images])
    x = torch.stack([centre_crop(v, 256) for v in chosen.values()])
    codec, how = load_codec("bmshj2018-hyperprior", 6), defences.Refine(steps=2)
    refined, attack = how(codec), attacks.Continuation(LEVEL / 255, steps=a.steps)
    ways = {"static": codec, "steps passed by": refined, "through the steps": defences.Unrolled(how)(codec)}
    found = []
    for attacker, seen in ways.items():
        result = attack(seen, x)
        rows = metrics.before_after(refined, x, result.x_adv, list(chosen), real_rate=False)
        found.append(rows.assign(attacker=attacker, gradients=result.gradients, seconds=result.seconds))
        if attacker == "static":
            rows = metrics.before_after(codec, x, result.x_adv, list(chosen), real_rate=False)
            found.append(rows.assign(attacker="no defence", gradients=result.gradients, seconds=result.seconds))
    table = pd.concat(found, ignore_index=True)
    print(table.groupby("attacker", sort=False)[["psnr_clean", "psnr_recon", "psnr_own", "seconds"]].mean().round(2))
    if a.write:
        keep = ["image", "attacker", "psnr_clean", "psnr_recon", "psnr_own", "linf", "gradients", "seconds"]
        table = table[keep].assign(eps_255=LEVEL, profile="standard")
        table.to_csv(data_dir() / "results" / "13_through.csv", index=False, float_format="%.5g")


if __name__ == "__main__":
    main()
