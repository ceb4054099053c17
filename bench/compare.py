"""Times this library against its peers, side by side, and prints a Markdown table.

    cargo build --release -p heat-ood --features kernels --example timings
    python bench/compare.py [--all] [--only mlp,knn] [--rounds 5] [--reps N]

A round runs, for every row, the peer (`peers.py`) and then ours (the Rust
example `timings`), each in a process of its own and never two at once, with
the same arguments. Medians are over all repetitions of all rounds. Other work
on the machine slows the two sides unequally: what it took is reported, and with
`--patience SECONDS` a measurement waits for it to end and is repeated if disturbed.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
OURS = HERE.parent / "target" / "release" / "examples" / "timings"
DISTURBED = 0.05  # share of the machine that other work may take
# What keeps the peers' libraries to AVX2 when HEAT_ISA=avx2 keeps ours.
LOWERED = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "DNNL_MAX_CPU_ISA": "AVX2",
    "FAISS_OPT_LEVEL": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "OPENBLAS_CORETYPE": "Haswell",
}
# The OpenBLAS within faiss is at its fastest with one of these: the kernels that it takes by itself can be
# four times slower than those for an older processor.
OPENBLAS = [{}, {"OPENBLAS_CORETYPE": "Haswell"}, {"OPENBLAS_CORETYPE": "SkylakeX"}]
PACKAGES = ("torch", "faiss-cpu", "scikit-learn", "numpy")


@dataclass
class Row:
    """One line of the table; `args` go to both sides, `reps` are repetitions per round."""

    name: str
    work: str
    peer: str
    target: float
    args: str
    reps: int
    batch: int = 1024
    peer_batch: int = 1024
    default: bool = True
    seconds: dict = field(default_factory=lambda: {"peer": [], "ours": []})
    peak: dict = field(default_factory=lambda: {"peer": 0.0, "ours": 0.0})
    others: float = 0.0


GAUSSIAN = "SGLD step with Gaussian prior"
ROWS = [
    Row("mlp", "MLP input gradient, 512→1024×5→1, batch 1024", "PyTorch", 0.95, "mlp d=512", 15),
    Row("sgld10", f"{GAUSSIAN}, K = 10, D = 512, batch 1024", "PyTorch", 0.5, "sgld d=512 k=10 steps=5", 3),
    Row("sgld100", f"{GAUSSIAN}, K = 100, D = 512, batch 1024", "PyTorch", 0.1, "sgld d=512 k=100 steps=3", 2),
    Row(
        "sgld1000",
        f"draw from the prior + {GAUSSIAN}, K = 1000, D = 2048, batch 256",
        "PyTorch",
        0.02,
        "sgld d=2048 k=1000 draw=1 steps=1",
        1,
        batch=256,
        peer_batch=32,
        default=False,
    ),
    Row("iteration", "training iteration of `heat_gmm_c10`", "PyTorch", 0.55, "iteration d=512 k=10 steps=40", 1),
    Row("knn", "kNN, 5 000 queries, 50 000 × 512, k = 50", "faiss `IndexFlatL2`", 1.0, "knn d=512 rows=50000", 2),
    Row(
        "knn_wide",
        "kNN, 5 000 queries, 100 000 × 2048, k = 50",
        "faiss `IndexFlatL2`",
        1.0,
        "knn d=2048 rows=100000",
        1,
        default=False,
    ),
    Row(
        "fit_wide",
        "class means and covariance, 100 000 × 2048, K = 1000 (peer in float32)",
        "PyTorch",
        1.0,
        "fit d=2048 rows=100000 k=1000",
        1,
        default=False,
    ),
    Row(
        "metrics",
        "AUROC, AUPR, FPR95 of 10 M scores",
        "scikit-learn",
        0.2,
        "metrics rows=10000000",
        1,
        default=False,
    ),
]


def worked():
    """CPU seconds the whole machine has worked since it started; 0 where it does not say."""
    if not os.path.exists("/proc/stat"):
        return 0.0
    user, nice, system, _idle, _iowait, *rest = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK")


def share(cpu_seconds, since):
    """Part of the machine that `cpu_seconds` are, over the time since `since`."""
    return max(0.0, cpu_seconds / (time.monotonic() - since) / os.cpu_count())


def run(command, threads, settings):
    """Seconds of every repetition, peak memory in GiB, share of the machine that others took."""
    env = os.environ | {"OMP_NUM_THREADS": str(threads)} | settings
    if env.get("HEAT_ISA") == "avx2":
        env |= LOWERED
    start, before = time.monotonic(), worked()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    others = share(worked() - before - usage.ru_utime - usage.ru_stime, start)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(map(str, command))} ended with status {process.returncode}")
    unit = 1 if sys.platform == "darwin" else 1024
    return json.loads(output)["seconds"], usage.ru_maxrss * unit / 2**30, others


def wait_until_idle(deadline):
    """Return when others leave the machine alone for two seconds, or at the deadline."""
    while time.monotonic() < deadline:
        start, before = time.monotonic(), worked()
        time.sleep(2)
        if share(worked() - before, start) <= DISTURBED:
            return


def run_undisturbed(command, threads, settings, patience):
    """`run`, repeated for up to `patience` seconds while others disturb it."""
    deadline = time.monotonic() + patience
    while True:
        wait_until_idle(deadline)
        result = run(command, threads, settings)
        if result[2] <= DISTURBED or time.monotonic() >= deadline:
            return result


@cache
def fastest_openblas(threads):
    """Of `OPENBLAS`, what makes faiss fastest on a small search, unless `LOWERED` says."""
    if os.environ.get("HEAT_ISA") == "avx2":
        return {}
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text() if cpuinfo.exists() else ""
    able = OPENBLAS if "avx512f" in flags else OPENBLAS[:2] if "avx2" in flags else OPENBLAS[:1]
    search = [sys.executable, HERE / "peers.py", *"knn d=512 rows=20000 batch=1024 reps=3".split(), f"threads={threads}"]
    return min(able, key=lambda settings: median(run(search, threads, settings)[0]))


def measure(row, options):
    """One round of one row: the peer, then ours."""
    reps = options.reps or row.reps
    sides = {
        "peer": ([sys.executable, HERE / "peers.py"], row.peer_batch),
        "ours": ([options.ours], row.batch),
    }
    for side, (command, batch) in sides.items():
        words = [*row.args.split(), f"batch={batch}", f"reps={reps}", f"threads={options.threads}"]
        settings = fastest_openblas(options.threads) if side == "peer" and "faiss" in row.peer else {}
        seconds, peak, others = run_undisturbed([*command, *words], options.threads, settings, options.patience)
        scale = row.batch / batch
        row.seconds[side] += [s * scale for s in seconds]
        row.peak[side] = max(row.peak[side], peak)
        row.others = max(row.others, others)
        print(f"{row.name} {side}: {median(seconds):.4g} s (others {others:.0%})", file=sys.stderr, flush=True)


def show(seconds):
    return f"{seconds * 1e3:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"


def table(rows):
    lines = ["| work | peer | peer median | ours median | ratio | target | met |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        peer, ours = median(row.seconds["peer"]), median(row.seconds["ours"])
        scaled = "" if row.peer_batch == row.batch else f" (batch {row.peer_batch}, × {row.batch / row.peer_batch:g})"
        met = "yes" if ours <= row.target * peer else "no"
        lines.append(
            f"| {row.work} | {row.peer}{scaled} | {show(peer)} | {show(ours)} "
            f"| {ours / peer:.3g} | ≤ {row.target} | {met} |"
        )
    return "\n".join(lines)


def machine():
    """CPU model, cores and library versions."""
    model = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    libraries = ", ".join(f"{p} {version(p)}" for p in PACKAGES)
    return f"{model}, {os.cpu_count()} cores; Python {platform.python_version()}, {libraries}."


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="also the long rows")
    parser.add_argument("--only", metavar="NAME,...", help=f"rows to run, of {','.join(r.name for r in ROWS)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--reps", type=int, help="repetitions per round and side, instead of each row's own")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peer-batch", type=int, default=32, help="the peer's batch in sgld1000, scaled to 256")
    parser.add_argument("--patience", type=float, default=0, help="seconds a measurement waits for an idle machine")
    parser.add_argument("--ours", type=Path, default=OURS, help="the built example `timings`")
    options = parser.parse_args()
    if not options.ours.exists():
        parser.error(f"{options.ours} is missing: cargo build --release -p heat-ood --features kernels --example timings")
    if min(options.rounds, options.threads, options.peer_batch, options.reps or 1) < 1:
        parser.error("--rounds, --reps, --threads and --peer-batch must be at least 1")

    names = options.only.split(",") if options.only else [r.name for r in ROWS if r.default or options.all]
    if unknown := set(names) - {r.name for r in ROWS}:
        parser.error(f"unknown rows: {', '.join(sorted(unknown))}")
    rows = [r for r in ROWS if r.name in names]
    for row in rows:
        if row.peer_batch != row.batch:
            row.peer_batch = options.peer_batch
    for i in range(options.rounds):
        print(f"round {i + 1} of {options.rounds}", file=sys.stderr)
        for row in rows:
            measure(row, options)

    print(table(rows))
    peaks = ", ".join(f"{r.name} {r.peak['peer']:.2f} / {r.peak['ours']:.2f}" for r in rows)
    print(f"\nMedians of {options.rounds} rounds, {options.threads} threads each side.")
    print(f"Other work took at most {max(r.others for r in rows):.0%} of the machine during any measurement.")
    print(f"Peak memory of the whole process in GiB, peer / ours: {peaks}.")
    lowered = f"Both sides kept to {os.environ['HEAT_ISA']} by HEAT_ISA. " if "HEAT_ISA" in os.environ else ""
    print(lowered + machine())


if __name__ == "__main__":
    main()
