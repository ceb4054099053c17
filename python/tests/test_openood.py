"""OpenOOD's calls of a postprocessor, with its network interface restated: setup, inference, search."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from torch import nn

import heat_ood as ho
from heat_ood.openood import HeatPostprocessor


class Net(nn.Module):
    """OpenOOD's networks: `return_feature`, `return_feature_list`, `get_fc`."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 16, 3)
        self.fc = nn.Linear(16, 3)

    def forward(self, x: Any, return_feature: bool = False, return_feature_list: bool = False) -> Any:
        maps = torch.relu(self.conv(x))
        feature = maps.mean((2, 3))
        logits = self.fc(feature)
        if return_feature_list:
            return logits, [maps]
        return (logits, feature) if return_feature else logits

    def get_fc(self) -> Any:
        return self.fc.weight.detach().numpy(), self.fc.bias.detach().numpy()


def loader(n: int, label: int | None = None, shift: float = 0.0, seed: int = 0) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 3
    x = torch.randn(n, 3, 8, 8, generator=generator) + y[:, None, None, None] * 0.5 + shift
    y = y if label is None else torch.full((n,), label)
    return [{"data": x[i : i + 20], "label": y[i : i + 20]} for i in range(0, n, 20)]


def fpr_and_auroc(conf: Any, label: Any) -> tuple[float, float]:
    """As OpenOOD's `compute_all_metrics` has them: OOD (−1) positive, by −conf."""
    from sklearn import metrics

    indicator = (label == -1).astype(int)
    fpr, tpr, _ = metrics.roc_curve(indicator, -conf)
    return float(fpr[np.argmax(tpr >= 0.95)]), float(metrics.auc(fpr, tpr))


KEYS = {"n_epochs": 1, "ebm.model.steps": 1, "ebm.model.train_max_iter": 1, "batch_size": 32}


@pytest.mark.parametrize(
    ("method", "settings"),
    [("gmm", {"pooling": "std"}), ("knn", {"k": 3}), ("el", {}), ("vim", {"principal_dim": 5}), ("quickstart", {})],
)
def test_setup_and_inference(method: str, settings: dict[str, Any]) -> None:
    pytest.importorskip("sklearn")
    net = Net()
    post = HeatPostprocessor("quickstart_gmm", **KEYS) if method == "quickstart" else HeatPostprocessor(method, **settings)
    assert post.APS_mode is False and post.hyperparam_search_done is False
    post.setup(net, {"train": loader(300)}, {})
    id_pred, id_conf, id_label = post.inference(net, loader(100, seed=1), progress=False)
    _, ood_conf, ood_label = post.inference(net, loader(100, label=-1, shift=3.0, seed=2))
    assert id_pred.dtype.kind == "i" and id_conf.shape == (100,) and set(ood_label) == {-1}
    with torch.no_grad():
        assert np.array_equal(id_pred, torch.cat([net(b["data"]) for b in loader(100, seed=1)]).argmax(1).numpy())
    conf, label = np.concatenate([id_conf, ood_conf]), np.concatenate([id_label, ood_label])
    fpr, auroc = fpr_and_auroc(conf, label)
    ours = ho.metrics.evaluate(-id_conf, -ood_conf)
    assert auroc == pytest.approx(ours["auroc"], abs=1e-6)
    assert fpr == pytest.approx(ours["fpr95_ood_positive"], abs=1e-6)


def test_hyperparameter_search() -> None:
    """As the Evaluator does it: every combination set, then judged, then the best one set."""
    net = Net()
    post = HeatPostprocessor("knn", k=1, search={"k": [1, 5, 20]})
    assert post.APS_mode is True
    post.setup(net, {"train": loader(300)}, {})
    found = {}
    for k in post.args_dict["k"]:
        post.set_hyperparam([k])
        assert post.get_hyperparam() == [k]
        found[k] = post.inference(net, loader(40, seed=1))[1]
    assert not np.array_equal(found[1], found[20])


def test_openood_s_own_configuration() -> None:
    class Args:
        postprocessor_args = {"method": "knn", "k": 4}

    class Config:
        postprocessor = Args()

    post = HeatPostprocessor(Config())
    assert post.method == "knn" and post.settings == {"k": 4}
