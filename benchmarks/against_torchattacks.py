"""Our gradient attacks beside torchattacks' (MIT, Kim 2020, arXiv 2010.01950): its iterates on a bundled codec, stored.

    python benchmarks/against_torchattacks.py            # writes tests/data/torchattacks.npz, in seconds

torchattacks asks for another ``requests`` than JupyterLab, so it is no dependency of ours. These attacks of it do not need
that: ``pip install --no-deps torchattacks==3.5.1`` into an environment of its own that sees this package and torch.
The stored steps are what tests/attacks/test_against_torchattacks.py holds our loop against, with no torchattacks around.

How they are made to attack a codec: their step code is untouched. They raise the cross-entropy of a classifier at a
label, so the codec is wrapped as one of two classes whose logits are [0, s·d], d our objective and s > 0. At label 0 its
cross-entropy is log(1 + exp(s·d)), which rises with d: its gradient is d's times a positive number for each image, so
signs, and gradients divided by their mean size, are d's.
Where they look: ours takes gradients at the 8-bit image an iterate stands for, theirs at the iterate itself. With a start
on the 8-bit grid and eps and alpha whole levels the two are the same. PGD's random start is off the grid: there the
wrapped model rounds its input first, and passes the gradient straight through. Its iterates are stored rounded, too.
DI-FGSM: its four random numbers a step are stored, and its objective is the distance of the codec's output to its own
input, since theirs resizes what the model sees and has no reference that could be resized alike.
"""

from __future__ import annotations

import json
from importlib.metadata import version

import numpy as np
import torch
from torch import Tensor, nn

from nic_helpers import load_codec, load_images
from nic_helpers.images import to_8bit
from nic_helpers.objectives import Distortion
from nic_helpers.settings import PROJECT

STORED = PROJECT / "tests" / "data" / "torchattacks.npz"
#: What both sides attack, and how.
SETTINGS = {
    "codec": "bmshj2018-hyperprior",
    "quality": 3,
    "crop": [64, 128],
    "images": 2,
    "surrogate": "identity",
    "eps": 8 / 255,
    "alpha": 2 / 255,
    "steps": 6,
    "mu": 1.0,
    "seed": 0,
}


def crops(settings: dict) -> Tensor:
    """The 8-bit images that are attacked."""
    first, last = settings["crop"]
    images = load_images("bundled")[: settings["images"]]
    return to_8bit(torch.stack([im[:, first:last, first:last] for im in images]))


class TwoClasses(nn.Module):
    """A codec as a classifier: logits [0, s·d] for the distortion d of its output; it writes down the inputs it gets."""

    def __init__(self, codec, x: Tensor, reference: str, surrogate: str, rounds: bool, scale: float = 1e3):
        super().__init__()
        self.codec, self.rounds, self.scale = codec.model, rounds, scale  # its parameters tell theirs the device
        clean = Distortion(reference).bind(codec, x, surrogate)
        own = lambda v: Distortion("own").bind(codec, v, surrogate)(v)  # noqa: E731  (of any size: inputs are resized)
        self.distance = own if reference == "own" else clean
        self.seen: list[Tensor] = []

    def forward(self, v: Tensor) -> Tensor:
        """Logits [B, 2] of v [B, 3, H, W]."""
        self.seen.append(v.detach())
        if self.rounds:
            v = v + (to_8bit(v.detach()) - v).detach()
        d = self.distance(v)
        return torch.stack((torch.zeros_like(d), self.scale * d), 1)


def record_draws(attack, draws: list[list[float]]) -> None:
    """Have DI-FGSM write down [side, top, left, drawn] at each step: its random numbers, read ahead from its generator."""
    theirs, rate = attack.input_diversity, attack.resize_rate

    def recorded(v: Tensor) -> Tensor:
        state, side = torch.get_rng_state(), v.shape[-1]
        size = int(torch.randint(int(side * rate), side, (1,), dtype=torch.int32))
        top, left = (int(torch.randint(0, side - size, (1,), dtype=torch.int32)) for _ in range(2))
        draws.append([size, top, left, float(torch.rand(1))])
        torch.set_rng_state(state)
        return theirs(v)

    attack.input_diversity = recorded


def levels(x: Tensor) -> np.ndarray:
    """x in [0, 1] as whole 8-bit levels."""
    return (x.detach() * 255).round().numpy().astype(np.int16)


def run(name: str, settings: dict) -> tuple[np.ndarray, list[list[float]]]:
    """The iterates of one of their attacks, [steps + 1, B, 3, H, W] in levels, from the start to the result; DI-FGSM's draws."""
    import torchattacks

    eps, alpha, steps = settings["eps"], settings["alpha"], settings["steps"]
    x, draws = crops(settings), []
    codec = load_codec(settings["codec"], settings["quality"], device="cpu")
    model = TwoClasses(codec, x, "own" if name == "DIFGSM" else "clean", settings["surrogate"], rounds=name == "PGD")
    attack = {
        "FGSM": lambda: torchattacks.FGSM(model, eps=eps),
        "BIM": lambda: torchattacks.BIM(model, eps=eps, alpha=alpha, steps=steps),
        "PGD": lambda: torchattacks.PGD(model, eps=eps, alpha=alpha, steps=steps, random_start=True),
        "MIFGSM": lambda: torchattacks.MIFGSM(model, eps=eps, alpha=alpha, steps=steps, decay=settings["mu"]),
        "DIFGSM": lambda: torchattacks.DIFGSM(model, eps=eps, alpha=alpha, steps=steps, resize_rate=0.8),
    }[name]()
    iterates = model.seen
    if name == "DIFGSM":  # the model sees the resized ones: take the iterates before that
        record_draws(attack, draws)
        inner, iterates = attack.input_diversity, []
        attack.input_diversity = lambda v: (iterates.append(v.detach()), inner(v))[1]
    torch.manual_seed(settings["seed"])
    result = attack(x, torch.zeros(len(x), dtype=torch.long))
    return np.stack([levels(v) for v in [*iterates, result]]), draws


def main() -> None:
    """Run them, and store the iterates as whole levels from the source."""
    import torchattacks

    source = levels(crops(SETTINGS))
    stored, draws = {}, []
    for name in ("FGSM", "BIM", "PGD", "MIFGSM", "DIFGSM"):
        iterates, drawn = run(name, SETTINGS)
        stored[name], draws = (iterates - source).astype(np.int8), draws or drawn
    versions = {
        "torchattacks": torchattacks.__version__,
        "torch": version("torch"),
        "compressai": version("compressai"),
    }
    about = json.dumps(SETTINGS | {"draws": draws, "versions": versions, "made by": "benchmarks/against_torchattacks.py"})
    STORED.parent.mkdir(exist_ok=True)
    np.savez_compressed(STORED, about=np.array(about), **stored)
    print(f"{STORED.relative_to(PROJECT)}: {STORED.stat().st_size / 1000:.0f} kB, {versions}")


if __name__ == "__main__":
    main()
