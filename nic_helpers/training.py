"""Training of the bundled codecs: rate–distortion loss, principal-component initialisation, resumable runs.

    python -m nic_helpers.training --arch bmshj2018-hyperprior --quality 3 --widths 64 160 --steps 12000 \
        --data DIR --out data/training/hyperprior-q3

A run keeps its state in ``--out``: ``state.pt`` (written atomically), ``log.csv``, and at the end ``weights.safetensors``.
Started again with the same settings it goes on at the exact step where the last checkpoint was taken.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from nic_helpers.initialise import INITIALISE
from nic_helpers.memory import keep_freed_memory
from nic_helpers.models import ARCHITECTURES, LAMBDAS, Architecture, add_noise, round_ste, round_true, walk
from nic_helpers.optimisers import NAMES, optimiser_of
from nic_helpers.warmstart import begin_from, begin_from_scales
from nic_helpers.weights import bundle, read_weights, save_weights


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


# --------------------------------------------------------------------------------------------------------- data
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
            raise ValueError(
                f"training images smaller than the crop: {', '.join(small[:5])} (below {size} pixels a side)"
            )

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


# ------------------------------------------------------------------------------------------------------ training
def rate_distortion_loss(
    arch: Architecture, model: nn.Module, x: Tensor, lmbda: float, amp=None, quantise=add_noise, synthesise=None
) -> tuple[Tensor, Tensor, Tensor]:
    """(loss, bpp, mse): R + λ·255²·MSE, R in bits per pixel, MSE on [0, 1].

    ``quantise`` stands for rounding in the rate; ``synthesise`` (default: the same) in what the synthesis sees.
    """
    w = walk(arch, model, x, quantise, amp=amp, synthesise=synthesise)
    bpp = sum(b.sum() for b in w.bits().values()) / (x.size(0) * x.size(2) * x.size(3))
    mse = F.mse_loss(w.x_hat, x)
    return bpp + lmbda * 255**2 * mse, bpp, mse


def rate_loss(arch: Architecture, model: nn.Module, y: Tensor, side_weight: float = 1.0):
    """(loss, bpp, not a number): the rate alone, of given latents y [B, M, h, w] of pixels 16 times finer.

    ``side_weight``: how much the side information's bits count in the loss. An untrained hyperprior is of no use yet,
    and if its bits cost their full price from the start it learns to send nothing, and stays there.
    """
    w = walk(arch, model, None, add_noise, y=y, synthesis=False)
    bits = {k: b.sum() / (y.size(0) * y.size(2) * y.size(3) * 256) for k, b in w.bits().items()}
    loss = bits["y"] + side_weight * bits.get("z", 0.0)
    return loss, sum(bits.values()), torch.tensor(float("nan"))


class Latents:
    """What the frozen analysis gives for crops of the training images, held in memory; batches depend on (seed, step)."""

    def __init__(self, s: Settings, model: nn.Module, crops: Crops, device: torch.device, count: int = 1536):
        self._seed = s.seed
        with torch.no_grad():
            parts = [model.g_a(crops.batch(8, s.crop, s.seed, 2**30 + k).to(device)) for k in range(max(1, count // 8))]
        self._latents = torch.cat(parts)

    def batch(self, n: int, step: int) -> Tensor:
        """n latents [n, M, h, w]."""
        chosen = np.random.default_rng((self._seed, step)).choice(len(self._latents), n)
        return self._latents[torch.from_numpy(chosen)]


class Centring:
    """Optimiser steps as if each convolution of the transforms saw inputs of mean zero; what it computes is unchanged.

    With inputs a = c + ã the layer is W·ã + (b + W·c): for W and b' = b + W·c the gradient of W loses the share that
    only moves the bias, and b follows W's step. Cheng2020's analysis needs it most: its principal-component start lifts
    activations by five standard deviations, so that a small step of W shifts everything after it.
    """

    def __init__(self, model: nn.Module, x: Tensor):
        self._means: dict[nn.Conv2d, Tensor] = {}
        hooks = [
            layer.register_forward_pre_hook(lambda layer, a: self._means.__setitem__(layer, a[0].mean((0, 2, 3))))
            for transform in (model.g_a, model.g_s)
            for layer in transform.modules()
            if isinstance(layer, nn.Conv2d)
        ]
        with torch.no_grad():
            model.g_s(torch.round(model.g_a(x)))
        for hook in hooks:
            hook.remove()

    @torch.no_grad()
    def centre_gradients(self) -> None:
        """Between ``backward`` and the optimiser's step."""
        self._before = {layer: layer.weight.clone() for layer in self._means}
        for layer, mean in self._means.items():
            layer.weight.grad -= layer.bias.grad[:, None, None, None] * mean[None, :, None, None]

    @torch.no_grad()
    def follow(self) -> None:
        """After the optimiser's step: the biases make up for what the weights' step did to the mean."""
        for layer, mean in self._means.items():
            layer.bias -= (layer.weight - self._before[layer]).sum((2, 3)) @ mean


def imitate_hyperprior(s: Settings, model: nn.Module, latents: Latents, lr: float = 2e-3) -> None:
    """Start mbt2018-mean's hyperprior from the scale hyperprior that ``s.start`` holds: its bottleneck, its scales, and
    an analysis that learns to give its z.

    That z is made of |y|, which the mean-scale codec's analysis must do without: from random weights it hardly uses its
    side information, and stays there. The start must be on the same transforms (``only="entropy"``).
    """
    name, old, lmbda = _read_run(Path(s.start))
    if name != "bmshj2018-hyperprior" or lmbda != s.lmbda:
        raise ValueError(
            f"imitate needs a bmshj2018-hyperprior of the same λ to begin from, {s.start} is {name}, λ = {lmbda}"
        )
    begin_from_scales(old, model)
    optimiser = torch.optim.Adam(model.h_a.parameters(), lr=lr)
    for step in range(s.imitate):
        y = latents.batch(16, 10**8 + step)
        with torch.no_grad():
            wanted = old.h_a(y.abs())
        error = (model.h_a(y) - wanted).square().mean((0, 2, 3)) / wanted.var((0, 2, 3)).clamp_min(0.05)
        for group in optimiser.param_groups:
            group["lr"] = lr * (0.01 + 0.99 * (1 - step / s.imitate))
        optimiser.zero_grad(set_to_none=True)
        error.mean().backward()
        optimiser.step()


def train_step(s: Settings, arch: Architecture, model: nn.Module, batch: Tensor, lmbda: float, step: int = 0):
    """(loss, bpp, mse) of one step of a run, ready for ``backward``: on images [B, 3, H, W], or on latents [B, M, h, w]
    where the entropy model learns alone."""
    if s.only:
        return rate_loss(arch, model, batch, min(1.0, (step + 1) / max(1.0, s.side_warmup * s.steps)))
    amp = torch.bfloat16 if s.bf16 else None
    return rate_distortion_loss(arch, model, batch, lmbda, amp, synthesise=round_ste if s.mixed else None)


def learning_rate(s: Settings, step: int) -> float:
    """Linear rise over the first ``warmup`` of the steps, then a cosine down to 1 % of the peak."""
    rise = max(1, round(s.warmup * s.steps))
    if step < rise:
        return s.lr * (step + 1) / rise
    t = (step - rise) / max(1, s.steps - rise)
    return s.lr * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * t)))


def _write_atomically(path: Path, write) -> None:
    temporary = path.with_name(path.name + ".part")
    write(temporary)
    temporary.replace(path)


@torch.no_grad()
def validate(arch: Architecture, model: nn.Module, images: Crops, quality: int, size: int = 256) -> dict[str, float]:
    """Loss, estimated bpp and PSNR (dB, of the mean MSE) on the centre crops of a folder, with true rounding.

    A variable-rate codec's are means over its qualities up to the given one.
    """
    crops = []
    for image in images.images:
        t, left = (max(0, (side - size) // 2) for side in image.shape[:2])
        crops.append(torch.from_numpy(image[t : t + size, left : left + size].copy()).permute(2, 0, 1).float() / 255)
    crops = [c[None].to(next(model.parameters()).device) for c in crops if c.shape[1:] == (size, size)]
    rows = []
    for q in range(1, quality + 1) if arch.variable else (quality,):
        model.level = q - 1
        each = [rate_distortion_loss(arch, model, c, LAMBDAS[q], None, round_true) for c in crops]
        loss, bpp, mse = np.mean([[float(v) for v in row] for row in each], axis=0)
        rows.append((loss, bpp, -10 * math.log10(mse)))
    return dict(zip(("val_loss", "val_bpp", "val_psnr"), map(float, np.mean(rows, axis=0)), strict=True))


def train(
    s: Settings, data: Path, out: Path, val: Path | None = None, device: str = "cpu", every: int = 500,
    keep_every: int = 0, stop: int | None = None, on_step: Callable[[int], None] | None = None,
) -> Path:  # fmt: skip
    """Run (or go on with) one training; returns the path of its last state, beside which lie its weights.

    ``data``, ``val``: folders of images; ``every``: steps between checkpoints (and rows of the log); ``keep_every``:
    steps between checkpoints whose weights are kept beside the last (0: none); ``stop``: end there, before the
    schedule does; ``on_step`` is called with the number of steps done after each.
    """
    out.mkdir(parents=True, exist_ok=True)
    arch, device = ARCHITECTURES[s.arch], torch.device(device)
    crops = Crops(data)
    crops.check(s.crop)
    val_crops = Crops(val) if val else None
    torch.manual_seed(s.seed)
    model = arch.build(*s.widths)
    model.level = s.quality - 1
    state_path, log_path = out / "state.pt", out / "log.csv"
    state = torch.load(state_path, map_location="cpu", weights_only=True) if state_path.exists() else None
    if state and json.loads(json.dumps(asdict(Settings(s.arch, s.quality, s.widths, s.steps)))) | json.loads(
        state["settings"]
    ) != json.loads(json.dumps(asdict(s))):
        raise ValueError(f"{state_path} belongs to other settings: {state['settings']}. Choose another --out.")
    if state:
        nn.Module.load_state_dict(model, state["model"], strict=False)
    else:
        _initialise(s, arch, model, crops)
    model.to(device)
    keep_freed_memory()
    model.g_a.requires_grad_(s.only is None)
    model.g_s.requires_grad_(s.only is None)
    if s.channels_last:
        model.to(memory_format=torch.channels_last)
    if s.compile:
        for transform in (model.g_a, model.g_s):
            transform.compile(mode="reduce-overhead" if device.type == "cuda" else "default")
    quantiles = {n for n, _ in model.named_parameters() if n.endswith("quantiles")}
    main = [p for n, p in model.named_parameters() if n not in quantiles and p.requires_grad]
    optimiser = optimiser_of(s.optimiser, main, s.lr)
    first, seconds = 0, 0.0
    if state:
        if "optimiser" in state:  # a state that was kept in small form has none
            optimiser.load_state_dict(state["optimiser"])
        first, seconds = state["step"], state["seconds"]
    average = {n: p.detach().clone() for n, p in model.named_parameters()} if s.ema else {}
    if state and s.ema:
        average = {n: v.to(device) for n, v in state["average"].items()}
    _drop_rows_after(log_path, first)
    latents = Latents(s, model, crops, device) if s.only else None
    if s.imitate and not state:
        imitate_hyperprior(s, model, latents)
    look = crops.batch(max(1, 2**19 // s.crop**2), s.crop, s.seed, 2**31 + 1).to(device) if s.centred else None
    centring = Centring(model, look) if s.centred else None
    began, mean = time.perf_counter() - seconds, np.zeros(3)
    model.train()
    end = min(s.steps, stop or s.steps)
    for step in range(first, end):
        torch.manual_seed(s.seed * 1_000_003 + step)  # the noise of step n is that of step n, resumed or not
        x = latents.batch(s.batch, step) if latents else crops.batch(s.batch, s.crop, s.seed, step).to(device)
        if s.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        lmbda = s.lmbda
        if arch.variable:
            model.level = step % s.quality
            lmbda = LAMBDAS[model.level + 1]
        loss, bpp, mse = train_step(s, arch, model, x, lmbda, step)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if centring:
            centring.centre_gradients()
        norm = nn.utils.clip_grad_norm_(main, 1.0)
        optimiser.set_learning_rate(learning_rate(s, step))
        if torch.isfinite(norm):  # a step with a NaN is skipped
            optimiser.step()
            if centring:
                centring.follow()
            for n, p in model.named_parameters() if s.ema else ():
                average[n].lerp_(p.detach(), 1 - s.ema)
        mean += [float(loss.detach()), float(bpp.detach()), float(mse.detach())]
        done = step + 1
        if done % every == 0 or done == end:
            n = every if done % every == 0 else done % every
            row = {"step": done, "seconds": round(time.perf_counter() - began, 1), "loss": mean[0] / n,
                   "bpp": mean[1] / n, "psnr": -10 * math.log10(mean[2] / n)}  # fmt: skip
            if val_crops:
                model.eval()
                row |= validate(arch, model, val_crops, s.quality)
                if s.ema:
                    with _swapped(model, average):
                        row["val_loss_ema"] = validate(arch, model, val_crops, s.quality)["val_loss"]
                model.train()
            mean[:] = 0
            _append_row(log_path, row)
            print(" ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()), flush=True)
            new = {"settings": json.dumps(asdict(s)), "step": done, "seconds": time.perf_counter() - began,
                   "lmbda": s.lmbda,
                "hardware": _hardware(device), "optimiser": optimiser.state_dict(),
                   "average": average,
                   "model": {k: v.contiguous() for k, v in model.state_dict().items()}}  # fmt: skip
            _write_atomically(state_path, lambda p, new=new: torch.save(new, p))
            if centring:  # here, so that a run resumed from this state goes on alike
                centring = Centring(model, look)
            if keep_every and done % keep_every == 0:
                export(state_path, out / f"weights-{done:06d}.safetensors")
        if on_step:
            on_step(done)
    weights = state_path.with_name("weights.safetensors")
    export(state_path, weights)
    if val_crops:
        _, exported, _ = _read_run(weights)
        losses = [validate(arch, m.cpu().eval(), val_crops, s.quality)["val_loss"] for m in (model, exported)]
        if not s.ema and losses[1] > 1.01 * losses[0]:
            warnings.warn(f"the exported weights lose {100 * (losses[1] / losses[0] - 1):.1f} % of the validation loss "
                          f"to their precision: {losses[0]:.4f} -> {losses[1]:.4f}", stacklevel=2)  # fmt: skip
    return state_path


def _initialise(s: Settings, arch: Architecture, model: nn.Module, crops: Crops) -> None:
    enough = 2**22 // s.crop**2 if s.start == "pca" else 2**19 // s.crop**2  # 4 Mpx of crops, or ½
    x = crops.batch(max(1, enough), s.crop, s.seed, 2**31)
    if s.start in INITIALISE:
        INITIALISE[s.start](s.arch, model, x, s.lmbda)
    else:
        name, old, lmbda = _read_run(Path(s.start))
        begin_from(arch, model, s.lmbda, ARCHITECTURES[name], old, lmbda, x)


def _read_run(path: Path) -> tuple[str, nn.Module, float]:
    """(architecture, model, λ) of a run's state or of exported weights."""
    if path.suffix == ".safetensors":
        w = read_weights(path)
        name, widths, lmbda, parameters = w.card["arch"], w.widths, w.lmbda, w.state
    else:
        state = torch.load(path, map_location="cpu", weights_only=True)
        settings = json.loads(state["settings"])
        name, widths, lmbda = settings["arch"], settings["widths"], settings["lmbda"]
        parameters = state["model"] | state.get("average", {})
    model = ARCHITECTURES[name].build(*widths)
    nn.Module.load_state_dict(model, parameters, strict=False)
    return name, model, lmbda


@contextmanager
def _swapped(model: nn.Module, parameters: dict[str, Tensor]):
    """The model with other parameters for a while."""
    own = {n: p.detach().clone() for n, p in model.named_parameters()}
    nn.Module.load_state_dict(model, parameters, strict=False)
    try:
        yield
    finally:
        nn.Module.load_state_dict(model, own, strict=False)


def export(state_path: Path, target: Path) -> None:
    """Write a run's state as half-precision weights with its card in the header.

    The card's ``stages`` goes back through the runs that this one began from. The bottleneck's quantiles, which say how
    far its coding tables reach, are set to its learnt tails; the medians stay where training rounded.
    """
    settings = json.loads(torch.load(state_path, map_location="cpu", weights_only=True)["settings"])
    _, model, _ = _read_run(state_path)
    _set_tails(model.entropy_bottleneck)
    card = {k: settings[k] for k in ("arch", "quality", "lmbda", "seed")}
    card |= {"widths": " ".join(map(str, settings["widths"])), "stages": json.dumps(_stages(state_path))}
    save_weights(target, model.state_dict(), card)


@torch.no_grad()
def _set_tails(bottleneck: nn.Module, reach: float = 1e5) -> None:
    """Outer quantiles where the bottleneck's density has but 1e-9 left on either side, by bisection."""
    for k, target in ((0, bottleneck.target[0]), (2, bottleneck.target[2])):
        low = torch.full_like(bottleneck.quantiles[:, :, :1], -reach)
        high = -low
        for _ in range(40):
            middle = (low + high) / 2
            below = bottleneck._logits_cumulative(middle, stop_gradient=True) < target
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        bottleneck.quantiles[:, :, k : k + 1] = (low + high) / 2


def _stages(state_path: Path) -> list[dict]:
    """The runs that led to a state, first to last: what each was and what it took."""
    if state_path.suffix == ".safetensors":
        return json.loads(read_weights(state_path).card["stages"])
    state = torch.load(state_path, map_location="cpu", weights_only=True)
    settings = json.loads(state["settings"])
    start = settings["start"] or "pca"
    earlier = _stages(Path(start)) if Path(start).is_file() else []
    stage = {k: settings.get(k) for k in ("arch", "quality", "widths", "batch", "crop", "lr", "bf16", "only", "mixed",
                                               "centred", "optimiser")}  # fmt: skip
    stage["start"] = start if start in INITIALISE else Path(start).parent.name
    stage |= {"steps": state["step"], "minutes": round(state["seconds"] / 60), "hardware": state.get("hardware", "")}
    return [*earlier, stage]


def _hardware(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{torch.get_num_threads()} CPU thread{'s'[: torch.get_num_threads() != 1]}"


def _drop_rows_after(path: Path, step: int) -> None:
    """Take back the log's rows of steps that a killed run had not saved."""
    if path.exists():
        header, *rows = path.read_text().splitlines()
        kept = [r for r in rows if int(r.split(",")[0]) <= step]
        _write_atomically(path, lambda p: p.write_text("\n".join([header, *kept]) + "\n"))


def _append_row(path: Path, row: dict) -> None:
    exists = path.exists()
    with path.open("a", newline="") as f:
        writer = csv.DictWriter(f, fieldnames=list(row))
        if not exists:
            writer.writeheader()
        writer.writerow({k: f"{v:.5f}" if isinstance(v, float) else v for k, v in row.items()})


def parser() -> argparse.ArgumentParser:
    """The command line: one run by its settings, or a recipe's runs."""
    p = argparse.ArgumentParser(prog="python -m nic_helpers.training", description="Train compact codecs.")
    p.add_argument("--data", type=Path, help="folder of training images")
    p.add_argument("--val", type=Path, help="folder of validation images")
    p.add_argument("--out", type=Path, help="folder of the run's state; for a recipe, of its runs' folders")
    p.add_argument("--device", default="cpu")
    p.add_argument("--every", type=int, default=500, help="steps between checkpoints")
    p.add_argument("--keep-every", type=int, default=0, help="steps between checkpoints whose weights are kept")
    many = p.add_argument_group("a recipe")
    many.add_argument("--recipe", type=Path, help="TOML file of runs, such as data/recipes/bundled.toml")
    many.add_argument("--jobs", type=int, default=1, help="runs at a time, side by side (one CPU thread each)")
    many.add_argument("--only-runs", nargs="+", default=[], metavar="NAME", help="these, and those they begin from")
    many.add_argument(
        "--keep-states", action="store_true", help="write where its begun runs are beside the recipe, small"
    )
    many.add_argument("--dry-run", action="store_true", help="print the plan and its cost, timed here; train nothing")
    one = p.add_argument_group("one run")
    one.add_argument("--arch", choices=sorted(ARCHITECTURES))
    one.add_argument("--quality", type=int, choices=sorted(LAMBDAS))
    one.add_argument("--widths", type=int, nargs=2, help="N M")
    one.add_argument("--steps", type=int)
    for name in ("batch", "crop", "seed"):
        one.add_argument(f"--{name}", type=int, default=getattr(Settings, name))
    for name in ("lr", "warmup"):
        one.add_argument(f"--{name}", type=float, default=getattr(Settings, name))
    one.add_argument("--precision", choices=("auto", "bf16", "fp32"), default="auto", help="of the transforms")
    one.add_argument("--channels-last", action="store_true")
    one.add_argument("--optimiser", default="adam", choices=NAMES)
    one.add_argument(
        "--start",
        default="pca",
        help="pca, random, default (CompressAI's own random weights), or the state.pt or weights of a run to begin from",
    )
    one.add_argument("--only", choices=("entropy",), help="train the entropy model alone")
    one.add_argument("--side-warmup", type=float, default=0.0, help="share of the steps in which z becomes dear")
    one.add_argument("--imitate", type=int, default=0, help="steps in which a new h_a first learns to give the old z")
    one.add_argument("--mixed", action="store_true", help="round for the synthesis, add noise for the rate")
    one.add_argument("--compile", action="store_true", help="compile the transforms")
    one.add_argument("--centred", action="store_true", help="steps as if each convolution's inputs had mean zero")
    one.add_argument("--ema", type=float, default=0.0, help="decay of the averaged weights that are exported")
    one.add_argument("--stop", type=int, help="end after this many steps, before the schedule does")
    one.add_argument("--bundle", action="store_true", help="put the result among the bundled weights")
    return p


def main(argv: list[str] | None = None) -> None:
    """The command line: ``python -m nic_helpers.training --help``."""
    p = parser()
    a = p.parse_args(argv)
    if a.recipe:
        from nic_helpers import recipes

        sys.exit(recipes.run_from_command_line(a))
    missing = [f"--{n}" for n in ("data", "out", "arch", "quality", "widths", "steps") if getattr(a, n) is None]
    if missing:
        p.error(f"one run needs {', '.join(missing)} (or give --recipe)")
    bf16 = {"auto": None, "bf16": True, "fp32": False}[a.precision]
    same = {f.name for f in fields(Settings) if f.init} - {"widths", "bf16"}
    s = Settings(widths=tuple(a.widths), bf16=bf16, **{name: getattr(a, name) for name in same})
    state = train(s, a.data, a.out, a.val, a.device, a.every, a.keep_every, a.stop)
    if a.bundle:
        bundle(state.with_name("weights.safetensors"), a.arch, a.quality)


if __name__ == "__main__":
    main()
