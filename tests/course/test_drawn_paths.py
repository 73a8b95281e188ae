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
