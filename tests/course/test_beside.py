"""Wu et al.'s tables beside our rows."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from nic_helpers.course import beside, eight


@pytest.fixture(scope="module")
def rows():
    return eight.committed()


def test_ours_are_means_over_images_directions_and_qualities_each_alike(rows):
    table = beside.table(rows).set_index(["attack", "quantity", "codec"])
    srda = rows[(rows["codec"] == "mbt2018") & rows["attack"].str.startswith("SRDA")]
    shared = set.intersection(*(set(part["image"]) for _, part in srda.groupby("attack")))
    cells = srda[srda["image"].isin(shared)].groupby(["quality", "attack"])["delta_d"].mean()
    ours = table.loc[("SRDA", "dD_mean", "mbt2018")]
    assert len(cells) == 3 * 6 and ours["ours"] == pytest.approx(cells.mean(), rel=1e-5)
    assert ours["low"] < ours["ours"] < ours["high"] and ours["theirs"] == pytest.approx(649.08)


def test_a_codec_that_lacks_a_quality_or_an_attack_is_left_out_and_takes_nothing_with_it(rows):
    whole, wacnn = beside.table(rows), rows["codec"] == "zou2022-wacnn"
    assert {"factorized", "hyperprior", "mbt2018", "cheng2020-anchor", "zou2022-wacnn"} <= set(whole["codec"])
    for gap in (rows["quality"] == 6, rows["attack"].isin(["SRDA rate", "ARDA rate"])):
        rest = beside.table(rows[~(wacnn & gap)])
        assert rest.reset_index(drop=True).equals(whole[whole["codec"] != "zou2022-wacnn"].reset_index(drop=True))


def test_a_number_that_is_not_in_their_table_is_none(rows):
    table = beside.table(rows).set_index(["attack", "codec"])["theirs"].sort_index()
    assert table["SRDA"].notna().all() and table["ARDA", "mbt2018"].notna().all() and table["ARDA", "zou2022-wacnn"].isna().all()


def test_an_image_that_one_direction_has_not_met_is_left_out(rows):
    image = rows[rows["attack"] == "ARDA both"]["image"].iloc[0]
    gap = rows.drop(rows[(rows["attack"] == "ARDA both") & (rows["image"] == image) & (rows["codec"] == "mbt2018")].index)
    without = rows.drop(rows[(rows["image"] == image) & rows["attack"].str.startswith("ARDA")].index)
    np.testing.assert_allclose(*(beside.table(t).select_dtypes("number") for t in (gap, without)))


def test_theirs_are_hollow_and_ours_filled(rows):
    table = beside.table(rows)
    figure = beside.draw(table)
    marks = [line for ax in figure.axes for line in ax.get_lines() if line.get_marker() not in ("None", "")]
    assert len(marks) == 2 * len(table) and sum(line.get_markerfacecolor() == "white" for line in marks) == len(table)
    plt.close(figure)
