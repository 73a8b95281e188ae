"""Attacks at their limit: solve a larger problem first, or try several and keep each image's best. And the opposite, a control
that follows the gradient the wrong way."""

from __future__ import annotations

from dataclasses import dataclass

from nic_helpers.attacks.base import Attack, AttackResult, best_of
from nic_helpers.attacks.loop import Ascent, Problem, ascend
from nic_helpers.objectives import Descending


@dataclass(frozen=True, kw_only=True)
class Continuation(Attack):
    """Continuation in ε: half of the steps in a larger budget, ``begin`` (default: 2·eps, at most 1), from a random start; what
    is found there is brought back into eps, and climbs on.

    At fine qualities the larger budget is where pictures fall apart, and what is found there leads to a branch inside eps that
    no ordinary start finds: hyperprior q6 in the box of 8/255, four Kodak crops, 100 steps: 25.3 dB between the outputs, PGD 26.9
    with 100 steps and 26.8 with 240. Steps fall linearly from the budget's size in each half. ``restarts``: from other
    starts, each of ``steps`` gradients. ValueError where ``begin`` is not above eps, the target.
    """

    steps: int = 100
    restarts: int = 1
    begin: float | None = None

    def __post_init__(self):
        super().__post_init__()
        self._check_at_least_1("restarts")
        self._check_at_least_1("steps")
        if self.steps < 2:
            raise ValueError("steps must be at least 2: one in the larger budget, one in eps")
        if self.begin is not None and not self.eps < self.begin <= 1:
            raise ValueError(
                f"begin must be in (eps, 1] = ({self.eps:.4g}, 1], got {self.begin!r}: eps is the continuation's "
                "target, and it begins in a larger budget"
            )

    def _run(self, p: Problem) -> Ascent:
        begin = self.begin or min(1.0, 2 * self.eps)
        first = self.steps // 2
        for restart in range(self.restarts):
            wide = p.within(begin)
            found = ascend(wide, self._beside(wide, self.seed + 7919 * restart), _falling(begin, first))
            ascend(p, p.budget.project(found.best, p.x), _falling(self.eps, self.steps - first))
        return p.state


def _falling(size: float, steps: int) -> list[float]:
    return [size * (steps - t) / steps for t in range(steps)]


@dataclass(frozen=True, kw_only=True)
class Strongest(Attack):
    """Several ``attacks`` at one budget and norm, of which each image keeps the best; it costs what they cost together.

    Their own eps and norm are replaced by this one's, and this one's ``seed`` is added to theirs: the same attack with seeds 0
    and 1 is two attacks.
    """

    attacks: tuple[Attack, ...] = ()

    def __post_init__(self):
        super().__post_init__()
        if not self.attacks or not all(isinstance(a, Attack) for a in self.attacks):
            raise ValueError(f"attacks must be a tuple of attacks, such as (PGD(eps), APGD(eps)), got {self.attacks!r}")
        if any(a.needs_gradient != self.attacks[0].needs_gradient for a in self.attacks):
            raise ValueError(
                "attacks with and without gradients do not go together: their values are not comparable on every codec"
            )
        object.__setattr__(self, "attacks", tuple(self.attacks))
        self.members()  # which refuses an eps or a norm that one of them cannot have

    def members(self) -> list[Attack]:
        """The attacks as they are run."""
        own = {"eps": self.eps, "norm": self.norm, "precision": self.precision}
        return [a.with_(seed=self.seed + a.seed, **own) for a in self.attacks]

    def planned_gradients(self, objective=None) -> int:
        """Those of all its attacks."""
        return sum(a.planned_gradients(objective) for a in self.members())

    def _attack(self, codec, x, objective) -> AttackResult:
        return best_of([a._attack(codec, x, objective) for a in self.members()])


@dataclass(frozen=True, kw_only=True)
class Descend(Attack):
    """A control: an attack ``like`` another at this ``eps`` and ``seed``, with the sign of every gradient turned round.

    It has the size and the coherence of that attack and the wrong direction, as an implementation has whose sign is wrong. Like
    that one it keeps its best iterate.
    """

    like: Attack | None = None

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.like, Attack) or not self.like.needs_gradient:
            raise ValueError(f"like must be an attack that follows gradients, such as PGD(eps), got {self.like!r}")

    def planned_gradients(self, objective=None) -> int:
        """Those of the attack that it is like."""
        return self.like.planned_gradients(objective)

    def _attack(self, codec, x, objective) -> AttackResult:
        like = self.like.with_(eps=self.eps, seed=self.seed, norm=self.norm, precision=self.precision)
        return like._attack(codec, x, Descending(objective))
