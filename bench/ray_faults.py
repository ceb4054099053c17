"""Jobs of `heat_ood.ray` on a cluster on this machine, of which something is killed half-way.

    python bench/ray_faults.py [--kills 60] [--only score,extract,fit,train,sweep]

Workers, actors, nodes (without grace) and the sweep's driver are killed in turn, each in the middle of a job
of its own; a job counts as right when every row is there once and all bits are those of one process.
Prints a Markdown table. Needs ray, pyarrow, pillow and onnxruntime (python/requirements-ray.txt).
"""

from __future__ import annotations

import argparse
import collections
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray

import heat_ood as ho
import heat_ood.ray as hr

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "python/tests"))
from ray_cluster import Nodes  # noqa: E402

DATA = ROOT / "crates/heat-cli/data/cifar10-densenet"
MODEL = ROOT / "crates/heat-images/tests/golden/onnx/plain.onnx"
SETTINGS = ["n_epochs=1", "ebm.model.steps=20", "ebm.model.train_max_iter=8", "batch_size=512"]
N, D = 120_000, 32
rng = np.random.default_rng(0)
scratch = tempfile.TemporaryDirectory()
place = Path(scratch.name)


class Score:
    """120,000 rows, whose ids are not their order, by kNN."""

    process = "MapWorker"
    kinds = ("worker", "actor", "node")

    def __init__(self) -> None:
        self.rows = rng.normal(size=(N, D)).astype(np.float32)
        self.detector = ho.Knn(k=3).fit(rng.normal(size=(30_000, D)), label=np.arange(30_000) % 4)
        self.wanted = self.detector.score(self.rows)
        self.tables = []
        for ids in np.array_split(rng.permutation(N), 20):
            avg = pa.FixedSizeListArray.from_arrays(pa.array(self.rows[ids].reshape(-1)), D)
            self.tables.append(pa.table({"id": ids, "avg": avg}))

    def run(self) -> bool:
        scored = hr.score(ray.data.from_arrow(self.tables), self.detector, keep=["id"], actors=2, batch_rows=2000)
        times, found = np.zeros(N, int), np.zeros(N, np.float32)
        for batch in scored.iter_batches(batch_size=None, batch_format="pyarrow"):
            ids = batch["id"].to_numpy()
            np.add.at(times, ids, 1)
            found[ids] = batch["score"].to_numpy()
        return bool((times == 1).all()) and np.array_equal(found, self.wanted)


class Extract:
    """1,000 images through a network."""

    process = "MapWorker"
    kinds = ("worker", "actor", "node")

    def __init__(self) -> None:
        from PIL import Image

        pixels = rng.integers(0, 255, (1000, 8, 8, 3), dtype=np.uint8)
        self.paths = [str(place / f"{i}.png") for i in range(1000)]
        for path, image in zip(self.paths, pixels, strict=True):
            Image.fromarray(image).save(path)
        (place / "list.txt").write_text("".join(f"{path}\n" for path in self.paths))
        self.wanted = ho.extract(place / "list.txt", MODEL, place / "out", resize=8, crop=8).features.numpy()

    def run(self) -> bool:
        items = [{"id": i, "path": path} for i, path in enumerate(self.paths)]
        ds = ray.data.from_items(items, override_num_blocks=20)
        made = hr.extract(ds, MODEL, actors=2, batch_rows=10, resize=8, crop=8).materialize()
        found = pa.concat_tables(made.iter_batches(batch_size=None, batch_format="pyarrow"))
        ids = found["id"].to_numpy()
        rows = np.array(found["avg"].to_pylist(), np.float32)[np.argsort(ids)]
        return sorted(ids) == [*range(1000)] and np.array_equal(rows, self.wanted)


class Fit:
    """A Gaussian mixture's statistics, of parts that are merged by their ids."""

    process = ""
    kinds = ("worker", "node")

    def __init__(self) -> None:
        self.tables = []
        x = rng.normal(size=(N, 256)).astype(np.float32)
        for ids in np.array_split(np.arange(N), 40):
            avg = pa.FixedSizeListArray.from_arrays(pa.array(x[ids].reshape(-1)), 256)
            self.tables.append(pa.table({"id": ids, "label": ids % 10, "avg": avg}))
        self.wanted: bytes | None = None

    def run(self) -> bool:
        made = hr.fit(ray.data.from_arrow(self.tables), "gmm", label="label", key="id", classes=10)
        data = made._inner.to_bytes()
        self.wanted = self.wanted or data
        return bool(data == self.wanted)


class Train:
    """A residual energy whose chains are dealt out to two tasks a step."""

    process = "_run_chains"
    kinds = ("worker", "node")

    def __init__(self) -> None:
        self.train = ho.FeatureSet.open(DATA / "train.safetensors", head=DATA / "head.safetensors")
        self.recipe = ho.recipe("quickstart_gmm", *SETTINGS)
        self.wanted = self.recipe.train(self.train)._inner.to_bytes()

    def run(self) -> bool:
        return bool(hr.train(self.recipe, self.train, workers=2)._inner.to_bytes() == self.wanted)


SWEEP = """
import sys, ray, heat_ood.ray as hr
address, data, out = sys.argv[1:]
ray.init(address=address, log_to_driver=False, logging_level="ERROR")
found = hr.sweep("quickstart_gmm", {"ebm.loss.l2_coef": [1, 10]}, f"{data}/train.safetensors",
    settings=["n_epochs=3", "ebm.model.steps=10", "ebm.model.train_max_iter=4", "batch_size=256"], seeds=[0, 1],
    id=f"{data}/test.safetensors", ood={"mnist": f"{data}/ood_mnist.safetensors"}, out=out, resume=True)
open(f"{out}/found.md", "w").write(found.to_markdown())
"""


class Sweep:
    """Two settings and two seeds by Tune; the driver is a process of its own."""

    process = ".train"
    kinds = ("worker", "node", "driver")

    def __init__(self) -> None:
        self.count, self.driver = 0, None
        self.wanted: str | None = None

    def run(self) -> bool:
        self.count += 1
        out = place / f"sweep{self.count}"
        for _ in range(2):
            words = [sys.executable, "-c", SWEEP, nodes.cluster.address, str(DATA), str(out)]
            self.driver = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            if self.driver.wait() == 0:
                break
        found = (out / "found.md").read_text()
        self.wanted = self.wanted or found
        return found == self.wanted


def breaking(job: Any, kind: str, delay: float) -> Any:
    begun = time.monotonic()
    if kind != "driver":
        return nodes.breaking(kind, job.process, lambda: at_work(job) and time.monotonic() > begun + delay)

    class Driver:
        def __enter__(self) -> list[bool]:
            import threading

            self.done: list[bool] = []

            def work() -> None:
                time.sleep(delay)
                while not at_work(job):
                    time.sleep(0.05)
                job.driver.send_signal(signal.SIGKILL)
                self.done.append(True)

            threading.Thread(target=work, daemon=True).start()
            return self.done

        def __exit__(self, *_: Any) -> None:
            pass

    return Driver()


def at_work(job: Any) -> bool:
    return bool(nodes.working(job.process))


parser = argparse.ArgumentParser()
parser.add_argument("--kills", type=int, default=60)
parser.add_argument("--only", default="score,extract,fit,train,sweep")
parser.add_argument("--minutes", type=float, default=600)
arguments = parser.parse_args()
known = {"score": Score, "extract": Extract, "fit": Fit, "train": Train, "sweep": Sweep}
wanted = arguments.only.split(",")
if not hasattr(ho, "Statistics"):
    wanted = [name for name in wanted if name != "fit"]
nodes = Nodes()
jobs = {name: known[name]() for name in wanted}
undisturbed = {}
for name, job in jobs.items():
    begun = time.monotonic()
    assert job.run(), f"{name} is wrong without a fault"
    undisturbed[name] = time.monotonic() - begun
    print(f"{name}: {undisturbed[name]:.1f} s undisturbed", file=sys.stderr, flush=True)
cases = [(name, kind) for name, job in jobs.items() for kind in job.kinds]
table: dict[tuple[str, str], collections.Counter[str]] = {case: collections.Counter() for case in cases}
seconds: dict[tuple[str, str], list[float]] = {case: [] for case in cases}
random.seed(0)
end, killed = time.monotonic() + 60 * arguments.minutes, 0
while killed < arguments.kills and time.monotonic() < end:
    for case in cases:
        if killed >= arguments.kills or time.monotonic() > end:
            break
        name, kind = case
        begun = time.monotonic()
        try:
            with breaking(jobs[name], kind, random.uniform(0.1, 0.6) * undisturbed[name]) as done:
                right = jobs[name].run()
        except Exception:
            traceback.print_exc()
            right = False
        took = time.monotonic() - begun
        if not done or not done[0]:
            print(f"{name} {kind}: was over before the kill", file=sys.stderr, flush=True)
            continue
        killed += 1
        table[case]["right" if right else "wrong"] += 1
        seconds[case].append(took)
        print(f"{killed}: {name} {kind} {'right' if right else 'WRONG'} {took:.1f} s", file=sys.stderr, flush=True)
# Ray writes to standard output, too: the table is what begins with a bar.
print("| job | killed | kills | complete, same bits | seconds, undisturbed | seconds, median with a kill |")
print("|---|---|---|---|---|---|")
for case in cases:
    counts = table[case]
    if sum(counts.values()):
        median = f"{np.median(seconds[case]):.1f}"
        print(f"| {case[0]} | {case[1]} | {sum(counts.values())} | {counts['right']} | {undisturbed[case[0]]:.1f} | {median} |")
nodes.stop()
scratch.cleanup()
