"""Makes resnets/: what PyTorch makes of ResNets with generated weights
(expected.safetensors), and small checkpoints in the formats met in the wild.

    python make_resnets.py     # torch, torchvision, timm, safetensors, numpy

The weights are a formula of name and position (`generated`), which the tests
compute again: no file of them is needed.
"""
from pathlib import Path

import numpy as np
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

out = Path(__file__).parent / "resnets"
out.mkdir(exist_ok=True)
torch.set_num_threads(1)
MASK = (1 << 64) - 1


def uniform(name, n):
    """n numbers in [-1, 1) of 24 bits: splitmix64 of FNV-1a of the name + position."""
    seed = 0xCBF29CE484222325
    for byte in name.encode():
        seed = ((seed ^ byte) * 0x100000001B3) & MASK
    with np.errstate(over="ignore"):
        x = np.uint64(seed) + (np.arange(n, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x = x ^ (x >> np.uint64(31))
    return ((x >> np.uint64(40)).astype(np.float32) / np.float32(1 << 23)) - np.float32(1)


def generated(name, shape):
    u = uniform(name, int(np.prod(shape)))
    if name.endswith("running_var"):
        u = np.float32(1) + np.float32(0.5) * u
    elif name.endswith("running_mean") or name.endswith("bias"):
        u = np.float32(0.1) * u
    elif len(shape) == 1:
        # Gains well below 1, so that the sums of many blocks stay moderate.
        u = np.float32(0.5) + np.float32(0.2) * u
    else:
        u = np.float32(np.sqrt(6 / np.prod(shape[1:]))) * u
    return torch.from_numpy(u.reshape(shape))


def filled(model):
    state = {k: v if k.endswith("num_batches_tracked") else generated(k, tuple(v.shape)) for k, v in model.state_dict().items()}
    model.load_state_dict(state)
    return model.eval()


class Block(nn.Module):
    """A basic block with option A (He et al., section 4.2)."""

    def __init__(self, a, b, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(a, b, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(b)
        self.conv2 = nn.Conv2d(b, b, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(b)
        self.stride, self.more = stride, b - a

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.stride != 1 or self.more:
            side = self.more // 2
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, side, side))
        return F.relu(y + x)


class Cifar(nn.Module):
    def __init__(self, n, width, classes=10):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        before = width
        for stage in range(3):
            w = width << stage
            blocks = [Block(before if i == 0 else w, w, 2 if i == 0 and stage else 1) for i in range(n)]
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
            before = w
        self.linear = nn.Linear(before, classes)

    def feature_map(self, x):
        return self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x))))))


def cifar_stem(model, classes):
    model.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    model.maxpool = nn.Identity()
    model.fc = nn.Linear(512, classes)
    return model


def torch_map(model):
    def run(x):
        x = model.maxpool(F.relu(model.bn1(model.conv1(x))))
        return model.layer4(model.layer3(model.layer2(model.layer1(x))))

    return run


expected = {}


def record(name, head, feature_map, side, n):
    """Pooled features, and the input gradient of seeds on avg, std, max, logits."""
    x = torch.from_numpy(uniform(f"{name}.pictures", n * 3 * side * side).reshape(n, 3, side, side)).requires_grad_()
    z = feature_map(x)
    avg, std, top = z.mean((2, 3)), z.std((2, 3)), z.amax((2, 3))
    logits = head(avg)
    parts = {"avg": avg, "std": std, "max": top, "logits": logits}
    total = 0
    for part, value in parts.items():
        expected[f"{name}.{part}"] = value.detach()
        seeds = torch.from_numpy(uniform(f"{name}.seed.{part}", value.numel()).reshape(value.shape))
        total = total + (seeds * value).sum()
    (expected[f"{name}.gradient"],) = torch.autograd.grad(total, x, retain_graph=True)
    p = F.log_softmax(logits / 1000, dim=1).max(1).values.sum()
    (g,) = torch.autograd.grad(p, x, retain_graph=True)
    moved = x.detach() + 0.01 * g.sign()
    expected[f"{name}.odin"] = head(feature_map(moved).mean((2, 3))).detach()
    # I-ODIN: the value of the largest gradient alone.
    one = torch.zeros_like(g).flatten(1).scatter_(1, g.abs().flatten(1).argmax(1, keepdim=True), 1).view_as(g)
    expected[f"{name}.iodin"] = head(feature_map(x.detach() + g.sign() * one).mean((2, 3))).detach()
    # AdaSCALE: those of the smallest gradients of the largest logit.
    (g,) = torch.autograd.grad(logits.max(1).values.sum(), x)
    size = g[0].numel()
    least = g.abs().flatten(1).topk(int(size * 0.05), dim=1, largest=False).indices
    some = torch.zeros_like(g).flatten(1).scatter_(1, least, 1).view_as(g)
    expected[f"{name}.nudged"] = head(feature_map(x.detach() + 0.5 * g.sign() * some).mean((2, 3))).detach()


m = filled(cifar_stem(timm.create_model("resnet34", pretrained=False), 10))
record("resnet34", m.fc, lambda x: m.forward_features(x), 32, 1)
m50 = filled(torchvision.models.resnet50())
record("resnet50", m50.fc, torch_map(m50), 64, 1)
m18 = filled(torchvision.models.resnet18(num_classes=7))
record("resnet18", m18.fc, torch_map(m18), 48, 1)
m20 = filled(Cifar(3, 16))
record("resnet20", m20.linear, m20.feature_map, 32, 1)

# Small ones in files: 1 block a stage, 4 channels.
small = filled(Cifar(1, 4))
record("small", small.linear, small.feature_map, 8, 2)
state = small.state_dict()
torch.save({"model_state": state, "epoch": 3, "optimizer": {"lr": 0.1}}, out / "model_state.pt")
torch.save({"state_dict": {"module." + k: v for k, v in state.items()}, "best": 91.7}, out / "module.th", _use_new_zipfile_serialization=False)
torch.save({k: v.half() if v.is_floating_point() else v for k, v in state.items()}, out / "bare_half.pth")
torch.save({"a." + k: v for k, v in state.items()} | {"b." + k: v for k, v in state.items()}, out / "two.pt")
save_file({k: v.contiguous() for k, v in expected.items()}, out / "expected.safetensors")
print({k: (tuple(v.shape), float(v.abs().max())) for k, v in expected.items()})
