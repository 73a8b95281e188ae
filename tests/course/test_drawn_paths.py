import torch

from nic_helpers.course import drawn_paths


def test_the_first_end_lies_at_one_and_the_second_at_height_one(x, hyperprior):
    x, steps = x[:1], torch.Generator().manual_seed(0)
    ends = [x + 0.1 * (torch.rand(x.shape, generator=steps) - 0.5) for _ in range(2)]
    at = drawn_paths.plane(hyperprior, x, ends, points=4)
    assert at["apart"].shape == (4, 4)
    assert torch.allclose(torch.tensor(drawn_paths.place(at, x, ends[0])), torch.tensor([1.0, 0.0]), atol=1e-4)
    assert abs(drawn_paths.place(at, x, ends[1])[1] - 1) < 1e-4
    figure = drawn_paths.paths(at, x, {"one": [x, ends[0]], "two": [x, ends[1]]})
    assert [line.get_label() for line in figure.axes[0].get_lines()][:2] == ["one", "two"]


def test_how_much_of_a_change_lies_in_the_plane():
    x = torch.full((1, 3, 2, 2), 0.5)
    u, v, out = torch.zeros(3, 1, 3, 2, 2)
    u[..., 0, 0], v[..., 0, 1], out[..., 1, 1] = 0.1, 0.2, 0.3
    at = {"u": u, "v": v}
    assert abs(drawn_paths.share_within(at, x, x + u - 2 * v) - 1) < 1e-6
    assert drawn_paths.share_within(at, x, x + out) == 0
    assert abs(drawn_paths.share_within(at, x, x + u + out) - 0.1) < 1e-6  # 1 of 1 + 9
