"""Numbers that must not move while the package's inside is rebuilt: outputs, bits, streams, attacked images and rows of every
architecture.

    python tests/frozen.py --write FILE      # this program's numbers
    python tests/frozen.py --against FILE    # compare with them, bit for bit: on the same machine, before and after a change
    python tests/frozen.py --against FILE --record     # where nothing moved: note that both programs make the same rows

tests/test_frozen.py compares with tests/data/frozen.npz, with room for other processors' arithmetic.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
import torch
from conftest import untrained

from nic_helpers import attacks, load_codec, load_images, metrics
from nic_helpers.codecs.neural import NeuralCodec
from nic_helpers.codecs.quantisers import QUANTISERS
from nic_helpers.codecs.registry import ARCHITECTURES
from nic_helpers.images import to_8bit, to_uint8
from nic_helpers.objectives import Distortion, Joint, Rate
from nic_helpers.sweep.program import program_sha256, record_same
from nic_helpers.training.kinds import has_other_transforms

EPS = 8 / 255
ATTACKS = {
    "fgsm": (attacks.FGSM(eps=EPS), Distortion()),
    "pgd rate": (attacks.PGD(eps=EPS, steps=2), Rate()),
    "apgd ball": (attacks.APGD(eps=EPS, steps=2, norm="l2rms"), Distortion("source")),
    "srda both": (attacks.SRDA(eps=EPS, angle=45.0, steps=2), Joint.at(45.0)),
    "continuation": (attacks.Continuation(eps=EPS, steps=2), Distortion()),
    "ftda bfloat16": (attacks.FTDA(eps=EPS, steps=2, precision="bfloat16"), Distortion()),
}


def codecs() -> dict[str, NeuralCodec]:
    """An untrained codec of every architecture that there was when the numbers were frozen, and two bundled ones."""
    trained = {f"bundled {n}": load_codec(n, 1, device="cpu") for n in ("mbt2018", "bmshj2018-hyperprior-vbr")}
    return {name: untrained(name) for name, kind in ARCHITECTURES.items() if not has_other_transforms(kind)} | trained


def numbers() -> dict[str, np.ndarray]:
    """Everything that is frozen, by name."""
    whole = load_images("bundled")
    x = torch.stack([im[:, 64:128, 64:144] for im in whole[:2]])  # no multiple of any stride
    signs = torch.rand(x.shape, generator=torch.Generator().manual_seed(0)).sub(0.5).sign()
    found = {}
    for name, codec in codecs().items():
        for surrogate in QUANTISERS:
            torch.manual_seed(0)
            out = codec(x, surrogate)
            found[f"{name}/{surrogate}/x_hat"] = out.x_hat[..., ::4, ::4].numpy()
            for branch, bits in out.bits.items():
                found[f"{name}/{surrogate}/bits {branch}"] = bits.numpy()
            torch.manual_seed(0)
            found[f"{name}/{surrogate}/x_hat alone"] = codec(x, surrogate, rate=False).x_hat[..., ::4, ::4].numpy()
        coded = codec.roundtrip(x)
        found[f"{name}/reconstruct"] = coded.x_hat[..., ::4, ::4].numpy()
        for k, stream in enumerate(coded.streams):
            found[f"{name}/stream {k}"] = np.frombuffer(stream, np.uint8)
        for label, (attack, objective) in ATTACKS.items():
            result = attack(codec, x, objective)
            found[f"{name}/{label}/x_adv"] = to_uint8(result.x_adv[0])[::2, ::2]
            found[f"{name}/{label}/objective"] = result.objective.numpy()
        # of random signs: rows of an attacked image would move with each rounding that the attack has amplified
        rows = metrics.before_after(codec, x, to_8bit(x + EPS * signs)).select_dtypes("number")
        found[f"{name}/rows"] = rows.to_numpy(dtype=float)
    return found


def main() -> int:
    """Write, or compare bit for bit; exit status 1 where something moved."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--write", metavar="FILE")
    p.add_argument("--against", metavar="FILE")
    p.add_argument("--record", action="store_true", help="with --against: write into data/results/same_programs.json")
    p.add_argument("--program", help="the program that wrote the file, if it does not say so (the first 12 digits of its hash)")
    a = p.parse_args()
    found, program = numbers(), program_sha256(rows_only=True)[:12]
    if a.write:
        np.savez_compressed(a.write, **found, program=np.array(program))
    if not a.against:
        return 0
    with np.load(a.against) as stored:
        then = a.program or (str(stored["program"]) if "program" in stored else None)
        names = sorted({*stored, *found} - {"program"})
        moved = [k for k in names if k not in stored or k not in found or not _equal(stored[k], found[k])]
    print(*moved, f"{len(moved)} of {len(found)} moved", sep="\n")
    if moved or not a.record:
        return 1 if moved else 0
    if then is None:
        p.error("the file does not say which program wrote it: give --program")
    record_same(then, program)
    print(f"{then} and {program} make the same rows: written down")
    return 0


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    return np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


if __name__ == "__main__":
    sys.exit(main())
