"""Detectors: fitted scorers, and what turns their scores into verdicts."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _arrays, _heat_ood
from ._progress import Progress, callback
from .errors import InputError
from .features import FeatureSet, Head, StrPath, as_head, as_set

__all__ = ["Detector", "Prediction", "load", "compose"]

#: Bytes of an array of other strides that are copied at a time.
_BLOCK = 32 << 20


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What is thought of N rows, each field an array of length N.

    `p_value` is conformal: small for rows unlike the calibration rows. `is_ood` are the verdicts at
    the calibrated rate. Both are None for a detector that is not calibrated; `label`, the predicted
    class, is there where it was calibrated by class, or where classes have names and rows logits.
    """

    score: NDArray[np.float32]
    p_value: NDArray[np.float64] | None = None
    is_ood: NDArray[np.bool_] | None = None
    label: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.score)

    def to_dict(self) -> dict[str, Any]:
        """The fields that are there, by name."""
        fields = ((f.name, getattr(self, f.name)) for f in dataclasses.fields(self))
        return {name: value for name, value in fields if value is not None}

    def to_pandas(self) -> Any:
        """A data frame, one row a row (needs pandas)."""
        import pandas as pd

        return pd.DataFrame(self.to_dict())


def _blocks(x: Any) -> Iterator[_heat_ood.FeatureSet] | None:
    """Blocks of rows of a large array of other strides, so that a whole copy is never there."""
    if isinstance(x, (FeatureSet, Mapping, str, os.PathLike)):
        return None
    array, kind = _arrays.matrix(x, "avg")
    if (array.flags.c_contiguous and array.flags.aligned) or array.nbytes <= _BLOCK:
        return None
    rows = max(1, _BLOCK // (array.nbytes // len(array)))

    def each() -> Iterator[_heat_ood.FeatureSet]:
        for start in range(0, len(array), rows):
            block = _arrays.contiguous(array[start : start + rows], kind)
            yield _heat_ood.FeatureSet.from_arrays("memory", [("avg", block, kind)])

    return each()


def _inner(x: Any) -> _heat_ood.FeatureSet:
    """The set of an array, by the shortest way where it needs none of the longer ones."""
    if type(x) is np.ndarray and x.dtype == np.float32 and x.ndim == 2 and x.size:
        flags = x.flags
        if flags.c_contiguous and flags.aligned:
            return _heat_ood.FeatureSet.from_arrays("memory", [("avg", x, "f32")])
    return as_set(x)._set


class Detector:
    """A fitted scorer. Scores are energies: higher = more out-of-distribution.

    Made by a scorer's `fit`, by `Recipe.train`, `compose`, `select` or `load`. It can be pickled,
    copied, and saved as one file that needs neither Python nor the training data.
    """

    def __init__(self, inner: _heat_ood.Detector) -> None:
        self._inner = inner

    # What it is

    @property
    def scorer(self) -> str:
        """Name of the method."""
        return self._inner.scorer

    def info(self) -> dict[str, Any]:
        """Settings, provenance (what it was fitted on), calibration."""
        info: dict[str, Any] = json.loads(self._inner.info())
        return info

    @property
    def calibrated(self) -> bool:
        """Whether it gives p-values and verdicts."""
        return self._inner.calibration_scores() is not None

    def __repr__(self) -> str:
        made = self.info()["provenance"].get("recipe") or self.scorer
        first = made.splitlines()[0] if "\n" not in made else self.scorer
        return f"Detector({first}{', calibrated' if self.calibrated else ''})"

    # Scores and verdicts

    def score(self, x: Any, *, threads: int | None = None, progress: Progress = None) -> NDArray[np.float32]:
        """One score a row, `[N]`; higher = more out-of-distribution.

        `x` is a `FeatureSet`, an array `[N, D]` of pooled features (a tensor too), a mapping such as
        `{"avg": …, "std": …}`, or the path of features. With `threads`, a call of its own number of
        threads, which cannot tell its progress.
        """
        if threads is not None and progress:
            raise InputError("threads: a call with threads of its own tells no progress; use set_num_threads")
        blocks = None if isinstance(x, FeatureSet) else _blocks(x)
        told = callback(progress)
        if blocks is None:
            scores: NDArray[np.float32] = self._inner.score(_inner(x), threads, told)
            return scores
        return np.concatenate([self._inner.score(block, threads, told) for block in blocks])

    def predict(
        self, x: Any, *, seed: int | None = None, threads: int | None = None, progress: Progress = None
    ) -> Prediction:
        """Scores, p-values and verdicts. With `seed`, ties of p-values are broken at random; `threads`
        as in `score`."""
        if threads is not None and progress:
            raise InputError("threads: a call with threads of its own tells no progress; use set_num_threads")
        return Prediction(*self._inner.predict(_inner(x), seed, callback(progress)))

    def score_parts(self, x: Any) -> dict[str, NDArray[np.float32]]:
        """What makes up the score: of HEAT `energy_nn` and `energy_prior`, of a composition
        `score.` and the name of each member; empty for most."""
        return self._inner.components(_inner(x))

    # Calibration

    def calibrate(
        self,
        id: Any,
        *,
        alpha: float = 0.05,
        guarantee: str = "marginal",
        delta: float = 0.05,
        per_class: bool = False,
        head: Any = None,
        drop_seen: bool = False,
        train: Any = None,
        force: bool = False,
    ) -> Detector:
        """A copy that knows when to say "out-of-distribution".

        `id`: in-distribution rows that took no part in training (others are refused unless
        `force`; `drop_seen` leaves them out, and finds all of them in a large set if `train` is given). At most the fraction `alpha` of such rows is flagged:
        on average (`guarantee="marginal"`), or except with probability `delta`
        (`"clopper_pearson"`, `"dkw"`). `per_class` ranks rows within their predicted class.
        """
        rows = as_set(id, "calibration")
        inner = rows._set
        if drop_seen:
            seen = [] if train is None else [as_set(train, "train")._set]
            inner, _ = self._inner.without_seen(inner, seen)
        layer = as_head(head) or (rows.head if per_class else None)
        layer_inner = None if layer is None else layer._head
        return Detector(
            self._inner.calibrate(inner, alpha, guarantee, delta, per_class, layer_inner, force)
        )

    def with_alpha(self, alpha: float) -> Detector:
        """A copy that decides at another rate, by the same calibration."""
        return Detector(self._inner.with_alpha(alpha))

    def of_any_origin(self) -> Detector:
        """A copy that takes features of another network or transform; its scores mean nothing then,
        unless you know why they do."""
        return Detector(self._inner.of_any_origin())

    # Files

    def save(self, path: StrPath) -> None:
        """Write the file, whole or not at all; the command and `load` read it."""
        self._inner.save(Path(path))

    @classmethod
    def load(cls, path: StrPath) -> Detector:
        """Open a detector's file, or that of a run's directory."""
        path = Path(path)
        if path.is_dir():
            path = path / "detector.safetensors"
        return cls(_heat_ood.Detector.open(path))

    def __reduce__(self) -> tuple[Any, ...]:
        return _of_bytes, (self._inner.to_bytes(),)

    def __copy__(self) -> Detector:
        return Detector(self._inner)

    def __deepcopy__(self, memo: dict[int, Any]) -> Detector:
        return Detector(self._inner)  # It never changes.


def _of_bytes(data: bytes) -> Detector:
    return Detector(_heat_ood.Detector.from_bytes(data))


def load(path: StrPath) -> Detector:
    """Open a detector's file, or the detector of a run's directory."""
    return Detector.load(path)


def compose(
    detectors: Sequence[Detector] | Mapping[str, Detector],
    *,
    train: Any = None,
    standardise: Any = None,
    beta: float = 0.0,
    weights: Sequence[float] | None = None,
    against: Any = None,
    head: Any = None,
    progress: Progress = None,
) -> Detector:
    """Compose detectors into one (METHOD §5): each score standardised over `train`, then combined.

    `beta` 0 is the sum; above, large scores count more, below, small ones. `train` are ID rows. In its
    place `standardise` gives ID rows that took no part in training: better, since trained rows look more
    ordinary than others to some detectors.

    With `against`, rows that play OOD (a set, or several, which count alike), the weights are those that
    tell them best from the rows of `standardise`, by logistic regression; detectors without a weight are
    left out. Results on these rows can no longer be reported.
    """
    named = detectors.items() if isinstance(detectors, Mapping) else None
    members = list(named) if named is not None else [(d.scorer, d) for d in _sequence(detectors)]
    if against is not None and (standardise is None or weights is not None):
        raise InputError("against: weights are found on the rows of `standardise`, in place of `weights`")
    weights = [1.0] * len(members) if weights is None else list(weights)
    if len(weights) != len(members):
        raise InputError(f"weights: {len(weights)} for {len(members)} detectors")
    if (train is None) == (standardise is None):
        raise InputError("give either `train` or `standardise`: the rows over which scores are standardised")
    counts: dict[str, int] = {}
    parts = []
    for (name, detector), weight in zip(members, weights, strict=True):
        counts[name] = counts.get(name, 0) + 1
        unique = name if counts[name] == 1 else f"{name}_{counts[name]}"
        parts.append((unique, detector._inner, float(weight)))
    rows = as_set(standardise, "standardise") if train is None else as_set(train, "train")
    layer: Head | None = as_head(head) or rows.head
    inner = None if layer is None else layer._head
    sets = [] if against is None else against if isinstance(against, (list, tuple)) else [against]
    others = [as_set(part, f"against[{i}]")._set for i, part in enumerate(sets)] if train is None else None
    return Detector(_heat_ood.compose(parts, beta, rows._set, inner, others, callback(progress)))


def _sequence(detectors: Any) -> Sequence[Detector]:
    found = list(detectors)
    for i, detector in enumerate(found):
        if not isinstance(detector, Detector):
            raise InputError(f"detectors[{i}]: {type(detector).__name__}, expected a Detector; fit it first")
    return found
