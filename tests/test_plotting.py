"""Figures: no series is left out in silence."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from nic_helpers import plotting
from nic_helpers.course import drawn_trained


def test_each_of_nine_series_has_a_look_of_its_own():
    names = [f"codec {k}" for k in range(9)]
    found = plotting.series(names)
    assert [name for name, _, _ in found] == names
    assert len({mark for _, mark, _ in found}) == len({colour for *_, colour in found}) == 9


def test_more_series_than_there_are_looks_are_refused_not_dropped():
    with pytest.raises(ValueError, match="at most 9"):
        plotting.series(range(10))


def test_the_figure_of_trained_codecs_has_a_mark_for_every_set_of_weights():
    weights = {f"w{k}": f"trained so {k}" for k in range(9)}
    table = pd.DataFrame({w: [float(k), k + 1.0] for k, w in enumerate(weights)}, index=["APGD", "Square"])
    rows = table.rename_axis("attack").melt(var_name="weights", value_name="delta_own", ignore_index=False).reset_index()
    figure = drawn_trained.by_attack(rows.assign(bpp_ratio=2.0), weights, {"APGD": False, "Square": False})
    for ax in figure.axes:
        marks = [line for line in ax.lines if not line.get_label().startswith("_")]  # the others part the attacks
        assert [line.get_label() for line in marks] == list(weights.values())
        heights = [line.get_ydata()[0] for line in marks]
        assert len(set(heights)) == 9 and max(heights) - min(heights) < 1  # none hides another, all within their attack's strip
    plt.close(figure)
    figure = drawn_trained.with_steps(table.set_axis([1, 10]), weights)
    assert [line.get_label() for line in figure.axes[0].lines] == list(weights.values())
    plt.close(figure)


def test_a_codec_that_has_not_met_every_attack_is_not_compared():
    rows = pd.DataFrame(
        [
            {"codec": codec, "quality": 3, "image": "a", "weights": w, "attack": attack, "delta_own": loss, "bpp_ratio": 2.0}
            for codec, weights in (("whole", ("bundled", "robust")), ("half", ("bundled",)))
            for w in weights
            for attack, loss in (("APGD", 1.0), ("PGD rate", 0.5))
        ]
        + [{"codec": "half", "quality": 3, "image": "a", "weights": "robust", "attack": "APGD", "delta_own": 1.0, "bpp_ratio": 2.0}]
    )
    found = drawn_trained.losses(rows, ["APGD"], ["PGD rate"])
    assert found.index.tolist() == [("whole q3", "a")]
    assert found[drawn_trained.LOSS, "robust"].item() == 1.0
