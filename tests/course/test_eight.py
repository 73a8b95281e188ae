"""The later architectures beside the six, and Wu et al.'s findings."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from nic_helpers import stats
from nic_helpers.course import eight
from nic_helpers.course.grids import ARCHS


@pytest.fixture(scope="module")
def rows():
    return eight.committed()


def test_the_worst_is_taken_over_attacks_on_images_that_all_have_met():
    found = [("a", 1, "PGD rate", 2.0), ("a", 1, "SRDA rate", 3.0), ("b", 1, "PGD rate", 5.0), ("b", 1, "SRDA rate", 4.0)]
    found += [("a", 2, "PGD rate", 9.0), ("a", 2, "SRDA rate", 9.0), ("b", 2, "PGD rate", 9.0)]  # one is missing
    columns = ["codec", "image", "attack", "bpp_ratio"]
    names = {"a": "mbt2018", "b": "liu2023"}
    table = eight.worst(pd.DataFrame(found, columns=columns).replace({"codec": names}).assign(quality=3), "file")
    assert table.to_dict("index") == {1: {"mbt2018": 3.0, "liu2023": 5.0}}


def test_a_verdict_needs_every_interval():
    above, below, across = (stats.Interval(m, m - 1, m + 1) for m in (2, -2, 0))
    assert eight._verdict(above, above) == "holds"
    assert eight._verdict(above, across) == "open"
    assert eight._verdict(above, across, below) == "does not hold"


def test_ahead_is_told_from_the_nearest_rival():
    table = pd.DataFrame({"mbt2018": [5.0, 6.0, 7.0, 8.0], "liu2023": [3.0, 4.5, 5.0, 6.5], "cai2022": [1.0, 1.0, 1.0, 1.0]})
    assert eight._ahead(table, "mbt2018") == ("holds", "mbt2018 minus liu2023: " + str(stats.bootstrap([2.0, 1.5, 2.0, 1.5])))
    assert eight._ahead(table, "cai2022", -1)[0] == "holds" and eight._ahead(table, "liu2023")[0] == "does not hold"


def test_every_finding_has_a_verdict_and_the_six_stand_first(rows):
    table = eight.findings(rows)
    assert set(table["verdict"]) <= {"holds", "does not hold", "open"} and table["finding"].is_unique and table["ours"].all()
    columns = list(eight.worst(rows, "picture"))
    assert columns[: len(ARCHS)] == list(ARCHS) and {"zou2022-wacnn", "zou2022-stf", "liu2023"} <= set(columns)


def test_whose_file_grows_more_is_ranked_image_by_image():
    rate = pd.DataFrame(np.arange(12.0).reshape(3, 4))
    assert eight._rise_and_error(rate, -rate).mean == -1 and eight._rise_and_error(rate, rate).mean == 1


def test_every_codec_is_a_line_of_the_picture(rows):
    figure = eight.draw(rows)
    assert len(figure.axes[0].get_yticks()) == eight.worst(rows, "picture").shape[1]
    plt.close(figure)
