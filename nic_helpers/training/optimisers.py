"""The optimisers of training runs: Adam, and Muon for what are matrices with Adam for the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

NAMES = ("adam", "muon")


class MuonAndAdam:
    """Muon (Jordan 2024, torch's own) on convolutions' kernels, each as a matrix [first side, everything else]; Adam at half the
    learning rate on all else: biases, GDN's β and γ, the entropy bottleneck.

    Muon's step has all singular values alike, so that directions in which the gradient is small are learned too. On a codec with
    random weights it takes a third to a fifth of the steps to the loss of an Adam run (data/recipes/README.md). Call it like any
    optimiser.

    ``sizes``: for some kernels, how large each channel of their input is, shaped to divide the kernel. Its steps are smaller by that.
    A step of all singular values alike is as large for an input of 100 as for one of 1, and moves the output a hundred times as far.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], lr: float, sizes: Mapping[nn.Parameter, Tensor] | None = None):
        self._kernels = [p for p in parameters if p.dim() == 4]
        self._sizes = [(sizes or {}).get(p, p.new_ones(())) for p in self._kernels]
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
        each = [*zip(self._kernels, self._matrices, self._sizes, strict=True)]
        for kernel, matrix, size in each:
            matrix.grad = None if kernel.grad is None else _as_matrix(kernel.grad / size)
            matrix.copy_(_as_matrix(kernel * size))
        for optimiser in self._both:
            optimiser.step()
        for kernel, matrix, size in each:
            kernel.copy_(matrix.view(kernel.shape) / size)

    def state_dict(self) -> dict:
        """Both optimisers' states."""
        return {"both": [optimiser.state_dict() for optimiser in self._both], "sizes": self._sizes}

    def load_state_dict(self, state: dict) -> None:
        """Go on from a :meth:`state_dict`."""
        for optimiser, one in zip(self._both, state["both"], strict=True):
            optimiser.load_state_dict(one)
        self._sizes = [size.to(k) for size, k in zip(state.get("sizes", self._sizes), self._kernels, strict=True)]


class Adam(torch.optim.Adam):
    """torch's, with a learning rate that can be set."""

    def set_learning_rate(self, lr: float) -> None:
        """For the next steps."""
        for group in self.param_groups:
            group["lr"] = lr


def optimiser_of(name: str, parameters: Sequence[nn.Parameter], lr: float, sizes=None) -> Adam | MuonAndAdam:
    """The optimiser ``name`` ("adam" or "muon") of a run; ``sizes``: see :class:`MuonAndAdam`."""
    return MuonAndAdam(parameters, lr, sizes) if name == "muon" else Adam(parameters, lr=lr)


@torch.no_grad()
def input_sizes(model: nn.Module, run: Callable[[], object]) -> dict[nn.Parameter, Tensor]:
    """How large each channel is that comes into a convolution: its root mean square in ``run()``, which calls the model, the
    largest of several calls, and one where it is less."""
    kinds, found = (nn.Conv2d, nn.ConvTranspose2d), {}

    def look(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        size = inputs[0].detach().float().square().mean((0, 2, 3)).sqrt()
        found[layer] = torch.maximum(size, found.get(layer, torch.ones_like(size)))

    hooks = [m.register_forward_pre_hook(look) for m in model.modules() if isinstance(m, kinds)]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    # of grouped convolutions no channel is told apart
    return {
        m.weight: v.view((-1, 1, 1, 1) if isinstance(m, nn.ConvTranspose2d) else (1, -1, 1, 1))
        for m, v in found.items()
        if m.groups == 1
    }


def _as_matrix(kernel: Tensor) -> Tensor:
    return kernel.contiguous().view(kernel.size(0), -1)
