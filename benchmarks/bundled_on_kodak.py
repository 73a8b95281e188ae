"""The bundled codecs on Kodak-24, in real bytes, beside JPEG, WebP and the published curves.

NIC_KODAK_DIR=… python benchmarks/bundled_on_kodak.py            # measures and prints the tables
NIC_KODAK_DIR=… python benchmarks/bundled_on_kodak.py --cards    # and renews data/checkpoints/README.md

What notebook 02's published table (data/results/02_rate_distortion.csv) holds of the same weights is not measured again;
``--fresh`` measures everything.
"""

from __future__ import annotations

import argparse
import json
import math
import sys

import pandas as pd
from tqdm import tqdm

from nic_helpers import load_codec, metrics, stats
from nic_helpers.codecs.classical import CLASSICAL
from nic_helpers.codecs.registry import ARCHITECTURES
from nic_helpers.codecs.weights import bundled_name, checkpoints_dir, load_weights, manifest
from nic_helpers.course import reference
from nic_helpers.image_sets import load_named_images
from nic_helpers.settings import data_dir

QUALITIES = (1, 3, 6)  # the bars are averages over these
#: At most this change in bytes (%) at equal PSNR against JPEG, averaged over QUALITIES; and what better training should reach.
BARS = {
    "bmshj2018-factorized": (-10, -10),
    "bmshj2018-hyperprior": (-20, -40),
    "mbt2018-mean": (-20, -40),
    "mbt2018": (-25, -40),
    "cheng2020-anchor": (-25, -40),
    "cheng2020-attn": (-25, -40),
    # the newer ones: above JPEG's curve, and as good as the bundled hyperprior
    **dict.fromkeys(("zou2022-wacnn", "zou2022-stf", "liu2023", "song2021", "cai2022"), (0, -31)),
}


def bundled() -> list[tuple[str, int]]:
    """(architecture, quality) of everything in the manifest, in the architectures' order."""
    listed = [(v["arch"], q) for v in manifest().values() for q in v["qualities"]]
    return sorted(listed, key=lambda p: (list(ARCHITECTURES).index(p[0]), p[1]))


def measure(images: dict, known: pd.DataFrame) -> pd.DataFrame:
    """Mean bpp, PSNR and MS-SSIM of every bundled codec, JPEG and WebP; rows in ``known`` are taken from there."""
    wanted = bundled() + [(n, q) for n in ("jpeg", "webp") for q in CLASSICAL[n].qualities]
    tables = []
    for name, quality in tqdm(wanted, desc="codecs", file=sys.stderr):
        codec = load_codec(name, quality)
        rows = known[(known["codec"] == name) & (known["quality"] == quality)] if len(known) else known
        if len(rows) != len(images) or set(rows["weights_sha256"].fillna("")) != {metrics.describe(codec)["weights_sha256"]}:
            rows = metrics.quality_table(codec, list(images.values()), list(images))
        tables.append(rows)
    table = pd.concat(tables, ignore_index=True).astype({"quality": int})  # all of these have whole ones
    return table.groupby(["codec", "quality"], sort=False)[["bpp", "psnr", "ms_ssim"]].mean().reset_index()


def compare(means: pd.DataFrame) -> pd.DataFrame:
    """Each point against JPEG and the published curve of its codec."""
    jpeg = means[means["codec"] == "jpeg"]
    points = []
    for name in dict.fromkeys(n for n, _ in bundled()):
        known = reference.published([name]) if name in reference.CURVES else None
        for _, p in means[means["codec"] == name].iterrows():
            points.append(
                p.to_dict()
                | {
                    "bytes_vs_jpeg_percent": stats.rate_difference(jpeg, p),
                    "gain_on_jpeg_db": p["psnr"] - stats.quality_at(jpeg, p["bpp"]),
                    "rate_vs_published_percent": math.nan if known is None else stats.rate_difference(known, p),
                }
            )
    return pd.DataFrame(points)


def _bd(reference_curve: pd.DataFrame, curve: pd.DataFrame) -> str:
    try:
        result = stats.bd_rate(reference_curve, curve)
    except ValueError:
        return "no common range"
    return f"{result.percent:+.1f} % ({result.low:.1f}–{result.high:.1f} dB)"


def bars(points: pd.DataFrame, means: pd.DataFrame) -> pd.DataFrame:
    """One row a codec: change in bytes against JPEG averaged over the bars' qualities, the worst of them, the bars, and
    BD-rates (pchip, with their range) against JPEG, WebP and the published curve."""
    rows = []
    for name, curve in points.groupby("codec", sort=False):
        at = curve[curve["quality"].isin(QUALITIES)]["bytes_vs_jpeg_percent"]
        must, wish = BARS.get(name, (math.nan, math.nan))
        met = "" if math.isnan(must) else ("wish" if at.mean() <= wish else "must" if at.mean() <= must else "no")
        rows.append(
            {
                "codec": name,
                "qualities": len(curve),
                "bytes (mean)": at.mean(),
                "bytes (worst)": at.max(),
                "bar": must,
                "wish": wish,
                "met": met if at.max() <= 0 else "no",
                **{f"BD-rate, {n}": _bd(means[means["codec"] == n], curve) for n in ("jpeg", "webp")},
                "BD-rate, published": _bd(reference.published([name]), curve) if name in reference.CURVES else "no curve",
            }
        )
    return pd.DataFrame(rows)


def _markdown(table: pd.DataFrame, decimals: int = 1) -> list[str]:
    shown = table.map(lambda v: f"{v:+.{decimals}f}" if isinstance(v, float) else str(v)).replace("+nan", "")
    return ["| " + " | ".join(map(str, r)) + " |" for r in [shown.columns, ["---"] * shown.shape[1], *shown.to_numpy()]]


def _training(card: dict) -> str:
    stages = json.loads(card["stages"])
    last = stages[-1]
    what = f"{last['steps']} × {last['batch']}×{last['crop']}², lr {last['lr']:g}"
    return f"{what}; {last['minutes']} min, {sum(s['minutes'] for s in stages)} with all before it"


def cards(points: pd.DataFrame, means: pd.DataFrame) -> str:
    """The model cards as Markdown, from the files' headers and the measured table."""
    sizes = [p.stat().st_size for p in checkpoints_dir().glob("*.safetensors")]
    lines = [
        "# Bundled weights: model cards",
        "",
        "Generated by `python benchmarks/bundled_on_kodak.py --cards`; do not edit by hand.",
        "",
        f"{len(sizes)} files, {sum(sizes) / 1e6:.1f} MB. Compact codecs, trained by `python -m nic_helpers.training --recipe",
        "data/recipes/bundled.toml` (zou2022: `eight.toml`) on 271 photographs (CID22's training split, CC BY-SA 4.0;",
        "CLIC 2025's validation images, Unsplash licence; Wikimedia Commons photographs, Creative Commons);",
        "none of them is a Kodak image. Loss: R + λ·255²·MSE. safetensors: transforms in half precision, (I)GDN and the",
        "entropy bottleneck in float32; in 8 bits with a scale for each row the networks that only predict probabilities and",
        "the residual branches of Cheng2020's transforms and WACNN's attention.",
        "Cheng2020 has M latent channels of its own here (CompressAI's class has M = N). *Training*: the last stage, its",
        "minutes on the hardware named in the file, and the minutes of the whole chain of runs that it stands on, much of",
        "which is shared between files (the recipe has the chain).",
        "",
        "Kodak-24, means over images; rates are real bytes with everything included over original pixels. *Bytes*: more or",
        "(negative) fewer than Pillow's optimised JPEG at the same PSNR; *gain*: dB over it at the same rate; *published*: rate",
        "against the curve published for the full-size codec (CompressAI) at the same PSNR.",
        "",
        "| codec | q | λ | widths | parameters | MB | training | bpp | PSNR (dB) | MS-SSIM | bytes (%) | gain (dB) | published (%) |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    hardware = set()
    for p in points.itertuples():
        w = load_weights(p.codec, p.quality)
        size = (checkpoints_dir() / bundled_name(p.codec, p.quality)).stat().st_size / 1e6
        count = sum(v.numel() for v in w.state.values())
        hardware |= {s["hardware"] for s in json.loads(w.card["stages"])}
        gap = p.rate_vs_published_percent
        published = f"{gap:+.0f}" if not math.isnan(gap) else "outside its range" if p.codec in reference.CURVES else "no curve"
        gain = "outside its range" if math.isnan(p.gain_on_jpeg_db) else f"{p.gain_on_jpeg_db:+.2f}"
        lines.append(
            f"| {p.codec} | {p.quality} | {w.lmbda} | {w.card['widths'].replace(' ', ', ')} | {count:,} | {size:.1f} | "
            f"{_training(w.card)} | {p.bpp:.4f} | {p.psnr:.2f} | {p.ms_ssim:.4f} | {p.bytes_vs_jpeg_percent:+.1f} | "
            f"{gain} | {published} |"
        )
    lines += ["", f"Hardware: {', '.join(sorted(h for h in hardware if h))}, shared with other work.", ""]
    lines += [
        f"Averages over quality {', '.join(map(str, QUALITIES))} and BD-rates (PSNR, pchip, over the range given):",
        "",
    ]
    lines += _markdown(bars(points, means))
    lines += ["", "Papers:", ""]
    lines += [f"- {name}: {ARCHITECTURES[name].paper}" for name in dict.fromkeys(points["codec"])]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print, and with --cards write the model cards."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--cards", action="store_true", help="renew data/checkpoints/README.md")
    p.add_argument("--fresh", action="store_true", help="measure what notebook 02's table holds too")
    a = p.parse_args()
    saved = data_dir() / "results" / "02_rate_distortion.csv"
    known = pd.DataFrame() if a.fresh or not saved.is_file() else pd.read_csv(saved)
    means = measure(load_named_images("kodak"), known)
    points = compare(means)
    print(points.round(4).to_string(index=False), "\n")
    print(bars(points, means).round(1).to_string(index=False))
    total = sum(f.stat().st_size for f in checkpoints_dir().glob("*.safetensors"))
    print(f"\n{total / 1e6:.1f} MB of weights")
    if a.cards:
        (checkpoints_dir() / "README.md").write_text(cards(points, means), encoding="utf-8")


if __name__ == "__main__":
    main()
