import matplotlib.pyplot as plt
import pandas as pd
import pytest

from nic_helpers.course import checked


def _rows():
    """Two images of one codec: two seeds on crops, the first image whole, too, and one row at another budget."""
    said = [
        ("a.png", 0, False, 20.0, 2.0),
        ("a.png", 1, False, 21.0, 2.0),
        ("b.png", 0, False, 30.0, 4.0),
        ("a.png", 0, True, 19.0, 3.0),
    ]
    rows = [
        {"image": image, "seed": seed, "whole": whole, "attack": attack, "psnr_recon": apart, "bpp_ratio": growth, "eps_255": 8.0}
        for image, seed, whole, apart, growth in said
        for attack in (checked.BALL, checked.FILE)
    ]
    rows.append(rows[0] | {"eps_255": 16.0, "psnr_recon": 5.0})
    return pd.DataFrame(rows).assign(codec="mbt2018", quality=3.0, bpp_clean=0.5)


def test_the_tables_rows_are_crops_at_the_first_seed():
    kept = checked.table(_rows())
    assert len(kept) == 5 and set(kept["seed"]) == {0} and not kept["whole"].any()


def test_seeds_are_paired_by_image_and_sizes_by_codec():
    pairs = checked.seeds(_rows())
    assert pairs.to_numpy().tolist() == [[20.0, 21.0]] and pairs.index.tolist() == [("mbt2018", 3.0, "a.png")]
    means = checked.sizes(_rows())
    assert means.loc["mbt2018", 3]["outputs apart"].to_dict() == {"crop": 20.0, "whole": 19.0}
    assert means.loc["mbt2018", 3]["file growth"].to_dict() == {"crop": 2.0, "whole": 3.0}
    assert means.loc["mbt2018", 3]["clean file"].to_dict() == {"crop": 0.5, "whole": 0.5}


def test_committed_rows_have_both_checks_and_are_drawn():
    rows = checked.committed()
    pairs, means = checked.seeds(rows), checked.sizes(rows)
    assert pairs.groupby(checked.KEY).ngroups == 18 and pairs.groupby(checked.KEY).size().nunique() == 1
    assert len(means) == 6 and means.notna().all(axis=None)
    left, right = checked.draw(pairs, means).axes
    drawn = sum(len(line.get_xdata()) for line in left.lines[:-1])
    assert drawn == len(pairs) and len(right.lines) == len(means) + 1
    for ax in (left, right):
        assert ax.lines[-1].get_xdata() == pytest.approx(ax.lines[-1].get_ydata())
    plt.close("all")
