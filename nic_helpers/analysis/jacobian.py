"""How much a transform can amplify a small change: the largest singular values of its Jacobian around an image."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd import forward_ad


def singular_values(
    transform: Callable[[Tensor], Tensor], x: Tensor, count: int = 6, iterations: int = 15, seed: int = 0
) -> Tensor:
    """The ``count`` largest singular values [count], falling, of a transform's Jacobian at x [1, C, H, W].

    Subspace iteration: ``count`` directions are pushed through the Jacobian (forward mode) and pulled back (reverse mode), and made
    orthonormal again. The values are lower bounds that rise with the iterations. The transform must be differentiable at x: no
    rounding. ValueError for more than one image.
    """
    if x.dim() != 4 or len(x) != 1:
        raise ValueError(f"x must be one image [1, C, H, W], got {tuple(x.shape)}")
    basis = torch.randn(x.numel(), count, generator=torch.Generator().manual_seed(seed)).to(x)
    point = x.detach().clone().requires_grad_(True)
    with torch.enable_grad():
        out = transform(point)
    for step in range(iterations + 1):
        basis = torch.linalg.qr(basis)[0]
        pushed = torch.stack([_push(transform, x, v.view_as(x)).flatten() for v in basis.T], 1)
        if step < iterations:
            pulled = [torch.autograd.grad(out, point, u.view_as(out), retain_graph=True)[0].flatten() for u in pushed.T]
            basis = torch.stack(pulled, 1)
    return torch.linalg.svdvals(pushed)


@torch.no_grad()
def _push(transform: Callable[[Tensor], Tensor], x: Tensor, direction: Tensor) -> Tensor:
    """The transform's derivative at x along a direction."""
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(transform(forward_ad.make_dual(x.detach(), direction))).tangent
