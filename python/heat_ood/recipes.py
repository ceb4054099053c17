"""HEAT by the published recipes."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from . import _heat_ood
from ._progress import Progress, callback
from .detector import Detector
from .errors import InputError
from .features import StrPath, as_head, as_set

__all__ = ["Recipe", "recipe"]


class Recipe:
    """A resolved recipe: prior, network, sampler, training."""

    def __init__(self, toml: str, notices: list[str]) -> None:
        self.toml = toml
        self.notices = notices

    def train(
        self,
        train: Any,
        *,
        out: StrPath | None = None,
        head: Any = None,
        resume: bool = False,
        progress: Progress = None,
    ) -> Detector:
        """Train it on features; the detector is the file that `heat train` writes, byte for byte.

        `out` is the run's directory (checkpoints, metrics, `detector.safetensors`); without one,
        nothing is kept but the result. Ctrl-C, or an exception of `progress`, leaves a checkpoint
        there, from which `resume=True` goes on, bit for bit. `progress` is True, or is called with
        each event (a dict: `begin`, `advance`, `end`, `epoch`).
        """
        return self._train(train, out=out, head=head, resume=resume, progress=progress)

    def _train(
        self, train: Any, *, out: StrPath | None, head: Any, resume: bool, progress: Progress, engine: Any = None
    ) -> Detector:
        """The same with chains that an engine runs (`heat_ood.ray`)."""
        rows = as_set(train, "train")
        layer = as_head(head) or rows.head
        rows._tell(layer)
        inner = None if layer is None else layer._head
        told = callback(progress)
        if out is not None:
            return Detector(_heat_ood.train(self.toml, Path(out), rows._set, inner, resume, told, engine))
        if resume:
            raise InputError("resume: give the run's directory as `out`")
        with tempfile.TemporaryDirectory(prefix="heat-ood-") as directory:
            place = Path(directory) / "run"
            return Detector(_heat_ood.train(self.toml, place, rows._set, inner, False, told, engine))

    def __repr__(self) -> str:
        return f"Recipe(\n{self.toml})"


def _text(value: Any) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def recipe(name: str, *settings: str, recipes: StrPath | None = None, **keys: Any) -> Recipe:
    """The recipe `ebm=NAME` with settings: `recipe("heat_gmm_c10", "n_epochs=5", **{"ebm.model.steps": 20})`.

    `name` is a recipe of the `ebm` group (`heat_gmm_c10`, `quickstart_gmm`, …); settings are the
    command's, `recipes` a directory of your own recipes.
    """
    arguments = [f"ebm={name}", *settings, *(f"{key}={_text(value)}" for key, value in keys.items())]
    place = None if recipes is None else Path(recipes)
    return Recipe(*_heat_ood.resolve_recipe(arguments, place))
