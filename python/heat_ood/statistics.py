"""What fits gather from the rows, as values that can be merged: for rows that are in parts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import _heat_ood
from ._progress import Progress, callback
from ._scorer import Scorer
from .detector import Detector
from .errors import HeatError
from .features import StrPath, as_head, as_set

__all__ = ["Statistics"]


class Statistics:
    """Statistics of a part of the training rows, or of several that were merged.

    >>> import numpy as np, heat_ood as ho
    >>> x, y = np.random.default_rng(0).normal(size=(300, 8)), np.arange(300) % 3
    >>> parts = [ho.FeatureSet(x[i : i + 100], label=y[i : i + 100]) for i in (0, 100, 200)]
    >>> merged = ho.Statistics.of("maha", parts[0], classes=3)
    >>> for part in parts[1:]:
    ...     merged = merged.merge(ho.Statistics.of("maha", part, classes=3))
    >>> merged.rows, merged.finish().scorer
    (300, 'maha')

    The same parts in the same order give the same bits. Some scorers take more than one round: `complete`
    is then False, and `Statistics.of(…, after=merged)` is gathered from each part again.
    """

    def __init__(self, inner: _heat_ood.Statistics) -> None:
        self._inner = inner
        self._found: list[tuple[str, _heat_ood.Detector]] | None = None

    @classmethod
    def of(
        cls,
        scorers: str | Scorer | Sequence[str | Scorer],
        features: Any,
        *,
        head: Any = None,
        classes: int | None = None,
        after: Statistics | None = None,
        progress: Progress = None,
    ) -> Statistics:
        """Those of one part: a `FeatureSet`, an array, a mapping or a path.

        Labels of a part do not tell how many classes there are in all: give `head`, or `classes`.
        """
        rows = as_set(features, "part")
        layer = as_head(head) or rows.head
        inner = None if layer is None else layer._head
        several = [scorers] if isinstance(scorers, (str, Scorer)) else list(scorers)
        texts = [str(scorer) for scorer in several]
        before = None if after is None else after._inner
        return cls(_heat_ood.Statistics.of(texts, rows._set, inner, classes, before, callback(progress)))

    def merge(self, *others: Statistics) -> Statistics:
        """Also the rows of `others`, which follow: changes this one, and returns it."""
        self._inner = self._inner.merged([other._inner for other in others])
        self._found = None
        return self

    def __add__(self, other: Statistics) -> Statistics:
        return Statistics(self._inner.merged([other._inner]))

    def _finished(self) -> list[tuple[str, _heat_ood.Detector]] | None:
        """What `finish` gives, computed once; None where another round is needed."""
        if self._found is None:
            self._found = self._inner.finish()
        return self._found

    @property
    def scorers(self) -> list[str]:
        """The scorers that they are for, as the command writes them."""
        return self._inner.scorers

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self._inner.rows

    @property
    def round(self) -> int:
        """Which round they are of, from 1."""
        return self._inner.round

    @property
    def complete(self) -> bool:
        """Whether detectors can be made of them, if these are all rows."""
        return self._finished() is not None

    def finish(self) -> Detector | dict[str, Detector]:
        """The detector; of several scorers a dict by scorer."""
        found = self._finished()
        if found is None:
            raise HeatError(
                "another round over the rows is needed: Statistics.of(…, after=these) of each part, merged again"
            )
        if len(found) == 1:
            return Detector(found[0][1])
        return {name: Detector(inner) for name, inner in found}

    def to_bytes(self) -> bytes:
        """The bytes of its file."""
        return self._inner.to_bytes()

    @staticmethod
    def from_bytes(data: bytes) -> Statistics:
        """Statistics of such bytes."""
        return Statistics(_heat_ood.Statistics.from_bytes(data))

    def save(self, path: StrPath) -> None:
        """Write its file, as `heat fit --partial` does."""
        self._inner.save(Path(path))

    @staticmethod
    def load(path: StrPath) -> Statistics:
        """Open such a file."""
        return Statistics(_heat_ood.Statistics.open(Path(path)))

    def __reduce__(self) -> tuple[Any, ...]:
        return (Statistics.from_bytes, (self.to_bytes(),))

    def __repr__(self) -> str:
        return f"Statistics({', '.join(self.scorers)}: {self.rows} rows, round {self.round})"
