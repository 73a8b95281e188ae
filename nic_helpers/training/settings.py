"""One training run's settings."""

from __future__ import annotations

from dataclasses import dataclass, field

from nic_helpers.codecs.architecture import LAMBDAS
from nic_helpers.codecs.registry import ARCHITECTURES
from nic_helpers.training.optimisers import NAMES


@dataclass(frozen=True)
class Settings:
    """One training run. ``crop`` in pixels, ``lr`` the peak of a one-cycle schedule over ``steps``."""

    arch: str
    quality: int
    widths: tuple[int, ...]
    steps: int
    batch: int = 4
    crop: int = 256  # at 128 the hyperprior sees 2×2 values of z, all border: whole images then cost a fifth more bits
    lr: float = 5e-4
    warmup: float = 0.05  # share of the steps in which the learning rate rises
    seed: int = 0
    bf16: bool | None = None  # transforms in bfloat16; None: for all but Cheng2020 (see below)
    channels_last: bool = False  # it crashed Cheng2020 training on a CPU, and helps the GDN codecs
    start: str = "pca"  # "pca", "random", "default", or another run's state.pt or weights (.safetensors) to begin from
    optimiser: str = "adam"  # or "muon": see optimisers.py
    only: str | None = None  # "entropy": the transforms stay as they are, and only the entropy model learns
    side_warmup: float = 0.0  # with only: share of the steps in which the side information's price rises from 0 to 1
    imitate: int = 0  # with only, for mbt2018-mean from the scale hyperprior: steps in which h_a learns to give its z
    mixed: bool = False  # the synthesis sees rounded latents (straight-through), the entropy model noisy ones
    compile: bool = False  # torch.compile the transforms (on a GPU with CUDA graphs): for long runs, it takes minutes
    centred: bool = False  # steps as if the inputs of every convolution had mean zero: see Centring
    ema: float = 0.0  # decay of an average of the weights over the steps, exported in their place
    lmbda: float = field(init=False)

    def __post_init__(self):
        # Cheng2020's principal-component start lifts activations by large biases and takes them off again: in bfloat16
        # the weights' rounding turns that into a colour shift that float32 then shows (blue off by 0.04 on Kodak)
        if self.bf16 is None:
            object.__setattr__(self, "bf16", not self.arch.startswith("cheng2020"))
        if self.arch not in ARCHITECTURES:
            raise ValueError(f"unknown architecture {self.arch!r}: there are {', '.join(ARCHITECTURES)}")
        if self.quality not in ARCHITECTURES[self.arch].qualities:
            have = ", ".join(map(str, ARCHITECTURES[self.arch].qualities))
            raise ValueError(f"the quality of {self.arch} must be one of {have}, got {self.quality!r}")
        if self.imitate and not (self.only and self.arch == "mbt2018-mean"):
            raise ValueError("imitate is for mbt2018-mean with only='entropy', from a scale hyperprior")
        if self.only and self.centred:
            raise ValueError("centred concerns the transforms, which only='entropy' leaves as they are")
        if self.optimiser not in NAMES:
            raise ValueError(f"optimiser must be one of {', '.join(NAMES)}, got {self.optimiser!r}")
        if self.only not in (None, "entropy"):
            raise ValueError(f"only must be 'entropy' or left out, got {self.only!r}")
        if len(self.widths) != 2:
            raise ValueError(f"{self.arch} takes two widths (N M), got {self.widths}")
        object.__setattr__(self, "lmbda", LAMBDAS[self.quality])
