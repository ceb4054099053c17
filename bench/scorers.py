"""Scorers beside pytorch-ood, fitting and scoring the same features in one run.

    cargo build --release -p heat-ood --example scorers
    python bench/scorers.py target/release/examples/scorers --rounds 3
    python bench/scorers.py python --rounds 3        # through heat_ood.pytorch_ood: tensors in, tensors out, on both sides
    python bench/scorers.py python --memory

50,000 x 512 training rows in ten classes, 100,000 rows to score, float32, in memory on both sides. pytorch-ood is given
tensors: features, or, for detectors of logits, the time of the head's product as well; detectors of feature maps get maps of
one pixel in batches of 8,192; KNN and NNGuide 5,000 rows at a time, as all at once take more than 20 GB, fDBD 200 at a time
with --wide (82 GB). With --wide name the methods by --only: Mahalanobis and RMD take some quarter of an hour each there. GradNorm differentiates
row by row: 2,000 rows are timed and the time is scaled. Medians of the rounds.
Needs torch, pytorch-ood 0.4.0, safetensors, scikit-learn.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from pytorch_ood import detector as ood
from safetensors.numpy import save_file
from sklearn.metrics import roc_auc_score

parser = argparse.ArgumentParser()
parser.add_argument("binary")
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--rows", type=int, default=50_000)
parser.add_argument("--wide", action="store_true", help="100,000 x 2048 training rows in 1000 classes, 2 x 5,000 to score")
parser.add_argument("--only", default="")
parser.add_argument("--memory", action="store_true", help="peaks of memory instead of times, through Python, a process each")
parser.add_argument("--one", choices=["here", "peer"], help=argparse.SUPPRESS)
args = parser.parse_args()
torch.set_num_threads(args.threads)
C, D, N, TEST = (1000, 2048, 100_000, 5_000) if args.wide else (10, 512, args.rows, args.rows)

rng = np.random.default_rng(0)
# Rectified, with correlated coordinates, as penultimate features are.
mixing = rng.normal(size=(64, D)).astype(np.float32)
means = rng.normal(size=(C, D)).astype(np.float32)


def rows(n, shift):
    label = rng.integers(0, C, n)
    x = means[label] * shift + rng.normal(size=(n, 64)).astype(np.float32) @ mixing / 8
    x += 0.3 * rng.normal(size=(n, D)).astype(np.float32)
    return np.maximum(x, 0).astype(np.float32), label.astype(np.int64)


train, label = rows(N, 1.0)
id_, _ = rows(TEST, 1.0)
odd, _ = rows(TEST, 0.6)
weight = np.stack([train[label == c].mean(0) for c in range(C)]) / 8
weight = (weight - weight.mean(0)).astype(np.float32)
bias = np.zeros(C, np.float32)

scratch = tempfile.TemporaryDirectory()
folder = Path(scratch.name)
save_file({"avg": train, "label": label}, folder / "train.safetensors")
save_file({"weight": weight, "bias": bias}, folder / "head.safetensors")
save_file({"avg": id_}, folder / "id.safetensors")
save_file({"avg": odd}, folder / "odd.safetensors")

z, y = torch.tensor(train), torch.tensor(label)
test = torch.tensor(np.concatenate([id_, odd]))
head = torch.nn.Linear(D, C)
with torch.no_grad():
    head.weight.copy_(torch.tensor(weight))
    head.bias.copy_(torch.tensor(bias))
w, b = head.weight.detach(), head.bias.detach()
flat = torch.nn.Sequential(torch.nn.Flatten(), head)
same = torch.nn.Identity()
maps = torch.utils.data.TensorDataset(z[:, :, None, None], y)


def features(make, rows=None):
    def run():
        d = make()
        t0 = time.perf_counter()
        d.fit_features(z, y)
        t1 = time.perf_counter()
        s = torch.cat([d.predict_features(x) for x in test.split(rows or len(test))])
        return t1 - t0, time.perf_counter() - t1, s

    return run


def plain(make):
    def run():
        d = make()
        t1 = time.perf_counter()
        s = d.predict_features(test)
        return 0.0, time.perf_counter() - t1, s

    return run


def logits(make, fit=False):
    def run():
        d = make()
        t0 = time.perf_counter()
        if fit:
            d.fit_logits(head(z).detach(), y)
        t1 = time.perf_counter()
        s = d.predict_logits(head(test))
        return t1 - t0, time.perf_counter() - t1, s

    return run


def featuremaps(make, fit=False):
    def run():
        d = make()
        t0 = time.perf_counter()
        if fit:
            d.fit(torch.utils.data.DataLoader(maps, batch_size=8192))
        t1 = time.perf_counter()
        s = torch.cat([d.predict(x[:, :, None, None]) for x in test.split(8192)])
        return t1 - t0, time.perf_counter() - t1, s

    return run


def gradnorm():
    d = ood.GradNorm(head)
    some = test[torch.arange(0, len(test), max(1, len(test) // 2000))]
    t = time.perf_counter()
    s = d.predict(some)
    return 0.0, (time.perf_counter() - t) * len(test) / len(some), None


PEERS = {
    "msp": logits(lambda: ood.MaxSoftmax(None)),
    "max_logit": logits(lambda: ood.MaxLogit(None)),
    "el": logits(lambda: ood.EnergyBased(None)),
    "entropy": logits(lambda: ood.Entropy(None)),
    "gen": logits(lambda: ood.GEN(None)),
    "temperature": logits(lambda: ood.TemperatureScaling(None), fit=True),
    "klm": logits(lambda: ood.KLMatching(None), fit=True),
    "react": featuremaps(lambda: ood.ReAct(same, flat), fit=True),
    "ash_p": featuremaps(lambda: ood.ASH(same, flat, "ash-p")),
    "ash_b": featuremaps(lambda: ood.ASH(same, flat, "ash-b")),
    "ash_s": featuremaps(lambda: ood.ASH(same, flat, "ash-s")),
    "scale": featuremaps(lambda: ood.SCALE(same, flat)),
    "vra": featuremaps(lambda: ood.VRA(same, flat), fit=True),
    "lts": plain(lambda: ood.LTS(None, head)),
    "dice": features(lambda: ood.DICE(None, w, b, 0.9)),
    "she": features(lambda: ood.SHE(None, head)),
    "fdbd": features(lambda: ood.fDBD(None, head), rows=200 if args.wide else None),
    "nci": features(lambda: ood.NCI(None, head)),
    "pnml": features(lambda: ood.PNML(None, head)),
    "vim": features(lambda: ood.ViM(None, 256, w, b)),
    "maha": features(lambda: ood.Mahalanobis(None)),
    "rmds": features(lambda: ood.RMD(None)),
    "knn": features(lambda: ood.KNN(None, k=50), rows=5000),
    "nnguide": features(lambda: ood.NNGuide(None, head, k=10), rows=5000),
    "gradnorm": gradnorm,
}
# The peer's threads start, and its libraries choose their kernels, before anything is timed.
with torch.no_grad():
    head(test)
# Both with one number of neighbours: left out, ours would grow with the set (200 of 100,000 rows).
OURS = {"knn": "knn(k=50)", "dice": "dice(percentile=90)", "nnguide": "nnguide(k=10)", "vim": "vim(principal_dim=256)"}
chosen = [n for n in PEERS if not args.only or n in args.only.split(",")]
times = {n: {"ours": [], "peer": []} for n in chosen}
auroc = {n: {} for n in chosen}
together = []


def through_binary():
    paths = [str(folder / f"{n}.safetensors") for n in ("train", "head", "id", "odd")]
    command = [args.binary, *paths, *(OURS.get(n, n) for n in chosen)]
    out = subprocess.run(
        command, check=True, capture_output=True, text=True, env=os.environ | {"HEAT_NUM_THREADS": str(args.threads)}
    ).stdout
    return [json.loads(line) for line in out.splitlines()]


def through_python():
    """The package under the peer's own interface."""
    import heat_ood
    from heat_ood.pytorch_ood import Scorer

    heat_ood.set_num_threads(args.threads)
    found = []
    for name in chosen:
        method, settings = heat_ood._heat_ood.parse_spec(OURS.get(name, name))
        detector = Scorer(method, None, w, b, **json.loads(settings))
        t0 = time.perf_counter()
        detector.fit_features(z, y)
        t1 = time.perf_counter()
        s = detector.predict_features(test)
        t2 = time.perf_counter()
        truth = np.r_[np.zeros(TEST), np.ones(TEST)]
        found.append({"fit": t1 - t0, "score": t2 - t1, "auroc": roc_auc_score(truth, s.double().numpy())})
    return [*found, {"fit": sum(f["fit"] for f in found), "score": sum(f["score"] for f in found)}]


def status(key):
    text = Path("/proc/self/status").read_text()
    return int(text.split(key + ":")[1].split()[0]) / 1024


if args.one:
    # What is taken beside the tensors, which both are given, and the libraries.
    import heat_ood.pytorch_ood  # noqa: F401

    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    if args.one == "here":
        through_python()
    else:
        with torch.no_grad() if chosen[0] not in ("gradnorm", "temperature") else torch.enable_grad():
            PEERS[chosen[0]]()
    print(json.dumps(status("VmHWM") - before))
    sys.exit()
if args.memory:
    print("| scorer | here, MiB | peer, MiB |\n|---|---|---|")
    for name in chosen:
        cells = []
        for side in ("here", "peer"):
            command = [sys.executable, __file__, "python", "--only", name, "--one", side, "--threads", str(args.threads)]
            done = subprocess.run([*command, "--rows", str(args.rows), *["--wide"] * args.wide], capture_output=True, text=True)
            cells.append(f"{json.loads(done.stdout):.0f}" if done.returncode == 0 else "–")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    sys.exit()


for round_ in range(args.rounds):
    *each, whole = through_python() if args.binary == "python" else through_binary()
    together.append(whole["fit"] + whole["score"])
    for name, found in zip(chosen, each):
        times[name]["ours"].append((found["fit"], found["score"]))
        auroc[name]["ours"] = found["auroc"]
    for name in chosen:
        with torch.no_grad() if name != "gradnorm" and name != "temperature" else torch.enable_grad():
            try:
                fit, score, s = PEERS[name]()
            except RuntimeError as e:
                # In place of a number: it needs more memory than there is.
                print(f"{name} there: {str(e).splitlines()[-1]}", file=sys.stderr)
                fit, score, s = float("nan"), float("nan"), None
        times[name]["peer"].append((fit, score))
        if s is not None:
            truth = np.r_[np.zeros(TEST), np.ones(TEST)]
            auroc[name]["peer"] = roc_auc_score(truth, s.detach().double().numpy())


def median(pairs, part):
    return statistics.median(sum(p) if part is None else p[part] for p in pairs)


print("| scorer | fit, here | score, here | fit, peer | score, peer | here ÷ peer | AUROC here, peer |")
print("|---|---|---|---|---|---|---|")
total = {"ours": 0.0, "peer": 0.0}
for name in chosen:
    ours, peer = times[name]["ours"], times[name]["peer"]
    a, p = median(ours, None), median(peer, None)
    if name != "gradnorm":
        if p == p:
            total["ours"] += a
            total["peer"] += p
    both = f"{auroc[name]['ours']:.4f}, {auroc[name].get('peer', float('nan')):.4f}"
    cells = [median(ours, 0), median(ours, 1), median(peer, 0), median(peer, 1), a / p]
    print(f"| {name} | " + " | ".join(f"{c:.3f}" for c in cells) + f" | {both} |")
print(f"\nsum without gradnorm: here {total['ours']:.2f} s, peer {total['peer']:.2f} s, "
      f"ratio {total['peer'] / total['ours']:.2f}; here all in one pass {statistics.median(together):.2f} s")
