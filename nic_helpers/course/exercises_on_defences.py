"""The exercises of notebooks 10 to 14, on origins and defences: each with its solution."""

from __future__ import annotations

import math

import torch

from nic_helpers import metrics
from nic_helpers.analysis.exact import worst_case
from nic_helpers.analysis.layers import ldmr
from nic_helpers.attacks.noise import RandomNoise
from nic_helpers.attacks.sign import PGD
from nic_helpers.course.exercises_on_attacks import Exercise, mean_psnr
from nic_helpers.defences.base import Defence
from nic_helpers.images import to_8bit
from nic_helpers.objectives import Rate


def _rolled() -> Defence:
    class Rolled(Defence):
        """By five pixels to the right, and back."""

        def before(self, x, k):
            return x.roll(5, 3)

        def after(self, x_hat, k):
            return x_hat.roll(-5, 3)

    return Rolled()


def _apart(codec, x, x_adv) -> float:
    return mean_psnr(codec.reconstruct(x), codec.reconstruct(x_adv))


def _apart_when_attacked(codec, x) -> float:
    return _apart(codec, x, PGD(eps=16 / 255, steps=10)(codec, x).x_adv)


def _own_loss(codec, x, x_adv) -> float:
    return mean_psnr(x, codec.reconstruct(x)) - mean_psnr(x_adv, codec.reconstruct(x_adv))


def _slope_of_error(codec, x) -> torch.Tensor:
    v = x.clone().requires_grad_(True)
    error = (codec(v, "ste", rate=False).x_hat - v).square().sum()
    return torch.autograd.grad(error, v)[0]


def _share_better_off(rows) -> float:
    wide = rows.pivot_table(index="image", columns="weights", values="psnr_own")
    return float((wide["robust"] > wide["bundled"]).mean())


def _refined(codec, v, steps: int, random: bool = False, alpha: float = 4 / 255) -> float:
    """The PSNR of v and of what the codec makes of it after so many steps against the error, or in random directions."""
    torch.manual_seed(0)
    u = v
    for _ in range(steps):
        w = u.clone().requires_grad_(True)
        (slope,) = torch.autograd.grad((codec(w, "ste", rate=False).x_hat - v).square().sum(), w)
        direction = torch.randn_like(v) if random else slope
        u = to_8bit((u - alpha * direction.sign()).clamp(0, 1))
    return mean_psnr(v, codec.reconstruct(u))


def _change_of_file(rows) -> float:
    """Of clean pictures, per cent, by the longest online update."""
    bpp = rows[rows["picture"] == "clean"].pivot_table(index="image", columns=["method", "steps"], values="bpp")
    longest = bpp["online update"].columns.max()
    return float(100 * (bpp["online update"][longest] / bpp["none"][0] - 1).mean())


def _moves(codec, x) -> torch.Tensor:
    """PSNR between generations 1 and 2 of each image."""
    first = to_8bit(codec.reconstruct(x))
    return metrics.psnr(first, codec.reconstruct(first))


def _refused(codec, x, x_adv) -> torch.Tensor:
    """Which attacked images a second compression moves more than any clean one."""
    return _moves(codec, x_adv) < _moves(codec, x).min()


def _levels_let_through(codec, x) -> int:
    """Up to which ε, in levels from 1 to 8, no attacked image is refused."""
    passed = 0
    while passed < 8 and not _refused(codec, x, PGD(eps=(passed + 1) / 255, steps=10)(codec, x).x_adv).any():
        passed += 1
    return passed


def _growth_with_noisy_z(codec, x) -> float:
    """By what share the attacked file grows whose side information is that of the source with noise."""
    x_adv = PGD(eps=8 / 255, steps=5, surrogate="ste")(codec, x, Rate()).x_adv
    noisy = RandomNoise(eps=8 / 255)(codec, x).x_adv
    with torch.no_grad():
        set_to = {"z": codec.walk(noisy, None).taps["z"]}
        bits = [sum(w.bits().values()) for w in (codec.walk(x_adv, None, set_to=set_to), codec.walk(x, None))]
    return float((bits[0] / bits[1] - 1).mean())


def _ratio_of_a_layer(codec, x, layer: str = "g_s.1") -> float:
    """LDMR of one layer under PGD in the ball."""
    table = ldmr(codec, x, PGD(eps=16 / 255, steps=10, norm="l2rms")(codec, x).x_adv)
    return float(table[table["layer"] == layer]["ldmr"].mean())


EXERCISES: dict[str, Exercise] = {
    "10.1": Exercise(
        _growth_with_noisy_z,
        0.02,
        "bits(y of the attacked image, z of the noisy one) / bits(y and z of the source) − 1; hints below the question",
    ),
    "10.2": Exercise(
        _ratio_of_a_layer,
        0.02,
        "M is a quotient of two distances; LDMR is M before the layer over M after it; hints below the question",
    ),
    "10.3": Exercise(
        lambda linear, x: 20 * math.log10(float(worst_case(linear, x, 16 / 255)) * 255 / 16),
        0.05,
        "put second and third steps on the list, each with its own price and worth; hints below the question",
    ),
    "11.1": Exercise(
        lambda codec, x, x_adv: _apart(_rolled()(codec), x, x_adv),
        0.05,
        "class Rolled(defences.Defence): before(self, x, k) gives x.roll(5, 3), after(self, x_hat, k) rolls by −5; Rolled()(codec)",
    ),
    "11.2": Exercise(
        lambda codec, x: _apart_when_attacked(_rolled()(codec), x),
        0.1,
        "attacks.PGD(eps=16/255, steps=10)(mine, x).x_adv, with mine the defended codec, and its own two outputs",
    ),
    "11.3": Exercise(lambda bare: float((bare["psnr_own"] < 26).mean()), 1e-3, "the mean of bare['psnr_own'] < 26"),
    "12.1": Exercise(
        lambda robust, x: _own_loss(robust, x, PGD(eps=16 / 255, steps=10, norm="l2rms")(robust, x).x_adv),
        0.1,
        "metrics.psnr(x, robust.reconstruct(x)) − metrics.psnr(x_adv, robust.reconstruct(x_adv)), x_adv of attacks.PGD(…)(robust, x)",
    ),
    "12.2": Exercise(
        lambda robust, x: float(_slope_of_error(robust, x).square().mean()),
        1e-4,
        "x.clone().requires_grad_(); error = (robust(x, 'ste', rate=False).x_hat − x).square().sum(); torch.autograd.grad(error, x)",
    ),
    "12.3": Exercise(
        lambda at: _share_better_off(at[at["attack"] == "continuation, ball"]),
        1e-3,
        "pivot_table(index='image', columns='weights', values='psnr_own') of those rows, and the mean of robust > bundled",
    ),
    "13.1": Exercise(
        lambda codec, x_adv: _refined(codec, x_adv, 4),
        0.1,
        "metrics.psnr(x_adv, codec.reconstruct(refined(x_adv, steps=4)))",
    ),
    "13.2": Exercise(
        lambda codec, x_adv: _refined(codec, x_adv, 2, random=True),
        0.1,
        "torch.manual_seed(0) once, then twice: u = to 8 bit of (u − 4/255 · torch.randn_like(u).sign()).clamp(0, 1)",
    ),
    "13.3": Exercise(
        _change_of_file,
        0.05,
        "pivot_table(index='image', columns=['method', 'steps'], values='bpp') of the clean rows; the mean of a column over another",
    ),
    "14.1": Exercise(
        lambda codec, x: float(_moves(codec, x).min()),
        0.05,
        "a picture is an 8-bit picture: first = to_8bit(codec.reconstruct(x)), and the same again for the second; the picture that "
        "moves most has the fewest dB",
    ),
    "14.2": Exercise(
        lambda codec, x, x_adv: float(_refused(codec, x, x_adv).float().mean()),
        1e-3,
        "the threshold is your answer to exercise 1; a share is the mean of a comparison",
    ),
    "14.3": Exercise(
        lambda codec, x: _levels_let_through(codec, x),
        0.1,
        "loop over eps = 1/255, 2/255 … with attacks.PGD(eps=eps, steps=10), and stop at the first at which a picture is refused; 0 if "
        "that is the first of all",
    ),
}
