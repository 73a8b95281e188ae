"""One training run: begun, resumed and ended, its state written atomically.

A run keeps its state in its folder: ``state.pt``, ``log.csv``, and at the end ``weights.safetensors``. Started again with the same
settings it goes on at the exact step where the last checkpoint was taken.
"""

from __future__ import annotations

import csv
import json
import math
import time
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from nic_helpers.codecs.architecture import LAMBDAS
from nic_helpers.codecs.quantisers import round_true
from nic_helpers.codecs.registry import ARCHITECTURES
from nic_helpers.memory import keep_freed_memory
from nic_helpers.training.centring import Centring
from nic_helpers.training.data import Crops, Latents
from nic_helpers.training.export import export, read_run
from nic_helpers.training.imitate import imitate_hyperprior
from nic_helpers.training.kinds import Kind
from nic_helpers.training.losses import rate_distortion_loss, train_step
from nic_helpers.training.optimisers import optimiser_of
from nic_helpers.training.settings import Settings
from nic_helpers.training.start import INITIALISE
from nic_helpers.training.warmstart import begin_from


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
def validate(arch: Kind, model: nn.Module, images: Crops, quality: int, size: int = 256) -> dict[str, float]:
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
    s: Settings,
    data: Path,
    out: Path,
    val: Path | None = None,
    device: str = "cpu",
    every: int = 500,
    keep_every: int = 0,
    stop: int | None = None,
    on_step: Callable[[int], None] | None = None,
) -> Path:
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
            row = {
                "step": done,
                "seconds": round(time.perf_counter() - began, 1),
                "loss": mean[0] / n,
                "bpp": mean[1] / n,
                "psnr": -10 * math.log10(mean[2] / n),
            }
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
            new = {
                "settings": json.dumps(asdict(s)),
                "step": done,
                "seconds": time.perf_counter() - began,
                "lmbda": s.lmbda,
                "hardware": _hardware(device),
                "optimiser": optimiser.state_dict(),
                "average": average,
                "model": {k: v.contiguous() for k, v in model.state_dict().items()},
            }
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
        _, exported, _ = read_run(weights)
        losses = [validate(arch, m.cpu().eval(), val_crops, s.quality)["val_loss"] for m in (model, exported)]
        if not s.ema and losses[1] > 1.01 * losses[0]:
            warnings.warn(
                f"the exported weights lose {100 * (losses[1] / losses[0] - 1):.1f} % of the validation loss "
                f"to their precision: {losses[0]:.4f} -> {losses[1]:.4f}",
                stacklevel=2,
            )
    return state_path


def _initialise(s: Settings, arch: Kind, model: nn.Module, crops: Crops) -> None:
    enough = 2**22 // s.crop**2 if s.start == "pca" else 2**19 // s.crop**2  # 4 Mpx of crops, or ½
    x = crops.batch(max(1, enough), s.crop, s.seed, 2**31)
    if s.start in INITIALISE:
        INITIALISE[s.start](s.arch, model, x, s.lmbda)
    else:
        name, old, lmbda = read_run(Path(s.start))
        begin_from(arch, model, s.lmbda, ARCHITECTURES[name], old, lmbda, x)


@contextmanager
def _swapped(model: nn.Module, parameters: dict[str, Tensor]):
    """The model with other parameters for a while."""
    own = {n: p.detach().clone() for n, p in model.named_parameters()}
    nn.Module.load_state_dict(model, parameters, strict=False)
    try:
        yield
    finally:
        nn.Module.load_state_dict(model, own, strict=False)


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
