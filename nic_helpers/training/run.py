"""One training run: begun, resumed and ended, its state written atomically.

A run keeps its state in its folder: ``state.pt``, ``log.csv``, and at the end ``weights.safetensors``. Started again with the same
settings it goes on at the exact step where the last checkpoint was taken.
"""

from __future__ import annotations

import csv
import json
import math
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from nic_helpers.codecs.architecture import LAMBDAS
from nic_helpers.codecs.base import has_bfloat16
from nic_helpers.codecs.quantisers import round_true
from nic_helpers.codecs.registry import ARCHITECTURES
from nic_helpers.memory import keep_freed_memory
from nic_helpers.training.centring import Centring
from nic_helpers.training.data import Crops, Latents
from nic_helpers.training.entropy_start import asleep, awaken
from nic_helpers.training.export import export, file_of, read_run
from nic_helpers.training.imitate import imitate_hyperprior
from nic_helpers.training.kinds import Kind
from nic_helpers.training.losses import rate_distortion_loss, train_step
from nic_helpers.training.optimisers import input_sizes, optimiser_of
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
        each = [rate_distortion_loss(arch, model, c, LAMBDAS[q], None, round_true) for c in crops]
        loss, bpp, mse = np.mean([[float(v) for v in row] for row in each], axis=0)
        rows.append((loss, bpp, -10 * math.log10(mse)))
    return dict(zip(("val_loss", "val_bpp", "val_psnr"), map(float, np.mean(rows, axis=0)), strict=True))


class Training:
    """A run as it stands: the model, what moves it, and how far it is."""

    def __init__(self, s: Settings, data: Path, out: Path, val: Path | None, device: torch.device):
        self.s, self.out, self.device, self.arch = s, out, device, ARCHITECTURES[s.arch]
        self.state_path, self.log_path = out / "state.pt", out / "log.csv"
        self.crops, self.val = Crops(data), Crops(val) if val else None
        self.crops.check(s.crop)
        torch.manual_seed(s.seed)
        self.model = self.arch.build(*s.widths)
        state = self._state()
        if state:
            nn.Module.load_state_dict(self.model, state["model"], strict=False)
        else:
            _initialise(s, self.arch, self.model, self.crops)
        self._prepare()
        quantiles = {n for n, _ in self.model.named_parameters() if n.endswith("quantiles")}
        self.main = [p for n, p in self.model.named_parameters() if n not in quantiles and p.requires_grad]
        self.optimiser = optimiser_of(s.optimiser, self.main, s.lr, self._input_sizes() if s.by_inputs else None)
        self.average = {n: p.detach().clone() for n, p in self.model.named_parameters()} if s.ema else {}
        self.first, seconds = 0, 0.0
        if state:
            if "optimiser" in state:  # a state that was kept in small form has none
                self.optimiser.load_state_dict(state["optimiser"])
            self.first, seconds = state["step"], state["seconds"]
            if s.ema:
                self.average = {n: v.to(device) for n, v in state["average"].items()}
        _drop_rows_after(self.log_path, self.first)
        self.latents = Latents(s, self.model, self.crops, device) if s.only else None
        if s.only and not state:
            awaken(self.arch, self.model, self.latents.batch(64, 0))
        if s.imitate and not state:
            imitate_hyperprior(s, self.model, self.latents)
        self._look = self.crops.batch(max(1, 2**19 // s.crop**2), s.crop, s.seed, 2**31 + 1).to(device) if s.centred else None
        self.centring = Centring(self.model, self._look) if s.centred else None
        self.began, self.mean = time.perf_counter() - seconds, np.zeros(3)
        self.model.train()

    def _state(self) -> dict | None:
        """Where the run was left, if it was begun; ValueError if that is another run."""
        if not self.state_path.exists():
            return None
        state = torch.load(self.state_path, map_location="cpu", weights_only=True)
        s = self.s
        now, plain = (json.loads(json.dumps(asdict(settings))) for settings in (s, Settings(s.arch, s.quality, s.widths, s.steps)))
        then = plain | {k: v for k, v in json.loads(state["settings"]).items() if k in now or v is not None}
        if then != now:  # a setting that there is no more, and that was not made use of, does not count
            raise ValueError(f"{self.state_path} belongs to other settings: {state['settings']}. Choose another --out.")
        return state

    def _prepare(self) -> None:
        """The model on its device, in its layout, with what learns set free."""
        self.model.to(self.device)
        keep_freed_memory()
        for transform in (self.model.g_a, self.model.g_s):
            transform.requires_grad_(self.s.only is None)
        if self.s.channels_last:
            self.model.to(memory_format=torch.channels_last)
        if self.s.compile:
            for transform in (self.model.g_a, self.model.g_s):
                transform.compile(mode="reduce-overhead" if self.device.type == "cuda" else "default")

    def _input_sizes(self) -> dict[nn.Parameter, Tensor]:
        """On half a megapixel of crops, at all qualities of a variable-rate codec."""
        x = self.crops.batch(max(1, 2**19 // self.s.crop**2), self.s.crop, self.s.seed, 2**31 + 1).to(self.device)
        qualities = range(1, self.s.quality + 1) if self.arch.variable else (self.s.quality,)
        run = partial(rate_distortion_loss, self.arch, self.model, x, quantise=round_true)
        return input_sizes(self.model, lambda: [run(lmbda=LAMBDAS[q]) for q in qualities])

    def step(self, step: int) -> None:
        """One step; the batch and the noise of step n are those of step n, resumed or not."""
        s = self.s
        torch.manual_seed(s.seed * 1_000_003 + step)
        x = self.latents.batch(s.batch, step) if self.latents else self.crops.batch(s.batch, s.crop, s.seed, step).to(self.device)
        if s.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        lmbda = LAMBDAS[step % s.quality + 1] if self.arch.variable else s.lmbda
        loss, bpp, mse = train_step(s, self.arch, self.model, x, lmbda, step)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if self.centring:
            self.centring.centre_gradients()
        norm = nn.utils.clip_grad_norm_(self.main, 1.0)
        self.optimiser.set_learning_rate(learning_rate(s, step))
        if torch.isfinite(norm):  # a step with a NaN is skipped
            self.optimiser.step()
            if self.centring:
                self.centring.follow()
            for n, p in self.model.named_parameters() if s.ema else ():
                self.average[n].lerp_(p.detach(), 1 - s.ema)
        self.mean += [float(loss.detach()), float(bpp.detach()), float(mse.detach())]

    def checkpoint(self, done: int, steps: int, keep: bool) -> None:
        """A row of the log, of the last ``steps`` steps, and the state; with ``keep`` the weights beside it."""
        loss, bpp, mse = self.mean / steps
        self.mean[:] = 0
        seconds = time.perf_counter() - self.began
        row = {"step": done, "seconds": round(seconds, 1), "loss": loss, "bpp": bpp, "psnr": -10 * math.log10(mse)}
        row |= self._validated() if self.val else {}
        _append_row(self.log_path, row)
        print(" ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()), flush=True)
        state = {
            "settings": json.dumps(asdict(self.s)),
            "step": done,
            "seconds": time.perf_counter() - self.began,
            "lmbda": self.s.lmbda,
            "hardware": _hardware(self.device),
            "optimiser": self.optimiser.state_dict(),
            "average": self.average,
            "model": {k: v.contiguous() for k, v in self.model.state_dict().items()},
        }
        _write_atomically(self.state_path, lambda p: torch.save(state, p))
        if self.centring:  # here, so that a run resumed from this state goes on alike
            self.centring = Centring(self.model, self._look)
        if keep:
            export(self.state_path, self.out / f"weights-{done:06d}.safetensors")

    def _validated(self) -> dict[str, float]:
        self.model.eval()
        found = validate(self.arch, self.model, self.val, self.s.quality)
        if self.s.ema:
            with _swapped(self.model, self.average):
                found["val_loss_ema"] = validate(self.arch, self.model, self.val, self.s.quality)["val_loss"]
        self.model.train()
        return found

    def finish(self) -> None:
        """The weights in their compact form; a warning where that costs more than a hundredth of the loss, and where z says nothing."""
        weights = self.state_path.with_name("weights.safetensors")
        export(self.state_path, weights)
        coding = self.arch(self.model.eval(), self.s.quality)
        with torch.no_grad():
            y = coding.analysis(self.crops.batch(8, self.s.crop, self.s.seed, 2**31 + 2).to(self.device))
        if asleep(coding, y):
            warnings.warn(
                "all of z rounds to about the same value: the entropy model does without its side information. A run with "
                "only='entropy' and a side_warmup wakes it",
                stacklevel=3,
            )
        if self.s.ema or not self.val:
            return
        _, exported, _ = read_run(weights)
        both = (self.model.cpu().eval(), exported.eval())
        before, after = (validate(self.arch, m, self.val, self.s.quality)["val_loss"] for m in both)
        if after > 1.01 * before:
            warnings.warn(
                f"the exported weights lose {100 * (after / before - 1):.1f} % of the validation loss "
                f"to their precision: {before:.4f} -> {after:.4f}",
                stacklevel=3,
            )


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
    if s.bf16 and not has_bfloat16(torch.device(device)):
        print("bfloat16 is emulated here, several times as slow as single precision: --precision fp32", file=sys.stderr)
    run = Training(s, data, out, val, torch.device(device))
    end = min(s.steps, stop or s.steps)
    for done in range(run.first + 1, end + 1):
        run.step(done - 1)
        if done % every == 0 or done == end:
            run.checkpoint(done, done % every or every, bool(keep_every) and done % keep_every == 0)
        if on_step:
            on_step(done)
    run.finish()
    return run.state_path


def _initialise(s: Settings, arch: Kind, model: nn.Module, crops: Crops) -> None:
    enough = 2**22 // s.crop**2 if s.start == "pca" else 2**19 // s.crop**2  # 4 Mpx of crops, or ½
    x = crops.batch(max(1, enough), s.crop, s.seed, 2**31)
    if s.start in INITIALISE:
        INITIALISE[s.start](s.arch, model, x, s.lmbda)
    else:
        name, old, lmbda = read_run(file_of(s.start, s.arch, s.quality))
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
