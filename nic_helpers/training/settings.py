"""One training run's settings: the fields, their words on the command line, and how a recipe hands them on. Stated here alone."""

from __future__ import annotations

import argparse
from dataclasses import MISSING, Field, dataclass, field, fields

from nic_helpers.codecs.architecture import LAMBDAS
from nic_helpers.codecs.registry import ARCHITECTURES
from nic_helpers.training.kinds import channel_wise, context, has_other_transforms
from nic_helpers.training.optimisers import NAMES

_PRECISIONS = {"auto": None, "bf16": True, "fp32": False}  # the words for ``bf16``


def _setting(kind: type, help: str, default=MISSING, **options) -> Field:
    """A field with what the command line says of it; ``options``: more for ``add_argument``."""
    return field(default=default, metadata={"kind": kind, "help": help, "options": options})


@dataclass(frozen=True)
class Settings:
    """One training run. ``lmbda`` follows from the quality. ValueError for settings that do not go together."""

    arch: str = _setting(str, "the architecture", choices=sorted(ARCHITECTURES))
    quality: int = _setting(int, "CompressAI's number, which says λ", choices=sorted(LAMBDAS))
    widths: tuple[int, ...] = _setting(int, "of the layers: N M; more for some, see width_names of the architecture", nargs="+")
    steps: int = _setting(int, "of the schedule")
    batch: int = _setting(int, "crops a step", 4)
    # at 128 the hyperprior sees 2×2 values of z, all border: whole images then cost a fifth more bits
    crop: int = _setting(int, "pixels a side", 256)
    lr: float = _setting(float, "peak of a one-cycle schedule", 5e-4)
    warmup: float = _setting(float, "share of the steps in which the learning rate rises", 0.05)
    seed: int = _setting(int, "of the crops, the noise and random weights", 0)
    bf16: bool | None = _setting(bool, "of the transforms; auto: bfloat16 for all but Cheng2020", None)
    channels_last: bool = _setting(bool, "layout that helps the GDN codecs (it crashed Cheng2020 training on a CPU)", False)
    start: str = _setting(
        str,
        "pca, random, default (CompressAI's own random weights), bundled or another set of this repository's weights for the same "
        "codec (bundled/ARCH or bundled/ARCH/QUALITY: for that one), or the state.pt or weights of a run to begin from",
        "pca",
    )
    optimiser: str = _setting(str, "see training/optimisers.py", "adam", choices=NAMES)
    by_inputs: bool = _setting(bool, "with muon: a kernel's steps are smaller where what comes in is larger than one", False)
    only: str | None = _setting(str, "train the entropy model alone, the transforms as they are", None, choices=("entropy",))
    side_warmup: float = _setting(float, "with --only: share of the steps in which z becomes dear", 0.0)
    imitate: int = _setting(int, "with --only: steps in which a new h_a first learns to give the scale hyperprior's z", 0)
    mixed: bool = _setting(bool, "round for the synthesis (straight-through), add noise for the rate", False)
    compile: bool = _setting(bool, "compile the transforms: for long runs, it takes minutes", False)
    centred: bool = _setting(bool, "steps as if each convolution's inputs had mean zero", False)
    against: str | None = _setting(
        str,
        "adversarial training: what half of each batch is first made to raise, or the gradient that is held down",
        None,
        choices=("rate", "distortion", "joint", "ftda", "gradient"),
    )
    eps: float = _setting(float, "with --against: the largest budget of a sample, on [0, 1]", 16 / 255)
    attack_steps: int = _setting(int, "with --against: gradients that a sample takes", 3)
    penalty: float = _setting(float, "with --against gradient: the penalty's weight", 1.0)
    ema: float = _setting(float, "decay of an average of the weights over the steps, exported in their place", 0.0)
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
        if self.imitate and not (self.only and self.arch == "mbt2018-mean"):
            raise ValueError("imitate is for mbt2018-mean with only='entropy', from a scale hyperprior")
        if self.only and self.centred:
            raise ValueError("centred concerns the transforms, which only='entropy' leaves as they are")
        if self.optimiser not in NAMES:
            raise ValueError(f"optimiser must be one of {', '.join(NAMES)}, got {self.optimiser!r}")
        if self.by_inputs and self.optimiser != "muon":
            raise ValueError("by_inputs is for optimiser='muon': Adam's steps are each weight's own")
        if self.only not in (None, "entropy"):
            raise ValueError(f"only must be 'entropy' or left out, got {self.only!r}")
        if self.against and self.only:
            raise ValueError("against needs pictures, which only='entropy' never sees")
        if not (0 < self.eps <= 1 and self.attack_steps > 0 and self.penalty >= 0):
            raise ValueError("eps must be above 0 and at most 1, attack_steps at least 1, penalty at least 0")
        kind = ARCHITECTURES[self.arch]
        if len(self.widths) != len(kind.width_names):
            raise ValueError(f"{self.arch} takes {len(kind.width_names)} widths ({' '.join(kind.width_names)}), got {self.widths}")
        if self.crop < kind.smallest:
            raise ValueError(f"{self.arch} takes crops from {kind.smallest} pixels a side, got {self.crop}")
        if has_other_transforms(kind) and not channel_wise(kind) and self.centred:
            raise ValueError(f"centred concerns convolutions with GDN and Cheng2020's blocks, which {self.arch} has not got")
        if self.only and kind.variable and not context(kind):
            raise ValueError(f"only='entropy' is for codecs whose entropy model has no part in the quality, as {self.arch}'s has")
        object.__setattr__(self, "lmbda", LAMBDAS[self.quality])

    @property
    def learns(self) -> str:
        """What a run trains, in a word for a table."""
        return self.only or "all"


def _given() -> list[Field]:
    return [f for f in fields(Settings) if f.init]


def names() -> set[str]:
    """What a run may be given."""
    return {f.name for f in _given()}


def add_options(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """An option for each setting; those without a default are None where they are left out."""
    for f in _given():
        flag, kind, text = "--" + f.name.replace("_", "-"), f.metadata["kind"], f.metadata["help"]
        default = None if f.default is MISSING else f.default
        if f.name == "bf16":
            parser.add_argument("--precision", choices=_PRECISIONS, default="auto", help=text)
        elif kind is bool:
            parser.add_argument(flag, action="store_true", help=text)
        else:
            parser.add_argument(flag, type=kind, default=default, help=text, **f.metadata["options"])


def missing(a: argparse.Namespace) -> list[str]:
    """The options without a default that a command line has left out."""
    return [f"--{f.name}" for f in _given() if f.default is MISSING and getattr(a, f.name) is None]


def of_options(a: argparse.Namespace) -> Settings:
    """The settings that a command line gives."""
    given = {f.name: getattr(a, f.name) for f in _given() if f.name != "bf16"}
    return Settings(**given | {"widths": tuple(a.widths), "bf16": _PRECISIONS[a.precision]})


def as_options(s: Settings) -> list[str]:
    """The command line that gives these settings: :func:`of_options` the other way round."""
    words = []
    for f in _given():
        value, flag = getattr(s, f.name), "--" + f.name.replace("_", "-")
        if f.name == "bf16":
            words += ["--precision", "bf16" if value else "fp32"]
        elif f.metadata["kind"] is bool:
            words += [flag] * value
        elif value is not None:
            words += [flag, *map(str, value if isinstance(value, tuple) else (value,))]
    return words
