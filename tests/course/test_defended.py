import re

import pandas as pd
import pytest

from nic_helpers import stats
from nic_helpers.course import defended, drawn_defences, studies
from nic_helpers.settings import PROJECT


def made(level, aim, attacker, values):
    """Rows of one attacker: ``values`` is defence -> PSNR between the outputs of the images a, b."""
    parts = [
        pd.DataFrame(
            {"image": ["a", "b"], "defence": defence, "psnr_recon": found, "attack": f"{aim}, {attacker}", "eps_255": level}
        )
        for defence, found in values.items()
    ]
    return pd.concat(parts)


@pytest.fixture(scope="module")
def rows():
    """A choice of ways and a flip, at two budgets in the box and one in the ball."""
    parts = []
    for level, aim, low in ((4, "picture", 30.0), (16, "picture", 10.0), (16, "picture, ball", 5.0)):
        parts += [
            made(level, aim, "static", {"flip": [low + 9, low + 7], "best of eight, D": [low + 8, low + 8]}),
            made(level, aim, "adaptive", {"none": [low, low], "flip": [low, low + 1], "best of eight, D": [low + 9, low + 6]}),
            made(level, aim, "every way", {"best of eight, D": [low + 5, low + 7]}),
        ]
    return pd.concat(parts, ignore_index=True)


def test_who_knows_a_defence_takes_what_does_most_to_each_picture(rows):
    found = defended.damage(rows, "picture", 16, "psnr_recon")
    assert found["static"]["flip"].tolist() == [19, 17] and found["static"]["none"].tolist() == [10, 10]
    assert found["adaptive"]["flip"].tolist() == [10, 11]
    assert found["adaptive"]["best of eight, D"].tolist() == [15, 16]  # one image by every way, the other by the adaptive attack
    won = defended.gains(found)
    assert won["adaptive"]["best of eight, D"].mean == pytest.approx(5.5) and won["static"]["flip"].mean == pytest.approx(8)


def test_worth_has_a_column_for_each_bound_and_budget(rows):
    won = defended.worth(rows, ["flip", "best of eight, D"])
    assert list(won.columns) == ["box of 4/255", "box of 16/255", "ball of 16/255"]
    assert [won.loc["none", c].mean for c in won.columns] == pytest.approx([30, 10, 5])
    assert [won.loc["flip", c].mean for c in won.columns] == pytest.approx([0.5] * 3)
    bars = drawn_defences.by_bound(won).axes[0].containers
    assert [b.get_label() for b in bars if len(b) == 3 and hasattr(b, "patches")] == ["flip", "best of eight, D"]


def test_notebook_11_says_a_sentence_of_each_defence():
    text = (PROJECT / "notebooks" / "11_defences.ipynb").read_text(encoding="utf-8")
    named = re.findall(r'"\|[^|]*\| ([^|]+) \| [^|]+ \|', text)
    assert sorted(named) == sorted([*defended.DEFENCES, "defence"])


def test_the_standard_study_is_the_committed_one():
    """Each of its units has rows: eight pictures at 16/255, and four of them at 8 and at 4."""
    rows = studies.published("11", "defences")
    images = rows.groupby("eps_255")["image"].nunique().to_dict()
    assert images == {4: 4, 8: 4, 16: 8}
    adaptive = rows[rows["attack"] == "picture, adaptive"]
    assert (adaptive.groupby("eps_255")["defence"].nunique() == len(defended.DEFENCES) + 1).all()
    gained = defended.gains(defended.damage(rows, "picture", 16, "psnr_recon"))["adaptive"]
    assert isinstance(gained["refine"], stats.Interval) and gained["refine"].low > 5


def test_gain_against_time_names_every_defence_or_its_heap():
    gain = pd.Series({"slow": 9.0, "a": 0.0, "b": 0.1, "c": -0.1, "d": 0.0})
    milliseconds = pd.Series({"slow": 300.0, "a": 30.0, "b": 30.0, "c": 31.0, "d": 30.5})
    said = [t.get_text() for t in drawn_defences.against_time(gain, milliseconds, 29.0).axes[0].texts]
    assert "slow" in said and "4 others" in said
