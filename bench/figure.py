"""Draws the README's picture from the quickstart's results.

    heat quickstart && python bench/figure.py heat-quickstart docs/quickstart.png

Needs numpy and matplotlib. Left: scores of the composed detector for
in-distribution and out-of-distribution rows. Right: average AUROC per scorer.
"""
import json
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

folder, out = Path(sys.argv[1]), sys.argv[2]
root = Path(__file__).resolve().parent.parent
data = root / "crates/heat-cli/data/cifar10-densenet"


def scores(name):
    text = subprocess.run([root / "target/release/heat", "--quiet", "score", folder / "heat.safetensors",
                           data / f"{name}.safetensors"], check=True, text=True, stdout=subprocess.PIPE).stdout
    return np.array([float(line.split(",")[1]) for line in text.splitlines()[1:]])


results = json.loads((folder / "results.json").read_text())["scorers"]
plt.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), gridspec_kw={"width_ratios": [3, 2]})
names = {"test": "CIFAR-10 test (in-distribution)", "ood_cifar100": "CIFAR-100",
         "ood_textures": "Textures", "ood_mnist": "MNIST"}
colours = ["#4c72b0", "#dd8452", "#c44e52", "#8172b3"]
everything = {name: scores(name) for name in names}
low, high = np.quantile(everything["test"], 0.001), np.quantile(everything["ood_textures"], 0.98)
for (name, label), colour in zip(names.items(), colours):
    values = np.clip(everything[name], low, high)
    left.hist(values, bins=np.linspace(low, high, 45), density=True, alpha=0.55, label=label, color=colour)
threshold = np.quantile(everything["test"], 0.95)
left.axvline(threshold, color="black", linewidth=1, linestyle="--")
left.text(threshold, left.get_ylim()[1], " 95 % of ID below", va="top", fontsize=9)
left.set_xlabel("energy of the composed detector (higher = more out-of-distribution)")
left.set_yticks([])
left.legend(frameon=False, fontsize=9, loc="center right")
order = sorted(results, key=lambda n: results[n]["average"]["auroc"])
values = [100 * results[n]["average"]["auroc"] for n in order]
bars = right.barh(order, values, color=["#c44e52" if n == "HEAT" else "#4c72b0" if n.startswith("HEAT") else "#b0b0b0"
                                       for n in order])
right.bar_label(bars, fmt="%.1f", padding=3, fontsize=9)
right.set_xlim(min(values) - 3, 100)
right.set_xlabel("average AUROC, percent")
figure.tight_layout()
figure.savefig(out, dpi=110)
