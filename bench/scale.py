"""Time and memory of fits and training at ImageNet's size, on generated data.

    python bench/scale.py FOLDER make            # 1,281,167 x 2,048 f16, avg and std: 10 GB
    python bench/scale.py FOLDER fits            # every fit at full size
    python bench/scale.py FOLDER growth          # gmm, klm, vim for N = 10^4, 10^5, 10^6 and K = 10, 100, 1000
    python bench/scale.py FOLDER train           # the ImageNet recipes, some batches each
    python bench/scale.py FOLDER knn             # kNN on 1 % of the rows

Samples /proc meanwhile: anonymous memory is the program's own; file-backed
memory is the mapped set, which the system can drop at any time. Needs numpy
and safetensors. Rows: a class mean, 64 common directions of variation, noise,
all clipped at zero.
"""
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

HEAT = Path(__file__).resolve().parent.parent / "target/release/heat"
ROWS, DIM, CLASSES, SHARD = 1_281_167, 2048, 1000, 100_000
folder = Path(sys.argv[1])
full, head = folder / "full", folder / "head.safetensors"
GIB = 2.0**30


def make():
    rng = np.random.default_rng(0)
    full.mkdir(parents=True, exist_ok=True)
    means = np.abs(rng.standard_normal((CLASSES, DIM), np.float32)) * 0.4
    directions = rng.standard_normal((64, DIM), np.float32) * 0.1
    pool = rng.standard_normal((SHARD // 4, DIM), np.float32) * 0.2
    labels = rng.integers(0, CLASSES, ROWS)
    for i, start in enumerate(range(0, ROWS, SHARD)):
        label = labels[start : start + SHARD]
        avg = np.empty((len(label), DIM), np.float16)
        for j in range(0, len(label), len(pool)):
            part = label[j : j + len(pool)]
            noise = np.roll(pool, int(rng.integers(len(pool))), axis=0)[: len(part)]
            common = rng.standard_normal((len(part), 64), np.float32) @ directions
            avg[j : j + len(part)] = np.maximum(means[part] + common + noise, 0)
        std = np.ascontiguousarray(avg[:, ::-1])
        save_file({"avg": avg, "std": std, "label": label}, full / f"{i:05}.safetensors")
        print("shard", i, flush=True)
        if i == 0:
            (folder / "1e4").mkdir(exist_ok=True)
            save_file({"avg": avg[:10_000], "label": label[:10_000]}, folder / "1e4/0.safetensors")
    save_file({"weight": means - means.mean(0), "bias": np.zeros(CLASSES, np.float32)}, head)
    for name, shards in [("1e5", 1), ("1e6", 10)]:
        (folder / name).mkdir(exist_ok=True)
        for i in range(shards):
            link = folder / name / f"{i:05}.safetensors"
            link.unlink(missing_ok=True)
            link.symlink_to((full / f"{i:05}.safetensors").resolve())
    for n in (10_000, 100_000, 1_000_000):
        for k in (10, 100):
            np.save(folder / f"labels_{n}_{k}.npy", labels[:n] % k)
    for k in (10, 100, 1000):
        weight = (means - means.mean(0))[:k]
        save_file({"weight": weight, "bias": np.zeros(k, np.float32)}, folder / f"head_{k}.safetensors")


def measure(name, *arguments):
    start = time.time()
    log = open(folder / "log.txt", "a")
    process = subprocess.Popen([str(HEAT), *map(str, arguments)], stderr=log, stdout=log)
    peak = {"RssAnon": 0, "RssFile": 0}
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            break
        for line in status.splitlines():
            key, _, value = line.partition(":")
            if key in peak:
                peak[key] = max(peak[key], int(value.split()[0]) * 1024)
        time.sleep(0.01)
    assert process.wait() == 0, f"{name} failed: see {log.name}"
    print(f"| {name} | {time.time() - start:.1f} s | {peak['RssAnon'] / GIB:.2f} GiB |", flush=True)


def fit(name, scorer, train, *more):
    measure(name, "fit", scorer, "--train", train, "-o", folder / "out.safetensors", *more)


what = sys.argv[2]
if what == "make":
    make()
elif what == "fits":
    for scorer in sys.argv[3:] or ["gmm", "vim", "dice", "klm", "mean", "el(react=0.95)", "gmm(shrinkage=1)"]:
        fit(scorer, scorer, full, "--head", head)
elif what == "growth":
    for scorer in sys.argv[3:] or ["gmm", "klm", "vim"]:
        for n, name in [(10_000, "1e4"), (100_000, "1e5"), (1_000_000, "1e6")]:
            for k in (10, 100, 1000):
                labels = ["--labels", folder / f"labels_{n}_{k}.npy"] if k < 1000 else []
                fit(f"{scorer} N={name} K={k}", scorer, folder / name, "--head", folder / f"head_{k}.safetensors", *labels)
elif what == "train":
    for recipe in ["heat_gmm_imagenet", "heat_gmm_std_imagenet", "heat_el_imagenet"]:
        out = folder / f"run_{recipe}_{int(time.time())}"
        settings = [f"ebm={recipe}", "dataset=imagenet", "n_epochs=1", "ebm.model.train_max_iter=100"]
        measure(f"{recipe}, 100 batches", "train", *settings, "--train", full, "--head", head, "--out", out)
elif what == "knn":
    fit("knn, 1 % of the rows: fit", "knn", full, "--subset-proportion", "0.01")
    measure("knn: score 10,000 rows", "score", folder / "out.safetensors", folder / "1e4", "-o", folder / "s.npy")
else:
    sys.exit(__doc__)
