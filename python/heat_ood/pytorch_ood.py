"""Detectors for pytorch-ood: every scorer, and HEAT, under its interface.

    from heat_ood.pytorch_ood import HEAT, Scorer
    detector = Scorer("knn", model.features, k=50).fit(loader)
    benchmark.evaluate([detector], loader_kwargs={"batch_size": 256})

They work in `Benchmark` and `GridSearch`; with `encoder=None`, `fit_features` and
`predict_features` take features. Labels below 0 are outliers and left out of fits, as there.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from . import _heat_ood, maps
from ._scorer import scorer as by_name
from .detector import Detector
from .errors import InputError
from .features import FeatureSet
from .recipes import recipe as resolve

try:
    import torch
    from pytorch_ood.api import (
        FeatureMapsDetector,
        FeaturesDetector,
        ModelNotSetException,
        RequiresFittingException,
    )
    from pytorch_ood.utils import extract_features, is_known
    from torch import Tensor
except ImportError as error:
    raise ImportError("heat_ood.pytorch_ood needs pytorch-ood: pip install 'heat-ood[pytorch-ood]'") from error

from .torch import pool

__all__ = ["HEAT", "HEATMaps", "Scorer", "ScorerMaps"]


class _Adapter:
    """What scorers of features and of feature maps have in common."""

    requires_fit = True

    encoder: Any
    device: Any
    to: Any

    #: What is made of maps besides poolings.
    _of_maps: tuple[str, ...] = ()

    def _settings_are(self, settings: dict[str, Any], encoder: Any, w: Any, b: Any) -> None:
        object.__setattr__(self, "_keys", tuple(settings))
        self.encoder = encoder
        self.w, self.b = w, b
        self._detector: Detector | None = None
        for key, value in settings.items():
            setattr(self, key, value)

    def __setattr__(self, key: str, value: Any) -> None:
        # Another setting is another detector.
        if key in getattr(self, "_keys", ()) and key in self.__dict__ and self.__dict__[key] != value:
            self.__dict__["_detector"] = None
        super().__setattr__(key, value)

    @property
    def detector(self) -> Detector:
        """The fitted detector of `heat_ood`, to calibrate, save or compose."""
        if self._detector is None:
            raise RequiresFittingException()
        return self._detector

    def get_hyperparameters(self) -> dict[str, Any]:
        """All settings by name."""
        return {key: getattr(self, key) for key in self._keys}  # type: ignore[attr-defined]

    def set_hyperparameters(self, **values: Any) -> Any:
        """Change settings; the next fit reads them."""
        for key, value in values.items():
            if key not in self._keys:  # type: ignore[attr-defined]
                raise ValueError(f"{key!r} is no setting; there are {', '.join(self._keys)}")  # type: ignore[attr-defined]
            setattr(self, key, value)
        return self

    def _train(self, rows: FeatureSet) -> Detector:
        raise NotImplementedError

    def _fit_fields(self, fields: dict[str, Tensor], labels: Tensor) -> Any:
        known = is_known(labels).cpu()
        if not bool(known.any()):
            raise ValueError("No ID samples")
        # By an index they are copied, which most need not be.
        chosen = slice(None) if bool(known.all()) else known
        rows = {name: values.detach().cpu()[chosen] for name, values in fields.items()}
        head = None if self.w is None else (self.w, self.b)
        label = labels.detach().cpu()[chosen].to(torch.int64)
        self._detector = self._train(FeatureSet(**rows, label=label, head=head, name="train"))
        return self

    def _predict_fields(self, fields: dict[str, Tensor]) -> Tensor:
        detector = self.detector
        first = next(iter(fields.values()))
        scores = detector.score({name: values.detach().cpu() for name, values in fields.items()})
        return torch.from_numpy(np.ascontiguousarray(scores)).to(self.device or first.device)

    def _encode(self, x: Tensor) -> Tensor:
        if self.encoder is None:
            raise ModelNotSetException()
        if self.device is not None:
            x = x.to(self.device)
        with torch.no_grad():
            out: Tensor = self.encoder(x)
        return out

    def _loaded(self, loader: Any) -> tuple[Tensor, Tensor]:
        if self.encoder is None:
            raise ModelNotSetException()
        if self.device is None:
            self.to("cpu")
        device = self.device or "cpu"
        found: tuple[Tensor, Tensor] = extract_features(model=self.encoder, data_loader=loader, device=device)
        return found

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.get_hyperparameters().items())})"


class _OfScorer(_Adapter):
    def _named(self, name: str, encoder: Any, w: Any, b: Any, settings: dict[str, Any]) -> None:
        self.scorer = name
        self._of_maps = (name,) if name in maps.ALONE else ()
        self.hyperparameter_space = {"k": [50, 100, 200, 500, 1000]} if name == "knn" else {}
        self._settings_are(settings, encoder, w, b)

    def _train(self, rows: FeatureSet) -> Detector:
        defaults = _known()[self.scorer]
        settings = {k: v for k, v in self.get_hyperparameters().items() if v is not None and v != defaults[k]}
        return by_name(self.scorer, **settings).fit(rows)


def _known() -> dict[str, dict[str, Any]]:
    """Every scorer's settings with their defaults."""
    known: dict[str, dict[str, Any]] = json.loads(_heat_ood.scorer_list())
    return known


def _defaults(name: str, given: dict[str, Any]) -> dict[str, Any]:
    known = _known()
    if name not in known:
        _heat_ood.parse_spec(name)  # Names the nearest.
        raise InputError(f"scorer {name!r}: give settings as keyword arguments")
    wrong = next((key for key in given if key not in known[name]), None)
    if wrong is not None:
        raise InputError(f"`{wrong}` is no setting of {name}; there are {', '.join(known[name])}")
    return {**known[name], **given}


class Scorer(_OfScorer, FeaturesDetector):  # type: ignore[misc]
    """Any scorer by name, on vectors of features. `w`, `b`: the classifier's last layer."""

    def __init__(
        self,
        scorer: str,
        encoder: Callable[[Tensor], Tensor] | None = None,
        w: Any = None,
        b: Any = None,
        **settings: Any,
    ) -> None:
        self._named(scorer, encoder, w, b, _defaults(scorer, settings))

    def fit(self, data_loader: Any) -> Any:
        """Fit on the features of a loader's ID rows."""
        return self.fit_features(*self._loaded(data_loader))

    def fit_features(self, x: Tensor, y: Tensor) -> Any:
        """Fit on features `[N, D]` with labels `[N]`."""
        return self._fit_fields(self._vectors(x), y)

    def predict(self, x: Tensor) -> Tensor:
        """Scores of inputs, which go through the encoder."""
        return self.predict_features(self._encode(x))

    def predict_features(self, x: Tensor) -> Tensor:
        """Scores of features; higher = more out-of-distribution."""
        return self._predict_fields(self._vectors(x))

    def _vectors(self, x: Tensor) -> dict[str, Tensor]:
        # For scorers of maps a vector is one of one cell.
        return pool(x, self._of_maps) if self._of_maps else {"avg": x}


class ScorerMaps(_OfScorer, FeatureMapsDetector):  # type: ignore[misc]
    """Any scorer by name, on feature maps `[B, C, H, W]`: `pooling="avg"`, `"std"` or `"max"`; `gram` and `rankfeat`
    read the maps themselves."""

    def __init__(
        self,
        scorer: str,
        backbone: Callable[[Tensor], Tensor] | None = None,
        w: Any = None,
        b: Any = None,
        **settings: Any,
    ) -> None:
        self._named(scorer, backbone, w, b, _defaults(scorer, settings))
        self.backbone = backbone

    def fit(self, data_loader: Any) -> Any:
        """Fit on the feature maps of a loader's ID rows, a batch of maps at a time."""
        return _fit_maps(self, data_loader)

    def fit_feature_maps(self, x: Tensor, y: Tensor) -> Any:
        """Fit on maps `[N, C, H, W]` with labels `[N]`."""
        return self._fit_fields(pool(x, self._of_maps), y)

    def predict(self, x: Tensor) -> Tensor:
        """Scores of inputs, which go through the backbone."""
        return self.predict_feature_maps(self._encode(x))

    def predict_feature_maps(self, x: Tensor) -> Tensor:
        """Scores of maps; higher = more out-of-distribution."""
        return self._predict_fields(pool(x, self._of_maps))


def _fit_maps(adapter: Any, loader: Any) -> Any:
    """Maps are pooled as they come: they are never all in memory."""
    if adapter.encoder is None:
        raise ModelNotSetException()
    if adapter.device is None:
        adapter.to("cpu")
    parts: dict[str, list[Tensor]] = {}
    labels = []
    for x, y in loader:
        for name, values in pool(adapter._encode(x), adapter._of_maps).items():
            parts.setdefault(name, []).append(values.cpu())
        labels.append(y)
    return adapter._fit_fields({name: torch.cat(v) for name, v in parts.items()}, torch.cat(labels))


class _OfRecipe(_Adapter):
    def _of_recipe(self, name: str, encoder: Any, w: Any, b: Any, keys: dict[str, Any]) -> None:
        self.recipe = name
        self.hyperparameter_space: dict[str, list[Any]] = {}
        resolve(name, **keys)  # Unknown keys are told now.
        self._settings_are(keys, encoder, w, b)

    def _train(self, rows: FeatureSet) -> Detector:
        return resolve(self.recipe, **self.get_hyperparameters()).train(rows)


class HEAT(_OfRecipe, FeaturesDetector):  # type: ignore[misc]
    """HEAT by a published recipe, on vectors of features; keys of the recipe are its settings."""

    def __init__(
        self,
        encoder: Callable[[Tensor], Tensor] | None = None,
        recipe: str = "heat_gmm_c10",
        w: Any = None,
        b: Any = None,
        **keys: Any,
    ) -> None:
        self._of_recipe(recipe, encoder, w, b, keys)

    fit = Scorer.fit
    fit_features = Scorer.fit_features
    predict = Scorer.predict
    predict_features = Scorer.predict_features
    _vectors = Scorer._vectors


class HEATMaps(_OfRecipe, FeatureMapsDetector):  # type: ignore[misc]
    """HEAT by a published recipe, on feature maps, of which it takes the pooling it names."""

    def __init__(
        self,
        backbone: Callable[[Tensor], Tensor] | None = None,
        recipe: str = "heat_gmm_std_c10",
        w: Any = None,
        b: Any = None,
        **keys: Any,
    ) -> None:
        self._of_recipe(recipe, backbone, w, b, keys)
        self.backbone = backbone

    fit = ScorerMaps.fit
    fit_feature_maps = ScorerMaps.fit_feature_maps
    predict = ScorerMaps.predict
    predict_feature_maps = ScorerMaps.predict_feature_maps
