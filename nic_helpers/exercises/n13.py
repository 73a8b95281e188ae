"""Notebook 13's exercises: a sender who follows the gradient."""

from __future__ import annotations

import pandas as pd
import torch

from nic_helpers import metrics
from nic_helpers.attacks.sign import PGD
from nic_helpers.exercises.base import Number, Write, image_like
from nic_helpers.exercises.examples import codec_and_picture
from nic_helpers.images import to_8bit


def refined(codec, v, steps, alpha=4 / 255):
    u = v
    for _ in range(steps):
        w = u.clone().requires_grad_(True)
        (slope,) = torch.autograd.grad((codec(w, "ste", rate=False).x_hat - v).square().sum(), w)
        u = to_8bit((u - alpha * slope.sign()).clamp(0, 1))
    return u


def judge_refined(answer, codec, x_adv):
    found = answer(codec, x_adv, 3)
    if wrong := image_like(found, x_adv):
        return wrong
    if not torch.equal(found, to_8bit(found)):
        return "what is sent is an 8-bit picture: to_8bit after each step"
    before, own, right = (float(metrics.psnr(x_adv, codec.reconstruct(v)).mean()) for v in (x_adv, found, refined(codec, x_adv, 3)))
    if abs(own - right) <= 0.1:
        return None
    if own < min(before, right) - 1:
        return f"it makes things worse, {before:.1f} → {own:.1f} dB: a sender goes down the error, not up"
    return f"after three steps the picture is decoded with {own:.2f} dB, and with three steps of 4/255 it would be {right:.2f}"


def upwards(codec, v, steps):
    return refined(codec, v, steps, alpha=-4 / 255)


def one_step(codec, v, steps):
    return refined(codec, v, 1)


def unrounded(codec, v, steps):
    return (refined(codec, v, steps) + 0.0011).clamp(0, 1)


def in_random_directions(codec, x_adv):
    torch.manual_seed(0)
    u = x_adv
    for _ in range(2):
        u = to_8bit((u - 4 / 255 * torch.randn_like(u).sign()).clamp(0, 1))
    return metrics.psnr(x_adv, codec.reconstruct(u)).mean()


def change_of_file(rows):
    bpp = rows[rows["picture"] == "clean"].pivot_table(index="image", columns=["method", "steps"], values="bpp")
    longest = bpp["online update"].columns.max()
    return 100 * (bpp["online update"][longest] / bpp["none"][0] - 1).mean()


def attacked():
    given = codec_and_picture()
    return {"codec": given["codec"], "x_adv": PGD(eps=16 / 255, steps=10)(given["codec"], given["x"]).x_adv}


def small_rows():
    rows = [("none", 0, i, 0.4 + i / 10) for i in range(3)] + [
        ("online update", s, i, 0.41 + i / 9) for s in (5, 20) for i in range(3)
    ]
    return {"rows": pd.DataFrame(rows, columns=["method", "steps", "image", "bpp"]).assign(picture="clean")}


EXERCISES = [
    Write(
        "13.1",
        refined,
        judge_refined,
        (
            "the loop of an attack, with a minus",
            "the error is codec(w, 'ste', rate=False).x_hat minus the picture that was "
            "given, squared and summed; the picture stays as it was",
            "u = to_8bit((u - 4/255 * slope.sign()).clamp(0, 1))",
        ),
        {"upwards": upwards, "one step": one_step, "unrounded": unrounded},
        attacked,
    ),
    Number(
        "13.2",
        in_random_directions,
        0.1,
        (
            "the same loop, with a direction that knows nothing",
            "torch.manual_seed(0) once, then twice: u = to 8 bit of (u − 4/255 · torch.randn_like(u).sign()).clamp(0, 1)",
        ),
        attacked,
    ),
    Number(
        "13.3",
        change_of_file,
        0.05,
        (
            "compare each picture's file with its own file before",
            "pivot_table(index='image', columns=['method', 'steps'], values='bpp') "
            "of the clean rows; the mean of a column over another",
        ),
        small_rows,
    ),
]
