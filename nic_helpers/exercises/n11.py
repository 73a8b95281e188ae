"""Notebook 11's exercises: a defence by hand, and how it breaks."""

from __future__ import annotations

import pandas as pd

from nic_helpers import metrics
from nic_helpers.attacks.sign import PGD
from nic_helpers.defences.base import Defence
from nic_helpers.exercises.base import Number, Write
from nic_helpers.exercises.examples import codec_and_picture


class Rolled(Defence):
    """By five pixels to the right before the codec, and back after it."""

    def before(self, x, k):
        return x.roll(5, 3)

    def after(self, x_hat, k):
        return x_hat.roll(-5, 3)


def judge_rolled(answer, codec, x, x_adv):
    if not issubclass(answer, Defence):
        return "a defence is a subclass of defences.Defence: class Rolled(defences.Defence)"
    made = answer()
    if made.before(x, 0).equal(x):
        return "`before` leaves the picture as it is"
    if not made.after(made.before(x, 0), 0).equal(x):
        return "`after` does not undo `before`: the receiver would see a picture that is shifted"
    if not made.before(x, 0).equal(x.roll(5, 3)):
        return "the picture is moved, but not by five pixels to the right: image.roll(5, 3)"
    return None


class NotBack(Rolled):
    """Forgets the way back."""

    def after(self, x_hat, k):
        return x_hat


class Downwards(Rolled):
    """Takes the other axis."""

    def before(self, x, k):
        return x.roll(5, 2)

    def after(self, x_hat, k):
        return x_hat.roll(-5, 2)


class Idle(Defence):
    """Does nothing."""


def apart_when_attacked(codec, x):
    mine = Rolled()(codec)
    x_adv = PGD(eps=16 / 255, steps=10)(mine, x).x_adv
    return metrics.psnr(mine.reconstruct(x), mine.reconstruct(x_adv)).mean()


def share_refused(bare):
    return (bare["psnr_own"] < 26).mean()


def attacked():
    given = codec_and_picture()
    return given | {"x_adv": PGD(eps=16 / 255, steps=3)(given["codec"], given["x"]).x_adv}


def rows():
    return {"bare": pd.DataFrame({"psnr_own": [24.0, 25.9, 26.1, 30.0, 31.0]})}


EXERCISES = [
    Write(
        "11.1",
        Rolled,
        judge_rolled,
        (
            "a defence says what happens before the codec, and how the receiver undoes it",
            "class Rolled(defences.Defence): with before(self, x, k) and after(self, x_hat, k)",
            "x.roll(5, 3) before, x_hat.roll(-5, 3) after",
        ),
        {"never rolled back": NotBack, "the other axis": Downwards, "idle": Idle},
        attacked,
    ),
    Number(
        "11.2",
        apart_when_attacked,
        0.1,
        (
            "a defended codec is a codec: attack it like any other",
            "mine = Rolled()(codec); attacks.PGD(eps=16/255, steps=10)(mine, x).x_adv, and its own two outputs",
        ),
        codec_and_picture,
    ),
    Number("11.3", share_refused, 1e-3, ("a share is the mean of a comparison", "(bare['psnr_own'] < 26).mean()"), rows),
]
