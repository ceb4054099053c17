"""What Python gives is what the command gives, to the bit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import heat_ood as ho
from heat_ood import _heat_ood

SCORERS = sorted(json.loads(_heat_ood.scorer_list()))


def heat(*args: object) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "heat_ood", *map(str, args)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", sorted({*SCORERS} - {*ho.maps.ALONE, "feature_squeezing", "adascale_a", "adascale_l", "odds", "mcd"}))
def test_every_scorer(name: str, data: Path, train: ho.FeatureSet, ood: ho.FeatureSet, tmp_path: Path) -> None:
    given = ["--train", data / "train.safetensors", "--head", data / "head.safetensors"]
    fitted, scores = tmp_path / "d.safetensors", tmp_path / "s.npy"
    heat("fit", name, *given, "-o", fitted)
    heat("score", fitted, data / "ood_mnist.safetensors", "-o", scores)
    detector = ho.scorer(name).fit(train)
    ours = detector.score(ood)
    assert ours.dtype == np.float32
    assert np.array_equal(ours, np.load(scores).reshape(-1))
    detector.save(tmp_path / "ours.safetensors")
    assert (tmp_path / "ours.safetensors").read_bytes() == fitted.read_bytes()


@pytest.mark.parametrize("name", sorted({*ho.maps.__all__} - {"passes"}))
def test_scorers_of_maps(name: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(400, 5, 3, 3)).astype(np.float32)
    kept = ho.maps.nac(maps, maps[::-1]) if name == "nac" else getattr(ho.maps, name)(maps)
    made = {"avg": maps.mean((2, 3)), name: kept}
    np.savez(tmp_path / "train.npz", **made)
    weight, bias = rng.normal(size=(3, 5)).astype(np.float32), np.zeros(3, np.float32)
    ho.Head(weight, bias).save(tmp_path / "head.safetensors")
    fitted, scores = tmp_path / "d.safetensors", tmp_path / "s.npy"
    heat("fit", name, "--train", tmp_path / "train.npz", "--head", tmp_path / "head.safetensors", "-o", fitted)
    heat("score", fitted, tmp_path / "train.npz", "-o", scores)
    ours = ho.scorer(name).fit(ho.FeatureSet(**made, head=(weight, bias))).score(ho.FeatureSet(**made))
    assert np.array_equal(ours, np.load(scores).reshape(-1))


def test_the_classes_are_the_scorers(train: ho.FeatureSet, ood: ho.FeatureSet) -> None:
    from heat_ood import scorer_classes

    classes = [getattr(scorer_classes, name) for name in scorer_classes.__all__]
    assert sorted(cls.name for cls in classes) == SCORERS
    assert str(ho.Knn(k=5)) == "knn(k=5)" and str(ho.Gmm()) == "gmm"
    by_class = ho.Gmm(pooling="std", shrinkage=1.0).fit(train).score(ood)
    assert np.array_equal(by_class, ho.scorer("gmm(pooling=std,shrinkage=1)").fit(train).score(ood))


def test_training(data: Path, train: ho.FeatureSet, tmp_path: Path) -> None:
    settings = ["n_epochs=1", "ebm.model.steps=2", "ebm.model.train_max_iter=2", "batch_size=256"]
    run, ours = tmp_path / "run", tmp_path / "ours"
    heat("train", "ebm=quickstart_gmm", *settings, "--train", data / "train.safetensors",
         "--head", data / "head.safetensors", "--out", run)
    events: list[dict[str, object]] = []
    detector = ho.recipe("quickstart_gmm", *settings).train(train, out=ours, progress=events.append)
    for name in ("detector.safetensors", "metrics.jsonl", "recipe.toml"):
        assert (ours / name).read_bytes() == (run / name).read_bytes(), name
    kept = tmp_path / "kept.safetensors"
    detector.save(kept)
    assert kept.read_bytes() == (run / "detector.safetensors").read_bytes()
    assert [e["epoch"] for e in events if e["event"] == "epoch"] == [1]
    again = ho.recipe("quickstart_gmm", *settings).train(train)
    assert np.array_equal(again.score(train[:50]), detector.score(train[:50]))


def test_calibration_and_verdicts(data: Path, train: ho.FeatureSet, tmp_path: Path) -> None:
    test = ho.FeatureSet.open(data / "test.safetensors")
    detector = ho.Gmm(shrinkage=1.0).fit(train).calibrate(test, alpha=0.1)
    fitted, calibrated = tmp_path / "d.safetensors", tmp_path / "c.safetensors"
    given = ["--train", data / "train.safetensors", "--head", data / "head.safetensors"]
    heat("fit", "gmm", "shrinkage=1", *given, "-o", fitted)
    heat("calibrate", fitted, "--id", data / "test.safetensors", "--alpha", "0.1", "-o", calibrated)
    theirs = ho.load(calibrated).predict(data / "ood_mnist.safetensors")
    ours = detector.predict(data / "ood_mnist.safetensors")
    for field in ("score", "p_value", "is_ood"):
        assert np.array_equal(getattr(ours, field), getattr(theirs, field)), field
    assert ours.is_ood is not None and ours.is_ood.mean() > 0.9
    with pytest.raises(ho.errors.FitError, match="calibrat"):
        detector.calibrate(train[:2000])


def test_evaluation(data: Path, train: ho.FeatureSet, test_set: ho.FeatureSet, ood: ho.FeatureSet) -> None:
    text = heat("eval", "--train", data / "train.safetensors", "--head", data / "head.safetensors", "--id",
                data / "test.safetensors", "--ood", f"mnist={data / 'ood_mnist.safetensors'}", "--scorers",
                "el,gmm,knn", "--ci", "--resamples", "50", "--format", "json")
    theirs = json.loads(text)["scorers"]
    results = ho.evaluate(["el", ho.Gmm(), "knn"], id=test_set, ood={"mnist": ood}, train=train, ci=0.95, resamples=50)
    ours = results.to_dict()["scorers"]
    assert list(ours) == list(theirs)
    for name in theirs:
        assert ours[name]["ood"] == theirs[name]["ood"], name
    assert "| " in results.to_markdown() and "auroc" in results.to_csv()
    assert "<svg" in results.report() and results._repr_html_().startswith("<iframe")
    assert results.auroc()["gmm"] == theirs["gmm"]["average"]["auroc"]


def test_the_command_runs_sweeps(data: Path, tmp_path: Path) -> None:
    """Each run of a sweep is the command once more, which is Python here."""
    out = heat("sweep", "ebm=quickstart_gmm", "seed=0,1", "n_epochs=1", "ebm.model.steps=1",
               "ebm.model.train_max_iter=1", "batch_size=256", "--train", data / "train.safetensors",
               "--out", tmp_path / "sweep")
    assert len(list((tmp_path / "sweep").glob("*/detector.safetensors"))) == 2, out
