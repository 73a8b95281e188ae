"""Notebook 12's exercises: what a robust codec still loses, and the penalty."""

from __future__ import annotations

import pandas as pd
import torch

from nic_helpers import metrics
from nic_helpers.attacks.sign import PGD
from nic_helpers.codecs.load import load_codec
from nic_helpers.exercises.base import Number, Write
from nic_helpers.exercises.examples import picture


def own_loss(robust, x):
    x_adv = PGD(eps=16 / 255, steps=10, norm="l2rms")(robust, x).x_adv
    return (metrics.psnr(x, robust.reconstruct(x)) - metrics.psnr(x_adv, robust.reconstruct(x_adv))).mean()


def penalty(codec, x):
    v = x.clone().requires_grad_(True)
    error = (codec(v, "ste", rate=False).x_hat - v).square().sum()
    (slope,) = torch.autograd.grad(error, v, create_graph=True)
    return slope.square().mean()


def judge_penalty(answer, robust, x):
    found, right = answer(robust, x), float(penalty(robust, x).detach())
    if not isinstance(found, torch.Tensor) or found.numel() != 1:
        return "one number is asked for, as a tensor"
    if abs(float(found.detach()) / right - 1) > 0.01:
        own = float(found.detach())
        return (
            f"on this picture it is {right:.4g}, and yours is {own:.4g}: the error is (C(v) − v)², summed, and moves with v twice"
        )
    return None if found.requires_grad else "it has no gradient of its own, so no weight can learn from it: create_graph=True"


def target_held(codec, x):
    v = x.clone().requires_grad_(True)
    error = (codec(v, "ste", rate=False).x_hat - x).square().sum()
    return torch.autograd.grad(error, v, create_graph=True)[0].square().mean()


def no_graph(codec, x):
    return penalty(codec, x).detach()


def mean_error(codec, x):
    return penalty(codec, x) / x.numel() ** 2


def share_better_off(at):
    rows = at[at["attack"] == "continuation, ball"]
    wide = rows.pivot_table(index="image", columns="weights", values="psnr_own")
    return (wide["robust"] > wide["bundled"]).mean()


def robust_and_picture():
    return {"robust": load_codec("bmshj2018-hyperprior", 3, "robust"), "x": picture()}


def rows():
    wide = {"bundled": [20.0, 21.0, 22.0], "robust": [25.0, 20.5, 26.0]}
    at = pd.DataFrame(
        [(w, i, v) for w, values in wide.items() for i, v in enumerate(values)], columns=["weights", "image", "psnr_own"]
    )
    return {"at": at.assign(attack="continuation, ball")}


EXERCISES = [
    Number(
        "12.1",
        own_loss,
        0.1,
        (
            "each picture is compared with its own reconstruction",
            "metrics.psnr(x, robust.reconstruct(x)) − metrics.psnr(x_adv, "
            "robust.reconstruct(x_adv)), x_adv of attacks.PGD(…)(robust, x)",
        ),
        robust_and_picture,
    ),
    Write(
        "12.2",
        penalty,
        judge_penalty,
        (
            "the gradient of the error with respect to the picture, squared, and its mean",
            "the picture stands twice in the error: in C(v), and as what C(v) is compared with",
            "torch.autograd.grad(error, v, create_graph=True): a penalty must have a gradient itself",
        ),
        {"the target held": target_held, "no graph": no_graph, "mean in place of sum": mean_error},
        robust_and_picture,
    ),
    Number(
        "12.3",
        share_better_off,
        1e-3,
        (
            "compare image by image, not mean by mean",
            "pivot_table(index='image', columns='weights', values='psnr_own') of those rows, and the mean of robust > bundled",
        ),
        rows,
    ),
]
