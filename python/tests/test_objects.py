"""Detectors as Python objects: pickled, copied, in other processes; the interpreter is let go."""

from __future__ import annotations

import copy
import io
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import heat_ood as ho

RNG = np.random.default_rng(1)
X = RNG.normal(size=(3000, 16)).astype(np.float32)
DETECTOR = ho.Knn(k=5).fit(X)
WANT = DETECTOR.score(X)


def test_pickle_copy_and_bytes(tmp_path: Path) -> None:
    calibrated = DETECTOR.calibrate(RNG.normal(size=(100, 16)))
    calibrated.save(tmp_path / "d.safetensors")
    file = (tmp_path / "d.safetensors").read_bytes()
    pickled = pickle.dumps(calibrated)
    assert len(pickled) <= len(file) + 1024
    assert file in pickled
    for other in (pickle.loads(pickled), copy.copy(calibrated), copy.deepcopy(calibrated)):
        assert np.array_equal(other.score(X), WANT) and other.calibrated
    joblib = pytest.importorskip("joblib")
    buffer = io.BytesIO()
    joblib.dump(calibrated, buffer)
    buffer.seek(0)
    assert np.array_equal(joblib.load(buffer).score(X), WANT)
    head = pickle.loads(pickle.dumps(ho.Head(np.eye(2), [1.0, 2.0])))
    assert head.bias.tolist() == [1.0, 2.0]
    named = ho.FeatureSet(X[:4], label=["a", "b", "a", "b"])
    again = pickle.loads(pickle.dumps(named))
    assert again.class_names == ["a", "b"] and np.array_equal(again.numpy(), X[:4])
    for settings in (ho.Knn(k=3), ho.scorer("gmm(shrinkage=1)")):
        assert pickle.loads(pickle.dumps(settings)) == settings


@pytest.mark.parametrize("name", ho.errors.__all__)
def test_exceptions_survive_pickling(name: str) -> None:
    error = getattr(ho.errors, name)("why")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error) and str(again) == "why"


def child(connection: Any) -> None:
    connection.send(DETECTOR.score(X))


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_children_score_the_same(method: str) -> None:
    DETECTOR.score(X)  # The parent's threads run.
    context = multiprocessing.get_context(method)
    receive, send = context.Pipe()
    process = context.Process(target=child, args=(send,))
    process.start()
    assert receive.poll(60), f"{method}: the child hangs"
    assert np.array_equal(receive.recv(), WANT)
    process.join(20)
    assert process.exitcode == 0


def test_a_fork_of_a_fork_while_threads_work() -> None:
    """Forked in the midst of work, again and again: nobody waits for threads that are not there."""
    stop = threading.Event()

    def busy() -> None:
        while not stop.is_set():
            DETECTOR.score(X)

    worker = threading.Thread(target=busy)
    worker.start()
    try:
        for _ in range(20):
            pid = os.fork()
            if pid == 0:
                signal.alarm(20)
                grandchild = os.fork()
                ok = np.array_equal(DETECTOR.score(X[:600]), WANT[:600])
                if grandchild == 0:
                    os._exit(0 if ok else 1)
                _, status = os.waitpid(grandchild, 0)
                os._exit(0 if ok and status == 0 else 1)
            _, status = os.waitpid(pid, 0)
            assert status == 0, status
    finally:
        stop.set()
        worker.join()


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs a processor for the counting thread")
def test_other_threads_run_meanwhile(train: ho.FeatureSet, tmp_path: Path) -> None:
    """The interpreter is released: a thread that counts goes on counting."""
    rows = RNG.normal(size=(20_000, 64)).astype(np.float32)
    knn = ho.Knn(k=5).fit(rows)
    ho.set_num_threads(1)
    try:
        for work in (
            lambda: knn.score(rows),
            lambda: ho.Vim(principal_dim=8).fit(train),
            lambda: ho.recipe("quickstart_gmm", "n_epochs=1", "ebm.model.train_max_iter=3").train(train),
        ):
            ticks, done = 0, threading.Event()
            thread = threading.Thread(target=lambda work=work: (work(), done.set()))  # type: ignore[misc]
            begun = time.perf_counter()
            thread.start()
            longest, last = 0.0, begun
            while not done.is_set():
                ticks += 1
                now = time.perf_counter()
                longest, last = max(longest, now - last), now
            thread.join()
            # Held, the interpreter would be gone for the whole of the work.
            assert ticks > 100 and longest < max(0.5 * (last - begun), 0.05), (ticks, longest, last - begun)
    finally:
        ho.set_num_threads(os.cpu_count() or 1)


INTERRUPTED = """
import os, signal, sys, threading, time
import heat_ood as ho
signal.signal(signal.SIGINT, signal.default_int_handler)  # Whoever runs the tests may ignore it.
out, data = sys.argv[1], sys.argv[2]
train = ho.FeatureSet.open(data)
recipe = ho.recipe("quickstart_gmm", "n_epochs=2", "ebm.model.steps=20", "ebm.model.train_max_iter=3")
pressed = []
def press(event):
    if event["event"] == "advance" and not pressed:
        pressed.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)
try:
    recipe.train(train, out=out, progress=press)
except KeyboardInterrupt:
    print("interrupted", time.monotonic() - pressed[0])
    recipe.train(train, out=out, resume=True)
    sys.exit(0)
sys.exit("not interrupted")
"""


def test_ctrl_c_leaves_a_checkpoint(data: Path, tmp_path: Path) -> None:
    file = data / "train.safetensors"
    out, whole = tmp_path / "stopped", tmp_path / "whole"
    done = subprocess.run([sys.executable, "-c", INTERRUPTED, str(out), str(file)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert float(done.stdout.split()[1]) < 5.0, done.stdout
    ho.recipe("quickstart_gmm", "n_epochs=2", "ebm.model.steps=20", "ebm.model.train_max_iter=3").train(ho.FeatureSet.open(file), out=whole)
    assert (out / "detector.safetensors").read_bytes() == (whole / "detector.safetensors").read_bytes()


def test_an_exception_of_the_callback_ends_training(train: ho.FeatureSet, tmp_path: Path) -> None:
    class Enough(Exception):
        pass

    def enough(event: dict[str, Any]) -> None:
        if event["event"] == "epoch":
            raise Enough

    recipe = ho.recipe("quickstart_gmm", "n_epochs=3", "ebm.model.steps=1", "ebm.model.train_max_iter=2")
    with pytest.raises(Enough):
        recipe.train(train, out=tmp_path / "run", progress=enough)
    assert list((tmp_path / "run").rglob("*.safetensors"))
    detector = recipe.train(train, out=tmp_path / "run", resume=True)
    assert np.array_equal(detector.score(train[:9]), recipe.train(train).score(train[:9]))


def test_ctrl_c_ends_scoring(tmp_path: Path) -> None:
    code = """
import os, signal, threading, time, sys
import numpy as np, heat_ood as ho
signal.signal(signal.SIGINT, signal.default_int_handler)
rows = np.random.default_rng(0).normal(size=(60000, 256)).astype(np.float32)
detector = ho.Knn(k=5).fit(rows)
threading.Timer(1.0, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
begun = time.monotonic()
try:
    for _ in range(1000):
        detector.score(rows)
except KeyboardInterrupt:
    print(time.monotonic() - begun)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and float(done.stdout) < 20.0, done.stdout + done.stderr


def test_import_is_light() -> None:
    code = """
import sys
import numpy
import heat_ood
heavy = {"torch", "sklearn", "ray", "pyarrow", "pandas", "tqdm", "onnxruntime", "pytorch_ood"} & set(sys.modules)
sys.exit(", ".join(sorted(heavy)) or 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


MEMORY = """
import resource, sys
import numpy as np, heat_ood as ho
rows, dim, kind = 400_000, 256, sys.argv[1]
detector = ho.Gmm(kmeans=1).fit(np.random.default_rng(0).normal(size=(2000, dim)).astype(np.float32))
detector.score(np.ones((5000, dim), np.float32))
if kind == "c":
    x = np.ones((rows, dim), np.float32)
elif kind == "fortran":
    x = np.ones((dim, rows), np.float32).T
elif kind == "f64":
    x = np.ones((rows, dim), np.float64)
elif kind == "f16":
    x = np.ones((rows, dim), np.float16)
else:
    x = np.ones((rows, dim), np.float32)[::-1]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
detector.score(x)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print((after - before) / 1024, x.nbytes / 2**20)
"""


@pytest.mark.parametrize(("kind", "most"), [("c", 64), ("f64", 64), ("f16", 64), ("fortran", 128), ("reversed", 128)])
def test_scoring_copies_nothing(kind: str, most: float) -> None:
    """Of 200 to 800 MB of rows; the resident peak grows by less than so many MiB."""
    done = subprocess.run([sys.executable, "-c", MEMORY, kind], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    grown, _ = map(float, done.stdout.split())
    assert grown < most, done.stdout


def test_drift() -> None:
    detector = ho.Gmm(kmeans=1).fit(X).calibrate(RNG.normal(size=(500, 16)))
    drift = ho.Drift(detector, alpha=0.01)
    assert drift.watch(RNG.normal(size=(300, 16))) == [] and drift.rows == 300
    alarms = drift.watch(RNG.normal(loc=3.0, size=(100, 16)))
    assert alarms and alarms[0].row < 400 and alarms[0].since >= 250
    with pytest.raises(ho.errors.InputError, match="row 1"):
        drift.push([0.0, np.nan])
    assert drift.rows == 400


def test_a_calibrated_detector_without_a_file_is_evaluated() -> None:
    """Its promise is in the report; it has no file to name."""
    detector = ho.Gmm(kmeans=1, normalize=False).fit(X).calibrate(RNG.normal(size=(500, 16)))
    results = ho.evaluate({"mine": detector}, id=RNG.normal(size=(200, 16)), ood={"far": RNG.normal(loc=3.0, size=(100, 16))})
    assert results.auroc()["mine"] > 0.99
    page = results.report()
    assert "in memory" in page and "fig-calibration" in page


def test_selection(train: ho.FeatureSet, ood: ho.FeatureSet, test_set: ho.FeatureSet) -> None:
    chosen = ho.select(train, ["el", "gmm(shrinkage=1)", "msp"], rows=1000, folds=2)
    assert [name for name, _ in chosen.ranking] and chosen.detector.score(ood).shape == (len(ood),)
    tuned = ho.tune(train, ["knn(k=1|50)"], id=test_set[:200], ood={"mnist": ood[:200]})
    assert {name for name, _ in tuned.ranking} == {"knn(k=1)", "knn(k=50)"}
    with pytest.raises(ho.errors.FitError):
        tuned.detector.calibrate(test_set[:200])


def test_selection_by_surrogates(
    train: ho.FeatureSet, ood: ho.FeatureSet, test_set: ho.FeatureSet, tmp_path: Path
) -> None:
    scorers = ["committee", "el", "norm"]
    kinds = {"a": ood[:200], "b": ood[200:400], "c": ood[400:600]}
    chosen = ho.select(train, scorers, surrogates=kinds | {"id": test_set[:400]}, rows=1000)
    assert chosen.found["kinds"] == ["a", "b", "c"] and chosen.found["id"] == "held_out"
    assert len(chosen.found["fallback"]) == 5 and len(chosen.ranking) == 7
    # The rows that it was chosen by are no rows to calibrate on.
    with pytest.raises(ho.errors.FitError):
        chosen.detector.calibrate(test_set[:400])
    again = ho.select(train, scorers, surrogates=kinds, id=test_set[:400], rows=1000)
    assert np.array_equal(again.detector.score(ood), chosen.detector.score(ood))
    for name, rows in {**kinds, "id": test_set[:400]}.items():
        np.savez(tmp_path / f"{name}.npz", avg=rows.numpy("avg"), std=rows.numpy("std"))
    files = ho.select(train, scorers, surrogates=tmp_path, rows=1000)
    assert files.ranking == chosen.ranking
    with pytest.raises(ho.errors.InputError, match="surrogates"):
        ho.select(train, scorers, id=test_set[:400])


def test_committee_standardised_on_held_out_rows(train: ho.FeatureSet, test_set: ho.FeatureSet) -> None:
    committee = ho.committee(train, standardise=test_set)
    assert abs(float(committee.score(test_set).mean())) < 1e-3
    assert committee.info()["provenance"]["rows"][0]["rows"] == len(test_set)
    members = {"el": ho.El().fit(train), "knn": ho.Knn().fit(train)}
    u = [(scores - scores.mean()) / scores.std(ddof=1) for scores in
         (d.score(test_set).astype(np.float64) for d in members.values())]
    composed = ho.compose(members, standardise=test_set).score(test_set)
    assert np.allclose(composed, u[0] + u[1], rtol=1e-4, atol=1e-4)
    for both in ({}, {"train": train, "standardise": test_set}):
        with pytest.raises(ho.errors.InputError, match="either"):
            ho.compose(members, **both)
    with pytest.raises(ho.errors.FitError, match="held out"):
        ho.compose(members, standardise=train)


def test_composition(train: ho.FeatureSet, ood: ho.FeatureSet) -> None:
    """METHOD §5 by hand: at beta 0 the sum of the standardised scores, else the soft maximum."""
    members = {"el": ho.El().fit(train), "gmm": ho.Gmm(shrinkage=1.0).fit(train)}
    u = []
    for detector in members.values():
        on_train = detector.score(train).astype(np.float64)
        u.append((detector.score(ood) - on_train.mean()) / on_train.std(ddof=1))
    assert np.allclose(ho.compose(members, train=train).score(ood), np.sum(u, axis=0), rtol=1e-5)
    weighted = ho.compose(members, train=train, weights=[2.0, 0.5]).score(ood)
    assert np.allclose(weighted, 2.0 * u[0] + 0.5 * u[1], rtol=1e-5)
    soft = np.logaddexp(2.0 * u[0], 2.0 * u[1]) / 2.0
    assert np.allclose(ho.compose(members, train=train, beta=2.0).score(ood), soft, rtol=1e-5)


def test_weights_against_sets(train: ho.FeatureSet, ood: ho.FeatureSet, test_set: ho.FeatureSet) -> None:
    members = {"el": ho.El().fit(train), "fdbd": ho.Fdbd().fit(train), "norm": ho.Norm().fit(train)}
    composed = ho.compose(members, standardise=test_set, against=[ood[:400], ood[400:500]])
    one = ho.compose(members, standardise=test_set, against=ood[:400])
    found = {name: d.score(ood[:400]).astype(np.float64) for name, d in members.items()}
    own = {name: d.score(test_set).astype(np.float64) for name, d in members.items()}
    u = np.array([(found[name] - own[name].mean()) / own[name].std(ddof=1) for name in members])
    # The sum is linear in the members' standardised scores; its coefficients are none below 0, and add up to 1.
    weights, *_ = np.linalg.lstsq(u.T, one.score(ood[:400]), rcond=None)
    assert (weights > -1e-3).all() and abs(weights.sum() - 1) < 1e-3 and weights[1] > 0.1
    auroc = lambda d: ho.metrics.auroc(d.score(test_set), d.score(ood[:400]))
    assert auroc(one) >= max(map(auroc, members.values())) - 1e-3
    assert len(composed.info()["provenance"]["tuned_rows"]) == 2
    for wrong in ({"train": train}, {"standardise": test_set, "weights": [1.0, 1.0, 1.0]}):
        with pytest.raises(ho.errors.InputError, match="against"):
            ho.compose(members, against=ood[:400], **wrong)
    with pytest.raises(ho.errors.FitError, match="is to play OOD"):
        ho.compose(members, standardise=test_set, against=train)


def test_auto_by_surrogates(train: ho.FeatureSet, ood: ho.FeatureSet, test_set: ho.FeatureSet) -> None:
    kinds = {name: ood[100 * i : 100 * (i + 1)] for i, name in enumerate("abcd")}
    given: dict[str, Any] = {"surrogates": kinds | {"id": test_set[:400]}, "rows": 1000}
    made = ho.auto(train, val=test_set[400:], **given)
    assert made.found["calibrated_on"] == len(test_set) - 400
    assert "members" in str(made) and made.detector.calibrated
    assert len(made.found["residual"]["gains"]) == 4 and "views" not in made.found
    again = ho.auto(train, val=test_set[400:], **given)
    assert np.array_equal(made.detector.score(ood), again.detector.score(ood))
    with pytest.raises(ho.errors.FitError, match="took no part"):
        ho.auto(train, val=train, residual=False, **given)
