"""The decision page: docs/should-you-trust-it.md, every number in it drawn from committed rows.

python benchmarks/decision.py --write     # the page anew from data/results
python benchmarks/decision.py             # print it
"""

from __future__ import annotations

import argparse

import pandas as pd

from nic_helpers import stats
from nic_helpers.course import defended
from nic_helpers.course.trained import SEEN
from nic_helpers.settings import PROJECT, data_dir

PAGE = PROJECT / "docs" / "should-you-trust-it.md"
LEVEL = 16  # of the box in which pictures break, in 8-bit levels
SURELY = 1.0  # dB: what a gain's interval must lie above to be called one


def read(name: str) -> pd.DataFrame:
    """One of the committed tables."""
    path = data_dir() / "results" / name
    return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)


def sentences() -> list[str]:
    """What was learned, each with its interval."""
    rows, worst = read("11_defences.parquet"), read("worst_case.csv")
    found = defended.damage(rows, "picture", LEVEL, "psnr_recon")
    adaptive = found["adaptive"]
    before, after = (defended.gains(found)[who] for who in ("static", "adaptive"))
    helped = [n for n, gain in before.items() if gain.low > SURELY]
    held = sorted((n for n, gain in after.items() if gain.low > SURELY), key=lambda n: -after[n].mean)
    files = defended.damage(rows, "file", LEVEL, "bpp_ratio")["adaptive"]
    verify, cap = rows[rows["defence"] == "verify"], rows[rows["defence"] == "rate cap"]
    largest = worst.loc[worst[worst["codec"].str.contains("20")]["bytes_per_pixel"].idxmax()]
    said = [
        f"**A picture can be broken.** In the box of {LEVEL}/255 the hyperprior at quality 6 decodes the attacked picture to something "
        f"{stats.bootstrap(adaptive['none'])} dB from what it decodes the clean one to ({len(adaptive)} images).",
        f"**A defence is worth what is left of it when it is known.** Of {len(before)} defences {len(helped)} surely gain more than a "
        f"decibel against an attack that was made before they were there, {len(held)} against one that goes through them"
        + (f": {', '.join(f'{n} ({after[n]} dB)' for n in held)}." if held else "."),
        elsewhere(rows, held),
        f"**Checks hold.** `VerifyOrFallBack` sent nothing below {verify['psnr_own'].min():.1f} dB to its input in "
        f"{len(verify)} attacked pictures (the floor is 28), and `RateCap` nothing above {cap['bpp_attacked'].max():.2f} bits a pixel "
        "(the cap is 2.5). But who aims at the check makes it fall back, and the file grow up to "
        f"{verify[verify['attack'] == 'picture, adaptive']['bpp_ratio'].max():.0f} times: set a cap beside the floor.",
        f"**A file can be blown up.** The same codec's files grow {stats.bootstrap(files['none'])} times in that box. The worst of "
        f"all codecs, {largest['codec']}, writes {largest['bytes_per_pixel']:.2f} bytes a pixel.",
    ]
    return [*said, trained()]


def elsewhere(rows: pd.DataFrame, held: list[str]) -> str:
    """The sentence on other budgets and the other bound."""
    won = defended.worth(rows, held)
    at_4 = [n for n in held if won.loc[n, "box of 4/255"].low > SURELY / 2]
    ball = won[f"ball of {LEVEL}/255"]
    best = sorted(held, key=lambda n: -ball[n].mean)[:2]
    few = f"{len(at_4)} of these surely gain" if at_4 else "not one of these surely gains"
    return (
        f"**And worth it only where something breaks.** In the box of 4/255, where the outputs are {won.loc['none', 'box of 4/255']} dB "
        f"apart without a defence, {few} half a decibel. In the ball of {LEVEL}/255 ({ball['none']} dB) most is left of "
        f"{' and '.join(f'{n} ({ball[n]} dB)' for n in best)}; of refine {ball['refine']} dB."
    )


def trained() -> str:
    """The sentence on adversarial training: the hyperprior at quality 3, before and after."""
    rows, clean = read("12_trained.parquet"), read("12_clean.csv")
    at = rows[(rows["codec"] == "bmshj2018-hyperprior") & (rows["quality"] == 3) & (rows["eps_255"] == 8)]
    grown = at[at["attack"].isin(["PGD rate", "SRDA rate"])].groupby(["weights", "image"])["bpp_ratio"].max().unstack(0).mean()
    at = at[at["attack"].isin(SEEN) & ~at["attack"].str.contains("rate")]
    lost = at.groupby(["weights", "image"])["delta_own"].max().unstack(0).dropna()
    spared = stats.bootstrap(lost["bundled"] - lost["robust"])
    price = clean.pivot_table(index="image", columns="weights", values=["psnr", "bpp"])
    psnr = stats.bootstrap(price["psnr"]["robust"] - price["psnr"]["bundled"])
    size = stats.bootstrap(100 * (price["bpp"]["robust"] / price["bpp"]["bundled"] - 1))
    surely = "spares" if spared.low > 0 else "does not surely spare"
    return (
        f"**Training under attack {surely} some of the loss**: {spared} dB of {stats.bootstrap(lost['bundled'])} under the "
        f"strongest of {at['attack'].nunique()} attacks at 8/255, for {psnr} dB and {size} % of the bytes on clean pictures (quality 3). "
        f"On FTDA's samples, which push the outputs apart, it is {stats.bootstrap(lost['bundled'] - lost['robust-ftda'])} dB; the "
        f"attacked file is then {grown['robust-ftda']:.2f} times the clean one, where it is {grown['robust']:.2f} on joint samples and "
        f"was {grown['bundled']:.2f}."
    )


def table() -> str:
    """The defences that cost least for what they hold, best first."""
    found, rows = read("11_table.csv").set_index("defence"), read("11_defences.parquet")
    after = defended.gains(defended.damage(rows, "picture", LEVEL, "psnr_recon"))["adaptive"]
    files = defended.damage(rows, "file", LEVEL, "bpp_ratio")["adaptive"].mean()
    lines = [
        "| defence | gain, attacked through (dB) | file × | PSNR, clean (dB) | BD-rate (%) | encoder × |",
        "|---|---|---|---|---|---|",
    ]
    for name in sorted(after, key=lambda n: -after[n].mean):
        cost = found.loc[name]
        numbers = [f"{cost[k]:+.2f}" for k in ("PSNR (dB)", "BD-rate (%)")] + [f"{cost['encoder ×']:.1f}"]
        file = f"{files[name]:.2f}" if name in files else "–"
        lines.append(f"| {name} | {after[name]} | {file} | {' | '.join(numbers)} |")
    return "\n".join(lines)


def page(text: str) -> str:
    """The page with its two generated parts made anew."""
    for name, made in (("sentences", "\n".join(f"{n}. {said}" for n, said in enumerate(sentences(), 1))), ("table", table())):
        begin, end = f"<!-- {name} from data/results -->", f"<!-- end of {name} -->"
        before, rest = text.split(begin)
        text = f"{before}{begin}\n\n{made}\n\n{end}{rest.split(end)[1]}"
    return text


def main() -> None:
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--write", action="store_true", help="write the page")
    text = page(PAGE.read_text(encoding="utf-8"))
    if p.parse_args().write:
        PAGE.write_text(text, encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main()
