"""Attacks on a codec's input. An attack is its settings; calling it runs one shared loop.

    adv = PGD(eps=8/255, steps=10)(codec, x)      # default objective: distortion to the clean reconstruction
    adv.x_adv                                     # [B, 3, H, W], an 8-bit image inside the budget

Every attack takes a codec (or a list of codecs, to break all with one image) and x [B, 3, H, W] in [0, 1] (a list of
[3, H, W] too, attacked one by one), snaps it to the 8-bit grid, and returns an :class:`AttackResult` on x's device.
Random numbers are drawn per image from (seed, the image's content), or from (seed, step) alone, so an image gets the same
perturbation alone and in any batch, up to the order in which floating-point numbers are summed: the convolutions of a batch and
those of one image may differ in the last digit, and attacks amplify that (a file grew ×14.96 in a batch of four, ×14.34 alone).
With ``batch=1`` there is no such difference.
"""

from nic_helpers.attacks.adaptive import BPDA, eot
from nic_helpers.attacks.apgd import APGD
from nic_helpers.attacks.base import Attack, AttackResult, Iterative
from nic_helpers.attacks.loop import Ascent, Problem, uniform_noise
from nic_helpers.attacks.noise import RandomNoise, SpectralNoise, dissolved
from nic_helpers.attacks.perceptual import MADC, SSAH, Chroma
from nic_helpers.attacks.rate_distortion import ARDA, FTDA, SRDA
from nic_helpers.attacks.sign import DIFGSM, FGSM, IFGSM, MIFGSM, PGD
from nic_helpers.attacks.square import Square
from nic_helpers.attacks.strongest import Continuation, Descend, Strongest

__all__ = [
    "APGD",
    "ARDA",
    "BPDA",
    "DIFGSM",
    "FGSM",
    "FTDA",
    "IFGSM",
    "MADC",
    "MIFGSM",
    "PGD",
    "SRDA",
    "SSAH",
    "Ascent",
    "Attack",
    "AttackResult",
    "Chroma",
    "Continuation",
    "Descend",
    "Iterative",
    "Problem",
    "RandomNoise",
    "SpectralNoise",
    "Square",
    "Strongest",
    "dissolved",
    "eot",
    "uniform_noise",
]
