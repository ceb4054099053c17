"""Expected scores of OpenMax, joint energy, DkNN, LID, the trust score, feature squeezing, AdaSCALE, odds, JTLA and Monte Carlo
dropout, in NumPy and SciPy.

Run as `python make_peer_scorers.py`; written with NumPy 2.4 and SciPy 1.17 in float64, from the rows and
the head of reference.safetensors. Formulas: the papers named in docs/methods.md. DkNN, LID and trust are those of
scio (ThalesGroup): its conformity of the predicted class is k minus this `dknn`, minus this `lid`, and the
inverse of this `trust`. Of feature squeezing, whose views of images are here 0.9·rows and rows + 0.25, the authors' L1
distance, the largest (scio: the same, negated). Of AdaSCALE, whose moved images are here 0.9·rows − 0.225, what OpenOOD's
postprocessor and networks compute, of all training rows. Of odds, whose noisy images are here 0.95·rows + 0.1·rows², what the
authors' `collect_statistics` does with the mean over the noise: statistics of each predicted class, none of fewer than three rows. Of JTLA, whose
further layer is here rows², what the authors' `MultinomialScore`, `pvalue_score` and `pvalue_score_all_pairs` do without bootstrap, by all
distances. Of Monte Carlo dropout, whose passes are here the logits of rows of which another fifth is dropped in each, what pytorch-ood's
`MCD` (which is run too) and OpenOOD's postprocessor do with the passes. `openmax` is the logit of the probability of the unknown class, with c and λ of largest likelihood;
pytorch-ood 0.4.0, if it is installed, is compared: it finds them by a simplex search.
"""

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file
from scipy.optimize import brentq, minimize
from scipy.special import logsumexp

HERE = Path(__file__).parent
g = load_file(HERE / "reference.safetensors")
train, labels = g["train.avg"].astype(float), g["train.label"]
W, b = g["head.weight"].astype(float), g["head.bias"].astype(float)
probes = {name: g[f"{name}.avg"].astype(float) for name in ("test", "ood")}
C = len(b)
out = {}


def logits(x):
    return x @ W.T + b


def squares(a, b):
    return ((a[:, None] - b[None]) ** 2).sum(2)


def give(name, score):
    for probe, rows in probes.items():
        out[f"{name}.{probe}"] = score(rows)


def lid(k):
    def score(z):
        d = np.sort(squares(z, train), axis=1)[:, :k]
        return 2 * k / np.log(d[:, -1:] / d).sum(1)

    return score


def dknn(k):
    def score(z):
        near = np.argsort(squares(z, train), axis=1, kind="stable")[:, :k]
        return (labels[near] != logits(z).argmax(1)[:, None]).sum(1).astype(float)

    return score


def trust(alpha, k):
    kept = []
    for c in range(C):
        rows = train[labels == c]
        radius = np.sort(squares(rows, rows), axis=1)[:, k]
        apart = np.argsort(-radius, kind="stable")[: int(alpha * len(rows))]
        kept.append(np.delete(rows, apart, axis=0))

    def score(z):
        d = np.sqrt(np.stack([squares(z, rows).min(1) for rows in kept], axis=1))
        each, predicted = np.arange(len(z)), logits(z).argmax(1)
        own = d[each, predicted].copy()
        d[each, predicted] = np.inf
        return own / d.min(1)

    return score


def openmax(tailsize, alpha, weight, correct):
    v = logits(train)
    used = labels if not correct else np.where(v.argmax(1) == labels, labels, -1)

    def distance(x, mean):
        cosine = (x @ mean) / (np.linalg.norm(x, axis=1) * np.linalg.norm(mean))
        return weight * np.linalg.norm(x - mean, axis=1) + (1 - weight) * (1 - cosine)

    means = [v[used == c].mean(0) for c in range(C)]
    tails = []
    for c in range(C):
        d = np.sort(distance(v[used == c], means[c]))[-tailsize:]
        largest = 10000 + d[-1] - d[0]
        log = np.log1p((d - d[-1]) / largest)
        power = lambda shape: np.exp(shape * log)
        slope = lambda s: (power(s) * log).sum() / power(s).sum() - 1 / s - log.mean()
        shape = brentq(slope, 1, 1e12, xtol=1e-9, rtol=1e-15)
        tails.append((d[-1], largest, shape, np.log(power(shape).mean()) / shape))

    def score(z):
        v = logits(z)
        omega = np.zeros_like(v)
        order = np.argsort(-v, axis=1, kind="stable")[:, :alpha]
        np.put_along_axis(omega, order, np.arange(alpha, 0, -1)[None] / alpha, axis=1)
        w = np.empty_like(v)
        for c, (end, largest, shape, scale) in enumerate(tails):
            log = np.log1p((distance(v, means[c]) - end) / largest)
            w[:, c] = -np.expm1(-np.exp(shape * (log - scale)))
        return (v * omega * w).sum(1) - logsumexp(v * (1 - omega * w), axis=1)

    return score


def feature_squeezing(views, order):
    def softmax(z):
        v = logits(z)
        return np.exp(v - logsumexp(v, axis=1, keepdims=True))

    def score(z):
        return np.max([np.linalg.norm(softmax(z) - softmax(view(z)), ord=order, axis=1) for view in views], axis=0)

    return score


def bits(z):
    return z.astype(np.float32) * np.float32(0.9)


def median(z):
    return z.astype(np.float32) + np.float32(0.25)


def moved(z):
    return (z.astype(np.float32) - np.float32(0.25)) * np.float32(0.9)


def adascale(of_logits, low, high, k1, k2, weight):
    def largest(z, percent):
        return np.argsort(-z, axis=1, kind="stable")[:, :max(1, int(z.shape[1] * percent / 100))]

    def change(z):
        there = moved(z).astype(float)
        kept = np.take_along_axis(np.maximum(there, 0), largest(z, k1), 1).sum(1)
        return (kept + weight * np.take_along_axis(np.abs(z - there), largest(z, k2), 1).sum(1)).astype(np.float32)

    known = np.sort(change(train))

    def score(z):
        percentile = low + (1 - np.searchsorted(known, change(z), side="right") / len(known)) * (high - low)
        n = z.shape[1]
        kept = n - np.round(n * percentile / 100).astype(int)
        positive = np.maximum(z, 0)
        descending = -np.sort(-positive, axis=1)
        r = positive.sum(1) / np.array([row[:k].sum() for row, k in zip(descending, kept)])
        scaled = logits(z) * r[:, None] ** 2 if of_logits else logits(z * np.exp(r)[:, None])
        return -logsumexp(scaled, axis=1)

    return score


def noisy(z):
    z = z.astype(np.float32)
    return np.float32(0.95) * z + np.float32(0.1) * z * z


def odds():
    """Alignments (z − z')·(w_y − w_k) of the classes k other than the predicted y, standardised by those of y."""

    def alignments(z):
        z = z.astype(np.float32).astype(float)
        y = logits(z).argmax(1)
        a = np.einsum("nd,nkd->nk", z - noisy(z), W[y][:, None] - W[None])
        return y, [np.delete(row, c) for row, c in zip(a, y)]

    y, a = alignments(train)
    known = {c: np.stack([row for row, of in zip(a, y) if of == c]) for c in set(y.tolist())}
    known = {c: (rows.mean(0), rows.std(0)) for c, rows in known.items() if len(rows) >= 3}

    def score(z):
        one = lambda row, c: ((row - known[c][0]) / known[c][1]).max() if c in known else 0.0
        y, a = alignments(z)
        return np.array([one(row, c) for row, c in zip(a, y.tolist())])

    return score


def jtla(k, pairs):
    """Σ −ln p of the layers (and the pair of them), p of the training rows predicted as the row's class."""
    layers = [lambda z: z.astype(np.float32).astype(float), lambda z: (z.astype(np.float32) ** 2).astype(float)]
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
    alpha = np.full((C, C), 1 + 0.1 / C)
    np.fill_diagonal(alpha, 2 - (C - 1) / C * 0.1)
    predicted = logits(train).argmax(1)

    def counts(layer, z, itself):
        d = squares(unit(layer(z)), unit(layer(train)))
        if itself:
            np.fill_diagonal(d, np.inf)
        near = np.argsort(d, axis=1, kind="stable")[:, :k]
        return np.stack([np.bincount(labels[row], minlength=C) for row in near])

    def statistic(n, y, shares):
        logs = np.log(np.clip(n, np.finfo(float).eps, None)) - np.log(k * shares[y])
        return np.sum(n * logs, axis=1)

    known, all_shares = [], []
    for layer in layers:
        n = counts(layer, train, True)
        sums = np.stack([n[predicted == c].sum(0) for c in range(C)])
        rows = np.bincount(predicted, minlength=C)
        shares = (alpha - 1 + sums) / (alpha.sum(1) - C + rows * k)[:, None]
        all_shares.append(shares)
        known.append(statistic(n, predicted, shares))

    def score(z):
        y = logits(z).argmax(1)
        t = [statistic(counts(layer, z, False), y, shares) for layer, shares in zip(layers, all_shares)]
        out = np.zeros(len(z))
        for i, c in enumerate(y):
            own = predicted == c
            beyond = [known[l][own] >= t[l][i] for l in range(2)]
            tests = beyond + ([beyond[0] & beyond[1]] if pairs else [])
            out[i] = sum(-np.log(max(test.mean(), 1e-16)) for test in tests) if own.any() else 0.0
        return out

    return score


give("odds", odds())
give("jtla", jtla(int(np.ceil(len(train) ** 0.4)), True))
give("jtla_k5", jtla(5, False))
give("feature_squeezing", feature_squeezing([bits, median], 1))
give("feature_squeezing_bits", feature_squeezing([bits], 3))
give("feature_squeezing_2", feature_squeezing([bits, median], 2))
give("adascale_a", adascale(False, 75, 85, 5, 1, 10))
give("adascale_a_wide", adascale(False, 60, 95, 50, 20, 0.5))
give("adascale_l", adascale(True, 75, 85, 5, 1, 10))
give("joint_energy", lambda z: -np.logaddexp(0, logits(z)).sum(1))
give("lid", lid(20))
give("lid_k7", lid(7))
give("dknn", dknn(75))
give("dknn_k10", dknn(10))
give("trust", trust(0, 10))
give("trust_alpha", trust(0.2, 5))
give("openmax", openmax(20, min(10, C), 1, True))
give("openmax_authors", openmax(20, min(10, C), 1 / 201, True))
give("openmax_pytorch_ood", openmax(25, min(10, C), 1, False))
give("openmax_mixed", openmax(15, 3, 0.5, False))


def passes(rows, count=30, fraction=0.2):
    """Logits of passes that each drop other features, the same of every row: `[count, N, C]`."""
    kept = np.random.default_rng(7).random((count, 1, rows.shape[1])) >= fraction
    return logits(rows[None] * kept / (1 - fraction))


for probe, rows in probes.items():
    each = passes(rows)
    p = np.exp(each - logsumexp(each, axis=2, keepdims=True))
    mean = np.exp(each.mean(0) - logsumexp(each.mean(0), axis=1, keepdims=True))
    view = {"logits": each.mean(0), "probs": p.mean(0), "spread": p.std(0, ddof=1)}
    out.update({f"passes.{probe}.{field}": values.astype(np.float32) for field, values in view.items()})
    out[f"mcd_var.{probe}"] = p.var(0, ddof=1).mean(1)
    out[f"mcd_mean.{probe}"] = 1 - p.mean(0).max(1)
    out[f"mcd_logits.{probe}"] = 1 - mean.max(1)


def weights_against(scores, id, sets):
    """Of a logistic regression of standardised scores, cut off at ±10, none below 0; they add up to 1."""
    columns = np.array([score(probes[id]) for score in scores])
    mean, std = columns.mean(1)[:, None], columns.std(1, ddof=1)[:, None]
    of = [np.clip((columns - mean) / std, -10, 10)]
    of += [np.clip((np.array([score(rows) for score in scores]) - mean) / std, -10, 10) for rows in sets]

    def loss(at):
        w, b = at[:-1], at[-1]
        total = 0.015 * (w**2).sum() + 0.5 * np.logaddexp(0, w @ of[0] + b).mean()
        return total + sum(0.5 * np.logaddexp(0, -(w @ u + b)).mean() for u in of[1:]) / (len(of) - 1)

    start = np.zeros(len(scores) + 1)
    bounds = [(0, None)] * len(scores) + [(None, None)]
    w = minimize(loss, start, method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-15, "gtol": 1e-10}).x[:-1]
    return w / w.sum()


members = [lambda z: -logsumexp(logits(z), axis=1), lid(20), lambda z: np.linalg.norm(z, axis=1)]
far, near = probes["ood"][: len(probes["ood"]) // 2], probes["ood"][len(probes["ood"]) // 2 :]
out["against"] = weights_against(members, "test", [far, near * 1.5])

if __name__ == "__main__":
    save_file(out, HERE / "peer_scorers.safetensors")
    print({k: (v.min(), v.max()) for k, v in out.items()})
    try:
        from pytorch_ood.detector.openmax.numpy import OpenMax
    except ImportError:
        OpenMax = None
    if OpenMax:
        for name, options in (("openmax_pytorch_ood", (25, 10, 1.0)), ("openmax_mixed", (15, 3, 0.5))):
            there = OpenMax(*options).fit(logits(train), labels).predict(logits(probes["test"]))[:, 0]
            here = 1 / (1 + np.exp(-out[f"{name}.test"]))
            print(name, "differs from pytorch-ood by at most", abs(here - there).max(), "rank correlation",
                  np.corrcoef(there.argsort().argsort(), here.argsort().argsort())[0, 1])
    try:
        import torch
        from pytorch_ood.detector import MCD
    except ImportError:
        MCD = None
    if MCD:
        for mode, less in (("var", 0), ("mean", 1)):
            each = iter(torch.from_numpy(passes(probes["test"])))
            net = torch.nn.Module()
            net.forward = lambda x: next(each)
            there = MCD(net, samples=30, mode=mode).predict(torch.zeros(1)).numpy() + less
            print(f"mcd_{mode} differs from pytorch-ood by at most", abs(there - out[f"mcd_{mode}.test"]).max())
