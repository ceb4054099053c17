"""How the cost of `heat_ood.ray` grows with rows and workers, beside what `heat_ood.plan` predicts.

    python bench/ray_growth.py [--rows 100000,200000,400000] [--workers 1,2,3] [--rounds 2]

Rows of 512 features are made by the workers and lie in the object store of one node; a scorer is fitted to them, and
scores them. Prints seconds (the fastest of the rounds, since other work only makes them slower; from the first block that comes
on, where a job begins with actors), those that were planned, and how far the driver's own memory rose (`RssAnon`: without what
it shares with the object store). Needs ray and pyarrow.
"""

from __future__ import annotations

import argparse
import os
import threading
import time
from typing import Any

import numpy as np
import pyarrow as pa
import ray

import heat_ood as ho
import heat_ood.ray as hr

parser = argparse.ArgumentParser()
parser.add_argument("--rows", default="100000,200000,400000")
parser.add_argument("--workers", default="1,2,3")
parser.add_argument("--scorers", default="gmm,vim")
parser.add_argument("--rounds", type=int, default=2)
args = parser.parse_args()
D, C, BLOCK = 512, 10, 10_000


def rows(batch: Any) -> Any:
    """Rows by their ids: the same whatever worker makes them."""
    ids = batch["id"].to_numpy()
    rng = np.random.default_rng(int(ids[0]))
    x = np.maximum(rng.standard_normal((len(ids), D), np.float32) + (ids % C)[:, None] / C, 0)
    avg = pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), D)
    return pa.table({"id": ids, "label": ids % C, "avg": avg})


def anonymous() -> float:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) / 1024


class Watched:
    """How far this process's memory rises meanwhile, in MiB."""

    def __enter__(self) -> Watched:
        self.before, self.most, self.over = anonymous(), 0.0, threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()
        return self

    def watch(self) -> None:
        while not self.over.wait(0.02):
            self.most = max(self.most, anonymous() - self.before)

    def __exit__(self, *_: Any) -> None:
        self.over.set()
        self.thread.join()


def fit(ds: Any, scorer: str) -> tuple[float, Any]:
    began = time.perf_counter()
    made = hr.fit(ds, scorer, label="label", key="id", classes=C, head=head)
    return time.perf_counter() - began, made


def score(ds: Any, detector: Any, actors: int) -> float:
    """For all rows, by the rate after the first block."""
    first, n = None, 0
    scored = hr.score(ds, detector, keep=["id"], actors=actors, batch_rows=BLOCK)
    for batch in scored.iter_batches(batch_size=None, batch_format="pyarrow"):
        n += len(batch)
        first = first or (time.perf_counter(), n)
    assert first is not None
    return (time.perf_counter() - first[0]) * n / (n - first[1])


rng = np.random.default_rng(0)
head = (rng.standard_normal((C, D), np.float32), np.zeros(C, np.float32))
print("| job | rows | workers | seconds | planned | driver, MiB |\n|---|---|---|---|---|---|")
for workers in map(int, args.workers.split(",")):
    ray.init("local", num_cpus=workers, object_store_memory=int(3e9), log_to_driver=False, logging_level="ERROR", include_dashboard=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    for n in map(int, args.rows.split(",")):
        ids = ray.data.range(n, override_num_blocks=n // BLOCK)
        whole = ids.map_batches(rows, batch_format="pyarrow", batch_size=None).materialize()
        for scorer in args.scorers.split(","):
            for job in ("fit", "score"):
                times, memory = [], []
                for _ in range(args.rounds):
                    with Watched() as watched:
                        if job == "fit":
                            took, detector = fit(whole, scorer)
                        else:
                            took = score(whole, detector, workers)
                    times.append(took)
                    memory.append(watched.most)
                # One machine: what workers read comes from its memory, and they are there already.
                planned = ho.plan(n, D, C, scorer, workers=workers, job=job, bandwidth=2e9, start=0)
                print(
                    f"| {job} `{scorer}` | {n:,} | {workers} | {min(times):.1f} | {planned.total_seconds:.1f} | {max(memory):.0f} |",
                    flush=True,
                )
        del whole
    ray.shutdown()
print(f"\n{os.cpu_count()} CPUs", flush=True)
