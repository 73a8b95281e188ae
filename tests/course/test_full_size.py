import pytest

from nic_helpers.course import full_size


def test_jpeg_ai_s_rows_stand_beside_two_small_codecs_on_the_same_crops():
    rows = full_size.rows()
    assert set(rows["codec"]) == {"JPEG AI", "hyperprior", "cheng2020-anchor"}
    counted = rows.groupby(["codec", "case"])["image"].agg(frozenset)
    assert counted.nunique() == 1 and len(counted) == 3 * 8
    assert full_size.caption(rows).startswith(f"means over {len(counted.iloc[0])} Kodak crops")


def test_cases_come_in_the_order_asked_for_and_are_drawn_from_above():
    means = full_size.apart(full_size.rows(), ["one step 16", "noise 8"])
    assert means.index.tolist() == ["one step 16", "noise 8"] and means.notna().all(axis=None)
    (ax,) = full_size.draw(means).axes
    drawn = {line.get_label(): line.get_xdata().tolist() for line in ax.lines if not line.get_label().startswith("_")}
    assert drawn == {codec: means[codec].tolist() for codec in means}
    low, high = ax.get_ylim()
    assert low > high and [t.get_text() for t in ax.get_yticklabels()] == means.index.tolist()
    with pytest.raises(KeyError, match="noise 3"):
        full_size.apart(full_size.rows(), ["noise 3"])
