"""Which scorer, without looking at test data."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import _heat_ood
from ._progress import Progress, callback
from ._scorer import Scorer
from .detector import Detector, load
from .errors import HeatError, HeatWarning, InputError
from .features import StrPath, as_head, as_set

__all__ = ["Auto", "Selection", "auto", "auto_from_images", "committee", "select", "tune"]


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


_GROUPS = ("all", "logits", "features", "head", "maps", "views", "unlabelled", "unlabeled", "committee")


def _texts(
    scorers: str | Sequence[str | Scorer], train: _heat_ood.FeatureSet, head: _heat_ood.Head | None
) -> list[str]:
    words = [scorers] if isinstance(scorers, str) else [str(s) for s in scorers]
    found: list[str] = []
    for word in words:
        if word not in _GROUPS:
            found.append(word)
            continue
        # What is in several groups is meant once.
        found += [name for name in _heat_ood.scorer_group(word, train, head) if name not in found]
    return found


def select(
    train: Any,
    scorers: str | Sequence[str | Scorer] = ("all", "committee"),
    *,
    head: Any = None,
    surrogates: StrPath | Mapping[str, Any] | None = None,
    id: Any = None,
    folds: int = 5,
    rows: int = 20_000,
    kind_rows: int | None = None,
    members: int = 8,
    seed: int = 0,
    strict: bool = False,
    force: bool = False,
    progress: Progress = None,
) -> Selection:
    """Rank scorers and compose them without OOD data.

    `scorers`: groups ("all", "logits", "features", "head", "committee") or a list.

    What plays OOD: the sets of `surrogates`, one a kind (a dict, or the directory that `heat extract
    --surrogates` writes): inputs made wrong on purpose and sent through the same network. `id` are ID
    rows to tell them from, best those that they were made of (`"id"` in the dict or directory); else a
    fifth of the training rows is held out. Without `surrogates`, classes held out and made-up outliers;
    `train` then needs labels.

    At most `rows` training rows are fitted on; at most `kind_rows` of each kind, and four times as many ID rows,
    are scored (default: all; where features and classes are many, what takes minutes).

    A fixed committee is taken unless what is found gains on kinds that it was not chosen by.
    """
    data = as_set(train, "train")
    layer = as_head(head) or data.head
    data._tell(layer)
    inner = None if layer is None else layer._head
    told = callback(progress)
    kinds, rows_of_id = _surrogates(surrogates, id)
    text, detector = _heat_ood.select(
        _texts(scorers, data._set, inner), data._set, inner, kinds, rows_of_id, folds, rows, members, seed, strict, force, kind_rows, told
    )
    return Selection(Detector(detector), json.loads(text))


@dataclasses.dataclass(frozen=True)
class Auto:
    """A detector, what was found on the way (`found`), and the same in plain words (`str`)."""

    detector: Detector
    found: dict[str, Any]
    text: str

    def __str__(self) -> str:
        return self.text


def auto(
    train: Any,
    *,
    head: Any = None,
    surrogates: StrPath | Mapping[str, Any] | None = None,
    id: Any = None,
    val: Any = None,
    residual: bool = True,
    views: bool = True,
    alpha: float = 0.05,
    rows: int = 20_000,
    seed: int = 0,
    progress: Progress = None,
) -> Auto:
    """Make a calibrated detector of features, as `heat auto --train` does.

    All scorers are compared by the sets of `surrogates` (those of `extract(…, surrogates="all")`, a
    directory, or a dict of your own) against their ID rows; a residual is trained, and the mirrored
    image averaged in, where each shows its worth; ID rows of `val`, outside training, calibrate the result.
    Without surrogates, what features alone allow; `str` of the result says what was done and lost.
    From images in one call: `auto_from_images`.
    """
    data = as_set(train, "train")
    layer = as_head(head) or data.head
    data._tell(layer)
    kinds, rows_of_id = _surrogates(surrogates, id)
    calibration = None if val is None else as_set(val, "val")._set
    inner = None if layer is None else layer._head
    found, text, detector = _heat_ood.auto(
        data._set, inner, kinds, rows_of_id, calibration, residual, views, alpha, rows, seed, callback(progress)
    )
    return Auto(Detector(detector), json.loads(found), text)


def auto_from_images(
    images: StrPath,
    backbone: StrPath,
    out: StrPath,
    *,
    val: StrPath | None = None,
    taps: int | None = 3,
    maps: Sequence[str] = (),
    mirror: bool = True,
    residual: bool = True,
    surrogate_rows: int = 1500,
    rows: int = 20_000,
    alpha: float = 0.05,
    seed: int = 0,
    work: StrPath | None = None,
    progress: bool = False,
    **options: Any,
) -> Auto:
    """From images and a network to a calibrated detector in the file `out`, as `heat auto IMAGES` does.

    `val` are ID images outside the network's training; without them a fifth of `images` is held out.
    `taps` are how many further layers are looked for, `None` none; `maps` are the scorers for which more of the
    network's maps is made, so that they are compared too: `gram`, `rankfeat`. `options` are others of the command:
    `preset="cifar10"`, `mean=[0.5, 0.5, 0.5]`, `arch="resnet34"`. Features and surrogates lie in `work`
    (`OUT.auto`): interrupted, it goes on where it stopped when called again. The command runs in a process of its own;
    `progress=True` lets it write to the standard error, else its warnings are raised as `HeatWarning`.
    """
    given = {
        "backbone": backbone,
        "output": out,
        "val": val,
        "taps": "none" if taps is None else f"auto:{taps}",
        "for": list(maps) or None,
        "no_mirror": not mirror,
        "no_residual": not residual,
        "surrogate_rows": surrogate_rows,
        "rows": rows,
        "alpha": alpha,
        "seed": seed,
        "work": work,
        **options,
    }
    words = [word for key, value in given.items() for word in _option(key, value)]
    command = [sys.executable, "-m", "heat_ood", "auto", *words, "--", str(images)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=None if progress else subprocess.PIPE, encoding="utf-8", errors="replace")
    if done.returncode != 0:
        said = (done.stderr or "its standard error says why").strip()
        wrong = InputError if done.returncode == 2 else HeatError
        raise wrong(f"heat auto ended with {done.returncode}: {said}")
    for line in (done.stderr or "").splitlines():
        if line.startswith("warning: "):
            warnings.warn(line.removeprefix("warning: "), HeatWarning, stacklevel=2)
    beside = Path(work) if work is not None else Path(f"{out}.auto")
    return Auto(load(out), json.loads((beside / "auto.json").read_text(encoding="utf-8")), done.stdout)


def _option(key: str, value: Any) -> list[str]:
    """An option of the command; none where the value is `None` or `False`."""
    name = "--" + key.replace("_", "-")
    if value is None or value is False:
        return []
    if value is True:
        return [name]
    values = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    return [name + "=" + ",".join(map(str, values))]


def _surrogates(
    surrogates: StrPath | Mapping[str, Any] | None, id: Any
) -> tuple[list[tuple[str, _heat_ood.FeatureSet]] | None, _heat_ood.FeatureSet | None]:
    given = None if id is None else as_set(id, "id")._set
    if surrogates is None:
        if given is not None:
            raise InputError("id: rows to tell `surrogates` from; give these too")
        return None, None
    if isinstance(surrogates, Mapping):
        kinds = [(name, as_set(x, name)._set) for name, x in surrogates.items() if name != "id"]
        beside = as_set(surrogates["id"], "id")._set if given is None and "id" in surrogates else None
        return kinds, given if beside is None else beside
    kinds, beside = _heat_ood.open_surrogates(Path(surrogates))
    return kinds, given if given is not None else beside


def committee(
    train: Any, *, head: Any = None, standardise: Any = None, progress: Progress = None
) -> Detector:
    """The fixed committee: scorers that are composed where nothing is known of what is to be detected.

    `standardise` are ID rows that took no part in training; else a fifth of the training rows serves,
    after a fit on the others.
    """
    data = as_set(train, "train")
    layer = as_head(head) or data.head
    data._tell(layer)
    held_out = None if standardise is None else as_set(standardise, "standardise")._set
    detector, _, skipped = _heat_ood.committee(
        data._set, None if layer is None else layer._head, held_out, callback(progress)
    )
    for name, reason in skipped:
        warnings.warn(f"{name} is left out: {reason}", HeatWarning, stacklevel=2)
    return Detector(detector)


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
    inner = None if layer is None else layer._head
    text, detector = _heat_ood.tune_on(
        _texts(scorers, data._set, inner),
        data._set,
        as_set(id, "id")._set,
        sets,
        inner,
        strict,
        callback(progress),
    )
    return Selection(Detector(detector), json.loads(text))
