"""What attacked pictures lose in several metrics at once (notebook 07): the inputs apart, the outputs apart, and the owner's view."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pandas as pd
from torch import Tensor

from nic_helpers import metrics
from nic_helpers.codecs import stack

Measures = Mapping[str, Callable[[Tensor, Tensor], Tensor]]


class Damage:
    """Measures attacked versions of one set of pictures, in ``measures`` (name -> function of two batches, a value an image).

    ``clean``: codec's label -> what it decodes from the pictures x; ``columns``: of the rows, each metric's amplification and then each
    metric's loss to the owner; ``words``: those columns for a reader.
    """

    def __init__(self, codecs: Sequence, x: Tensor | list[Tensor], names: Sequence[str], measures: Measures):
        self._x, self._names, self._measures = x, list(names), dict(measures)
        self.clean = {c.label: c.reconstruct(x) for c in codecs}
        self._untouched = {c.label: {q: f(x, self.clean[c.label]) for q, f in measures.items()} for c in codecs}
        kinds = {"amp": "amplification", "source": "owner's loss"}
        said = {q: q.upper().replace("_", "-") for q in measures}
        self.words = {f"delta_{k}{self._end(q)}": f"{said[q]}, {word}" for k, word in kinds.items() for q in measures}
        self.columns = list(self.words)

    def rows(self, codec, x_adv: Tensor | list[Tensor], only: Sequence[str] | None = None, **about) -> pd.DataFrame:
        """A row an image, in the metrics ``only`` (default: all), with what ``about`` says.

        For a metric q: ``q_input`` is q(x, x̃), ``q_recon`` q(C(x), C(x̃)), ``q_source`` q(x, C(x̃)) and ``q_clean`` q(x, C(x));
        ``delta_amp`` is input − recon, ``delta_source`` clean − source, with the metric's name behind unless it is the PSNR.
        """
        clean, out = self.clean[codec.label], codec.reconstruct(x_adv)
        table = pd.DataFrame({"image": self._names, **metrics.describe(codec), **about})
        left, right = stack([*self._x, *clean, *self._x]), stack([*x_adv, *out, *out])  # three pairs at once
        for q in only or self._measures:
            for what, part in zip(
                ("input", "recon", "source"), self._measures[q](left, right).split(len(self._names)), strict=True
            ):
                table[f"{q}_{what}"] = part.tolist()
            table[f"{q}_clean"] = self._untouched[codec.label][q].tolist()
            table[f"delta_amp{self._end(q)}"] = table[f"{q}_input"] - table[f"{q}_recon"]
            table[f"delta_source{self._end(q)}"] = table[f"{q}_clean"] - table[f"{q}_source"]
        return table.assign(codec_label=codec.label)

    @staticmethod
    def _end(metric: str) -> str:
        return "" if metric == "psnr" else f"_{metric}"
