"""Images through ONNX Runtime: features, surrogates, and `auto`, as the command has them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import heat_ood as ho

pytest.importorskip("onnxruntime")
ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "crates/heat-images/tests/golden/onnx/plain.onnx"
OPTIONS = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "dtype": "f32"}


def images(place: Path, n: int, seed: int) -> Path:
    """Images of 8×8 of four classes, each of a colour, with their labels beside them."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 4
    pixels = rng.integers(40, 90, (n, 8, 8, 3), dtype=np.uint8)
    for channel in range(3):
        pixels[labels == channel, :, :, channel] += 120
    place.mkdir()
    np.save(place / "images.npy", pixels)
    np.save(place / "labels.npy", labels)
    return place / "images.npy"


def test_extraction_is_that_of_the_command(tmp_path: Path) -> None:
    source = images(tmp_path / "images", 60, 0)
    done = ho.extract(source, MODEL, tmp_path / "here", resize=8, crop=8, **OPTIONS)
    assert done.rows == 60 and len(done.features) == 60 and done.unreadable == []
    words = ["--preset=imagenet", "--resize=8", "--crop=8", "--mean=0.5,0.5,0.5", "--std=0.25,0.25,0.25", "--dtype=f32", "-o", str(tmp_path / "there")]
    command = [sys.executable, "-m", "heat_ood", "extract", str(source), "--backbone", str(MODEL), *words]
    assert subprocess.run(command, capture_output=True).returncode == 0
    there = ho.FeatureSet.open(tmp_path / "there")
    scorer = ho.Knn(k=3).fit(done.features)
    assert np.array_equal(scorer.score(there), scorer.score(done.features))


def test_views_are_compared(tmp_path: Path) -> None:
    source = images(tmp_path / "images", 40, 3)
    train = ho.extract(source, MODEL, tmp_path / "train", resize=8, crop=8, **OPTIONS)
    seen = ho.extract(source, MODEL, tmp_path / "seen", resize=8, crop=8, views=["bits2", "median3"], **OPTIONS)
    detector = ho.FeatureSqueezing(bits=2, median=3).fit(train.features)

    def softmax(name: str) -> np.ndarray:
        logits = seen.features.numpy(name).astype(np.float64)
        powers = np.exp(logits - logits.max(1, keepdims=True))
        return powers / powers.sum(1, keepdims=True)

    # Xu et al.: the largest L1 distance.
    apart = [np.abs(softmax("logits") - softmax(f"{view}.logits")).sum(1) for view in ("bits2", "median3")]
    np.testing.assert_allclose(detector.score(seen.features), np.max(apart, axis=0), atol=1e-5)
    with pytest.raises(ho.HeatError, match="heat extract --views bits2,median3"):
        detector.score(train.features)
    with pytest.raises(ValueError, match="bits1 to bits8"):
        ho.extract(source, MODEL, tmp_path / "no", resize=8, crop=8, views="bits9", **OPTIONS)


def test_moved_images(tmp_path: Path) -> None:
    source = images(tmp_path / "images", 40, 4)
    options = {"resize": 8, "crop": 8, **OPTIONS}
    both = ho.extract(source, MODEL, tmp_path / "both", views="nudged5", **options).features
    plain = ho.extract(source, MODEL, tmp_path / "plain", **options).features
    assert not np.array_equal(both.numpy("nudged5.avg"), both.numpy("avg"))
    scores = ho.AdascaleL().fit(both).score(both)
    assert scores.shape == (40,) and np.isfinite(scores).all()
    with pytest.raises(ho.HeatError, match="heat extract --views nudged5"):
        ho.AdascaleL().fit(plain)
    odin = ho.Odin().fit(plain)
    odin.save(tmp_path / "odin.safetensors")
    moved = {}
    for values in (None, 1):
        here = ho.extract(source, MODEL, tmp_path / f"here{values}", perturb=odin, epsilon=0.5, perturb_values=values, **options)
        moved[values] = here.features.numpy("logits")
        words = ["--preset=imagenet", "--resize=8", "--crop=8", "--mean=0.5,0.5,0.5", "--std=0.25,0.25,0.25", "--dtype=f32"]
        words += ["--perturb", str(tmp_path / "odin.safetensors"), "--epsilon=0.5", *([] if values is None else ["--perturb-values=1"])]
        command = [sys.executable, "-m", "heat_ood", "extract", str(source), "--backbone", str(MODEL), *words, "-o", str(tmp_path / f"there{values}")]
        assert subprocess.run(command, capture_output=True).returncode == 0
        assert np.array_equal(ho.FeatureSet.open(tmp_path / f"there{values}").numpy("logits"), moved[values])
    still = plain.numpy("logits")
    assert 0 < np.abs(moved[1] - still).max() < np.abs(moved[None] - still).max()
    # The largest probability grows when the image is moved towards it.
    assert (moved[None].max(1) > still.max(1)).mean() > 0.9
    for wrong, said in (({"epsilon": 0.5}, "go with perturb"), ({"perturb": odin}, "how far"), ({"perturb": odin, "epsilon": 0.5, "perturb_values": 0}, "at least one"),
                        ({"perturb": odin, "epsilon": 0.5, "surrogates": "all"}, "as they are")):
        with pytest.raises(ValueError, match=said):
            ho.extract(source, MODEL, tmp_path / "no", **wrong, **options)


def test_devices_that_cannot_be_had(tmp_path: Path) -> None:
    source = images(tmp_path / "images", 8, 5)
    options = {"resize": 8, "crop": 8, **OPTIONS}
    # What the wheel of the runtime at hand was made without; none has all.
    said = []
    for device in ("cuda:1", "coreml", "migraphx"):
        try:
            ho.extract(source, MODEL, tmp_path / "no", device=device, **options)
        except ho.HeatError as error:
            said.append(f"{device}: {error}")
    assert any("it was made for cpu" in text and "pip" in text for text in said)
    for wrong, text in (({"device": "gpu"}, "openvino:GPU.1"), ({"precision": "bf16"}, "f32 or tf32"), ({"precision": "tf32"}, "cpu has none")):
        with pytest.raises(ValueError, match=text):
            ho.extract(source, MODEL, tmp_path / "no", **wrong, **options)
    assert not (tmp_path / "no").exists()
    one, other = (ho.extract(source, MODEL, tmp_path / name, **more, **options) for name, more in (("a", {}), ("b", {"device": "cpu"})))
    assert np.array_equal(one.features.numpy("avg"), other.features.numpy("avg"))
    assert (tmp_path / "a/extract.json").read_bytes() == (tmp_path / "b/extract.json").read_bytes()


def test_auto_from_images(tmp_path: Path) -> None:
    train, val = images(tmp_path / "train", 200, 1), images(tmp_path / "val", 160, 2)
    out = tmp_path / "d.safetensors"
    # Its head and labels do not belong together, which the command says.
    with pytest.warns(ho.errors.HeatWarning, match="hardly more than chance"):
        made = ho.auto_from_images(train, MODEL, out, val=val, surrogate_rows=20, residual=False, mirror=False, taps=None, maps=["rankfeat"], **OPTIONS)
    assert "rankfeat" in {s["name"] for s in made.found["selection"]["ranking"] if s["auroc"] is not None}
    assert made.detector.calibrated and made.found["calibrated_on"] == 80 and "calibrated on 80" in str(made)
    # What the command made of the same, from the work that lies there.
    words = ["--val", str(val), "--surrogate-rows=20", "--no-residual", "--no-mirror", "--taps=none", "--for=rankfeat", "-o", str(tmp_path / "c.safetensors")]
    words += ["--mean=0.5,0.5,0.5", "--std=0.25,0.25,0.25", "--dtype=f32", "--work", f"{out}.auto", "--json"]
    command = [sys.executable, "-m", "heat_ood", "auto", str(train), "--backbone", str(MODEL), *words]
    done = subprocess.run(command, capture_output=True, check=True)
    assert json.loads(done.stdout)["selection"]["ranking"] == made.found["selection"]["ranking"]
    assert (tmp_path / "c.safetensors").read_bytes() == out.read_bytes()


def test_auto_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ho.errors.HeatError, match="no-such"):
        ho.auto_from_images(tmp_path / "no-such", MODEL, tmp_path / "d.safetensors")
    with pytest.raises(ho.errors.InputError, match="colour"):
        ho.auto_from_images(images(tmp_path / "train", 8, 1), MODEL, tmp_path / "d.safetensors", colour="red")
