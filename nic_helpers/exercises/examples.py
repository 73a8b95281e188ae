"""Small givens that exercises are tried on: a corner of a bundled picture, a bundled codec."""

from __future__ import annotations

from nic_helpers.codecs.load import load_codec
from nic_helpers.image_sets import load_images


def picture(side: int = 64):
    """A corner of the bundled astronaut [1, 3, side, side], with the face."""
    return load_images("bundled")[0][None, :, :side, 64 : 64 + side]


def codec_and_picture() -> dict:
    """The hyperprior at quality 3, and a picture."""
    return {"codec": load_codec("bmshj2018-hyperprior", 3), "x": picture()}
