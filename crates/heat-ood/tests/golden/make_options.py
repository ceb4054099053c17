"""Expected values for options of the energy model, by PyTorch.

Run as `python make_options.py`; written with PyTorch 2.15 on the CPU, from the
weights, means and rows of reference.safetensors. Formulas: METHOD section 4.
"""

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

HERE = Path(__file__).parent
g = load_file(HERE / "reference.safetensors")
CASE = "ebm_gmm_tied"
means, tril = g["ssd_normalized.means"].double(), g["ssd_normalized.scale_tril"].double()
probs = g["ssd_normalized.mixture_probs"].double()
layers = [g[f"{CASE}.mlp.{i}.weight"].double() for i in (0, 2, 4, 6, 8)]
biases = [g[f"{CASE}.mlp.{i}.bias"].double() for i in (0, 2, 4, 6, 8)]
T_PRIOR = 1e3


def nn(z, weights=layers):
    for w, b in zip(weights[:-1], biases[:-1]):
        z = F.leaky_relu(F.linear(z, w, b), 0.2)
    return F.linear(z, weights[-1], biases[-1])[:, 0]


def log_normal(z):
    dist = torch.distributions.MultivariateNormal(means, scale_tril=tril)
    return dist.log_prob(z[:, None])


def prior(z, labels=None):
    lp = log_normal(z)
    if labels is not None:
        return -lp[torch.arange(len(z)), labels]
    return -torch.logsumexp(lp + probs.log(), 1)


def project(z):
    z = z.clamp(min=0)
    return z / z.norm(dim=1, keepdim=True).clamp(min=1e-12)


def decay(start, t, steps):
    return (start - start / 10) * (1 - t / steps) ** 2 + start / 10


def gradient(z, labels=None):
    z = z.detach().requires_grad_(True)
    (nn(z) + prior(z, labels) / T_PRIOR).sum().backward()
    return z.grad


out = {}

z = project(g[f"{CASE}.sgld_init"].double())
labels = torch.arange(len(z)) % 4
for t in range(6):
    z = project(z - decay(1e-3, t, 6) * gradient(z, labels))
out["conditional.labels"] = labels
out["conditional.sgld"] = z

z = project(g[f"{CASE}.sgld_init"].double())
for t in range(3):
    x = z.detach().requires_grad_(True)
    d2 = torch.cdist(x, x.detach()) ** 2
    flat = ((z[:, None] - z[None]) ** 2).sum(-1).flatten().sort().values
    n = len(flat)
    median = flat[n // 2] if n % 2 else 0.5 * (flat[n // 2 - 1] + flat[n // 2])
    h = median / (2 * math.log(len(z) + 1))
    kernel = torch.exp(-((x[:, None] - x.detach()[None]) ** 2).sum(-1) / (1e-8 + 2 * h))
    grad_k = -torch.autograd.grad(kernel.sum(), x)[0]
    phi = (kernel.detach() @ -gradient(z) + grad_k) / len(z)
    z = project(z + decay(1e-1, t, 3) * phi)
out["svgd"] = z

weights = [w.clone().requires_grad_(True) for w in layers]
real, fake = nn(g[f"{CASE}.train_real"].double(), weights), nn(project(g[f"{CASE}.train_proposals"].double()), weights)
cd = -F.logsigmoid(-real).mean() - F.logsigmoid(fake).mean()
l2 = 10 * ((real**2).mean() + (fake**2).mean())
(cd + l2).backward()
out["nce.log"] = torch.stack([cd + l2, cd, l2, real.mean(), fake.mean()]).detach()
for i, w in zip((0, 2, 4, 6, 8), weights):
    out[f"nce.grad.mlp.{i}.weight"] = w.grad

save_file({k: v.contiguous() if v.dtype == torch.int64 else v.float().contiguous() for k, v in out.items()}, HERE / "options.safetensors")
print({k: tuple(v.shape) for k, v in out.items()})
