"""The purifier's training: python -m nic_helpers.training.denoiser --data DIR --val DIR

A step takes crops of photographs with noise on them and lowers the squared error to the photographs. The noise is white, or one level up
or down for each sample, or coarse; its size is another for each crop, from none up to ``--largest``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from nic_helpers.codecs.weights import MANIFEST, checkpoints_dir
from nic_helpers.defences.purifier import FILE, FOLDER, Denoiser
from nic_helpers.training.data import Crops
from nic_helpers.training.optimisers import optimiser_of


def noisy(x: Tensor, largest: float) -> Tensor:
    """Images [B, 3, H, W] with noise of an RMS up to ``largest`` (on [0, 1]), 8-bit; torch's default generator decides."""
    kind, size = torch.randint(3, (len(x), 1, 1, 1)), largest * torch.rand(len(x), 1, 1, 1)
    white = torch.randn_like(x)
    blocks = 2 ** int(torch.randint(1, 4, ()))  # pixels a side of what is alike
    coarse = F.interpolate(torch.randn_like(x[..., ::blocks, ::blocks]), x.shape[2:], mode="bilinear")
    coarse = coarse / coarse.std((1, 2, 3), keepdim=True)
    noise = torch.where(kind == 0, white, torch.where(kind == 1, white.sign(), coarse))
    return torch.round((x + size * noise).clamp(0, 1) * 255) / 255


@torch.no_grad()
def validate(model: Denoiser, clean: Tensor, largest: float) -> dict[str, float]:
    """PSNR (dB, of the mean square error) of noisy crops and of what the denoiser makes of them, and of the clean ones."""
    torch.manual_seed(0)
    v = noisy(clean, largest)
    pairs = {"noisy": (v, clean), "denoised": (model(v), clean), "clean": (model(clean), clean)}
    return {name: -10 * math.log10(float(F.mse_loss(*pair))) for name, pair in pairs.items()}


def train(
    data: Path, val: Path, steps: int = 3000, batch: int = 8, crop: int = 64, lr: float = 1e-3, largest: float = 16 / 255
) -> Denoiser:
    """A denoiser after so many steps of Muon, at a learning rate that falls from ``lr`` along a cosine."""
    crops = Crops(data)
    crops.check(crop)
    torch.manual_seed(0)
    model, clean = Denoiser(), Crops(val).batch(32, 128, 0, 0)
    for layer in model.layers[::2]:  # torch's own start shrinks what passes from layer to layer
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)
    nn.init.zeros_(model.layers[-1].weight)  # at first it changes nothing
    optimiser = optimiser_of("muon", list(model.parameters()), lr)
    for step in range(steps):
        torch.manual_seed(step)
        x = crops.batch(batch, crop, 0, step)
        loss = 255**2 * F.mse_loss(model(noisy(x, largest)), x)
        optimiser.zero_grad()
        loss.backward()
        optimiser.set_learning_rate(lr * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / steps))))
        optimiser.step()
        if (step + 1) % 500 == 0:
            print(step + 1, " ".join(f"{k} {v:.2f}" for k, v in validate(model, clean, largest).items()), flush=True)
    return model


def bundle(model: Denoiser, folder: Path) -> Path:
    """Write the weights in half precision, and their hash beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE
    save_file({k: v.detach().half().contiguous() for k, v in model.state_dict().items()}, path)
    (folder / MANIFEST).write_text(json.dumps({FILE: hashlib.sha256(path.read_bytes()).hexdigest()}, indent=1) + "\n")
    return path


if __name__ == "__main__":
    p = argparse.ArgumentParser(prog="python -m nic_helpers.training.denoiser", description="Train the purifier's denoiser.")
    p.add_argument("--data", type=Path, required=True, help="folder of training images")
    p.add_argument("--val", type=Path, required=True, help="folder of validation images")
    p.add_argument("--steps", type=int, default=3000)
    a = p.parse_args()
    print(bundle(train(a.data, a.val, a.steps), checkpoints_dir() / FOLDER))
