"""`heat extract` end to end against PyTorch with a DataLoader, and its transforms against torchvision.

    python bench/extract.py target/release/heat --timings target/release/examples/transform_timings [--rounds 3]        # torch, torchvision, timm, pillow, numpy, onnxruntime

Pictures are generated (JPEG of 500 x 375 and 64 x 64, with some texture), weights too; both sides read the same
files and the same checkpoint, decode, resize, run the network in evaluation mode without gradients, pool to avg and
std, and write the features. PyTorch is given what suits it best of several ways (workers, channels_last, folded
batch normalisation): all are timed, the best counts.
"""
import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import timm
import torch
import torchvision
from PIL import Image
from torch import nn
from torchvision import transforms as T


def make_pictures(folder, n, width, height, seed):
    rng = np.random.default_rng(seed)
    for i in range(n):
        path = folder / f"class{i % 10}" / f"{i:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        small = rng.integers(0, 256, (height // 10, width // 10, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(small).resize((width, height), Image.BICUBIC), dtype=np.int16)
        noisy = np.clip(smooth + rng.normal(0, 12, smooth.shape), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(path, quality=90)


def cifar_resnet34():
    model = timm.create_model("resnet34", pretrained=False, num_classes=10)
    model.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    model.maxpool = nn.Identity()
    return model, lambda x: model.forward_features(x)


def resnet50():
    model = torchvision.models.resnet50(weights=None)

    def run(x):
        x = model.maxpool(model.relu(model.bn1(model.conv1(x))))
        return model.layer4(model.layer3(model.layer2(model.layer1(x))))

    return model, run


CASES = {
    "resnet34-cifar": dict(model=cifar_resnet34, size=(64, 64), n=2000, preset="cifar10", resize=[32, 32], crop=None, mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616)),
    "resnet50-224": dict(model=resnet50, size=(500, 375), n=256, preset="imagenet", resize=256, crop=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
}


def transform(case):
    steps = [T.Resize(case["resize"])] + ([T.CenterCrop(case["crop"])] if case["crop"] else [])
    return T.Compose(steps + [T.ToTensor(), T.Normalize(case["mean"], case["std"])])


def peer(case, pictures, weights, out, workers, layout, fuse, batch):
    torch.set_num_threads(2)
    model, feature_map = case["model"]()
    model.load_state_dict(torch.load(weights, weights_only=True))
    model.eval()
    if fuse:
        for parent in list(model.modules()):
            for a, b in [("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3")]:
                if hasattr(parent, a) and isinstance(getattr(parent, b, None), nn.BatchNorm2d):
                    bn = getattr(parent, b)
                    # timm's layers hold their activation beside the normalisation.
                    setattr(parent, a, nn.utils.fuse_conv_bn_eval(getattr(parent, a), bn))
                    setattr(parent, b, nn.Identity())
            down = getattr(parent, "downsample", None)
            if isinstance(down, nn.Sequential) and len(down) == 2:
                parent.downsample = nn.Sequential(nn.utils.fuse_conv_bn_eval(down[0], down[1]))
    if layout:
        model = model.to(memory_format=torch.channels_last)
    data = torchvision.datasets.ImageFolder(pictures, transform(case))
    loader = torch.utils.data.DataLoader(data, batch_size=batch, num_workers=workers)
    parts = {"avg": [], "std": [], "logits": []}
    start = time.perf_counter()
    with torch.inference_mode():
        for x, _ in loader:
            if layout:
                x = x.contiguous(memory_format=torch.channels_last)
            z = feature_map(x)
            avg = z.mean((2, 3))
            parts["avg"].append(avg)
            parts["std"].append(z.std((2, 3)))
            parts["logits"].append(model.get_classifier()(avg) if hasattr(model, "get_classifier") else model.fc(avg))
    np.savez(out, **{k: torch.cat(v).numpy() for k, v in parts.items()})
    return time.perf_counter() - start


def ours(heat, case, pictures, weights, out, batch):
    shutil.rmtree(out, ignore_errors=True)
    command = [heat, "extract", str(pictures), "--backbone", str(weights), "--preset", case["preset"], "--batch-size", str(batch), "-o", str(out), "--threads", "2"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    # Its own clock, from the opened data set to the renamed folder: as the peer's, without start-up.
    line = next(line for line in said.splitlines() if " images in " in line)
    return float(line.split(" images in ")[1].split(" s")[0])


def transforms(timings, rounds):
    """One thread each, decoded images in memory: resize, crop, to tensor, normalise."""
    torch.set_num_threads(1)
    for name, (width, height) in {"resnet50-224": (500, 375), "resnet34-cifar": (64, 64)}.items():
        case = CASES[name]
        picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))
        n = 200 if width > 100 else 3000
        apply, theirs, mine = transform(case), [], []
        for _ in range(rounds):
            apply(picture)
            start = time.perf_counter()
            for _ in range(n):
                apply(picture)
            theirs.append((time.perf_counter() - start) / n)
            command = [timings, f"width={width}", f"height={height}", f"crop={case['crop'] or 0}", "side=32", f"n={n}", "reps=1"]
            mine += json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["seconds"]
        a, b = float(np.median(theirs)), float(np.median(mine))
        print(f"transforms {width} x {height} of {name}: torchvision {a * 1e6:.0f} us, heat {b * 1e6:.0f} us, {a / b:.2f} times as fast")


def agreement(out, npz):
    from safetensors.numpy import load_file

    shards = [load_file(p) for p in sorted(Path(out).glob("shard-*.safetensors"))]
    theirs = np.load(npz)
    for part in ("avg", "std", "logits"):
        got = np.concatenate([s[part] for s in shards]).astype(np.float32)
        print(f"  {part}: largest difference {np.abs(got - theirs[part]).max():.4f} of {np.abs(theirs[part]).max():.4f}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("heat")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--timings", help="target/release/examples/transform_timings: also the transforms alone")
    parser.add_argument("--peer")
    args = parser.parse_args()
    if args.peer:
        job = json.loads(args.peer)
        print(json.dumps(peer(CASES[job.pop("case")], **job)))
        return
    if args.timings:
        transforms(args.timings, args.rounds)
    environment = dict(os.environ, OMP_NUM_THREADS="2")
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for name, case in CASES.items():
            if args.only and args.only != name:
                continue
            pictures, weights, out, npz = folder / name, folder / f"{name}.pth", folder / f"{name}.out", folder / f"{name}.npz"
            make_pictures(pictures, case["n"], *case["size"], seed=0)
            torch.manual_seed(0)
            model, _ = case["model"]()
            for m in model.modules():
                if isinstance(m, nn.BatchNorm2d):
                    m.running_mean.normal_(0, 0.05)
                    m.running_var.uniform_(0.5, 1.5)
                    m.weight.data.uniform_(0.3, 0.7)
            torch.save(model.state_dict(), weights)
            ways = [dict(workers=w, layout=layout, fuse=fuse) for w in (0, 2) for layout in (False, True) for fuse in (False, True)]

            def theirs(way, part):
                job = dict(case=name, pictures=str(part), weights=str(weights), out=str(npz), batch=args.batch, **way)
                command = [sys.executable, __file__, args.heat, "--peer", json.dumps(job)]
                return float(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)

            # A short race of all ways; the best two, and the plainest with workers, run in the rounds.
            short = folder / f"{name}.short"
            make_pictures(short, case["n"] // 4, *case["size"], seed=1)
            race = sorted(ways, key=lambda way: theirs(way, short))
            plain = dict(workers=2, layout=False, fuse=False)
            chosen = [json.dumps(w) for w in ([plain] + race[:2])]
            chosen = list(dict.fromkeys(chosen))
            times, mine = {w: [] for w in chosen}, []
            for _ in range(args.rounds):
                for way in chosen:
                    times[way].append(theirs(json.loads(way), pictures))
                mine.append(ours(args.heat, case, pictures, weights, out, args.batch))
            n = case["n"]
            print(f"{name}: {n} images of {case['size']}")
            for way, t in times.items():
                print(f"  torch {way}: {n / np.median(t):.1f} images/s")
            best = min(float(np.median(t)) for t in times.values())
            print(f"  heat: {n / np.median(mine):.1f} images/s, {best / np.median(mine):.2f} of the best, {float(np.median(times[json.dumps(plain)])) / np.median(mine):.2f} of the plain way with 2 workers")
            agreement(out, npz)


if __name__ == "__main__":
    main()
