"""Does a sender's search hold against an attacker who takes the derivative of its steps, too? hyperprior q6, box of 16/255.

NIC_KODAK_DIR=… python benchmarks/through_the_sender.py [--images 4] [--steps 40] [--write]

Refinement and online updating. Three attackers with as many gradients each: one who knows nothing of it (static), one whose gradient
passes the sender's steps by (as in notebook 11), and one whose gradient goes through them (defences.Unrolled). --write:
data/results/13_through.csv (notebook 13).
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
    codec, attack = load_codec("bmshj2018-hyperprior", 6), attacks.Continuation(LEVEL / 255, steps=a.steps)
    static = attack(codec, x)
    found = [_rows(codec, x, static, list(chosen)).assign(method="none", attacker="static")]
    for method, how in {"refine": defences.Refine(steps=2), "online update": defences.OnlineUpdate(steps=5)}.items():
        defended = how(codec)
        seen = {"steps passed by": defended, "through the steps": defences.Unrolled(how)(codec)}
        for attacker, result in ({"static": static} | {k: attack(v, x) for k, v in seen.items()}).items():
            found.append(_rows(defended, x, result, list(chosen)).assign(method=method, attacker=attacker))
    table = pd.concat(found, ignore_index=True)
    shown = ["psnr_clean", "psnr_recon", "psnr_own", "gradients", "seconds"]
    print(table.groupby(["method", "attacker"], sort=False)[shown].mean().round(2))
    if a.write:
        keep = ["image", "method", "attacker", "psnr_clean", "psnr_recon", "psnr_own", "linf", "gradients", "seconds"]
        table = table[keep].assign(eps_255=LEVEL, profile="standard")
        table.to_csv(data_dir() / "results" / "13_through.csv", index=False, float_format="%.5g")


def _rows(codec, x, result, names) -> pd.DataFrame:
    rows = metrics.before_after(codec, x, result.x_adv, names, real_rate=False)
    return rows.assign(gradients=result.gradients, seconds=result.seconds)


if __name__ == "__main__":
    main()
