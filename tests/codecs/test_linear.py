"""The codec without a network."""

import pytest
import torch

from nic_helpers import load_images, metrics
from nic_helpers.codecs.base import real_bpp
from nic_helpers.codecs.bitstream import BitstreamError
from nic_helpers.codecs.linear import COMPONENTS, LinearCodec, principal_components


@pytest.fixture(scope="module")
def images():
    return load_images("bundled")


def test_the_basis_is_orthonormal_and_begins_with_what_varies_most(images):
    centre, basis, size = principal_components(images)
    rows = basis.flatten(1)
    torch.testing.assert_close(rows @ rows.T, torch.eye(COMPONENTS, dtype=torch.float64), atol=1e-10, rtol=0)
    assert float(size[0]) == float(size.max()) and float(size[:20].sum()) > float(size[20:].sum())
    assert centre.shape == (1, 3, 1, 1) and 0 < float(centre.mean()) < 1


def test_only_the_rounding_is_lost_and_only_what_is_not_kept(images, x):
    whole, fine = LinearCodec(images, step=8), LinearCodec(images, step=1)
    unrounded = whole(x, "identity", rate=False).x_hat
    torch.testing.assert_close(unrounded, x, atol=1e-6, rtol=0)
    psnr = metrics.psnr(x, fine.reconstruct(x))  # the step is one level, so that the error's root mean square is 1/√12 of one
    torch.testing.assert_close(psnr, torch.full_like(psnr, 58.9), atol=0.6, rtol=0)
    # changes in the kept subspace pass as they are, those beside it vanish
    part = LinearCodec(images, step=8, keep=24)
    inside = part.synthesis(torch.randn(1, 24, 8, 8, dtype=torch.float64)) - part.centre
    outside = (x[:1] - part(x[:1], "identity", rate=False).x_hat).double()
    assert float(part.analysis((part.centre + outside).expand(1, 3, 64, 64).clamp(0, 1)).abs().mean()) < 0.5
    torch.testing.assert_close(part.synthesis(part.analysis(part.centre + inside)) - part.centre, inside, atol=1e-6, rtol=0)


def test_fewer_steps_and_components_cost_fewer_bytes(images, x):
    rates = [sum(real_bpp(c.encode(x), x)) for c in (LinearCodec(images, 4), LinearCodec(images, 16), LinearCodec(images, 16, 24))]
    assert rates[0] > rates[1] > rates[2]
    assert LinearCodec(images, 16, 24).label == "klt, step 16, 24 of 192" and LinearCodec(images, 16).label == "klt, step 16"


def test_streams_of_another_basis_or_step_are_refused(images, x):
    stream = LinearCodec(images, 8).encode(x[:1])
    for other in (LinearCodec(images, 9), LinearCodec(images, 8, keep=100), LinearCodec(images[:3], 8)):
        with pytest.raises(BitstreamError):
            other.decode(stream)


@pytest.mark.parametrize("wrong", [{"step": 0}, {"step": 2.5}, {"step": True}, {"keep": 0}, {"keep": 193}])
def test_settings_out_of_range_are_refused(images, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LinearCodec(images, **wrong)


def test_too_few_blocks_are_refused(images):
    with pytest.raises(ValueError, match="too few"):
        LinearCodec([images[0][:, :64, :64]])
