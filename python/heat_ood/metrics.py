"""Metrics of scores, as fractions. Scores are energies: higher = more out-of-distribution.

Two quantities go by the name FPR95, and both are here: `fpr95_id_positive` (the share of OOD rows at
or below the threshold that accepts 95 % of ID rows) and `fpr95_ood_positive` (the share of ID rows
flagged when 95 % of OOD rows are; that of OpenOOD and pytorch-ood).
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _arrays, _heat_ood

__all__ = ["auroc", "benjamini_hochberg", "evaluate", "openood_aupr"]


def _scores(x: Any, what: str) -> NDArray[np.float32]:
    return _arrays.vector(x, what, np.float32)


def evaluate(id: Any, ood: Any) -> dict[str, float]:
    """Every metric of the scores of ID and of OOD rows.

    >>> from heat_ood import metrics
    >>> metrics.evaluate([0.1, 0.2, 0.3], [0.25, 0.8])["auroc"]
    0.8333333333333334
    """
    found: dict[str, float] = json.loads(_heat_ood.measure(_scores(id, "id"), _scores(ood, "ood")))
    return found


def auroc(id: Any, ood: Any) -> float:
    """Area under the ROC curve, ties counting one half."""
    return evaluate(id, ood)["auroc"]


def openood_aupr(id: Any, ood: Any) -> tuple[float, float]:
    """Areas under precision and recall by the trapezoid, as OpenOOD and pytorch-ood have them:
    ID positive, OOD positive."""
    return _heat_ood.openood_aupr(_scores(id, "id"), _scores(ood, "ood"))


def benjamini_hochberg(p_values: Any, rate: float) -> NDArray[np.bool_]:
    """Which rows are called out-of-distribution so that at most `rate` of these are not."""
    p = _arrays.vector(p_values, "p_values", np.float64)
    return np.array(_heat_ood.benjamini_hochberg(p, rate), dtype=bool)
