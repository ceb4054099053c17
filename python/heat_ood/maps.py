"""What `gram`, `rankfeat` and `nac` read of a network's feature maps, for maps at hand, and `mcd` of passes with dropout.

`extract(…, maps=["gram", "rankfeat"])` makes the same on the way; maps are reduced a batch at a time and need
not be kept.

>>> import numpy as np, heat_ood as ho
>>> maps = np.random.default_rng(0).normal(size=(6, 4, 3, 3)).astype(np.float32)
>>> train = ho.FeatureSet(maps.mean((2, 3)), gram=ho.maps.gram(maps), label=[0, 1, 2, 0, 1, 2])
>>> train.dims
{'avg': 4, 'gram': 40}
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _arrays, _heat_ood
from .errors import InputError

__all__ = ["gram", "nac", "passes", "rankfeat"]

#: Those that need no gradients: of maps alone.
ALONE = ("gram", "rankfeat")


def gram(maps: Any) -> NDArray[np.float32]:
    """Gram matrices of maps `[N, C, h, w]` (or `[N, C, cells]`) by their rows' sums, `[N, 10·C]`.

    Of Fᵖ(Fᵖ)ᵀ, p = 1 … 10, the 2p-th root of each row's sum (Sastry and Oore, ICML 2020).
    """
    return _reduced("gram", maps)


def rankfeat(maps: Any) -> NDArray[np.float32]:
    """Mean over the cells of maps `[N, C, h, w]` without their first singular components, `[N, C]`.

    Song et al., *RankFeat*, NeurIPS 2022. Maps have two cells at least.
    """
    return _reduced("rankfeat", maps)


def nac(maps: Any, gradients: Any) -> NDArray[np.float32]:
    """Maps times the gradient of KL(uniform ‖ softmax) with respect to them, both `[N, C, h, w]` (or `[N, C]`), each
    summed over its cells; of the product the root with its sign, `[N, C]`.

    Liu et al., *Neuron Activation Coverage*, ICLR 2024.
    """
    values, slopes = (_arrays.numbers(x, name) for x, name in ((maps, "maps"), (gradients, "gradients")))
    if values.shape != slopes.shape or values.ndim < 2:
        raise InputError(f"gradients: shape {slopes.shape}; expected that of the maps, {values.shape}, [N, C, …]")
    rows = (*values.shape[:2], -1)
    sums = (x.reshape(rows).sum(axis=2, dtype=np.float64) for x in (values, slopes))
    product = next(sums) * next(sums)
    kept: NDArray[np.float32] = (np.sign(product) * np.sqrt(np.abs(product))).astype(np.float32)
    return kept


def passes(logits: Any) -> dict[str, NDArray[np.float32]]:
    """Logits of K passes with dropout, `[K, N, C]`, as the fields of the part `dropoutK` (scorer `mcd`): the means of logits and of
    probabilities, and the standard deviation of these, each `[N, C]`.

    >>> import numpy as np, heat_ood as ho
    >>> stack = np.random.default_rng(0).normal(size=(30, 6, 4))
    >>> rows = ho.FeatureSet(logits=stack[0], parts={"dropout30": ho.maps.passes(stack)})
    >>> ho.Mcd().fit(rows).score(rows).shape
    (6,)

    Gal and Ghahramani, *Dropout as a Bayesian Approximation*, ICML 2016.
    """
    array = _arrays.numbers(logits, "logits").astype(np.float64)
    if array.ndim != 3 or array.shape[0] < 2 or 0 in array.shape:
        raise InputError(f"logits: shape {array.shape}; expected those of two passes or more, [K, N, C]")
    shifted = np.exp(array - array.max(axis=2, keepdims=True))
    probabilities = shifted / shifted.sum(axis=2, keepdims=True)
    made = {"logits": array.mean(0), "probs": probabilities.mean(0), "spread": probabilities.std(0, ddof=1)}
    return {name: values.astype(np.float32) for name, values in made.items()}


def _reduced(name: str, maps: Any) -> NDArray[np.float32]:
    array = _arrays.numbers(maps, "maps")
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim < 3:
        raise InputError(f"maps: shape {array.shape}, expected [N, C, h, w]")
    array = array.reshape(*array.shape[:2], -1)
    if 0 in array.shape:
        raise InputError(f"maps: shape {array.shape}, there must be a row, a channel and a cell")
    made: NDArray[np.float32] = _heat_ood.of_maps(name, np.ascontiguousarray(array, dtype=np.float32))
    return made
