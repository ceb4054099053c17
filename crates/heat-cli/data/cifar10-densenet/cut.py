"""Cuts the quickstart's features from the full DenseNet feature set.

    python cut.py FULL_SET_FOLDER

Rows are drawn with a fixed seed: 300 of each class from train, 1,000 from
test, 500 from each of three out-of-distribution sets.
"""
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

full, here = Path(sys.argv[1]), Path(__file__).parent
rng = np.random.default_rng(0)


def write(name, data, rows):
    rows = np.sort(rows)
    save_file({key: np.ascontiguousarray(value[rows]) for key, value in data.items()},
              here / f"{name}.safetensors")


train = load_file(full / "train.safetensors")
write("train", train, np.concatenate(
    [rng.choice(np.flatnonzero(train["label"] == c), 300, replace=False) for c in range(10)]))
for name, count in [("test", 1000), ("ood_cifar100", 500), ("ood_textures", 500), ("ood_mnist", 500)]:
    data = load_file(full / f"{name}.safetensors")
    write(name, data, rng.choice(len(data["avg"]), count, replace=False))
save_file(load_file(full / "head.safetensors"), here / "head.safetensors")
