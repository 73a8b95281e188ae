"""What untrusted input costs: bytes a pixel and decode seconds a megapixel of every bundled codec, in the worst cases at hand.

NIC_KODAK_DIR=… python benchmarks/worst_case.py      # rows to data/results/worst_case.csv, the table into docs/threat-model.md
python benchmarks/worst_case.py --page               # the table anew from the rows

A 256×256 crop of a smooth Kodak image (kodim23), every codec at its finest bundled quality, three pictures: the clean crop, the crop
attacked on the rate (PGD in the box of 16/255, the best of three surrogates), random noise of the same size. And two streams that are
no encoder's: the clean one with one bit turned round ("damaged"), and one whose strings are random bytes of the clean one's lengths,
with a checksum made for them ("resealed"). Classical codecs, which have no gradient, get the picture attacked for the hyperprior; their
files have no checksum to renew, so there "resealed" is the clean file with twenty random bytes in its second half. Seconds: the best of
three, on one thread.
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path

import pandas as pd
import torch

from nic_helpers import attacks, image_sets, images, load_codec, metrics
from nic_helpers.codecs import bitstream
from nic_helpers.codecs.base import Codec
from nic_helpers.codecs.bitstream import BitstreamError
from nic_helpers.codecs.neural import NeuralCodec
from nic_helpers.codecs.registry import ARCHITECTURES
from nic_helpers.codecs.weights import bundled_qualities
from nic_helpers.objectives import Rate
from nic_helpers.settings import PROJECT, data_dir

RESULTS, PAGE = "worst_case.csv", PROJECT / "docs" / "threat-model.md"
CLASSICAL = (("jpeg", 95), ("webp", 95), ("avif", 90))
INPUTS = ("clean", "rate attack", "noise")
BEGIN, END = "<!-- table from data/results/worst_case.csv -->", "<!-- end of table -->"


def finest() -> list[Codec]:
    """Every bundled architecture at its finest quality, and classical codecs near theirs."""
    neural = [load_codec(name, max(have), device="cpu") for name in ARCHITECTURES if (have := bundled_qualities(name))]
    return neural + [load_codec(*which) for which in CLASSICAL]


def inputs(codec: Codec, clean: torch.Tensor, steps: int) -> dict[str, torch.Tensor]:
    """The three pictures [1, 3, H, W] that a sender may be given."""
    target = codec if codec.differentiable else load_codec("bmshj2018-hyperprior", 6, device="cpu")
    attacked = attacks.PGD(16 / 255, steps=steps)(target, clean, Rate()).x_adv
    noise = images.to_8bit(torch.rand(clean.shape, generator=torch.Generator().manual_seed(0)))
    return dict(zip(INPUTS, (clean, attacked, noise), strict=True))


def tampered(codec: Codec, stream: bytes) -> dict[str, bytes]:
    """Two streams made of a clean one by who holds the channel: damaged, and made anew with a checksum of its own."""
    rng = random.Random(0)
    middle = len(stream) // 2
    damaged = stream[:middle] + bytes([stream[middle] ^ 1]) + stream[middle + 1 :]
    if isinstance(codec, NeuralCodec):
        packet = codec.unpack(stream)
        strings = tuple(rng.randbytes(len(s)) for s in packet.strings)
        sealed = bitstream.pack(codec.name, codec.quality, codec.weights.sha256, packet.height, packet.width, strings)
    else:
        sealed = bytearray(stream)
        for _ in range(20):
            sealed[rng.randrange(middle, len(stream))] = rng.randrange(256)
    return {"damaged": damaged, "resealed": bytes(sealed)}


def timed(codec: Codec, stream: bytes) -> tuple[float, torch.Tensor | None]:
    """Seconds to decode a stream (the best of three) and its picture; None where it is refused."""
    best, picture = float("inf"), None
    for _ in range(3):
        began = time.perf_counter()
        try:
            picture = codec.decode([stream])
        except BitstreamError:
            picture = None
        best = min(best, time.perf_counter() - began)
    return best, picture


def measure(codec: Codec, clean: torch.Tensor, steps: int) -> list[dict]:
    """A row an input and a tampered stream."""
    pixels = clean.shape[2] * clean.shape[3]
    cases = {name: (codec.encode(x)[0], x) for name, x in inputs(codec, clean, steps).items()}
    cases |= {name: (stream, clean) for name, stream in tampered(codec, cases["clean"][0]).items()}
    sent = codec.decode([cases["clean"][0]])
    rows = []
    for name, (stream, x) in cases.items():
        seconds, picture = timed(codec, stream)
        meant = x if name in INPUTS else sent
        outcome = "refused" if picture is None else "decoded" if picture.isfinite().all() else "not a number"
        rows.append(
            {
                **metrics.describe(codec),
                "input": name,
                "outcome": outcome,
                "bytes_per_pixel": len(stream) / pixels,
                "decode_seconds_per_megapixel": 1e6 * seconds / pixels,
                "psnr": float(metrics.psnr(meant, picture)) if outcome == "decoded" else float("nan"),
            }
        )
        print(*rows[-1].values(), flush=True)
    return rows


def table(rows: pd.DataFrame) -> str:
    """The page's table."""
    lines = ["| codec | bytes a pixel: clean | rate attack | noise | decode, s a megapixel: clean | worst | resealed stream |"]
    lines.append("|" + "---|" * 7)
    for (codec, quality), part in rows.groupby(["codec", "quality"], sort=False):
        by = part.set_index("input")
        size, seconds = by["bytes_per_pixel"], by["decode_seconds_per_megapixel"]
        sealed = by.loc["resealed"]
        says = f"decoded, {sealed['psnr']:.1f} dB" if sealed["outcome"] == "decoded" else sealed["outcome"]
        sizes = [f"{size[name]:.3f}" for name in INPUTS]
        times = [f"{seconds['clean']:.2f}", f"{seconds.max():.2f} ({seconds.idxmax()})"]
        lines.append("| " + " | ".join([f"`{codec}` {quality:g}", *sizes, *times, says]) + " |")
    return "\n".join(lines)


def page(text: str, rows: pd.DataFrame) -> str:
    """The page with its table made anew."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n\n{table(rows)}\n\n{END}{rest.split(END)[1]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", action="store_true", help="write the page's table from the rows that are there")
    parser.add_argument("--steps", type=int, default=10, help="gradient evaluations for each of three surrogates")
    parser.add_argument("--only", metavar="CODEC", help="measure this codec alone and keep the others' rows")
    a = parser.parse_args()
    path: Path = data_dir() / "results" / RESULTS
    if not a.page:
        torch.set_num_threads(1)
        crop = images.centre_crop(image_sets.load_named_images("kodak")["kodim23.png"], 256)[None]
        order, known = [c.name for c in finest()], pd.read_csv(path) if a.only else pd.DataFrame()
        rows = [row for codec in finest() if a.only in (None, codec.name) for row in measure(codec, crop, a.steps)]
        kept = known[known["codec"] != a.only] if a.only else known
        every = pd.concat([kept, pd.DataFrame(rows)]).sort_values("codec", key=lambda s: s.map(order.index), kind="stable")
        every.to_csv(path, index=False, float_format="%.5g")
    if PAGE.is_file():
        PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), pd.read_csv(path)), encoding="utf-8")


if __name__ == "__main__":
    main()
