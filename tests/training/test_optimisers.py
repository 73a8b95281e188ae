"""Muon's steps, and how they go with what comes in."""

import pytest
import torch
from torch import nn

from nic_helpers.training.optimisers import MuonAndAdam, input_sizes
from nic_helpers.training.settings import Settings

torch.manual_seed(0)


def _layers() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ConvTranspose2d(4, 2, 3), nn.Conv2d(2, 4, 1, groups=2))


def test_sizes_are_the_root_mean_squares_that_come_in_and_at_least_one():
    model, x = _layers(), torch.ones(2, 3, 8, 8) * torch.tensor([100.0, 0.1, 3.0])[:, None, None]
    sizes = input_sizes(model, lambda: [model(x), model(x / 2)])
    assert sizes[model[0].weight].flatten().tolist() == [100.0, 1.0, 3.0]
    inside = model[0](x).square().mean((0, 2, 3)).sqrt().clamp_min(1)
    assert torch.allclose(sizes[model[1].weight], inside.view(-1, 1, 1, 1))
    assert model[2].weight not in sizes  # of its two groups each sees one channel


def test_no_hook_is_left_where_the_run_fails():
    model = _layers()
    with pytest.raises(RuntimeError):
        input_sizes(model, lambda: model(torch.ones(1, 5, 8, 8)))
    assert not any(m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("layer", [nn.Conv2d(4, 4, 3), nn.ConvTranspose2d(4, 4, 3)])
def test_a_step_moves_the_output_no_further_for_a_large_input(layer):
    """Scaling an input channel by 100, and its weights by 1/100, changes no step's effect on the output."""
    x, by = torch.randn(2, 4, 8, 8), torch.tensor([100.0, 1, 1, 1])
    along = (-1, 1, 1, 1) if isinstance(layer, nn.ConvTranspose2d) else (1, -1, 1, 1)
    (before, bias), outputs = (layer.weight.detach().clone(), layer.bias.detach().clone()), []
    for large, known in ((False, False), (True, True), (True, False)):
        layer.weight.data = before / by.view(along) if large else before.clone()
        layer.bias.data = bias.clone()
        v = x * by[:, None, None] if large else x
        sizes = {layer.weight: by.view(along)} if known else None
        optimiser = MuonAndAdam([*layer.parameters()], 1e-2, sizes)
        optimiser.zero_grad()
        layer(v).square().mean().backward()
        optimiser.step()
        outputs.append(layer(v).detach())
    plain, known, unknown = outputs
    assert torch.allclose(plain, known, atol=1e-4)
    assert (plain - unknown).abs().max() > 0.1


def test_sizes_go_with_the_state():
    p, bias = nn.Parameter(torch.randn(2, 2, 1, 1)), nn.Parameter(torch.zeros(2))
    one = MuonAndAdam([p, bias], 1e-2, {p: torch.full((1, 2, 1, 1), 7.0)})
    other = MuonAndAdam([p, bias], 1e-2)
    other.load_state_dict(one.state_dict())
    assert other.state_dict()["sizes"][0].flatten().tolist() == [7.0, 7.0]


def test_it_is_refused_where_it_does_nothing():
    with pytest.raises(ValueError, match="by_inputs is for optimiser='muon'"):
        Settings("mbt2018", 3, (8, 12), 1, by_inputs=True)
