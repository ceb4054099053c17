"""scikit-learn: an outlier detector for pipelines.

    from heat_ood.sklearn import HeatDetector
    make_pipeline(StandardScaler(), HeatDetector("gmm", contamination=0.01)).fit(X, y).predict(X2)

`score_samples` and `decision_function` are −score: higher = more normal. `predict` gives +1 and −1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._scorer import Scorer
from ._scorer import scorer as by_name
from .detector import Detector
from .errors import FitError, InputError
from .features import FeatureSet

try:
    from sklearn.base import BaseEstimator, OutlierMixin
    from sklearn.utils.multiclass import type_of_target
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ImportError("heat_ood.sklearn needs scikit-learn 1.6: pip install 'heat-ood[sklearn]'") from error

__all__ = ["HeatDetector"]

#: Scorers that find one cluster where there are no classes.
_CLUSTERED = ("gmm", "ssd", "maha", "mds_pp")


class HeatDetector(OutlierMixin, BaseEstimator):  # type: ignore[misc]
    """Any scorer of features, `"maha"` or `"knn(k=5,normalize=false)"`, as an estimator.

    Some scorers (`gmm`, `knn`) divide rows by their length unless told otherwise, as features of
    networks want it and columns of a table do not. `y` are classes where they are (`binary` or `multiclass`) and are ignored otherwise; without
    classes, `gmm`, `ssd`, `maha` and `mds_pp` fit one Gaussian. `contamination` is the fraction of
    training rows that `predict` calls outliers. `head` is `(W, b)` for scorers that need a classifier.
    """

    def __init__(self, scorer: Any = "maha", *, contamination: float = 0.1, head: Any = None) -> None:
        self.scorer = scorer
        self.contamination = contamination
        self.head = head

    def fit(self, X: Any, y: Any = None) -> HeatDetector:
        """Fit on rows `[N, D]`, with class labels where there are some."""
        if not 0.0 < self.contamination <= 0.5:
            raise InputError(f"contamination = {self.contamination}: a fraction in (0, 0.5]")
        X = validate_data(self, X, dtype=[np.float64, np.float32], ensure_min_samples=2)
        labels = self._classes(y, len(X))
        chosen = self.scorer if isinstance(self.scorer, Scorer) else by_name(self.scorer)
        if labels is None and chosen.name in _CLUSTERED and getattr(chosen, "kmeans", None) is None:
            chosen = by_name(chosen.name, **{**chosen.settings, "kmeans": 1})
        rows = FeatureSet(X, label=labels, head=self.head, name="X")
        try:
            self.detector_: Detector = chosen.fit(rows)
        except FitError as error:
            if X.shape[1] == 1:
                raise InputError(f"{error}; there is 1 feature(s), of unit length in every row") from error
            raise
        self.offset_ = float(np.percentile(self._normality(X), 100.0 * self.contamination))
        return self

    @staticmethod
    def _classes(y: Any, rows: int) -> NDArray[Any] | None:
        if y is None:
            return None
        y = np.asarray(y)
        if y.shape != (rows,) or type_of_target(y) not in ("binary", "multiclass"):
            return None
        return np.unique(y, return_inverse=True)[1]

    def _normality(self, X: Any) -> NDArray[np.float64]:
        return -self.detector_.score(X).astype(np.float64)

    def score_samples(self, X: Any) -> NDArray[np.float64]:
        """−score of each row: higher = more normal."""
        check_is_fitted(self)
        return self._normality(validate_data(self, X, dtype=[np.float64, np.float32], reset=False))

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """The same less `offset_`: below 0 is an outlier."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> NDArray[np.int64]:
        """+1 for inliers, −1 for outliers."""
        return np.where(self.decision_function(X) >= 0, 1, -1)
