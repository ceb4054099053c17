"""Ray: score, extract, fit, train, evaluate and sweep on many machines, over Ray Data, tasks and Tune.

    import ray, heat_ood.ray as hr
    ds = ray.data.read_parquet("s3://bucket/features", columns=["id", "avg", "label"])
    hr.score(ds, "/shared/detector.safetensors", column="avg").write_parquet("s3://bucket/scores", mode="overwrite")

Ray hands rows on in any order: ids travel with the rows, and nothing here relies on their order. A
worker or node that is lost costs time, not rows: what it did is done again, to the same bits. The
threads of a worker are the CPUs it asks Ray for. A detector is opened from a path that every worker
must see, or sent once as the bytes of a `Detector`. What goes wrong on a worker of Ray Data is Ray's
error (`RayTaskError`) with the text of ours; of a task, ours. `heat_ood` must be installed on every node, in
the version of the driver. Scores: higher = more out-of-distribution.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
import pickle
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import heat_ood

from . import _heat_ood, metrics
from ._progress import Progress
from ._scorer import Scorer as _Settings
from ._scorer import scorer as _by_name
from .detector import Detector
from .errors import HeatError, InputError
from .features import FeatureSet, StrPath, as_head
from .images import Backbone
from .images import extract as _extract
from .recipes import Recipe
from .recipes import recipe as _recipe
from .statistics import Statistics

try:
    import pyarrow as pa
    import ray
    import ray.data
except ImportError as error:
    raise ImportError("heat_ood.ray needs Ray and pyarrow: pip install 'heat-ood[ray]'") from error

from .arrow import Columns, _find, _flat, _Task, feature_set

__all__ = ["Extractor", "Scorer", "Sweep", "evaluate", "extract", "fit", "score", "statistics", "sweep", "train"]

#: Rows of a batch: enough to keep kernels busy, few enough that a batch is small.
_ROWS = 8192
#: The number of an image in its file's name.
_NUMBER = re.compile(r"image-(\d{8})")
#: States that one task merges.
_FAN_IN = 8


# What all workers do


def _cpus() -> int:
    """CPUs that Ray gave this task or actor, at least one."""
    if not ray.is_initialized():
        return 1
    return max(1, int(ray.get_runtime_context().get_assigned_resources().get("CPU", 1)))


def _where() -> str:
    return f"{platform.node()} (node {ray.get_runtime_context().get_node_id()[:8]})"


def _check_version(driver: str | None) -> None:
    if driver not in (None, heat_ood.__version__):
        raise HeatError(
            f"heat_ood {heat_ood.__version__} on {_where()}, but {driver} on the driver: "
            "install one version on all nodes, or name it in the runtime environment"
        )


def _own(error: BaseException) -> BaseException | None:
    """The error of `heat_ood`, or of the system, that made a task of Ray fail."""
    found: BaseException | None = error
    seen: set[int] = set()
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        if isinstance(found, (HeatError, OSError)) and not isinstance(found, ray.exceptions.RayError):
            return found
        found = getattr(found, "cause", None) or found.__cause__ or found.__context__
    return None


@contextlib.contextmanager
def _own_errors() -> Iterator[None]:
    """Raise what went wrong on a worker as it would have been raised here."""
    try:
        yield
    except ray.exceptions.RayError as error:
        own = _own(error)
        if own is None:
            raise
        raise own from error


class _Worker:
    """An actor of Ray Data. What its constructor raises is raised by the first batch instead: Ray
    would begin the actor anew again and again, which looks like a hang."""

    _failed: Exception | None = None

    def __call__(self, batch: Any) -> Any:
        if self._failed is not None:
            raise self._failed
        return self._batch(batch)

    def _batch(self, batch: Any) -> Any:
        raise NotImplementedError


def _opened(detector: Any) -> Any:
    """A detector of what was sent: a path, its bytes, or a reference to these."""
    if isinstance(detector, ray.ObjectRef):
        detector = ray.get(detector)
    return Detector(_heat_ood.Detector.from_bytes(detector)) if isinstance(detector, bytes) else detector


def _sent(detector: Detector | StrPath) -> Any:
    """What is sent to workers: a path as it is, a detector through the object store, once."""
    if isinstance(detector, Detector):
        return ray.put(detector._inner.to_bytes())
    if not isinstance(detector, (str, os.PathLike)):
        raise InputError(f"detector: {type(detector).__name__}, expected a Detector or the path of one")
    return os.fspath(detector)


def _pool(actors: int | tuple[int, int] | None) -> Any:
    if actors is None:
        return ray.data.ActorPoolStrategy(min_size=1)
    if isinstance(actors, tuple):
        return ray.data.ActorPoolStrategy(min_size=actors[0], max_size=actors[1])
    if actors < 1:
        raise InputError(f"actors={actors}: expected at least one, or None for as many as there is room for")
    return ray.data.ActorPoolStrategy(size=actors)


def _mapped(
    ds: Any,
    worker: type[_Worker],
    given: Mapping[str, Any],
    actors: int | tuple[int, int] | None,
    cpus: float,
    batch_rows: int,
    memory: float | None = None,
    fewer: bool = False,
) -> Any:
    """The data set as workers make it, of this version; `fewer`: they may leave out rows."""
    return ds.map_batches(
        worker,
        fn_constructor_kwargs={**given, "version": heat_ood.__version__},
        batch_format="pyarrow",
        batch_size=batch_rows,
        compute=_pool(actors),
        num_cpus=cpus,
        memory=memory,
        udf_modifying_row_count=fewer,
    )


def _check(ds: Any, columns: Sequence[str]) -> None:
    """Say on the driver which column is absent, where the schema is known without work."""
    schema = ds.schema(fetch_if_missing=False)
    if schema is None:
        return
    for name in columns:
        if name not in schema.names:
            known = ", ".join(map(repr, schema.names)) or "none"
            raise InputError(f"column {name!r}: there is no such column; columns: {known}")


# Scoring


class Scorer(_Worker):
    """For `Dataset.map_batches`: adds `score`, and the verdicts of a calibrated detector.

        ds.map_batches(hr.Scorer, fn_constructor_kwargs={"detector": "/shared/d.safetensors", "column": "avg"},
                       batch_size=8192, batch_format="pyarrow", compute=ray.data.ActorPoolStrategy(size=8))

    Batches of any format are taken. `detector` is a path that the worker sees, the bytes of a detector's
    file, or a reference to these. `threads` are by default the CPUs of the actor; `version` is
    `heat_ood.__version__` of the driver, if it is to be compared.
    """

    def __init__(
        self,
        detector: Any,
        column: Columns = "avg",
        keep: Sequence[str] | None = None,
        results: Sequence[str] | None = None,
        threads: int | None = None,
        version: str | None = None,
    ) -> None:
        try:
            _check_version(version)
            self._task = _Task(_opened(detector), column, keep, results, threads or _cpus())
            self._detector = self._task.opened()
            self._named = self._task.named(self._detector)
        except Exception as error:
            self._failed = error

    def _batch(self, batch: Any) -> Any:
        table = _table(batch)
        kept = self._task.kept(table.schema)
        schema = self._task.schema(table.schema, self._named)
        found = self._task.columns(self._detector, table, self._named, 0)
        return pa.table([*(table.column(name) for name in kept), *found], schema=schema)


def _table(batch: Any) -> Any:
    """A batch of any of Ray's formats as a table."""
    if isinstance(batch, pa.Table):
        return batch
    if isinstance(batch, Mapping):
        return pa.table({name: _column(values) for name, values in batch.items()})
    return pa.Table.from_pandas(batch, preserve_index=False).replace_schema_metadata()


def _column(values: NDArray[Any]) -> Any:
    if values.ndim == 1:
        return pa.array([*values] if values.dtype == object else values)
    return pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(values))


def score(
    ds: Any,
    detector: Detector | StrPath,
    column: Columns = "avg",
    *,
    keep: Sequence[str] | None = None,
    results: Sequence[str] | None = None,
    actors: int | tuple[int, int] | None = None,
    cpus: float = 1,
    batch_rows: int = _ROWS,
    memory: float | None = None,
) -> Any:
    """A data set with `score` (and `p_value`, `is_ood`, `class` where the detector gives them) and the
    other columns, or those of `keep`; the columns of features are left out unless they are kept.

    Nothing is computed until the result is used. `actors`: how many, or from how many to how many; by
    default as many as there is room for. Leave a CPU for reading where their number is fixed. Each has
    `cpus`, which are its threads. Its memory is that of the detector and a few batches of `batch_rows`.
    """
    # Arguments are looked at here; a path is opened by the workers, who must see it.
    _Task(detector, column, keep, results, None)
    _check(ds, [*_flat(column), *(keep or ())])
    given = {
        "detector": _sent(detector),
        "column": column,
        "keep": None if keep is None else list(keep),
        "results": None if results is None else list(results),
    }
    return _mapped(ds, Scorer, given, actors, cpus, batch_rows, memory)


# Images


class Extractor(_Worker):
    """For `Dataset.map_batches`: images to features; `extract` makes use of it."""

    def __init__(
        self,
        backbone: StrPath,
        column: str,
        keep: Sequence[str] | None,
        options: Mapping[str, Any],
        network: Mapping[str, Any],
        version: str | None = None,
    ) -> None:
        try:
            _check_version(version)
            if not Path(backbone).is_file():
                text = f"on {_where()}: every worker must see the network's file"
                raise FileNotFoundError(2, text, str(backbone))
            # Its tensors' products take as many threads as there are.
            heat_ood.set_num_threads(_cpus())
            self._backbone = Backbone(backbone, **network)
            self._column, self._keep, self._options = column, keep, dict(options)
        except Exception as error:
            self._failed = error

    def _batch(self, batch: Any) -> Any:
        table = _table(batch)
        _find(table.schema, self._column)
        keep = [n for n in table.schema.names if n != self._column] if self._keep is None else self._keep
        for name in keep:
            _find(table.schema, name)
        images = table.column(self._column).to_pylist()
        with tempfile.TemporaryDirectory(prefix="heat-ood-") as place:
            rows, found = self._features(Path(place), images)
        kept = table.select(keep)
        if len(rows) != len(images):
            kept = kept.take(pa.array(rows, pa.int64()))
        for name, values in found.items():
            if name in keep:
                raise InputError(f"column {name!r}: is there already; leave it out of `keep`, or rename it")
            flat = pa.array(values.reshape(-1))
            kept = kept.append_column(name, pa.FixedSizeListArray.from_arrays(flat, values.shape[1]))
        return kept

    def _features(self, place: Path, images: list[Any]) -> tuple[list[int], dict[str, NDArray[Any]]]:
        """Numbers of the rows that are images, and their features."""
        lines = []
        for i, image in enumerate(images):
            if image is None:
                raise InputError(f"column {self._column!r}: row {i} of a batch is null")
            name = f"image-{i:08}"
            if isinstance(image, str):
                source = Path(image)
                if not source.is_file():
                    raise FileNotFoundError(2, f"on {_where()}: every worker must see the images", image)
                name += source.suffix.lower()
                image = source.read_bytes()
            elif not isinstance(image, bytes):
                kind = type(image).__name__
                raise InputError(f"column {self._column!r}: row {i} holds {kind}, expected paths or the bytes of files")
            (place / name).write_bytes(image)
            lines.append(name)
        skipping = bool(self._options.get("skip_unreadable"))
        if skipping:
            # One that can be read, so that columns are known where no other can; its row is left out.
            lines.append("blank.ppm")
            (place / "blank.ppm").write_bytes(b"P6 8 8 255\n" + bytes(192))
        names = place / "images.txt"
        names.write_text("".join(f"{name}\n" for name in lines))
        try:
            made = _extract(names, self._backbone, place / "out", format="list", **self._options)
        except HeatError as error:
            number = _NUMBER.search(str(error))
            if number is None:
                raise
            i = int(number[1])
            label = images[i] if isinstance(images[i], str) else f"row {i} of a batch"
            file = next(str(place / name) for name in lines if name.startswith(number[0]))
            raise type(error)(f"column {self._column!r}: {str(error).replace(file, label)}") from error
        rows = [*range(len(images))]
        if made.rows != len(lines):
            # Each is told as the file and what is wrong with it.
            left_out = {int(found[1]) for text in made.unreadable if (found := _NUMBER.search(text))}
            rows = [i for i in rows if i not in left_out]
        if made.rows != len(rows) + skipping:
            raise HeatError(f"internal error, please report it: {made.rows} rows of {len(rows)} images")
        half = self._options.get("dtype", "f16") == "f16"
        fields = {name: made.features.numpy(name)[: len(rows)] for name in made.features.dims}
        # Halves read as singles become the same halves.
        return rows, {n: v.astype(np.float16) if half else v.copy() for n, v in fields.items()}


def extract(
    ds: Any,
    backbone: StrPath,
    *,
    column: str = "path",
    keep: Sequence[str] | None = None,
    actors: int | tuple[int, int] | None = None,
    cpus: float = 1,
    batch_rows: int = 512,
    memory: float | None = None,
    network: Mapping[str, Any] | None = None,
    **options: Any,
) -> Any:
    """Features of images, as columns (`avg`, `std`, `max`, `logits`, and of taps and views their own).

    `column` holds paths that every worker sees, or the bytes of files
    (`ray.data.read_binary_files(…)`, `column="bytes"`). Other columns, or those of `keep`, stay with
    their rows. `backbone` is a path that every worker sees, `network` its options (`tap`, `arch`, …);
    `options` are those of `heat_ood.extract` (`preset`, `batch_size`, `dtype`, `taps`, `views`,
    `skip_unreadable`, `crop`, …). With `skip_unreadable` rows without an image are left out.
    Features are those of `heat extract`.
    """
    for name in ("surrogates", "surrogate_rows", "seed", "exclude", "preview", "progress", "format", "split", "root"):
        if name in options:
            raise InputError(f"{name}: not known to heat_ood.ray.extract; use heat_ood.extract")
    _check(ds, [column, *(keep or ())])
    given = {
        "backbone": os.path.abspath(backbone),
        "column": column,
        "keep": None if keep is None else list(keep),
        "options": options,
        "network": dict(network or {}),
    }
    fewer = bool(options.get("skip_unreadable"))
    return _mapped(ds, Extractor, given, actors, cpus, batch_rows, memory, fewer)


# Statistics and fits


def _block_key(table: Any, key: str | None, columns: Columns) -> Any:
    """What a block is known by, whenever it comes: its smallest id, or a digest of its features."""
    if key is not None:
        import pyarrow.compute as pc

        column = table.column(key)
        if column.null_count:
            raise InputError(f"column {key!r}: a row has no id; every row needs one")
        return pc.min(column).as_py()
    digest = hashlib.blake2b(digest_size=16)
    for name in _flat(columns):
        for chunk in table.column(name).chunks:
            values = chunk.storage if isinstance(chunk.type, pa.BaseExtensionType) else chunk
            values = values.flatten() if hasattr(values, "flatten") else values
            digest.update(np.ascontiguousarray(values.to_numpy(zero_copy_only=False)).tobytes())
    return digest.hexdigest()


#: A block's key, the bytes of its statistics, or the error that there was, pickled: Ray would keep its text only.
_STATES = pa.schema([("key", pa.string()), ("state", pa.large_binary()), ("error", pa.binary())])


class _Gather:
    """Statistics of a block, as a row of `_STATES`."""

    def __init__(self, spec: Any, options: Mapping[str, Any], after: Any, version: str) -> None:
        self._spec, self._options, self._after, self._version = spec, options, after, version
        self._before: Any = None

    def __call__(self, table: Any) -> Any:
        if table.num_rows == 0:
            return _STATES.empty_table()
        try:
            key, state = self._gathered(table)
        except (HeatError, OSError) as error:
            return pa.table({"key": [None], "state": [None], "error": [pickle.dumps(error)]}, schema=_STATES)
        return pa.table({"key": [key], "state": [state], "error": [None]}, schema=_STATES)

    def _gathered(self, table: Any) -> tuple[str, bytes]:
        _check_version(self._version)
        heat_ood.set_num_threads(_cpus())
        asked = self._options
        if asked["key"] is not None:
            _find(table.schema, asked["key"])
        rows = feature_set(table, asked["column"], label=asked["label"])
        if self._after is not None and self._before is None:
            self._before = Statistics.from_bytes(ray.get(self._after))
        found = Statistics.of(
            self._spec, rows, head=asked["head"], classes=asked["classes"], after=self._before
        )
        return json.dumps(_block_key(table, asked["key"], asked["column"]), default=str), found.to_bytes()


def _keys(table: Any) -> tuple[list[str], list[bytes]]:
    """Keys of a block of states, and the errors there."""
    if table.num_rows == 0:
        return [], []
    errors = [error for error in table.column("error").to_pylist() if error is not None]
    return table.column("key").to_pylist(), errors


def _merge(which: Sequence[tuple[int, int | None]], *states: Any) -> bytes:
    """Merge states in this order; each is a state's bytes, or a row of a block of them."""
    def part(number: int, row: int | None) -> Statistics:
        state = states[number]
        data = state if row is None else state.column("state")[row].as_py()
        return Statistics.from_bytes(bytes(data))

    first, *others = which
    return part(*first).merge(*(part(*other) for other in others)).to_bytes()


def _order(key: str) -> tuple[int, Any, str]:
    """Numbers by their size, then texts."""
    value = json.loads(key)
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return (0, value, "") if number else (1, 0, str(value))


def statistics(
    ds: Any,
    spec: Any,
    *,
    column: Columns = "avg",
    label: str | None = None,
    key: str | None = None,
    head: Any = None,
    classes: int | None = None,
    after: Any = None,
    cpus: float = 1,
    fan_in: int = _FAN_IN,
    memory: float | None = None,
) -> Any:
    """The statistics of a fit of `spec` (a scorer, or several) over all rows: a `heat_ood.Statistics`.

    Each block of the data set is a part. Parts are merged in the order of their keys, by tasks that take
    `fan_in` at a time: the driver holds one state, and the same blocks give the same bits whatever the
    number of workers. `key` names a column of ids, the smallest of which is a block's key; without one a
    digest of its features is. `label` names a column of class numbers. Scorers that need another round
    over the rows say so (`not found.complete`): call again with `after=found`, which `fit` does.
    """
    if fan_in < 2:
        raise InputError(f"fan_in={fan_in}: expected at least 2")
    _check(ds, [*_flat(column), *(name for name in (label, key) if name is not None)])
    schema = ds.schema(fetch_if_missing=False)
    if schema is not None and label is not None:
        kind = schema.types[schema.names.index(label)]
        if not (pa.types.is_integer(kind) if isinstance(kind, pa.DataType) else False):
            raise InputError(f"column {label!r}: holds {kind}, expected class numbers: parts must agree on them")
    layer = as_head(head)
    if layer is not None:
        classes = classes or layer.weight.shape[0]
    options = {"column": column, "label": label, "key": key, "head": layer, "classes": classes}
    before: Any = None if after is None else ray.put(after.to_bytes())
    version = heat_ood.__version__
    gather = _Gather(spec, options, before, version)
    with _own_errors():
        parts = ds.map_batches(
            gather.__call__, batch_format="pyarrow", batch_size=None, num_cpus=cpus, memory=memory
        ).materialize()
        blocks = parts.to_arrow_refs()
        read = ray.remote(num_cpus=0, max_retries=-1)(_keys)
        told = ray.get([read.remote(block) for block in blocks])
        for _, errors in told:
            if errors:
                raise pickle.loads(errors[0])
        keys = [names for names, _ in told]
        found = sorted(
            (_order(name), number, row, name) for number, names in enumerate(keys) for row, name in enumerate(names)
        )
        if not found:
            raise InputError("the data set has no rows, and nothing can be fitted to it")
        for one, other in itertools.pairwise(found):
            if one[3] == other[3]:
                raise InputError(f"two blocks have the key {one[3]}: ids must be unique (column {key!r})")
        merge = ray.remote(num_cpus=cpus, max_retries=-1)(_merge)
        states: list[tuple[Any, int | None]] = [(blocks[number], row) for _, number, row, _ in found]
        while len(states) > 1 or states[0][1] is not None:
            above: list[tuple[Any, int | None]] = []
            for some in _batched(states, fan_in):
                inputs = list(dict.fromkeys(ref for ref, _ in some))
                which = [(inputs.index(ref), row) for ref, row in some]
                above.append((merge.remote(which, *inputs), None))
            states = above
        return Statistics.from_bytes(ray.get(states[0][0]))


def _batched(items: Sequence[Any], n: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), n):
        yield items[start : start + n]


def fit(ds: Any, spec: Any, **options: Any) -> Any:
    """Fit a scorer, or several, on all rows: a `Detector`, or one by name. Options are those of
    `statistics`; the rows are gone through as often as the scorers need it (most once)."""
    found = statistics(ds, spec, **options)
    while not found.complete:
        found = statistics(ds, spec, **options, after=found)
    return found.finish()


# Training


def _run_chains(model: list[Any], parameters: Any, fixed: tuple[Any, ...], key: Any, rows: Any, labels: Any) -> Any:
    """Chains of some rows to their ends: a pure function, so that a lost task is run again."""
    reference, version = model
    if _run_chains_on.get("model") != reference:
        _check_version(version)
        _run_chains_on.clear()
        _run_chains_on.update(model=reference, chains=_heat_ood.Chains(ray.get(reference)))
    chains = _run_chains_on["chains"]
    return chains.run(parameters, *fixed, key, rows, labels, _cpus())


#: The model whose chains this process runs; it stays the same throughout a run.
_run_chains_on: dict[str, Any] = {}


class _Engine:
    """Deals the chains of each step out to tasks; all else of a step is computed on the driver."""

    def __init__(self, workers: int, cpus: float) -> None:
        self._workers = workers
        self._run = ray.remote(num_cpus=cpus, max_retries=-1)(_run_chains)

    def begin(self, model: bytes, block_rows: int) -> None:
        self._model, self._block = ray.put(model), block_rows

    def sample(self, job: Mapping[str, Any]) -> NDArray[np.float32]:
        rows, labels = job["rows"], job["labels"]
        seed, step, block = job["key"]
        fixed = (job["temperatures"], job["projection"], job["chain"])
        parameters = ray.put(job["parameters"])
        blocks = -(-len(rows) // self._block)
        bounds = [blocks * i // self._workers for i in range(self._workers + 1)]
        tasks = []
        for first, last in itertools.pairwise(bounds):
            if first == last:
                continue
            part = slice(first * self._block, last * self._block)
            some = None if labels is None else labels[part]
            # Within a list, a reference is not read before the task begins.
            model = [self._model, heat_ood.__version__]
            key = (seed, step, block + first)
            tasks.append(self._run.remote(model, parameters, fixed, key, rows[part], some))
        return np.concatenate(ray.get(tasks))


def train(
    recipe: Recipe | str,
    data: Any,
    *,
    workers: int,
    cpus: float = 1,
    out: StrPath | None = None,
    head: Any = None,
    resume: bool = False,
    progress: Progress = None,
) -> Detector:
    """Train a recipe, its Langevin chains on `workers` tasks of `cpus` each; the files are those of
    `heat train`, byte for byte, whatever the number of workers.

    `data` are features on the driver, as `Recipe.train` takes them: they are read there, and only
    weights and chains travel. A worker that is lost is replaced. It pays where the chains take most of
    a step (`ebm.model.steps` of 10 and more); with Stein's gradient (`use_svgd`) all rows meet in each
    step, and the driver computes them.
    """
    if workers < 1:
        raise InputError(f"workers={workers}: expected at least one")
    made = _recipe(recipe) if isinstance(recipe, str) else recipe
    with _own_errors():
        return made._train(data, out=out, head=head, resume=resume, progress=progress, engine=_Engine(workers, cpus))


# Evaluation


class _ScoreAll(_Worker):
    """Scores of several detectors, and nothing else."""

    def __init__(self, detectors: Sequence[Any], column: Columns, version: str) -> None:
        try:
            _check_version(version)
            self._scorers = [Scorer(d, column, [], ["score"]) for d in detectors]
        except Exception as error:
            self._failed = error

    def _batch(self, batch: Any) -> Any:
        found = [scorer(batch).column("score") for scorer in self._scorers]
        return pa.table({str(i): scores for i, scores in enumerate(found)})


def evaluate(
    detectors: Mapping[str, Detector | StrPath] | Detector | StrPath,
    *,
    id: Any,
    ood: Mapping[str, Any],
    column: Columns = "avg",
    actors: int | tuple[int, int] | None = None,
    cpus: float = 1,
    batch_rows: int = _ROWS,
) -> dict[str, Any]:
    """Metrics of detectors on data sets of Ray: by detector `{"ood": {set: metrics}, "average": metrics}`,
    as `Results.to_dict()["scorers"]` has them.

    Each set is read once for all detectors. The scores come to the driver: four bytes a row and detector
    of one set after another, beside those of `id`.
    """
    if not isinstance(detectors, Mapping):
        name = detectors.scorer if isinstance(detectors, Detector) else Path(detectors).stem
        detectors = {name: detectors}
    if not detectors or not ood:
        raise InputError("give at least one detector, and one data set out of distribution")
    sent = [_sent(detector) for detector in detectors.values()]

    def scores(ds: Any, name: str) -> list[NDArray[np.float32]]:
        _check(ds, _flat(column))
        given = {"detectors": sent, "column": column}
        made = _mapped(ds, _ScoreAll, given, actors, cpus, batch_rows)
        parts: list[list[NDArray[np.float32]]] = [[] for _ in sent]
        for batch in made.iter_batches(batch_size=None, batch_format="pyarrow"):
            for i, part in enumerate(parts):
                part.append(batch.column(str(i)).to_numpy())
        if not parts[0] or not sum(map(len, parts[0])):
            raise InputError(f"{name}: the data set has no rows")
        return [np.concatenate(part) for part in parts]

    inside = scores(id, "id")
    found: dict[str, Any] = {name: {"ood": {}} for name in detectors}
    for name, ds in ood.items():
        for detector, ours, theirs in zip(detectors, inside, scores(ds, name), strict=True):
            found[detector]["ood"][name] = metrics.evaluate(ours, theirs)
    for result in found.values():
        sets = list(result["ood"].values())
        numbers = [k for k, v in sets[0].items() if isinstance(v, (int, float))]
        result["average"] = {k: float(np.mean([s[k] for s in sets])) for k in numbers}
    return found


# Sweeps


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What a sweep found; the best configuration first, where there is a metric."""

    #: One a configuration: `config`, `mean`, `std` (over seeds, of the metric), `values` by seed, `failed`.
    configurations: list[dict[str, Any]]
    metric: str
    #: Where the trials lie.
    path: str
    #: What Tune has of them.
    results: Any = dataclasses.field(repr=False, compare=False)

    @property
    def best(self) -> dict[str, Any]:
        """Settings of the best configuration."""
        if not self.configurations or self.configurations[0]["mean"] is None:
            raise HeatError(f"no trial of {self.path} reached its end")
        config: dict[str, Any] = self.configurations[0]["config"]
        return config

    def to_markdown(self) -> str:
        """A table, mean ± standard deviation over seeds."""
        keys = list(self.configurations[0]["config"]) if self.configurations else []
        lines = ["| " + " | ".join([*keys, self.metric, "seeds"]) + " |", "|" + "---|" * (len(keys) + 2)]
        for row in self.configurations:
            mean, std = row["mean"], row["std"]
            text = "failed" if mean is None else f"{mean:.4f}" if std is None else f"{mean:.4f} ± {std:.4f}"
            lines.append("| " + " | ".join([*(str(row["config"][k]) for k in keys), text, str(len(row["values"]))]) + " |")
        return "\n".join(lines)


def _trial(config: dict[str, Any], fixed: dict[str, Any] | None = None) -> None:
    """One training run: goes on from the checkpoint that Tune has of it, bit for bit."""
    from ray import tune

    assert fixed is not None
    _check_version(fixed["version"])
    heat_ood.set_num_threads(_cpus())
    keys = {name: value for name, value in config.items() if name != "seed"}
    made = _recipe(fixed["recipe"], *fixed["settings"], **keys, seed=config["seed"], recipes=fixed["recipes"])
    with tempfile.TemporaryDirectory(prefix="heat-ood-") as place:
        run = Path(place) / "run"
        checkpoint = tune.get_checkpoint()
        if checkpoint is not None:
            with checkpoint.as_directory() as held:
                shutil.copytree(held, run)

        def told(event: dict[str, Any]) -> None:
            if event["event"] == "epoch":
                numbers = {k: v for k, v in event.items() if isinstance(v, (int, float))}
                tune.report(numbers, checkpoint=tune.Checkpoint.from_directory(str(run)))

        detector = made.train(fixed["train"], out=run, head=fixed["head"], resume=checkpoint is not None, progress=told)
        lines = (run / "metrics.jsonl").read_text().splitlines()
        last = json.loads(lines[-1]) if lines else {}
        numbers = {k: v for k, v in last.items() if isinstance(v, (int, float))}
        if fixed["ood"]:
            results = heat_ood.evaluate({"heat": detector}, id=fixed["id"], ood=fixed["ood"])
            average = results.to_dict()["scorers"]["heat"]["average"]
            numbers |= {k: v for k, v in average.items() if isinstance(v, (int, float))}
        tune.report({**numbers, "finished": 1}, checkpoint=tune.Checkpoint.from_directory(str(run)))


def sweep(
    recipe: str,
    space: Mapping[str, Any],
    train: Any,
    *,
    settings: Sequence[str] = (),
    recipes: StrPath | None = None,
    seeds: Sequence[int] = (0,),
    head: Any = None,
    id: Any = None,
    ood: Mapping[str, Any] | None = None,
    metric: str | None = None,
    mode: str | None = None,
    out: StrPath,
    name: str = "sweep",
    cpus: float = 1,
    samples: int = 1,
    scheduler: Any = None,
    max_failures: int = -1,
    resume: bool = False,
) -> Sweep:
    """Train a recipe with every combination of settings and seed, by Tune.

    `space`: by key of the recipe a list of values, or one of Tune's domains, of which `samples` are
    drawn; a `scheduler` of Tune that ends trials early is told its own metric, a number that each epoch
    has (`ASHAScheduler(metric="cd_loss", mode="min")`). `train`, `id` and the sets of `ood` are paths that every worker sees, or features, which are
    sent. Judged is the `metric` (`auroc`) of `ood` against `id`, the mean over the sets; without them a
    number of the last epoch (`cd_loss`, lower), which says how training went, not how well it
    detects. Choose by validation sets, not by those that results are reported on.

    `out` is a directory that every node sees (or `s3://…`): trials are kept there under `name`, with a
    checkpoint each epoch. A trial whose worker is lost goes on from it, and a sweep whose driver is lost
    does so when called again with `resume=True`.
    """
    from ray import tune

    if "seed" in space:
        raise InputError("space: give seeds as `seeds`")
    if not seeds or len(set(seeds)) != len(seeds):
        raise InputError(f"seeds={list(seeds)}: expected at least one, and none twice")
    if bool(ood) != (id is not None):
        raise InputError("give both `id` and `ood`, or neither")
    metric = metric or ("auroc" if ood else "cd_loss")
    lower = metric.startswith("fpr") or "loss" in metric or "error" in metric
    mode = mode or ("min" if lower else "max")
    if mode not in ("min", "max"):
        raise InputError(f"mode={mode!r}: 'min' or 'max'")
    first = {key: value[0] for key, value in space.items() if _is_values(key, value)}
    # A key that no recipe has is said here, not by each trial.
    _recipe(recipe, *settings, **first, recipes=recipes)
    place = os.fspath(out) if "://" in os.fspath(out) else os.path.abspath(out)
    fixed = {
        "recipe": recipe,
        "settings": tuple(settings),
        "recipes": None if recipes is None else os.path.abspath(recipes),
        "train": _data(train),
        "head": as_head(head),
        "id": _data(id),
        "ood": {name: _data(x) for name, x in (ood or {}).items()},
        "version": heat_ood.__version__,
    }
    trainable = tune.with_resources(tune.with_parameters(_trial, fixed=fixed), {"cpu": cpus})
    whole = f"{place}/{name}"
    grid = {key: tune.grid_search(list(v)) if _is_values(key, v) else v for key, v in space.items()}
    if resume and tune.Tuner.can_restore(whole):
        tuner = tune.Tuner.restore(whole, trainable=trainable, resume_unfinished=True, resume_errored=True)
    else:
        if "://" not in place and Path(whole).exists() and not resume:
            raise FileExistsError(17, "holds a sweep already: resume=True, or give another name", whole)
        tuner = tune.Tuner(
            trainable,
            param_space={**grid, "seed": tune.grid_search([int(seed) for seed in seeds])},
            tune_config=tune.TuneConfig(num_samples=samples, scheduler=scheduler),
            run_config=tune.RunConfig(
                name=name,
                storage_path=place,
                failure_config=tune.FailureConfig(max_failures=max_failures),
                checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
            ),
        )
    results = tuner.fit()
    return Sweep(_configurations(results, metric, mode), metric, whole, results)


def _is_values(key: str, value: Any) -> bool:
    if isinstance(value, (str, bytes)) or not hasattr(type(value), "__module__"):
        raise InputError(f"space: {key}={value!r}: expected a list of values, or a domain of ray.tune")
    if isinstance(value, Sequence):
        if not value:
            raise InputError(f"space: {key} has no values")
        return True
    if type(value).__module__.partition(".")[0] != "ray" and not isinstance(value, dict):
        raise InputError(f"space: {key}={value!r}: expected a list of values, or a domain of ray.tune")
    return False


def _data(x: Any) -> Any:
    """Features as they are sent: a path, absolute, or a set."""
    if isinstance(x, (str, os.PathLike)):
        return os.path.abspath(x)
    return x


def _configurations(results: Any, metric: str, mode: str) -> list[dict[str, Any]]:
    """Trials by configuration, seeds together; the best one first."""
    groups: dict[str, dict[str, Any]] = {}
    for result in results:
        config = {k: v for k, v in (result.config or {}).items() if k != "seed"}
        group = groups.setdefault(json.dumps(config, sort_keys=True, default=str), {"config": config, "values": {}, "failed": []})
        seed = (result.config or {}).get("seed")
        value = (result.metrics or {}).get(metric)
        if result.error is not None or value is None or not (result.metrics or {}).get("finished"):
            group["failed"].append(seed)
        else:
            group["values"][seed] = float(value)
    for group in groups.values():
        values = list(group["values"].values())
        group["mean"] = float(np.mean(values)) if values else None
        group["std"] = float(np.std(values, ddof=1)) if len(values) > 1 else None
    sign = -1.0 if mode == "max" else 1.0
    return sorted(groups.values(), key=lambda g: (g["mean"] is None, sign * (g["mean"] or 0.0), str(g["config"])))
