"""A postprocessor for OpenOOD v1.5: HEAT, and every scorer.

    from heat_ood.openood import HeatPostprocessor
    Evaluator(net, id_name="cifar10", postprocessor=HeatPostprocessor("knn(k=50)"))

OpenOOD's confidence is −score: higher = more in-distribution. Work follows the network's device.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from . import _heat_ood
from . import maps as _maps
from ._scorer import scorer as by_name
from .detector import Detector
from .errors import InputError
from .features import FeatureSet
from .recipes import recipe as resolve

try:
    import torch
except ImportError as error:
    raise ImportError("heat_ood.openood needs PyTorch: pip install 'heat-ood[torch]'") from error

from .torch import pool

try:
    from openood.postprocessors.base_postprocessor import BasePostprocessor  # type: ignore[import-not-found]
except ImportError:  # Its methods are all overridden here.
    BasePostprocessor = object

__all__ = ["HeatPostprocessor"]


class HeatPostprocessor(BasePostprocessor):  # type: ignore[misc]
    """`method`: a scorer as the command writes it (`knn(k=50)`), or a recipe of HEAT (`heat_gmm_c10`).

    `maps=True` also collects the standard deviation and maximum of the last feature map, for
    `pooling=std`; `gram` and `rankfeat` read it themselves. `search`: settings with the values that
    `hyperparam_search` tries; with it, OpenOOD searches on its validation sets.
    """

    def __init__(
        self,
        method: Any = "gmm",
        *,
        maps: bool | None = None,
        search: dict[str, list[Any]] | None = None,
        **settings: Any,
    ) -> None:
        if not isinstance(method, str):  # OpenOOD's own configuration.
            args = getattr(getattr(method, "postprocessor", None), "postprocessor_args", None) or {}
            self.config = method
            settings = {**dict(args), **settings}
            method = settings.pop("method", "gmm")
        self.method = method
        self.settings = settings
        self._of_maps = [name for name in _maps.ALONE if method.partition("(")[0] == name]
        of_map = "std" in method or settings.get("pooling") in ("std", "max") or bool(self._of_maps)
        self.maps = maps if maps is not None else of_map
        self.args_dict = dict(search or {})
        self.APS_mode = bool(self.args_dict)
        self.hyperparam_search_done = False
        self.setup_flag = False
        self.detector: Detector | None = None
        self._train: FeatureSet | None = None

    # What OpenOOD calls

    def setup(self, net: Any, id_loader_dict: Any, ood_loader_dict: Any) -> None:
        """Collect the features of the training loader, and fit."""
        if self._train is None:
            fields, labels = self._collect(net, id_loader_dict["train"])
            head = net.get_fc() if hasattr(net, "get_fc") else None
            self._train = FeatureSet(**fields, label=labels, head=head, name="train")
        self._fit()
        self.setup_flag = True

    def postprocess(self, net: Any, data: Any) -> tuple[Any, Any]:
        """Predicted classes and confidences (−score) of a batch, on the network's device."""
        logits, fields = self._forward(net, data)
        score = self._fitted().score({name: values.cpu() for name, values in fields.items()})
        conf = torch.from_numpy(-score).to(logits.device)
        return logits.argmax(1), conf

    def inference(self, net: Any, data_loader: Any, progress: bool = True) -> tuple[Any, Any, Any]:
        """Predictions, confidences and labels of a whole loader, as NumPy arrays."""
        net.eval()
        preds, confs, labels = [], [], []
        for batch in data_loader:
            pred, conf = self.postprocess(net, batch["data"].to(_device(net)))
            preds.append(pred.cpu())
            confs.append(conf.cpu())
            labels.append(torch.as_tensor(batch["label"]))
        return (
            torch.cat(preds).numpy().astype(int),
            torch.cat(confs).numpy(),
            torch.cat(labels).numpy().astype(int),
        )

    def set_hyperparam(self, hyperparam: list[Any]) -> None:
        """Take these values, in the order of `args_dict`, and fit again."""
        self.settings.update(zip(self.args_dict, hyperparam, strict=True))
        if self._train is not None:
            self._fit()

    def get_hyperparam(self) -> list[Any]:
        """The values in use, in the order of `args_dict`."""
        return [self.settings.get(key) for key in self.args_dict]

    # How

    def _fitted(self) -> Detector:
        if self.detector is None:
            raise InputError("not fitted: OpenOOD's Evaluator calls `setup` first")
        return self.detector

    def _fit(self) -> None:
        assert self._train is not None
        if self.method.partition("(")[0] in json.loads(_heat_ood.scorer_list()):
            self.detector = by_name(self.method, **self.settings).fit(self._train)
        else:
            self.detector = resolve(self.method, **self.settings).train(self._train)

    def _forward(self, net: Any, data: Any) -> tuple[Any, dict[str, Any]]:
        with torch.no_grad():
            logits, feature = net(data, return_feature=True)
            fields = {"avg": feature.float()}
            if self.maps:
                _, maps = net(data, return_feature_list=True)
                last = next(m for m in reversed(maps) if m.dim() == 4)
                fields |= {k: v for k, v in pool(last, self._of_maps).items() if k != "avg"}
        return logits, fields

    def _collect(self, net: Any, loader: Any) -> tuple[dict[str, Any], Any]:
        net.eval()
        parts: dict[str, list[Any]] = {}
        labels = []
        for batch in loader:
            _, fields = self._forward(net, batch["data"].to(_device(net)))
            for name, values in fields.items():
                parts.setdefault(name, []).append(values.cpu().numpy())
            labels.append(np.asarray(batch["label"]))
        return {name: np.concatenate(v) for name, v in parts.items()}, np.concatenate(labels)


def _device(net: Any) -> Any:
    parameter = next(iter(net.parameters()), None)
    return torch.device("cpu") if parameter is None else parameter.device
