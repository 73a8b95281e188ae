import pandas as pd

from nic_helpers.course import drawn_gain


def test_pictures_that_did_not_move_are_triangles_at_the_edge():
    table = {"one": (100.0, 31.0, 28.0), "two": (37.0, 31.5, 28.2), "three": (100.0, 31.2, 28.1)}
    rows = pd.DataFrame(
        [
            {"attack": name, "alpha": a, "psnr_recon": v}
            for name, values in table.items()
            for a, v in zip(("ε/1001", "ε/20", "ε"), values, strict=True)
        ]
    )
    beside = pd.DataFrame(
        [{"attack": "FGSM, best of n", "cost": 1, "psnr_recon": 29.0}, {"attack": "sign noise", "cost": 0, "psnr_recon": 35.0}]
    )
    ax = drawn_gain.by_step_size(rows, beside, 10).axes[0]
    assert ax.get_ylim()[1] == 40  # three above the largest that did move
    triangles = [line for line in ax.get_lines() if line.get_marker() == "^"]
    assert [len(line.get_xdata()) for line in triangles] == [1, 0, 1]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["ε/1001", "ε/20", "ε"]
