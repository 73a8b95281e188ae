"""Exercises of notebook 09: transfer."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from nic_helpers import attacks, metrics, stats
from nic_helpers.codecs.load import load_codec
from nic_helpers.exercises.base import Number, Write, image_like
from nic_helpers.image_sets import load_images

EPS = 8 / 255


def _apart(codec, x: Tensor, other: Tensor) -> float:
    return metrics.psnr(codec.reconstruct(x), codec.reconstruct(other)).mean().item()


# ------------------------------------------------------------------------------------------------------------------- 09.1
def noise_against_attack(codec, x: Tensor, adv: Tensor) -> float:
    noise = attacks.RandomNoise(EPS, seed=0, kind="coarse")(codec, x).x_adv
    return _apart(codec, x, noise) - _apart(codec, x, adv)


def a_corner() -> dict:
    """A corner of a picture, attacked for the hyperprior, and the codec that it was made for."""
    codec, x = load_codec("bmshj2018-hyperprior", 1, device="cpu"), _picture()
    return {"codec": codec, "x": x, "adv": attacks.PGD(EPS, steps=3, seed=0)(codec, x).x_adv}


def _picture() -> Tensor:
    return load_images("bundled")[0][None, :, :128, :128]


# ------------------------------------------------------------------------------------------------------------------- 09.2
def my_control(x: Tensor, rms: float) -> Tensor:
    torch.manual_seed(0)
    h, w = x.shape[-2:]
    signs = torch.randn(1, 1, h // 8 + 1, w // 8 + 1).sign()
    blobs = signs.repeat_interleave(8, -2).repeat_interleave(8, -1)[..., :h, :w]  # grey, eight pixels a side
    return (x + rms * blobs).clamp(0, 1)


def white_noise(x: Tensor, rms: float) -> Tensor:
    torch.manual_seed(0)
    return (x + rms * torch.randn_like(x).sign()).clamp(0, 1)


def too_loud(x: Tensor, rms: float) -> Tensor:
    return my_control(x, 2 * rms)


def out_of_range(x: Tensor, rms: float) -> Tensor:
    return x + rms * torch.ones_like(x).cumsum(-1).mul(torch.pi / 4).cos()


def coloured_fine_blobs(x: Tensor, rms: float) -> Tensor:
    torch.manual_seed(0)
    h, w = x.shape[-2:]
    signs = torch.randn(1, 3, h // 2 + 1, w // 2 + 1).sign()
    return (x + rms * signs.repeat_interleave(2, -2).repeat_interleave(2, -1)[..., :h, :w]).clamp(0, 1)


def judge_control(answer, target, x: Tensor, adv: Tensor) -> str | None:
    rms = (adv - x).square().mean().sqrt().item()
    y = answer(x.clone(), rms)
    if wrong := image_like(y, x):
        return wrong
    allowed, used = metrics.psnr(x, adv).mean().item(), metrics.psnr(x, y).mean().item()
    if used < allowed - 0.1:
        return f"your control is {used:.1f} dB from the source, and the attack {allowed:.1f}: it must not be louder"
    attack, control = _apart(target, x, adv), _apart(target, x, y)
    if control >= attack:
        return (
            f"under your control the outputs are {control:.2f} dB apart, under the attack {attack:.2f}: less is further. "
            "Which noise survives a codec's quantisation?"
        )
    return None


def to_another_codec() -> dict:
    """An attack made for one quality of the hyperprior, and the codec that it travels to: the finest quality."""
    x = _picture()
    source = load_codec("bmshj2018-hyperprior", 1, device="cpu")
    target = load_codec("bmshj2018-hyperprior", 6, device="cpu")
    return {"target": target, "x": x, "adv": attacks.PGD(EPS, steps=10, seed=0)(source, x).x_adv}


# ------------------------------------------------------------------------------------------------------------------- 09.3
STATEMENTS = {  # letter: relation, control
    "A": ("the other family, other quality", "beyond"),  # does more than white noise
    "B": ("the other family, other quality", "beyond_coarse"),  # does more than grey blobs
    "C": ("its family, same quality", "beyond_coarse"),
}


def supported(pairs: pd.DataFrame) -> dict[str, bool]:
    """Which of the statements have an interval that lies above zero."""
    found = {}
    for letter, (relation, control) in STATEMENTS.items():
        by_image = pairs[pairs["relation"] == relation].groupby("image")[control].mean()
        found[letter] = bool(stats.bootstrap(by_image.to_numpy()).low > 0)
    return found


def judge_statements(answer: dict, pairs: pd.DataFrame) -> str | None:
    if set(answer) != set(STATEMENTS) or not all(isinstance(v, bool) for v in answer.values()):
        return 'give {"A": True or False, "B": …, "C": …}'
    for letter, right in supported(pairs).items():
        if answer[letter] != right:
            relation, control = STATEMENTS[letter]
            by_image = pairs[pairs["relation"] == relation].groupby("image")[control].mean()
            interval = stats.bootstrap(by_image.to_numpy())
            return f"look at {letter} again: the difference is {interval} dB" + ", and does not lie above zero" * (not right)
    return None


def made_up_pairs() -> dict:
    rng = np.random.default_rng(0)
    lines = []
    for relation, white, coarse in (("the other family, other quality", 4.8, -0.5), ("its family, same quality", 7.5, 2.2)):
        lines += [(relation, k, white + rng.normal(0, 0.5), coarse + rng.normal(0, 0.2)) for k in range(8)]
    return {"pairs": pd.DataFrame(lines, columns=["relation", "image", "beyond", "beyond_coarse"])}


EXERCISES = [
    Number(
        "09.1",
        noise_against_attack,
        tolerance=0.1,
        hints=(
            "Both are PSNRs between two outputs of the same codec; the clean output is one of the two each time.",
            "metrics.psnr(codec.reconstruct(x), codec.reconstruct(adv)), and the same with the blobs instead of adv.",
            "The blobs are attacks.RandomNoise(8 / 255, seed=0, kind='coarse')(codec, x).x_adv.",
        ),
        example=a_corner,
    ),
    Write(
        "09.2",
        my_control,
        judge=judge_control,
        hints=(
            "White noise is fine-grained, and a codec quantises the finest grain away. What would it keep?",
            "Draw random signs for a coarse grid, the same for red, green and blue, and enlarge each to a square of pixels.",
            "signs.repeat_interleave(8, -2).repeat_interleave(8, -1)[..., :h, :w]; times rms, added to x, clamped to [0, 1].",
        ),
        wrong={
            "white noise": white_noise,
            "louder than the attack": too_loud,
            "leaves [0, 1]": out_of_range,
            "fine and coloured": coloured_fine_blobs,
        },
        example=to_another_codec,
    ),
    Write(
        "09.3",
        {"A": True, "B": False, "C": True},
        judge=judge_statements,
        hints=(
            "Find the row of the relation in the figure “what travels”, then the mark of the control.",
            "A statement is supported if the whole interval lies to the right of zero.",
            "pairs[pairs['relation'] == …].groupby('image')['beyond_coarse'].mean(), then stats.bootstrap of it.",
        ),
        wrong={
            "white noise taken for the only control": {"A": True, "B": True, "C": True},
            "nothing travels": {"A": False, "B": False, "C": False},
            "a letter is missing": {"A": True, "B": False},
        },
        example=made_up_pairs,
    ),
]
