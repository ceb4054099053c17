"""Expected scores of Gram matrices, RankFeat, gradient uncertainty and neuron coverage.

Run as `python make_map_scorers.py`; written with pytorch-ood 0.4.0 and PyTorch 2.15, CPU. Maps of two layers, a
head, and the scores of pytorch-ood's detectors of them, in float64: `Gram`, `RankFeat`, and `GradUncertainty`
of the head's parameters. `Gram` draws the rows that it holds out; here every tenth of a class is. Labels are what the
head predicts, as by the authors. `gram_authors` is their score: deviations by the confidence, in NumPy; so is `nac`.
"""

from pathlib import Path

import numpy as np
import pytorch_ood.detector as ood
import torch
from safetensors.numpy import save_file

HERE = Path(__file__).parent
C = 3
rng = np.random.default_rng(7)
torch.set_default_dtype(torch.float64)


def maps(n, shift):
    """Of two layers, some values below 0; rounded to single precision."""
    kind = rng.integers(0, C, n)
    last = rng.normal(size=(n, 12, 3, 3)) + shift * np.eye(C, 12)[kind][:, :, None, None] * 3
    mid = np.maximum(rng.normal(size=(n, 6, 4, 4)) * (1 + 0.2 * kind[:, None, None, None]), -0.5)
    return {"last": last.astype(np.float32), "mid": mid.astype(np.float32)}


sets = {"train": maps(330, 1.0), "test": maps(24, 1.0), "ood": maps(16, 0.2)}
weight = rng.normal(size=(C, 12)).astype(np.float32) + 2 * np.eye(C, 12, dtype=np.float32)
bias = rng.normal(size=C).astype(np.float32)
out = {"head.weight": weight, "head.bias": bias}
for name, layers in sets.items():
    out |= {f"{name}.{layer}": x for layer, x in layers.items()}

head = torch.nn.Linear(12, C)
with torch.no_grad():
    head.weight.copy_(torch.from_numpy(weight))
    head.bias.copy_(torch.from_numpy(bias))
classify = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), head)
tensors = {n: {layer: torch.from_numpy(x).double() for layer, x in layers.items()} for n, layers in sets.items()}


def evenly(n):
    """For `torch.randperm`: the first int(n/10) are held out."""
    held = [i for i in range(n) if int((i + 1) * 0.1) > int(i * 0.1)]
    return torch.tensor([*held, *(i for i in range(n) if i not in held)])


torch.randperm = evenly


def gram(powers, layers):
    detector = ood.Gram(classify, [torch.nn.Identity()] * len(layers), C, list(powers))
    train = tensors["train"]
    given = [train[layer] for layer in layers]
    detector._create_feature_list = lambda x: (None, given)
    labels = classify(train["last"]).argmax(1)
    detector.to("cpu").fit([(train["last"], labels)])
    for probe in ("test", "ood"):
        rows = tensors[probe]
        yield probe, detector.predict_structured(classify(rows["last"]), [rows[layer] for layer in layers])


def give(name, scores):
    for probe, score in scores:
        out[f"{name}.{probe}"] = score.detach().numpy().astype(np.float64)


give("gram", gram(range(1, 11), ["last", "mid"]))
give("gram_3", gram(range(1, 4), ["last", "mid"]))
give("gram_last", gram(range(1, 11), ["last"]))
rankfeat = ood.RankFeat(lambda x: x, classify)
give("rankfeat", ((probe, rankfeat.predict_feature_maps(tensors[probe]["last"])) for probe in ("test", "ood")))


def gradient(z):
    """Of the loss's sum over labels of ones; `GradUncertainty` where no probability is below 1e-12, which PyTorch's
    binary cross-entropy counts as that."""
    loss = -torch.log_softmax(head(z), 1).sum()
    found = -sum((g**2).sum() for g in torch.autograd.grad(loss, [head.weight, head.bias]))
    if float(torch.softmax(head(z), 1).min()) > 1e-11:
        assert abs(float(ood.GradUncertainty(head).predict(z)[0]) / float(found) - 1) < 1e-9
    return found


for probe in ("test", "ood"):
    pooled = tensors[probe]["last"].mean((2, 3))
    out[f"graduncertainty.{probe}"] = np.array([float(gradient(z[None])) for z in pooled])


def rows_of(x, p):
    f = x.reshape(len(x), x.shape[1], -1) ** p
    sums = np.einsum("nix,njx->ni", f, f)
    return np.sign(sums) * np.abs(sums) ** (1 / p)


def authors(layers):
    """Their deviations ÷ confidence, ÷ the mean of the held-out rows + 1e-7."""
    x = {n: {layer: v.astype(np.float64) for layer, v in of.items()} for n, of in sets.items()}
    probabilities = {n: torch.softmax(classify(of["last"]), 1).detach().numpy() for n, of in tensors.items()}
    pred = {n: p.argmax(1) for n, p in probabilities.items()}
    kept = np.ones(len(pred["train"]), bool)
    for c in range(C):
        at = np.flatnonzero(pred["train"] == c)
        kept[at[evenly(len(at))[: int(0.1 * len(at))].numpy()]] = False
    total = {probe: 0 for probe in ("test", "ood")}
    for layer in layers:
        dev = {n: np.zeros(len(p)) for n, p in pred.items()}
        for p in range(1, 11):
            g = {n: rows_of(of[layer], p) for n, of in x.items()}
            for c in range(C):
                rows = g["train"][kept & (pred["train"] == c)]
                low, high = rows.min(0), rows.max(0)
                for n in dev:
                    v = g[n][pred[n] == c]
                    beyond = np.maximum(low - v, 0) / np.abs(low + 1e-6) + np.maximum(v - high, 0) / np.abs(high + 1e-6)
                    dev[n][pred[n] == c] += beyond.sum(1)
        dev = {n: d / probabilities[n].max(1) for n, d in dev.items()}
        for probe in total:
            total[probe] = total[probe] + dev[probe] / (dev["train"][~kept].mean() + 1e-7)
    return total


def nac(m, o, alpha, stored=False):
    """By the formulas of BierOne/ood_coverage, for `avgpool`; O goes with 1,000 rows. `stored`: of z times its gradient
    as feature sets keep it of further layers, a root with its sign in single precision."""
    x = np.linspace(1, np.sqrt(1e3), m // 2)
    low = np.log(x) / np.log(1e3)
    ends = np.concatenate([low[:-1], (1 - low)[::-1]])
    ends[-1] += 1e-2
    ends = np.append(ends, 1.2)
    states = {}
    for name, of in sets.items():
        z = of["last"].astype(np.float64).mean((2, 3)).astype(np.float32).astype(np.float64)
        logits = z @ weight.T.astype(np.float64) + bias
        p = np.exp(logits - logits.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        gradient = (p - 1 / C) @ weight.astype(np.float64)
        product = z * gradient
        if stored:
            kept = out[f"{name}.nac"] = (np.sign(product) * np.sqrt(np.abs(product))).astype(np.float32)
            product = kept.astype(np.float64) * np.abs(kept)
        states[name] = 1 / (1 + np.exp(-alpha * product))
    inside = {n: (s[:, None] >= ends[None, :-1, None]) & (s[:, None] < ends[None, 1:, None]) for n, s in states.items()}
    covered = np.minimum(inside["train"].sum(0) / (o * len(states["train"]) / 1000), 1)
    return {n: -(inside[n] * covered).sum(1).mean(1) for n in ("test", "ood")}


for name, settings in {"nac": (50, 50, 100), "nac_m10": (10, 200, 3)}.items():
    for probe, score in nac(*settings).items():
        out[f"{name}.{probe}"] = score
for probe, score in nac(500, 100, 1000, stored=True).items():
    out[f"nac_stored.{probe}"] = score
for probe, score in authors(["last", "mid"]).items():
    out[f"gram_authors.{probe}"] = score
save_file({k: np.ascontiguousarray(v) for k, v in out.items()}, HERE / "map_scorers.safetensors")
print({k: v.shape for k, v in out.items()})
