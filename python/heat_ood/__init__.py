"""Which inputs should a trained classifier not be trusted on?

Scores are energies: higher = more out-of-distribution; `float32`, one a row.

>>> import numpy as np, heat_ood as ho
>>> rng = np.random.default_rng(0)
>>> train = ho.FeatureSet(rng.normal(size=(200, 8)), label=np.arange(200) % 4)
>>> detector = ho.Maha().fit(train).calibrate(rng.normal(size=(100, 8)), alpha=0.05)
>>> bool(detector.predict(rng.normal(loc=9.0, size=(1, 8))).is_ood[0])
True

`FeatureSet` holds features; every scorer is a class (`Gmm`, `Knn`, `Vim`, …, all in `scorers`) whose
`fit` gives a `Detector`; `recipe(...).train(...)` trains HEAT; `compose`, `select` and `evaluate` take
detectors. `heat_ood.torch`, `heat_ood.sklearn`, `heat_ood.pytorch_ood`, `heat_ood.openood`,
`heat_ood.arrow` (also for Spark and DuckDB) and `heat_ood.ray` speak those libraries' languages, and
are imported only when asked for.
"""

from __future__ import annotations

from . import _heat_ood, drift, errors, maps, metrics
from ._scorer import Scorer, scorer, scorers
from .detector import Detector, Prediction, compose, load
from .drift import Drift
from .errors import HeatError, HeatWarning
from .evaluation import Results, evaluate
from .features import FeatureSet, Head
from .images import Backbone, extract
from .plan import Plan, plan
from .recipes import Recipe, recipe
from .scorer_classes import *  # noqa: F403
from .scorer_classes import __all__ as _classes
from .selection import Auto, Selection, auto, auto_from_images, committee, select, tune
from .statistics import Statistics

__version__ = _heat_ood.version()


def set_num_threads(threads: int) -> None:
    """Use so many threads in this process from now on; by default `HEAT_NUM_THREADS`, else the
    CPUs that the process may use. No result depends on it."""
    _heat_ood.set_num_threads(threads)


def get_num_threads() -> int:
    """Threads that are used in this process."""
    return _heat_ood.num_threads()


__all__ = [
    "Auto",
    "Backbone",
    "Detector",
    "Drift",
    "FeatureSet",
    "Head",
    "HeatError",
    "HeatWarning",
    "Plan",
    "Prediction",
    "Recipe",
    "Results",
    "Scorer",
    "Selection",
    "Statistics",
    "auto",
    "auto_from_images",
    "committee",
    "compose",
    "drift",
    "errors",
    "evaluate",
    "extract",
    "get_num_threads",
    "load",
    "maps",
    "metrics",
    "plan",
    "recipe",
    "scorer",
    "scorers",
    "select",
    "set_num_threads",
    "tune",
    *_classes,
]
