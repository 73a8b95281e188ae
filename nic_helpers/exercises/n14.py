"""Notebook 14's exercises: a second compression as a witness, and how far it can be trusted."""

from __future__ import annotations

from nic_helpers import metrics
from nic_helpers.attacks.sign import PGD
from nic_helpers.exercises.base import Number, Write
from nic_helpers.exercises.examples import codec_and_picture
from nic_helpers.images import to_8bit


def moves(codec, x):
    first = to_8bit(codec.reconstruct(x))
    return metrics.psnr(first, codec.reconstruct(first))


def judge_moves(answer, codec, x):
    pair = x if len(x) > 1 else x.repeat(2, 1, 1, 1).flip(3)
    found, right = answer(codec, pair), moves(codec, pair)
    if not hasattr(found, "shape") or tuple(found.shape) != (len(pair),):
        return f"for {len(pair)} pictures it must give {len(pair)} numbers, as a tensor"
    if (found - right).abs().max() < 0.05:
        return None
    said = f"the first picture's two generations are {right[0]:.2f} dB apart, and this says {found[0]:.2f}"
    return f"{said}: compare generation 1 with generation 2, each an 8-bit picture, and not with the source"


def from_the_source(codec, x):
    return metrics.psnr(x, codec.reconstruct(to_8bit(codec.reconstruct(x))))


def first_generation(codec, x):
    return metrics.psnr(x, codec.reconstruct(x))


def one_number(codec, x):
    return moves(codec, x).mean()


def refused(codec, x, x_adv):
    return (moves(codec, x_adv) < moves(codec, x).min()).float().mean()


def levels_let_through(codec, x):
    passed = 0
    while passed < 8 and refused(codec, x, PGD(eps=(passed + 1) / 255, steps=10)(codec, x).x_adv) == 0:
        passed += 1
    return passed


def attacked():
    given = codec_and_picture()
    return given | {"x_adv": PGD(eps=16 / 255, steps=3)(given["codec"], given["x"]).x_adv}


EXERCISES = [
    Write(
        "14.1",
        moves,
        judge_moves,
        (
            "generation 1 is what is decoded first, as an 8-bit picture; generation 2 is what becomes of it",
            "first = to_8bit(codec.reconstruct(x)), and metrics.psnr of it and of its own reconstruction",
        ),
        {"from the source": from_the_source, "the first generation": first_generation, "a mean": one_number},
        codec_and_picture,
    ),
    Number(
        "14.2",
        refused,
        1e-3,
        (
            "the threshold is the least PSNR of the clean pictures",
            "(moves(codec, broken_x) < moves(codec, x).min()).float().mean()",
        ),
        attacked,
    ),
    Number(
        "14.3",
        levels_let_through,
        0.1,
        (
            "loop over eps = 1/255, 2/255 …, and stop at the first at which a picture is refused",
            "attacks.PGD(eps=eps, steps=10) at each; 0 if a picture is refused at the first of all",
        ),
        codec_and_picture,
    ),
]
