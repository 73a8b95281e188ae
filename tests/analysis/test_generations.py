"""Generations: the loop by hand, what its rows say, where pictures come to rest, and an attack through several."""

import pandas as pd
import pytest
import torch

from nic_helpers import analysis, attacks, load_codec, load_images, metrics, objectives
from nic_helpers.codecs.base import check_codec
from nic_helpers.images import centre_crop, pixels_sha256, to_8bit


@pytest.mark.parametrize("name, quality", [("bmshj2018-hyperprior", 3), ("cheng2020-anchor", 3), ("jpeg", 30)])
def test_the_rows_are_those_of_the_loop_by_hand(name, quality, x):
    codec = load_codec(name, quality)
    rows = analysis.recompress(codec, x[:2], 4, names=["a", "b"])
    assert list(rows["image"]) == ["a"] * 4 + ["b"] * 4 and list(rows["generation"]) == [1, 2, 3, 4] * 2
    picture, first = x[:1], None
    for _, row in rows[rows["image"] == "a"].iterrows():
        before = picture
        stream = codec.encode(picture)
        picture = to_8bit(codec.decode(stream))
        first = picture if first is None else first
        assert row["bpp"] == 8 * len(stream[0]) / 64**2 and row["picture"] == pixels_sha256(picture[0])[:12]
        assert row["psnr_source"] == float(metrics.psnr(x[:1], picture)) and row["psnr_first"] == float(
            metrics.psnr(first, picture)
        )
        assert row["moved"] == pytest.approx(255 * float((picture - before).square().mean().sqrt()), abs=1e-4)
    assert rows["psnr_first"][0] == metrics.PSNR_CAP


def test_an_image_fares_alike_alone_and_among_others_and_a_list_like_a_batch(hyperprior, x):
    together = analysis.recompress(hyperprior, x, 3)
    alone = analysis.recompress(hyperprior, list(x[1:2]), 3, names=[1])
    pd.testing.assert_frame_equal(together[together["image"] == 1].reset_index(drop=True), alone)


def test_a_picture_at_rest_stays_and_is_computed_once(x, monkeypatch):
    codec, calls = load_codec("jpeg", 30), []
    short = analysis.settled(analysis.recompress(codec, x, 12))
    assert (short["settled"] <= 11).all() and (short["period"] >= 1).all()
    encode = codec.encode
    monkeypatch.setattr(codec, "encode", lambda image: calls.append(1) or encode(image))
    rows = analysis.recompress(codec, x, 200)
    assert len(rows) == 600 and len(calls) <= 3 * 13
    pd.testing.assert_frame_equal(analysis.settled(rows), short)
    for (_, part), rest in zip(rows.groupby("image"), short.itertuples(), strict=True):
        after = part[part["generation"] > rest.settled + rest.period - 1]
        if rest.period == 1:
            assert after["moved"].iloc[1:].eq(0).all() and after["picture"].nunique() == 1


def test_a_picture_that_goes_round_is_told_from_one_that_stands_still_or_moves_on():
    def rows(pictures, name):
        return pd.DataFrame(
            {"codec": "c", "quality": 1, "image": name, "generation": range(1, len(pictures) + 1), "picture": pictures}
        )

    three = pd.concat([rows(list("abbb"), "still"), rows(list("abcb"), "round"), rows(list("abcd"), "on")])
    found = analysis.settled(three).set_index("image")
    assert found.loc["still"].tolist()[2:] == [2, 1] and found.loc["round"].tolist()[2:] == [2, 2]
    assert found.loc["on"][["settled", "period"]].isna().all()


def test_what_goes_round_is_filled_in_as_it_goes_round(x):
    class Negative(type(load_codec("jpeg", 95))):
        """A codec whose picture comes back after two generations."""

        def roundtrip(self, images):
            coded = super().roundtrip(images)
            coded.x_hat = 1 - to_8bit(images)
            return coded

    rows = analysis.recompress(Negative("jpeg", 95), x[:1], 7)
    assert rows["picture"].nunique() == 2 and rows["picture"].tolist() == (rows["picture"].tolist()[:2] * 4)[:7]
    assert analysis.settled(rows)[["settled", "period"]].iloc[0].tolist() == [1, 2]


def test_a_crop_takes_a_row_and_a_column_each_time_and_compares_what_is_left(x):
    codec = load_codec("jpeg", 30)
    rows = analysis.recompress(codec, x[:1], 3, crop=1)
    stream, picture = list(analysis.again(codec, x[0], 3, crop=1))[-1]
    assert picture.shape == (3, 62, 62) and rows["bpp"].iloc[-1] == 8 * len(stream) / 62**2
    assert rows["psnr_source"].iloc[-1] == float(metrics.psnr(x[:1, :, 2:, 2:], picture[None]))
    assert rows.iloc[0].equals(analysis.recompress(codec, x[:1], 1).iloc[0])
    for count, crop in ((0, 0), (65, 1), (2, -1)):
        with pytest.raises(ValueError, match="cannot be made"):
            list(analysis.again(codec, x[0], count, crop))


@pytest.mark.parametrize("name", ["bmshj2018-hyperprior", "mbt2018"])
def test_a_codec_repeated_is_one_codec_and_gives_the_last_generation(name, x):
    codec = load_codec(name, 3, device="cpu")
    twice = analysis.Repeated(codec, 3)
    check_codec(twice)
    last = list(analysis.again(codec, x[0], 3))[-1]
    assert torch.equal(to_8bit(twice.reconstruct(x[:1]))[0], last[1]) and twice.encode(x[:1]) == [last[0]]
    assert torch.equal(to_8bit(twice.decode([last[0]]))[0], last[1]) and "3 times" in twice.label
    assert torch.equal(torch.stack(twice.reconstruct(list(x[:2]))), torch.cat([twice.reconstruct(x[k : k + 1]) for k in (0, 1)]))
    for surrogate in ("ste", "identity", "noise"):
        given = x[:1].clone().requires_grad_(True)
        output = twice(given, surrogate)
        (output.x_hat.sum() + output.bpp.sum()).backward()
        assert given.grad.abs().sum() > 0
    with pytest.raises(ValueError, match="at least 1"):
        analysis.Repeated(codec, 0)


def test_an_attack_through_several_generations_grows_from_one_to_the_next():
    codec = load_codec("bmshj2018-hyperprior", 6, device="cpu")
    x = centre_crop(load_images("bundled")[3], 128)[None]
    source = objectives.Distortion("source")
    reached = []
    for times, steps in ((1, 32), (4, 8)):  # as many compressions
        x_adv = attacks.PGD(8 / 255, steps=steps)(analysis.Repeated(codec, times), x, source).x_adv
        reached.append(analysis.recompress(codec, x_adv, 5, source=x)["psnr_source"].tolist())
    assert reached[1][4] < reached[0][4] - 1 and reached[1][4] < reached[1][0] - 3
