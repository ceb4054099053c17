"""PyTorch: tensors, features of modules, guarded models."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import heat_ood as ho
from heat_ood import torch as ht


class Net(nn.Module):
    """Two convolutions, pooling, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 12, 3), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(12, 4)

    def forward(self, x: Any) -> Any:
        return self.fc(self.pool(self.body(x)).flatten(1))


def loader(n: int = 120, shift: float = 0.0, labels: bool = True) -> Any:
    generator = torch.Generator().manual_seed(n)
    x = torch.randn(n, 3, 12, 12, generator=generator) + shift
    return DataLoader(TensorDataset(x, torch.arange(n) % 4) if labels else TensorDataset(x), batch_size=32)


def test_tensors_as_rows() -> None:
    x = torch.randn(50, 6)
    detector = ho.Knn(k=3).fit(x)
    want = detector.score(x.numpy())
    assert np.array_equal(detector.score(x), want)
    assert np.array_equal(detector.score(x.clone().requires_grad_()), want)
    assert np.array_equal(detector.score(x.t().contiguous().t()), want)
    assert np.array_equal(detector.score(x.double()), want)
    brain = x.bfloat16()
    assert np.array_equal(detector.score(brain), detector.score(brain.float()))
    assert np.array_equal(detector.score(x.half()), detector.score(x.half().float()))
    for bad in (x.to_sparse(), x.to("meta"), torch.quantize_per_tensor(x, 0.1, 0, torch.qint8)):
        with pytest.raises(ho.errors.InputError):
            detector.score(bad)
    labelled = ho.FeatureSet(x, label=torch.arange(50) % 3, head=nn.Linear(6, 3))
    assert labelled.classes == 3 and ho.El().fit(labelled).score(labelled).shape == (50,)


def test_bfloat16_is_read_as_the_numbers_that_it_holds() -> None:
    maps = torch.randn(5, 7, 4, 3).bfloat16()
    wide = maps.float()
    for made, want in (
        (ho.maps.gram(maps), ho.maps.gram(wide)),
        (ho.maps.rankfeat(maps), ho.maps.rankfeat(wide)),
        (ho.maps.nac(maps, wide), ho.maps.nac(wide, wide)),
        (ho.maps.passes(maps[:, :, 0])["spread"], ho.maps.passes(wide[:, :, 0])["spread"]),
    ):
        np.testing.assert_array_equal(made, want)


def test_pooling_is_torch_s_own() -> None:
    maps = torch.randn(5, 7, 4, 3)
    pooled = ht.pool(maps)
    assert torch.allclose(pooled["avg"], maps.mean((2, 3)), atol=1e-6)
    assert torch.allclose(pooled["std"], maps.flatten(2).std(2), atol=1e-6)
    assert torch.equal(pooled["max"], maps.amax((2, 3)))
    assert list(ht.pool(maps[:, :, :1, :1])) == ["avg"]
    with pytest.raises(ho.errors.InputError):
        ht.pool(maps[None])


def test_collect_finds_features_and_head() -> None:
    net = Net().train()
    features = ht.collect(net, loader())
    assert net.training, "left as it was"
    x = torch.cat([x for x, _ in loader()])
    net.eval()
    with torch.no_grad():
        want = net.pool(net.body(x)).flatten(1)
        logits = net(x)
    assert np.allclose(features.numpy(), want.numpy(), atol=1e-6)
    assert features.head is not None and features.classes == 4
    el = ho.El().fit(features).score(features)
    assert np.allclose(el, -torch.logsumexp(logits, 1).numpy(), atol=1e-5)
    maps = ht.collect(net, loader(), "body")
    assert set(maps.dims) == {"avg", "std", "max"} and maps.head is not None
    assert np.allclose(maps.numpy("std"), net.body(x).detach().flatten(2).std(2).numpy(), atol=1e-5)
    with pytest.raises(ho.errors.InputError, match="body"):
        ht.collect(net, loader(), "bod")
    with pytest.raises(ho.errors.InputError, match="no batch"):
        ht.collect(net, [])
    assert not ht.collect(net, loader(labels=False)).labelled


def test_guard_gives_verdicts() -> None:
    net = Net().eval()
    train = ht.collect(net, loader(400))
    detector = ho.Gmm(shrinkage=1.0).fit(train).calibrate(ht.collect(net, loader(200)), alpha=0.1)
    guard = ht.Guard(net, detector)
    x = torch.cat([x for x, _ in loader(60, shift=4.0)])
    out = guard(x)
    assert torch.allclose(out.logits, net(x), atol=1e-6)
    found = detector.predict(ht.collect(net, loader(60, shift=4.0)))
    assert np.array_equal(out.is_ood.numpy(), found.is_ood) and out.is_ood.float().mean() > 0.9
    assert torch.equal(out.score, torch.from_numpy(found.score))


class Scored(torch.utils.data.Dataset):  # type: ignore[misc]
    """Scores in the loader's workers."""

    def __init__(self, detector: ho.Detector, x: Any) -> None:
        self.detector, self.x = detector, x

    def __len__(self) -> int:
        return 4

    def __getitem__(self, i: int) -> Any:
        return self.detector.score(self.x[100 * i : 100 * (i + 1)])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_data_loader_workers() -> None:
    x = np.random.default_rng(0).normal(size=(400, 8)).astype(np.float32)
    detector = ho.Knn(k=2).fit(x)
    want = detector.score(x)
    got = torch.cat(list(DataLoader(Scored(detector, x), batch_size=None, num_workers=2, timeout=60)))
    assert np.array_equal(got.numpy(), want)
