"""ODIN and the input preprocessing of Mahalanobis distances (ssd), end to end, against PyTorch.

    python bench/perturb.py target/release/heat CIFAR10_BINARY.tar.gz resnet20-cifar10.th [--rows 1000]

Weights: the published CIFAR-10 ResNet-20 (option A); images: a training batch and the test batch of CIFAR-10,
and as OOD the same test images turned upside down and inverted. Prints the largest and mean differences of the
scores, AUROC on both sides, and the times.
"""
import argparse
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from resnet20 import batches, load, normal, records
from sklearn.metrics import roc_auc_score
from torch.nn import functional as F

def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("heat")
    parser.add_argument("archive")
    parser.add_argument("weights")
    parser.add_argument("--rows", type=int, default=1000)
    args = parser.parse_args()
    torch.set_num_threads(2)
    model = load(args.weights)
    (train_y, train), (_, test) = records(args.archive, "data_batch_1.bin"), records(args.archive, "test_batch.bin")
    sets = {"test": test[: args.rows], "odd": 255 - test[: args.rows, :, ::-1]}

    with torch.no_grad():
        z = F.normalize(batches(normal(train), lambda x: model(x)[0]).double())
    means = torch.stack([z[train_y == k].mean(0) for k in range(10)])
    centred = z - means[train_y]
    precision = torch.linalg.inv(centred.T @ centred / len(z) + 1e-12 * torch.eye(64, dtype=torch.float64))

    def odin(x):
        return -F.softmax(model(x)[1] / 1000, dim=1).max(1).values

    def ssd(x):
        d = F.normalize(model(x)[0].double())[:, None] - means
        return torch.einsum("nkd,de,nke->nk", d, precision, d).min(1).values

    def perturbed(energy, epsilon):
        def run(x):
            x = x.clone().requires_grad_()
            (g,) = torch.autograd.grad(energy(x).sum(), x)
            with torch.no_grad():
                return energy(x - epsilon * g.sign())

        return run

    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for name, raw in sets.items():
            (folder / name).mkdir()
            for i, picture in enumerate(raw):
                Image.fromarray(picture.transpose(1, 2, 0)).save(folder / name / f"{i:05}.png")

        def heat(*words):
            return subprocess.run([args.heat, *map(str, words)], check=True, capture_output=True, text=True).stdout

        common = ["--backbone", args.weights, "--preset", "cifar10_imagenet", "--dtype", "f32", "--batch-size", 250, "--threads", 2]
        heat("extract", args.archive, "--split", "train", *common, "-o", folder / "train")
        for name, energy, epsilon in [("odin", odin, 0.0014), ("ssd", ssd, 0.0014)]:
            heat("fit", name, "--train", folder / "train", "-o", folder / name)
            ours, theirs, seconds = {}, {}, [0.0, 0.0]
            for part, raw in sets.items():
                out = folder / f"{name}-{part}"
                start = time.perf_counter()
                heat("extract", folder / part, *common, "--perturb", folder / name, "--epsilon", epsilon, "-o", out)
                seconds[0] += time.perf_counter() - start
                header, *rows = heat("score", folder / name, out).splitlines()
                at = header.split(",").index("score")
                ours[part] = np.array([float(r.split(",")[at]) for r in rows])
                x = normal(raw)
                start = time.perf_counter()
                theirs[part] = batches(x, perturbed(energy, epsilon)).double().numpy()
                seconds[1] += time.perf_counter() - start
            spread = np.concatenate(list(theirs.values())).std()
            for part in sets:
                d = np.abs(ours[part] - theirs[part])
                print(f"{name} {part}: largest difference {d.max():.2e}, mean {d.mean():.2e}, of scores with deviation {spread:.2e}; largest relative {(d / np.abs(theirs[part])).max():.2e}")
            auroc = lambda s: roc_auc_score(np.repeat([0, 1], args.rows), np.concatenate([s["test"], s["odd"]]))
            print(f"{name}: AUROC {auroc(ours):.6f} here, {auroc(theirs):.6f} in PyTorch; {seconds[0]:.1f} s (whole command) and {seconds[1]:.1f} s")


main()
