"""Expected scores of the scorers of geometry and of banks of rows, in NumPy.

Run as `python make_geometry_scorers.py`; written with NumPy 2.4.6 in float64,
from the rows and the head of reference.safetensors. Formulas: the papers named
in docs/methods.md. Compared, when this was written, with pytorch-ood 0.4.0:
NNGuide equals; RMD there divides neither covariance by N, so that its scores
are these divided by N.
"""

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

HERE = Path(__file__).parent
g = load_file(HERE / "reference.safetensors")
train, labels = g["train.avg"].astype(float), g["train.label"]
W, b = g["head.weight"].astype(float), g["head.bias"].astype(float)
probes = {name: g[f"{name}.avg"].astype(float) for name in ("test", "ood")}
N, D = train.shape
C = len(b)


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def lse(logits):
    top = logits.max(1, keepdims=True)
    return (top + np.log(np.exp(logits - top).sum(1, keepdims=True)))[:, 0]


def softmax(logits):
    return np.exp(logits - lse(logits)[:, None])


def logits(x):
    return x @ W.T + b


# The stream of random numbers: ChaCha8 keyed by (seed, purpose, a, b).


def words(key, count):
    state = np.zeros((16, -(-count // 16)), np.uint32)
    state[:4] = np.frombuffer(b"expand 32-byte k", np.uint32)[:, None]
    state[4:12] = np.frombuffer(b"".join(int(k).to_bytes(8, "little") for k in key), np.uint32)[:, None]
    state[12] = np.arange(state.shape[1])
    x = state.copy()

    def turn(i, by):
        x[i] = (x[i] << np.uint32(by)) | (x[i] >> np.uint32(32 - by))

    def quarter(a, b, c, d):
        for p, q, r, by in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            x[p] += x[q]
            x[r] ^= x[p]
            turn(r, by)

    for _ in range(4):
        for i in range(4):
            quarter(i, 4 + i, 8 + i, 12 + i)
        for i in range(4):
            quarter(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
    return (x + state).T.ravel()[:count]


def normals(key, count):
    """Box and Muller on chunks of 256 pairs."""
    chunks = -(-count // 512)
    w = words(key, 512 * chunks).reshape(chunks, 2, 256)
    radius = np.sqrt(np.maximum(-2 * np.log((w[:, 0] + 1.0) / 2.0**32), 0))
    angle = np.pi * w[:, 1].astype(np.int32) / 2.0**31
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1).ravel()[:count]


def uniforms(key, count):
    return (words(key, count) >> np.uint32(8)) / 2.0**24


PROJECTION = 18
out = {}


def give(name, score):
    for probe, x in probes.items():
        out[f"{name}.{probe}"] = np.asarray(score(x), np.float64)


# RMDS.


def mahalanobis(x, mean, covariance):
    return np.einsum("nd,de,ne->n", x - mean, np.linalg.inv(covariance), x - mean)


def rmds(step):
    x = step(train)
    means = np.stack([x[labels == c].mean(0) for c in range(C)])
    centred = x - means[labels]
    within, total = centred.T @ centred / N, np.cov(x.T, bias=True)

    def score(z):
        z = step(z)
        near = np.min([mahalanobis(z, m, within) for m in means], 0)
        return near - mahalanobis(z, x.mean(0), total)

    return score


give("rmds", rmds(lambda x: x))
give("rmds_pp", rmds(unit))


def mds_pp(z):
    x = unit(train)
    means = np.stack([x[labels == c].mean(0) for c in range(C)])
    centred = x - means[labels]
    return np.min([mahalanobis(unit(z), m, centred.T @ centred / N) for m in means], 0)


give("mds_pp", mds_pp)

# ViM and its residual: about the mean as in HEAT's code, about the origin as in the authors'.
# pytorch-ood 0.4.0's ViM with 8 dimensions (f32) gives `vim_d8_origin` to 3e-6 of the largest score.
origin = -np.linalg.pinv(W) @ b
_, vectors = np.linalg.eigh(np.cov(train.T, bias=True))
give("residual_d8", lambda z: np.linalg.norm((z - origin) @ vectors[:, : D - 8], axis=1))
_, about_origin = np.linalg.eigh((train - origin).T @ (train - origin) / N)


def residual_origin(z):
    return np.linalg.norm((z - origin) @ about_origin[:, : D - 8], axis=1)


alpha = logits(train).max(1).mean() / residual_origin(train).mean()
give("residual_d8_origin", residual_origin)
give("vim_d8_origin", lambda z: alpha * residual_origin(z) - lse(logits(z)))

# CADRef and CARef.
predicted = logits(train).argmax(1)
predicted_means = np.stack([train[predicted == c].mean(0) for c in range(C)])


def gen(l):
    p = -np.sort(-softmax(l), 1)[:, : max(10, C // 10)]
    return 1 / (p**0.1 * (1 - p) ** 0.1).sum(1)


CONFIDENCES = {
    "energy": lse,
    "msp": lambda l: softmax(l).max(1),
    "max_logit": lambda l: l.max(1),
    "gen": gen,
}


def caref(z):
    mean = predicted_means[logits(z).argmax(1)]
    return np.abs(z - mean).sum(1) / np.abs(z).sum(1)


give("caref", caref)
for name, confidence in CONFIDENCES.items():

    def cadref(z):
        l = logits(z)
        y = l.argmax(1)
        signed = (z - predicted_means[y]) * np.sign(W[y])
        size = np.abs(z).sum(1)
        with_, against = np.maximum(signed, 0).sum(1), np.maximum(-signed, 0).sum(1)
        level = confidence(logits(train)).mean()
        return with_ / size / np.maximum(confidence(l), 1e-6) + against / size / level

    give(f"cadref_{name}", cadref)

# Kernel PCA.


def kpca(phi, explained):
    x = phi(train)
    values, vectors = np.linalg.eigh(np.cov(x.T, bias=True))
    values, vectors = values[::-1], vectors[:, ::-1]
    q = int(np.argmax(np.cumsum(values) / values.sum() >= explained)) + 1
    rest = vectors[:, q:]
    return lambda z: np.linalg.norm((phi(z) - x.mean(0)) @ rest, axis=1)


def fourier(gamma, m, seed):
    w = np.sqrt(2 * gamma) * normals((seed, PROJECTION, 0, 0), m * D).reshape(m, D)
    u = 2 * np.pi * uniforms((seed, PROJECTION, 1, 0), m)
    return lambda x: np.sqrt(2 / m) * np.cos(unit(x) @ w.T + u)


give("kpca_cop", kpca(unit, 0.85))
give("kpca_corp", kpca(fourier(2.0, 64, 0), 0.8))
give("kpca_corp_gamma", kpca(fourier(0.5, 40, 7), 0.6))

# Nearest-neighbour guidance.


def nnguide(k):
    bank = unit(train) * lse(logits(train))[:, None]
    return lambda z: -lse(logits(z)) * -np.sort(-(unit(z) @ bank.T), 1)[:, :k].mean(1)


give("nnguide_k10", nnguide(10))
give("nnguide_k3", nnguide(3))

# CFOOD with all rows as reference.


def cfood(share):
    x = unit(train)
    fractions = np.concatenate(
        (np.linspace(0.001, 0.1, 100), np.linspace(0.105, 0.5, 81), np.linspace(0.51, 0.99, 49))
    )
    positions = (fractions * N - 1).astype(int)
    keep = np.concatenate(([True], positions[:-1] < positions[1:]))
    fractions, positions = fractions[keep], positions[keep]
    to = lambda z: ((z[:, None] - x[None]) ** 2).sum(-1)
    radii = np.sort(to(x), 1)[:, positions + 1]

    def score(z):
        holds = (radii[None] >= to(unit(z))[:, :, None]).mean(1) >= share
        return np.where(holds.any(1), fractions[holds.argmax(1)], 1.0)

    return score


give("cfood", cfood(0.01))
give("cfood_k5", cfood(0.05))

# Neural relation graph.


def relation(threshold, power):
    def score(z):
        cosine = np.maximum(unit(z) @ unit(train).T, 0)
        s = cosine * (softmax(logits(z)) @ softmax(logits(train)).T)
        return -(np.where(s > threshold, s, 0) ** power).sum(1)

    return score


give("relation", relation(0.03, 1))
give("relation_power", relation(0.2, 4))

# WeiPer+KLD.


def weiper(repeats, distance, bins, lambdas, smoothing, seed):
    def perturbed(copy):
        noise = unit(normals((seed, PROJECTION, 2, copy), C * D).reshape(C, D))
        return W + distance * np.linalg.norm(W, axis=1, keepdims=True) * noise

    weight = np.concatenate([perturbed(i) for i in range(repeats)])
    project = lambda x: x @ weight.T + np.tile(b, repeats)

    def shares(values, low, high):
        return np.stack([np.histogram(v, bins, (low, high))[0] / len(v) for v in values])

    def smooth(q, s):
        q = np.pad(q, ((0, 0), ((s - 1) // 2, s - 1 - (s - 1) // 2)), "edge")
        return np.stack([q[:, i : i + bins] for i in range(s)]).mean(0)

    def divergence(of, z, floor, s):
        low, high = of(train).min(), of(train).max()
        p = shares(of(train), low, high).mean(0) + floor
        q = smooth(shares(of(z), low, high), s) + floor
        p, q = p / p.sum(), q / q.sum(1, keepdims=True)
        return ((p - q) * (np.log(p) - np.log(q))).sum(1)

    def score(z):
        msp = softmax(project(z).reshape(-1, C)).max(1).reshape(len(z), repeats).mean(1)
        kld = divergence(lambda x: x, z, 0.01, smoothing[0])
        kld_perturbed = divergence(project, z, 0.025, smoothing[1])
        return kld + lambdas[0] * kld_perturbed - lambdas[1] * msp

    return score


give("weiper", weiper(100, 1.8, 100, (2.5, 0.1), (4, 15), 0))
give("weiper_other", weiper(6, 0.7, 24, (0.5, 2.0), (1, 5), 11))

if __name__ == "__main__":
    save_file(out, HERE / "geometry_scorers.safetensors")
    print({k: (v.min(), v.max()) for k, v in out.items() if k.endswith("test")})
