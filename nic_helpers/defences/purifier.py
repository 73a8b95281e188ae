"""A small denoiser before the codec: what is not like a photograph is to be gone before anything is coded."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from nic_helpers.codecs.weights import MANIFEST, checkpoints_dir
from nic_helpers.defences.base import Defence

FOLDER, FILE = "purifier", "purifier.safetensors"


class Denoiser(nn.Module):
    """Six convolutions at half the resolution (four samples of a block as channels, after FFDNet, arXiv 1710.04026), whose output is
    taken off the picture: [B, 3, H, W] in [0, 1] to the same."""

    def __init__(self, width: int = 48, depth: int = 6):
        super().__init__()
        widths = [12, *[width] * (depth - 1), 12]
        layers = [nn.Conv2d(a, b, 3, padding=1) for a, b in itertools.pairwise(widths)]
        self.layers = nn.Sequential(*[part for layer in layers for part in (layer, nn.ReLU())][:-1])

    def forward(self, x: Tensor) -> Tensor:
        """The picture without what looks like noise."""
        height, width = x.shape[2:]
        v = F.pad(x, (0, width % 2, 0, height % 2), mode="replicate")
        noise = F.pixel_shuffle(self.layers(F.pixel_unshuffle(v, 2)), 2)
        return (v - noise)[..., :height, :width].clamp(0, 1)


def expected_sha256() -> str:
    """The hash of the bundled denoiser's file, as this repository lists it."""
    return json.loads((checkpoints_dir() / FOLDER / MANIFEST).read_text())[FILE]


@functools.lru_cache(maxsize=4)
def load_denoiser(weights: str, device: torch.device) -> Denoiser:
    """The denoiser of "bundled" weights or of a file, frozen; ValueError for a file that holds another or is damaged."""
    path = checkpoints_dir() / FOLDER / FILE if weights == "bundled" else Path(weights)
    if not path.is_file():
        raise FileNotFoundError(f"no denoiser's weights at {path}: weights must be 'bundled' or the path of a safetensors file")
    if weights == "bundled" and (found := hashlib.sha256(path.read_bytes()).hexdigest()) != expected_sha256():
        raise ValueError(
            f"{path} is damaged or not the file it should be: its SHA-256 begins {found[:12]}, expected {expected_sha256()[:12]}. "
            "Restore it with git checkout."
        )
    try:
        state = {k: v.float() for k, v in load_file(path).items()}
        depth = sum(k.endswith(".weight") for k in state)
        model = Denoiser(state["layers.0.weight"].size(0), depth)
        model.load_state_dict(state)
    except (SafetensorError, KeyError, RuntimeError) as error:
        raise ValueError(f"{path} holds no denoiser's weights: {error}") from error
    return model.to(device).eval().requires_grad_(False)


@dataclass(frozen=True)
class Purifier(Defence):
    """A denoiser of about 94,000 weights before coding, in the place of DiffPure, which arXiv 2411.11795 puts there.

    ``weights``: "bundled", trained on photographs with noise of three kinds (``nic_helpers/training/denoiser.py``), or the path of a file
    which that wrote.
    """

    differentiable: ClassVar[bool] = True
    weights: str = "bundled"

    def __post_init__(self):
        load_denoiser(self.weights, torch.device("cpu"))  # which refuses a file that is none

    def before(self, x: Tensor, k: int) -> Tensor:
        """The denoised picture."""
        return load_denoiser(self.weights, x.device)(x)
