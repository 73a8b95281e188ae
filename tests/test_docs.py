import importlib.util
import re
from unittest import mock

import pandas as pd
import pytest
import torch

from nic_helpers import attacks, load_codec, stats
from nic_helpers.codecs import ARCHITECTURES
from nic_helpers.codecs.base import MEMBERS
from nic_helpers.course import beside, robust, trained
from nic_helpers.course.grids import ARCHS, LIMIT
from nic_helpers.images import to_8bit
from nic_helpers.objectives import Rate
from nic_helpers.settings import PROJECT, data_dir

PAGE, CODECS = (PROJECT / "docs" / f"adding-{what}.md" for what in ("an-attack", "a-codec"))
EPS = 8 / 255


def ran(path):
    """What a page's Python blocks define, run one after another."""
    names = {"__name__": path.stem.replace("-", "_")}
    with mock.patch.dict(ARCHITECTURES):  # a page may register one
        for block in re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), re.M | re.S):
            exec(compile(block, str(path), "exec"), names)
    return names


@pytest.fixture(scope="module")
def page():
    return ran(PAGE)


def test_the_page_is_short_and_its_calls_exist():
    text = PAGE.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 60
    known = set(attacks.Problem.__dataclass_fields__) | set(dir(attacks.Problem))
    assert set(re.findall(r"\bp\.(\w+)", text)) <= known
    assert set(re.findall(r"\bstate\.(\w+)", text)) <= set(attacks.Ascent.__dataclass_fields__) | set(dir(attacks.Ascent))


def test_the_page_runs_and_its_attack_beats_noise_inside_the_budget(page):
    assert (page["result"].objective > page["noise"].objective).all()
    assert page["result"].linf.max() <= EPS + 1e-6 and page["result"].gradients == 10


def test_the_new_attack_is_a_whole_one(page, hyperprior, cheng, x):
    attack = page["NIFGSM"](EPS, steps=6)
    for codec, objective in ((hyperprior, None), (cheng, None), (hyperprior, Rate())):
        result, noise = attack(codec, x, objective), attacks.RandomNoise(EPS, kind="sign")(codec, x, objective)
        assert result.objective.mean() > noise.objective.mean()
        assert torch.equal(result.x_adv, to_8bit(result.x_adv)) and result.linf.max() <= EPS + 1e-6
    for other in ({"norm": "l2rms"}, {"surrogate": "ste"}, {"alpha": 2 / 255, "mu": 0.5}):
        result = attack.with_(**other)(hyperprior, x)
        assert result.objective.min() > 0 and result.rms.max() <= EPS * 1.0001
    with torch.backends.mkldnn.flags(enabled=False):
        together, alone = attack(hyperprior, x), attack(hyperprior, list(x))
        assert torch.equal(together.x_adv, torch.stack(alone.x_adv))
    several = attack([hyperprior, load_codec("bmshj2018-hyperprior", 6, device="cpu")], x[:1])
    assert several.linf.max() <= EPS + 1e-6 and several.objective.min() > 0


def test_the_new_attack_is_mi_fgsm_without_momentum_and_another_with_it(page, hyperprior, x):
    def images(attack):
        return attack(hyperprior, x).x_adv

    settings = {"alpha": 2 / 255, "steps": 4}
    assert torch.equal(images(page["NIFGSM"](EPS, mu=0.0, **settings)), images(attacks.IFGSM(EPS, **settings)))
    assert not torch.equal(images(page["NIFGSM"](EPS, **settings)), images(attacks.MIFGSM(EPS, **settings)))


def test_the_page_on_codecs_names_all_that_a_codec_has_and_runs():
    text = CODECS.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 100
    assert not {m for m in MEMBERS if not re.search(rf"`[^`]*\b{m}\b[^`]*`", text)}
    page = ran(CODECS)
    assert page["found"].objective.min() > 0 and page["found"].linf.max() <= EPS + 1e-6
    assert page["row"]["bpp_clean"].gt(0).all() and page["row"]["psnr_recon"].lt(60).all()
    smoothed, x, naked = page["smoothed"], page["x"], page["naked"]
    torch.testing.assert_close(smoothed.decode(smoothed.encode(x)), smoothed.reconstruct(x), atol=1e-5, rtol=0)
    assert not torch.equal(smoothed.reconstruct(x), naked.reconstruct(x)) and smoothed.name == naked.name
    red = page["Red"]().bind(smoothed, x, None)
    assert (page["redder"].objective > red(x)).all()


def test_the_page_on_scaling_runs(tmp_path, monkeypatch):
    text = (PROJECT / "docs" / "scaling.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(block, "scaling.md", "exec"), names)
    assert len(names["rows"]) == 3 * 2 * 2 and (tmp_path / "build" / "sweep" / "example" / "rows").is_dir()


def benchmark(name):
    """A script of the folder benchmarks as a module."""
    spec = importlib.util.spec_from_file_location(name, PROJECT / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_decision_page_says_what_its_rows_say():
    decision = benchmark("decision")
    text = decision.PAGE.read_text(encoding="utf-8")
    assert decision.page(text) == text, "python benchmarks/decision.py --write writes its numbers anew"
    assert "docs/should-you-trust-it.md" in (PROJECT / "README.md").read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        assert (decision.PAGE.parent / target).exists(), target


def test_the_page_on_strength_says_what_its_rows_say():
    strength = benchmark("strength")
    rows = strength.rows(None)
    assert strength.page(rows) == strength.PAGE.read_text(encoding="utf-8"), "python benchmarks/strength.py --write renews it"
    review = strength.beside_review(rows)
    assert (review["ours (dB)"] < review["review (dB)"] + 0.3).all() and review["met"].sum() >= 13


def test_the_threat_model_says_what_its_rows_say():
    worst_case = benchmark("worst_case")
    rows = pd.read_csv(PROJECT / "data" / "results" / worst_case.RESULTS)
    text = worst_case.PAGE.read_text(encoding="utf-8")
    assert worst_case.page(text, rows) == text, "python benchmarks/worst_case.py --page writes the table anew"
    assert len(text.splitlines()) <= 110
    assert "docs/threat-model.md" in (PROJECT / "README.md").read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        assert (worst_case.PAGE.parent / target).exists(), target
    learned = rows[rows["codec"].isin(ARCHITECTURES)].set_index(["codec", "input"])
    size, seconds = (learned[c].unstack() for c in ("bytes_per_pixel", "decode_seconds_per_megapixel"))
    outcome = learned["outcome"].unstack()
    assert set(learned.index.levels[0]) == {c.name for c in worst_case.finest()} & set(ARCHITECTURES)
    assert (size["noise"] > size["clean"]).all() and (size["rate attack"] > 2 * size["noise"]).sum() >= 2
    assert rows["bytes_per_pixel"].max() < 3
    decoded = seconds.drop(columns="damaged")
    assert (decoded.max(axis=1) < 1.3 * decoded["clean"]).all() and (seconds["damaged"] < 0.01).all()
    classical = rows[~rows["codec"].isin(ARCHITECTURES)]["decode_seconds_per_megapixel"]
    assert classical.max() < decoded.to_numpy().min() / 3
    assert (outcome["damaged"] == "refused").all() and set(outcome["resealed"]) == {"decoded", "not a number"}
    jpeg = rows[(rows["codec"] == "jpeg") & (rows["input"] == "damaged")]
    assert jpeg["outcome"].item() == "decoded" and jpeg["psnr"].item() < 100


def test_what_the_readme_finds_is_what_the_rows_say():
    """The numbers of its section "What it finds" that come from the robustness study; its other sentences are claims of the notebooks."""
    text = " ".join((PROJECT / "README.md").read_text(encoding="utf-8").split())
    rows = robust.committed()
    file = robust.strongest(rows[rows["eps_255"] == 8], "file").groupby(["codec", "quality"])
    clean, attacked = (file[c].max() / file[c].min() for c in ("bpp_clean", "bpp_attacked"))
    assert f"on sixteen pictures at most {attacked.max():.1f} times apart, where clean ones are up to {clean.max():.1f}" in text
    assert (file["image"].nunique() == 16).all()
    changed = (PROJECT / "docs" / "claims-changed.md").read_text(encoding="utf-8")
    assert f"on sixteen pictures up to {attacked.max():.1f} times apart" in changed
    both = beside.table(rows[rows["eps_255"] == 8]).set_index(["attack", "quantity", "codec"]).sort_index()
    rise = both.loc[("SRDA", "dD_mean")]
    ours, theirs, more = rise["ours"], rise["theirs"], rise["theirs"] / rise["ours"]
    said = f"rise by {ours.min():.0f} to {ours.max():.0f} on the mean over qualities, theirs by {theirs.min():.0f} to {theirs.max():.0f}"
    assert f"{said}: {more.min():.1f} to {more.max():.1f} times as much" in changed and len(rise) == 4
    grown = both.loc[("ARDA", "dR_mean", "mbt2018")]
    assert grown["ours"] > 2 * grown["theirs"] and "mbt2018's file grows by more than twice as much here" in changed
    assert f"by up to {file['bpp_ratio'].max().max():.0f} times at 8/255" in text
    record = rows[(rows["eps_255"] == 16) & (rows["attack"] == "continuation")]
    gdn = record[(record["quality"] == 6) & ~record["codec"].str.startswith("cheng")]
    assert "every picture of the four GDN codecs at quality 6 ends below 15 dB" in text
    assert gdn["codec"].nunique() == 4 and (gdn["psnr_recon"] < 15).all()
    full = pd.read_csv(PROJECT / "data" / "results" / "08_jpegai.csv").query("attack == 'continuation, ball' and eps_255 == 8")
    assert (full[full["codec"] == "jpegai-vm33"]["psnr_recon"] < 15).all() and "So do JPEG AI's transforms" in text
    adam = pd.read_csv(PROJECT / "data" / "results" / "05_optimisers.csv").query("quality == 6 and attack == 'distortion'")
    lost = adam.groupby("optimiser")["delta_own"].mean()
    assert (
        f"quality 6 {lost['steepest']:.1f} dB of its own PSNR when it climbs along the gradient, and {lost['adam']:.1f} dB" in text
    )


def test_what_the_readme_says_of_quality_and_of_the_two_questions_is_what_the_rows_say():
    text = " ".join((PROJECT / "README.md").read_text(encoding="utf-8").split())
    rows = robust.committed()

    def cells(eps, kind, value, worst):
        part = robust.shared(rows[rows["eps_255"] == eps], LIMIT[kind])
        return part.groupby(["codec", "quality", "image"])[value].agg(worst).unstack()

    def more(table, codec, quality):  # by how much the coarsest quality exceeds this one, image by image
        return stats.bootstrap((table.loc[(codec, 1)] - table.loc[(codec, quality)]).to_numpy())

    cheng = [c for c in ARCHS if c.startswith("cheng")]
    gdn = [c for c in ARCHS if c not in cheng]
    apart = cells(8, "box", "psnr_recon", "min")
    assert "how far the outputs move (less than 2 dB)" in text
    assert all(abs(more(apart, c, 6).mean) < 2 for c in ARCHS)
    assert "owner's loss rises from 1.5 dB at the coarsest to 5 to 7 at the finest" in text
    loss = cells(8, "box", "delta_source", "max").mean(axis=1).unstack()
    assert loss[1].between(1.4, 1.7).all() and loss[6].between(4.5, 7.5).all()
    apart = cells(16, "box", "psnr_recon", "min")
    assert "the finest quality ends 7 dB or more further apart than the coarsest with each GDN codec" in text
    assert len(gdn) == 4 and min(more(apart, c, 6).mean for c in gdn) > 7
    assert "not surely further with the Cheng2020 ones (their middle quality does)" in text
    assert all(more(apart, c, 6).low < 0 < more(apart, c, 3).low for c in cheng)
    across = robust.two_questions(rows)
    loss, apart = (cells(8, "box", *q).mean(axis=1) for q in (("delta_source", "max"), ("psnr_recon", "min")))
    assert across.loc["box", 8] == pytest.approx(loss.corr(-apart, "spearman")) == pytest.approx(-0.15, abs=0.005)
    assert [across.loc[k] for k in (("box", 16), ("ball", 8), ("ball", 16))] == pytest.approx([0.8] * 3, abs=0.05)
    assert "rank correlation −0.15" in text and "0.8 in the balls of 8/255 and 16/255 and in the box of 16/255" in text
    old = robust.old_and_mended().query("bound == 'ball' and quality == 6").groupby("codec")[["old", "mended"]].mean()
    further = old["old"] - old["mended"]
    assert "seven decibels further apart than the older ones did, and Cheng2020's two" in text
    assert further[gdn].between(6.5, 7.5).all() and further[cheng].between(1.5, 2.5).all()


def test_the_page_on_the_start_has_its_rows():
    text = (PROJECT / "docs" / "the-start.md").read_text(encoding="utf-8")
    rows = pd.read_parquet(benchmark("start").ROWS).query("quality == 3")
    of = {"picture, box": "continuation", "picture, ball": "continuation, ball", "file, box": "PGD rate", "file, ball": "SRDA rate"}
    column = {"outputs": "psnr_recon", "the owner's": "delta_source", "growth": "bpp_ratio"}
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    head = next(k for k, line in enumerate(lines) if line[0] == "attack")
    bound = eps = ""
    for k in range(head + 2, head + 2 + 18):
        first, level, what, *said = lines[k]
        bound, eps = first or bound, level or eps
        value = next(c for words, c in column.items() if what.startswith(words))
        part = rows[(rows["attack"] == of[bound]) & (rows["eps_255"] == float(eps.split("/")[0]))]
        wide = part.pivot(index="image", columns="weights", values=value)
        gap = stats.paired_bootstrap(wide["bundled"], wide["random-start"])
        numbers = re.findall(r"-?\d+\.\d+", " ".join(said).replace("−", "-"))
        expected = [wide["bundled"].mean(), wide["random-start"].mean(), gap.mean, gap.low, gap.high]
        for number, value in zip(numbers, expected, strict=True):
            assert abs(float(number) - value) <= 0.501 * 10 ** -len(number.split(".")[1]), lines[k]


def test_what_training_on_without_attacks_did_is_what_the_rows_say():
    rows = pd.read_parquet(PROJECT / "data" / "results" / "12_trained.parquet")
    rows = rows[(rows["codec"] == "bmshj2018-hyperprior") & (rows["quality"] == 3) & (rows["eps_255"] == 8)]
    seen = rows[rows["attack"].isin(trained.SEEN) & ~rows["attack"].str.contains("rate")]
    worst = seen.groupby(["weights", "image"])["delta_own"].max().unstack(0)
    lost = stats.bootstrap(worst["trained-on"] - worst["bundled"])
    since, before = ((worst[w] - worst["robust"]).mean() for w in ("trained-on", "bundled"))
    page, readme = ("".join((PROJECT / p).read_text(encoding="utf-8").split()) for p in ("docs/the-start.md", "README.md"))
    assert f"itloses{lost.mean:.2f}dBmoreofitsownPSNR[{lost.low:.2f},{lost.high:.2f}]" in page
    assert f"(FTDA's)itspares{(worst['bundled'] - worst['robust-ftda']).mean():.1f}dB" in readme
    assert f"weaker,by{lost.mean:.1f}dB" in readme and f"isworth{since:.1f}dB,not{before:.1f}" in readme
    kept = seen.groupby(["weights", "image"])["psnr_own"].min().unstack(0)
    ahead = stats.bootstrap(kept["random-start"] - kept["robust"])
    assert f"keeps{ahead.mean:.1f}dBmoreofitsownPSNR" in readme and ahead.low > 0
    apart = seen.groupby(["weights", "image"])["psnr_recon"].min().unstack(0)
    gap = stats.bootstrap(apart["random-start"] - apart["robust"])
    assert gap.low < 0 < gap.high and "movethetwocannotbetoldapart,anditsfilegrowsfurther" in readme
    file = rows[rows["attack"].isin(trained.SEEN) & rows["attack"].str.contains("rate|both")]
    grown = file.groupby(["weights", "image"])["bpp_ratio"].max().unstack(0)
    assert stats.bootstrap(grown["random-start"] - grown["robust"]).low > 0


def test_the_page_on_the_start_says_what_its_singular_values_are():
    text = (PROJECT / "docs" / "the-start.md").read_text(encoding="utf-8")
    rows = pd.read_csv(PROJECT / "data" / "results" / "start_jacobians.csv")
    first = rows[rows["rank"] == 1].pivot_table("value", "weights", "transform")
    for weights, name in (("bundled q3", "bundled, quality 3"), ("random-start q3", "random start, quality 3")):
        values = " | ".join(f"{first.loc[weights, t]:.2f}" for t in ("analysis", "synthesis", "both"))
        assert f"| {name} | {values} |" in text
    along = pd.read_csv(PROJECT / "data" / "results" / "start_along.csv").sort_values("steps")
    for what in ("psnr", "box: outputs apart (dB)"):
        assert along[what].is_monotonic_increasing and f"{along[what].iloc[-1]:.1f} |" in text


def test_the_page_of_all_attacks_has_its_rows_and_says_what_they_say():
    rows = pd.read_csv(data_dir() / "results" / "all_attacks.csv")
    text = (PROJECT / "docs" / "all-attacks.md").read_text()
    mean = rows.groupby(["codec", "attack"])[["psnr_recon", "bpp_ratio"]].mean()
    for codec, part in mean.groupby(level="codec"):
        apart, file = part.droplevel("codec")["psnr_recon"], part.droplevel("codec")["bpp_ratio"]
        assert f"| continuation (l2rms) | {apart['continuation (l2rms)']:.2f} [" in text, codec
        box = apart[[f"{n} (linf)" for n in ("PGD", "I-FGSM", "APGD", "MI-FGSM", "DI-FGSM", "continuation", "PGD, 3 restarts")]]
        assert box.max() - box.min() < 0.5 and apart["FGSM (linf)"] - box.min() < 1
        assert 1 <= round(apart["PGD, straight-through (linf)"] - apart["PGD (linf)"], 1) <= 2.2
        ball = apart[apart.index.str.endswith("(l2rms)")]
        assert ball.idxmin() == "continuation (l2rms)"
        one = apart["FGSM (l2rms)"]
        assert "cheng" in codec or 5.5 < one - ball.min() < 7
        assert all(abs(one - apart[f"{n} (l2rms)"]) < 1 for n in ("FTDA", "SSAH"))
        assert file["SRDA, 0°"] == pytest.approx(file["PGD on the rate, rms"], rel=0.05)
    added = mean["bpp_ratio"].xs("SRDA, 0°", level="attack") - 1
    assert 0.05 < added["bmshj2018-hyperprior"] / added["mbt2018"] < 0.15
