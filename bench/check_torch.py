"""Whether PyTorch reads what `heat export` writes, and means the same by it.

    python bench/check_torch.py [HEAT]

HEAT is the command, `target/release/heat` by default. Needs torch, numpy and safetensors. Trains
small networks on the bundled features (shared, separate and tapered layers), exports each, loads
the file with `weights_only=True`, and compares values with the detector's and energies with
`heat score`'s.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "crates/heat-cli/data/cifar10-densenet"
N = 3
KINDS = {"tied": ["ebm.model.tied=true"], "untied": ["ebm.model.tied=false"],
         "tapered": ["ebm.model.reduce_width=true"]}


def network(kind, d, h):
    """The published network."""
    act = nn.LeakyReLU(0.2)
    if kind != "tapered":
        hidden = [nn.Linear(h, h), act] * N if kind == "tied" else sum(([nn.Linear(h, h), act] for _ in range(N)), [])
        return nn.Sequential(nn.Linear(d, h), act, *hidden, nn.Linear(h, 1))
    blocks = []
    for i in range(N):
        w = h >> i
        blocks.append(nn.Sequential(nn.Linear(w, w), act, nn.Linear(w, w), act, nn.Linear(w, w // 2), act))
    return nn.Sequential(nn.Linear(d, h), act, *blocks, nn.Linear(h >> N, 1))


def check(heat, kind, folder):
    run = lambda *args: subprocess.run([heat, "-q", *map(str, args)], check=True, cwd=folder)
    detector, file = folder / kind / "detector.safetensors", folder / f"{kind}.pt"
    run("train", "ebm=quickstart_gmm", "ebm.model.hidden_dim=64", f"ebm.model.n_hidden_layers={N}",
        "ebm.model.steps=2", "n_epochs=1", *KINDS[kind], "--train", DATA / "train.safetensors", "--out", folder / kind)
    run("export", detector, "-o", file)
    state = torch.load(file, weights_only=True)["model_state"]
    for name, value in load_file(detector).items():
        if name.startswith("mlp."):
            assert torch.equal(state[name], value), name
    model = nn.Module()
    model.mlp = network(kind, state["mlp.0.weight"].shape[1], 64)
    model.load_state_dict(state, strict=True)
    pointers = {state[f"mlp.{2 * i + 2}.weight"].data_ptr() for i in range(N)} if kind == "tied" else {0}
    assert len(pointers) == 1, "shared layers are stored once"
    run("score", detector, DATA / "test.safetensors", "-o", folder / f"{kind}.csv")
    table = np.genfromtxt(folder / f"{kind}.csv", delimiter=",", names=True)
    z = load_file(DATA / "test.safetensors")["avg"].double()
    z = z / z.norm(dim=1, keepdim=True).clamp_min(1e-12)
    with torch.no_grad():
        energy = model.double().mlp(z).squeeze(1).numpy()
    error = np.abs(energy - table["energy_nn"]).max() / np.abs(energy).max()
    assert error < 1e-5, error
    print(f"{kind}: {len(state)} tensors load; energies differ by {error:.1e} of the largest")


def main():
    heat = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "target/release/heat").resolve()
    with tempfile.TemporaryDirectory() as folder:
        for kind in KINDS:
            check(heat, kind, Path(folder))
    print("torch", torch.__version__)


if __name__ == "__main__":
    main()
