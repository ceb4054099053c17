"""Writes `digits.ipynb` beside this script, executed: heat-ood, scikit-learn, matplotlib, nbclient, nbformat, ipykernel.

    python docs/python/make_notebook.py
"""

from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

CELLS = [
    """# Which of these digits should the classifier not be trusted on?

A small network learns seven of scikit-learn's ten digits. The other three are what it will meet one day and has never seen. The
features are its hidden layer; no image is looked at again.""",
    """>import numpy as np
import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier
import heat_ood as ho

x, y = load_digits(return_X_y=True)
rows = np.random.default_rng(0).permutation(np.flatnonzero(y < 7))
train_rows, val_rows, test_rows = rows[:700], rows[700:1000], rows[1000:]
net = MLPClassifier((64,), max_iter=300, random_state=0).fit(x[train_rows], y[train_rows])
hidden = lambda i: np.maximum(x[i] @ net.coefs_[0] + net.intercepts_[0], 0)

train = ho.FeatureSet(hidden(train_rows), label=y[train_rows], head=(net.coefs_[1].T, net.intercepts_[1]))
val = ho.FeatureSet(hidden(val_rows), label=y[val_rows])
test = ho.FeatureSet(hidden(test_rows), label=y[test_rows])
unseen = ho.FeatureSet(hidden(np.flatnonzero(y >= 7)))
train""",
    "## Compare scorers\n\nEach is fitted on the training rows; the test rows are compared with the unseen digits.",
    """>scorers = [ho.Msp(), ho.El(), ho.Knn(k=5), ho.Gmm(shrinkage=1.0), ho.Vim(), ho.Cadref()]
results = ho.evaluate(scorers, id=test, ood={"unseen": unseen}, train=train)
print(results)""",
    """## Compose, and see what the score sees

A composition adds standardised scores. Higher is more out-of-distribution.""",
    """>together = ho.compose([s.fit(train) for s in (ho.Cadref(), ho.Gmm(shrinkage=1.0), ho.Nnguide())], train=train)
known_scores, unseen_scores = together.score(test), together.score(unseen)

figure, axis = plt.subplots(figsize=(6, 2.6))
bins = np.linspace(np.quantile(known_scores, 0.001), np.quantile(unseen_scores, 0.99), 50)
axis.hist(known_scores, bins, alpha=0.6, density=True, label="digits 0 to 6")
axis.hist(unseen_scores, bins, alpha=0.6, density=True, label="digits 7, 8, 9")
axis.set(xlabel="score", ylabel="density")
axis.legend()
print(f"AUROC {100 * ho.metrics.auroc(known_scores, unseen_scores):.2f} %")""",
    """## From scores to verdicts

Calibrated on rows that took no part in training, a score becomes a p-value with a promise: at most five in a hundred rows like these
are flagged.""",
    """>detector = together.calibrate(val, alpha=0.05)
seen, new = detector.predict(test), detector.predict(unseen)
print(f"flagged: {seen.is_ood.mean():.1%} of known digits, {new.is_ood.mean():.1%} of the others")""",
    "The digits that the detector would send to a person first, and known ones that it would send needlessly:",
    """>others, alarms = np.flatnonzero(y >= 7), test_rows[seen.is_ood]
worst = others[np.argsort(new.score)[::-1][:8]]
figure, axes = plt.subplots(2, 8, figsize=(6, 1.8))
for axis, i in zip(axes.flat, [*worst, *alarms[:8]]):
    axis.imshow(x[i].reshape(8, 8), cmap="gray_r")
for axis in axes.flat:
    axis.axis("off")""",
    """## Keep it

One file, which needs no Python where it is used: `heat score digits.safetensors features.npy`.""",
    """>import os, tempfile
path = os.path.join(tempfile.mkdtemp(), "digits.safetensors")
detector.save(path)
again = ho.load(path)
assert np.array_equal(again.score(unseen), unseen_scores)
print(f"{os.path.getsize(path) / 1e6:.1f} MB", again)""",
]


def main() -> None:
    cells = [new_code_cell(c[1:]) if c.startswith(">") else new_markdown_cell(c) for c in CELLS]
    for i, cell in enumerate(cells):
        cell["id"] = f"cell-{i}"
    notebook = new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}})
    NotebookClient(notebook, kernel_name="python3").execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    notebook.metadata.pop("language_info", None)
    nbformat.write(notebook, Path(__file__).with_name("digits.ipynb"))


if __name__ == "__main__":
    main()
