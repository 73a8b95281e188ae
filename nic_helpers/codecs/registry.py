"""Every learned architecture by its name: a new one is a file in this folder and a line here."""

from __future__ import annotations

from nic_helpers.codecs.architecture import Architecture
from nic_helpers.codecs.cai2022 import Cai2022
from nic_helpers.codecs.cheng2020 import Anchor, Attention
from nic_helpers.codecs.google import Autoregressive, Factorized, MeanScale, ScaleHyperprior
from nic_helpers.codecs.kamisli2024 import VariableRate
from nic_helpers.codecs.liu2023 import Tcm
from nic_helpers.codecs.song2021 import Song2021
from nic_helpers.codecs.zou2022 import Stf, Wacnn

ARCHITECTURES: dict[str, type[Architecture]] = {
    a.name: a
    for a in (
        *(Factorized, ScaleHyperprior, MeanScale, Autoregressive, Anchor, Attention, VariableRate),
        *(Song2021, Cai2022, Wacnn, Stf, Tcm),
    )
}
