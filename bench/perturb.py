"""ODIN and the input preprocessing of Mahalanobis distances (ssd), end to end, against PyTorch.

    python bench/perturb.py target/release/heat CIFAR10_BINARY.tar.gz resnet20-cifar10.th [--rows 1000]

Weights: the published CIFAR-10 ResNet-20 (option A); images: a training batch and the test batch of CIFAR-10,
and as OOD the same test images turned upside down and inverted. Prints the largest and mean differences of the
scores, AUROC on both sides, and the times.
"""
import argparse
import subprocess
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.nn import functional as F

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


class Block(nn.Module):
    def __init__(self, a, b, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(a, b, 3, stride, 1, bias=False), nn.BatchNorm2d(b)
        self.conv2, self.bn2 = nn.Conv2d(b, b, 3, 1, 1, bias=False), nn.BatchNorm2d(b)
        self.stride, self.side = stride, (b - a) // 2

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.side:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.side, self.side))
        return F.relu(y + x)


class ResNet20(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        for i, (a, b) in enumerate([(16, 16), (16, 32), (32, 64)]):
            blocks = [Block(a if j == 0 else b, b, 2 if j == 0 and i else 1) for j in range(3)]
            setattr(self, f"layer{i + 1}", nn.Sequential(*blocks))
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        z = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x)))))).mean((2, 3))
        return z, self.linear(z)


def batches(x, f, size=250):
    return torch.cat([f(x[i : i + size]) for i in range(0, len(x), size)])


def records(archive, name):
    with tarfile.open(archive) as tar:
        member = next(m for m in tar.getmembers() if m.name.endswith(name))
        raw = np.frombuffer(tar.extractfile(member).read(), dtype=np.uint8).reshape(-1, 3073)
    return raw[:, 0].astype(np.int64), raw[:, 1:].reshape(-1, 3, 32, 32)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("heat")
    parser.add_argument("archive")
    parser.add_argument("weights")
    parser.add_argument("--rows", type=int, default=1000)
    args = parser.parse_args()
    torch.set_num_threads(2)
    state = torch.load(args.weights, map_location="cpu", weights_only=False)["state_dict"]
    model = ResNet20()
    model.load_state_dict({k.removeprefix("module."): v for k, v in state.items()})
    model.eval()
    (train_y, train), (_, test) = records(args.archive, "data_batch_1.bin"), records(args.archive, "test_batch.bin")
    sets = {"test": test[: args.rows], "odd": 255 - test[: args.rows, :, ::-1]}
    normal = lambda raw: (torch.from_numpy(np.ascontiguousarray(raw)).float() / 255 - MEAN) / STD

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
            heat("fit", name, "--train", folder / "train", "--head", folder / "head.safetensors", "-o", folder / name)
            ours, theirs, seconds = {}, {}, [0.0, 0.0]
            for part, raw in sets.items():
                out = folder / f"{name}-{part}"
                start = time.perf_counter()
                heat("extract", folder / part, *common, "--perturb", folder / name, "--epsilon", epsilon, "-o", out)
                seconds[0] += time.perf_counter() - start
                rows = heat("score", folder / name, out).splitlines()[1:]
                ours[part] = np.array([float(r.split(",")[1]) for r in rows])
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
