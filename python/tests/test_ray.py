"""A real cluster of Ray on this machine: a head without CPUs and three nodes of one.

Every job gives the same bits as one process, also where a worker, an actor or a node is lost half-way.
"""

from __future__ import annotations

import gc
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import heat_ood as ho

ray = pytest.importorskip("ray")
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
sys.path.insert(0, str(Path(__file__).parent))
import heat_ood.ray as hr  # noqa: E402
from ray_cluster import Nodes  # noqa: E402

pytestmark = pytest.mark.ray

#: Left out by CI, which runs one of each kind.
slow_ones = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "crates/heat-images/tests/golden/onnx/plain.onnx"
#: Seconds after which a test hangs: the first one takes fifty on two slow processors, the start of Ray's workers most of it.
LIMIT = int(os.environ.get("HEAT_RAY_SECONDS", "120"))
N, D = 200_000, 32
SETTINGS = ["n_epochs=1", "ebm.model.steps=10", "ebm.model.train_max_iter=6", "batch_size=256"]


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    made = Nodes()
    yield made
    made.stop()


@pytest.fixture(autouse=True)
def in_time(nodes: Nodes) -> Iterator[None]:
    """Ends a test that hangs, as what waits for a lost worker may."""

    def over(*_: Any) -> None:
        raise TimeoutError(f"the test took more than {LIMIT} s")

    before = signal.signal(signal.SIGALRM, over)
    signal.alarm(LIMIT)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(N, D)).astype(np.float32)


@pytest.fixture(scope="module")
def slow() -> ho.Detector:
    """One that takes some seconds for all rows."""
    rng = np.random.default_rng(1)
    return ho.Knn(k=3).fit(rng.normal(size=(30000, D)), label=np.arange(30000) % 4)


@pytest.fixture(scope="module")
def features(rows: np.ndarray) -> list[Any]:
    """Twenty tables, whose ids are not their order."""
    tables = []
    for part in np.array_split(np.random.default_rng(2).permutation(N), 20):
        avg = pa.FixedSizeListArray.from_arrays(pa.array(rows[part].reshape(-1)), D)
        tables.append(pa.table({"id": part, "label": part % 4, "avg": avg}))
    return tables


@pytest.fixture(scope="module")
def wanted(slow: ho.Detector, rows: np.ndarray) -> np.ndarray:
    return slow.score(rows)


def fails(text: str, work: Callable[[], object]) -> None:
    """That a task fails so. The error is let go, and not logged, since pytest keeps what is: its frames
    would keep Ray's actors, and these their CPUs."""
    logging.disable(logging.CRITICAL)
    try:
        work()
    except ray.exceptions.RayTaskError as error:
        found = str(error)
    else:
        pytest.fail("nothing was raised")
    finally:
        logging.disable(logging.NOTSET)
    gc.collect()
    assert re.search(text, found), found


class Gathered:
    """Scores by id, as they come."""

    def __init__(self) -> None:
        self.scores = np.full(N, np.nan, np.float32)
        self.times = np.zeros(N, np.int64)

    def take(self, ds: Any) -> None:
        for batch in ds.iter_batches(batch_size=None, batch_format="pyarrow"):
            ids = batch["id"].to_numpy()
            self.scores[ids] = batch["score"].to_numpy()
            np.add.at(self.times, ids, 1)

    @property
    def rows(self) -> int:
        return int((self.times > 0).sum())

    def check(self, wanted: np.ndarray) -> None:
        assert (self.times == 1).all(), f"{(self.times == 0).sum()} rows lost, {(self.times > 1).sum()} doubled"
        assert np.array_equal(self.scores, wanted)


def test_scores_are_those_of_one_process(
    features: list[Any], slow: ho.Detector, wanted: np.ndarray, tmp_path: Path
) -> None:
    slow.save(tmp_path / "d.safetensors")
    for i, table in enumerate(features):
        pq.write_table(table, tmp_path / f"{i:02}.parquet")
    ds = ray.data.read_parquet(str(tmp_path))
    scored = hr.score(ds, tmp_path / "d.safetensors", column="avg", actors=2)
    found = Gathered()
    found.take(scored)
    found.check(wanted)
    assert scored.schema().names == ["id", "label", "score"]


@pytest.mark.parametrize("kind", ["worker", pytest.param("actor", marks=slow_ones), pytest.param("node", marks=slow_ones)])
def test_scoring_survives(kind: str, nodes: Nodes, features: list[Any], slow: ho.Detector, wanted: np.ndarray) -> None:
    found = Gathered()
    with nodes.breaking(kind, "MapWorker", lambda: found.rows > N // 10) as broken:
        found.take(hr.score(ray.data.from_arrow(features), slow, column="avg", keep=["id"], actors=2, batch_rows=2000))
    assert broken == [True]
    found.check(wanted)


def test_verdicts_and_formats(slow: ho.Detector, rows: np.ndarray) -> None:
    detector = ho.Maha().fit(rows[:500], label=np.arange(500) % 4).calibrate(rows[500:900], alpha=0.1)
    ds = ray.data.from_numpy(rows[:1000])
    made = hr.score(ds, detector, column="data").to_pandas()
    assert list(made.columns) == ["score", "p_value", "is_ood"]
    assert np.array_equal(np.sort(made["score"]), np.sort(detector.score(rows[:1000])))
    for kind in ("numpy", "pandas", "pyarrow"):
        by_hand = ray.data.from_items([{"id": i, "avg": rows[i].tolist()} for i in range(100)]).map_batches(
            hr.Scorer,
            fn_constructor_kwargs={"detector": detector._inner.to_bytes(), "results": ["score"]},
            batch_size=30,
            batch_format=kind,
            compute=ray.data.ActorPoolStrategy(size=1),
        )
        found = by_hand.to_pandas().sort_values("id")
        assert np.array_equal(found["score"], detector.score(rows[:100])), kind


def test_bad_inputs(slow: ho.Detector, rows: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = pa.table({"id": range(100), "avg": [row.tolist() for row in rows[:100]]})
    ds = ray.data.from_arrow(table)
    with pytest.raises(ho.errors.InputError, match="'feat': there is no such column; columns: 'id', 'avg'"):
        hr.score(ds, slow, column="feat")
    with pytest.raises(ho.errors.InputError, match="actors=0"):
        hr.score(ds, slow, actors=0)
    with pytest.raises(ho.errors.InputError, match="detector: int"):
        hr.score(ds, 3)  # type: ignore[arg-type]
    everything = [
        (ds, tmp_path / "none.safetensors", "every worker must see the file"),
        (ray.data.from_arrow(table.set_column(1, "avg", pa.array([None, *table["avg"].to_pylist()[1:]]))), slow, "row 0 is null"),
        (ray.data.from_arrow([table, table.set_column(1, "avg", pa.array([[1.0, 2.0]] * 100))]), slow, "expected"),
    ]
    begun = time.monotonic()
    for given, detector, text in everything:
        fails(text, lambda: hr.score(given, detector, actors=1).materialize())  # noqa: B023
    monkeypatch.setattr(ho, "__version__", "0.0.1")
    fails("but 0.0.1 on the driver", lambda: hr.score(ds, slow, actors=1).materialize())
    # They are raised, not tried again and again.
    assert time.monotonic() - begun < 0.45 * LIMIT
    empty = ray.data.from_arrow(table.slice(0, 0))
    assert hr.score(empty, slow, actors=1).count() == 0


# Images


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], np.ndarray]:
    """A thousand images, and their features by the command."""
    from PIL import Image

    place = tmp_path_factory.mktemp("pictures")
    pixels = np.random.default_rng(3).integers(0, 255, (1000, 8, 8, 3), dtype=np.uint8)
    paths = [str(place / f"{i}.png") for i in range(1000)]
    for path, image in zip(paths, pixels, strict=True):
        Image.fromarray(image).save(path)
    names = place / "list.txt"
    names.write_text("".join(f"{path}\n" for path in paths))
    words = ["--preset=imagenet", "--resize=8", "--crop=8", "-o", str(place / "out")]
    command = [sys.executable, "-m", "heat_ood", "extract", str(names), "--backbone", str(MODEL), *words]
    subprocess.run(command, check=True, capture_output=True)
    return paths, ho.FeatureSet.open(place / "out").numpy()


def images(paths: list[str], blocks: int) -> Any:
    items = [{"id": i, "path": path} for i, path in enumerate(paths)]
    return ray.data.from_items(items, override_num_blocks=blocks)


def by_id(ds: Any, column: str) -> np.ndarray:
    found = pa.concat_tables(t for t in ds.iter_batches(batch_size=None, batch_format="pyarrow"))
    ids = found["id"].to_numpy()
    assert np.array_equal(np.sort(ids), np.arange(len(ids))), "rows lost or doubled"
    return np.array(found[column].to_pylist())[np.argsort(ids)]


def test_extraction_is_that_of_the_command(pictures: tuple[list[str], np.ndarray], tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    paths, wanted = pictures
    made = hr.extract(images(paths, 7), MODEL, actors=2, batch_rows=100, resize=8, crop=8)
    assert made.schema().names == ["id", "avg", "std", "max", "logits"]
    assert np.array_equal(by_id(made, "avg").astype(np.float32), wanted)
    # The bytes of files; what is no image is left out, with its row.
    items = [{"id": i, "bytes": Path(p).read_bytes() if i != 30 else b"no image"} for i, p in enumerate(paths[:50])]
    some = hr.extract(
        ray.data.from_items(items), MODEL, column="bytes", actors=1, resize=8, crop=8, skip_unreadable=True
    ).to_pandas()
    found = some.sort_values("id")
    assert list(found["id"]) == [i for i in range(50) if i != 30]
    assert np.array_equal(np.stack(found["avg"]).astype(np.float32), np.delete(wanted[:50], 30, axis=0))
    absent = images([str(tmp_path / "none.png")], 1)
    fails("every worker must see", lambda: hr.extract(absent, MODEL, actors=1).materialize())
    fails("network's file", lambda: hr.extract(images(paths[:2], 1), tmp_path / "none.onnx", actors=1).materialize())
    with pytest.raises(ho.errors.InputError, match="surrogates"):
        hr.extract(images(paths[:2], 1), MODEL, surrogates="all")


@pytest.mark.parametrize("kind", ["worker", pytest.param("actor", marks=slow_ones), pytest.param("node", marks=slow_ones)])
def test_extraction_survives(kind: str, nodes: Nodes, pictures: tuple[list[str], np.ndarray]) -> None:
    pytest.importorskip("onnxruntime")
    paths, wanted = pictures
    begun = time.monotonic()
    with nodes.breaking(kind, "MapWorker", lambda: time.monotonic() > begun + 1) as broken:
        made = hr.extract(images(paths, 20), MODEL, actors=2, batch_rows=10, resize=8, crop=8)
        found = by_id(made, "avg")
    assert broken == [True]
    assert len(found) == 1000 and np.array_equal(found.astype(np.float32), wanted)


# Fits




def test_a_fit_names_what_is_wrong_with_a_row(rows: np.ndarray) -> None:
    table = pa.table({"id": [1, 2], "avg": [None, rows[0].tolist()]})
    with pytest.raises(ho.errors.InputError, match="'avg': row 0 is null"):
        hr.fit(ray.data.from_arrow(table), "gmm")
    with pytest.raises(ho.errors.InputError, match="no rows"):
        hr.fit(ray.data.from_arrow(table.slice(0, 0)), "gmm")
    some = table.slice(1)
    with pytest.raises(ho.errors.InputError, match="two blocks have the key 2: ids must be unique"):
        hr.fit(ray.data.from_arrow([some, some]), "norm", key="id")


@pytest.mark.parametrize(
    "spec", ["vim", "react", *(pytest.param(s, marks=slow_ones) for s in ("gmm", "knn", "dice"))]
)
def test_fits(spec: str, features: list[Any], rows: np.ndarray) -> None:
    head = (np.random.default_rng(4).normal(size=(4, D)).astype(np.float32), np.zeros(4, np.float32))
    few = ray.data.from_arrow(features[:4])
    ids = np.concatenate([table["id"].to_numpy() for table in features[:4]])
    made = [hr.fit(few, spec, label="label", key="id", head=head) for _ in range(2)]
    assert made[0]._inner.to_bytes() == made[1]._inner.to_bytes()
    alone = ho.scorer(spec).fit(rows[ids], label=ids % 4, head=head)
    mine, theirs = made[0].score(rows[:500]), alone.score(rows[:500])
    assert np.allclose(mine, theirs, rtol=1e-5, atol=1e-5 * np.abs(theirs).max())


@pytest.mark.parametrize("kind", [pytest.param("worker", marks=slow_ones), "node"])
def test_a_fit_survives(kind: str, nodes: Nodes, features: list[Any]) -> None:
    def run() -> bytes:
        data: bytes = hr.fit(ray.data.from_arrow(features), "gmm", label="label", key="id", classes=4)._inner.to_bytes()
        return data

    undisturbed = run()
    with nodes.breaking(kind, "", lambda: bool(nodes.working("MapBatches") or nodes.working("_merge"))) as broken:
        assert run() == undisturbed
    assert broken == [True]


def test_fits_say_what_is_wrong(rows: np.ndarray) -> None:
    table = pa.table({"id": [1, 2], "label": ["a", "b"], "avg": [row.tolist() for row in rows[:2]]})
    ds = ray.data.from_arrow(table)
    with pytest.raises(ho.errors.InputError, match="'label': holds string, expected class numbers"):
        hr.fit(ds, "gmm", label="label")
    with pytest.raises(ho.errors.InputError, match="'nr': there is no such column"):
        hr.fit(ds, "gmm", key="nr")
    with pytest.raises(ho.errors.InputError, match="fan_in=1"):
        hr.fit(ds, "gmm", fan_in=1)


# Training


@pytest.fixture(scope="module")
def trained(train: ho.FeatureSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on this machine."""
    out = tmp_path_factory.mktemp("trained") / "run"
    ho.recipe("quickstart_gmm", *SETTINGS).train(train, out=out)
    return out


@pytest.mark.parametrize("workers", [pytest.param(1, marks=slow_ones), 2, pytest.param(4, marks=slow_ones)])
def test_training_is_that_of_one_process(workers: int, train: ho.FeatureSet, trained: Path, tmp_path: Path) -> None:
    hr.train(ho.recipe("quickstart_gmm", *SETTINGS), train, workers=workers, out=tmp_path / "run")
    for name in ("detector.safetensors", "metrics.jsonl", "recipe.toml"):
        assert (tmp_path / "run" / name).read_bytes() == (trained / name).read_bytes(), name


@pytest.mark.parametrize("kind", [pytest.param("worker", marks=slow_ones), "node"])
def test_training_survives(kind: str, nodes: Nodes, train: ho.FeatureSet, trained: Path, tmp_path: Path) -> None:
    begun = time.monotonic()
    with nodes.breaking(kind, "_run_chains", lambda: time.monotonic() > begun + 0.5) as broken:
        hr.train(ho.recipe("quickstart_gmm", *SETTINGS), train, workers=2, out=tmp_path / "run")
    assert broken == [True]
    assert (tmp_path / "run/detector.safetensors").read_bytes() == (trained / "detector.safetensors").read_bytes()


def test_training_says_what_is_wrong(train: ho.FeatureSet, tmp_path: Path) -> None:
    with pytest.raises(ho.errors.InputError, match="workers=0"):
        hr.train("quickstart_gmm", train, workers=0)
    with pytest.raises(ho.errors.UnknownNameError, match="quickstart_gm"):
        hr.train("quickstart_gm", train, workers=1)


# Evaluation and sweeps


def test_evaluation(train: ho.FeatureSet, test_set: ho.FeatureSet, ood: ho.FeatureSet) -> None:
    detectors = {"gmm": ho.Gmm().fit(train), "maha": ho.Maha().fit(train)}
    sets = {name: ray.data.from_numpy(rows.numpy()) for name, rows in (("id", test_set), ("mnist", ood))}
    found = hr.evaluate(detectors, id=sets["id"], ood={"mnist": sets["mnist"]}, column="data", actors=1)
    theirs = ho.evaluate(detectors, id=test_set, ood={"mnist": ood}).to_dict()["scorers"]
    for name in detectors:
        assert found[name]["average"]["auroc"] == theirs[name]["average"]["auroc"]
        assert found[name]["ood"]["mnist"]["fpr95_id_positive"] == theirs[name]["ood"]["mnist"]["fpr95_id_positive"]


SWEEP = """
import sys
from pathlib import Path
import ray
import heat_ood.ray as hr
address, data, out, resume = sys.argv[1:]
ray.init(address=address, log_to_driver=False, logging_level="ERROR")
found = hr.sweep(
    "quickstart_gmm", {"ebm.loss.l2_coef": [1, 10]}, f"{data}/train.safetensors",
    settings=["n_epochs=3", "ebm.model.steps=2", "ebm.model.train_max_iter=2", "batch_size=256"],
    seeds=[0, 1], id=f"{data}/test.safetensors", ood={"mnist": f"{data}/ood_mnist.safetensors"},
    out=out, resume=resume == "resume",
)
Path(out, "best.md").write_text(found.to_markdown())
"""


def test_a_sweep_whose_driver_is_lost(nodes: Nodes, data: Path, tmp_path: Path) -> None:
    def command(out: Path, resume: str) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-c", SWEEP, nodes.cluster.address, str(data), str(out), resume]
        return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    out = tmp_path / "out"
    driver = command(out, "")
    while not list(out.glob("sweep/*/checkpoint_*")) and driver.poll() is None:
        time.sleep(0.05)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert not (out / "best.md").exists()
    assert command(out, "resume").wait() == 0
    lines = (out / "best.md").read_text().splitlines()
    assert lines[0] == "| ebm.loss.l2_coef | auroc | seeds |" and len(lines) == 4
    # What one process finds.
    values: dict[int, list[float]] = {1: [], 10: []}
    test, mnist = data / "test.safetensors", data / "ood_mnist.safetensors"
    for coef, seed in [(c, s) for c in values for s in (0, 1)]:
        keys: dict[str, Any] = {"ebm.loss.l2_coef": coef, "ebm.model.steps": 2, "ebm.model.train_max_iter": 2}
        detector = ho.recipe("quickstart_gmm", n_epochs=3, batch_size=256, seed=seed, **keys).train(data / "train.safetensors")
        values[coef].append(ho.evaluate({"heat": detector}, id=test, ood={"mnist": mnist}).auroc()["heat"])
    for line in lines[2:]:
        coef = int(line.split("|")[1])
        assert f"{np.mean(values[coef]):.4f} ± {np.std(values[coef], ddof=1):.4f}" in line


def test_a_sweep_says_what_is_wrong(train: ho.FeatureSet, tmp_path: Path) -> None:
    with pytest.raises(ho.errors.InputError, match="both `id` and `ood`"):
        hr.sweep("quickstart_gmm", {}, train, id=train, out=tmp_path)
    with pytest.raises(ho.errors.InputError, match="expected a list of values"):
        hr.sweep("quickstart_gmm", {"n_epochs": 3}, train, out=tmp_path)
    with pytest.raises(ho.errors.UnknownNameError, match="n_epoch"):
        hr.sweep("quickstart_gmm", {"n_epoch": [3]}, train, out=tmp_path)
    (tmp_path / "sweep").mkdir()
    with pytest.raises(FileExistsError, match="resume=True"):
        hr.sweep("quickstart_gmm", {}, train, out=tmp_path)
