"""The loop's edges: gradients that are not finite, memory that runs out, sizes of batches, images without room."""

import copy
import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from conftest import KINDS, MODES

from nic_helpers import attacks, load_images, metrics
from nic_helpers.attacks.base import batch_size
from nic_helpers.codecs.base import Codec
from nic_helpers.images import to_8bit
from nic_helpers.objectives import Distortion, Joint, Rate, Together

EPS = 8 / 255
STEPPING = [
    attacks.PGD(EPS, alpha=2 / 255, steps=5),
    attacks.IFGSM(EPS, alpha=2 / 255, steps=5),
    attacks.MIFGSM(EPS, alpha=2 / 255, steps=5),
    attacks.APGD(EPS, steps=5),
    attacks.SRDA(EPS / 2, steps=5),
    attacks.FTDA(EPS / 2, steps=5),
    attacks.MADC(EPS / 2, steps=5),
]


class Outer(Codec):
    """A codec inside another object, which sees every call of the attack."""

    name, quality = "outer", 0

    def __init__(self, codec, limit):
        self._codec, self.limit, self.device, self.sizes = codec, limit, codec.device, []

    def __call__(self, x, surrogate="ste", rate=True):
        self.sizes.append(len(x))
        if len(x) > self.limit:
            raise torch.OutOfMemoryError("no memory for so many images")
        return self._codec(x, surrogate, rate)


class Spoilt(torch.autograd.Function):
    """The identity, but where the mask is set the gradient is not a number."""

    @staticmethod
    def forward(ctx, v, mask):
        ctx.save_for_backward(mask)
        return v.clone()

    @staticmethod
    def backward(ctx, slope):
        return torch.where(ctx.saved_tensors[0], torch.nan, slope), None


@dataclass(frozen=True)
class Fails:
    """An objective that fails on one image of the batch from gradient number ``after`` on: its gradient, or its value too."""

    inner: object
    image: int
    after: int
    what: str
    calls: list = field(default_factory=list)

    surrogate, flat_at_source = "ste", True

    def bind(self, codec, x, surrogate):
        value, batch = self.inner.bind(codec, x, surrogate), len(x)

        def spoilt(x_adv, rows=slice(None)):
            mask = torch.arange(batch)[rows] == self.image
            if not x_adv.requires_grad:
                return value(x_adv, rows)
            self.calls.append(mask.any().item())
            mask &= len(self.calls) > self.after
            found = value(Spoilt.apply(x_adv, mask[:, None, None, None]), rows)
            return torch.where(mask, torch.nan, found) if self.what == "value" else found

        return spoilt


@pytest.fixture
def plain():
    """Convolutions that treat an image alike whatever the batch."""
    with torch.backends.mkldnn.flags(enabled=False):
        yield


@pytest.fixture(scope="module")
def crops():
    """Four 96×96 crops [4, 3, 96, 96] of the bundled images."""
    return torch.stack([im[:, 64:160, 64:160] for im in load_images("bundled")[:4]])


def fails(image=1, after=10**9, what="gradient"):
    """The distortion, failing on an image of the batch from a gradient on; the default never fails."""
    return Fails(Distortion(), image, after, what)


def same(a, b, rows=slice(None)):
    assert torch.equal(a.x_adv[rows], b.x_adv)
    torch.testing.assert_close(a.objective[rows], b.objective, rtol=1e-5, atol=0)


# -------------------------------------------------------------------------------------------------- not finite
@pytest.mark.parametrize("what", ["gradient", "value"])
@pytest.mark.parametrize("attack", STEPPING, ids=lambda a: type(a).__name__)
def test_an_image_without_a_finite_gradient_stops_and_leaves_the_others_alone(attack, what, hyperprior, x, plain):
    spoilt = fails(1, 3, what)
    with pytest.warns(UserWarning, match=r"image\(s\) \[1\] of the batch: the objective or its gradient is not finite") as said:
        result = attack(hyperprior, x, spoilt)
    same(result, attack(hyperprior, x[[0, 2]], fails()), [0, 2])
    # the spoilt image: tried no more, warned of once, and the best of what it had
    assert sum(spoilt.calls) == 4 and len(spoilt.calls) == result.gradients
    assert len([w for w in said if "not finite" in str(w.message)]) == 1
    seen = result.trace[:, 1][~result.trace[:, 1].isnan()]
    value = Distortion().bind(hyperprior, to_8bit(x), None)
    torch.testing.assert_close(value(result.x_adv)[1], seen.max(), rtol=1e-3, atol=1e-9)
    torch.testing.assert_close(result.objective, value(result.x_adv), rtol=1e-4, atol=1e-9)
    assert len(seen) <= 4


@pytest.mark.parametrize("name", ["hyperprior", "cheng"])
def test_what_failed_from_the_start_still_comes_with_its_true_objective(name, x, request):
    codec = request.getfixturevalue(name)
    with pytest.warns(UserWarning, match="not finite"):
        result = attacks.PGD(EPS, steps=2)(codec, x, fails(0, 0))
    truth = Distortion().bind(codec, to_8bit(x), None)(result.x_adv)
    assert result.linf.max() <= EPS + 1e-6 and result.objective.isfinite().all()
    torch.testing.assert_close(result.objective, truth, rtol=1e-4, atol=1e-9)


def test_where_all_images_fail_the_loop_ends_without_asking_again(hyperprior, x):
    spoilt = fails(0, 1)
    with pytest.warns(UserWarning, match="not finite"):
        result = attacks.PGD(EPS, steps=6)(hyperprior, x[:1], spoilt)
    assert len(spoilt.calls) == 2 and result.objective.isfinite().all()


def test_an_attack_may_be_called_where_gradients_are_off(hyperprior, x):
    attack = attacks.PGD(EPS, steps=2)
    with torch.no_grad():
        result = attack(hyperprior, x[:1])
    same(result, attack(hyperprior, x[:1]))


# ------------------------------------------------------------------------------------------------------ memory
def test_out_of_memory_halves_the_batch_and_changes_nothing_else(hyperprior, plain):
    x = torch.stack([im[:, 64:128, 64:128] for im in load_images("bundled")[:5]])
    attack, small = attacks.PGD(EPS, steps=3), Outer(hyperprior, 2)
    with pytest.warns(UserWarning, match=r"out of memory: going on with \d image\(s\) at a time") as said:
        result = attack(small, x)
    assert [str(w.message).split()[6] for w in said if "out of memory" in str(w.message)] == ["2"]
    assert small.sizes[0] == 5 and set(small.sizes[1:]) == {2, 1}
    whole = attack(Outer(hyperprior, 5), x)
    same(result, whole)
    torch.testing.assert_close(result.trace, whole.trace, rtol=1e-5, atol=1e-9, equal_nan=True)
    assert result.gradients == whole.gradients and result.seconds > 0


def test_out_of_memory_with_one_image_and_other_errors_are_raised(hyperprior, x):
    with pytest.raises(torch.OutOfMemoryError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        attacks.FGSM(EPS)(Outer(hyperprior, 0), x)

    class Broken(Outer):
        def __call__(self, *args, **kwargs):
            raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        attacks.FGSM(EPS)(Broken(hyperprior, 9), x)


@pytest.mark.parametrize("objective", [Distortion(), Rate()], ids=str)
@pytest.mark.parametrize("attack", [attacks.PGD(EPS, steps=3), attacks.SRDA(EPS / 2, steps=3)], ids=lambda a: type(a).__name__)
def test_one_at_a_time_is_all_at_once(attack, objective, hyperprior, x, plain):
    whole = attack(hyperprior, x, objective)
    for batch in (1, 2, 99):
        same(attack.with_(batch=batch)(hyperprior, x, objective), whole)


def test_a_batch_setting_is_what_the_codec_gets(hyperprior, x):
    seen = Outer(hyperprior, 99)
    attacks.FGSM(EPS, batch=2)(seen, x)
    assert seen.sizes[0] == 2 and set(seen.sizes) == {2, 1}


def test_a_cpu_takes_a_few_images_at_once_and_never_none(hyperprior):
    def size(side):
        return batch_size(hyperprior, torch.empty(9, 3, side, side))

    assert [size(s) for s in (64, 256, 512, 768, 2048)] == [64, 4, 1, 1, 1]
    assert batch_size([hyperprior] * 3, torch.empty(9, 3, 64, 64)) == 21  # each of them holds activations
    assert batch_size([hyperprior] * 3, torch.empty(9, 3, 512, 512)) == 1


# ---------------------------------------------------------------------------------------------------- settings
@pytest.mark.parametrize("attack", [attacks.IFGSM, attacks.PGD, attacks.MIFGSM, attacks.DIFGSM, attacks.MADC])
def test_steps_and_step_sizes_that_make_no_sense_are_refused(attack):
    for bad in (0, -1):
        with pytest.raises(ValueError, match=f"steps must be a whole number, at least 1, got {bad}"):
            attack(EPS, steps=bad)
    for bad in (0.0, -1 / 255, 2.01 * EPS, float("nan")):
        with pytest.raises(ValueError, match="alpha must be in"):
            attack(EPS, alpha=bad)
    assert attack(EPS, alpha=2 * EPS, steps=1).step_sizes == [2 * EPS]
    assert attack(EPS, steps=4).step_sizes == pytest.approx([EPS, EPS * 3 / 4, EPS / 2, EPS / 4])


@pytest.mark.parametrize("bad", [{"precision": "float16"}, {"precision": None}, {"batch": 0}, {"batch": -2}], ids=str)
def test_precisions_and_batches_that_do_not_exist_are_refused(bad):
    (name,) = bad
    with pytest.raises(ValueError, match=f"{name} must be"):
        attacks.PGD(EPS, **bad)
    with pytest.raises(ValueError, match=f"{name} must be"):
        attacks.FGSM(EPS).with_(**bad)


@pytest.mark.parametrize(
    "attack",
    [
        *STEPPING,
        attacks.DIFGSM(EPS, steps=3),
        attacks.Square(EPS, queries=20),
        attacks.SSAH(EPS / 2, steps=3),
        attacks.Chroma(EPS / 2, steps=3),
    ],
    ids=lambda a: type(a).__name__,
)
def test_black_white_and_constant_images_are_attacked_on_the_side_that_has_room(attack, hyperprior):
    flat = torch.tensor([0.0, 1.0, 0.4])[:, None, None, None].expand(3, 3, 64, 64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if isinstance(attack, attacks.Chroma):
            warnings.filterwarnings("ignore", message=r"image\(s\) \[0, 1\] of the batch stay as they were")
        result = attack(hyperprior, flat)
    assert result.x_adv.isfinite().all() and result.x_adv.min() >= 0 and result.x_adv.max() <= 1
    assert torch.equal(result.x_adv, to_8bit(result.x_adv)) and result.objective.isfinite().all()
    size = result.linf if attack.norm == "linf" else result.rms
    assert size.max() <= attack.eps * 1.0001 and (size > 0)[2]
    if not isinstance(attack, attacks.Chroma):  # black has no colour to move to at its luma
        assert (size > 0).all() and (result.objective > 0).all()


@pytest.mark.parametrize("name", ["hyperprior", "cheng"])
def test_half_precision_finds_what_full_precision_finds(name, crops, request):
    codec = request.getfixturevalue(name)
    x = crops[:3, :, :64, :64] if name == "cheng" else crops

    def damage(precision):
        result = attacks.PGD(EPS, steps=8, precision=precision)(codec, x)
        truth = Distortion().bind(codec, to_8bit(x), None)(result.x_adv)
        torch.testing.assert_close(result.objective, truth, rtol=1e-4, atol=1e-9)  # judged in full precision
        return metrics.psnr(codec.reconstruct(x), codec.reconstruct(result.x_adv)).mean().item()

    full, half = damage("float32"), damage("bfloat16")
    assert half < full + 0.3 and half != full  # dB between the outputs: lower is stronger


def every_attack():
    return [a for a in vars(attacks).values() if isinstance(a, type) and issubclass(a, attacks.Attack)]


@pytest.mark.parametrize("attack", every_attack(), ids=lambda a: a.__name__)
def test_only_eps_is_given_by_its_place(attack):
    # elsewhere PGD(eps, alpha, steps): a step taken for a seed would go unnoticed
    with pytest.raises(TypeError, match=r"all else by its name, got \(0\.03.*, 2\): write which of seed, .*they are"):
        attack(EPS, 2)


def test_an_attack_of_ones_own_takes_only_eps_by_its_place_too():
    @dataclass(frozen=True)
    class Mine(attacks.PGD):
        mu: float = 1.0

    with pytest.raises(TypeError, match="all else by its name"):
        Mine(EPS, 0.5)
    assert Mine(EPS, mu=0.5).mu == 0.5


@pytest.mark.parametrize("seed", [2 / 255, 1.0, True, np.bool_(True), -1, np.int64(-1), None, "0", float("nan")], ids=repr)
def test_a_seed_is_a_whole_number(seed):
    for make in (attacks.PGD, attacks.Square, attacks.RandomNoise, attacks.SRDA):
        with pytest.raises(ValueError, match="seed must be a whole number"):
            make(EPS, seed=seed)
    with pytest.raises(ValueError, match="seed must be a whole number"):
        attacks.FGSM(EPS).with_(seed=seed)


def test_numpy_s_numbers_are_plain_ones_in_an_attack():
    plain = attacks.PGD(EPS, seed=3, alpha=EPS / 2, steps=4)
    assert repr(attacks.PGD(np.float64(EPS), seed=np.uint8(3), alpha=np.float64(EPS / 2), steps=np.int64(4))) == repr(plain)
    # the text that studies know their units by
    assert repr(plain) == (
        f"PGD(eps={EPS!r}, seed=3, surrogate='auto', norm='linf', precision='float32', batch=None, "
        f"alpha={EPS / 2!r}, steps=4, restarts=1)"
    )
    for attack in (plain, attacks.SRDA(EPS), attacks.Strongest(EPS, attacks=(plain,))):
        assert pickle.loads(pickle.dumps(attack)) == copy.deepcopy(attack) == attack.with_() == attack


@pytest.mark.parametrize("attack", [attacks.PGD(EPS, steps=2), attacks.DIFGSM(EPS, steps=2)], ids=lambda a: type(a).__name__)
def test_any_whole_number_is_a_seed(attack, hyperprior, x):
    for seed in (2**32, 2**64 + 1, 10**30):
        assert attack.with_(seed=seed)(hyperprior, x[:1], Rate()).objective.isfinite().all()


# ------------------------------------------------------------------------------------------- what a caller has set
DRAWING = [
    (attacks.PGD(EPS, steps=2), Rate()),
    (attacks.DIFGSM(EPS, steps=2, probability=1.0), Rate()),
    (attacks.ARDA(EPS / 2, steps=2), Together(Joint(1, 0))),
    (attacks.SpectralNoise(EPS, like=attacks.PGD(EPS, steps=2)), Rate()),
    (attacks.Strongest(EPS, attacks=(attacks.FGSM(EPS, surrogate="noise"),)), None),
    (attacks.Chroma(EPS / 2, steps=2), Rate()),
]
BESIDE = [
    (attacks.IFGSM(EPS, steps=2), None),
    (attacks.APGD(EPS, steps=5), None),
    (attacks.MADC(EPS / 2, steps=2), None),
    (attacks.SSAH(EPS / 2, steps=2), None),
    (attacks.FTDA(EPS / 2, steps=2), None),
    (attacks.Square(EPS, queries=4), None),
    (attacks.RandomNoise(EPS, kind="coarse", norm="l2rms"), Rate()),
    (attacks.SRDA(EPS / 2, steps=2, optimiser="adam"), None),
]
EVERYWHERE = pytest.mark.parametrize("case", DRAWING + BESIDE, ids=lambda c: type(c[0]).__name__)


def alike(found, expected):
    assert not found.x_adv.requires_grad and not found.x_adv.is_inference()
    assert torch.equal(found.x_adv.float(), expected.x_adv) and torch.equal(found.objective, expected.objective)
    assert found.objective.dtype == torch.float32
    torch.testing.assert_close(found.trace, expected.trace, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(found.linf, expected.linf)


@pytest.mark.parametrize("case", DRAWING, ids=lambda c: type(c[0]).__name__)
def test_threads_and_a_caller_s_seed_change_nothing_and_its_generator_stays(case, hyperprior, x):
    attack, objective = case
    images = [x[k : k + 1, :, :32, :32] for k in (0, 1, 0, 1)]
    alone = []
    for seed, image in enumerate(images):
        torch.manual_seed(seed)
        alone.append(attack(hyperprior, image, objective))
    before = torch.get_rng_state()
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda image: attack(hyperprior, image, objective), images))
    assert torch.equal(torch.get_rng_state(), before)
    for found, expected in zip([*together, *alone[2:]], [*alone, *alone[:2]], strict=True):
        alike(found, expected)


@EVERYWHERE
def test_a_caller_s_modes_change_nothing(case, hyperprior, x):
    attack, objective = case
    expected = attack(hyperprior, x[:1], objective)
    for mode in MODES.values():
        with mode():
            found = attack(hyperprior, x[:1], objective)
        alike(found, expected)


@EVERYWHERE
def test_other_tensors_of_a_picture_are_attacked_alike(case, hyperprior, x):
    attack, objective = case
    expected = attack(hyperprior, x[:1], objective)
    kinds = KINDS | {"float16": lambda v: v.half(), "bfloat16": lambda v: v.bfloat16()}
    for name, kind in kinds.items():
        found = attack(hyperprior, list(kind(x[:1])), objective)  # a list, whose images are parts of another tensor
        found.x_adv = torch.stack(found.x_adv)
        alike(found, expected)
        # half precision cannot hold the 8-bit grid
        assert found.x_adv.dtype == (torch.float64 if name == "float64" else torch.float32)


def test_only_the_attack_s_own_precision_lowers_it(hyperprior, x):
    attack = attacks.PGD(EPS, steps=3, precision="bfloat16")
    expected = attack(hyperprior, x[:1])
    with torch.autocast("cpu", dtype=torch.float16):
        alike(attack(hyperprior, x[:1]), expected)
    assert not torch.equal(expected.x_adv, attack.with_(precision="float32")(hyperprior, x[:1]).x_adv)
