"""How fast is the attack loop? Ours, the bare forward and backward pass it cannot beat, and a plain loop, side by side.

python benchmarks/attack_step.py                    # every architecture, on the CPU or the first GPU
python benchmarks/attack_step.py --growth           # how the time of a step grows with pixels, batch and steps

The contestants take turns in one run, each its share of every round, and the median round counts: other work on the
machine slows all of them alike. Images·steps per second, distortion to the clean reconstruction:

- *ours*: I-FGSM, as :mod:`nic_helpers.attacks` runs it, with everything around the gradient (projection, rounding to the
  8-bit grid inside the budget, judging with true rounding, the best iterate, measuring what was achieved);
- *bare*: forward and backward of the same graph, in the same layout and precision, and nothing else;
- *plain*: as public toolkits write it: the model in training mode, weights with gradients, the full forward pass with its
  entropy model, one image at a time, float32.
"""

from __future__ import annotations

import argparse
import platform
import resource
import statistics
import time
from collections.abc import Callable

import pandas as pd
import torch

from nic_helpers import attacks, load_codec, load_images
from nic_helpers.attacks.base import batch_size
from nic_helpers.codecs.neural import NeuralCodec
from nic_helpers.images import to_8bit
from nic_helpers.objectives import Distortion, squared_error

CODECS = (
    "bmshj2018-factorized",
    "bmshj2018-hyperprior",
    "bmshj2018-hyperprior-vbr",
    "mbt2018-mean",
    "mbt2018",
    "cheng2020-anchor",
    "cheng2020-attn",
)


def images(count: int, side: int, device: torch.device) -> torch.Tensor:
    """Different 8-bit images [count, 3, side, side], tiled from the bundled ones."""
    bundled = load_images("bundled")
    tiles = -(-side // bundled[0].size(1))
    return torch.stack([bundled[k % len(bundled)].roll(k, 2).repeat(1, tiles, tiles)[:, :side, :side] for k in range(count)]).to(
        device
    )


def bare(codec: NeuralCodec, x: torch.Tensor, precision: str, steps: int) -> Callable[[], None]:
    """Forward and backward of what the attack differentiates, ``steps`` times."""
    codec = codec.quick(precision)
    target = codec.reconstruct(x)

    def run() -> None:
        for _ in range(steps):
            v = x.detach().requires_grad_(True)
            loss = squared_error(codec(v, "identity", rate=False).x_hat, target).sum()
            torch.autograd.grad(loss, v)

    return run


def plain(codec: NeuralCodec, x: torch.Tensor, steps: int) -> Callable[[], None]:
    """A loop as it is often written, image by image."""
    model = codec.arch.build(*codec.arch.widths_of(codec.weights.state)).to(x.device).train()
    torch.nn.Module.load_state_dict(model, dict(codec.model.named_parameters()), strict=False)
    options = {"stage": 2, "s": codec.quality - 1} if codec.arch.variable else {}
    target = codec.reconstruct(x)

    def run() -> None:
        for image, wanted in zip(x, target, strict=True):
            adv = image[None]
            for _ in range(steps):
                adv = adv.detach().requires_grad_(True)
                torch.nn.functional.mse_loss(model(adv, **options)["x_hat"], wanted[None]).backward()
                moved = adv + 2 / 255 * adv.grad.sign() - image[None]
                adv = torch.clamp(image[None] + moved.clamp(-8 / 255, 8 / 255), 0, 1)

    return run


def seconds(run: Callable[[], None], device: torch.device) -> float:
    """Wall time of one call, the GPU's work included."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def compare(codec: NeuralCodec, side: int, steps: int, rounds: int, batch: int | None = None) -> dict:
    """One row of the table: medians over the rounds, in which the contestants take turns."""
    device = codec.device
    n = batch or min(8, batch_size(codec, images(1, side, device)))
    x = to_8bit(images(n, side, device))
    runs = {"plain": plain(codec, x, max(1, steps // 4))}
    work = {"plain": n * max(1, steps // 4)}
    for precision in ("float32", "bfloat16"):
        attack = attacks.IFGSM(8 / 255, steps=steps, precision=precision, batch=n)
        runs[f"bare {precision}"] = bare(codec, x, precision, steps)
        runs[f"ours {precision}"] = lambda attack=attack: attack(codec, x, Distortion())
        work |= {f"bare {precision}": n * steps, f"ours {precision}": n * steps}
    for run in runs.values():
        run()  # warm
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(seconds(run, device) / work[name])
    middle = {name: statistics.median(t) for name, t in times.items()}
    row = {"codec": codec.label, "batch": f"{n}×{side}²"} | {f"{name} (/s)": 1 / t for name, t in middle.items()}
    for precision in ("float32", "bfloat16"):
        row[f"ours : bare, {precision}"] = middle[f"ours {precision}"] / middle[f"bare {precision}"]
        row[f"plain : ours, {precision}"] = middle["plain"] / middle[f"ours {precision}"]
    return row


def growth(codec: NeuralCodec) -> pd.DataFrame:
    """Seconds of an attack by the images' side, the batch and the steps."""
    rows = []
    for side, batch, steps in (
        (128, 1, 10),
        (256, 1, 10),
        (512, 1, 10),
        (256, 2, 10),
        (256, 4, 10),
        (256, 8, 10),
        (256, 1, 20),
        (256, 1, 40),
    ):
        x, attack = images(batch, side, codec.device), attacks.IFGSM(8 / 255, steps=steps, batch=batch)
        attack(codec, x[:1])
        took = statistics.median(seconds(lambda x=x, attack=attack: attack(codec, x), codec.device) for _ in range(3))
        rows.append(
            {
                "codec": codec.label,
                "side": side,
                "batch": batch,
                "steps": steps,
                "seconds": took,
                "ms per image and step": 1000 * took / batch / steps,
                "µs per pixel and step": 1e6 * took / batch / steps / side**2,
            }
        )
    return pd.DataFrame(rows)


def peak_memory(device: torch.device) -> str:
    """The most memory this process has held, on the GPU or in all."""
    if device.type == "cuda":
        return f"{torch.cuda.max_memory_allocated() / 2**30:.2f} GiB on the GPU"
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB resident"


def main() -> None:
    """Measure and print."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--codecs", nargs="+", default=list(CODECS))
    p.add_argument("--quality", type=int, default=3)
    p.add_argument("--side", type=int, default=256)
    p.add_argument("--steps", type=int, default=10)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--batch", type=int, help="default: what the attack chooses, 8 at most")
    p.add_argument("--growth", action="store_true", help="how the time grows, for the first codec")
    a = p.parse_args()
    where = (
        torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else (f"CPU, {torch.get_num_threads()} thread{'s'[: torch.get_num_threads() != 1]}")
    )
    print(f"{where}; torch {torch.__version__}, Python {platform.python_version()}; {a.steps} steps, {a.rounds} rounds")
    if a.growth:
        print(growth(load_codec(a.codecs[0], a.quality)).to_string(index=False, float_format=lambda v: f"{v:.3g}"))
        return
    rows = []
    for name in a.codecs:
        codec = load_codec(name, a.quality)
        rows.append(compare(codec, a.side, a.steps, a.rounds, a.batch))
        print(pd.DataFrame(rows[-1:]).T.to_string(header=False, float_format=lambda v: f"{v:.2f}"), flush=True)
        print(f"peak memory so far: {peak_memory(codec.device)}\n", flush=True)
    table = pd.DataFrame(rows)
    print("| " + " | ".join(table.columns) + " |\n|" + "---|" * len(table.columns))
    for row in table.itertuples(index=False):
        print("| " + " | ".join(v if isinstance(v, str) else f"{v:.2f}" for v in row) + " |")


if __name__ == "__main__":
    main()
