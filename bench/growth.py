"""How the time and memory of every scorer grow with rows N, features D and classes K.

    cargo build --release
    python bench/growth.py target/release/heat [SCORER ...]

Fits and scores whole processes at a base size and with N, D and K doubled one
at a time, and prints base two logarithms of the ratios: 1 is linear, 2 is
quadratic. Processor seconds, so that other work disturbs little; memory is the
program's own (anonymous), without the mapped set. Times below a tenth of a
second say nothing and are left out. Needs numpy and safetensors.
"""
import os
import subprocess
import sys
import tempfile
import time
from math import log2
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

HEAT = sys.argv[1]
SCORERS = sys.argv[2:] or (
    "msp max_logit el odin klm temperature gen entropy react ash_p ash_b ash_s scale vra lts dice gradnorm fdbd nci neco "
    "pnml she cadref weiper cosine mean norm gmm ssd maha mds_pp rmds rmds_pp vim residual kpca knn nnguide cfood relation"
).split()
N, D, K, TEST = 20_000, 512, 100, 2_000
SIZES = {"base": (N, D, K), "N": (2 * N, D, K), "D": (N, 2 * D, K), "K": (N, D, 2 * K)}
scratch = tempfile.TemporaryDirectory()
folder = Path(scratch.name)


def make(name, n, d, k):
    rng = np.random.default_rng(0)
    means = np.abs(rng.standard_normal((k, d), np.float32)) * 0.4
    mixing = rng.standard_normal((64, d), np.float32) * 0.1

    def rows(n):
        label = rng.integers(0, k, n)
        x = means[label] + rng.standard_normal((n, 64), np.float32) @ mixing
        x += 0.2 * rng.standard_normal((n, d), np.float32)
        return np.maximum(x, 0).astype(np.float16), label

    train, label = rows(n)
    save_file({"avg": train, "label": label}, folder / f"train_{name}.safetensors")
    save_file({"avg": rows(TEST)[0]}, folder / f"test_{name}.safetensors")
    head = {"weight": means - means.mean(0), "bias": np.zeros(k, np.float32)}
    save_file(head, folder / f"head_{name}.safetensors")


def run(*arguments):
    """Processor seconds and the program's own memory in MB."""
    process = subprocess.Popen([HEAT, "-q", *map(str, arguments)], stdout=subprocess.DEVNULL)
    peak = 0
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        try:
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        except OSError:
            continue
        peak = max([peak, *(int(x.split()[1]) for x in lines if x.startswith("RssAnon"))])
        time.sleep(0.002)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, arguments
    return usage.ru_utime + usage.ru_stime, peak / 1000


def measure(scorer, name):
    out = folder / "out.safetensors"
    train, head = folder / f"train_{name}.safetensors", folder / f"head_{name}.safetensors"
    fit = run("fit", scorer, "--train", train, "--head", head, "-o", out)
    score = run("score", out, folder / f"test_{name}.safetensors", "-o", folder / "s.npy")
    return {"fit": fit[0], "score": score[0], "fit memory": fit[1], "score memory": score[1]}


def cells(found, quantity, least, unit):
    """The value at the base size, then the three exponents."""
    base = found["base"][quantity]
    grown = [found[name][quantity] for name in "NDK"]
    shown = f"{base:{unit}}"
    if max(base, *grown) < least:
        return [shown, "", "", ""]
    return [shown, *(f"{log2(value / base):.1f}" for value in grown)]


for name, size in SIZES.items():
    make(name, *size)
print(f"N = {N}, D = {D}, K = {K}; {TEST} rows scored.\n")
print("| scorer | fit, s | N | D | K | fit, MB | N | D | K | score, s | N | D | K | score, MB | N | D | K |")
print("|" + "---|" * 17)
steep = []
for scorer in SCORERS:
    found = {name: measure(scorer, name) for name in SIZES}
    row = []
    for quantity, least, unit in [("fit", 0.2, ".2f"), ("fit memory", 60, ".0f"), ("score", 0.2, ".2f"), ("score memory", 60, ".0f")]:
        row += cells(found, quantity, least, unit)
        if row[-3] and float(row[-3]) > 1.2:
            steep.append(f"{scorer} ({quantity})")
    print(f"| {scorer} | " + " | ".join(row) + " |", flush=True)
print("\nWorse than linear in N:", ", ".join(steep) or "none")
