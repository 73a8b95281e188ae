"""Notebook 00's exercises: damage in one number, a change that needs no gradient, and a control that is fair."""

from __future__ import annotations

import torch

from nic_helpers import metrics
from nic_helpers.attacks.sign import PGD
from nic_helpers.exercises.base import Number, Write, image_like
from nic_helpers.exercises.examples import codec_and_picture
from nic_helpers.images import to_8bit


def apart(codec, x):
    x_adv = PGD(eps=2 / 255, steps=20)(codec, x).x_adv
    return metrics.psnr(codec.reconstruct(x), codec.reconstruct(x_adv)).mean()


def invent(x):
    i, j = torch.arange(x.shape[2])[:, None], torch.arange(x.shape[3])
    board = torch.where((i // 3 + j // 3) % 2 == 0, 1.0, -1.0)
    return to_8bit((x + 8 / 255 * board).clamp(0, 1))


def judge_invention(answer, codec, x):
    made = answer(x)
    if (wrong := image_like(made, x)) or (wrong := not_8_bit(made)):
        return wrong
    if (largest := 255 * float((made - x).abs().max())) > 8.01:
        return f"no sample may move by more than 8 of 255 levels, and one moves by {largest:.1f}"
    bare, coins, yours = (sum(map(len, codec.encode(v))) for v in (x, tossed(x), made))
    if yours - bare >= 4 * (coins - bare):
        return None
    return (
        f"{bare:,} bytes became {yours:,}, and with tossed coins {coins:,}: yours must add four times as much as they. "
        "A codec has seen fine grain in photographs; what has it never seen?"
    )


def tossed(x):
    """Each sample up or down by 8 of 255 levels."""
    signs = torch.randint(0, 2, x.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return to_8bit((x + 8 / 255 * signs).clamp(0, 1))


def not_8_bit(made):
    return None if torch.equal(made, to_8bit(made)) else "a picture has 256 levels: round it with nic_helpers.images.to_8bit"


def brighter(x):
    return to_8bit((x + 8 / 255).clamp(0, 1))


def twice_as_far(x):
    return to_8bit((2 * invent(x) - x).clamp(0, 1))


def unrounded(x):
    return (invent(x) + 0.001).clamp(0, 1)


def control(x, x_adv):
    rms = (x_adv - x).square().mean().sqrt()
    return to_8bit((x + rms * torch.randn_like(x).sign()).clamp(0, 1))


def judge_control(answer, codec, x):
    x_adv = PGD(eps=8 / 255, steps=5)(codec, x).x_adv
    made = answer(x, x_adv)
    if wrong := image_like(made, x):
        return wrong
    if wrong := not_8_bit(made):
        return wrong
    rms = [float((v - x).square().mean().sqrt()) * 255 for v in (x_adv, made)]
    if abs(rms[1] / rms[0] - 1) > 0.1:
        return f"the attack moves a sample by {rms[0]:.2f} of 255 in the root mean square, this by {rms[1]:.2f}: an unfair budget"
    alike = torch.nn.functional.cosine_similarity((made - x).flatten(), (x_adv - x).flatten(), 0)
    return f"it is no control, but the attack itself (cosine {alike:.2f})" if alike.abs() > 0.3 else None


def quieter(x, x_adv):
    eps = (x_adv - x).abs().max()
    return to_8bit((x + eps * (2 * torch.rand_like(x) - 1)).clamp(0, 1))


def the_attack(x, x_adv):
    return x_adv


EXERCISES = [
    Number(
        "00.1",
        apart,
        0.1,
        (
            "an attack is called with a codec and x, and its result has x_adv",
            "attacks.PGD(eps=2/255, steps=20)(codec, x).x_adv, then metrics.psnr of the two codec.reconstruct(…)",
        ),
        codec_and_picture,
    ),
    Write(
        "00.2",
        invent,
        judge_invention,
        (
            "tossed coins are fine grain, which photographs have, too; try coarser patterns, and regular ones",
            "toss one coin for each square of a few pixels, the same for all three colours; or lay a chessboard over the picture",
            "(torch.arange(height)[:, None] // 3 + torch.arange(width) // 3) % 2 is a chessboard of squares of three pixels",
        ),
        {"tossed coins": tossed, "brighter": brighter, "past the budget": twice_as_far, "not rounded": unrounded},
        codec_and_picture,
    ),
    Write(
        "00.3",
        control,
        judge_control,
        (
            "a fair control has the attack's root mean square, and nothing of its pattern",
            "signs drawn at random, times the root mean square of x_adv − x",
            "to_8bit((x + rms * torch.randn_like(x).sign()).clamp(0, 1))",
        ),
        {"uniform in ±ε": quieter, "the attack itself": the_attack},
        codec_and_picture,
    ),
]
