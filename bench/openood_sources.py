"""`heat_ood.openood` with OpenOOD's own sources: its network, its postprocessors, its metrics.

    git clone https://github.com/Jingkang50/OpenOOD
    python bench/openood_sources.py OpenOOD        # heat-ood, torch, scikit-learn, faiss-cpu, statsmodels

Takes a quarter of an hour on two cores. OpenOOD is in no registry of packages, so CI knows its interface from a stub; this tries the real one. A ResNet-18 of theirs learns for
a moment to tell three textures apart; their postprocessors and ours are set up with the same loaders and judged by their
`compute_all_metrics`. Prints, for each method, AUROC and FPR95 of both sides, and by how much their metrics differ from
`heat_ood.metrics`. The modules are imported one by one, as `import openood` needs packages that few have.
"""

import importlib
import sys
import types
from pathlib import Path

import numpy as np
import torch

import heat_ood as ho

ROOT = Path(sys.argv[1]).resolve()
sys.path.insert(0, str(ROOT))
for package in ("openood", "openood.postprocessors", "openood.networks", "openood.evaluators"):
    module = types.ModuleType(package)
    module.__path__ = [str(ROOT / package.replace(".", "/"))]
    sys.modules[package] = module


def theirs(package, name):
    return importlib.import_module(f"openood.{package}.{name}")


Base = theirs("postprocessors", "base_postprocessor").BasePostprocessor
compute_all_metrics = theirs("evaluators", "metrics").compute_all_metrics
ResNet18 = theirs("networks", "resnet18_32x32").ResNet18_32x32

from heat_ood.openood import HeatPostprocessor  # noqa: E402

assert issubclass(HeatPostprocessor, Base), "the real base class is found"


def images(n, kind, seed):
    """Stripes along one of two axes, or spots; OOD: diagonal stripes."""
    g = torch.Generator().manual_seed(seed)
    t = torch.linspace(0, 1, 32)
    phase, rate = torch.rand(n, generator=g)[:, None, None] * 6, 3 + 5 * torch.rand(n, generator=g)[:, None, None]
    x, y = t[None, None, :], t[None, :, None]
    wave = [x + 0 * y, y + 0 * x, None, x + y][kind]
    pattern = torch.sin(6.28 * rate * wave + phase) if wave is not None else torch.sin(20 * x + phase) * torch.sin(20 * y + phase)
    return pattern[:, None].expand(n, 3, 32, 32) * 0.5 + 0.3 * torch.randn(n, 3, 32, 32, generator=g)


def loader(n, seed, ood=False):
    if ood:
        x, y = images(n, 3, seed), torch.full((n,), -1)
    else:
        x, y = torch.cat([images(n // 3, k, seed + k) for k in range(3)]), torch.arange(3).repeat_interleave(n // 3)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    x, y = x[order], y[order]
    return [{"data": x[i : i + 100], "label": y[i : i + 100]} for i in range(0, len(x), 100)]


torch.manual_seed(0)
net = ResNet18(num_classes=3)
optimizer = torch.optim.SGD(net.parameters(), 0.02, momentum=0.9)
train = loader(900, 0)
for _ in range(6):
    for batch in train:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(batch["data"]), batch["label"]).backward()
        optimizer.step()
net.eval()
# Theirs fit `residual` and `klm` on the validation set: the same rows for all.
loaders = {"train": train, "val": train, "test": loader(600, 100)}
ood = loader(600, 200, ood=True)


class Cpu:
    """Their postprocessors move everything to a GPU; where there is none, `.cuda()` stays."""

    def __enter__(self):
        if not torch.cuda.is_available():
            self.kept = torch.Tensor.cuda, torch.nn.Module.cuda
            torch.Tensor.cuda = lambda self, *_, **__: self
            torch.nn.Module.cuda = lambda self, *_, **__: self

    def __exit__(self, *_):
        if not torch.cuda.is_available():
            torch.Tensor.cuda, torch.nn.Module.cuda = self.kept


def config(**args):
    """What their constructors read."""
    inner = types.SimpleNamespace(**args)
    post = types.SimpleNamespace(postprocessor_args=inner, postprocessor_sweep=None, APS_mode=False, **args)
    return types.SimpleNamespace(postprocessor=post, dataset=types.SimpleNamespace(name="cifar10", num_classes=3), num_classes=3)


def judged(post):
    post.setup(net, loaders, {})
    parts = [post.inference(net, data, progress=False) for data in (loaders["test"], ood)]
    pred, conf, label = (np.concatenate([part[i] for part in parts]) for i in range(3))
    return conf, label, compute_all_metrics(conf, label, pred)


METHODS = [  # theirs: module, class, arguments; ours
    ("base_postprocessor", "BasePostprocessor", {}, "msp"),
    ("ebo_postprocessor", "EBOPostprocessor", {"temperature": 1.0}, "el"),
    ("maxlogit_postprocessor", "MaxLogitPostprocessor", {}, "max_logit"),
    ("knn_postprocessor", "KNNPostprocessor", {"K": 50}, "knn(k=50)"),
    ("vim_postprocessor", "VIMPostprocessor", {"dim": 256}, "vim(principal_dim=256)"),
    ("residual_postprocessor", "ResidualPostprocessor", {"dim": 256}, "residual(principal_dim=256)"),
    ("mds_postprocessor", "MDSPostprocessor", {}, "maha"),
    ("she_postprocessor", "SHEPostprocessor", {"metric": "inner_product"}, "she"),
    ("gen_postprocessor", "GENPostprocessor", {"gamma": 0.1, "M": 3}, "gen(gamma=0.1,m=3)"),
    ("kl_matching_postprocessor", "KLMatchingPostprocessor", {}, "klm"),
]
print("| method | AUROC, FPR95 (OOD+) theirs | ours | their metrics − ours |\n|---|---|---|---|")
worst = 0.0
for module, name, args, ours in METHODS:
    try:
        with Cpu():
            conf, label, (fpr, auroc, *_) = judged(getattr(theirs("postprocessors", module), name)(config(**args)))
        said = f"{100 * auroc:.3f}, {100 * fpr:.2f}"
    except Exception as error:  # noqa: BLE001: theirs may need what is not here
        said = f"did not run: {type(error).__name__}: {error}"
    conf, label, (fpr, auroc, *_) = judged(HeatPostprocessor(ours))
    here = ho.metrics.evaluate(-conf[label != -1], -conf[label == -1])
    off = max(abs(here["auroc"] - auroc), abs(here["fpr95_ood_positive"] - fpr))
    worst = max(worst, off)
    print(f"| `{ours}` | {said} | {100 * auroc:.3f}, {100 * fpr:.2f} | {off:.1e} |", flush=True)
assert worst < 1e-6, worst
