"""What a run learns from: crops of images, or the latents that a frozen analysis gives of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from nic_helpers.codecs.registry import ARCHITECTURES
from nic_helpers.training.settings import Settings


class Crops:
    """Random crops from a folder of images held in memory; the batch of step n depends on (seed, n) alone."""

    def __init__(self, folder: str | Path):
        paths = sorted(p for p in Path(folder).iterdir() if p.suffix.lower() in {".png", ".jpg", ".jpeg", ".webp"})
        if not paths:
            raise FileNotFoundError(f"no training images in {folder}: give a folder of PNG or JPEG files with --data")
        self.paths = paths
        self.images = [np.asarray(Image.open(p).convert("RGB")) for p in paths]
        area = np.array([im.shape[0] * im.shape[1] for im in self.images], dtype=float)
        self.probability = area / area.sum()

    def check(self, size: int) -> None:
        """Raise a ValueError that names the images smaller than a crop."""
        small = [p.name for p, im in zip(self.paths, self.images, strict=True) if min(im.shape[:2]) < size]
        if small:
            raise ValueError(f"training images smaller than the crop: {', '.join(small[:5])} (below {size} pixels a side)")

    def batch(self, n: int, size: int, seed: int, step: int) -> Tensor:
        """n crops [n, 3, size, size] in [0, 1], each mirrored with probability ½."""
        rng = np.random.default_rng((seed, step))
        out = np.empty((n, size, size, 3), dtype=np.uint8)
        for k, i in enumerate(rng.choice(len(self.images), n, p=self.probability)):
            image = self.images[i]
            top, left = (rng.integers(0, side - size + 1) for side in image.shape[:2])
            crop = image[top : top + size, left : left + size]
            out[k] = crop[:, ::-1] if rng.random() < 0.5 else crop
        return torch.from_numpy(out).permute(0, 3, 1, 2).float().contiguous() / 255


class Latents:
    """What the frozen analysis gives for crops of the training images, held in memory; batches depend on (seed, step).

    A variable-rate codec's are of all its qualities up to the run's, eight crops for each in turn.
    """

    def __init__(self, s: Settings, model: nn.Module, crops: Crops, device: torch.device, count: int = 1536):
        self._seed = s.seed
        arch, parts = ARCHITECTURES[s.arch], []
        for k in range(max(1, count // 8)):
            coding = arch(model, k % s.quality + 1 if arch.variable else s.quality)
            with torch.no_grad():
                parts.append(coding.analysis(crops.batch(8, s.crop, s.seed, 2**30 + k).to(device)))
        self._latents = torch.cat(parts)

    def batch(self, n: int, step: int) -> Tensor:
        """n latents [n, M, h, w]."""
        chosen = np.random.default_rng((self._seed, step)).choice(len(self._latents), n)
        return self._latents[torch.from_numpy(chosen)]
