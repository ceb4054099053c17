"""pytorch-ood's own cases for detectors (smoke, no fit, no model, search, benchmark), for ours."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("pytorch_ood")
pytestmark = pytest.mark.torch

from pytorch_ood import detector as ood
from pytorch_ood.api import ModelNotSetException, RequiresFittingException
from pytorch_ood.benchmark import Benchmark
from pytorch_ood.metrics import OODMetrics
from pytorch_ood.utils import GridSearch
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, TensorDataset
from torchmetrics.functional.classification import binary_auroc, binary_roc

import heat_ood as ho
from heat_ood import _heat_ood
from heat_ood.pytorch_ood import HEAT, HEATMaps, Scorer, ScorerMaps

KEYS = {"n_epochs": 1, "ebm.model.steps": 1, "ebm.model.train_max_iter": 1, "batch_size": 8}
SETTINGS = {"knn": {"k": 3}, "vim": {"principal_dim": 4}, "residual": {"principal_dim": 4}, "nnguide": {"k": 2}, "pnml": {}, "cfood": {"alpha": 0.5}}
FEATURES = 16


def encoder() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(10, FEATURES), nn.ReLU())


def rows(n: int = 240, seed: int = 0) -> tuple[Any, Any]:
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 3
    return torch.randn(n, 10, generator=generator) + y[:, None], y


def head() -> tuple[Any, Any]:
    torch.manual_seed(1)
    layer = nn.Linear(FEATURES, 3)
    return layer.weight, layer.bias  # Live parameters.


#: But one of which nothing is left where a map has one cell.
NAMES = sorted(set(json.loads(_heat_ood.scorer_list())) - {"rankfeat", "feature_squeezing", "adascale_a", "adascale_l", "odds", "mcd"})


@pytest.mark.parametrize("name", NAMES)
def test_smoke(name: str) -> None:
    x, y = rows()
    w, b = head()
    detector = Scorer(name, encoder(), w, b, **SETTINGS.get(name, {}))
    detector.fit(DataLoader(TensorDataset(x, y), batch_size=1))
    scores = detector(x[:8])
    assert isinstance(scores, torch.Tensor) and scores.shape == (8,) and torch.isfinite(scores).all()
    assert scores.dtype == torch.float32 and not scores.requires_grad
    # The same without an encoder, on the same features: encoded one by one for the fit, as the loader does.
    z = torch.cat([encoder()(row[None]) for row in x])
    again = Scorer(name, None, w, b, **SETTINGS.get(name, {})).fit_features(z, y.float())
    assert torch.equal(again.predict_features(encoder()(x[:8])), scores)


@pytest.mark.parametrize("name", ["knn", "gmm", "heat"])
def test_not_fitted_and_no_model(name: str) -> None:
    detector = HEAT(None, "quickstart_gmm", **KEYS) if name == "heat" else Scorer(name, None)
    x, y = rows(24)
    with pytest.raises(ModelNotSetException):
        detector.fit(DataLoader(TensorDataset(x, y)))
    with pytest.raises(ModelNotSetException):
        detector.predict(x)
    with pytest.raises(RequiresFittingException):
        detector.predict_features(x)
    with pytest.raises(ValueError, match="No ID"):
        detector.fit_features(x, -torch.ones(24))


def test_outliers_are_left_out_of_fits() -> None:
    x, y = rows()
    z = encoder()(x).detach()
    clean = Scorer("gmm").fit_features(z, y)
    both = Scorer("gmm").fit_features(torch.cat([z, z + 100]), torch.cat([y, -torch.ones_like(y)]))
    assert torch.equal(clean.predict_features(z), both.predict_features(z))
    gaps = Scorer("gmm").fit_features(z, y * 7 + 2)
    assert torch.equal(clean.predict_features(z), gaps.predict_features(z))


def test_feature_maps() -> None:
    torch.manual_seed(0)
    backbone = nn.Conv2d(3, FEATURES, 3)
    x, y = torch.randn(90, 3, 8, 8), torch.arange(90) % 3
    for detector in (ScorerMaps("gmm", backbone, pooling="std"), HEATMaps(backbone, "quickstart_gmm", **KEYS)):
        scores = detector.fit(DataLoader(TensorDataset(x, y), batch_size=4))(x[:8])
        assert scores.shape == (8,) and torch.isfinite(scores).all()
    maps = backbone(x).detach()
    by_maps = ScorerMaps("gmm", pooling="std").fit_feature_maps(maps, y)
    assert torch.allclose(by_maps.predict_feature_maps(maps[:8]), ScorerMaps("gmm", backbone, pooling="std").fit(DataLoader(TensorDataset(x, y), batch_size=90))(x[:8]))


def test_scorers_of_maps_are_those_of_the_peer() -> None:
    """RankFeat with the same head; Gram matrices of one layer where labels are predictions and the same rows are held out."""
    torch.manual_seed(3)
    head = nn.Linear(6, 3)
    x = torch.randn(300, 6, 4, 4)
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
    w, b = head.weight.detach(), head.bias.detach()
    y = pooled(x).argmax(1).detach()
    rankfeat = ScorerMaps("rankfeat", w=w, b=b).fit_feature_maps(x, y)
    theirs = ood.RankFeat(lambda x: x, pooled).predict_feature_maps(x[:20])
    assert torch.allclose(rankfeat.predict_feature_maps(x[:20]), theirs, atol=1e-5)
    gram = ScorerMaps("gram", w=w, b=b, confidence=False, validation=0.0).fit_feature_maps(x, y)
    peer = ood.Gram(pooled, [nn.Identity()], 3, list(range(1, 11)))
    peer.validation_fraction = 0.0
    peer.fit(DataLoader(TensorDataset(x, y), batch_size=64))
    test = 1.3 * torch.randn(40, 6, 4, 4)
    assert torch.allclose(gram.predict_feature_maps(test), peer.predict(test), rtol=1e-3, atol=1e-3)
    assert list(ho.maps.gram(x.numpy()).shape) == [300, 60]
    with pytest.raises(ho.errors.InputError, match="expected \\[N, C, h, w\\]"):
        ho.maps.rankfeat(np.zeros(3))
    with pytest.raises(ho.errors.InputError, match="one cell"):
        ho.maps.rankfeat(x.numpy()[:, :, :1, :1])


def test_scorers_of_gradients_by_autograd() -> None:
    """Of the last layer autograd gives what the scorers have from features and head in closed form."""
    torch.manual_seed(4)
    head = nn.Linear(6, 3)
    z = torch.randn(400, 6, requires_grad=True)
    logits = head(z)
    (slopes,) = torch.autograd.grad(-logits.log_softmax(1).mean(1).sum(), z, retain_graph=True)
    norms = [torch.stack([g.norm() for g in torch.autograd.grad(-row.log_softmax(0).sum(), list(head.parameters()), retain_graph=True)]) for row in logits]
    kept = ho.maps.nac(z.detach(), slopes)
    w, b = (v.detach().numpy() for v in (head.weight, head.bias))
    label = np.arange(400) % 3
    of_head = ho.FeatureSet(z.detach(), label=label, head=(w, b))
    stored = ho.FeatureSet(nac=kept, graduncertainty=torch.stack(norms).sqrt(), label=label)
    nac = [ho.Nac(sig_alpha=3.0).fit(x).score(x) for x in (of_head, stored)]
    # Where an activity lies at the end of an interval, roundings decide.
    assert (np.abs(nac[0] - nac[1]) < 1e-6).mean() > 0.98 and np.ptp(nac[0]) > 0.05
    assert np.isfinite(ho.Nac().fit(stored).score(stored)).all()
    gradients = [ho.Graduncertainty(parameters=p).fit(x).score(x) for p, x in (("head", of_head), ("all", stored))]
    np.testing.assert_allclose(gradients[0], gradients[1], rtol=2e-5)
    with pytest.raises(ho.errors.InputError, match="expected that of the maps"):
        ho.maps.nac(z.detach(), slopes[:, :2])



def test_passes_with_dropout_as_theirs() -> None:
    torch.manual_seed(3)
    net = nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))
    x, y = rows()
    with torch.no_grad():
        stack = torch.stack([net.train()(x) for _ in range(12)])
    kept = ho.FeatureSet(logits=net.eval()(x).detach(), label=y, parts={"dropout12": ho.maps.passes(stack)})
    assert kept.dims == {"logits": 3, "dropout12.logits": 3, "dropout12.probs": 3, "dropout12.spread": 3}
    for mode, less in (("var", 0.0), ("mean", 1.0)):
        taken = iter(stack)
        again = nn.Module()
        again.forward = lambda _, taken=taken: next(taken)
        theirs = ood.MCD(again, samples=12, mode=mode).predict(x).numpy() + less
        ours = ho.Mcd(samples=12, mode=mode).fit(kept).score(kept)
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    # OpenOOD's postprocessor: the probabilities of the mean logits.
    ours = ho.Mcd(samples=12, mode="logits").fit(kept).score(kept)
    np.testing.assert_allclose(ours, 1 - stack.mean(0).softmax(1).amax(1).numpy(), rtol=1e-5, atol=1e-6)
    with pytest.raises(ho.errors.InputError, match="no view `dropout30`"):
        ho.Mcd().fit(kept).score(kept)
    for wrong in (stack[:1], stack[0], stack[:, :0]):
        with pytest.raises(ho.errors.InputError, match="two passes or more"):
            ho.maps.passes(wrong)
    for parts, said in (({"mid": x}, "no mapping of fields"), ({"mid": {"nope": x}}, "mid.nope"), ({"a b": {"avg": x}}, "a b")):
        with pytest.raises(ho.errors.HeatError, match=said):
            ho.FeatureSet(x, parts=parts)
    with pytest.raises(ho.errors.InputError, match="240 rows"):
        ho.FeatureSet(logits=stack[0, :5], parts={"dropout12": ho.maps.passes(stack)})


def test_settings_are_attributes_and_another_one_is_another_detector() -> None:
    x, y = rows()
    z = encoder()(x).detach()
    detector = Scorer("knn", k=2).fit_features(z, y)
    assert detector.get_hyperparameters()["k"] == 2
    copied = copy.deepcopy(detector).to("cpu")
    assert torch.equal(copied.predict_features(z), detector.predict_features(z))
    detector.set_hyperparameters(k=5)
    with pytest.raises(RequiresFittingException):
        detector.predict_features(z)
    with pytest.raises(ValueError, match="no setting"):
        detector.set_hyperparameters(q=5)
    with pytest.raises(ValueError, match="q"):
        Scorer("knn", q=1)


def loaders() -> tuple[Any, Any]:
    x, y = rows()
    known, _ = rows(60, seed=1)
    unknown = torch.randn(60, 10, generator=torch.Generator().manual_seed(2)) * 3 - 1
    fit = DataLoader(TensorDataset(x, y), batch_size=32)
    both = ConcatDataset([TensorDataset(known, torch.zeros(60, dtype=torch.long)), TensorDataset(unknown, -torch.ones(60, dtype=torch.long))])
    return fit, DataLoader(both, batch_size=32)


def test_grid_search() -> None:
    fit, validation = loaders()
    detector = Scorer("knn", encoder())
    search = GridSearch(detector, fit, validation, {"k": [1, 5, 20]})
    search.run()
    # The best is fitted again, and is what each value gives by itself.
    best = {}
    for k in (1, 5, 20):
        own = Scorer("knn", encoder(), k=k).fit(fit)
        scored = [(own(x).numpy(), y.numpy()) for x, y in validation]
        s, y = (np.concatenate(part) for part in zip(*scored))
        best[k] = ho.metrics.auroc(s[y >= 0], s[y < 0])
    assert search.best_score_ == pytest.approx(max(best.values()), abs=1e-6)
    assert best[detector.k] == max(best.values())


class Toy(Benchmark):  # type: ignore[misc]
    """A benchmark without downloads."""

    ood_names = ("far",)

    def train_set(self) -> Any:
        return TensorDataset(*rows())

    def test_sets(self, known: bool = True, unknown: bool = True) -> list[Any]:
        _, validation = loaders()
        parts = validation.dataset.datasets
        if known and unknown:
            return [validation.dataset]
        return [parts[0] if known else parts[1]]


def test_benchmark_and_their_metrics() -> None:
    fit, validation = loaders()
    detectors = [Scorer("knn", encoder(), k=5).fit(fit), HEAT(encoder(), "quickstart_gmm", **KEYS).fit(fit)]
    for detector in detectors:
        theirs = OODMetrics()
        scores, labels = [], []
        for x, y in validation:
            s = detector(x)
            theirs.update(s, y)
            scores.append(s.numpy())
            labels.append(y.numpy())
        s, y = np.concatenate(scores), np.concatenate(labels)
        ours = ho.metrics.evaluate(s[y >= 0], s[y < 0])
        found = theirs.compute()
        assert float(found["AUROC"]) == pytest.approx(ours["auroc"], abs=1e-6)
        assert float(found["FPR95TPR"]) == pytest.approx(ours["fpr95_ood_positive"], abs=1e-6)
        # torchmetrics: the curve's first point at which 95 % of OOD, or of ID rows are found.
        fpr, tpr, _ = binary_roc(torch.from_numpy(s), torch.from_numpy((y < 0).astype(int)))
        assert float(binary_auroc(torch.from_numpy(s), torch.from_numpy((y < 0).astype(int)))) == pytest.approx(ours["auroc"], abs=1e-6)
        assert float(fpr[tpr >= 0.95][0]) == pytest.approx(ours["fpr95_ood_positive"], abs=1e-6)
        fpr, tpr, _ = binary_roc(torch.from_numpy(-s), torch.from_numpy((y >= 0).astype(int)))
        assert float(fpr[tpr >= 0.95][0]) == pytest.approx(ours["fpr95_id_positive"], abs=1e-6)
        trapezoid = ho.metrics.openood_aupr(s[y >= 0], s[y < 0])
        assert float(found["AUPR-OUT"]) == pytest.approx(trapezoid[1], abs=1e-5)
    toy = Toy()
    one = toy.evaluate(detectors[0], loader_kwargs={"batch_size": 32}, device="cpu")
    s = np.concatenate([detectors[0](x).numpy() for x, _ in validation])
    y = np.concatenate([y.numpy() for _, y in validation])
    assert float(one[0]["AUROC"]) == pytest.approx(ho.metrics.auroc(s[y >= 0], s[y < 0]), abs=1e-6)
    assert len(toy.evaluate(detectors, loader_kwargs={"batch_size": 32}, device="cpu")) == 2


def test_rows_are_copied_only_where_some_are_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A training set of gigabytes must not be there twice."""
    import heat_ood.pytorch_ood as adapter

    seen: dict[str, Any] = {}

    def spy(**fields: Any) -> ho.FeatureSet:
        seen.update(fields)
        return ho.FeatureSet(**fields)

    monkeypatch.setattr(adapter, "FeatureSet", spy)
    x, y = torch.randn(60, 4), torch.arange(60) % 3
    Scorer("knn", None, k=3).fit_features(x, y)
    assert seen["avg"].data_ptr() == x.data_ptr()
    y[7] = -1
    Scorer("knn", None, k=3).fit_features(x, y)
    assert len(seen["avg"]) == len(seen["label"]) == 59
