"""A codec whose latents another one learns to give: transforms that few steps teach little from random weights begin from there."""

from __future__ import annotations

import torch
from torch import nn

from nic_helpers.codecs.architecture import Architecture
from nic_helpers.codecs.registry import ARCHITECTURES
from nic_helpers.training.export import file_of, read_run
from nic_helpers.training.settings import Settings

_TRANSFORMS = ("g_a.", "g_s.")


def teacher_of(s: Settings, model: nn.Module, device: torch.device | str = "cpu") -> Architecture | None:
    """The codec that ``s.teacher`` names, frozen; None if it names none. ValueError for another λ or another number of latents."""
    if s.teacher is None:
        return None
    name, old, lmbda = read_run(file_of(s.teacher, s.arch, s.quality))
    if lmbda != s.lmbda:
        raise ValueError(
            f"the teacher {s.teacher} is of λ = {lmbda:g}, {s.arch} at quality {s.quality} of {s.lmbda:g}: choose one alike"
        )
    ours, theirs = (_latents(ARCHITECTURES[n], m) for n, m in ((s.arch, model), (name, old)))
    if ours != theirs:
        raise ValueError(f"the teacher {s.teacher} has {theirs} latents, {s.arch} of widths {s.widths} {ours}: give it as many")
    return ARCHITECTURES[name](old.to(device).eval().requires_grad_(False), s.quality)


@torch.no_grad()
def _latents(arch: type[Architecture], model: nn.Module) -> int:
    side, device = max(arch.stride, arch.smallest), next(model.parameters()).device
    return arch(model, 1).analysis(torch.zeros(1, 3, side, side, device=device)).size(1)


@torch.no_grad()
def take_over(model: nn.Module, teacher: Architecture) -> list[str]:
    """Give the entropy model every parameter of the teacher's that has its name and its shape; the names of those."""
    own = {n: p for n, p in model.named_parameters() if not n.startswith(_TRANSFORMS)}
    same = {n: p for n, p in teacher.model.named_parameters() if n in own and p.shape == own[n].shape}
    nn.Module.load_state_dict(model, same, strict=False)
    return list(same)
