"""Arrays as people have them, and those that cannot work: each with its exception and what it names."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import heat_ood as ho

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 8)).astype(np.float32)
Y = np.arange(64) % 4
DETECTOR = ho.Gmm(shrinkage=1.0).fit(X, Y)
WANT = DETECTOR.score(X)


@pytest.mark.parametrize(
    "given",
    [
        X.tolist(),
        X.astype(np.float64),
        np.asfortranarray(X),
        np.repeat(X, 2, axis=0)[::2],
        np.repeat(X, 2, axis=1)[:, ::2],
        X[::-1][::-1],
        X.astype(">f4"),
        X.astype(np.longdouble),
        X[:, :, None, None],
        {"avg": X},
        ho.FeatureSet(X),
        memoryview(X),
    ],
    ids=["list", "f64", "fortran", "rows", "columns", "reversed", "big-endian", "longdouble", "1x1", "dict", "set", "buffer"],
)
def test_forms_of_the_same_rows(given: Any) -> None:
    assert np.array_equal(DETECTOR.score(given), WANT)


def test_read_only_memmap_and_halves(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert not mapped.flags.writeable and np.array_equal(DETECTOR.score(mapped), WANT)
    assert np.array_equal(DETECTOR.score(tmp_path / "x.npy"), WANT)
    half = X.astype(np.float16)
    assert np.array_equal(DETECTOR.score(half), DETECTOR.score(half.astype(np.float32)))
    assert np.array_equal(DETECTOR.score(half[::-1]), DETECTOR.score(half[::-1].astype(np.float32)))
    integers = np.arange(64).reshape(8, 8)
    assert np.array_equal(DETECTOR.score(integers), DETECTOR.score(integers.astype(np.float32)))


def test_arrays_are_shared_not_copied() -> None:
    rows = X.copy()
    held = ho.FeatureSet(rows)
    rows[0, 0] = 77.0
    assert held.numpy()[0, 0] == 77.0
    del rows
    assert held.numpy()[0, 0] == 77.0


class Dlpack:
    """Nothing but the protocol."""

    def __init__(self, x: np.ndarray[Any, Any]) -> None:
        self.x = x

    def __dlpack__(self, **kwargs: Any) -> Any:
        return self.x.__dlpack__(**kwargs)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.x.__dlpack_device__()


def test_dlpack() -> None:
    assert np.array_equal(DETECTOR.score(Dlpack(X)), WANT)


@given(
    hnp.arrays(
        dtype=st.sampled_from([np.float32, np.float64, np.float16, np.int32, np.uint8]),
        shape=st.tuples(st.integers(1, 7), st.just(8)),
        elements=st.integers(0, 100),
    ),
    st.sampled_from([1, -1, 2, -3]),
)
@settings(deadline=None, max_examples=60)
def test_any_strides(x: Any, step: int) -> None:
    rows = x[::step]
    want = DETECTOR.score(np.ascontiguousarray(rows, dtype=np.float32))
    assert np.array_equal(DETECTOR.score(rows), want)


NAN = X.copy()
NAN[3, 5] = np.nan
BIG = X.astype(np.float64)
BIG[2, 1] = 1e300


class Frame:
    """As much of a data frame as is looked at."""

    columns = ("a", "b")

    def __getitem__(self, name: str) -> Any:
        return np.array(["x"], dtype=object) if name == "b" else X[:, 0]

    def to_numpy(self) -> Any:
        return np.array([[1.0, "x"]], dtype=object)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (X[:, :5], r"5.*8|8.*5"),
        (X[0], r"shape \(8,\), expected \[N, D\]"),
        (np.zeros((2, 3, 4)), r"shape \(2, 3, 4\)"),
        (np.zeros((0, 8), np.float32), r"there must be a row"),
        (NAN, r"row 3, column 5 is NaN"),
        (BIG, r"row 2, column 1 is inf"),
        (X.astype(object), r"Python objects"),
        ([[1.0, 2.0], [3.0]], r"rectangular|different lengths"),
        ([["a"] * 8], r"text"),
        (X.astype(complex), r"complex"),
        (X > 0, r"truth values"),
        (np.zeros(4, dtype=[("a", "f4")]).reshape(2, 2), r"records"),
        (np.ma.masked_array(X, X > 0), r"masked"),
        (Frame(), r"column 'b'"),
        (None, r"objects|shape"),
        (3.0, r"shape \(\)"),
    ],
)
def test_rows_that_cannot_be_scored(bad: Any, words: str) -> None:
    with pytest.raises(ho.errors.InputError, match=words) as raised:
        DETECTOR.score(bad)
    assert isinstance(raised.value, ValueError) and isinstance(raised.value, ho.HeatError)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (Y[:5], r"shape \(5,\), expected one label for each of 64"),
        (Y + 0.5, r"row 0 is 0.5"),
        (np.where(Y == 2, np.nan, Y), r"row 2 is nan"),
        ([None] * 64, r"row 0 is None"),
        (np.zeros((64, 2)), r"shape \(64, 2\)"),
        (Y.astype(complex), r"complex"),
    ],
)
def test_labels_that_are_none(bad: Any, words: str) -> None:
    with pytest.raises(ho.errors.InputError, match=words):
        ho.FeatureSet(X, label=bad)


def test_labels_of_every_kind() -> None:
    want = DETECTOR.score(X)
    names = np.array(["ant", "bee", "cat", "dog"])
    for label in (Y.tolist(), Y.astype(np.float32), Y.astype(np.uint8), names[Y], names[Y].tolist(), Y[:, None], Y + 1, Y * 10):
        assert np.array_equal(ho.Gmm(shrinkage=1.0).fit(X, label).score(X), want)
    assert ho.FeatureSet(X, label=names[Y]).class_names == names.tolist()
    assert not ho.FeatureSet(X, label=np.full(64, -1)).labelled
    some = ho.FeatureSet(X, label=names[Y])[10:14]
    assert len(some) == 4 and some.labels.tolist() == [2, 3, 0, 1]


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: ho.Knn().fit(X, Y, head=(np.zeros((3, 5)), np.zeros(3))), ho.errors.InputError, r"5|8"),
        (lambda: ho.Head(np.zeros((3, 5)), np.zeros(2)), ho.errors.InputError, r"\[3, 5\].*\[2\]"),
        (lambda: ho.Gmm(pooling="std").fit(X, Y), ho.errors.InputError, r"std"),
        (lambda: ho.El().fit(X, Y), ho.errors.InputError, r"logits|head"),
        (lambda: ho.scorer("kn"), ho.errors.UnknownNameError, r"knn"),
        (lambda: ho.scorer("knn", q=3).fit(X), ho.errors.HeatError, r"`?q`?"),
        (lambda: ho.Knn(k=-1).fit(X), ho.errors.InputError, r"k"),
        (lambda: ho.recipe("heat_gmm_c11"), ho.errors.UnknownNameError, r"heat_gmm_c1"),
        (lambda: ho.recipe("heat_gmm_c10", "n_epoch=3"), ho.errors.UnknownNameError, r"n_epochs"),
        (lambda: ho.load("/nowhere/d.safetensors"), FileNotFoundError, r"there is no directory /nowhere"),
        (lambda: ho.set_num_threads(0), ho.errors.InputError, r"threads"),
        (lambda: DETECTOR.score(X, threads=0), ho.errors.HeatError, r"threads"),
        (lambda: DETECTOR.score(X, progress=3), ho.errors.InputError, r"progress"),  # type: ignore[arg-type]
        (lambda: DETECTOR.score(X, threads=1, progress=True), ho.errors.InputError, r"set_num_threads"),
        (lambda: ho.Drift(DETECTOR), ho.errors.InputError, r"calibrate"),
        (lambda: ho.compose([DETECTOR, 3], train=X), ho.errors.InputError, r"detectors\[1\]: int"),  # type: ignore[list-item]
        (lambda: ho.evaluate({"a": ho.Gmm()}, id=X, ood={"o": X}), ho.errors.InputError, r"not fitted"),
        (lambda: ho.FeatureSet(X, std=X[:3]), ho.errors.InputError, r"std: 3 rows"),
        (lambda: ho.FeatureSet(), ho.errors.InputError, r"needs avg"),
    ],
)
def test_what_cannot_be_done(call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error) as raised:
        call()
    assert re.search(words, str(raised.value)), str(raised.value)


def test_a_wrong_head_is_told(train: ho.FeatureSet, caplog: pytest.LogCaptureFixture) -> None:
    """All of 3,000 training rows are classified rightly by the head that goes with them."""
    assert train.head is not None
    rows = {"avg": train.numpy(), "label": train.labels}
    head = (train.head.weight, train.head.bias)
    with caplog.at_level("INFO", logger="heat_ood"):
        ho.Norm().fit(ho.FeatureSet(**rows, head=head))
    assert "3000 of 3000" in caplog.text
    scrambled = (head[0].reshape(-1, order="F").reshape(head[0].shape), head[1])
    with pytest.warns(ho.HeatWarning, match="belong together"):
        ho.Norm().fit(ho.FeatureSet(**rows, head=scrambled))


def test_seen_rows_are_told(train: ho.FeatureSet, ood: ho.FeatureSet) -> None:
    with pytest.warns(ho.HeatWarning, match="results on them say little"):
        ho.evaluate([ho.Norm()], id=train, ood={"mnist": ood}, train=train)


def of_network(path: Path, digest: str) -> ho.FeatureSet:
    """The rows as `extract` writes them, with the network's hash."""
    origin = {"network": "n.onnx", "network_sha256": digest, "tap": "t", "transform": "{}"}
    header = {
        "__metadata__": {"origin": json.dumps(origin)},
        "avg": {"dtype": "F32", "shape": [64, 8], "data_offsets": [0, X.nbytes]},
        "label": {"dtype": "I64", "shape": [64], "data_offsets": [X.nbytes, X.nbytes + 64 * 8]},
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + X.tobytes() + Y.astype(np.int64).tobytes())
    return ho.FeatureSet.open(path)


def test_features_of_another_network_are_refused(tmp_path: Path) -> None:
    ours = of_network(tmp_path / "ours.safetensors", "1" * 64)
    theirs = of_network(tmp_path / "theirs.safetensors", "2" * 64)
    detector = ho.Norm().fit(ours)
    assert np.array_equal(detector.score(ours), detector.of_any_origin().score(theirs))
    other = ho.Knn(k=1).fit(theirs)
    for call in (
        lambda: detector.score(theirs),
        lambda: detector.predict(theirs),
        lambda: detector.calibrate(theirs),
        lambda: ho.compose([detector, other], train=ours),
        lambda: ho.tune(ours, ["knn(k=1|2)"], id=theirs, ood={"o": ours}),
        lambda: ho.evaluate({"d": detector}, id=theirs, ood={"o": ours}),
    ):
        with pytest.raises(ho.errors.ForeignFeaturesError):
            call()


def test_files_that_are_no_detectors(tmp_path: Path, data: Path) -> None:
    DETECTOR.save(tmp_path / "d.safetensors")
    whole = (tmp_path / "d.safetensors").read_bytes()
    bad = {
        "half.safetensors": whole[: len(whole) // 2],
        "pickle.safetensors": b"\x80\x04\x95\x1a\x00\x00\x00\x00\x00\x00\x00}\x94.",
        "flipped.safetensors": whole[:-1] + bytes([whole[-1] ^ 1]),
    }
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ho.errors.FormatError, match=name):
            ho.load(tmp_path / name)
    with pytest.raises(ho.errors.FormatError, match="features"):
        ho.load(data / "test.safetensors")
    with pytest.raises(OSError):
        ho.load(tmp_path)
