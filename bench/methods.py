"""Methods that read maps, layers, gradients or other views of the images, beside pytorch-ood's own: from images to
scores on the published CIFAR-10 ResNet-20.

    python bench/methods.py target/release/heat IMAGES resnet20-cifar10.th [--rows 1000] [--passes 16]

IMAGES is a directory with `cifar-10-binary-15k.tar.gz`, `cifar-100-test-3000-png.tar.gz`, `tiny-imagenet-200-val-3000.tar.gz`,
`dtd-10x10.tar` and `mnist-t10k-images-idx3-ubyte.gz`. Of each set the first rows; larger images are resized to 32 x 32
by Pillow, once, so that both sides get the same pixels: here from PNG files, which are decoded, there from tensors. Fitted
on CIFAR-10's training batch of 5,000. Here a method's time is that of `heat extract` with what it asks for, `heat fit` and
`heat score` of all sets; there of fit and prediction by the network, 250 images at a time. Memory is the peak of the
largest process, PyTorch's import in it; each method of the peer runs in a process of its own. Prints Markdown.
"""
import argparse
import gzip
import io
import json
import os
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

LAYERS = {"stage1": "layer1.2.sum.relu", "stage2": "layer2.2.sum.relu"}
# Scorer, what `heat extract` is asked for, the peer's name for it.
METHODS = [
    ("openmax", [], "OpenMax"),
    ("gram", ["--for", "gram", "TAPS"], "Gram"),
    ("maha of three layers", ["TAPS"], "MultiMahalanobis"),
    ("rankfeat", ["--for", "rankfeat"], "RankFeat"),
    ("nac", [], "NACUE"),
    ("nac of three layers", ["--for", "nac", "TAPS"], "NACUE of three layers"),
    ("graduncertainty", [], "GradUncertainty"),
    ("graduncertainty(parameters=all)", ["--for", "graduncertainty"], "GradUncertainty of all parameters"),
    ("lid", [], None),
    ("dknn", [], None),
    ("trust", [], None),
    ("jtla", ["TAPS"], None),
    ("feature_squeezing", ["--views", "bits5,median2"], None),
    ("adascale_a", ["--views", "nudged5"], None),
    ("adascale_l", ["--views", "nudged5"], None),
    ("odds", ["--views", "NOISE"], None),
    ("mcd with dropout before the head", ["--views", "DROPOUT"], "MCD with dropout before the head"),
    ("mcd with dropout in each block", ["--views", "DROPOUT"], "MCD with dropout in each block"),
]


def logits_of(network):
    """A network that gives its logits alone."""
    import torch

    class Logits(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, x):
            return self.network(x)[1]

    return Logits()


def dropping(weights, where):
    """The network with dropout: of half of the features before the head (as in OpenOOD), or of a tenth of the values between the two
    convolutions of each block."""
    import torch
    from resnet20 import Block, load

    network = load(weights)
    places = [network.linear] if "head" in where else [m.conv2 for m in network.modules() if isinstance(m, Block)]
    drops = [torch.nn.Dropout(0.5 if "head" in where else 0.1) for _ in places]
    for place, drop in zip(places, drops, strict=True):
        place.register_forward_pre_hook(lambda _, x, drop=drop: (drop(x[0]),))
        place.add_module("drop", drop)

    return logits_of(network).eval(), drops


def exported(weights, where, path):
    """That network as a graph that still has its dropout."""
    import torch

    network, drops = dropping(weights, where)
    for drop in drops:
        drop.train()
    names = {"input_names": ["image"], "output_names": ["logits"], "dynamic_axes": {"image": {0: "n"}}}
    keep = {"training": torch.onnx.TrainingMode.PRESERVE, "do_constant_folding": False, "dynamo": False}
    torch.onnx.export(network, torch.zeros(2, 3, 32, 32), path, **names, **keep)
    return path


def images(folder, rows):
    """Of each set `[n, 3, 32, 32]` bytes."""
    from resnet20 import records

    archive = folder / "cifar-10-binary-15k.tar.gz"
    labels, train = records(archive, "data_batch_1.bin")
    sets = {"test": records(archive, "test_batch.bin")[1][:rows]}

    def files(name, suffixes):
        with tarfile.open(folder / name) as tar:
            # In the order of the archive, as what is compressed is read from its beginning.
            wanted = (m for m in tar if m.name.lower().endswith(suffixes))
            found = [(m.name, Image.open(io.BytesIO(tar.extractfile(m).read())).convert("RGB")) for m in wanted]
        found = [image for _, image in sorted(found, key=lambda f: f[0])[:rows]]
        found = [np.asarray(i.resize((32, 32), Image.Resampling.BILINEAR)) for i in found]
        return np.stack(found).transpose(0, 3, 1, 2)

    sets["cifar100"] = files("cifar-100-test-3000-png.tar.gz", ".png")
    sets["tin"] = files("tiny-imagenet-200-val-3000.tar.gz", ".jpeg")
    sets["dtd"] = files("dtd-10x10.tar", ".jpg")
    digits = np.frombuffer(gzip.open(folder / "mnist-t10k-images-idx3-ubyte.gz").read(), np.uint8, offset=16)
    digits = [np.asarray(Image.fromarray(d).convert("RGB").resize((32, 32))) for d in digits.reshape(-1, 28, 28)[:rows]]
    sets["mnist"] = np.stack(digits).transpose(0, 3, 1, 2)
    return labels, train, sets


def there(name, args):
    """The peer's scores of one method, in a process of its own."""
    import torch
    from pytorch_ood import detector as ood
    from resnet20 import load, normal
    from torch.nn import Flatten, Sequential
    from torch.nn import functional as F

    torch.set_num_threads(2)
    labels, train, sets = images(args.images, args.rows)
    network = load(args.weights)

    class Stem(torch.nn.Module):
        def forward(self, x):
            return network.layer1(F.relu(network.bn1(network.conv1(x))))

    class Mean(torch.nn.Module):
        def forward(self, x):
            return x.mean((2, 3))

    logits = logits_of(network)
    layers = [Stem(), network.layer2, network.layer3]
    head = Sequential(Mean(), network.linear)
    make = {
        "OpenMax": lambda: ood.OpenMax(logits, tailsize=20),
        "Gram": lambda: ood.Gram(head, layers, 10, range(1, 11)),
        "MultiMahalanobis": lambda: ood.MultiMahalanobis(layers),
        "RankFeat": lambda: ood.RankFeat(Sequential(*layers), head),
        "NACUE": lambda: ood.NACUE(logits, [network.layer3]),
        "NACUE of three layers": lambda: ood.NACUE(logits, [network.layer1, network.layer2, network.layer3]),
        "GradUncertainty": lambda: ood.GradUncertainty(logits, lambda n: "linear" in n),
        "GradUncertainty of all parameters": lambda: ood.GradUncertainty(logits),
    }
    if name.startswith("MCD"):
        make[name] = lambda: ood.MCD(dropping(args.weights, name)[0], samples=args.passes)
    detector = make[name]().to("cpu")
    data = torch.utils.data.TensorDataset(normal(train), torch.tensor(labels))
    inputs = {k: normal(v) for k, v in sets.items()}
    start = time.perf_counter()
    grad = name.startswith(("NACUE", "GradUncertainty"))
    with torch.enable_grad() if grad else torch.no_grad():
        detector.fit(torch.utils.data.DataLoader(data, batch_size=250))
        fitted = time.perf_counter()
        scores = {k: torch.cat([detector.predict(b) for b in x.split(250)]).detach().tolist() for k, x in inputs.items()}
    times = (fitted - start, time.perf_counter() - fitted)
    print(json.dumps({"scores": scores, "times": times}))


def child(command):
    """Its output, seconds and peak of memory in MiB."""
    start = time.perf_counter()
    process = subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    out, said = process.stdout.read(), process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(map(str, command))}: {said[-2000:]}")
    return out, time.perf_counter() - start, used.ru_maxrss / 1024


def figures(scores):
    """AUROC of each OOD set, their mean, and the mean FPR95 (ID+)."""
    from sklearn.metrics import roc_auc_score

    test = np.array(scores["test"])
    others = {k: np.array(v) for k, v in scores.items() if k != "test"}
    truth = lambda v: np.r_[np.zeros(len(test)), np.ones(len(v))]
    auroc = [100 * roc_auc_score(truth(v), np.r_[test, v]) for v in others.values()]
    # At least 95 % of the test images are taken for in-distribution.
    bound = np.sort(test)[int(np.ceil(0.95 * len(test))) - 1]
    fpr = [100 * np.mean(v <= bound) for v in others.values()]
    return [*auroc, np.mean(auroc), np.mean(fpr)]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("heat")
    parser.add_argument("images", type=Path)
    parser.add_argument("weights")
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--passes", type=int, default=16)
    parser.add_argument("--only", default="")
    parser.add_argument("--there", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.there:
        return there(args.there, args)
    labels, train, sets = images(args.images, args.rows)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for name, raw in {"train": train, **sets}.items():
            for i, image in enumerate(raw):
                where = folder / "images" / name / (str(labels[i]) if name == "train" else "")
                where.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image.transpose(1, 2, 0)).save(where / f"{i:05}.png")
        common = ["--preset", "cifar10_imagenet", "--dtype", "f32", "--threads", 2]
        taps = ["--tap", "stage1_end=" + LAYERS["stage1"], "--tap", "stage2_end=" + LAYERS["stage2"]]
        made = {}

        def extracted(asked, name):
            """The sets with what is asked for; the seconds and memory it took."""
            words = []
            for word in asked:
                word = word.replace("NOISE", f"noise8x{args.passes}").replace("DROPOUT", f"dropout{args.passes}")
                words += taps if word == "TAPS" else [word]
            if "dropout" in name:
                words += ["--backbone", exported(args.weights, name, folder / f"{name}.onnx")]
            else:
                words += ["--backbone", args.weights]
            key = " ".join(map(str, words))
            if key not in made:
                out, seconds, peak = folder / f"sets{len(made)}", 0.0, 0.0
                for name in ["train", *sets]:
                    labelled = ["--format", "folder"] if name == "train" else []
                    _, took, most = child([args.heat, "extract", folder / "images" / name, *common, *words, *labelled, "-o", out / name])
                    seconds, peak = seconds + took, max(peak, most)
                made[key] = (out, seconds, peak)
            return made[key]

        print("| | " + " | ".join([k for k in sets if k != "test"]) + " | mean AUROC | FPR95 (ID+) | seconds | MiB |")
        print("|" + "---|" * (len(sets) + 4))

        def row(name, scores, seconds, peak):
            cells = [f"{v:.1f}" for v in figures(scores)]
            print(f"| {name} | {' | '.join(cells)} | {seconds} | {peak:.0f} |", flush=True)

        for name, asked, peer in METHODS:
            if args.only and name not in args.only.split(","):
                continue
            out, seconds, peak = extracted(asked, name)
            extraction = seconds
            spec = f"odds(noise_samples={args.passes})" if name == "odds" else name
            if name.startswith("mcd"):
                spec = f"mcd(samples={args.passes})"
            specs = [spec]
            if "of three layers" in name:
                spec = name.split()[0]
                specs = [f"{spec}(layer=stage1_end)", f"{spec}(layer=stage2_end)", spec]
            totals = {}
            for spec in specs:
                _, took, most = child([args.heat, "fit", spec, "--train", out / "train", "-o", folder / "d"])
                seconds, peak = seconds + took, max(peak, most)
                for part in sets:
                    text, took, most = child([args.heat, "score", folder / "d", out / part])
                    seconds, peak = seconds + took, max(peak, most)
                    header, *lines = text.splitlines()
                    at = header.split(",").index("score")
                    values = np.array([float(line.split(",")[at]) for line in lines])
                    totals[part] = totals.get(part, 0) + values
            label, _, rest = name.partition(" ")
            row(f"`{label}` {rest}".strip(), totals, f"{seconds:.1f} ({extraction:.1f} extracting)", peak)
            if peer:
                command = [sys.executable, __file__, args.heat, args.images, args.weights, "--rows", args.rows, "--passes", args.passes, "--there", peer]
                text, _, most = child(command)
                found = json.loads(text.splitlines()[-1])
                fit, score = found["times"]
                row(f"pytorch-ood's {peer}", found["scores"], f"{fit + score:.1f} ({fit:.1f} fitting)", most)


main()
