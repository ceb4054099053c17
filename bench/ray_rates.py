"""What `heat_ood.ray` costs: rows a second for each CPU against one process, and training with one worker and with two.

    python bench/ray_rates.py [--rounds 3] [--rows 200000]

Scores by a HEAT of 512 features with blocks that take a second or more; the input lies in the object store, and the time is of
what comes after the actors have begun (a first pass of two blocks is not timed). Training is a recipe whose chains dominate.
Each with `heat_ood` alone in the same run. A machine of two CPUs is a cluster of two here: the driver has none of its own.
"""

import argparse
import statistics
import time

import numpy as np
import pyarrow as pa
import ray

import heat_ood as ho
import heat_ood.ray as hr

parser = argparse.ArgumentParser()
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--rows", type=int, default=100_000)
args = parser.parse_args()
D, BLOCK = 512, 10_000
rng = np.random.default_rng(0)


def rows(n):
    return np.maximum(rng.normal(size=(n, D)), 0).astype(np.float32)


train = ho.FeatureSet(avg=rows(10_000), label=np.arange(10_000) % 10)
short = ["n_epochs=1", "ebm.model.steps=2", "ebm.model.train_max_iter=4"]
detector = ho.recipe("heat_gmm_c10", *short).train(train)
x = rows(args.rows)
ray.init(num_cpus=2, log_to_driver=False, logging_level="ERROR", include_dashboard=False)
tables = [
    pa.table({"id": np.arange(i, i + BLOCK), "avg": pa.FixedSizeListArray.from_arrays(pa.array(x[i : i + BLOCK].reshape(-1)), D)})
    for i in range(0, len(x), BLOCK)
]
whole = ray.data.from_arrow(tables).materialize()
want = detector.score(x[:BLOCK])


def alone(threads):
    began = time.perf_counter()
    detector.score(x, threads=threads)
    return len(x) / (time.perf_counter() - began)


def by_ray(actors):
    """From the first block that comes to the last: actors have begun by then, as in a job that is long."""
    began, first = time.perf_counter(), None
    scored = hr.score(whole, detector, keep=["id"], actors=actors, batch_rows=BLOCK)
    n = 0
    for batch in scored.iter_batches(batch_size=None, batch_format="pyarrow"):
        n += len(batch)
        if first is None:
            first = time.perf_counter(), n
    end = time.perf_counter()
    return (n - first[1]) / (end - first[0]), n / (end - began)


def training(workers):
    recipe = ho.recipe("heat_gmm_c10", "n_epochs=1", "ebm.model.steps=50", "ebm.model.train_max_iter=12", "batch_size=512")
    began = time.perf_counter()
    made = hr.train(recipe, train, workers=workers) if workers else recipe.train(train)
    return time.perf_counter() - began, made._inner.to_bytes()


found: dict[str, list[float]] = {}
for _ in range(args.rounds):
    for name, value in (
        ("one process, one thread", alone(1)),
        ("one process, two threads", alone(2)),
        *((f"Ray, {n} actor{'s' * (n > 1)} of one CPU", by_ray(n)[0]) for n in (1, 2)),
    ):
        found.setdefault(name, []).append(value)
    times = {workers: training(workers) for workers in (0, 1, 2)}
    assert len({made for _, made in times.values()}) == 1, "not the same bytes"
    for workers, (seconds, _) in times.items():
        name = f"training, {workers} worker{'s' * (workers > 1)} of one CPU" if workers else "training, one process of two threads"
        found.setdefault(name, []).append(seconds)
print("| | rows a second | a CPU, of one process of one thread |")
print("|---|---|---|")
single = statistics.median(found["one process, one thread"])
for name, values in found.items():
    if not name.startswith("training"):
        cpus = 2 if "two" in name or "2" in name else 1
        rate = statistics.median(values)
        print(f"| {name} | {rate:,.0f} | {rate / cpus / single:.2f} |")
print("\n| | seconds |\n|---|---|")
for name, values in found.items():
    if name.startswith("training"):
        print(f"| {name} | {statistics.median(values):.1f} |")
one, two = (statistics.median(found[f"training, {n} of one CPU"]) for n in ("1 worker", "2 workers"))
print(f"\nfrom one worker to two: {one / two:.2f}")
