"""Which scorer, without looking at test data."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from . import _heat_ood
from ._progress import Progress, callback
from ._scorer import Scorer
from .detector import Detector
from .features import as_head, as_set

__all__ = ["Selection", "select", "tune"]


@dataclasses.dataclass(frozen=True)
class Selection:
    """What was chosen (`detector`, fitted on the whole training set), and on what evidence."""

    detector: Detector
    found: dict[str, Any]

    @property
    def ranking(self) -> list[tuple[str, float]]:
        """Scorers with their mean AUROC against what played OOD, best first."""
        entries = self.found.get("ranking") or sorted(
            self.found["candidates"], key=lambda c: c["auroc"], reverse=True
        )
        return [(entry["name"], entry["auroc"]) for entry in entries]

    def __repr__(self) -> str:
        lines = [f"  {100 * auroc:6.2f}  {name}" for name, auroc in self.ranking[:5]]
        return "\n".join([f"Selection({self.detector!r}", *lines, ")"])


def _texts(scorers: str | Sequence[str | Scorer]) -> list[str]:
    if isinstance(scorers, str):
        known = ("all", "logits", "features", "head", "unlabelled", "unlabeled")
        return _heat_ood.scorer_group(scorers) if scorers in known else [scorers]
    return [str(s) for s in scorers]


def select(
    train: Any,
    scorers: str | Sequence[str | Scorer] = "all",
    *,
    head: Any = None,
    folds: int = 5,
    rows: int = 20_000,
    members: int = 6,
    seed: int = 0,
    strict: bool = False,
    progress: Progress = None,
) -> Selection:
    """Rank scorers and compose them by classes held out and by made-up outliers: no OOD data.

    `train` needs labels. `scorers`: a group ("all", "logits", "features", "head") or a list.
    """
    data = as_set(train, "train")
    layer = as_head(head) or data.head
    data._tell(layer)
    inner = None if layer is None else layer._head
    told = callback(progress)
    text, detector = _heat_ood.select(
        _texts(scorers), data._set, inner, folds, rows, members, seed, strict, told
    )
    return Selection(Detector(detector), json.loads(text))


def tune(
    train: Any,
    scorers: str | Sequence[str | Scorer],
    *,
    id: Any,
    ood: Mapping[str, Any],
    head: Any = None,
    strict: bool = False,
    progress: Progress = None,
) -> Selection:
    """The best of some settings, `["knn(k=1|10|50)"]`, on validation sets (never on test sets).

    `id` and `ood` are remembered by the detector: it refuses to be calibrated on those rows.
    """
    data = as_set(train, "train")
    layer = as_head(head) or data.head
    data._tell(layer)
    sets = [(name, as_set(x, name)._set) for name, x in ood.items()]
    text, detector = _heat_ood.tune_on(
        _texts(scorers),
        data._set,
        as_set(id, "id")._set,
        sets,
        None if layer is None else layer._head,
        strict,
        callback(progress),
    )
    return Selection(Detector(detector), json.loads(text))
