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
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from compressai.layers import GDN, AttentionBlock, ResidualBlock, ResidualBlockUpsample, ResidualBlockWithStride
from PIL import Image
from torch import Tensor, nn

from nic_helpers.models import ARCHITECTURES, LAMBDAS, add_noise, round_true, walk
from nic_helpers.weights import bundle, checkpoints_dir, save_weights


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
    start: str | None = None  # another run's state.pt to begin from, instead of the PCA initialisation
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
        expected = len(ARCHITECTURES[self.arch].published_widths[1])
        if len(self.widths) != expected:
            raise ValueError(
                f"{self.arch} takes {expected} widths ({'N' if expected == 1 else 'N M'}), got {self.widths}"
            )
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


# ------------------------------------------------------------------------------------------------ initialisation
def _near_identity_gdn(model: nn.Module, gamma: float) -> None:
    """(I)GDN layers with a small diagonal γ: the activations pass almost unchanged at first."""
    for m in model.modules():
        if isinstance(m, GDN):
            m.gamma.data.copy_(m.gamma_reparam.init(gamma * torch.eye(m.gamma.size(0))))


def _principal_components(v: Tensor, active: int, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Top ``count`` principal components of the 2×2 blocks of v [B, C, H, W], first ``active`` channels.

    Returns (components [count, active, 2, 2], mean [active, 2, 2], standard deviations [count]).
    """
    v = v[:, :active]
    blocks = v.unfold(2, 2, 2).unfold(3, 2, 2).permute(0, 2, 3, 1, 4, 5).reshape(-1, active * 4).double()
    mean = blocks.mean(0)
    variances, vectors = torch.linalg.eigh(torch.cov((blocks - mean).T))
    order = torch.argsort(variances, descending=True)[:count]
    parts = vectors[:, order].T.reshape(-1, active, 2, 2)
    return parts.float(), mean.reshape(active, 2, 2).float(), variances[order].clamp_min(0).sqrt().float()


def _set_analysis(conv: nn.Conv2d, parts: Tensor, mean: Tensor, gain: float = 1.0) -> None:
    """Make a stride-2 convolution compute the principal components of the 2×2 block that it starts at."""
    count, active = parts.shape[:2]
    first = conv.kernel_size[0] // 2  # output i looks at inputs 2i − k//2 …, so the block (2i, 2i+1) starts there
    nn.init.normal_(conv.weight, std=0.02)
    conv.weight.data[:count] = 0
    conv.weight.data[:count, :active, first : first + 2, first : first + 2] = gain * parts
    conv.bias.data.zero_()
    conv.bias.data[:count] = -gain * (parts * mean).sum((1, 2, 3))


def _set_transposed(deconv: nn.ConvTranspose2d, parts: Tensor, mean: Tensor, gain: float = 1.0) -> None:
    """The inverse of :func:`_set_analysis` as a transposed convolution: blocks from their components."""
    count, active = parts.shape[:2]
    first = deconv.kernel_size[0] // 2
    nn.init.normal_(deconv.weight, std=0.005)
    deconv.weight.data[:count, :active] = 0
    deconv.weight.data[:count, :active, first : first + 2, first : first + 2] = parts / gain
    deconv.bias.data.zero_()
    deconv.bias.data[:active] = mean.mean((1, 2))


def _set_subpel(conv: nn.Conv2d, parts: Tensor, mean: Tensor, gain: float = 1.0) -> None:
    """The inverse of :func:`_set_analysis` as a convolution followed by PixelShuffle(2)."""
    count, active = parts.shape[:2]
    middle = conv.kernel_size[0] // 2
    nn.init.normal_(conv.weight, std=0.005)
    conv.weight.data[: 4 * active, :count] = 0
    conv.weight.data[: 4 * active, :count, middle, middle] = (parts / gain).reshape(count, -1).T
    conv.bias.data.zero_()
    conv.bias.data[: 4 * active] = mean.reshape(-1)


def _shrink(conv: nn.Conv2d, factor: float) -> None:
    conv.weight.data.mul_(factor)
    conv.bias.data.mul_(factor)


@torch.no_grad()
def pca_initialise(arch_name: str, model: nn.Module, x: Tensor, lmbda: float) -> None:
    """Start the transforms as a four-level Karhunen–Loève transform of the training images, and its inverse.

    With random weights the latents round to zero and thousands of steps are lost. Here each stride-2 layer computes the
    principal components of 2×2 blocks of its input, the synthesis mirrors it, and the last gain sets the quantiser's
    step to what λ asks for (8 at λ = 0.013, growing as √λ). In Cheng2020's blocks the analysis runs through the main
    branch, lifted by a bias into LeakyReLU's linear part; the synthesis through the linear ``upsample`` branch; every
    other residual branch starts small.

    Parameters: x [B, 3, H, W] in [0, 1], a few hundred crops' worth of pixels.
    """
    residual = arch_name.startswith("cheng2020")
    # GDN and IGDN undo each other in the plain codecs; in Cheng2020's the linear branch has no IGDN to undo a GDN
    _near_identity_gdn(model, 1e-4 if residual else 0.01)
    gain = 8.0 * math.sqrt(lmbda / 0.013)
    stages = _pca_residual if residual else _pca_plain
    latents = stages(model, x, gain)
    _start_entropy_model(ARCHITECTURES[arch_name], model, latents)


def _pca_plain(model: nn.Module, x: Tensor, gain: float) -> Tensor:
    v, active = x, 3
    convs = [m for m in model.g_a if isinstance(m, nn.Conv2d)]
    deconvs = [m for m in model.g_s if isinstance(m, nn.ConvTranspose2d)][::-1]
    for layer, module in enumerate(model.g_a):
        if isinstance(module, nn.Conv2d):
            k = layer // 2
            scale = gain if k == len(convs) - 1 else 1.0
            parts, mean, _ = _principal_components(v, active, min(module.out_channels, 4 * active))
            _set_analysis(module, parts, mean, scale)
            _set_transposed(deconvs[k], parts, mean, scale)
            active = len(parts)
        v = module(v)
    return v


def _pca_residual(model: nn.Module, x: Tensor, gain: float) -> Tensor:
    v, active = x, 3
    downs = [m for m in model.g_a if isinstance(m, (ResidualBlockWithStride, nn.Conv2d))]
    ups = [m for m in model.g_s if isinstance(m, (ResidualBlockUpsample, nn.Sequential))][::-1]
    for m in [*model.g_a, *model.g_s]:
        if isinstance(m, ResidualBlock):
            _shrink(m.conv2, 0.01)
        elif isinstance(m, AttentionBlock):
            _shrink(m.conv_b[-1], 0.1)
            m.conv_b[-1].bias.data.fill_(-5.0)  # sigmoid(−5): the gate starts all but closed
    for module in model.g_a:
        if module in downs:
            k = downs.index(module)
            last = k == len(downs) - 1
            width = module.out_channels if last else module.conv1.out_channels
            parts, mean, spread = _principal_components(v, active, min(width, 4 * active))
            up = ups[k][0] if isinstance(ups[k], nn.Sequential) else ups[k].upsample[0]
            _set_subpel(up, parts, mean, gain if last else 1.0)
            if last:
                _set_analysis(module, parts, mean, gain)
            else:
                _set_analysis(module.conv1, parts, mean)
                lift = torch.zeros(width)
                lift[: len(parts)] = 5 * spread
                module.conv1.bias.data.add_(lift)
                nn.init.normal_(module.conv2.weight, std=0.005)
                module.conv2.weight.data[: len(parts)] = 0
                index = torch.arange(len(parts))
                module.conv2.weight.data[index, index, 1, 1] = 1.0
                module.conv2.bias.data.copy_(-lift)
                _shrink(module.skip, 0.002)
            active = len(parts)
        v = module(v)
    for up in ups:
        if isinstance(up, ResidualBlockUpsample):
            _shrink(up.conv, 0.01)
    return v


def _start_entropy_model(arch, model: nn.Module, latent: Tensor) -> None:
    """Scales start at the latents' standard deviations, means at zero, z at a spread of about 2."""
    spread = latent.std((0, 2, 3)).clamp_min(0.11)
    if not arch.side_information:
        # the bottleneck's density is about init_scale wide: scale its input by the latents' own spread
        model.entropy_bottleneck.matrices[0].data.add_(torch.log(10.0 / (2 * spread))[:, None, None].clamp(-2, 4))
        wide = (5 * spread).clamp_min(2)
        model.entropy_bottleneck.quantiles.data[:, 0, 0] = -wide
        model.entropy_bottleneck.quantiles.data[:, 0, 2] = wide
        return
    z = model.h_a(latent if arch.means else latent.abs())
    _shrink(model.h_a[-1], float(2.0 / z.std().clamp_min(1e-3)))
    last = model.entropy_parameters[-1] if arch.context else model.h_s[-2 if not arch.means else -1]
    _shrink(last, 0.1)
    last.bias.data[: len(spread)] = spread


# ------------------------------------------------------------------------------------------------------ training
def rate_distortion_loss(
    arch, model, x: Tensor, lmbda: float, amp, quantise=add_noise
) -> tuple[Tensor, Tensor, Tensor]:
    """(loss, bpp, mse): R + λ·255²·MSE, R in bits per pixel, MSE on [0, 1]."""
    w = walk(arch, model, x, quantise, amp=amp)
    bpp = sum(b.sum() for b in w.bits().values()) / (x.size(0) * x.size(2) * x.size(3))
    mse = F.mse_loss(w.x_hat, x)
    return bpp + lmbda * 255**2 * mse, bpp, mse


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
def validate(arch, model, images: Crops, lmbda: float, size: int = 256) -> dict[str, float]:
    """Loss, estimated bpp and PSNR (dB, of the mean MSE) on the centre crops of a folder, with true rounding."""
    crops = []
    for image in images.images:
        t, left = (max(0, (side - size) // 2) for side in image.shape[:2])
        crops.append(torch.from_numpy(image[t : t + size, left : left + size].copy()).permute(2, 0, 1).float() / 255)
    device = next(model.parameters()).device
    totals = np.array([[float(v) for v in rate_distortion_loss(arch, model, c[None].to(device), lmbda, None, round_true)]
                       for c in crops if c.shape[1:] == (size, size)])  # fmt: skip
    loss, bpp, mse = totals.mean(0)
    return {"val_loss": loss, "val_bpp": bpp, "val_psnr": -10 * math.log10(mse)}


def train(
    s: Settings, data: Path, out: Path, val: Path | None = None, device: str = "cpu", every: int = 500,
    on_step: Callable[[int], None] | None = None,
) -> Path:  # fmt: skip
    """Run (or go on with) one training; returns the path of its last state, beside which lie its weights.

    ``data``, ``val``: folders of images; ``every``: steps between checkpoints (and rows of the log); ``on_step`` is
    called with the number of steps done after each.
    """
    out.mkdir(parents=True, exist_ok=True)
    arch, device = ARCHITECTURES[s.arch], torch.device(device)
    crops = Crops(data)
    crops.check(s.crop)
    val_crops = Crops(val) if val else None
    torch.manual_seed(s.seed)
    model = arch.build(*s.widths)
    state_path, log_path = out / "state.pt", out / "log.csv"
    state = torch.load(state_path, map_location="cpu", weights_only=True) if state_path.exists() else None
    if state and state["settings"] != json.dumps(asdict(s)):
        raise ValueError(f"{state_path} belongs to other settings: {state['settings']}. Choose another --out.")
    if state:
        nn.Module.load_state_dict(model, state["model"], strict=False)
    elif s.start:
        start = torch.load(s.start, map_location="cpu", weights_only=True)
        nn.Module.load_state_dict(model, start["model"], strict=False)
        _rescale_latents(arch, model, math.sqrt(s.lmbda / start["lmbda"]))
    else:
        enough = 2**22 // s.crop**2  # 4 Mpx of crops
        pca_initialise(s.arch, model, crops.batch(enough, s.crop, s.seed, 2**31), s.lmbda)
    model.to(device)
    if s.channels_last:
        model.to(memory_format=torch.channels_last)
    quantiles = {n for n, _ in model.named_parameters() if n.endswith("quantiles")}
    main = [p for n, p in model.named_parameters() if n not in quantiles]
    optimiser = torch.optim.Adam(main, lr=s.lr)
    first, seconds = 0, 0.0
    if state:
        optimiser.load_state_dict(state["optimiser"])
        first, seconds = state["step"], state["seconds"]
    amp = torch.bfloat16 if s.bf16 else None
    _drop_rows_after(log_path, first)
    began, mean = time.perf_counter() - seconds, np.zeros(3)
    model.train()
    for step in range(first, s.steps):
        torch.manual_seed(s.seed * 1_000_003 + step)  # the noise of step n is that of step n, resumed or not
        x = crops.batch(s.batch, s.crop, s.seed, step).to(device)
        if s.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        loss, bpp, mse = rate_distortion_loss(arch, model, x, s.lmbda, amp)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(main, 1.0)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(s, step)
        if torch.isfinite(norm):  # a step with a NaN is skipped
            optimiser.step()
        mean += [float(loss.detach()), float(bpp.detach()), float(mse.detach())]
        done = step + 1
        if done % every == 0 or done == s.steps:
            n = every if done % every == 0 else done % every
            row = {"step": done, "seconds": round(time.perf_counter() - began, 1), "loss": mean[0] / n,
                   "bpp": mean[1] / n, "psnr": -10 * math.log10(mean[2] / n)}  # fmt: skip
            if val_crops:
                model.eval()
                row |= validate(arch, model, val_crops, s.lmbda)
                model.train()
            mean[:] = 0
            _append_row(log_path, row)
            print(" ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()), flush=True)
            new = {"settings": json.dumps(asdict(s)), "step": done, "seconds": time.perf_counter() - began,
                   "lmbda": s.lmbda,
                "hardware": _hardware(device), "optimiser": optimiser.state_dict(),
                   "model": {k: v.contiguous() for k, v in model.state_dict().items()}}  # fmt: skip
            _write_atomically(state_path, lambda p, new=new: torch.save(new, p))
        if on_step:
            on_step(done)
    export(state_path, state_path.with_name("weights.safetensors"))
    return state_path


def export(state_path: Path, target: Path) -> None:
    """Write a run's state as half-precision weights with its card in the header.

    The card's ``stages`` goes back through the runs that this one began from. The bottleneck's quantiles, which say how
    far its coding tables reach, are set to its learnt tails; the medians stay where training rounded.
    """
    state = torch.load(state_path, map_location="cpu", weights_only=True)
    settings = json.loads(state["settings"])
    model = ARCHITECTURES[settings["arch"]].build(*settings["widths"])
    nn.Module.load_state_dict(model, state["model"], strict=False)
    medians = model.entropy_bottleneck.quantiles[:, :, 1].detach().clone()
    model.entropy_bottleneck._update_quantiles()
    model.entropy_bottleneck.quantiles.data[:, :, 1] = medians
    card = {k: settings[k] for k in ("arch", "quality", "lmbda", "seed")}
    card |= {"widths": " ".join(map(str, settings["widths"])), "stages": json.dumps(_stages(state_path))}
    save_weights(target, model.state_dict(), card)


def _stages(state_path: Path) -> list[dict]:
    """The runs that led to a state, first to last: what each was and what it took."""
    state = torch.load(state_path, map_location="cpu", weights_only=True)
    settings = json.loads(state["settings"])
    earlier = _stages(Path(settings["start"])) if settings["start"] and Path(settings["start"]).is_file() else []
    stage = {k: settings[k] for k in ("quality", "batch", "crop", "lr", "bf16")}
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


@torch.no_grad()
def _rescale_latents(arch, model: nn.Module, factor: float) -> None:
    """Warm start at another λ: a quantiser step that is finer by ``factor``, everything else unchanged.

    The last analysis layer is scaled up and the first synthesis layer down; so are what reads or predicts latents.
    """
    if arch.context or not arch.side_information:
        # what reads ŷ here, a context model or a learned density, does not simply scale: left to the training
        return
    _shrink(model.g_a[-1], factor)
    model.g_s[0].weight.data.div_(factor)
    model.h_a[0].weight.data.div_(factor)
    _shrink(model.h_s[-1] if arch.means else model.h_s[-2], factor)


def main(argv: list[str] | None = None) -> None:
    p = argparse.ArgumentParser(prog="python -m nic_helpers.training", description="Train one compact codec.")
    p.add_argument("--arch", required=True, choices=sorted(ARCHITECTURES))
    p.add_argument("--quality", type=int, required=True, choices=sorted(LAMBDAS))
    p.add_argument("--widths", type=int, nargs="+", required=True, help="N M, or N for Cheng2020")
    p.add_argument("--steps", type=int, required=True)
    for name in ("batch", "crop", "seed"):
        p.add_argument(f"--{name}", type=int, default=getattr(Settings, name))
    p.add_argument("--lr", type=float, default=Settings.lr)
    p.add_argument("--warmup", type=float, default=Settings.warmup)
    p.add_argument("--precision", choices=("auto", "bf16", "fp32"), default="auto", help="of the transforms")
    p.add_argument("--channels-last", action="store_true")
    p.add_argument("--start", help="state.pt of another run to begin from")
    p.add_argument("--data", type=Path, required=True, help="folder of training images")
    p.add_argument("--val", type=Path, help="folder of validation images")
    p.add_argument("--out", type=Path, required=True, help="folder of the run's state")
    p.add_argument("--device", default="cpu")
    p.add_argument("--bundle", action="store_true", help="put the result among the bundled weights")
    p.add_argument("--every", type=int, default=500, help="steps between checkpoints")
    a = p.parse_args(argv)
    s = Settings(a.arch, a.quality, tuple(a.widths), a.steps, a.batch, a.crop, a.lr, a.warmup, a.seed,
                 {"auto": None, "bf16": True, "fp32": False}[a.precision],
                 a.channels_last, a.start)  # fmt: skip
    state = train(s, a.data, a.out, a.val, a.device, a.every)
    if a.bundle:
        target = checkpoints_dir() / f"{a.arch}-q{a.quality}.safetensors"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(state.with_name("weights.safetensors"), target)
        bundle(target, a.arch, a.quality)


if __name__ == "__main__":
    main()
