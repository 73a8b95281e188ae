"""Notebook 08's exercises: reading a study, and how far a ranking may be believed."""

from __future__ import annotations

import pandas as pd

from nic_helpers.exercises.base import Number, Write


def made_by_apgd(strongest):
    return (strongest["attack"] == "APGD").mean()


def largest_growth(main):
    return main["bpp_ratio"].max()


def rank_correlation(a, b):
    ranks_a, ranks_b = pd.Series(a).rank(), pd.Series(b).rank()
    return ranks_a.corr(ranks_b)


def judge_rank_correlation(answer):
    cases = {
        "the same order": ([1, 2, 3, 4], [10, 20, 30, 400], 1.0),
        "the reverse": ([1, 2, 3, 4], [9, 7, 5, -80], -1.0),
        "one pair exchanged": ([1, 2, 3, 4], [1, 3, 2, 4], 0.8),
        "a tie": ([1, 2, 2, 4], [1, 2, 3, 4], 0.9487),
    }
    for name, (a, b, right) in cases.items():
        if abs((found := float(answer(a, b))) - right) > 1e-3:
            return f"of {a} and {b} ({name}) it should be {right:g}, and is {found:.3f}"
    return None


def of_values(a, b):
    return pd.Series(a).corr(pd.Series(b))


def ties_by_order(a, b):
    return pd.Series(a).rank(method="first").corr(pd.Series(b).rank(method="first"))


def small_rows():
    return {"strongest": pd.DataFrame({"attack": ["APGD", "PGD", "sign noise", "PGD"]})}


def small_main():
    return {"main": pd.DataFrame({"bpp_ratio": [1.5, 3.0, 1.1, 2.0]})}


EXERCISES = [
    Number(
        "08.1", made_by_apgd, 1e-3, ("a share is the mean of a comparison", "(strongest['attack'] == 'APGD').mean()"), small_rows
    ),
    Number(
        "08.2", largest_growth, 0.01, ("one column of main holds the growth of each file", "main['bpp_ratio'].max()"), small_main
    ),
    Write(
        "08.3",
        rank_correlation,
        judge_rank_correlation,
        (
            "replace each value by its place in the order, then correlate the places",
            "equal values share the mean of their places: that is what Series.rank does",
            "pd.Series(a).rank().corr(pd.Series(b).rank())",
        ),
        {"values, not ranks": of_values, "ties in order": ties_by_order},
    ),
]
