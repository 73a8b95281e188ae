"""The gate experiment: does the decoder's nonlinearity decide how pictures break? One codec, trained alike three times.

python benchmarks/gates.py --data DIR --val DIR        # train (resumable, in build/gates), measure, write data/results/10_gates.csv
python benchmarks/gates.py --steps 20 --crop 64 …      # a trial

The factorized codec at quality 3 from CompressAI's own random weights, with its analysis as it is. In the synthesis stands IGDN; or the
gate x·(1 + conv(LeakyReLU(x))) of JPEG AI's early verification model, which is unbounded; or x·(1 + conv(ReLU6(x))) of the final
standard, whose factor is bounded. For each: rate and PSNR on clean Kodak crops, what attacks at their limit do, and the growth exponent
of the synthesis, the slope of log ‖g_s(t·ŷ)‖ over log t for large t: by which power of its latents a decoder's output grows.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import pandas as pd
import torch
from compressai.models import FactorizedPrior
from torch import Tensor, nn

from nic_helpers import analysis, attacks, image_sets, images, load_codec
from nic_helpers.codecs.google import Factorized
from nic_helpers.codecs.neural import NeuralCodec
from nic_helpers.codecs.registry import ARCHITECTURES
from nic_helpers.metrics import before_after
from nic_helpers.objectives import Rate
from nic_helpers.settings import data_dir
from nic_helpers.training.run import train
from nic_helpers.training.settings import Settings


class Gate(nn.Module):
    """x·(1 + conv(f(x))), its convolution 1×1 and zero at first."""

    def __init__(self, channels: int, inner: nn.Module):
        super().__init__()
        self.inner, self.conv = inner, nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)

    def forward(self, v: Tensor) -> Tensor:
        """[B, C, h, w] to the same."""
        return v * (1 + self.conv(self.inner(v)))


class Leaky(Factorized):
    """The factorized codec with unbounded gates in its synthesis."""

    name, inner = "gate-leaky", nn.LeakyReLU

    @classmethod
    def build(cls, *widths: int) -> FactorizedPrior:
        """As the factorized codec, each IGDN replaced."""
        model = super().build(*widths)
        for k in (1, 3, 5):
            model.g_s[k] = Gate(widths[0], cls.inner())
        return model


class Bounded(Leaky):
    """The same with bounded ones."""

    name, inner = "gate-relu6", nn.ReLU6


KINDS = {"IGDN": "bmshj2018-factorized", "gate, LeakyReLU": Leaky.name, "gate, ReLU6": Bounded.name}


def measure(codec: NeuralCodec, x: Tensor, names: list[str], steps: int) -> pd.DataFrame:
    """A row an attack and image."""
    found = []
    for name, norm, level, objective in (
        ("continuation", "linf", 16, None),
        ("continuation, ball", "l2rms", 8, None),
        ("continuation, ball", "l2rms", 16, None),
        ("PGD rate", "linf", 16, Rate()),
    ):
        attack = attacks.Continuation(level / 255, steps=steps, norm=norm, precision="auto")
        if objective:
            attack = attacks.PGD(level / 255, steps=max(1, steps // 3), precision="auto")
        rows = before_after(codec, x, attack(codec, x, objective).x_adv, names)
        found.append(rows.assign(attack=name, eps_255=level))
    return pd.concat(found, ignore_index=True).assign(growth=analysis.growth_exponent(codec, x[:1]))


def main() -> None:
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", type=Path, required=True, help="folder of training images")
    p.add_argument("--val", type=Path, required=True, help="folder of validation images")
    p.add_argument("--out", type=Path, default=Path("build/gates"))
    p.add_argument("--steps", type=int, default=3000)
    p.add_argument("--crop", type=int, default=256)
    p.add_argument("--images", default="kodak")
    p.add_argument("--attack-steps", type=int, default=60)
    a = p.parse_args()
    ARCHITECTURES.update({kind.name: kind for kind in (Leaky, Bounded)})
    chosen = dict(list(image_sets.load_named_images(a.images).items())[1::3])
    x = torch.stack([images.centre_crop(v, min(256, *v.shape[1:])) for v in chosen.values()])
    tables = []
    for label, arch in KINDS.items():
        how = {"optimiser": "muon", "lr": 7e-4, "start": "default", "mixed": True, "channels_last": True, "seed": 1}
        settings = Settings(arch, 3, (48, 112), a.steps, batch=4, crop=a.crop, **how)
        state = train(settings, a.data, a.out / arch, a.val, every=min(500, a.steps))
        codec = load_codec(arch, 3, state.with_name("weights.safetensors"), "cpu")
        tables.append(measure(codec, x, list(chosen), a.attack_steps).assign(nonlinearity=label))
        shown = tables[-1].groupby(["attack", "eps_255"])[["psnr_clean", "bpp_clean", "psnr_recon", "bpp_ratio", "blow_up"]].mean()
        print(label, f"growth exponent {tables[-1]['growth'].iloc[0]:.2f}", shown.round(2), sep="\n", flush=True)
    columns = [
        "nonlinearity",
        "growth",
        "attack",
        "eps_255",
        "image",
        "psnr_clean",
        "bpp_clean",
        "psnr_recon",
        "psnr_own",
        "bpp_ratio",
    ]
    table = pd.concat(tables, ignore_index=True)[columns].assign(steps=a.steps, profile="standard")
    assert not table["psnr_recon"].map(math.isnan).any()
    if a.steps >= 1000:  # a trial writes nothing
        table.to_csv(data_dir() / "results" / "10_gates.csv", index=False, float_format="%.5g")


if __name__ == "__main__":
    main()
