"""What notebooks 08 and 09 read from their rows, and the page about wrong numbers."""

import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from conftest import untrained

from nic_helpers import attacks, metrics
from nic_helpers.course import boards, robust, studies, travel
from nic_helpers.settings import PROJECT, data_dir

PAGE = PROJECT / "docs" / "wrong-numbers.md"


@pytest.fixture(scope="module")
def rows():
    found = robust.committed()
    return found[found["eps_255"] == 8]


@pytest.fixture(scope="module")
def pairs():
    return travel.pairs_of(travel.measured(studies.published("09", "transfer")))


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_the_strongest_is_one_row_a_codec_and_image_and_the_same_images_for_all(rows):
    for kind, images in {"box": 16, "ball": 16, "file": 16}.items():
        part = robust.strongest(rows, kind)
        assert not part.duplicated([*robust.KEY, "image"]).any()
        assert len(part) == part.groupby(robust.KEY).ngroups * part["image"].nunique() == 18 * images


def test_an_attack_that_some_codec_has_not_met_on_an_image_leaves_that_image_out(rows):
    part = rows.drop(rows[(rows["codec"] == "mbt2018") & (rows["image"] == "kodim01.png")].index)
    assert set(robust.strongest(part, "ball")["image"]) == set(rows["image"]) & set(robust.strongest(rows, "ball")["image"]) - {
        "kodim01.png"
    }


def test_answers_are_larger_where_it_is_worse(rows):
    means = robust.answers(rows)
    box = robust.strongest(rows, "box").groupby(robust.KEY)["psnr_recon"].mean()
    np.testing.assert_allclose(-means["outputs apart\n(box)"], box.loc[means.index], rtol=1e-6)
    assert len(robust.movers(means)) == 3


def test_the_older_attacks_and_the_mended_ones_met_the_same(rows):
    compared = robust.old_and_mended()
    assert len(compared) == 2 * 18 * 8 and compared.notna().all(axis=None)
    assert (compared["old"] > compared["mended"])[compared["bound"] == "ball"].all()


def test_levels_are_those_at_which_the_limit_was_sought():
    assert studies.levels("quick") == [2, 8, 16] and {2, 8, 16} <= set(studies.levels("standard"))


def test_pictures_of_notebook_08_are_drawn(rows):
    robust.draw_tables(robust.tables_of(rows))
    robust.draw_against_rate(rows)
    robust.draw_growth(robust.strongest(rows, "file"))
    robust.draw_places(robust.answers(rows), "title")
    robust.draw_miniature(rows[rows["image"] == "kodim01.png"])


def test_relations_and_controls(pairs):
    assert travel.relation("mbt2018 3", "mbt2018", 3.0) == "the codec itself"
    assert travel.relation("mbt2018 3", "cheng2020-attn", 6.0) == "the other family, other quality"
    assert travel.relation("mbt2018 3", "vvc", 36.0) == "a classical codec"
    assert travel.relation("mbt2018 3", "zou2022-wacnn", 3.0) == "a later codec" == travel.relation("liu2023 3", "mbt2018", 3.0)
    assert travel.relation("liu2023 3", "liu2023", 3.0) == "the codec itself"
    own = pairs[pairs["relation"] == "the codec itself"]
    assert len(own) == 18 * pairs["image"].nunique() and own["beyond"].mean() > own["beyond_dissolved"].mean() > 1


def test_strangers_are_the_later_codecs_at_one_quality():
    rows = travel.measured(studies.published("09", "transfer"))
    found = travel.strangers(rows)
    assert {n.split()[0] for n in found if n.endswith("itself")} == {"zou2022-wacnn", "zou2022-stf", "liu2023"}
    part = rows[(rows["attack"] == "PGD") & (rows["attacked"] == "liu2023 3") & (rows["target"] == "liu2023 3")]
    assert found["liu2023 itself"].mean == pytest.approx(part["beyond_dissolved"].mean())
    assert found["GDN codecs -> liu2023"].mean < found["liu2023 itself"].mean / 2


def test_descent_is_counted_from_the_dissolved_attack(x):
    codecs, attack = (
        {"one": untrained("bmshj2018-factorized"), "two": untrained("bmshj2018-hyperprior")},
        attacks.PGD(8 / 255, steps=2),
    )
    picture = x[:1, :, :64, :64]
    rows = travel.descent(codecs, [picture], attack)
    assert rows[["made_for", "coded_by"]].to_numpy().tolist() == [[a, b] for a in codecs for b in codecs]
    adv, codec = attack(codecs["one"], picture).x_adv, codecs["two"]
    plain = attacks.SpectralNoise(8 / 255, like=attack)(codecs["one"], picture).x_adv
    near, far = (metrics.psnr(codec.reconstruct(picture), codec.reconstruct(v)).item() for v in (plain, adv))
    assert rows["beyond_dissolved"][1] == pytest.approx(near - far, abs=1e-6)
    travel.draw_descent(rows)


def test_missing_controls_are_said(pairs):
    rows = studies.published("09", "transfer")
    with pytest.raises(ValueError, match="controls are missing"):
        travel.pairs_of(travel.measured(rows[rows["attack"] != "coarse noise"]))


def test_a_boards_groups_are_named_once():
    _, ax = plt.subplots()
    table = pd.DataFrame(np.eye(3), list("abc"), list("xyz"))
    boards.board(ax, table, ["one", "one", "two"], ["left", "right", "right"], "size")
    assert sorted(t.get_text() for t in ax.texts) == ["left", "one", "right", "two"]
    assert [boards.shade(q, (1, 3, 6)) for q in (1, 3, 6)] == list(boards.SHADES)


def test_the_page_on_wrong_numbers_says_what_its_rows_say():
    text = PAGE.read_text(encoding="utf-8")
    names = {"__name__": "wrong_numbers"}
    for block in re.findall(r"^```python\n(.*?)^```", text, re.M | re.S):
        exec(compile(block, str(PAGE), "exec"), names)
    for part in re.split(r"^## ", text, flags=re.M)[1:]:
        words = re.sub(r"^```python\n.*?^```", "", part, flags=re.M | re.S)
        assert len(words.split()) <= 120 and "**Wrong:**" in words and "**Right:**" in words and "**So:**" in words, part[:40]
    assert names["slopes"][None] == 0 < names["slopes"]["identity"]
    assert names["apart"]["identity"] < names["apart"]["ste"] - 1
    ladder = pd.read_csv(data_dir() / "results" / "03_fgsm_ladder.csv")
    ladder = ladder[(ladder["codec"] == "bmshj2018-hyperprior") & (ladder["quality"] == 3) & (ladder["eps_255"] == 8)]
    grown = pd.read_csv(data_dir() / "results" / "05_surrogates.csv").groupby(["codec", "surrogate"])["bpp_ratio"].mean()
    one_step = ladder.groupby("attack")["psnr_recon"].mean()
    loss, moved, _, file = names["alike"].columns
    old, mended = names["compared"].loc["ball", "bmshj2018-hyperprior", 6]
    steps, strangers = names["by_steps"], names["strangers"]
    said = [f"{one_step[a]:.1f}" for a in ("FGSM", "sign noise")]
    said += [f"×{grown['mbt2018', s]:.1f}" for s in ("noise", "ste", "identity")]
    said += [f"is −{-names['alike'].loc[loss, moved]:.2f}", f"is −{-names['alike'].loc[moved, file]:.2f}"]
    said += [f"{strangers['beyond']:.2f} dB", f"{strangers['beyond_dissolved']:.2f} dB", f"−{-strangers['beyond_coarse']:.2f} dB"]
    said += [f"{old:.1f} dB", f"{mended:.1f} dB"]
    said += [f"{steps[a]:.1f}" for a in ("PGD 10", "PGD 30", "PGD 100", "continuation 30", "continuation 100")]
    assert not [number for number in said if number not in text]
    assert (
        "32 pictures" in text
        and robust.fallen(robust.committed()).query("norm == 'linf' and eps_255 == 16 and quality == 6")["fallen"].sum() == 32
    )
