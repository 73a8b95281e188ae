import numpy as np
import pandas as pd
import pytest

from nic_helpers import stats


def curve(bpp, psnr):
    return pd.DataFrame({"bpp": bpp, "psnr": psnr})


REFERENCE = curve(np.array([0.2, 0.4, 0.8, 1.2, 1.6]), np.array([26.0, 29.0, 32.0, 33.7, 35.0]))


def test_bd_rate_of_a_curve_that_needs_20_percent_less():
    result = stats.bd_rate(REFERENCE, REFERENCE.assign(bpp=0.8 * REFERENCE["bpp"]))
    assert result.percent == pytest.approx(-20, abs=1e-6)
    assert (result.low, result.high) == (26, 35)


def test_bd_rate_of_three_points_against_many():
    test = REFERENCE.assign(bpp=0.8 * REFERENCE["bpp"]).iloc[[0, 2, 4]]
    assert stats.bd_rate(REFERENCE, test).percent == pytest.approx(-20, abs=2)


def test_bd_rate_needs_an_overlap():
    with pytest.raises(ValueError, match="share no range"):
        stats.bd_rate(REFERENCE, REFERENCE.assign(psnr=REFERENCE["psnr"] + 50))


def test_rate_difference_at_a_point_s_own_quality():
    assert stats.rate_difference(REFERENCE, {"bpp": 0.6, "psnr": 32.0}) == pytest.approx(-25)
    assert np.isnan(stats.rate_difference(REFERENCE, {"bpp": 0.6, "psnr": 60.0}))
    assert stats.quality_at(REFERENCE, 0.4) == pytest.approx(29)
    assert np.isnan(stats.quality_at(REFERENCE, 5))


def test_an_interval_over_images_and_seeds_holds_what_both_would_change():
    rng = np.random.default_rng(0)
    images, seeds = rng.normal(size=12), rng.normal(size=(12, 2))
    one = stats.bootstrap(images)
    alike = stats.bootstrap(np.stack([images, images], 1))
    assert alike.mean == pytest.approx(one.mean) and alike.high - alike.low == pytest.approx(one.high - one.low, rel=0.05)
    both = stats.bootstrap(images[:, None] + 3 * seeds)
    means = stats.bootstrap((images[:, None] + 3 * seeds).mean(1))
    assert both.mean == pytest.approx(means.mean) and both.high - both.low > 1.05 * (means.high - means.low)
    uneven = [np.array([1.0, 3.0]), np.array([2.0]), np.array([2.0])]
    assert stats.bootstrap(uneven).mean == pytest.approx(2)
    with pytest.raises(ValueError, match="one for each of its seeds"):
        stats.bootstrap(np.zeros((2, 2, 2)))


def test_rows_of_several_seeds_count_as_one_image():
    rows = pd.DataFrame({"image": ["a", "a", "b", "b"], "seed": [0, 1, 0, 1], "psnr": [20.0, 22.0, 30.0, 30.0], "codec": "c"})
    (row,) = stats.summarise(rows, "psnr", ["codec"]).to_dict("records")
    assert (row["images"], row["mean"], row["worst"], row["worst_image"]) == (2, 25.5, 20.0, "a")


@pytest.mark.parametrize("images, least", [(24, 0.92), (8, 0.92), (4, 0.85)])  # 0.93, 0.90, 0.80 by plain percentiles
def test_bootstrap_covers_the_mean_about_as_often_as_it_says(images, least):
    rng = np.random.default_rng(0)
    hits = 0
    for k in range(500):
        interval = stats.bootstrap(rng.normal(1.0, 2.0, images), resamples=2000, seed=k)
        hits += interval.low <= 1.0 <= interval.high
    assert least <= hits / 500 <= 0.985


def test_bootstrap_of_one_image_is_its_value():
    assert stats.bootstrap([3.0]) == stats.Interval(3.0, 3.0, 3.0)


def test_bootstrap_is_deterministic_and_paired_is_of_differences():
    a, b = np.arange(10.0), np.arange(10.0) + 3
    assert stats.paired_bootstrap(a, b) == stats.bootstrap(np.full(10, 3.0))
    assert stats.bootstrap(a) == stats.bootstrap(a)
    with pytest.raises(ValueError, match="NaN"):
        stats.bootstrap([1, float("nan")])
    with pytest.raises(ValueError, match="one value per image"):
        stats.bootstrap([])
    with pytest.raises(ValueError, match="must match"):
        stats.paired_bootstrap(a, b[1:])


def test_summary_keeps_the_worst_image_and_the_blow_ups():
    table = pd.DataFrame({"codec": "a", "image": ["p", "q"], "psnr_recon": [10.0, 30.0], "blow_up": [True, False]})
    row = stats.summarise(table, "psnr_recon", ["codec"]).iloc[0]
    assert (row["mean"], row["worst"], row["worst_image"], row["blow_ups"]) == (20, 10, "p", 0.5)


def test_a_ranking_says_how_sure_it_is():
    rng = np.random.default_rng(0)
    hard = rng.normal(0, 5, 40)  # images differ far more than contestants, and alike for all of them
    scores = pd.DataFrame({"last": hard, "first": hard + 3, "tied": hard + 1, "tied too": hard + 1 + rng.normal(0, 0.1, 40)})
    table = stats.ranking(scores)
    assert list(table.index[[0, 3]]) == ["first", "last"] and list(table["rank"]) == [1, 2, 3, 4]
    assert (table.loc["first", ["rank_low", "rank_high"]] == 1).all() and (table.loc["last", ["rank_low", "rank_high"]] == 4).all()
    assert (table.loc["tied", "rank_low"], table.loc["tied", "rank_high"]) == (2, 3)
    assert ((table["low"] < table["mean"]) & (table["mean"] < table["high"])).all()
    with pytest.raises(ValueError, match="every image and contestant"):
        stats.ranking(scores.assign(gap=np.nan))
