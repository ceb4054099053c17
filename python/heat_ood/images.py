"""Images to features, through ONNX Runtime; pixels are those of Pillow and torchvision.

ONNX Runtime is found in the same environment (`pip install onnxruntime`); nothing is to be set.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import _heat_ood
from ._progress import Progress, callback
from .detector import Detector
from .errors import InputError
from .features import FeatureSet, Head, StrPath

__all__ = ["Backbone", "Extracted", "extract"]


def _runtime() -> Path | None:
    """The shared library of the `onnxruntime` package, without importing it."""
    spec = importlib.util.find_spec("onnxruntime")
    for place in (spec.submodule_search_locations or []) if spec else []:
        capi = Path(place) / "capi"
        for pattern in ("libonnxruntime.so*", "libonnxruntime*.dylib", "onnxruntime.dll"):
            for found in sorted(capi.glob(pattern)):
                return found
    return None


class Backbone:
    """A classifier whose features are taken: an `.onnx` file, or the weights of a ResNet.

    `tap` names another tensor as features, `output` the classifier's output among several, `arch`
    what weights do not tell (`resnet34`, `stem=…`), `prefix` one network of several in a file.
    """

    def __init__(
        self,
        path: StrPath,
        *,
        tap: str | None = None,
        output: str | None = None,
        arch: str | None = None,
        prefix: str | None = None,
        library: StrPath | None = None,
    ) -> None:
        runtime = Path(library) if library is not None else _runtime()
        self._backbone = _heat_ood.Backbone(Path(path), runtime, tap, output, arch, prefix)

    @property
    def notes(self) -> list[str]:
        """What should be known about what was found in the file."""
        return self._backbone.notes

    @property
    def sha256(self) -> str:
        """SHA-256 of the file."""
        return self._backbone.sha256

    @property
    def head(self) -> Head | None:
        """The last linear layer, where there is one."""
        head = self._backbone.head
        return None if head is None else Head._of(head)


@dataclasses.dataclass(frozen=True)
class Extracted:
    """What an extraction gave."""

    features: FeatureSet
    rows: int
    #: Images taken over from an extraction that was interrupted.
    resumed: int
    #: Images left out, each with the reason.
    unreadable: list[str]
    #: How many labelled rows the classifier gets right, in words.
    agreement: str | None
    #: The set of each kind of surrogates, where these were asked for.
    surrogates: dict[str, FeatureSet] = dataclasses.field(default_factory=dict)
    #: Images that each of the excluded sets left out.
    left_out: list[int] = dataclasses.field(default_factory=list)


def extract(
    images: StrPath,
    backbone: Backbone | StrPath,
    out: StrPath,
    *,
    preset: str = "imagenet",
    format: str | None = None,
    split: str | None = None,
    root: StrPath | None = None,
    batch_size: int = 64,
    shard_rows: int = 8192,
    dtype: str = "f16",
    skip_unreadable: bool = False,
    taps: int | Mapping[str, str] | None = None,
    views: str | Sequence[str] | None = None,
    maps: Sequence[str] = (),
    perturb: Detector | StrPath | None = None,
    epsilon: float | None = None,
    perturb_values: int | None = None,
    surrogates: str | Sequence[str] | None = None,
    surrogate_rows: int = 1500,
    seed: int = 0,
    exclude: Sequence[FeatureSet | StrPath] = (),
    preview: StrPath | None = None,
    device: str = "cpu",
    precision: str = "f32",
    progress: Progress = None,
    **transform: Any,
) -> Extracted:
    """Extract a directory, archive or list of images into the directory `out`, as `heat extract` does.

    `preset` is the preprocessing (cifar10, cifar100, imagenet, …), `transform` keys change it
    (`crop=224`). `taps` are further layers whose features stand beside the others, for scorers with
    `layer=NAME`: tensors of the graph by name, or how many are to be found in it. `views="mirror"`
    adds the features of the mirrored image, for scorers with `views="mean"`; `["bits5", "median2"]` those of
    squeezed images, for `feature_squeezing`, `"nudged5"` those of images moved by a gradient, for
    `adascale_a` and `adascale_l`, `"noise8x256"` the mean of 256 noisy passes, for `odds`, `"dropout30"`
    logits and probabilities of 30 passes with the graph's dropout, for `mcd`;
    `maps` are the scorers for which more is kept of the network's maps, `["gram", "rankfeat"]`, or of its gradients,
    `["nac", "graduncertainty"]`. Interrupted, it goes on where it stopped when called again.

    With `perturb` each image is moved by `epsilon` against the gradient of that detector's energy first
    (ODIN, and for Mahalanobis distances); with `perturb_values=1` only its value of the largest gradient
    is (I-ODIN).

    `surrogates` (`"all"`, or kinds: `["mixup", "rotate"]`) transforms the images into others that play
    out-of-distribution: `out` then holds a set of each kind, and `id`, the images themselves, which are
    `features`. `surrogate_rows` images of each kind are made with `seed`, none of images whose features are in a
    set of `exclude`; `preview` is a PNG file that shows eight of each.

    `device` is what the network is run on: `"cpu"`, `"cuda:0"`, `"tensorrt"`, `"migraphx"`, `"coreml"`, `"directml"`,
    `"openvino:GPU"`, each with an ONNX Runtime made for it (`pip install 'onnxruntime-gpu[cuda,cudnn]'` in place of
    `onnxruntime`); `precision="tf32"` multiplies faster and less exactly, on NVIDIA's cards alone.
    """
    network = backbone if isinstance(backbone, Backbone) else Backbone(backbone)
    arguments = [f"transform={preset}", *(f"transform.{key}={value}" for key, value in transform.items())]
    kinds = [surrogates] if isinstance(surrogates, str) else surrogates
    excluded = [s if isinstance(s, FeatureSet) else FeatureSet.open(s) for s in exclude]
    if perturb is not None and surrogates is not None:
        raise InputError("perturb: surrogates are made of images as they are; extract these by themselves")
    mover = perturb if perturb is None or isinstance(perturb, Detector) else Detector.load(perturb)
    rows, resumed, unreadable, agreement, made, left_out = _heat_ood.extract(
        Path(images),
        network._backbone,
        Path(out),
        arguments,
        format,
        split,
        None if root is None else Path(root),
        batch_size,
        shard_rows,
        dtype,
        skip_unreadable,
        list(taps.items()) if isinstance(taps, Mapping) else [],
        taps if isinstance(taps, int) else None,
        [] if views is None else [views] if isinstance(views, str) else list(views),
        list(maps),
        None if mover is None else mover._inner,
        epsilon,
        perturb_values,
        None if kinds is None else [name for text in kinds for name in text.split(",")],
        surrogate_rows,
        seed,
        [s._set for s in excluded],
        None if preview is None else Path(preview),
        device,
        precision,
        callback(progress),
    )
    sets = {kind: FeatureSet.open(Path(out) / kind) for kind in made}
    features = FeatureSet.open(out if kinds is None else Path(out) / "id")
    return Extracted(features, rows, resumed, unreadable, agreement, sets, left_out)
