"""Checkpoints as the authors of an architecture published them, brought under this package's names: ``load_codec(…, "authors:PATH")``.

An architecture says how their names become its own (``from_authors``), for which λ each file was trained (``authors_lambdas``) and how
wide they are (``published_widths``, ``authors_widths``). What all such files share is undone here: where in a file the parameters lie,
what DataParallel puts before their names, and the spellings of the entropy bottleneck's, which changed twice.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from nic_helpers.codecs.architecture import Architecture
from nic_helpers.codecs.checkpoints import Weights, content_of, learnt

#: What says so in load_codec's ``weights``, before the file's path.
PREFIX = "authors:"
#: Where in a checkpoint its authors put the parameters.
_PLACES = ("state_dict", "model")
#: ``_matrix0`` (CompressAI 1.1 to 1.2.6), ``_matrices.0`` (a fork of 1.0.9), ``matrices.0`` (since).
_BOTTLENECK = re.compile(r"(entropy_bottleneck\.)_?(matri|bias|factor)(?:x|ces|es|s)?\.?(\d+)$")
_SPELLED = {"matri": "matrices", "bias": "biases", "factor": "factors"}

Rules = tuple[tuple[str, str | None], ...]


def renamed(state: Mapping[str, Tensor], rules: Rules) -> dict[str, Tensor]:
    """Parameters under other names. ``rules``: regular expressions and what stands for them, applied one after the other; with None in
    its place a parameter is left out."""
    found = {}
    for name, value in state.items():
        for pattern, by in rules:
            if by is None and re.search(pattern, name):
                break
            name = name if by is None else re.sub(pattern, by, name)
        else:
            found[name] = value
    return found


def authors_state(arch: type[Architecture], path: Path) -> dict[str, Tensor]:
    """The parameters in an author's checkpoint, in float32, under the names of ``arch``, whatever their shapes.

    ValueError for a file that holds none, or values that are not finite.
    """
    content = content_of(path)
    inside = [content[k] for k in _PLACES if isinstance(content, Mapping) and isinstance(content.get(k), Mapping)]
    state = (inside or [content])[0]
    if not isinstance(state, Mapping) or not any(isinstance(v, Tensor) for v in state.values()):
        found = ", ".join(map(str, list(content)[:12])) if isinstance(content, Mapping) else type(content).__name__
        raise ValueError(f"{path} holds no parameters under {' or '.join(_PLACES)}, only {found}: get the authors' file anew")
    tensors = {_spelled(str(k)): v.float() for k, v in state.items() if isinstance(v, Tensor) and v.is_floating_point()}
    return arch.from_authors(learnt(tensors, path))


def _spelled(name: str) -> str:
    """Without the wrapper's prefix, and with the bottleneck's parameters spelled as today."""
    name = name.removeprefix("module.")
    return _BOTTLENECK.sub(lambda m: f"{m[1]}{_SPELLED[m[2]]}.{m[3]}", name)


def load_authors(arch: type[Architecture], path: Path, quality: int) -> Weights:
    """The weights in an author's checkpoint, which must be of one of the sizes that the authors published.

    ``quality``: the number of the λ that the file was trained for (``authors_lambdas``). ValueError, naming the first parameter that
    does not fit with its shape in the file and in the model, for a checkpoint of other widths or with parameters that the model has not.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}: after {PREFIX!r} comes the path of what the authors of {arch.name} published")
    if quality not in arch.authors_lambdas:
        have = ", ".join(f"{q} (λ = {v:g})" for q, v in arch.authors_lambdas.items()) or "none"
        raise ValueError(f"the authors of {arch.name} published no weights of quality {quality!r}: there are {have}")
    state = authors_state(arch, path)
    sizes = dict.fromkeys((*arch.published_widths.values(), *arch.authors_widths))
    unfit = {widths: misfits(arch, state, widths) for widths in sizes}
    widths = min(unfit, key=lambda w: len(unfit[w]))
    if unfit[widths]:
        name, theirs, ours = unfit[widths][0]
        more = f" (and {len(unfit[widths]) - 1} more)" if len(unfit[widths]) > 1 else ""
        raise ValueError(
            f"{path} is not {arch.name} as its authors published it, of widths {' '.join(map(str, widths))}: {name} is {theirs} in the "
            f"file and {ours} in the model{more}. Take the authors' own file of this architecture; weights trained anew at other widths "
            "load by their path, saved under this package's names: torch.save(authors.authors_state(ARCHITECTURES[name], path), new_path)"
        )
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Weights(state, "authors", path.name, digest, arch.authors_lambdas[quality])


def misfits(arch: type[Architecture], state: Mapping[str, Tensor], widths: tuple[int, ...]) -> list[tuple[str, str, str]]:
    """(name, shape in ``state``, shape in the model of these widths) of all parameters in which the two differ."""
    model = arch.build(*widths)
    needed, known = dict(model.named_parameters()), model.state_dict()
    names = dict.fromkeys((*state, *needed))
    pairs = [(name, state.get(name), known.get(name)) for name in names]
    return [(n, _shape(a), _shape(b)) for n, a, b in pairs if (a is None) != (b is None) or a.shape != b.shape]


def _shape(value: Tensor | None) -> str:
    return "missing" if value is None else "×".join(map(str, value.shape)) or "a number"
