"""Our loop against torchattacks' stored iterates (benchmarks/against_torchattacks.py says how they were made)."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from nic_helpers import attacks, load_codec, load_images
from nic_helpers.budgets import Linf
from nic_helpers.images import to_8bit
from nic_helpers.objectives import Distortion
from nic_helpers.settings import PROJECT

NAMES = ("FGSM", "BIM", "PGD", "MIFGSM", "DIFGSM")
# share of samples; all of them where the iterates lie on the 8-bit grid, but PGD's random start puts a few samples halfway
# between two levels, where float arithmetic in another order rounds them the other way
AGREE = 0.998


@pytest.fixture(scope="module")
def stored():
    with np.load(PROJECT / "tests" / "data" / "torchattacks.npz") as f:
        return {name: f[name] for name in NAMES} | {"about": json.loads(str(f["about"]))}


def ours(name, about, monkeypatch, **changes):
    """Our iterates under the same settings, [steps + 1, B, 3, H, W] in levels from the source."""
    eps, first, last = about["eps"], *about["crop"]
    images = load_images("bundled")[: about["images"]]
    x = to_8bit(torch.stack([im[:, first:last, first:last] for im in images]))
    several = {"alpha": about["alpha"], "steps": about["steps"]}
    attack = {
        "FGSM": lambda: attacks.FGSM(eps),
        "BIM": lambda: attacks.IFGSM(eps, **several),
        "PGD": lambda: attacks.PGD(eps, **several),
        "MIFGSM": lambda: attacks.MIFGSM(eps, mu=about["mu"], **several),
        "DIFGSM": lambda: attacks.DIFGSM(eps, **several),
    }[name]().with_(**{"surrogate": about["surrogate"]} | changes)
    start = x
    if name == "PGD":  # their random start, from their seed
        torch.manual_seed(about["seed"])
        start = (x + torch.empty_like(x).uniform_(-eps, eps)).clamp(0, 1)
    iterates, project = [start], Linf.project

    def recorded(self, x_adv, source):
        iterates.append(project(self, x_adv, source))
        return iterates[-1]

    def resized(self, v, step):  # their draw of this step
        size, top, left, drawn = about["draws"][step]
        if drawn >= 0.5:
            return v
        small = F.interpolate(v, [int(size)] * 2, mode="bilinear", align_corners=False)
        bottom, right = (v.size(-1) - int(size) - int(used) for used in (top, left))
        return F.pad(small, (int(left), right, int(top), bottom))

    with monkeypatch.context() as m:
        m.setattr(attacks.PGD, "_beside", lambda self, p, seed: start)
        m.setattr(attacks.DIFGSM, "_resized", resized)
        m.setattr(Linf, "project", recorded)
        attack(load_codec(about["codec"], about["quality"], device="cpu"), x, Distortion("own" if name == "DIFGSM" else "clean"))
    return np.stack([((to_8bit(v) - x) * 255).round().numpy().astype(np.int8) for v in iterates])


def agreement(a, b):
    """Share of samples that agree at each iterate."""
    assert a.shape == b.shape
    return (a == b).mean((1, 2, 3, 4))


@pytest.mark.parametrize("name", NAMES)
def test_every_step_is_torchattacks(name, stored, monkeypatch):
    steps = agreement(ours(name, stored["about"], monkeypatch), stored[name])
    assert steps[0] == 1 and (steps > AGREE).all(), steps


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("FGSM", {"eps": 7 / 255}),
        ("BIM", {"alpha": 1.5 / 255}),
        ("BIM", {"alpha": None}),
        ("PGD", {"eps": 7 / 255}),
        ("PGD", {"alpha": 1 / 255}),
        ("MIFGSM", {"mu": 0.9}),
        ("MIFGSM", {"mu": 0.0}),
        ("DIFGSM", {"precision": "bfloat16"}),
    ],
    ids=str,
)
def test_other_settings_are_told_apart(name, changes, stored, monkeypatch):
    assert agreement(ours(name, stored["about"], monkeypatch, **changes), stored[name])[-1] < AGREE


def test_the_stored_iterates_are_what_they_should_be(stored):
    about = stored["about"]
    levels = round(255 * about["eps"])
    for name in NAMES:
        assert np.abs(stored[name]).max() == levels, name
        assert len(stored[name]) == (2 if name == "FGSM" else about["steps"] + 1)
        assert (stored[name][0] == 0).all() == (name != "PGD")
    assert {d[3] < 0.5 for d in about["draws"]} == {True, False}  # steps with a resize, and without
    assert about["versions"]["torchattacks"]
