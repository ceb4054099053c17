"""Arrow: score record batches (Spark, DuckDB, plain pyarrow) and Parquet files, other columns kept.

    from heat_ood.arrow import score_batches, score_parquet
    df.mapInArrow(score_batches("detector.safetensors", column="avg", keep=["id"]), "id long, score float")
    score_parquet("features.parquet", "detector.safetensors", "scores.parquet")

Features are a column of lists (of fixed or variable length, or tensors) of halves, singles or doubles,
or several columns of numbers. A row without features is an error that names it: leave such rows out
first. Batches of any size give the same bits.
"""

from __future__ import annotations

import os
import platform
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .detector import Detector, Prediction, load
from .errors import FormatError, HeatError, InputError
from .features import FeatureSet, StrPath

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as error:
    raise ImportError("heat_ood.arrow needs pyarrow: pip install 'heat-ood[arrow]'") from error

__all__ = ["feature_set", "matrix", "result_schema", "score_batches", "score_parquet"]

#: A column of lists, or several columns of numbers.
Column = str | Sequence[str]
#: The column of `avg`, or those of several fields by name (`{"avg": "mean", "logits": "logits"}`).
Columns = Column | Mapping[str, Column]

_RESULTS = {"score": pa.float32(), "p_value": pa.float64(), "is_ood": pa.bool_(), "class": pa.int64()}
#: Rows that `score_parquet` holds at a time.
_ROWS = 65536


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _row(missing: Any, first: int) -> int:
    """The first row for which `missing` holds, counted from the stream's beginning."""
    return first + int(np.flatnonzero(missing.to_numpy(zero_copy_only=False))[0])


def _chunk(column: Any, name: str, first: int) -> NDArray[Any]:
    kind = column.type
    if column.null_count:
        row = _row(column.is_null(), first)
        raise InputError(f"column {name!r}: row {row} is null; leave rows without features out first")
    if isinstance(kind, pa.BaseExtensionType):
        shape = getattr(kind, "shape", None)
        if shape is None:
            raise InputError(f"column {name!r}: holds {kind}; expected lists, or tensors of one shape")
        if sum(n != 1 for n in shape) > 1:
            raise InputError(f"column {name!r}: tensors of shape {tuple(shape)}, expected one dimension; pool maps first")
        column, kind = column.storage, kind.storage_type
    fixed = pa.types.is_fixed_size_list(kind)
    views = (getattr(pa.types, f"is_{word}", lambda _: False) for word in ("list_view", "large_list_view"))
    if any(is_view(kind) for is_view in views):
        column = column.cast(pa.large_list(kind.value_type))
        kind = column.type
    if not (fixed or pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        if _is_number(kind):
            advice = "one number a row; expected lists of numbers; name several such columns together"
        elif pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_string(kind):
            advice = "expected lists of numbers"
        else:
            advice = "expected a column of lists of numbers (float16, float32 or float64)"
        raise InputError(f"column {name!r}: holds {kind}, {advice}")
    if not _is_number(kind.value_type):
        raise InputError(f"column {name!r}: lists of {kind.value_type}, expected lists of numbers")
    rows = len(column)
    if fixed:
        width = kind.list_size
    else:
        lengths = column.value_lengths().to_numpy()
        width = int(lengths[0]) if rows else 0
        if rows and (lengths != width).any():
            row = int(np.flatnonzero(lengths != width)[0])
            raise InputError(
                f"column {name!r}: row {first + row} has {lengths[row]} values, "
                f"expected {width} as row {first}"
            )
    # Of a slice, `values` would be those of the whole array.
    values = column.flatten()
    if values.null_count:
        row = _row(values.is_null(), 0) // max(width, 1)
        raise InputError(f"column {name!r}: row {first + row} holds a null; every value must be a number")
    # Without nulls there is nothing to copy, but for what Arrow packs otherwise.
    array: NDArray[Any] = values.to_numpy(zero_copy_only=False)
    return array.reshape(rows, width)


def matrix(column: Any, name: str = "column", first: int = 0) -> NDArray[Any]:
    """A column of lists or tensors as `[N, D]`, copied only where it has several chunks.

    Slices keep to their rows; a null, or a row of another length, is an error that names the row,
    counted from `first`.

    >>> import pyarrow as pa
    >>> matrix(pa.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], pa.list_(pa.float32(), 2))[1:])
    array([[3., 4.],
           [5., 6.]], dtype=float32)
    """
    if not isinstance(column, pa.ChunkedArray):
        return _chunk(column, name, first)
    parts: list[NDArray[Any]] = []
    row = first
    for chunk in column.chunks:
        if len(chunk):
            part = _chunk(chunk, name, row)
            if parts and part.shape[1] != parts[0].shape[1]:
                raise InputError(
                    f"column {name!r}: row {row} has {part.shape[1]} values, "
                    f"expected {parts[0].shape[1]} as row {first}"
                )
            parts.append(part)
            row += len(chunk)
    if not parts:
        return np.empty((0, 0), np.float32)
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _find(schema: Any, name: str) -> None:
    found = schema.names.count(name)
    if found != 1:
        columns = ", ".join(map(repr, schema.names)) or "none"
        problem = "there is no such column" if not found else f"there are {found} columns of that name"
        raise InputError(f"column {name!r}: {problem}; columns: {columns}")


def _named(columns: Columns) -> dict[str, Column]:
    """Columns by field."""
    found = dict(columns) if isinstance(columns, Mapping) else {"avg": columns}
    if not found:
        raise InputError("column: names no column")
    return found


def _flat(columns: Columns) -> list[str]:
    return [name for c in _named(columns).values() for name in ([c] if isinstance(c, str) else c)]


def _field(table: Any, column: Column, first: int) -> NDArray[Any]:
    if isinstance(column, str):
        return matrix(table.column(column), column, first)
    parts = []
    for name in column:
        part = table.column(name)
        if not _is_number(part.type):
            raise InputError(f"column {name!r}: holds {part.type}, expected numbers, as one of several columns")
        if part.null_count:
            nulls = part.is_null()
            row = _row(nulls.combine_chunks() if isinstance(nulls, pa.ChunkedArray) else nulls, first)
            raise InputError(f"column {name!r}: row {row} is null; leave rows without features out first")
        parts.append(part.to_numpy() if isinstance(part, pa.ChunkedArray) else part.to_numpy(zero_copy_only=False))
    if not parts:
        raise InputError("column: names no column")
    return np.stack(parts, axis=1)


def feature_set(
    table: Any, column: Columns = "avg", *, label: str | None = None, head: Any = None, first: int = 0
) -> FeatureSet:
    """A table or record batch as features, with labels from a column where one is named.

    `first` is the number of its first row, for the text of errors.
    """
    for name in [*_flat(column), *([] if label is None else [label])]:
        _find(table.schema, name)
    fields: dict[str, Any] = {field: _field(table, name, first) for field, name in _named(column).items()}
    labels = None
    if label is not None:
        given = table.column(label)
        if given.null_count:
            nulls = given.is_null()
            row = _row(nulls.combine_chunks() if isinstance(nulls, pa.ChunkedArray) else nulls, first)
            raise InputError(f"column {label!r}: row {row} is null; expected a class in every row, -1 for none")
        if pa.types.is_dictionary(given.type):
            given = given.cast(given.type.value_type)
        labels = given.to_numpy() if isinstance(given, pa.ChunkedArray) else given.to_numpy(zero_copy_only=False)
    return FeatureSet(**fields, label=labels, head=head, name="table")


class _Task:
    """What is to be done with batches: plain data, so that it can be sent to where it is done."""

    def __init__(
        self, detector: Any, column: Columns, keep: Sequence[str] | None, results: Sequence[str] | None, threads: int | None
    ) -> None:
        if not isinstance(detector, (Detector, str, os.PathLike)):
            raise InputError(f"detector: {type(detector).__name__}, expected a Detector or the path of one")
        if isinstance(keep, str):
            raise InputError(f"keep: expected a list of columns, such as [{keep!r}]")
        if threads is not None and threads < 1:
            raise InputError(f"threads={threads}: expected at least one, or None for all")
        for name in results or ():
            if name not in _RESULTS:
                raise InputError(f"results: there is no {name!r}; {', '.join(_RESULTS)}")
        self.detector = detector if isinstance(detector, Detector) else os.fspath(detector)
        self.column = column
        self.keep = keep
        self.results = results
        self.threads = threads
        _named(column)

    def opened(self) -> Detector:
        """The detector; an error says on which machine it cannot be opened."""
        if isinstance(self.detector, Detector):
            return self.detector
        try:
            return load(self.detector)
        except OSError as error:
            text = f"{error.strerror or error}, on {platform.node()}: every worker must see the file; or give a Detector"
            if error.errno is None:
                raise
            raise type(error)(error.errno, text, str(self.detector)) from error

    def named(self, detector: Detector) -> list[str]:
        """Names of the results."""
        if self.results is not None:
            missing = {"p_value", "is_ood"} & {*self.results}
            if missing and not detector.calibrated:
                raise InputError(f"results: {min(missing)!r} needs a calibrated detector; calibrate it first")
            return list(self.results)
        words = ["score"]
        if detector.calibrated:
            words += ["p_value", "is_ood"]
            if detector.info()["calibration"].get("per_class"):
                words.append("class")
        return words

    def kept(self, schema: Any) -> list[str]:
        """Names of the columns that are kept."""
        features = _flat(self.column)
        kept = [n for n in schema.names if n not in features] if self.keep is None else list(self.keep)
        for name in [*features, *kept]:
            _find(schema, name)
        return kept

    def schema(self, schema: Any, named: Sequence[str]) -> Any:
        kept = self.kept(schema)
        for name in named:
            if name in kept:
                raise InputError(f"column {name!r}: is there already; leave it out of `keep`, or rename it")
        fields = [schema.field(name) for name in kept]
        fields += [pa.field(name, _RESULTS[name]) for name in named]
        # What pandas wrote there describes columns that may no longer be there, which it does not bear.
        metadata = {k: v for k, v in (schema.metadata or {}).items() if k != b"pandas"}
        return pa.schema(fields, metadata=metadata or None)

    def predict(self, detector: Detector, table: Any, named: Sequence[str], first: int) -> Prediction:
        """What is thought of the rows of a table that has some."""
        fields: dict[str, Any] = {field: _field(table, name, first) for field, name in _named(self.column).items()}
        # An error names a row within the set, and the set.
        last = first + table.num_rows - 1
        x = FeatureSet(**fields, name=f"rows {first} to {last}, numbered from 0")
        if list(named) == ["score"]:
            return Prediction(detector.score(x, threads=self.threads))
        return detector.predict(x, threads=self.threads)

    def columns(self, detector: Detector, table: Any, named: Sequence[str], first: int) -> list[Any]:
        """The results as Arrow's arrays."""
        if table.num_rows == 0:
            return [pa.array([], _RESULTS[name]) for name in named]
        found = self.predict(detector, table, named, first)
        values = {"score": found.score, "p_value": found.p_value, "is_ood": found.is_ood, "class": found.label}
        if any(values[name] is None for name in named):
            raise InputError("results: 'class' needs a detector calibrated by class, or class names and logits")
        return [pa.array(values[name], _RESULTS[name]) for name in named]


class _ScoreBatches(_Task):
    def __call__(self, batches: Iterable[Any]) -> Iterator[Any]:
        detector = self.opened()
        named = self.named(detector)
        first, wanted = 0, None
        for batch in batches:
            if wanted is None or batch.schema != wanted[0]:
                wanted = batch.schema, self.kept(batch.schema), self.schema(batch.schema, named)
            _, kept, schema = wanted
            results = self.columns(detector, batch, named, first)
            yield pa.RecordBatch.from_arrays([*(batch.column(n) for n in kept), *results], schema=schema)
            first += batch.num_rows


def score_batches(
    detector: Detector | StrPath,
    column: Columns = "avg",
    *,
    keep: Sequence[str] | None = None,
    results: Sequence[str] | None = None,
    threads: int | None = 1,
) -> Callable[[Iterable[Any]], Iterator[Any]]:
    """A callable from an iterator of record batches to another, with what is thought of each row.

    It can be sent to other processes, which open the detector once a task: from its path, which each
    of them must see, or as the bytes of a `Detector`. `column` holds the features; several columns of
    numbers, or the columns of several fields, go too. `keep` are other columns to keep, by default
    all but the features. Added are `score` (higher = more out-of-distribution) and, by a calibrated
    detector, `p_value` and `is_ood`, with `class` where it was calibrated by class; `results` names
    those that are wanted. `threads` for each task; None is all.

    >>> import numpy as np, pyarrow as pa, heat_ood as ho
    >>> rng = np.random.default_rng(0)
    >>> detector = ho.Maha().fit(rng.normal(size=(100, 3)), label=np.arange(100) % 2)
    >>> batch = pa.record_batch({"id": [7], "avg": pa.array([[9.0, 9.0, 9.0]], pa.list_(pa.float32()))})
    >>> [found.schema.names for found in score_batches(detector)([batch])]
    [['id', 'score']]
    """
    return _ScoreBatches(detector, column, keep, results, threads)


def result_schema(
    detector: Detector | StrPath,
    schema: Any,
    column: Columns = "avg",
    *,
    keep: Sequence[str] | None = None,
    results: Sequence[str] | None = None,
) -> Any:
    """The schema of what `score_batches` gives for batches of `schema`, as Spark wants to know it:
    `pyspark.sql.pandas.types.from_arrow_schema(result_schema(…))`."""
    task = _Task(detector, column, keep, results, None)
    return task.schema(schema, task.named(task.opened()))


def _files(source: Path, out: Path) -> list[tuple[Path, Path]]:
    """Files to read, each with the file to write."""
    if not source.is_dir():
        return [(source, out)]
    # Names that begin so are not data, by the custom of Hadoop and Spark.
    found = sorted(
        path
        for path in source.rglob("*.parquet")
        if not any(part.startswith(("_", ".")) for part in path.relative_to(source).parts)
    )
    if not found:
        raise InputError(f"{source}: the directory holds no *.parquet file")
    return [(path, out / path.relative_to(source)) for path in found]


def score_parquet(
    source: StrPath,
    detector: Detector | StrPath,
    out: StrPath,
    *,
    column: Columns = "avg",
    keep: Sequence[str] | None = None,
    results: Sequence[str] | None = None,
    threads: int | None = None,
    batch_rows: int = _ROWS,
    existing: Literal["error", "overwrite", "skip"] = "error",
) -> int:
    """Score a Parquet file, or a directory of them into another; returns the rows that were scored.

    Rows are read and written a part at a time. The other columns are kept as `score_batches` keeps
    them, rows in their order, and files of a directory under their names. A file is written under
    another name and then renamed: it is there whole or not at all. `existing` files are an error, or
    overwritten, or skipped, so that a directory of which a part is done can be gone on with.
    """
    if existing not in ("error", "overwrite", "skip"):
        raise InputError(f"existing={existing!r}: 'error', 'overwrite' or 'skip'")
    if batch_rows < 1:
        raise InputError(f"batch_rows={batch_rows}: expected at least one")
    source, out = Path(source), Path(out)
    task = _Task(detector, column, keep, results, threads)
    if not source.exists():
        raise FileNotFoundError(2, "there is no such file or directory of features", str(source))
    files = _files(source, out)
    if source.is_dir() and out.resolve().is_relative_to(source.resolve()):
        raise InputError(f"{out}: lies in {source}, whose files are read; give another directory")
    if source.resolve() == out.resolve():
        raise InputError(f"{out}: is the file that is read; give another name")
    if existing == "error":
        for _, target in files:
            if target.exists():
                raise FileExistsError(17, "is there already: existing='overwrite' or 'skip'", str(target))
    opened = task.opened()
    named = task.named(opened)
    rows = 0
    for path, target in files:
        if not (existing == "skip" and target.exists()):
            rows += _score_file(task, opened, named, path, target, batch_rows)
    return rows


def _score_file(task: _Task, detector: Detector, named: Sequence[str], path: Path, out: Path, batch_rows: int) -> int:
    try:
        file = pq.ParquetFile(path, memory_map=False)
    except pa.ArrowInvalid as error:
        raise FormatError(f"{path}: not a Parquet file, or a damaged one ({error})") from error
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}.partial")
    rows = 0
    try:
        with file:
            try:
                kept = task.kept(file.schema_arrow)
                schema = task.schema(file.schema_arrow, named)
            except InputError as error:
                raise InputError(f"{path}: {error}") from error
            with pq.ParquetWriter(partial, schema) as writer:
                wanted = [*dict.fromkeys([*kept, *_flat(task.column)])]
                for batch in file.iter_batches(batch_rows, columns=wanted):
                    try:
                        found = task.columns(detector, batch, named, rows)
                    except HeatError as error:
                        raise type(error)(f"{path}: {error}") from error
                    arrays = [batch.column(name) for name in kept]
                    writer.write_batch(pa.RecordBatch.from_arrays([*arrays, *found], schema=schema))
                    rows += batch.num_rows
        os.replace(partial, out)
    finally:
        partial.unlink(missing_ok=True)
    return rows
