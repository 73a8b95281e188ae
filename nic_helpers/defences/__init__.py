"""Defences: a step before a codec and one after it make another codec, which is coded, attacked and measured like any.

safe = defences.BitDepth(bits=5)(defences.Flip(seed=0)(codec))     # they nest
streams = safe.encode(x); y = safe.decode(streams)                 # three bytes more a defence: the choice, and a check

A random defence draws for an image from (its seed, the image's 8-bit content): the same alone and in a batch, now and in a year. An
attacked image is another one, and the sender draws anew for it. An evaluation wants to see the attack and not the draw:
``safe.for_images(x)`` is the codec that draws for an attacked version what it draws for the image itself. Attacks,
``metrics.before_after`` and sweeps do so by themselves; an attack on ``safe`` thus knows the draw, and one on
``attacks.eot(safe, draws)``, the mean over other draws, doesn't.
"""

from nic_helpers.defences.base import Defence, Defended, EveryWay, OneWay
from nic_helpers.defences.ensemble import SelfEnsemble, TwoWay
from nic_helpers.defences.online import OnlineUpdate, Refine, Unrolled
from nic_helpers.defences.preprocess import BitDepth, JPEGPass, Resize
from nic_helpers.defences.purifier import Purifier
from nic_helpers.defences.reversible import ColourOrder, Flip, RandomEnsemble, Roll, Rotate
from nic_helpers.defences.verify import RateCap, VerifyOrFallBack
from nic_helpers.defences.zone import SafeZone

__all__ = [
    "BitDepth",
    "ColourOrder",
    "Defence",
    "Defended",
    "EveryWay",
    "Flip",
    "JPEGPass",
    "OneWay",
    "OnlineUpdate",
    "Purifier",
    "RandomEnsemble",
    "RateCap",
    "Refine",
    "Resize",
    "Roll",
    "Rotate",
    "SafeZone",
    "SelfEnsemble",
    "TwoWay",
    "Unrolled",
    "VerifyOrFallBack",
]
