"""From a run's state to a file of weights with its card."""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch
from torch import nn

from nic_helpers.codecs.checkpoints import read_weights, save_weights
from nic_helpers.codecs.registry import ARCHITECTURES
from nic_helpers.codecs.weights import COLLECTIONS, bundled_path
from nic_helpers.training.start import INITIALISE

OURS = ("bundled", *COLLECTIONS)  # starts that are weights of this repository
_OF_OURS = re.compile(rf"({'|'.join(OURS)})(?:/({'|'.join(ARCHITECTURES)})(?:/(\d))?)?")


def is_ours(start: str) -> bool:
    """Whether a run begins from weights of this repository: "SET" (the same codec), "SET/ARCH" or "SET/ARCH/QUALITY"."""
    return _OF_OURS.fullmatch(start) is not None


def file_of(start: str, arch: str, quality: int) -> Path:
    """The state or the weights that a run of a codec begins from: its ``start`` is a path, or :func:`is_ours`."""
    if not (named := _OF_OURS.fullmatch(start)):
        return Path(start)
    collection, other, at = named.groups()
    return bundled_path(other or arch, int(at or quality), collection)


def read_run(path: Path) -> tuple[str, nn.Module, float]:
    """(architecture, model, λ) of a run's state or of exported weights."""
    if path.suffix == ".safetensors":
        w = read_weights(path)
        name, lmbda, parameters = w.card["arch"], w.lmbda, w.state
        widths = ARCHITECTURES[name].widths_of(parameters)
    else:
        state = torch.load(path, map_location="cpu", weights_only=True)
        settings = json.loads(state["settings"])
        name, widths, lmbda = settings["arch"], settings["widths"], settings["lmbda"]
        parameters = state["model"] | state.get("average", {})
    model = ARCHITECTURES[name].build(*widths)
    nn.Module.load_state_dict(model, parameters, strict=False)
    return name, model, lmbda


def export(state_path: Path, target: Path) -> None:
    """Write a run's state as half-precision weights with its card in the header.

    The card's ``stages`` goes back through the runs that this one began from. The bottleneck's quantiles, which say how
    far its coding tables reach, are set to its learnt tails; the medians stay where training rounded.
    """
    settings = json.loads(torch.load(state_path, map_location="cpu", weights_only=True)["settings"])
    _, model, _ = read_run(state_path)
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
    from_ours = is_ours(start)
    file = file_of(start, settings["arch"], settings["quality"])
    earlier = _stages(file) if file.is_file() else []
    stage = {
        k: settings.get(k)
        for k in ("arch", "quality", "widths", "batch", "crop", "lr", "bf16", "only", "mixed", "centred", "optimiser")
    }
    if settings.get("against"):
        stage |= {k: settings[k] for k in ("against", "eps", "attack_steps", "penalty")}
    stage["start"] = start if start in INITIALISE or from_ours else Path(start).parent.name
    stage |= {"steps": state["step"], "minutes": round(state["seconds"] / 60), "hardware": state.get("hardware", "")}
    return [*earlier, stage]
