"""Controls: noise that has the size of an attack and nothing of its aim."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from nic_helpers.attacks.base import Attack, first_of
from nic_helpers.attacks.loop import uniform_noise
from nic_helpers.budgets import L2rms
from nic_helpers.images import to_8bit
from nic_helpers.metrics import achieved


@dataclass(frozen=True, kw_only=True)
class RandomNoise(Attack):
    """The control every attack must beat: noise of the same budget. It needs no gradient, so it takes any codec.

    ``kind``: "uniform" in ±eps; "sign", ±eps at random (the same RMS as a sign attack); or "coarse", ±eps in grey blobs of
    about four pixels, which codecs damp less than single pixels and which take no codec to design.
    """

    kind: str = "uniform"

    needs_gradient = False

    def __post_init__(self):
        super().__post_init__()
        if self.kind not in ("uniform", "sign", "coarse"):
            raise ValueError(f"kind must be 'uniform', 'sign' or 'coarse', got {self.kind!r}")

    def _run(self, p):
        noise = uniform_noise(p.x, self.seed)
        if self.kind == "coarse":
            few = F.interpolate(noise[:, :1], size=[max(1, side // 4) for side in noise.shape[-2:]])
            noise = F.interpolate(few, size=noise.shape[-2:], mode="bicubic").expand_as(noise)
        x_adv = p.budget.project(p.x + p.budget.offset(noise if self.kind == "uniform" else noise.sign()), p.x)
        p.begin(x_adv)
        return p.offer(x_adv)


def dissolved(x: Tensor, x_adv: Tensor, eps: float, seed: int = 0) -> Tensor:
    """The attacked images x' with the pattern of x' − x dissolved: its spectrum stays, its phases become random ones.

    x, x' [B, 3, H, W] on the 8-bit grid. The phases are the same in all three channels, so the power at each frequency
    and how the channels go together stay, and the root mean square with them; where in the picture it lies is lost
    (Theiler 1992, doi:10.1016/0167-2789(92)90102-S). 8-bit images with an RMS of at most ``eps``, on [0, 1].
    """
    white = torch.fft.rfft2(uniform_noise(x, seed)[:, :1])  # of a real image, so that its phases give one again
    delta = torch.fft.irfft2(torch.fft.rfft2(x_adv - x) * torch.exp(1j * white.angle()), s=x.shape[-2:])
    budget = L2rms(eps)
    return budget.to_8bit(budget.project(x + delta, x), x)


@dataclass(frozen=True, kw_only=True)
class SpectralNoise(Attack):
    """A stricter control: noise with the size and the spectrum of what an attack finds, and nothing else of it.

    ``like``: that attack; it is run at this ``eps`` and ``seed`` in its own norm, and its perturbation is
    :func:`dissolved`. That keeps no bound on single samples: ``norm`` is "l2rms".
    """

    norm: str = "l2rms"
    like: Attack | None = None

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.like, Attack) or not self.like.needs_gradient:
            raise ValueError(f"like must be an attack that follows gradients, such as PGD(eps), got {self.like!r}")
        if self.norm != "l2rms":
            raise ValueError('norm must be "l2rms": random phases keep the root mean square, not the largest sample')

    def planned_gradients(self, objective=None) -> int:
        """Those of the attack that it is like."""
        return self.like.planned_gradients(objective)

    def _attack(self, codec, x, objective):
        found = self.like.with_(eps=self.eps, seed=self.seed)._attack(codec, x, objective)
        source = to_8bit(x.detach())
        x_adv = dissolved(source, found.x_adv, self.eps, self.seed + 1)
        at = first_of(codec).device
        with torch.no_grad():
            value = objective.bind(codec, source.to(at, torch.float32), None)(x_adv.to(at, torch.float32))
        return replace(found, x_adv=x_adv, objective=value.to(x.device), **achieved(source, x_adv))
