"""The optimisers of training runs: Adam, and Muon for what are matrices with Adam for the rest."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

NAMES = ("adam", "muon")


class MuonAndAdam:
    """Muon (Jordan 2024, torch's own) on convolutions' kernels, each as a matrix [first side, everything else]; Adam at half the
    learning rate on all else: biases, GDN's β and γ, the entropy bottleneck.

    Muon's step has all singular values alike, so that directions in which the gradient is small are learned too. On a codec with
    random weights it takes a third to a fifth of the steps to the loss of an Adam run (data/recipes/README.md). Call it like any
    optimiser.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], lr: float):
        self._kernels = [p for p in parameters if p.dim() == 4]
        self._matrices = [nn.Parameter(_as_matrix(p.detach()).clone()) for p in self._kernels]
        rest = [p for p in parameters if p.dim() != 4]
        self._both = (
            torch.optim.Muon(self._matrices, lr=lr, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
            torch.optim.Adam(rest, lr=lr / 2),
        )
        self._parameters = [*parameters]

    def set_learning_rate(self, lr: float) -> None:
        """For the next steps."""
        for optimiser, share in zip(self._both, (1.0, 0.5), strict=True):
            for group in optimiser.param_groups:
                group["lr"] = share * lr

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients."""
        for p in self._parameters:
            p.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """One step along the parameters' gradients."""
        for kernel, matrix in zip(self._kernels, self._matrices, strict=True):
            matrix.grad = None if kernel.grad is None else _as_matrix(kernel.grad)
            matrix.copy_(_as_matrix(kernel))
        for optimiser in self._both:
            optimiser.step()
        for kernel, matrix in zip(self._kernels, self._matrices, strict=True):
            kernel.copy_(matrix.view(kernel.shape))

    def state_dict(self) -> dict:
        """Both optimisers' states."""
        return {"both": [optimiser.state_dict() for optimiser in self._both]}

    def load_state_dict(self, state: dict) -> None:
        """Go on from a :meth:`state_dict`."""
        for optimiser, one in zip(self._both, state["both"], strict=True):
            optimiser.load_state_dict(one)


class Adam(torch.optim.Adam):
    """torch's, with a learning rate that can be set."""

    def set_learning_rate(self, lr: float) -> None:
        """For the next steps."""
        for group in self.param_groups:
            group["lr"] = lr


def optimiser_of(name: str, parameters: Sequence[nn.Parameter], lr: float) -> Adam | MuonAndAdam:
    """The optimiser ``name`` ("adam" or "muon") of a run."""
    return {"adam": Adam, "muon": MuonAndAdam}[name](parameters, lr=lr)


def _as_matrix(kernel: Tensor) -> Tensor:
    return kernel.contiguous().view(kernel.size(0), -1)
