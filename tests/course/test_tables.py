"""The tables that the notebooks' helpers make of rows, on rows whose answers are known."""

import pandas as pd
import pytest
import torch
from conftest import untrained

from nic_helpers import attacks, load_codec, metrics, objectives
from nic_helpers.course import (
    drawn_curves,
    drawn_gain,
    drawn_generations,
    drawn_hiding,
    drawn_rate,
    first_look,
    hiding,
    online,
    reference,
    robust,
    studies,
    trained,
    travel,
    your_turn,
)
from nic_helpers.images import to_8bit


def test_gains_are_paired_by_image_whatever_the_order():
    rows = pd.DataFrame({"codec_label": "a", "attack": "PGD", "image": ["two", "one"], "psnr_recon": [20.0, 25.0]})
    one_step = pd.DataFrame({"codec_label": "a", "image": ["one", "two"], "psnr_recon": [26.0, 24.0]})
    gain = drawn_gain.gains(rows, over=one_step)["a", "PGD"]
    assert gain["one"] == 1 and gain["two"] == 4
    of_n = [("FGSM, best of n", 27.0, 21.0), ("APGD", 24.0, 19.0)]
    strength = pd.DataFrame(
        {"codec_label": "a", "cost": 12, "attack": name, "image": image, "psnr_recon": value}
        for name, *values in of_n
        for image, value in zip(("one", "two"), values, strict=True)
    )
    leads = drawn_gain.leads(rows, strength, "a", 12)
    assert leads["PGD beats FGSM, best of n, by (dB)"].mean == 1.5 and leads["APGD beats that PGD by (dB)"].mean == 1.0


def test_what_was_paid_in_bytes():
    rows = pd.DataFrame(
        [
            {"codec_label": "a", "kind": "clean", "y": 90, "z": 10, "coded": 100, "estimated": 100},
            {"codec_label": "a", "kind": "attacked", "y": 270, "z": 30, "coded": 300, "estimated": 400},
        ]
    )
    paid = drawn_rate.paid(rows).loc["a"]
    assert paid.tolist() == [1.0, 0.75, 3.0, 3.0, 0.9]


def test_points_against_jpeg():
    jpeg = pd.DataFrame({"quality": [1, 2, 3], "bpp": [0.25, 0.5, 1.0], "psnr": [26.0, 30.0, 34.0], "ms_ssim": 0.9})
    twice = jpeg.assign(bpp=jpeg["bpp"] / 2)
    found = drawn_curves.point_by_point({"half": twice}, jpeg)
    assert found["bytes (%)"].tolist() == pytest.approx([-50] * 3) and found["codec"].tolist() == ["half"] * 3
    assert found["gain (dB)"].tolist()[1:] == pytest.approx([4, 4])


def test_gaps_to_a_published_curve_leave_out_what_lies_beyond_it():
    known = reference.published(["jpeg-plain"]).sort_values("bpp")
    points = known[["bpp", "psnr"]].iloc[3:6].assign(psnr=lambda t: t["psnr"] + 0.5)
    points.loc["beyond"] = 100.0, 99.0
    gaps = reference.gaps(points, "jpeg-plain")
    assert len(gaps) == 3 and gaps.tolist() == pytest.approx([0.5] * 3, abs=1e-6)


def test_what_each_image_saves_is_against_jpeg_on_that_image():
    jpeg = [("jpeg", q, image, q * rate, 20.0 + q) for image, rate in (("one", 1.0), ("two", 2.0)) for q in (1, 2, 3)]
    rows = [*jpeg, ("mine", 6, "one", 1.0, 22.0), ("mine", 6, "two", 4.0, 22.0), ("mine", 1, "two", 0.1, 21.0)]
    table = pd.DataFrame(rows, columns=["codec", "quality", "image", "bpp", "psnr"])
    assert drawn_curves.each_image(table, "mine", 6).to_dict() == pytest.approx({"one": 50.0, "two": 0.0})


def test_the_same_bytes_are_set_beside_each_other(x):
    learned, jpeg = ({"a": load_codec(name, q).roundtrip(x[:1])} for name, q in (("bmshj2018-hyperprior", 3), ("jpeg", 5)))
    figure, ahead = drawn_curves.beside_jpeg({"a": x[0]}, learned, jpeg)
    assert ahead["a"] == pytest.approx(metrics.psnr(x[:1], learned["a"].x_hat).item() - metrics.psnr(x[:1], jpeg["a"].x_hat).item())
    assert f"JPEG: {len(jpeg['a'].streams[0])} bytes" in figure.axes[2].get_title()


def test_first_pictures_have_the_numbers_of_their_frames(x):
    codec = load_codec("bmshj2018-hyperprior", 3)
    rows, frames = first_look.attacked(x[:1], {"file": (codec, objectives.Rate())}, (2, 8), steps=2, seed=0)
    assert set(rows) == {("file", 2), ("file", 8)} and set(frames) == {("file", "2/255"), ("file", "8/255")}
    assert f"×{rows['file', 8].bpp_ratio:.2f}" in frames["file", "8/255"].text
    seen, frames = first_look.two_bounds({"h": codec}, x[:1], level=8, steps=2, seed=0)
    attacked = frames["h", "ball"].pictures["attacked"][None]
    assert seen.loc[("h", "ball"), "input"] == pytest.approx(metrics.psnr(x[:1], attacked).item())
    apart = metrics.psnr(codec.reconstruct(x[:1]), codec.reconstruct(attacked)).item()
    assert seen.loc[("h", "ball"), "outputs"] == pytest.approx(apart, abs=1e-3) and (attacked - x[:1]).abs().max() > 8.5 / 255


def test_a_codec_without_gradient_gets_the_attacks_made_on_another(x):
    codec, attack = load_codec("bmshj2018-hyperprior", 3), attacks.PGD(8 / 255, steps=2)
    table = your_turn.Table(x, 8 / 255, 0, instead=codec)
    own, jpeg = table.row(codec, attack), table.row(load_codec("jpeg", 50), attack)
    assert own["attacked"] == "itself" and jpeg["attacked"] == "transferred" and len(table._made) == 1
    rows = metrics.before_after(load_codec("jpeg", 50), x, attack(codec, x).x_adv)
    assert jpeg["picture"] == pytest.approx(rows["psnr_recon"].mean()) and jpeg["PSNR"] == pytest.approx(rows["psnr_clean"].mean())


def test_the_dct_is_orthonormal_and_begins_with_the_mean():
    filters = your_turn.dct_filters()
    flat = filters[:64].flatten(1)
    assert filters.shape == (192, 1, 8, 8) and torch.allclose(flat @ flat.T, torch.eye(64), atol=1e-5)
    assert torch.allclose(filters[0], torch.full((1, 8, 8), 1 / 8)) and torch.equal(filters[:64], filters[128:])


def test_spectra_lie_apart_by_the_mean_of_their_range():
    lines = {
        "a": ([0, 1], torch.tensor([1.0, 5.0])),
        "b": ([0, 1], torch.tensor([3.0, 4.0])),
        "c": ([0, 1], torch.tensor([9.0, 9.0])),
    }
    assert drawn_hiding.between(lines, ("a", "b")) == 1.5


def test_lower_pairs_the_worst_of_several_attacks_image_by_image():
    rows = pd.DataFrame(
        [
            {"weights": w, "image": image, "attack": attack, "delta_own": loss}
            for w, image, losses in (("bundled", 1, (3, 9)), ("bundled", 2, (8, 4)), ("robust", 1, (5, 2)), ("robust", 2, (1, 7)))
            for attack, loss in zip(("PGD", "FTDA"), losses, strict=True)
        ]
        + [{"weights": w, "image": 1, "attack": "not asked", "delta_own": 99} for w in ("bundled", "robust")]
    )
    assert trained.lower(rows, "delta_own", ["PGD", "FTDA"], "robust").mean == (9 - 5 + 8 - 7) / 2


def test_aims_and_the_owners_least_psnr():
    rows = pd.DataFrame(
        [("PGD", 1, "a", 30.0), ("SRDA both", 1, "a", 25.0), ("PGD rate", 1, "a", 9.0), ("PGD", 1, "b", 28.0)],
        columns=["attack", "image", "weights", "psnr_own"],
    )
    picture, file = trained.aims(rows)
    assert picture == ["PGD", "SRDA both"] and file == ["SRDA both", "PGD rate"]
    assert trained.least(rows, picture).loc[1].to_dict() == {"a": 25.0, "b": 28.0}


def test_neighbours_keep_both_ways():
    table = pd.DataFrame([[4.0, 2.0], [1.0, 5.0]])
    assert travel.neighbours_keep(table, 1) == 0.5 and travel.neighbours_keep(table, -1) == 0.2
    assert travel.neighbours_keep(table) == pytest.approx(0.35)


def test_damage_is_that_of_the_definitions(x):
    codec = untrained("bmshj2018-hyperprior")
    pictures = x[:, :, :64, :64]
    attacked = (pictures + 0.1).clamp(0, 1)
    damage = hiding.Damage([codec], pictures, [str(k) for k in range(len(pictures))], {"psnr": metrics.psnr, "ssim": metrics.ssim})
    rows = damage.rows(codec, attacked, attack="brighter")
    clean, out = codec.reconstruct(pictures), codec.reconstruct(attacked)
    assert rows["psnr_recon"].tolist() == pytest.approx(metrics.psnr(clean, out).tolist())
    expected = metrics.ssim(pictures, clean) - metrics.ssim(pictures, out)
    assert rows["delta_source_ssim"].tolist() == pytest.approx(expected.tolist())
    assert rows["delta_amp"].tolist() == pytest.approx((metrics.psnr(pictures, attacked) - metrics.psnr(clean, out)).tolist())
    assert damage.words["delta_amp_ssim"] == "SSIM, amplification" and set(damage.columns) <= set(rows)
    assert "ssim_input" not in damage.rows(codec, attacked, ["psnr"]) and set(rows["attack"]) == {"brighter"}


def test_changes_are_against_the_plain_codec_with_the_same_picture():
    rows = pd.DataFrame(
        {"picture": p, "method": m, "steps": n, "image": i, "psnr_own": v, "cost": -v, "bpp": 1.0, "seconds": 2.0}
        for p, m, n, i, v in (
            ("clean", "none", 0, "a", 30.0),
            ("attacked", "none", 0, "a", 20.0),
            ("attacked", "refine", 2, "a", 27.0),
        )
    )
    change = online.changes(rows)
    assert change.loc[("attacked", "refine", 2, "a"), "psnr_own"] == 7 and (change.xs("none", level="method") == 0).all(axis=None)


def test_who_knows_takes_the_worse_of_the_two():
    rows = pd.DataFrame(
        {"attack": f"picture, {who}", "defence": d, "eps_255": 16, "image": "a", "psnr_recon": v}
        for d, who, v in (
            ("none", "static", 11.0),
            ("none", "adaptive", 10.0),
            *((m, who, v) for m in online.METHODS for who, v in (("static", 15.0), ("adaptive", 18.0))),
        )
    )
    kept = online.against_who_knows(rows).loc[("refine", 16, "a")]
    assert kept["static"] == 5 and kept["adaptive"] == 5


def test_resting_counts_who_repeats_and_who_goes_round():
    nan = float("nan")
    rest = pd.DataFrame({"label": ["a", "a", "a", "b"], "settled": [2, 4, nan, nan], "period": [1, 2, nan, nan]})
    found = drawn_generations.resting(rest)
    assert found.loc["a"].tolist() == [2, 3, 2, 4, 1] and found.loc["b", ["settled", "of", "of these going round"]].tolist() == [
        0,
        1,
        0,
    ]


def test_ends_name_the_largest_loss_of_any_picture():
    rows = pd.DataFrame(
        {"label": "c", "image": i, "generation": g, "psnr_source": v}
        for i, values in (("a", (30.0, 29.0)), ("b", (28.0, 24.0)))
        for g, v in zip((1, 5), values, strict=True)
    )
    found = drawn_generations.ends(rows, 5).loc["c"]
    assert found["mean, generation 1"] == 29 and found["worst, generation 5"] == 24 and found["largest loss"] == 4


def test_copies_count_their_own_files(x):
    codec = untrained("bmshj2018-factorized")
    source = x[0, :, :64, :64]
    made = drawn_generations.copies(codec, {"clean": source}, source, [1, 2])
    frames = drawn_generations.frames(made, lambda pictures, text: (pictures, text))
    first = codec.encode(source[None])
    assert f"{8 * len(first[0]) / 64**2:.2f} bpp" in frames["clean", 1][1] and set(frames) == {("clean", 1), ("clean", 2)}
    assert torch.equal(frames["clean", 1][0]["copy"], to_8bit(codec.decode(first)[0]))


def test_published_and_committed_tables_have_what_the_notebooks_read():
    both = trained.beside_published(studies.published("12", "trained"))
    theirs = both.loc["theirs, Balle2018"]
    assert (theirs.loc["left of it"] == theirs.loc["after"] / theirs.loc["before"]).all() and len(both) == 6
    means = pd.DataFrame({"one\n(box)": [1.0, 2, 3], "two": [3.0, 2, 1]})
    assert robust.agreement(means).loc["one (box)", "two"] == -1
