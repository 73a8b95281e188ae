"""Does it matter to robustness where training began, or how far it went? The hyperprior from principal components and from random
weights.

NIC_KODAK_DIR=… python -m nic_helpers.sweep start                       # the rows at the attacks' limit, resumable
NIC_KODAK_DIR=… python benchmarks/start.py --along data/training/random-3 …   # checkpoints along runs, and the Jacobians
python benchmarks/start.py --write                                      # the figure of docs/the-start.md, from the rows
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import torch
from tqdm import tqdm

from nic_helpers import attacks, load_codec, metrics, plotting, stats
from nic_helpers.analysis.jacobian import singular_values
from nic_helpers.codecs.base import real_bpp
from nic_helpers.codecs.checkpoints import read_weights
from nic_helpers.image_sets import load_named_images
from nic_helpers.images import centre_crop
from nic_helpers.objectives import Rate
from nic_helpers.settings import PROJECT, data_dir
from nic_helpers.sweep.dataset import Dataset

ROWS, ALONG, JACOBIANS = (data_dir() / "results" / n for n in ("begun/start.parquet", "start_along.csv", "start_jacobians.csv"))
ARCH, COLOURS = "bmshj2018-hyperprior", {"bundled": "#0072B2", "random-start": "#D55E00", "random-start-2": "#E69F00"}
CROPS = ("kodim01", "kodim07", "kodim13", "kodim19")


def crops() -> torch.Tensor:
    """The centre 256² of four Kodak images, [4, 3, 256, 256]."""
    return torch.stack([centre_crop(im, 256) for n, im in load_named_images("kodak").items() if Path(n).stem in CROPS])


def along(folders: list[Path], x: torch.Tensor) -> pd.DataFrame:
    """Clean rate and PSNR and three attacks, on every checkpoint that runs have kept: a row each, means over the crops."""
    rows = []
    for path in tqdm([f for folder in folders for f in sorted(folder.glob("weights-*.safetensors"))]):
        card = read_weights(path).card
        codec = load_codec(ARCH, int(card["quality"]), path)
        clean = codec.roundtrip(x)
        row = {
            "run": path.parent.name,
            "quality": int(card["quality"]),
            "steps": int(path.stem.split("-")[1]),
            "psnr": float(metrics.psnr(x, clean.x_hat).mean()),
            "bpp": sum(real_bpp(clean.streams, x)) / len(x),
        }
        for name, attack in (
            ("box", attacks.Continuation(8 / 255, steps=30, precision="auto")),
            ("ball", attacks.Continuation(8 / 255, steps=30, norm="l2rms", precision="auto")),
        ):
            x_hat = codec.reconstruct(attack(codec, x).x_adv)
            row[f"{name}: outputs apart (dB)"] = float(metrics.psnr(clean.x_hat, x_hat).mean())
            row[f"{name}: owner's loss (dB)"] = row["psnr"] - float(metrics.psnr(x, x_hat).mean())
        longer = codec.encode(attacks.PGD(8 / 255, steps=10, precision="auto")(codec, x, Rate()).x_adv)
        row["file (×)"] = float((torch.tensor(real_bpp(longer, x)) / torch.tensor(real_bpp(clean.streams, x))).mean())
        rows.append(row)
    return pd.DataFrame(rows)


def jacobians(files: dict[str, tuple[int, str | Path]], x: torch.Tensor) -> pd.DataFrame:
    """The leading singular values of analysis, synthesis and both, for each set of weights and crop."""
    rows = []
    for name, (quality, weights) in tqdm(files.items()):
        model = load_codec(ARCH, quality, weights).model
        for k, image in enumerate(x):
            y = model.g_a(image[None]).detach()
            kinds = {
                "analysis": (model.g_a, image[None]),
                "synthesis": (model.g_s, y),
                "both": (lambda v, m=model: m.g_s(m.g_a(v)), image[None]),
            }
            for kind, (transform, at) in kinds.items():
                for rank, value in enumerate(singular_values(transform, at).tolist(), 1):
                    rows.append(
                        {
                            "weights": name,
                            "quality": quality,
                            "image": k,
                            "transform": kind,
                            "rank": rank,
                            "value": value,
                        }
                    )
    return pd.DataFrame(rows)


def paired(table: pd.DataFrame) -> pd.DataFrame:
    """Random start minus bundled, image by image: rate, PSNR, and each attack's effect, with 95 % intervals."""
    rows = []
    what = {"psnr_recon": "outputs apart (dB)", "delta_source": "owner's loss (dB)", "bpp_ratio": "file (×)"}
    for (quality, attack, eps, seed), group in table.groupby(["quality", "attack", "eps_255", "seed"], sort=False):
        base = group[group["weights"] == "bundled"].set_index("image")
        for name, other in group[group["weights"] != "bundled"].groupby("weights", sort=False):
            other = other.set_index("image").loc[base.index]
            row = {
                "quality": quality,
                "attack": attack,
                "ε·255": eps,
                "seed": seed,
                "weights": name,
                "images": len(base),
            }
            for column in ["psnr_clean", "bpp_clean", "bpp_ratio"] if "rate" in attack else ["psnr_recon", "delta_source"]:
                row[f"{what.get(column, column)}: bundled"] = round(base[column].mean(), 2)
                row[f"{what.get(column, column)}: difference"] = str(stats.paired_bootstrap(base[column], other[column]))
            rows.append(row)
    return pd.DataFrame(rows)


def figure(table: pd.DataFrame, along_table: pd.DataFrame) -> plt.Figure:
    """Left, outputs apart against ε for each start; right, along training."""
    plotting.set_theme()
    fig, axes = plt.subplots(1, 3, figsize=(14, 4.4))
    for ax, attack in zip(axes, ("continuation", "continuation, ball"), strict=False):
        for (quality, weights), part in table[table["attack"] == attack].groupby(["quality", "weights"], sort=False):
            means = part.groupby("eps_255")["psnr_recon"].mean()
            ax.plot(
                means.index,
                means,
                "-o" if quality == 3 else "--s",
                color=COLOURS[weights],
                label=f"{weights} q{quality:g}",
            )
        ax.set(title="box" if attack == "continuation" else "ball", xscale="log", xlabel="ε (of 255)", xticks=[2, 4, 8, 16])
        ax.set_xticklabels(["2", "4", "8", "16"])
        ax.minorticks_off()
    axes[0].set_ylabel("PSNR between the outputs (dB)")
    axes[0].legend(fontsize=8)
    for name, part in along_table.groupby("run", sort=False):
        for bound, line in (("box", "-o"), ("ball", "--s")):
            axes[2].plot(part["psnr"], part[f"{bound}: outputs apart (dB)"], line, ms=4, label=f"{bound}: {name}")
    axes[2].set(xlabel="clean PSNR along training (dB)", title="8/255, along training")
    axes[2].legend(fontsize=8)
    return fig


def main() -> None:
    """Measure, print, write."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--along", nargs="+", type=Path, default=[], help="folders of runs made with keep_every")
    p.add_argument("--jacobians", action="store_true", help="singular values of every set of weights that there is")
    p.add_argument("--folder", type=Path, help="the sweep's folder; default: the committed rows")
    p.add_argument("--write", action="store_true")
    a = p.parse_args()
    if a.along:
        table = along(a.along, crops())
        print(table.round(2).to_string(index=False))
        if a.write:
            table.round(4).to_csv(ALONG, index=False)
    if a.jacobians:
        from nic_helpers.codecs.weights import bundled_qualities
        from nic_helpers.course.grids import STARTS

        files = {f"{w} q{q}": (q, w) for w in STARTS for q in (3, 6) if q in bundled_qualities(ARCH, w)}
        table = jacobians(files, crops())
        print(table.pivot_table("value", ["weights", "transform"], "rank", sort=False).round(2).to_string())
        if a.write:
            table.round(4).to_csv(JACOBIANS, index=False)
    if a.folder or ROWS.is_file():
        table = Dataset(a.folder).read() if a.folder else pd.read_parquet(ROWS)
        print(paired(table).to_string(index=False))
        if a.write:
            if a.folder:
                table.to_parquet(ROWS, index=False, compression="zstd")
            plotting.save(figure(table, pd.read_csv(ALONG)), PROJECT / "figures" / "the_start")


if __name__ == "__main__":
    main()
