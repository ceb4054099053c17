"""Expected values of a residual's training, by PyTorch.

Run as `python make_residual.py`; written with PyTorch 2.15 on the CPU in f64, from the weights and rows of
reference.safetensors: inputs standardised, the noise-contrastive loss, AdamW with a milestone after six of ten steps.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

HERE = Path(__file__).parent
g = load_file(HERE / "reference.safetensors")
CASE = "ebm_gmm_tied"
NUMBERS = (0, 2, 4, 6, 8)

real, given = (g[f"{CASE}.{name}"].double() for name in ("train_real", "train_proposals"))
rows = torch.cat([real, given])
mean, deviation = rows.mean(0), rows.std(0, unbiased=False)

layers = []
for n in NUMBERS:
    weight = g[f"{CASE}.mlp.{n}.weight"].double()
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], dtype=torch.float64)
    layer.weight.data, layer.bias.data = weight, g[f"{CASE}.mlp.{n}.bias"].double()
    layers += [layer, torch.nn.LeakyReLU(0.2)]
net = torch.nn.Sequential(*layers[:-1])

optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, betas=(0.9, 0.999), weight_decay=2.0)
schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [6], 0.1)
log = []
for _ in range(10):
    optimizer.zero_grad()
    plus, minus = (net((z - mean) / deviation)[:, 0] for z in (real, given))
    nce = F.softplus(plus).mean() + F.softplus(-minus).mean()
    l2 = 0.05 * ((plus**2).mean() + (minus**2).mean())
    (nce + l2).backward()
    log.append(torch.stack([nce + l2, nce, l2, plus.mean(), minus.mean()]).detach())
    optimizer.step()
    schedule.step()

out = {"mean": mean, "deviation": deviation, "log": torch.stack(log)}
for n, layer in zip(NUMBERS, net[::2]):
    out[f"mlp.{n}.weight"], out[f"mlp.{n}.bias"] = layer.weight.data, layer.bias.data
out["energies"] = net((rows - mean) / deviation)[:, 0].detach()
exact = ("mean", "deviation")
save_file({k: (v if k in exact else v.float()).contiguous() for k, v in out.items()}, HERE / "residual.safetensors")
print({k: tuple(v.shape) for k, v in out.items()})
