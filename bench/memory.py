"""Peak memory of `heat fit gmm` on a generated 200,000 × 2,048 f16 set.

    python bench/memory.py [ROWS [DIM [CLASSES]]]

Writes the set to a temporary folder, fits, and samples /proc meanwhile:
anonymous memory is the program's own; file-backed memory is the mapped set,
which the system can drop at any time. Needs numpy and safetensors.
"""
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

HEAT = Path(__file__).resolve().parent.parent / "target/release/heat"
rows, dim, classes = (int(a) for a in (sys.argv[1:] + ["200000", "2048", "1000"][len(sys.argv) - 1:]))

with tempfile.TemporaryDirectory() as folder:
    rng = np.random.default_rng(0)
    avg = np.empty((rows, dim), np.float16)
    label = rng.integers(0, classes, rows)
    means = rng.random((classes, dim), np.float32)
    for start in range(0, rows, 10000):
        part = slice(start, start + 10000)
        noise = rng.standard_normal((len(label[part]), dim), np.float32)
        avg[part] = np.maximum(means[label[part]] + 0.3 * noise, 0)
    path = Path(folder) / "train.safetensors"
    save_file({"avg": avg, "label": label}, path)
    del avg
    size = path.stat().st_size
    start = time.time()
    process = subprocess.Popen([HEAT, "fit", "gmm", "--train", path, "-o", Path(folder) / "gmm.safetensors"])
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
    assert process.wait() == 0
    gib = 2.0 ** 30
    print(f"{rows} x {dim} f16, {classes} classes: file {size / gib:.2f} GiB, fit {time.time() - start:.1f} s, "
          f"own memory at most {peak['RssAnon'] / gib:.2f} GiB, mapped file at most {peak['RssFile'] / gib:.2f} GiB")
