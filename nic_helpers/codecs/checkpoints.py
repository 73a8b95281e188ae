"""Files of weights, read safely and written compactly: tensors alone, never code."""

from __future__ import annotations

import argparse
import hashlib
import math
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from compressai.models.utils import remap_old_keys
from compressai.zoo.pretrained import load_pretrained
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from nic_helpers.codecs.architecture import LAMBDAS

#: Coding tables are rebuilt after loading, never trusted from a file; GDN's constants belong to the code.
_REBUILT = (
    "_offset",
    "_quantized_cdf",
    "_cdf_length",
    "scale_table",
    "scale_bound",
    "lower_bound",
    "pedestal",
    ".target",
)
#: Kept in float32 in a half-precision file: (I)GDN's, stored as square roots with floors below half's normal range, and
#: what quantisation itself depends on.
_FULL_PRECISION = (".beta", ".gamma", "entropy_bottleneck.", "Gain", "QuantABCD", "gayn2zqstep")
#: Kept as 8-bit integers with a scale for each row: what tolerates it. The networks that only predict probabilities: on
#: photographs this costs at most 0.1 % of the rate, but 1.3 % in mbt2018's entropy parameters, which stay in half
#: precision. And the residual branches of Cheng2020's transforms, added to a path that stays in half precision: less than
#: 0.05 % of the loss. On that path, or in the plain transforms, 8 bits would cost 0.3 dB at quality 6 and more. Of the channel-wise
#: codecs their whole entropy model, WACNN's attention, a gated branch: 0.05 % of the loss, measured on WACNN at quality 3 alone; and the
#: linear layers of attention in the two others: 0.05 % in STF, 0.01 % in Liu's, at quality 3.
_PREDICTION = ("h_a.", "h_s.", "context_prediction.", "entropy_parameters.")
_CHANNEL_WISE = ("h_", "cc_", "lrp_")
_BRANCH = re.compile(r"(?P<block>g_[as]\.\d+)\.(conv1|conv2|conv|subpel_conv\.0|conv_[ab]\..*)\.weight")
#: Of the variable-rate codecs with transforms of their own: Song's conditions, and what they scale, shift and add; Cai's couplings and
#: rotations, which both ends have alike, so that the transform stays invertible.
_VARIABLE = {
    "condition_a.g1.0.weight": re.compile(r"(condition_|prior\.|h_[as]\.).*|.*\.(norm_[01]\..*|mlp_\w+(\.0)?|conv_[01])\.weight"),
    "g_a.1.operations.1.weight": re.compile(
        r"(h_[as]|context_prediction|entropy_parameters)\..*|.*\.([GH][12]\.conv[123]|operations\.1)\.weight"
    ),
}
_SCALE = ".scale"
_CAUSAL_TAPS = 12  # of the context model's 5×5 window, in raster order: the rest is masked, and not stored
_WRAPPERS = ("module", "_orig_mod")  # what DataParallel and torch.compile put before parameters' names
_AVERAGED = re.compile("ema|aver|shadow|teacher|swa", re.IGNORECASE)


@dataclass(frozen=True)
class Weights:
    """A codec's parameters and where they came from."""

    state: dict[str, Tensor] = field(repr=False)
    source: str  # "bundled", another of this repository's sets, "zoo", "control/…" or "file"
    file: str
    sha256: str
    lmbda: float  # of the loss R + λ·255²·MSE; NaN where it is not known, or the loss another
    card: dict[str, str] = field(default_factory=dict, repr=False)
    metric: str = "mse"  # the distortion it was trained for


def read_weights(path: Path, source: str = "file", quality: int = 0, expected: str | None = None) -> Weights:
    """A file's parameters, after its SHA-256 was found to begin with ``expected``; ValueError where they are not all finite.

    Its λ is what its card says; without one, that of ``quality``, or for a "file" NaN.
    """
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if expected and not digest.startswith(expected):
        todo = {
            "zoo": "It is fetched again once it is gone.",
            "file": "Its name says so: get it anew, or rename it if those digits are no hash.",
        }
        raise ValueError(
            f"{path} is damaged or not the file it should be: its SHA-256 begins {digest[:12]}, expected {expected[:12]}. "
            + todo.get(source, "Restore it with git checkout.")
        )
    state, card = _opened(path)
    state = learnt(state, path)
    lmbda = math.nan if source == "file" else LAMBDAS.get(quality, math.nan)
    if "lmbda" in card:
        lmbda = float(card["lmbda"])
    return Weights(state, source, path.name, digest, lmbda, card)


def learnt(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """A file's parameters without what the code rebuilds; ValueError where they are not all finite."""
    state = {k: v for k, v in state.items() if not any(part in k for part in _REBUILT)}
    for name, value in state.items():
        if not bool(value.isfinite().all()):
            count = int((~value.isfinite()).sum())
            raise ValueError(
                f"{path}: {count} of the {value.numel()} values of {name} are NaN or infinite. Its training diverged, or "
                "its half precision overflowed: take an earlier checkpoint"
            )
    return state


def _opened(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """A codec's parameters in a file, and its card; ValueError, saying what to do, for a file that holds none."""
    _refuse_stand_ins(path)
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt") as f:
                state = _unpacked({k: f.get_tensor(k) for k in f.keys()})  # noqa: SIM118
                return _codec_state(state, path), f.metadata() or {}
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path} is no whole safetensors file: {error}") from error
    state = load_pretrained(_codec_state(content_of(path), path))
    if "Gain" not in state and any(k.startswith("entropy_bottleneck.") for k in state):
        state = remap_old_keys("entropy_bottleneck", state)
    return state, {}


def _refuse_stand_ins(path: Path) -> None:
    """ValueError for what lies where a file should be: a pointer to it, or a web page."""
    with path.open("rb") as file:
        head = file.read(64).lstrip()
    if head.startswith(b"version https://git-lfs"):
        raise ValueError(f"{path} is a pointer of Git LFS and not the file itself: fetch that with git lfs pull")
    if head.startswith((b"<!", b"<html", b"<?xml")):
        raise ValueError(f"{path} is a web page and no checkpoint: download the file itself")


def content_of(path: Path):
    """What torch saved in a file, tensors and plain values alone; ValueError, saying what to do, for anything else."""
    _refuse_stand_ins(path)
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):  # plain values: what trainers keep their options in
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle's, zip's and torch's own, among them the refusal of anything that is not a tensor
        refused = re.search(r"GLOBAL (\S+)", str(error))
        # torch's message advises to load without weights_only, which would run the file's code: it is not passed on
        raise ValueError(
            f"{path} cannot be loaded safely: it holds a Python object ({refused[1]}) beside its tensors or in their place, and loading "
            "that could run code from the file. Where it was trained, save the tensors alone: torch.save(model.state_dict(), path)"
            if refused
            else f"{path} is no checkpoint, or a damaged one ({type(error).__name__}): get it anew"
        ) from None


def _codec_state(content, path: Path) -> dict[str, Tensor]:
    """A codec's parameters in what a checkpoint holds: the first set that is no average of others."""
    found = _states(content)
    if not found:
        what = (
            f"its keys are {', '.join(map(str, list(content)[:12]))}"
            if isinstance(content, Mapping)
            else f"it is a {type(content).__name__}"
        )
        raise ValueError(
            f"{path} holds no codec's weights: no g_a.0.weight, {what}. Where it was trained, save the model's: "
            "torch.save(model.state_dict(), path)"
        )
    names = sorted(found, key=lambda name: bool(_AVERAGED.search(name)))
    if len(names) > 1:
        warnings.warn(
            f"{path} holds {len(names)} sets of weights ({', '.join(names)}): {names[0]} is taken. For another one, save it alone",
            stacklevel=6,
        )
    return found[names[0]]


def _states(content, at: str = "") -> dict[str, dict[str, Tensor]]:
    """Every set of a codec's parameters inside dicts, by where it lies, under the parameters' own names."""
    if not isinstance(content, Mapping):
        return {}
    tensors, found = {}, {}
    for key, value in content.items():
        if not isinstance(value, Tensor):
            found |= _states(value, f"{at}{key}.")
        elif value.dim() or value.is_floating_point():  # a counter is no parameter
            tensors[".".join(part for part in str(key).split(".") if part not in _WRAPPERS)] = value
    prefixes = dict.fromkeys(m[1] for k in tensors if (m := re.match(r"((?:.*\.)?)g_a\.\d", k)))
    for prefix in prefixes:
        others = tuple(p for p in prefixes if p != prefix and p.startswith(prefix))
        own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix) and not k.startswith(others)}
        found[f"{at}{prefix}".rstrip(".") or "the file's own"] = own
    return found


def _unpacked(stored: dict[str, Tensor]) -> dict[str, Tensor]:
    """What :func:`save_weights` stored, as float32 parameters of their own shapes."""
    state = {}
    for name, value in stored.items():
        if name.endswith(_SCALE):
            continue
        value = value.float()
        if name + _SCALE in stored:
            value = value * stored[name + _SCALE].view(-1, *[1] * (value.dim() - 1))
        if name == "context_prediction.weight" and value.dim() == 3:
            value = torch.nn.functional.pad(value, (0, 25 - _CAUSAL_TAPS)).unflatten(2, (5, 5))
        state[name] = value
    return state


def _in_8_bits(name: str, state: dict[str, Tensor]) -> bool:
    """Whether a parameter is one of those that are kept as 8-bit integers."""
    branch = _BRANCH.fullmatch(name)
    if "cc_mean_transforms.0.0.weight" in state:
        wacnn = "g_a.1.beta" in state
        linear = state[name].dim() == 2 and name.endswith(".weight") and not wacnn
        return (state[name].dim() == 4 and name.startswith(_CHANNEL_WISE)) or linear or (branch is not None and wacnn)
    for first, tolerant in _VARIABLE.items():
        if first in state:
            return state[name].dim() > 1 and tolerant.fullmatch(name) is not None
    if state[name].dim() != 4:
        return False
    residual = "g_a.0.conv1.weight" in state
    if name.startswith(_PREDICTION):
        return residual or not name.startswith("entropy_parameters.")
    # a block that halves the size carries the signal through its main branch (see training/start.py): not that one
    return branch is not None and f"{branch['block']}.skip.weight" not in state


def save_weights(path: Path, state: dict[str, Tensor], card: dict[str, str]) -> str:
    """Write a codec's parameters compactly as safetensors; returns the file's SHA-256.

    The transforms in half precision, (I)GDN's β, γ and the entropy bottleneck in float32; in 8 bits with one scale a
    row the networks that predict probabilities, the residual branches of Cheng2020's transforms and WACNN's attention.
    ``card`` goes into the file's header.
    """
    kept = {}
    for name, value in state.items():
        if any(part in name for part in _REBUILT) or name.endswith(".mask"):
            continue
        value = value.detach().cpu().float()
        if _in_8_bits(name, state):
            if name == "context_prediction.weight":
                value = value.flatten(2)[:, :, :_CAUSAL_TAPS]
            scale = value.abs().flatten(1).amax(1).clamp_min(1e-12) / 127
            kept[name + _SCALE] = scale
            kept[name] = torch.round(value / scale.view(-1, *[1] * (value.dim() - 1))).to(torch.int8).contiguous()
        else:
            full = any(part in name for part in _FULL_PRECISION)
            kept[name] = value.to(torch.float32 if full else torch.float16).contiguous()
    temporary = path.with_name(path.name + ".part")
    save_file(kept, temporary, metadata={k: str(v) for k, v in card.items()})
    temporary.replace(path)
    return hashlib.sha256(path.read_bytes()).hexdigest()
