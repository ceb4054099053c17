"""Does a stream still look like the calibration rows?"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _arrays, _heat_ood
from .detector import Detector
from .errors import InputError

__all__ = ["Alarm", "Drift"]


@dataclasses.dataclass(frozen=True)
class Alarm:
    """The stream has changed: which test says so, after which row, since which row, on what
    evidence (log10, and what was needed), and the estimated fraction of anomalous rows since."""

    test: str
    row: int
    since: int
    evidence: float
    threshold: float
    admixture: float


class Drift:
    """A running test on the ranks of scores among calibration rows and stream.

    `alpha` bounds the probability of a false alarm within `horizon` rows. `tests`: both,
    martingale or cusum. `two_sided` counts scores that are too low as well.
    """

    def __init__(
        self,
        reference: Detector | Any,
        *,
        alpha: float = 0.01,
        horizon: int = 10_000,
        min_admixture: float = 0.02,
        tests: str = "both",
        two_sided: bool = False,
        seed: int = 0,
    ) -> None:
        self._detector = reference if isinstance(reference, Detector) else None
        if self._detector is not None:
            scores = self._detector._inner.calibration_scores()
            if scores is None:
                raise InputError("drift: the detector is not calibrated; `calibrate` it first")
        else:
            scores = _arrays.vector(reference, "reference", np.float32)
        self._drift = _heat_ood.Drift(scores, alpha, horizon, min_admixture, tests, two_sided, seed)
        #: p-values of the last rows: uniform while nothing changes.
        self.p_values: NDArray[np.float64] = np.empty(0)

    @property
    def rows(self) -> int:
        """Rows seen so far."""
        return self._drift.rows

    def push(self, scores: Any) -> list[Alarm]:
        """Take in the scores of the next rows; the alarms that they raise."""
        array = _arrays.vector(np.atleast_1d(scores), "scores", np.float32)
        self.p_values, _, _, alarms = self._drift.push(array)
        return [Alarm(**alarm) for alarm in json.loads(alarms)]

    def watch(self, x: Any) -> list[Alarm]:
        """Score rows with the detector that this was made of, and take them in."""
        if self._detector is None:
            raise InputError("drift: made of scores, without a detector; give scores to `push`")
        return self.push(self._detector.score(x))
