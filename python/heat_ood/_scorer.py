"""What all scorers have in common; the classes are in `scorers`."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from . import _heat_ood
from ._progress import Progress, callback
from .detector import Detector
from .features import FeatureSet, as_head, as_set

Setting = bool | int | float | str | None


class Scorer:
    """Settings of a scorer: plain attributes, read when it is fitted."""

    #: Name of the method, as the command writes it.
    name: ClassVar[str] = ""
    #: Settings with their defaults.
    defaults: ClassVar[dict[str, Setting]] = {}

    def __init__(self, **settings: Setting) -> None:
        self.__dict__.update(settings)

    @property
    def settings(self) -> dict[str, Setting]:
        """Those that differ from the defaults."""
        now = {key: getattr(self, key) for key in self.defaults}
        return {key: value for key, value in now.items() if value is not None and value != self.defaults[key]}

    def fit(
        self,
        train: Any,
        label: Any = None,
        *,
        head: Any = None,
        classes: int | None = None,
        progress: Progress = None,
    ) -> Detector:
        """Fit it on `train`: a `FeatureSet`, an array with `label`, a mapping or a path."""
        if label is not None and not isinstance(train, FeatureSet):
            fields = train if isinstance(train, dict) else {"avg": train}
            train = FeatureSet(**fields, label=label, name="train")
        rows = as_set(train, "train")
        layer = as_head(head) or rows.head
        rows._tell(layer)
        inner = None if layer is None else layer._head
        return Detector(
            _heat_ood.fit(self.name, self.settings, rows._set, inner, classes, callback(progress))
        )

    def __str__(self) -> str:
        return _heat_ood.spec_text(self.name, self.settings)

    def __repr__(self) -> str:
        settings = ", ".join(f"{key}={value!r}" for key, value in self.settings.items())
        return f"{type(self).__name__}({settings})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Scorer) and (self.name, self.settings) == (other.name, other.settings)

    def __hash__(self) -> int:
        return hash(str(self))


class Named(Scorer):
    """A scorer by its name, with any settings."""

    def __init__(self, name: str, **settings: Setting) -> None:
        super().__init__(**settings)
        self.__dict__["name"] = name
        self.__dict__["defaults"] = dict.fromkeys(settings)

    def __repr__(self) -> str:
        return f"scorer({str(self)!r})"


def scorer(text: str, **settings: Setting) -> Scorer:
    """A scorer as the command writes it: `scorer("knn(k=50)")`, or `scorer("knn", k=50)`."""
    name, given = _heat_ood.parse_spec(text)
    return Named(name, **{**json.loads(given), **settings})


def scorers(group: str = "all") -> list[Scorer]:
    """The scorers of a group: all (but those of maps), logits, features, head, maps, unlabelled, committee."""
    return [scorer(text) for text in _heat_ood.scorer_group(group)]
