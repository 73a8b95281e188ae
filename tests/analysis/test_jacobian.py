import pytest
import torch
from torch import nn

from nic_helpers.analysis.jacobian import singular_values


def test_a_linear_map_s_are_those_of_its_matrix():
    torch.manual_seed(0)
    matrix = torch.randn(20, 12, dtype=torch.float64)
    x = torch.randn(1, 3, 2, 2, dtype=torch.float64)
    found = singular_values(lambda v: (matrix @ v.flatten() + 1).view(1, -1, 1, 1), x, count=3, iterations=200)
    torch.testing.assert_close(found, torch.linalg.svdvals(matrix)[:3])


def test_a_nonlinear_transform_s_are_those_of_its_jacobian_there():
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 2, 3, stride=2)).double().requires_grad_(False)
    x = torch.randn(1, 3, 6, 6, dtype=torch.float64)
    exact = torch.autograd.functional.jacobian(layer, x).view(-1, x.numel())
    torch.testing.assert_close(singular_values(layer, x, 4, 200), torch.linalg.svdvals(exact)[:4], rtol=1e-6, atol=0)


def test_a_codec_s_transforms_have_them(hyperprior, x):
    model, image = hyperprior.model, x[:1]
    analysis = singular_values(model.g_a, image, 3, 5)
    whole = singular_values(lambda v: model.g_s(model.g_a(v)), image, 3, 5)
    assert (analysis.diff() <= 0).all() and (whole.diff() <= 0).all() and 0.9 < whole[0] < 10
    with pytest.raises(ValueError, match="one image"):
        singular_values(model.g_a, x)
