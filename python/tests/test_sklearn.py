"""scikit-learn's own checks of an estimator, all of them."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import heat_ood as ho
from heat_ood.sklearn import HeatDetector


@parametrize_with_checks([HeatDetector(), HeatDetector("gmm"), HeatDetector("knn(k=5,normalize=false)")])
def test_estimator(estimator, check):  # type: ignore[no-untyped-def]
    check(estimator)


def test_in_a_pipeline() -> None:
    x, y = load_digits(return_X_y=True)
    known = y < 7
    model = make_pipeline(StandardScaler(), HeatDetector("gmm(shrinkage=1)", contamination=0.01))
    model.fit(x[known][:900], y[known][:900])
    flagged = model.predict(x[known][:900]) == -1
    assert flagged.mean() == pytest.approx(0.01, abs=0.002)
    rest = np.concatenate([x[known][900:], x[~known]])
    is_ood = np.concatenate([np.zeros(known.sum() - 900), np.ones((~known).sum())])
    auroc = roc_auc_score(is_ood, -model.score_samples(rest))
    energies = model[-1].detector_.score(model[0].transform(rest))
    # Their metric and ours are one.
    assert auroc == pytest.approx(ho.metrics.auroc(energies[is_ood == 0], energies[is_ood == 1]), abs=1e-6)
    assert auroc > 0.85


def test_works_beside_joblib() -> None:
    x = np.random.default_rng(0).normal(size=(900, 8))

    def inliers(model, x, y=None):  # type: ignore[no-untyped-def]
        return float(np.mean(model.predict(x) == 1))

    scores = cross_val_score(HeatDetector(), x, scoring=inliers, cv=3, n_jobs=2)
    # By the contamination of a tenth; three standard deviations of a fraction of 300 rows.
    assert np.all(np.abs(scores - 0.9) < 3 * np.sqrt(0.09 / 300))
