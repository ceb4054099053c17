"""PyTorch: features of any module from a data loader, and a module that gives verdicts.

    train = heat_ood.torch.collect(model, train_loader)
    detector = heat_ood.Gmm(shrinkage=1.0).fit(train).calibrate(heat_ood.torch.collect(model, val_loader))
    guarded = heat_ood.torch.Guard(model, detector)
    out = guarded(images)         # out.logits, out.score, out.p_value, out.is_ood
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from . import maps as _maps
from .detector import Detector
from .errors import InputError
from .features import FeatureSet, Head

try:
    import torch
    from torch import Tensor, nn
except ImportError as error:
    raise ImportError("heat_ood.torch needs PyTorch: pip install 'heat-ood[torch]'") from error

__all__ = ["Collector", "Guard", "Output", "collect", "find_head", "pool"]


def pool(maps: Tensor, of_maps: Sequence[str] = ()) -> dict[str, Tensor]:
    """`avg`, `std` (with Bessel's correction) and `max` over the positions of `[N, C, h, w]` maps or
    `[N, T, D]` tokens, each `[N, D]`; vectors are `avg` alone. `of_maps` (`gram`, `rankfeat`) are made
    too, for the scorers of these names: see `heat_ood.maps`."""
    if maps.dim() == 2:
        return {"avg": maps.float(), **_reduced(maps, of_maps)}
    if maps.dim() == 3:
        maps = maps.transpose(1, 2)
    elif maps.dim() != 4:
        raise InputError(f"features of shape {tuple(maps.shape)}: expected [N, D], [N, T, D] or [N, C, h, w]")
    flat = maps.float().flatten(2)
    pooled = {"avg": flat.mean(2)}
    if flat.shape[2] > 1:
        pooled |= {"std": flat.std(2), "max": flat.amax(2)}
    return pooled | _reduced(flat, of_maps)


def _reduced(flat: Tensor, of_maps: Sequence[str]) -> dict[str, Tensor]:
    array = flat.detach().float().cpu().numpy() if of_maps else None
    return {name: torch.from_numpy(getattr(_maps, name)(array)).to(flat.device) for name in of_maps}


def find_head(model: nn.Module) -> tuple[str, nn.Linear]:
    """The last linear layer by name: the classifier of nearly every network."""
    linear = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise InputError("the model has no linear layer: name the module whose features to take")
    return linear[-1]


class Collector:
    """Collects pooled features while a model runs. Use it as a context.

    `layer`: name of the module whose output is taken (`model.named_modules()`). Without one, the
    input of the last linear layer is, and that layer becomes the `head`.
    """

    def __init__(self, model: nn.Module, layer: str | None = None, *, logits: bool = True) -> None:
        self.model = model
        self.head: nn.Linear | None = None
        self._logits = logits
        self._layer = layer
        self._last: dict[str, Tensor] = {}
        modules = dict(model.named_modules())
        try:
            name, head = find_head(model)
        except InputError:
            if layer is None:
                raise
            name, head = "", None
        if layer is not None and layer not in modules:
            near = [n for n in modules if n and (layer in n or n.rpartition(".")[2] == layer)]
            raise InputError(f"layer {layer!r} is no module of the model; there are {', '.join(near or modules)}")
        self._input = layer is None or layer == name
        self._module = modules[name if self._input else layer]
        self.head = head

    def __enter__(self) -> Collector:
        if self._input:
            self._hook = self._module.register_forward_pre_hook(lambda _, given: self._take(given[0]))
        else:
            self._hook = self._module.register_forward_hook(lambda _, __, out: self._take(out))
        return self

    def __exit__(self, *_: object) -> None:
        self._hook.remove()

    def _take(self, features: Any) -> None:
        if isinstance(features, (tuple, list)):
            features = features[0]
        self._last = pool(features.detach())

    @torch.no_grad()
    def run(self, x: Any) -> tuple[Any, dict[str, Tensor]]:
        """The model's output for a batch, and its pooled features."""
        self._last = {}
        out = self.model(x)
        if not self._last:
            raise InputError(f"layer {self._layer!r} was not called while the model ran")
        fields = dict(self._last)
        width = fields["avg"].shape[1]
        if self.head is not None and width != self.head.in_features:
            self.head = None  # Not the layer that is classified.
        logits = _logits_of(out)
        if self._logits and self.head is None and logits is not None:
            fields["logits"] = logits.detach().float()
        return out, fields


def _logits_of(out: Any) -> Tensor | None:
    """The classifier's output in whatever the model returns."""
    if hasattr(out, "logits"):
        out = out.logits
    if isinstance(out, (tuple, list)):
        out = out[0]
    return out if isinstance(out, Tensor) and out.dim() == 2 else None


def _device(model: nn.Module) -> torch.device:
    parameter = next(model.parameters(), None)
    return parameter.device if parameter is not None else torch.device("cpu")


def _split(batch: Any) -> tuple[Any, Any]:
    """Inputs and labels of a batch: a pair, a mapping (`data`/`image`/`pixel_values`, `label`), inputs."""
    if isinstance(batch, dict):
        label = next((batch[k] for k in ("label", "labels", "target", "y") if k in batch), None)
        x = next((batch[k] for k in ("data", "image", "images", "pixel_values", "x") if k in batch), None)
        if x is None:
            raise InputError(f"batch: no data, image, pixel_values or x among {', '.join(batch)}")
        return x, label
    if isinstance(batch, (tuple, list)):
        return batch[0], batch[1] if len(batch) > 1 else None
    return batch, None


def _batches(model: nn.Module, loader: Iterable[Any], progress: bool) -> Iterator[tuple[Any, Any]]:
    device = _device(model)
    bar: Iterable[Any] = loader
    if progress:
        try:
            from tqdm.auto import tqdm

            bar = tqdm(loader, desc="features", leave=False)
        except ImportError:
            pass
    for batch in bar:
        x, y = _split(batch)
        yield (x.to(device) if hasattr(x, "to") else x), y


def collect(
    model: nn.Module,
    loader: Iterable[Any],
    layer: str | None = None,
    *,
    logits: bool = True,
    name: str = "memory",
    progress: bool = False,
) -> FeatureSet:
    """Features of everything a data loader gives, with labels and head where they are there.

    The model runs in `eval` mode on its own device, and is left in the mode that it was in. Rows are
    kept in the CPU's memory as `float32`. `layer` as in `Collector`.
    """
    was_training = model.training
    model.eval()
    parts: dict[str, list[np.ndarray[Any, Any]]] = {}
    labels: list[np.ndarray[Any, Any]] = []
    unlabelled = False
    try:
        with Collector(model, layer, logits=logits) as collector:
            for x, y in _batches(model, loader, progress):
                _, fields = collector.run(x)
                for field, values in fields.items():
                    parts.setdefault(field, []).append(values.cpu().numpy())
                if y is None:
                    unlabelled = True
                else:
                    labels.append(np.atleast_1d(np.asarray(y.cpu() if hasattr(y, "cpu") else y)))
            head = collector.head
    finally:
        model.train(was_training)
    if not parts:
        raise InputError("the loader gave no batch")
    label = np.concatenate(labels) if labels and not unlabelled else None
    arrays: dict[str, Any] = {field: np.concatenate(values) for field, values in parts.items()}
    layer_of = None if head is None else Head(head.weight, head.bias if head.bias is not None else np.zeros(head.out_features))
    return FeatureSet(**arrays, label=label, head=layer_of, name=name)


@dataclasses.dataclass(frozen=True)
class Output:
    """What a guarded model says of a batch; scores and verdicts on the model's device."""

    logits: Tensor | None
    score: Tensor
    p_value: Tensor | None
    is_ood: Tensor | None


class Guard(nn.Module):
    """A model that also says which inputs it should not be trusted on.

    `forward` returns an `Output`. The detector's part runs on the CPU, without gradients.
    """

    def __init__(self, model: nn.Module, detector: Detector, layer: str | None = None) -> None:
        super().__init__()
        self.model = model
        self.detector = detector
        self.layer = layer

    def forward(self, x: Tensor) -> Output:
        """Logits as the model gives them, scores, p-values and verdicts of a batch."""
        with Collector(self.model, self.layer) as collector:
            out, fields = collector.run(x)
        found = self.detector.predict({name: values.cpu() for name, values in fields.items()})
        device = fields["avg"].device

        def tensor(values: Any) -> Tensor | None:
            return None if values is None else torch.from_numpy(values).to(device)

        score = torch.from_numpy(found.score).to(device)
        return Output(_logits_of(out), score, tensor(found.p_value), tensor(found.is_ood))


