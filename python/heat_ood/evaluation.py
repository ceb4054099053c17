"""Detectors against data sets."""

from __future__ import annotations

import html
import json
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import _heat_ood
from ._progress import Progress, callback
from ._scorer import Scorer
from ._scorer import scorer as by_name
from .detector import Detector
from .errors import HeatWarning, InputError
from .features import StrPath, as_head, as_set

__all__ = ["Results", "evaluate"]


class Results:
    """What an evaluation found; shown as a report in a notebook."""

    def __init__(self, inner: _heat_ood.Results, detectors: dict[str, Detector]) -> None:
        self._inner = inner
        #: The detectors by name, those that were fitted here included.
        self.detectors = detectors

    def to_dict(self) -> dict[str, Any]:
        """Everything, as `heat eval --format json` has it; values are fractions."""
        found: dict[str, Any] = json.loads(self._inner.text("json"))
        return found

    def to_json(self) -> str:
        """The same as text."""
        return self._inner.text("json")

    def to_markdown(self) -> str:
        """A table for documents, in per cent."""
        return self._inner.text("markdown")

    def to_csv(self) -> str:
        """One line per scorer and set."""
        return self._inner.text("csv")

    def to_pandas(self) -> Any:
        """One row per scorer and set, values as fractions (needs pandas)."""
        import pandas as pd

        rows = []
        for name, scorer in self.to_dict()["scorers"].items():
            for ood, found in [*scorer["ood"].items(), ("average", scorer["average"])]:
                metrics = {key: value for key, value in found.items() if not isinstance(value, dict)}
                rows.append({"scorer": name, "ood": ood, **metrics})
        return pd.DataFrame(rows).set_index(["scorer", "ood"])

    def auroc(self) -> dict[str, float]:
        """Mean AUROC of each scorer over the OOD sets."""
        scorers = self.to_dict()["scorers"]
        return {name: found["average"]["auroc"] for name, found in scorers.items()}

    def report(self, path: StrPath | None = None, *, title: str = "heat_ood.evaluate") -> str:
        """The report as one HTML page without outside parts; also written to `path`."""
        page = self._inner.html(title)
        if path is not None:
            Path(path).write_text(page, encoding="utf-8")
        return page

    def _repr_html_(self) -> str:
        # Within a frame of its own, so that neither page changes the other's looks.
        page = html.escape(self.report(), quote=True)
        return f'<iframe srcdoc="{page}" style="width:100%;height:640px;border:0"></iframe>'

    def __str__(self) -> str:
        return self._inner.text("table")

    def __repr__(self) -> str:
        found = self.auroc()
        best = max(found, key=lambda name: found[name])
        return f"Results({len(found)} scorers; best mean AUROC {100 * found[best]:.2f}: {best})"


def evaluate(
    scorers: Mapping[str, Detector | Scorer] | Sequence[Detector | Scorer | str] | Detector,
    *,
    id: Any,
    ood: Mapping[str, Any],
    train: Any = None,
    head: Any = None,
    groups: tuple[Sequence[str], Sequence[str]] | None = None,
    ci: float | None = None,
    compare: str | None = None,
    resamples: int | None = None,
    seed: int | None = None,
    force: bool = False,
    progress: Progress = None,
) -> Results:
    """Score the ID and every OOD set with every scorer, and measure.

    `scorers`: detectors, or scorers (also by name, `"knn(k=50)"`) that are fitted on `train` first.
    `groups`: names of near and far sets, averaged apart. `ci`: level of bootstrap intervals (0.95).
    `compare`: paired tests of every scorer against one, or against the "best".
    """
    layer = as_head(head)
    rows = None
    if train is not None:
        rows = as_set(train, "train")
        layer = layer or rows.head
        rows = rows.with_head(layer)
    candidates = []
    for name, found in _named(scorers):
        seconds = None
        if isinstance(found, str):
            found = by_name(found)
        if isinstance(found, Scorer):
            if rows is None:
                raise InputError(f"{name}: not fitted; give `train`, or fit it first")
            begun = time.perf_counter()
            found = found.fit(rows)
            seconds = time.perf_counter() - begun
        candidates.append((name, found, seconds))
    sets = [(name, as_set(x, name)._set) for name, x in ood.items()]
    test = as_set(id, "id")
    test._tell(layer)
    near_far = None if groups is None else ([*groups[0]], [*groups[1]])
    inner = _heat_ood.evaluate(
        [(name, detector._inner, seconds) for name, detector, seconds in candidates],
        test._set,
        sets,
        near_far,
        ci,
        compare,
        resamples,
        seed,
        None if rows is None else rows._set,
        None if layer is None else layer._head,
        force,
        callback(progress),
    )
    results = Results(inner, {name: detector for name, detector, _ in candidates})
    for problem in results.to_dict().get("warnings", []):
        warnings.warn(problem, HeatWarning, stacklevel=2)
    return results


def _named(scorers: Any) -> list[tuple[str, Any]]:
    if isinstance(scorers, Mapping):
        return list(scorers.items())
    if isinstance(scorers, (Detector, Scorer, str)):
        scorers = [scorers]
    names: dict[str, int] = {}
    found = []
    for entry in scorers:
        name = entry.scorer if isinstance(entry, Detector) else str(entry)
        names[name] = names.get(name, 0) + 1
        found.append((name if names[name] == 1 else f"{name} ({names[name]})", entry))
    return found
