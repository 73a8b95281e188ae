import dataclasses
import json

import pytest
import torch
from test_training import final, folder, interrupt_at  # noqa: F401

from nic_helpers.codecs.checkpoints import read_weights
from nic_helpers.codecs.registry import ARCHITECTURES
from nic_helpers.training.data import Crops
from nic_helpers.training.export import export, read_run
from nic_helpers.training.recipes import read_recipe
from nic_helpers.training.run import train
from nic_helpers.training.settings import Settings
from nic_helpers.training.teacher import take_over, teacher_of

WACNN = Settings("zou2022-wacnn", 3, (8, 24, 4, 2, 8), steps=1, batch=2, crop=64, lr=1e-9, bf16=False, start="random")


@pytest.fixture(scope="module")
def taught(folder, tmp_path_factory):  # noqa: F811
    """A teacher's weights, and the settings of one that learns from it, with other transforms."""
    at = tmp_path_factory.mktemp("teacher")
    export(train(WACNN, folder, at), weights := at / "weights.safetensors")
    return weights, Settings(
        "zou2022-stf",
        3,
        (3, 4, 2, 8, 2),
        24,
        2,
        64,
        4e-3,
        bf16=False,
        mixed=True,
        optimiser="muon",
        start="random",
        teacher=str(weights),
    )


def test_the_analysis_comes_to_give_the_teacher_s_latents_and_the_synthesis_to_read_them(taught, folder, tmp_path):  # noqa: F811
    weights, settings = taught
    x = Crops(folder).batch(4, 64, 7, 1)
    _, teacher, _ = read_run(weights)
    missed = []
    for steps in (1, settings.steps):
        _, model, _ = read_run(train(dataclasses.replace(settings, steps=steps), folder, tmp_path / str(steps)))
        with torch.no_grad():
            y = teacher.g_a(x)
            missed.append([float((model.g_a(x) - y).square().mean()), float((model.g_s(y) - x).square().mean())])
    assert missed[1][0] < 0.7 * missed[0][0] and missed[1][1] < 0.9 * missed[0][1]
    stage = json.loads(read_weights(tmp_path / str(steps) / "weights.safetensors").card["stages"])[0]
    assert stage["teacher"] == str(weights) and stage["start"] == "random"


def test_what_fits_of_the_entropy_model_is_taken_over(taught):
    _, settings = taught
    model = ARCHITECTURES[settings.arch].build(*settings.widths)
    teacher = teacher_of(settings, model)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    names = take_over(model, teacher)
    theirs = dict(teacher.model.named_parameters())
    assert {n.split(".")[0] for n in names} >= {"h_a", "cc_mean_transforms", "lrp_transforms", "entropy_bottleneck"}
    assert all(torch.equal(p, theirs[n] if n in names else before[n]) for n, p in model.named_parameters())
    assert not any(p.requires_grad for p in theirs.values())


def test_such_a_run_resumes_exactly(taught, folder, tmp_path):  # noqa: F811
    settings = dataclasses.replace(taught[1], steps=2)
    whole = final(train(settings, folder, tmp_path / "a", every=1))
    with pytest.raises(KeyboardInterrupt):
        train(settings, folder, tmp_path / "b", every=1, on_step=interrupt_at(1))
    resumed = final(train(settings, folder, tmp_path / "b", every=1))
    assert all(torch.equal(whole[k], v) for k, v in resumed.items())


@pytest.mark.parametrize(
    "changes, says",
    [({"quality": 6}, "is of λ = 0.0067"), ({"widths": (6, 4, 2, 8, 2)}, "has 24 latents, zou2022-stf of widths .* 48")],
)
def test_a_teacher_of_another_kind_is_refused(changes, says, taught):
    settings = dataclasses.replace(taught[1], **changes)
    with pytest.raises(ValueError, match=says):
        teacher_of(settings, ARCHITECTURES[settings.arch].build(*settings.widths))


@pytest.mark.parametrize(
    "changes",
    [{"only": "entropy"}, {"against": "rate"}, {"arch": "bmshj2018-hyperprior-vbr", "widths": (8, 12)}],
)
def test_what_a_teacher_does_not_go_with_is_refused(changes, taught):
    with pytest.raises(ValueError, match="a teacher is for all of a codec of one rate"):
        dataclasses.replace(taught[1], **changes)


def test_a_recipe_s_weights_have_no_teacher_of_another_origin(tmp_path):
    """Weights that are to show what a random start does learn from none that began from principal components."""
    path = tmp_path / "r.toml"
    text = '[[run]]\nname = "a"\narch = "mbt2018"\nwidths = [48, 112]\nquality = 3\nsteps = 1\nstart = "random"\nbundle = "{}"\n'
    path.write_text(text.format("random-start") + 'teacher = "bundled/mbt2018/3"\n')
    with pytest.raises(ValueError, match=r"must begin from .*'pca'"):
        read_recipe(path, tmp_path)
    path.write_text(text.format("bundled") + 'teacher = "bundled/mbt2018/3"\n')
    assert read_recipe(path, tmp_path)[0].settings.teacher == "bundled/mbt2018/3"
