import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from nic_helpers import attacks, defences, image_sets, load_codec
from nic_helpers.codecs.weights import checkpoints_dir
from nic_helpers.course import studies
from nic_helpers.course.begin import PROFILES
from nic_helpers.course.grids import NAMES
from nic_helpers.images import to_pil, to_uint8
from nic_helpers.objectives import Rate
from nic_helpers.sweep import grid as grids
from nic_helpers.sweep import unit as of_units
from nic_helpers.sweep.faced import Faced, OtherDraws
from nic_helpers.sweep.grid import Contestant, Grid
from nic_helpers.sweep.unit import expected_gradients, images_of, run_unit

EPS = 8 / 255
SMALL = {"crop": 48, "limit": 2}


def small(**changes):
    chosen = {"codecs": {"bmshj2018-hyperprior": (1,)}, "attacks": {"FGSM": attacks.FGSM(EPS)}}
    return Grid(**(SMALL | chosen | changes))


def blurred(codec):
    """A defence that a process can find by its name."""
    return codec


def bits_of_flip(codec):
    """Two defences, one in the other."""
    return defences.BitDepth(bits=5)(defences.Flip(seed=1)(codec))


def test_every_combination_is_a_unit_once():
    g = small(
        codecs={"bmshj2018-hyperprior": (1, 6), "jpeg": (30,)},
        attacks={"noise": attacks.RandomNoise(EPS)},
        budgets=(2 / 255, EPS),
        seeds=(0, 1, 2),
        limit=3,
        shard=2,
        defences={"none": None, "blur": blurred},
    )
    units = g.units()
    assert len(units) == 3 * 2 * 3 * 2 * 2 == len({u.key for u in units})
    assert {(u.attack.eps, u.attack.seed) for u in units} == {(e, s) for e in (2 / 255, EPS) for s in range(3)}
    assert [u.images for u in units[:2]] == [("astronaut", "chelsea"), ("coffee",)]


def test_a_key_is_the_same_everywhere_and_changes_with_what_rows_depend_on(monkeypatch):
    (unit,) = small().units()
    assert unit.key == small().units()[0].key == dataclasses.replace(unit, label="other words").key
    for other in (
        small(budgets=(4 / 255,)),
        small(seeds=(1,)),
        small(crop=64),
        small(limit=1),
        small(verify=1, weights="bundled", attacks={"FGSM": attacks.FGSM(EPS, restarts=2)}),
        small(objectives={"rate": Rate()}),
        small(defences={"blur": blurred}),
        small(codecs={"bmshj2018-hyperprior": (2,)}),
        small(targets={"jpeg": (30,)}),
        small(measures=("psnr",)),
    ):
        assert other.units()[0].key != unit.key
    monkeypatch.setattr(of_units, "EDITION", of_units.EDITION + 1)  # the same settings mean another attack
    assert dataclasses.replace(unit, label="again").key != unit.key
    assert dataclasses.replace(unit, fingerprint=unit.fingerprint[::-1]).key != unit.key  # other weights or pixels


def test_what_no_other_process_could_know_is_refused():
    for defence in (lambda codec: codec, object()):
        with pytest.raises(ValueError, match="process"):
            _ = [u.key for u in small(defences={"mine": defence}).units()]


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"attacks": {}}, "at least one of its attacks"),
        ({"budgets": ()}, "budgets"),
        ({"codecs": {}}, "at least one codec"),
        ({"shard": 0}, "shard"),
        ({"budgets": (8,)}, "eps must be in"),
        ({"budgets": (0.001,)}, "8-bit level"),
        ({"codecs": {"bmshj2018-hyperprior": (1.5,)}}, "quality must be a whole number.*1.5"),
        ({"codecs": {"bmshj2018-hyperprior": ()}}, "codecs"),
        ({"codecs": {"bmshj2018-hyperprior": 3}}, "sequence, such as"),
        ({"codecs": {"bmshj2018": (3,)}}, "unknown codec.*jpeg"),
        ({"codecs": {"bmshj2018-hyperprior": (9,)}}, "there are 1, 2, 3"),
        ({"codecs": {"bmshj2018-hyperprior-vbr": (8,)}}, "there are 1, 2"),
        ({"codecs": {"bmshj2018-hyperprior": (True,)}}, "whole number"),
        ({"codecs": {"bmshj2018-hyperprior": ("1",)}}, "whole number"),
        ({"codecs": ["jpeg"]}, "codecs must be a mapping"),
        ({"codecs": {"no_such_module:f": (1,)}}, "can import that module"),
        ({"codecs": {"nic_helpers.sweep.unit:nothing": (1,)}}, "has no function 'nothing'"),
        ({"targets": {"jpeg": (300,)}}, "no quality 300"),
        ({"targets": {"jpg": (30,)}}, "unknown codec 'jpg'"),
        ({"targets": {"jpeg": ()}}, "targets"),
        ({"ensembles": {"both": []}}, "ensembles, 'both'"),
        ({"ensembles": {"both": ["jpeg"]}}, "ensembles: 'both'"),
        ({"ensembles": {"both": [("jpeg", 0)]}, "attacks": {"noise": attacks.RandomNoise(EPS)}}, "no quality 0"),
        ({"codecs": {"jpeg": (30,)}}, "jpeg has no gradient, which FGSM needs"),
        ({"weights": "zo"}, "no weights at zo"),
        ({"weights": ()}, "weights"),
        ({"weights": 3}, "weights"),
        ({"weights": "random-start-3"}, "no weights"),
        ({"attacks": {"PGD": "PGD"}}, "'PGD' must be an attack"),
        ({"attacks": {"PGD": attacks.PGD}}, "'PGD' must be an attack"),
        ({"attacks": [attacks.FGSM(EPS)]}, "attacks must be a mapping"),
        ({"objectives": {"rate": Rate}}, "'rate' must be an objective"),
        ({"objectives": {"rate": "rate"}}, "'rate' must be an objective"),
        ({"defences": {"blur": "blur"}}, "'blur' must be a function"),
        ({"budgets": 8 / 255}, "budgets must be a sequence"),
        ({"budgets": (float("nan"),)}, "budgets"),
        ({"budgets": ("8/255",)}, "budgets"),
        ({"seeds": 3}, "seeds must be a sequence"),
        ({"seeds": (0.5,)}, "seeds must be a whole number"),
        ({"seeds": range(0)}, "seeds"),
        ({"seeds": (-1,)}, "seeds"),
        ({"limit": 0}, "limit must be a whole number, 1 or more"),
        ({"limit": -1}, "limit"),
        ({"limit": 1.5}, "limit"),
        ({"crop": 0}, "crop"),
        ({"crop": 8}, "crop must be a whole number, 16 or more"),
        ({"crop": "64"}, "crop"),
        ({"first": -1}, "first"),
        ({"first": 6}, "none of the 6 images"),
        ({"every": 0}, "every"),
        ({"every": 1.5}, "every"),
        ({"shard": 2.5}, "shard"),
        ({"verify": -1}, "verify"),
        ({"measures": ("vmaf", "psnr")}, "measures must be a sequence of psnr"),
        ({"measures": ("ssim",)}, "'psnr' among them"),
        ({"measures": "psnr"}, "measures must be a sequence"),
        ({"measures": 3}, "measures must be a sequence"),
        ({"images": 3}, "images must be"),
        ({"images": "kodka"}, "no such folder: kodka"),
    ],
)
def test_impossible_grids_are_refused_at_once(changes, says):
    with pytest.raises((ValueError, FileNotFoundError), match=says):
        small(**changes)


def test_numbers_of_numpy_ranges_and_paths_mean_what_they_say(tmp_path):
    for k in range(3):
        to_pil(torch.rand(3, 32, 32)).save(tmp_path / f"{k}.png")
    plain = small(
        codecs={"bmshj2018-hyperprior": (1, 3)},
        targets={"jpeg": (30,)},
        images=str(tmp_path),
        budgets=(4 / 255, EPS),
        seeds=(0, 1),
        crop=32,
        limit=2,
        shard=1,
        first=1,
    )
    given = small(
        codecs={"bmshj2018-hyperprior": np.array([1.0, 3.0])},
        targets={"jpeg": np.array([30])},
        images=tmp_path,
        budgets=np.array([4, 8]) / 255,
        seeds=(s for s in np.arange(2)),
        crop=np.int64(32),
        limit=np.int32(2),
        shard=np.int64(1),
        first=np.int64(1),
    )
    assert [u.key for u in given.units()] == [u.key for u in plain.units()]
    assert given.units()[0].images == ("1.png",) and len(given.units()) == 16
    file = checkpoints_dir() / "bmshj2018-hyperprior-q3.safetensors"
    (unit,) = small(codecs={"bmshj2018-hyperprior": (3,)}, weights=file).units()
    assert unit.weights == str(file)
    with pytest.raises(FileNotFoundError):  # a folder of that name, and not the images
        small(images=Path("kodak"))


def test_a_defence_may_give_a_classical_codec_its_gradient():
    assert small(codecs={"jpeg": (30,)}, defences={"bpda": attacks.BPDA}).units()


def test_a_unit_s_rows_say_what_was_done_and_by_what():
    (unit,) = small(attacks={"PGD": attacks.PGD(EPS, steps=3)}).units()
    rows = run_unit(unit)
    assert len(rows) == unit.rows == 2 and list(rows["image"]) == list(unit.images)
    assert set(rows["decoded"]) == {True, False} and (rows["gradients"] == 3).all() and (rows["eps_255"] == 8).all()
    assert (rows["unit"] == unit.key).all() and rows["weights_sha256"].str.len().eq(12).all()
    assert rows["versions"].str.contains("nic_helpers .*torch .*compressai .*Python").all() and (rows["rss_mib"] > 50).all()
    x = torch.stack([images_of("bundled", 48)[n] for n in unit.images])
    codec = load_codec("bmshj2018-hyperprior", 1, device="cpu")
    x_adv = unit.attack(codec, x).x_adv  # the very image is known by its hash, on whatever it is measured
    hashes = [hashlib.sha256(to_uint8(image).tobytes()).hexdigest()[:12] for image in x_adv]
    elsewhere = small(attacks={"PGD": attacks.PGD(EPS, steps=3)}, targets={"jpeg": (30,), "bmshj2018-hyperprior": (1,)})
    assert list(rows["x_adv_sha256"]) == hashes and list(run_unit(elsewhere.units()[0])["x_adv_sha256"]) == hashes * 2
    again = run_unit(unit).drop(columns=["seconds", "rss_mib"])
    assert rows.drop(columns=["seconds", "rss_mib"]).equals(again)


def test_an_attack_on_one_codec_is_measured_on_others():
    rows = run_unit(small(targets={"bmshj2018-hyperprior": (1, 6), "jpeg": (30,)}, limit=1).units()[0])
    assert list(zip(rows["codec"], rows["quality"], strict=True)) == [
        ("bmshj2018-hyperprior", 1),
        ("bmshj2018-hyperprior", 6),
        ("jpeg", 30),
    ]
    assert rows["psnr_input"].nunique() == 1 and (rows["attacked"] == "bmshj2018-hyperprior 1").all()
    assert rows["psnr_recon"][0] < rows["psnr_recon"][1]


def test_contestants_that_attack_together_do_so_once():
    together = Contestant(attacks.ARDA(EPS, steps=3), together=True)
    g = small(codecs={"bmshj2018-hyperprior": (1, 6)}, attacks={"ARDA": together, "FGSM": attacks.FGSM(EPS)}, limit=1)
    assert [(u.label, u.name) for u in g.units()] == [
        ("bmshj2018-hyperprior 1", "FGSM"),
        ("bmshj2018-hyperprior 6", "FGSM"),
        ("bmshj2018-hyperprior 1+6", "ARDA"),
    ]
    rows = run_unit(g.units()[-1])
    assert list(rows["quality"]) == [1, 6] and rows["linf"].nunique() == 1


def test_ensembles_are_attacked_as_one():
    members = [("bmshj2018-hyperprior", 1), ("bmshj2018-hyperprior", 6)]
    (unit,) = small(codecs={}, ensembles={"both": members}, limit=1).units()
    assert unit.attacked == tuple(members) and len(run_unit(unit)) == 2


def test_a_codec_that_does_not_decode_what_it_encoded_is_found(monkeypatch):
    (unit,) = small(codecs={"jpeg": (30,)}, attacks={"noise": attacks.RandomNoise(EPS)}).units()
    of_units._clean.cache_clear()
    codec = of_units.codec_at("jpeg", 30, "bundled")
    decode = codec.decode
    monkeypatch.setattr(codec, "decode", lambda streams: 1 - decode(streams))
    with pytest.raises(RuntimeError, match="something else than it encoded"):
        run_unit(unit)


def test_weights_or_pixels_that_changed_since_the_plan_are_noticed(monkeypatch):
    (unit,) = small(limit=1).units()
    other = {n: 1 - x for n, x in of_units.images_of("bundled", 48).items()}
    of_units.image_of.cache_clear()
    with monkeypatch.context() as changed:
        changed.setattr(of_units, "images_of", lambda source, crop: other)
        with pytest.raises(RuntimeError, match="not those that this unit was planned with"):
            run_unit(unit)
    of_units.image_of.cache_clear()
    codec = of_units.codec_at("bmshj2018-hyperprior", 1, "bundled")
    monkeypatch.setattr(codec, "weights", dataclasses.replace(codec.weights, sha256="0" * 64))
    with pytest.raises(RuntimeError, match="not those that this unit was planned with"):
        run_unit(unit)


def test_of_a_folder_only_the_chosen_images_are_read_and_only_their_crops_kept(tmp_path, monkeypatch):
    for k in range(6):
        to_pil(torch.rand(3, 80, 96)).save(tmp_path / f"{k}.png")
    read, really = [], image_sets.load_image
    monkeypatch.setattr(image_sets, "load_image", lambda path: read.append(path.name) or really(path))
    (unit,) = small(images=str(tmp_path), first=1, every=2, limit=2, attacks={"n": attacks.RandomNoise(EPS)}).units()
    assert unit.images == ("1.png", "3.png") and read == list(unit.images)
    rows = run_unit(unit)
    assert list(rows["image"]) == list(unit.images) and set(read) == set(unit.images)
    batch = of_units._batch(str(tmp_path), 48, unit.images)
    assert len(read) == 4 and batch.shape == (2, 3, 48, 48)  # read for the plan, and once for the work
    assert of_units.image_of(str(tmp_path), 48, "1.png").untyped_storage().nbytes() == 3 * 48 * 48 * 4
    (tmp_path / "3.png").unlink()
    of_units.image_of.cache_clear()
    with pytest.raises(FileNotFoundError, match=r"3\.png"):
        run_unit(unit)


@pytest.mark.parametrize(
    "attack, gradients",
    [
        (attacks.RandomNoise(EPS), 0),
        (attacks.FGSM(EPS, restarts=3), 3),
        (attacks.PGD(EPS, steps=5, restarts=2), 10),
        (attacks.APGD(EPS, steps=7), 7),
        (attacks.SRDA(EPS, steps=4), 4),
        (attacks.FTDA(EPS, steps=6), 6),
        (attacks.Square(EPS, queries=30), 10),
        (attacks.Continuation(EPS, steps=5, restarts=2), 10),
        (attacks.SRDA(EPS, steps=2, angle=0.0), 6),
        (attacks.SpectralNoise(EPS, like=attacks.PGD(EPS, steps=3)), 3),
    ],
)
def test_the_expected_cost_is_what_an_attack_takes(attack, gradients, hyperprior, x):
    assert expected_gradients(attack) == gradients
    if attack.needs_gradient:
        assert attack(hyperprior, x[:1]).gradients <= gradients


@pytest.mark.parametrize("name", NAMES)
def test_the_course_s_studies_are_grids_at_every_profile(name, monkeypatch):
    images = dict.fromkeys(map(str, range(24)), torch.zeros(3, 64, 64))
    for module in (of_units, grids):
        monkeypatch.setattr(module, "weights_sha256_of", lambda *a: "0" * 64)  # the zoo's are not needed to plan
        monkeypatch.setattr(module, "images_of", lambda source, crop: images)
    counts = [sum(len(g.units()) for g in studies.grids_of(name, p)) for p in PROFILES]
    assert 0 < counts[0] < counts[1] < counts[2]
    units = [u for g in studies.grids_of(name, "standard") for u in g.units()]
    codecs, qualities = ({c[k] for u in units for c in u.attacked} for k in (0, 1))
    one_codec = {"start": 2, "defences": 1}  # and so many qualities
    found = (len(codecs), len(qualities))
    assert found == (1, one_codec[name]) if name in one_codec else min(found) >= (1 if name == "trained" else 3)
    with pytest.raises(ValueError, match="there are robustness, eight, transfer, strength"):
        studies.grids_of("nonsense", "quick")


def test_a_codec_of_ones_own_enters_a_sweep_by_name(tmp_path, monkeypatch):
    (tmp_path / "codecs_of_mine.py").write_text("""
from nic_helpers.codecs.files import CommandCodec, ffmpeg

def mjpeg(quality):
    return CommandCodec("mjpeg", [ffmpeg(), "-v", "error", "-i", "{source}", "-q:v", "{quality}", "{stream}"],
                        [ffmpeg(), "-v", "error", "-i", "{stream}", "{picture}"], quality, suffix="jpg")
""")
    monkeypatch.syspath_prepend(tmp_path)
    mine = Grid(codecs={"codecs_of_mine:mjpeg": (4,)}, attacks={"noise": attacks.RandomNoise(EPS)}, crop=64, limit=1)
    rows = of_units.run_unit(mine.units()[0])
    assert list(rows["codec"]) == ["mjpeg"] and rows["quality"].dtype == float and rows["bpp_clean"].iloc[0] > 0
    assert "imageio-ffmpeg" in rows["versions"].iloc[0]


def test_a_defence_draws_for_an_attacked_image_what_it_draws_for_the_image():
    one, other = small(defences={"nested": bits_of_flip, "flip": defences.Flip(seed=3)}, shard=2).units()
    assert one.key != other.key and one.defence == "nested"
    rows = run_unit(one)
    x = torch.stack([images_of("bundled", 48)[n] for n in one.images])
    codec = bits_of_flip(load_codec("bmshj2018-hyperprior", 1, device="cpu"))
    x_adv, known = one.attack(codec, x).x_adv, codec.for_images(x)
    assert [s[3] for s in known.encode(x_adv)] == [s[3] for s in codec.encode(x)]  # Flip's way, behind BitDepth's three bytes
    assert list(rows["bpp_attacked"]) == [8 * len(s) / 48**2 for s in known.encode(x_adv)]
    assert list(rows["bpp_clean"]) == [8 * len(s) / 48**2 for s in codec.encode(x)] and rows["decoded"].iloc[0]


def test_weights_are_an_axis_too():
    both = Grid(
        codecs={"bmshj2018-hyperprior": (3,)},
        attacks={"noise": attacks.RandomNoise(EPS)},
        crop=32,
        limit=1,
        weights=("bundled", "zoo"),
    )
    units = both.units()
    assert [u.weights for u in units] == ["bundled", "zoo"] and len({u.key for u in units}) == 2


def test_an_attacker_may_see_less_than_is_measured():
    attack = {"PGD": attacks.PGD(8 / 255, steps=2)}
    image = images_of("bundled", 48)["astronaut"]
    how = next(f for s in range(9) if (f := defences.Flip(seed=s))(load_codec("bmshj2018-hyperprior", 1)).choice(image) == 1)
    kinds = {"adaptive": how, "static": Faced(how), "other draws": Faced(how, OtherDraws(how, 2)), "bare": None}
    units = {u.defence: u for u in small(attacks=attack, defences=kinds, limit=1).units()}
    assert len({u.key for u in units.values()}) == 4
    rows = {name: run_unit(u).iloc[0] for name, u in units.items()}
    assert rows["static"]["x_adv_sha256"] == rows["bare"]["x_adv_sha256"] != rows["adaptive"]["x_adv_sha256"]
    assert rows["other draws"]["x_adv_sha256"] not in {rows["static"]["x_adv_sha256"], rows["adaptive"]["x_adv_sha256"]}
    assert (
        rows["static"]["psnr_clean"] == rows["adaptive"]["psnr_clean"] and rows["static"]["bpp_clean"] > rows["bare"]["bpp_clean"]
    )


def test_a_choice_is_attacked_in_all_its_ways():
    how = defences.TwoWay()
    (unit,) = small(
        attacks={"FGSM": attacks.FGSM(EPS)}, defences={"every way": Faced(how, defences.EveryWay(how))}, limit=1
    ).units()
    codec, x = load_codec("bmshj2018-hyperprior", 1), images_of("bundled", 48)["astronaut"][None]
    plain, turned = defences.EveryWay(how)(codec)
    assert torch.equal(plain.reconstruct(x), codec.reconstruct(x))
    torch.testing.assert_close(turned.reconstruct(x), codec.reconstruct(x.flip((2, 3))).flip((2, 3)))
    assert run_unit(unit).iloc[0]["gradients"] == 1
