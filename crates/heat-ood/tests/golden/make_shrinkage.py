"""Shrinkage of the covariance of `train.avg` (normalised rows less their class means) that
`tests/all/golden_scorers.rs` expects: the diagonal forms of Ledoit and Wolf and of OAS, and the ratio
chosen by held-out classes. NumPy 2.4.6 and scikit-learn 1.9.1, float64.

    python make_shrinkage.py
"""

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from sklearn.metrics import roc_auc_score

CLASSES = 4
golden = load_file(Path(__file__).parent / "reference.safetensors")
rows = golden["train.avg"].astype(np.float64)
rows /= np.linalg.norm(rows, axis=1, keepdims=True)
labels = golden["train.label"]


def centred(rows, labels):
    means = {k: rows[labels == k].mean(0) for k in np.unique(labels)}
    return means, rows - np.stack([means[k] for k in labels])


def ledoit_wolf_diagonal(z):
    """Estimated squared error of the variances over their squared distance from equal ones."""
    s = (z**2).mean(0)
    error = ((z**2 - s) ** 2).sum() / len(z) ** 2
    return min(1.0, error / ((s - s.mean()) ** 2).sum())


def oas_diagonal(z):
    """Weight ← the best one for the variances that the weight itself gives, to the fixed point."""
    (n, p), s = z.shape, (z**2).mean(0)
    c, m, weight = 2 * (1 - 1 / p) / n, s.mean(), 0.5
    for _ in range(100_000):
        t = (((1 - weight) * s + weight * m) * s).sum()
        weight = min(1.0, c * t / ((1 + c) * t - p * m * m))
    return weight


def best_weight(rng, n, variances, draws=2_000):
    """The constant weight of least squared error on simulated variances, beside the mean estimates."""
    grid = np.linspace(0, 1, 1001)[:, None]
    error, found = np.zeros(len(grid)), []
    for _ in range(draws):
        z = rng.normal(size=(n, len(variances))) * np.sqrt(variances)
        s = (z**2).mean(0)
        error += (((1 - grid) * s + grid * s.mean() - variances) ** 2).sum(1)
    for _ in range(200):
        z = rng.normal(size=(n, len(variances))) * np.sqrt(variances)
        found.append((ledoit_wolf_diagonal(z), oas_diagonal(z)))
    return grid[error.argmin(), 0], np.mean(found, 0)


def held_out(rows, labels):
    """Each class in turn is OOD for the fit of the others, without every fifth row of each."""
    ratios = [0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0]
    order = np.zeros(len(labels), int)
    for k in range(CLASSES):
        order[labels == k] = np.arange((labels == k).sum())
    tested = order % 5 == 0
    mean_auroc = np.zeros(len(ratios))
    for out in range(CLASSES):
        kept = ~tested & (labels != out)
        means, z = centred(rows[kept], labels[kept])
        covariance = z.T @ z / len(z)
        for i, ratio in enumerate(ratios):
            shrunk = covariance + ratio * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
            inverse = np.linalg.inv(shrunk)
            terms = []
            for k, mean in means.items():
                off = rows[tested] - mean
                weight = np.log((labels[kept] == k).sum())
                terms.append(weight - 0.5 * np.einsum("ni,ij,nj->n", off, inverse, off))
            energy = -np.logaddexp.reduce(terms, 0)
            mean_auroc[i] += roc_auc_score(labels[tested] == out, energy) / CLASSES
    return dict(zip(ratios, mean_auroc.round(6))), ratios[mean_auroc.argmax()]


_, z = centred(rows, labels)
print("ledoit_wolf, diagonal", ledoit_wolf_diagonal(z))
print("oas, diagonal", oas_diagonal(z))
rng = np.random.default_rng(0)
best, found = best_weight(rng, 24, np.exp(rng.normal(size=60)))
print("best constant weight", best, "mean of ledoit_wolf, oas", found)
for n in (40, 60, len(rows)):
    print("held_out_classes, first", n, "rows", *held_out(rows[:n], labels[:n]))
