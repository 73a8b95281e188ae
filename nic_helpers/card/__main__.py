"""python -m nic_helpers.card MODULE:FUNCTION --images FOLDER [--out card.html] [--eps 8] [--thorough]"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from nic_helpers.card.measure import Settings, make_card
from nic_helpers.card.page import write
from nic_helpers.card.subject import CardError, codec_of, images_of


def parser() -> argparse.ArgumentParser:
    """What the command takes."""
    p = argparse.ArgumentParser("python -m nic_helpers.card", description="Make a one-page robustness card (HTML) of any codec.")
    p.add_argument("codec", help="MODULE:FUNCTION, which takes nothing and returns a codec; or NAME:QUALITY, such as jpeg:50")
    p.add_argument("--images", default="bundled", help="a folder of image files, or 'bundled' (default) or 'kodak'")
    p.add_argument("--out", default="card.html", help="where the card goes (default: card.html)")
    p.add_argument("--eps", type=float, default=8, help="the budget in 8-bit levels (default: 8)")
    p.add_argument("--most", type=int, help="how many images at most (default: 4, with --thorough 24)")
    p.add_argument(
        "--crop", type=int, default=192, help="pixels a side of the centre that is used; 0 for whole images (default: 192)"
    )
    p.add_argument("--seed", type=int, default=0, help="of all that is drawn (default: 0)")
    how = p.add_mutually_exclusive_group()
    how.add_argument("--quick", action="store_true", help="short attacks, a minute or three (the default)")
    how.add_argument("--thorough", action="store_true", help="long attacks from several starts: hours on a CPU")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """Make a card; 0, or 2 after a sentence on what was wrong."""
    a = parser().parse_args(arguments)
    try:
        if not 0 < a.eps <= 255:
            raise CardError(f"--eps is in 8-bit levels, above 0 and at most 255, and is {a.eps:g}")
        if (a.most is not None and a.most < 1) or a.crop < 0:
            raise CardError("--most must be at least 1, and --crop at least 0")
        codec = codec_of(a.codec)
        images = images_of(a.images, a.crop or None, a.most or (24 if a.thorough else 4))
        eps = a.eps / 255
        settings = Settings.long(eps, a.seed) if a.thorough else Settings(eps, seed=a.seed)
        card = make_card(codec, images, settings, a.images, say=lambda text: print(f"  {text} …", file=sys.stderr, flush=True))
        print(write(card, a.out))
    except (CardError, OSError) as error:
        print(f"no card: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
