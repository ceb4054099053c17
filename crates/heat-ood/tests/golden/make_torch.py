"""Makes the PyTorch checkpoints of `golden/torch` and what PyTorch computes with them.

    python crates/heat-ood/tests/golden/make_torch.py

Needs torch, numpy, safetensors and omegaconf. The committed files were made with torch 2.15.0,
numpy 2.4.6 and omegaconf 2.4.0 under Python 3.11.
"""

import argparse
import collections
import enum
import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file
from torch import nn

OUT = Path(__file__).parent / "torch"
D, H = 12, 16


class Energy(nn.Module):
    """The published network: a Python list of modules multiplied, hence shared weights."""

    def __init__(self, n, tied=True, tapered=False):
        super().__init__()
        act = lambda: nn.LeakyReLU(0.2)
        if tapered:
            layers, w = [nn.Linear(D, H), act()], H
            for _ in range(n):
                block = [nn.Linear(w, w), act(), nn.Linear(w, w), act(), nn.Linear(w, w // 2), act()]
                layers.append(nn.Sequential(*block))
                w //= 2
            layers.append(nn.Linear(w, 1))
        else:
            hidden = [nn.Linear(H, H), act()] * n if tied else []
            for _ in range(0 if tied else n):
                hidden += [nn.Linear(H, H), act()]
            layers = [nn.Linear(D, H), act(), *hidden, nn.Linear(H, 1)]
        self.mlp = nn.Sequential(*layers)

    def forward(self, z):
        return self.mlp(z).squeeze(1)


class Phase(enum.Enum):
    TRAIN = 1


class Notes:
    """A class that no reader can know."""

    def __init__(self):
        self.lines = ["one", ("two", 2.0)]
        self.me = self


class Evil:
    """Runs a command when it is unpickled by Python."""

    def __reduce__(self):
        return os.system, ("echo executed",)


def trained(net):
    """Adam's state and a schedule, as they lie beside the weights after training."""
    adam = torch.optim.Adam(net.parameters(), lr=1e-3, betas=(0.0, 0.999))
    schedule = torch.optim.lr_scheduler.MultiStepLR(adam, [10, 10, 15], 0.1)
    for _ in range(2):
        adam.zero_grad()
        net(torch.randn(8, D)).sum().backward()
        adam.step()
        schedule.step()
    return adam.state_dict(), schedule.state_dict()


def junk():
    """What published and other training codes put into a checkpoint."""
    config = {"ebm": {"model": {"hidden_dim": H, "steps": [1, 2]}}, "name": "${ebm.model.hidden_dim}"}
    return {
        "epoch": 20,
        "huge": 1 << 80,
        "best": np.float64(93.5),
        "history": np.arange(6, dtype=np.float32).reshape(2, 3),
        "config": OmegaConf.create(config),
        "args": argparse.Namespace(lr=1e-5, milestones=[10], data=Path("data/cifar10")),
        "counts": collections.Counter([1, 1, 2]),
        "phase": Phase.TRAIN,
        "notes": Notes(),
        "names": {"a", "b"},
        "device": torch.device("cuda:0"),
        "dtype": torch.float16,
        "loss": torch.tensor(0.25),
        "rng": torch.get_rng_state()[:16].clone(),
        "nested": {"deep": [{"deeper": (None, True, b"bytes", "text")}]},
    }


def main():
    torch.manual_seed(0)
    OUT.mkdir(exist_ok=True)
    probe = torch.randn(7, D)
    expected = {"probe": probe}

    def keep(name, net):
        with torch.no_grad():
            expected[name] = net.double()(probe.double()).float()
        net.float()

    def save(name, what, **options):
        torch.save(what, OUT / f"{name}.pt", **options)

    tied = Energy(4)
    optimizer, scheduler = trained(tied)
    keep("tied", tied)
    beside = {"optimizer_state": optimizer, "scheduler_state": scheduler}
    save("tied", {"model_state": tied.state_dict(), **beside, **junk()})
    save("legacy", {"model_state": tied.state_dict(), **beside, **junk()},
         _use_new_zipfile_serialization=False)
    save("protocol4", {"model": tied.state_dict(), **junk()}, pickle_protocol=4)
    save("bare", tied.state_dict())
    save("parameters", {"state_dict": dict(tied.named_parameters(remove_duplicate=False))})

    untied = Energy(2, tied=False)
    optimizer, _ = trained(untied)
    keep("untied", untied)
    wrapped = nn.DataParallel(nn.ModuleDict({"ebm": untied}))
    save("untied", {"epoch": 3, "state_dict": wrapped.state_dict(), "optimizer": optimizer})
    one = Energy(1)
    keep("one", one)
    save("one", {"model_state": one.state_dict()})

    tapered = Energy(2, tapered=True)
    keep("tapered", tapered)
    save("tapered", {"model_state": tapered.state_dict(), **junk()})

    for name, dtype in [("f16", torch.float16), ("bf16", torch.bfloat16), ("f64", torch.float64)]:
        net = Energy(3).to(dtype)
        state = {k: v.clone() for k, v in net.state_dict().items()}
        keep(name, net)
        save(name, {"model_state": state})

    # Weights that are windows of one big storage, some of them transposed.
    window = Energy(2, tied=False)
    keep("strided", window)
    state, pool, at = {}, torch.zeros(1024), 5
    for name, value in window.state_dict().items():
        shape = value.t().shape if value.dim() == 2 else value.shape
        view = pool[at : at + value.numel()].view(shape)
        view.copy_(value.t() if value.dim() == 2 else value)
        state[name] = view.t() if value.dim() == 2 else view
        at += value.numel() + 3
    save("strided", {"model_state": state})

    # As if saved on a GPU: the storages' location is `cuda:0`.
    buffer = io.BytesIO()
    torch.save({"model_state": untied.state_dict()}, buffer)
    source = zipfile.ZipFile(buffer)
    with zipfile.ZipFile(OUT / "cuda.pt", "w") as target:
        for entry in source.infolist():
            data = source.read(entry)
            if entry.filename.endswith("data.pkl"):
                data = data.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")
            target.writestr(zipfile.ZipInfo(entry.filename), data)

    save("evil", {"evil": Evil(), "model_state": untied.state_dict()})

    # Refused: a mapping of an unknown class with entries, keys that are tuples.
    save("unreadable", {"model_state": untied.state_dict(), "grid": {(1, 2): 3}})
    (OUT / "plain.pkl").write_bytes(pickle.dumps({"model_state": {"mlp.0.weight": [1.0]}}))

    state = untied.state_dict()
    del state["mlp.2.bias"], state["mlp.6.weight"]
    state["mlp.4.weight"] = torch.zeros(H, H + 1)
    state["mlp.4.weight_u"] = torch.zeros(H)
    save("incomplete", {"model_state": state})
    state = {k: v.clone() for k, v in untied.state_dict().items()}
    state["mlp.2.weight"][1, 2] = float("nan")
    save("nan", {"model_state": state})
    save("expanded", {"model_state": {
        "mlp.0.weight": torch.zeros(1).expand(8192, 8192), "mlp.0.bias": torch.zeros(1).expand(8192),
        "mlp.2.weight": torch.zeros(1).expand(1, 8192), "mlp.2.bias": torch.zeros(1)}})
    save("two", {"first": untied.state_dict(), "second": untied.state_dict()})
    save("integers", {"model_state": {k: v.long() for k, v in untied.state_dict().items()}})
    save("other", {"model_state": nn.Conv2d(1, 1, 1).state_dict()})

    save_file({k: v.contiguous() for k, v in expected.items()}, OUT / "expected.safetensors")
    print(torch.__version__, np.__version__, sum(f.stat().st_size for f in OUT.iterdir()), "bytes")


if __name__ == "__main__":
    main()
