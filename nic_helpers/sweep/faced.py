"""What an attacker sees of a defence: not always what is measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nic_helpers.attacks.adaptive import eot


@dataclass(frozen=True)
class Faced:
    """A defence as it is, ``measured``, and what the attacker sees in its place, ``attacked`` (None: the bare codec): with this for one
    of a grid's ``defences`` the attack is not made on what it is measured on."""

    measured: Callable | None
    attacked: Callable | None = None


@dataclass(frozen=True)
class OtherDraws:
    """What an attacker sees who knows a random defence and not its draw: ``draws`` versions of it with other draws, attacked together
    (:func:`nic_helpers.attacks.eot`)."""

    defence: Callable
    draws: int = 4

    def __call__(self, codec) -> list:
        """The versions, around a codec."""
        return eot(self.defence(codec), self.draws)
