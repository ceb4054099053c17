"""How long a job takes on so many workers, how much memory each needs, and what it waits for.

    python -c "import heat_ood; print(heat_ood.plan(10**9, 2048, 1000, 'gmm', workers=64))"

Rates are measured here, in some seconds, on generated rows of the same width and number of classes and
on as many threads as a worker has; what a network carries is to be told (`bandwidth`). Work grows with
rows; of scorers that keep a bank of rows (`knn`), that of a score grows with the bank, too.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from . import _heat_ood
from ._scorer import Scorer
from ._scorer import scorer as _by_name
from .detector import Detector
from .errors import InputError
from .features import FeatureSet

__all__ = ["Plan", "plan"]

#: Seconds that a measurement should take at least, for its noise to be small.
_ENOUGH = 0.3
#: Bytes of a process that has Python, NumPy, pyarrow and Ray loaded and does nothing.
_PROCESS = 250e6
#: Seconds until a worker of Ray has started.
_START = 5.0


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is to be expected, of one worker where nothing else is said; bytes and seconds."""

    job: str
    rows: int
    dim: int
    classes: int
    scorer: str
    workers: int
    cpus: int
    #: Rows a second that a worker computes.
    rows_per_second: float
    #: By what takes it: `start`, `compute`, `read`, `merge`, `finish`.
    seconds: dict[str, float]
    #: By what needs it: `process`, `batches`, `detector`, `states`.
    memory: dict[str, float]
    #: Bytes that a worker reads and writes: `features`, `detector`, `states`, `results`.
    traffic: dict[str, float]
    #: Rows over which a rate was measured.
    measured_rows: int

    @property
    def total_seconds(self) -> float:
        """From beginning to end; reading goes on while another batch is computed."""
        s = self.seconds
        return s["start"] + max(s["compute"], s["read"]) + s["merge"] + s["finish"]

    @property
    def total_memory(self) -> float:
        """Bytes that a worker needs."""
        return sum(self.memory.values())

    @property
    def total_traffic(self) -> float:
        """Bytes that a worker sends or is sent."""
        return sum(self.traffic.values())

    @property
    def bottleneck(self) -> str:
        """What takes the longest: `compute`, `read` (the network), `start`, `merge`, `finish`."""
        return max(self.seconds, key=lambda name: self.seconds[name])

    @property
    def advice(self) -> str:
        """What would make it faster."""
        return {
            "compute": "more workers, or more CPUs each",
            "read": "more nodes, or a network that carries more; more workers on a node do not help",
            "start": "fewer workers: they take longer to start than to work",
            "merge": "fewer parts (larger blocks), or fewer workers",
            "finish": "one machine does this; nothing that is distributed",
        }[self.bottleneck]

    def to_dict(self) -> dict[str, Any]:
        """All of it, sums included."""
        sums = {name: getattr(self, name) for name in ("total_seconds", "total_memory", "total_traffic", "bottleneck")}
        return {**dataclasses.asdict(self), **sums}

    def __str__(self) -> str:
        seconds = ", ".join(f"{name} {_time(s)}" for name, s in self.seconds.items() if s >= 0.05)
        memory = ", ".join(f"{name} {_size(b)}" for name, b in self.memory.items() if b >= 1e6)
        traffic = ", ".join(f"{name} {_size(b)}" for name, b in self.traffic.items() if b >= 1e6)
        return "\n".join(
            [
                f"{self.job} {self.scorer}: {self.rows:,} x {self.dim}, {self.classes} classes, "
                f"{self.workers} workers of {self.cpus} CPU",
                f"time     {_time(self.total_seconds)} ({seconds}); {self.rows_per_second:,.0f} rows/s a worker",
                f"memory   {_size(self.total_memory)} a worker ({memory})",
                f"traffic  {_size(self.total_traffic)} a worker ({traffic})",
                f"limit    {self.bottleneck}: {self.advice}",
            ]
        )


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _size(size: float) -> str:
    power = min(max(int(math.log10(max(size, 1.0)) // 3), 0), 5)
    return f"{size / 1000**power:.3g} {['B', 'kB', 'MB', 'GB', 'TB', 'PB'][power]}"


def _generated(rows: int, dim: int, classes: int) -> FeatureSet:
    rng = np.random.default_rng(0)
    label = np.arange(rows) % classes
    means = np.abs(rng.standard_normal((classes, dim), np.float32))
    x = np.maximum(means[label] + 0.3 * rng.standard_normal((rows, dim), np.float32), 0)
    weight = means - means.mean(0)
    return FeatureSet(x, std=x[:, ::-1], label=label, head=(weight, np.zeros(classes, np.float32)), name="generated")


def _fastest(work: Callable[[], Any]) -> float:
    """Seconds of the fastest of some calls: other work only ever makes it slower."""
    best, spent = math.inf, 0.0
    while spent < _ENOUGH:
        begun = time.perf_counter()
        work()
        took = time.perf_counter() - begun
        best, spent = min(best, took), spent + took
    return best


def _line(few: int, small: float, many: int, large: float) -> tuple[float, float]:
    """Constant and slope through two points, neither negative."""
    slope = max((large - small) / (many - few), 0.0)
    if slope == 0.0:
        return 0.0, large / many
    constant = small - slope * few
    return (constant, slope) if constant >= 0 else (0.0, large / many)


def plan(
    rows: int,
    dim: int,
    classes: int,
    scorer: str | Scorer,
    workers: int = 1,
    *,
    job: Literal["score", "fit"] = "score",
    train_rows: int | None = None,
    cpus: int = 1,
    bandwidth: float = 125e6,
    item_bytes: int = 4,
    batch_rows: int = 8192,
    block_bytes: float = 128e6,
    start: float = _START,
    measured_rows: int | None = None,
) -> Plan:
    """Predict a job on `rows` rows of `dim` features: scoring them, or fitting a scorer on them.

    `train_rows` (of a scorer's bank, when `job="score"`): by default 100 000, or `rows` where there are
    fewer. `bandwidth` is what a worker is sent, in bytes a second: 125e6 is a network of one gigabit a
    second for each. `item_bytes`: 4 for singles, 2 for halves. `start`: seconds until workers are there.

    >>> import heat_ood as ho
    >>> ho.plan(10**6, 64, 10, "gmm", workers=4).bottleneck in ("compute", "read", "start")
    True
    """
    asked = {"rows": rows, "dim": dim, "classes": classes, "workers": workers, "cpus": cpus, "batch_rows": batch_rows}
    for name, value in asked.items():
        if value < 1:
            raise InputError(f"{name}={value}: expected at least one")
    if job not in ("score", "fit"):
        raise InputError(f"job={job!r}: 'score' or 'fit'")
    if bandwidth <= 0:
        raise InputError(f"bandwidth={bandwidth}: expected bytes a second")
    spec = scorer if isinstance(scorer, Scorer) else _by_name(scorer)
    few = measured_rows or min(max(4 * classes, 2 * dim, 1000), 40_000)
    many = 2 * few
    bank = train_rows if train_rows is not None else min(rows, 100_000)
    before = _heat_ood.num_threads()
    _heat_ood.set_num_threads(cpus)
    try:
        data = _generated(many, dim, classes)
        fitted: dict[int, Detector] = {}
        took = {}
        for n in (few, many):
            part = data[:n]

            def once(part: FeatureSet = part, n: int = n) -> None:
                fitted[n] = spec.fit(part)

            took[n] = _fastest(once)
        finish, per_row = _line(few, took[few], many, took[many])
        sizes = {n: float(len(d._inner.to_bytes())) for n, d in fitted.items()}
        fixed, per_kept = _line(few, sizes[few], many, sizes[many])
        # Digests of the rows are a few bytes each, a bank's row is at least its features in halves.
        banked = per_kept > dim
        queries = data.numpy()[: min(many, batch_rows)]
        x = queries if _reads_avg(fitted[many], queries) else data[: len(queries)]
        scoring = {n: _fastest(lambda n=n: d.score(x)) / len(queries) for n, d in fitted.items()}  # type: ignore[misc]
    finally:
        _heat_ood.set_num_threads(before)
    mine = math.ceil(rows / workers)
    row_bytes = dim * item_bytes + 8.0
    detector = fixed + per_kept * (rows if job == "fit" else bank)
    seconds = {"start": start if workers > 1 else 0.0, "compute": 0.0, "read": mine * row_bytes / bandwidth}
    memory = {"process": _PROCESS, "batches": 0.0, "detector": 0.0, "states": 0.0}
    traffic = {"features": mine * row_bytes, "detector": 0.0, "states": 0.0, "results": 0.0}
    if job == "score":
        constant, per_bank = _line(few, scoring[few], many, scoring[many]) if banked else (scoring[many], 0.0)
        per_score = constant + per_bank * bank
        seconds |= {"compute": mine * per_score, "merge": 0.0, "finish": 0.0}
        rate = 1 / per_score
        memory |= {"detector": detector, "batches": 3 * batch_rows * (dim * 4.0 + 8) + 2 * block_bytes}
        traffic |= {"detector": detector, "results": mine * 12.0}
    else:
        # Of a bank the state is the bank; of sums, about what the detector holds, in doubles.
        state = 2 * fixed + (per_kept * mine if banked else 0.0)
        parts = max(1, math.ceil(mine * row_bytes / block_bytes))
        rounds = math.ceil(math.log(max(workers * parts, 2), 8))
        part_state = 2 * fixed + per_kept * mine / parts if banked else 2 * fixed
        seconds |= {
            "compute": mine * per_row,
            "merge": rounds * 8 * part_state / bandwidth if workers > 1 else 0.0,
            "finish": finish,
        }
        rate = 1 / per_row
        memory |= {"batches": 2 * block_bytes + 2 * block_bytes * 4 / item_bytes, "states": 10 * part_state + state}
        traffic |= {"states": (parts + rounds * 8) * part_state if workers > 1 else 0.0}
    return Plan(job, rows, dim, classes, str(spec), workers, cpus, rate, seconds, memory, traffic, many)


def _reads_avg(detector: Detector, x: Any) -> bool:
    """Whether it scores rows of `avg` alone."""
    try:
        detector.score(x[:1])
    except InputError:
        return False
    return True
