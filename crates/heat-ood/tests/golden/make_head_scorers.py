"""Expected scores of the scorers that read features and head, in float64.

Run as `python make_head_scorers.py`; written with pytorch-ood 0.4.0, PyTorch
2.15 (CPU), NumPy 2.4.6, SciPy 1.17 and scikit-learn 1.9.1, from the rows and
head of reference.safetensors. Higher = more out-of-distribution.

From pytorch-ood: react, ash_p, ash_b, ash_s, scale, vra(clip=true), lts, she,
fdbd, nci, pnml. Not from it, because it computes something else:
- vra: the paper and its authors' code take low activations to zero;
- gen, entropy: it clamps probabilities (gen also averages instead of summing);
- gradnorm: it adds the gradient of the bias unless filtered, hence autograd of
  the loss of the paper here;
- temperature: its LBFGS stops early, hence SciPy's bounded minimiser here.
It has no neco, nor other normalisers of fdbd.
"""

from pathlib import Path

import numpy as np
import torch
from pytorch_ood.detector import ASH, LTS, NCI, PNML, SCALE, SHE, VRA, ReAct, fDBD
from safetensors.torch import load_file, save_file
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, logsumexp, softmax
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

HERE = Path(__file__).parent
g = load_file(HERE / "reference.safetensors")
train, labels = g["train.avg"].double(), g["train.label"].long()
W, b = g["head.weight"].double(), g["head.bias"].double()
probes = {name: g[f"{name}.avg"].double() for name in ("test", "ood")}
C, D = W.shape

torch.set_default_dtype(torch.float64)
head = torch.nn.Linear(D, C)
head.load_state_dict({"weight": W, "bias": b})
out = {}


def put(name, score):
    for probe, z in probes.items():
        s = score(z)
        out[f"{name}.{probe}"] = torch.as_tensor(np.asarray(s.detach() if torch.is_tensor(s) else s)).double()


# pytorch-ood shapes maps [B, C, H, W]; one pixel is a pooled feature.
def maps(z):
    return z[:, :, None, None]


def flat(x):
    return head(x[:, :, 0, 0])


for variant in ("p", "b", "s"):
    for p in (65, 90):
        ash = ASH(lambda x: x, flat, variant=f"ash-{variant}", percentile=p / 100)
        put(f"ash_{variant}.{p}", lambda z: ash.predict_feature_maps(maps(z)))
for p in (65, 85):
    put(f"scale.{p}", lambda z: SCALE(lambda x: x, flat, percentile=p / 100).predict_feature_maps(maps(z)))
for p in (70, 95):
    put(f"lts.{p}", lambda z: LTS(None, head, p=1 - p / 100).predict_features(z))
react = ReAct(lambda x: x, flat, percentile=0.8)
react.fit_feature_maps(maps(train), labels)
put("react.80", lambda z: react.predict_feature_maps(maps(z)))
vra = VRA(lambda x: x, flat, lower_percentile=0.05, upper_percentile=0.9)
vra.fit_feature_maps(maps(train), labels)
put("vra_clip", lambda z: vra.predict_feature_maps(maps(z)))

low, high = (np.quantile(train.numpy(), q, axis=0) for q in (0.6, 0.9))
put("vra", lambda z: -logsumexp(np.minimum(np.where(z.numpy() < low, 0, z.numpy()), high) @ W.numpy().T + b.numpy(), axis=1))


def probabilities(z, t=1.0):
    return softmax(head(z).detach().numpy() / t, axis=1)


def gen(z, gamma, m):
    p = np.sort(probabilities(z), axis=1)[:, -m:]
    return (p**gamma * (1 - p) ** gamma).sum(1)


put("gen", lambda z: gen(z, 0.1, 4))
put("gen.g05_m2", lambda z: gen(z, 0.5, 2))
put("entropy", lambda z: -(probabilities(z) * log_softmax(head(z).detach().numpy(), axis=1)).sum(1))

logits = head(train).detach().numpy()
nll = lambda log_t: -log_softmax(logits / np.exp(log_t), axis=1)[np.arange(len(labels)), labels.numpy()].sum()
best = minimize_scalar(nll, bounds=(-5, 8), method="bounded", options={"xatol": 1e-12})
out["temperature.t"] = torch.tensor([np.exp(best.x)])
put("temperature", lambda z: np.sort(probabilities(z, np.exp(best.x)), axis=1)[:, :-1].sum(1))

# SHE, fDBD, NCI and PNML cast to float32 inside; accurate to about 1e-6.
predicted = head(train).argmax(1)
print("correct rows by class:", [int(((predicted == labels) & (labels == k)).sum()) for k in range(C)])
single = torch.nn.Linear(D, C).float()
single.load_state_dict({"weight": W.float(), "bias": b.float()})
for name, detector in {
    "she": SHE(None, single),
    "fdbd": fDBD(None, single),
    "nci": NCI(None, single, alpha=0.01),
    "pnml": PNML(None, single),
}.items():
    detector.fit_features(train.float(), labels)
    put(name, lambda z: detector.predict_features(z.float()))


def boundaries(z, length):
    l = head(z).detach().numpy()
    top = l.argmax(1)
    norms = np.linalg.norm(W.numpy()[top][:, None] - W.numpy()[None], axis=2)
    norms[np.arange(len(z)), top] = 1
    return -((l.max(1, keepdims=True) - l) / norms).sum(1) / (C - 1) / length


put("fdbd.norm", lambda z: boundaries(z, np.linalg.norm(z, axis=1)))
put("fdbd.none", lambda z: boundaries(z, 1))


def gradient(z, t=1.0):
    norms = []
    for row in z:
        weight = W.clone().requires_grad_(True)
        log_p = torch.log_softmax((weight @ row + b) / t, 0)
        (-log_p.mean()).backward()
        norms.append(-weight.grad.abs().sum())
    return torch.stack(norms)


put("gradnorm", gradient)
put("gradnorm.t3", lambda z: gradient(z, 3.0))


def neco(z, dim, standardize, factor):
    x, rows = train.numpy(), z.numpy()
    if standardize:
        scaler = StandardScaler().fit(x)
        x, rows = scaler.transform(x), scaler.transform(rows)
    else:
        rows = rows - x.mean(0)
        x = x - x.mean(0)
    inside = PCA(D).fit(x).transform(rows)[:, :dim]
    ratio = np.linalg.norm(inside, axis=1) / np.linalg.norm(rows, axis=1)
    return -ratio * (head(z).detach().numpy().max(1) if factor else 1)


put("neco", lambda z: neco(z, C, True, True))
put("neco.ratio", lambda z: neco(z, 7, False, False))

save_file({k: v.contiguous() for k, v in out.items()}, HERE / "head_scorers.safetensors")
print({k: (tuple(v.shape), float(v.min()), float(v.max())) for k, v in out.items()})
