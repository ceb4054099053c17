"""Arrow, DuckDB, Spark and Parquet: the same bits as `score`, other columns kept, errors that name rows."""

from __future__ import annotations

import importlib.util
import pickle
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import heat_ood as ho

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
from heat_ood.arrow import feature_set, matrix, result_schema, score_batches, score_parquet  # noqa: E402

D = 6


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(500, D)).astype(np.float32)


@pytest.fixture(scope="module")
def detector() -> ho.Detector:
    rng = np.random.default_rng(0)
    return ho.Gmm().fit(rng.normal(size=(400, D)), label=np.arange(400) % 4)


@pytest.fixture(scope="module")
def calibrated(detector: ho.Detector) -> ho.Detector:
    return detector.calibrate(np.random.default_rng(2).normal(size=(300, D)), alpha=0.1)


@pytest.fixture
def path(detector: ho.Detector, tmp_path: Path) -> Path:
    detector.save(tmp_path / "d.safetensors")
    return tmp_path / "d.safetensors"


def lists(x: np.ndarray, kind: str = "list", value: Any = None) -> Any:
    value = value or pa.from_numpy_dtype(x.dtype)
    flat = pa.array(x.reshape(-1), value)
    if kind == "fixed":
        return pa.FixedSizeListArray.from_arrays(flat, x.shape[1])
    if kind == "tensor":
        return pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(x))
    cls = pa.LargeListArray if kind == "large" else pa.ListArray
    return cls.from_arrays(np.arange(len(x) + 1) * x.shape[1], flat)


def table(x: np.ndarray, kind: str = "list") -> Any:
    return pa.table({"id": np.arange(len(x)) + 1000, "name": [f"n{i}" for i in range(len(x))], "avg": lists(x, kind)})


def gathered(batches: Iterator[Any]) -> Any:
    return pa.Table.from_batches(list(batches))


@pytest.mark.parametrize("kind", ["list", "large", "fixed", "tensor"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_every_kind_of_list(kind: str, dtype: Any, x: np.ndarray, detector: ho.Detector) -> None:
    rows = x.astype(dtype)
    found = gathered(score_batches(detector)(table(rows, kind).to_batches(max_chunksize=77)))
    assert found.schema.names == ["id", "name", "score"] and found.schema.field("score").type == pa.float32()
    assert np.array_equal(found["score"].to_numpy(), detector.score(rows))
    assert found["id"].to_pylist() == list(range(1000, 1500)) and found["name"][499].as_py() == "n499"


@pytest.mark.parametrize("kind", ["list", "large", "fixed", "tensor"])
def test_slices_keep_to_their_rows(kind: str, x: np.ndarray, detector: ho.Detector) -> None:
    sliced = table(x, kind).combine_chunks().to_batches()[0].slice(123, 50)
    found = gathered(score_batches(detector)([sliced]))
    assert np.array_equal(found["score"].to_numpy(), detector.score(x[123:173]))
    assert np.array_equal(matrix(lists(x, kind)[40:60][5:10]), x[45:50])


def test_no_copy_where_there_is_none_to_make(x: np.ndarray) -> None:
    for kind in ("list", "large", "fixed", "tensor"):
        array = lists(x, kind)
        assert np.shares_memory(matrix(array), matrix(array)), kind


def test_columns_of_numbers_and_fields(x: np.ndarray, detector: ho.Detector) -> None:
    wide = pa.table({"id": range(500), **{f"f{i}": x[:, i] for i in range(D)}})
    names = [f"f{i}" for i in range(D)]
    found = gathered(score_batches(detector, column=names)(wide.to_batches()))
    assert found.schema.names == ["id", "score"] and np.array_equal(found["score"].to_numpy(), detector.score(x))
    std = ho.Gmm(pooling="std").fit(ho.FeatureSet(x, std=np.abs(x), label=np.arange(500) % 2))
    both = pa.table({"a": lists(x), "s": lists(np.abs(x))})
    found = gathered(score_batches(std, column={"avg": "a", "std": "s"})(both.to_batches()))
    assert np.array_equal(found["score"].to_numpy(), std.score({"avg": x, "std": np.abs(x)}))


def test_verdicts(x: np.ndarray, calibrated: ho.Detector) -> None:
    found = gathered(score_batches(calibrated, keep=["id"])(table(x).to_batches(max_chunksize=100)))
    wanted = calibrated.predict(x)
    assert found.schema.names == ["id", "score", "p_value", "is_ood"]
    for name in ("score", "p_value", "is_ood"):
        assert np.array_equal(found[name].to_numpy(), getattr(wanted, name)), name
    found = gathered(score_batches(calibrated, keep=[], results=["is_ood"])(table(x).to_batches()))
    assert found.schema.names == ["is_ood"] and found.schema == result_schema(calibrated, table(x).schema, keep=[], results=["is_ood"])
    head = (np.random.default_rng(4).normal(size=(4, D)), np.zeros(4))
    rows = ho.FeatureSet(np.random.default_rng(2).normal(size=(400, D)), head=head)
    by_class = ho.Gmm().fit(x, label=np.arange(500) % 4, head=head).calibrate(rows, per_class=True)
    found = gathered(score_batches(by_class, keep=[])(table(x).to_batches()))
    assert found.schema.names == ["score", "p_value", "is_ood", "class"]
    assert np.array_equal(found["class"].to_numpy(), by_class.predict(x).label)


def test_empty_batches_and_streams(detector: ho.Detector, x: np.ndarray) -> None:
    empty = table(x).slice(0, 0)
    for batches in ([], empty.to_batches(), [b.slice(0, 0) for b in table(x).to_batches()]):
        assert sum(b.num_rows for b in score_batches(detector)(batches)) == 0
    mixed = [table(x).to_batches()[0].slice(0, 0), *table(x).to_batches(max_chunksize=300)]
    assert np.array_equal(gathered(score_batches(detector)(mixed))["score"].to_numpy(), detector.score(x))


def test_it_can_be_sent(path: Path, detector: ho.Detector, x: np.ndarray) -> None:
    for given in (path, str(path), detector):
        sent = pickle.loads(pickle.dumps(score_batches(given)))
        assert np.array_equal(gathered(sent(table(x).to_batches()))["score"].to_numpy(), detector.score(x))


def null_row(x: np.ndarray, kind: Any) -> Any:
    rows = [None if i == 207 else row.tolist() for i, row in enumerate(x)]
    return pa.array(rows, kind)


BAD: dict[str, tuple[Any, str]] = {
    "null row": (lambda x: null_row(x, pa.list_(pa.float32())), r"'avg': row 207 is null"),
    "null fixed": (lambda x: null_row(x, pa.list_(pa.float32(), D)), r"row 207 is null"),
    "null value": (lambda x: pa.array([[None if (i, j) == (333, 2) else v for j, v in enumerate(r)] for i, r in enumerate(x.tolist())]), r"row 333 holds a null"),
    "ragged": (lambda x: pa.array([r[: D - (i == 150)] for i, r in enumerate(x.tolist())]), r"row 150 has 5 values, expected 6"),
    "dimension": (lambda x: lists(x[:, :4]), r"\[\d+, 4\], expected \[N, 6\]"),
    "nan": (lambda x: lists(np.where(np.arange(500)[:, None] == 260, np.nan, x)), r"rows 200 to 299.*row 60, column 0 is NaN"),
    "number": (lambda x: pa.array(x[:, 0]), r"holds float, one number a row"),
    "text": (lambda x: pa.array(["a"] * 500), r"holds string"),
    "bytes": (lambda x: pa.array([r.tobytes() for r in x]), r"holds binary, expected lists"),
    "lists of text": (lambda x: pa.array([["a"]] * 500), r"lists of string"),
    "truth": (lambda x: pa.array([[True] * D] * 500), r"lists of bool"),
    "maps": (lambda x: pa.FixedShapeTensorArray.from_numpy_ndarray(np.zeros((500, 3, 2), np.float32)), r"\(3, 2\).*pool"),
    "no values": (lambda x: pa.array([[]] * 500, pa.list_(pa.float32())), r"there must be a row and a column"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_named(name: str, x: np.ndarray, detector: ho.Detector) -> None:
    make, text = BAD[name]
    bad = pa.table({"id": np.arange(500), "avg": make(x)})
    with pytest.raises(ho.errors.InputError, match=text):
        list(score_batches(detector)(bad.to_batches(max_chunksize=100)))


def test_arguments(x: np.ndarray, detector: ho.Detector, tmp_path: Path) -> None:
    one = table(x).to_batches()
    with pytest.raises(ho.errors.InputError, match="'feat': there is no such column; columns: 'id', 'name', 'avg'"):
        list(score_batches(detector, column="feat")(one))
    with pytest.raises(ho.errors.InputError, match="'nope': there is no such column"):
        list(score_batches(detector, keep=["nope"])(one))
    with pytest.raises(ho.errors.InputError, match="'score': is there already"):
        list(score_batches(detector)(pa.table({"score": range(500), "avg": lists(x)}).to_batches()))
    with pytest.raises(ho.errors.InputError, match="expected a list"):
        score_batches(detector, keep="id")
    with pytest.raises(ho.errors.InputError, match="threads=0"):
        score_batches(detector, threads=0)
    with pytest.raises(ho.errors.InputError, match="no 'scores'"):
        score_batches(detector, results=["scores"])
    with pytest.raises(ho.errors.InputError, match="needs a calibrated"):
        list(score_batches(detector, results=["p_value"])(one))
    with pytest.raises(ho.errors.InputError, match="detector: int"):
        score_batches(3)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match="every worker must see the file") as caught:
        list(score_batches(tmp_path / "none.safetensors")(one))
    assert caught.value.filename == str(tmp_path / "none.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{}")
    with pytest.raises(ho.errors.FormatError, match="cut.safetensors"):
        list(score_batches(tmp_path / "cut.safetensors")(one))


def test_feature_sets(x: np.ndarray) -> None:
    labels = np.arange(500) % 3
    rows = feature_set(table(x).append_column("y", pa.array(labels)), label="y")
    assert np.array_equal(rows.numpy(), x) and np.array_equal(rows.labels, labels)
    texts = pa.array([f"c{i}" for i in labels]).dictionary_encode()
    assert feature_set(table(x).append_column("y", texts), label="y").class_names == ["c0", "c1", "c2"]
    with pytest.raises(ho.errors.InputError, match="'y': row 1 is null"):
        feature_set(table(x[:2]).append_column("y", pa.array([1, None])), label="y")


def test_parquet(x: np.ndarray, path: Path, detector: ho.Detector, tmp_path: Path) -> None:
    pq.write_table(table(x), tmp_path / "in.parquet", row_group_size=120)
    out = tmp_path / "new" / "out.parquet"
    assert score_parquet(tmp_path / "in.parquet", path, out, batch_rows=90) == 500
    found = pq.read_table(out)
    assert found.schema.names == ["id", "name", "score"] and found["id"].equals(table(x)["id"])
    assert np.array_equal(found["score"].to_numpy(), detector.score(x))
    with pytest.raises(FileExistsError, match="existing="):
        score_parquet(tmp_path / "in.parquet", path, out)
    assert score_parquet(tmp_path / "in.parquet", path, out, existing="skip") == 0
    assert score_parquet(tmp_path / "in.parquet", path, out, existing="overwrite", keep=["avg"]) == 500
    assert pq.read_table(out).schema.names == ["avg", "score"]
    # What fails half-way leaves the file as it was, and no other.
    bad = x.copy()
    bad[400] = np.inf
    pq.write_table(table(bad), tmp_path / "bad.parquet")
    before = out.read_bytes()
    with pytest.raises(ho.errors.InputError, match=r"bad.parquet: rows 400 to 499.*row 0, column 0 is inf"):
        score_parquet(tmp_path / "bad.parquet", path, out, existing="overwrite", batch_rows=100)
    assert out.read_bytes() == before and [p.name for p in out.parent.iterdir()] == ["out.parquet"]


def test_parquet_directories(x: np.ndarray, detector: ho.Detector, tmp_path: Path) -> None:
    for i, part in enumerate(np.split(x, 5)):
        place = tmp_path / "in" / f"day={i % 2}"
        place.mkdir(parents=True, exist_ok=True)
        pq.write_table(table(part), place / f"{i}.parquet")
    (tmp_path / "in" / "_SUCCESS").touch()
    assert score_parquet(tmp_path / "in", detector, tmp_path / "out") == 500
    for i, part in enumerate(np.split(x, 5)):
        found = pq.ParquetFile(tmp_path / "out" / f"day={i % 2}" / f"{i}.parquet").read()
        assert np.array_equal(found["score"].to_numpy(), detector.score(part))
    (tmp_path / "out" / "day=1" / "3.parquet").unlink()
    assert score_parquet(tmp_path / "in", detector, tmp_path / "out", existing="skip") == 100
    for source, out, text in [("in", "in", "lies in"), ("in", "in/a", "lies in"), ("empty", "o", "holds no")]:
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(ho.errors.InputError, match=text):
            score_parquet(tmp_path / source, detector, tmp_path / out)
    with pytest.raises(FileNotFoundError):
        score_parquet(tmp_path / "absent", detector, tmp_path / "o")
    (tmp_path / "text.parquet").write_text("not one")
    with pytest.raises(ho.errors.FormatError, match="not a Parquet file"):
        score_parquet(tmp_path / "text.parquet", detector, tmp_path / "o.parquet")


def test_duckdb(x: np.ndarray, detector: ho.Detector) -> None:
    duckdb = pytest.importorskip("duckdb")
    features = table(x)  # noqa: F841 (the query reads it)
    reader = duckdb.sql("select id, avg from features where id % 2 = 0 order by id").to_arrow_reader(64)
    scored = gathered(score_batches(detector)(reader))  # noqa: F841
    assert np.array_equal(scored["score"].to_numpy(), detector.score(x[::2]))
    assert duckdb.sql("select count(*) from scored where score is not null").fetchall() == [(250,)]


def test_spark(x: np.ndarray, path: Path, detector: ho.Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyspark")
    if shutil.which("java") is None:
        pytest.skip("Spark needs Java")
    from pyspark.sql import SparkSession

    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    places = [str(Path(importlib.util.find_spec("heat_ood").origin).parents[1])]  # type: ignore[union-attr,arg-type]
    monkeypatch.setenv("PYTHONPATH", ":".join(places))
    builder = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
    spark = builder.config("spark.sql.shuffle.partitions", "2").config("spark.driver.bindAddress", "127.0.0.1").getOrCreate()
    try:
        rows = [(int(i), row.tolist()) for i, row in enumerate(x)]
        frame = spark.createDataFrame(rows, "id long, avg array<float>").repartition(2)
        scored = frame.mapInArrow(score_batches(path, column="avg", keep=["id"]), "id long, score float")
        found = {row.id: row.score for row in scored.collect()}
        assert np.array_equal(np.array([found[i] for i in range(500)], np.float32), detector.score(x))
    finally:
        spark.stop()


def test_it_is_imported_only_when_asked_for() -> None:
    import subprocess

    code = "import sys, heat_ood; assert not {'pyarrow', 'ray', 'pyspark'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
