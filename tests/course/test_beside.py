"""Wu et al.'s tables beside our rows."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from nic_helpers.course import beside, reference, robust


@pytest.fixture(scope="module")
def rows():
    found = robust.committed()
    return found[found["eps_255"] == 8]


def test_ours_are_means_over_images_directions_and_qualities_each_alike(rows):
    table = beside.table(rows).set_index(["attack", "quantity", "codec"])
    assert len(table) == 2 * 2 * len(reference.WU_NAMES)
    srda = rows[(rows["codec"] == "mbt2018") & rows["attack"].str.startswith("SRDA")]
    shared = set.intersection(*(set(part["image"]) for _, part in srda.groupby("attack")))
    cells = srda[srda["image"].isin(shared)].groupby(["quality", "attack"])["delta_d"].mean()
    ours = table.loc[("SRDA", "dD_mean", "mbt2018")]
    assert len(cells) == 3 * 6 and ours["ours"] == pytest.approx(cells.mean(), rel=1e-5)
    assert ours["low"] < ours["ours"] < ours["high"] and ours["theirs"] == pytest.approx(649.08)


def test_an_image_that_one_direction_has_not_met_is_left_out(rows):
    image = rows[rows["attack"] == "ARDA both"]["image"].iloc[0]
    gap = rows.drop(rows[(rows["attack"] == "ARDA both") & (rows["image"] == image) & (rows["codec"] == "mbt2018")].index)
    without = rows.drop(rows[(rows["image"] == image) & rows["attack"].str.startswith("ARDA")].index)
    np.testing.assert_allclose(*(beside.table(t).select_dtypes("number") for t in (gap, without)))


def test_theirs_are_hollow_and_ours_filled(rows):
    figure = beside.draw(beside.table(rows))
    marks = [line for ax in figure.axes for line in ax.get_lines() if line.get_marker() not in ("None", "")]
    assert len(marks) == 2 * 16 and sum(line.get_markerfacecolor() == "white" for line in marks) == 16
    plt.close(figure)
