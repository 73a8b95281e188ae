"""Does where training begins matter to robustness? One hyperprior trained from principal components, one from random weights.

NIC_KODAK_DIR=… python benchmarks/initialisation.py                          # the two named weights of the control
NIC_KODAK_DIR=… python benchmarks/initialisation.py data/training/control-*  # and the checkpoints along runs

Prints, for each set of weights, rate and PSNR on four Kodak crops (256²), what PGD takes from the PSNR and what an
attack on the rate adds to the file, at ε = 2, 4, 8, 16 of 255 (20 gradient evaluations; means over the crops).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

from nic_helpers import attacks, image_sets, load_codec, metrics
from nic_helpers.codecs.base import real_bpp
from nic_helpers.codecs.checkpoints import read_weights
from nic_helpers.codecs.weights import checkpoints_dir
from nic_helpers.objectives import Distortion, Rate

EPSILONS = (2, 4, 8, 16)
CROPS = ("kodim01", "kodim07", "kodim13", "kodim19")


def four_crops() -> torch.Tensor:
    """The centre 256² of four Kodak images, [4, 3, 256, 256]."""
    whole = image_sets.load_named_images("kodak")
    chosen = [image for name, image in whole.items() if Path(name).stem in CROPS]
    return torch.stack([im[:, (im.size(1) - 256) // 2 :, (im.size(2) - 256) // 2 :][:, :256, :256] for im in chosen])


def measure(path: Path, x: torch.Tensor, steps: int) -> dict:
    """One row: the codec in a file of weights, clean and attacked."""
    codec = load_codec("bmshj2018-hyperprior", int(read_weights(path).card["quality"]), path)
    coded = codec.roundtrip(x)
    clean, rate = metrics.psnr(x, coded.x_hat), torch.tensor(real_bpp(coded.streams, x))
    row = {"weights": f"{path.parent.name}/{path.stem}", "bpp": float(rate.mean()), "psnr": float(clean.mean())}
    for eps in EPSILONS:
        attacked = attacks.PGD(eps / 255, steps=steps)(codec, x, Distortion()).x_adv
        row[f"loss {eps} (dB)"] = float((clean - metrics.psnr(x, codec.reconstruct(attacked))).mean())
    for eps in EPSILONS:
        attacked = attacks.PGD(eps / 255, steps=steps)(codec, x, Rate()).x_adv
        row[f"rate {eps} (×)"] = float((torch.tensor(real_bpp(codec.encode(attacked), x)) / rate).mean())
    return row


def main() -> None:
    """Measure and print."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("runs", nargs="*", type=Path, help="folders of runs with weights-*.safetensors")
    p.add_argument("--steps", type=int, default=20)
    p.add_argument("--csv", type=Path, help="write the table there too")
    a = p.parse_args()
    files = sorted((checkpoints_dir() / "control").glob("*.safetensors"))
    files += [f for run in a.runs for f in sorted(run.glob("weights-*.safetensors"))]
    if not files:
        sys.exit("no weights to measure: give the folders of runs made with --keep-every")
    x = four_crops()
    table = pd.DataFrame(measure(f, x, a.steps) for f in tqdm(files, file=sys.stderr))
    print(table.round(3).to_string(index=False))
    if a.csv:
        table.round(4).to_csv(a.csv, index=False)


if __name__ == "__main__":
    main()
