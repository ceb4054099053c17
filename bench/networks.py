"""Networks by exporter: what `heat extract` makes of them, beside their framework.

    python bench/networks.py [--heat target/release/heat] [--only REGEX] [--families torch,keras,sklearn,quantized,paddle]

Needs torch, torchvision, timm, onnx, onnxscript, onnxruntime, safetensors, numpy, Pillow; the families `keras`
(tensorflow, tf2onnx), `sklearn` (skl2onnx) and `paddle` (paddlepaddle, paddle2onnx; onnx_graphsurgeon and sympy, which its
export would else install by itself) are left out where their packages are not installed. With KERAS_BACKEND=torch, Keras'
networks run on PyTorch and are exported by it. Weights are random, with a fixed seed: what is tested is whether features
and classifier are found.

A row is right where features (`avg`), logits and head are the framework's to 1e-4 of the largest value (quantised
networks: 0.1, the size of their own rounding; their head to 0.02). The features of the framework are what its last linear layer is given,
seen by a hook. Printed as Markdown.
"""
import argparse
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors import safe_open

warnings.filterwarnings("ignore")
N = 2
TORCHVISION = """alexnet convnext_tiny densenet121 densenet169 efficientnet_b0 efficientnet_v2_s googlenet inception_v3 maxvit_t
mnasnet1_0 mobilenet_v2 mobilenet_v3_small mobilenet_v3_large regnet_x_400mf regnet_y_400mf resnet18 resnet34 resnet50 resnext50_32x4d
wide_resnet50_2 shufflenet_v2_x1_0 squeezenet1_1 swin_t swin_v2_t vgg11_bn vit_b_32""".split()
TIMM = """resnet18 resnetv2_50 seresnet18 legacy_seresnet18 ese_vovnet19b_dw hrnet_w18_small dla34 dpn48b cspresnet50
darknet53 efficientnet_lite0 tf_efficientnet_b0 mobilenetv3_small_100 ghostnet_100 mixnet_s rexnet_100 convnextv2_atto nfnet_l0 repvgg_a0
levit_128s deit_tiny_patch16_224 deit_tiny_distilled_patch16_224 cait_xxs24_224 mixer_s32_224 poolformer_s12 pit_ti_224 vit_tiny_patch16_224 crossvit_tiny_240
edgenext_xx_small mobilevit_xxs fastvit_t8 xception41 inception_resnet_v2 tresnet_m selecsls42 coat_tiny""".split()


# Networks without a linear layer at their end: features alone, and so it must be.
HEADLESS = {"torchvision squeezenet1_1": "no head, rightly: a ReLU follows its last layer"}


def pictures(folder, side):
    """`N` images as files, and as what a network is given: [0, 1], channels first."""
    rng = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    all_pixels = []
    for i in range(N):
        pixels = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        all_pixels.append(pixels)
    return np.ascontiguousarray(np.stack(all_pixels).transpose(0, 3, 1, 2).astype(np.float32) / 255)


def extract(heat, model, folder, out):
    """Arrays that the command extracts, its head, and what it says."""
    line = [heat, "extract", folder, "--backbone", model, "--mean", "0,0,0", "--std", "1,1,1", "--dtype", "f32", "-o", out]
    done = subprocess.run([str(part) for part in line], capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1][:160])
    found = {}
    for file in sorted(out.glob("shard-*.safetensors")):
        with safe_open(file, "np") as f:
            found |= {name: f.get_tensor(name) for name in f.keys()}
    heads = [p for p in (out / "head.safetensors", out.parent / "head.safetensors") if p.exists()]
    if heads:
        with safe_open(heads[0], "np") as f:
            found |= {f"head.{name}": f.get_tensor(name) for name in f.keys()}
        heads[0].unlink()
    return found, done.stderr


def apart(got, want):
    """Largest difference, relative to the largest value."""
    if got is None or want is None:
        return None
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64).reshape(len(want), -1)
    got = got.reshape(len(got), -1)
    if got.shape != want.shape:
        return float("inf")
    return np.abs(got - want).max() / max(np.abs(want).max(), 1e-30)


rows = []
# Exporters write to standard output as they like: the table alone stays there.
table = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)


def show(network, exporter, found=None, want=None, said="", error=None, limits=(1e-4, 1e-4)):
    """One row; `want`: avg, logits, head.weight, head.bias of the framework, where it has them."""
    if error is not None:
        row = (network, exporter, "", "", "", f"**{error}**")
    else:
        parts = [apart(found.get(k), want.get(k)) for k in ("avg", "logits", "head.weight")]
        shown = ["" if p is None else f"{p:.0e}" for p in parts]
        wrong = [p is not None and not p <= limit for p, limit in zip(parts, (limits[0], limits[0], limits[1]))]
        note = "avg, std, max" if "std" in found else "avg"
        missing = [k for k in ("avg", "logits", "head.weight") if want.get(k) is not None and found.get(k) is None]
        if network in HEADLESS:
            note = "**a head that it has not**" if "head.weight" in found else HEADLESS[network]
        elif missing:
            note = f"**missing: {', '.join(missing)}**"
        elif any(wrong):
            note = "**differs**"
        row = (network, exporter, *shown, note)
    rows.append(row)
    print("| " + " | ".join(row) + " |", flush=True, file=table)


def hooked(model, x):
    """Features, logits and head of a PyTorch classifier: what its last linear layer is given."""
    import torch
    from torch import nn

    calls = []
    layers = [m for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    for layer in layers:
        layer.register_forward_hook(lambda m, i, o: calls.append((m, i[0].detach().clone(), o.detach().clone())))
    with torch.no_grad():
        y = model(torch.from_numpy(x))
    y = y[0] if isinstance(y, (tuple, list)) else y
    want = {"logits": y.numpy()}
    last, z, out = calls[-1]
    for layer in layers:
        layer._forward_hooks.clear()
    flat = out.flatten(1) if out.ndim == 2 or out.shape[2:].numel() == 1 else out.mean((2, 3)) if out.ndim == 4 else None
    if flat is None or flat.shape != y.shape or not torch.allclose(flat, y, atol=1e-4 * float(y.abs().max())):
        return want
    want["avg"] = (z.mean((2, 3)) if z.ndim == 4 else z).numpy()
    want["head.weight"] = last.weight.detach().flatten(1).numpy()
    return want


def of_torch(heat, only, room):
    import timm
    import torch
    import torchvision

    def made(name):
        torch.manual_seed(0)
        kind, name = name.split(" ")
        if kind == "timm":
            model = timm.create_model(name, pretrained=False, num_classes=10)
            side = model.default_cfg["input_size"][-1]
        else:
            more = {"aux_logits": False, "init_weights": True} if name in ("googlenet", "inception_v3") else {}
            model = getattr(torchvision.models, name)(num_classes=10, **more)
            side = 299 if name == "inception_v3" else 224
        return model.eval(), side

    for name in [f"torchvision {n}" for n in TORCHVISION] + [f"timm {n}" for n in TIMM]:
        if not re.search(only, name):
            continue
        try:
            model, side = made(name)
            if side > 240 and "timm" in name:
                side = 224 if getattr(model, "img_size", None) is None else side
            x = pictures(room / f"images{side}", side)
            want = hooked(model, x) if name not in HEADLESS else {}
        except Exception as e:
            show(name, "", error=f"framework: {str(e).splitlines()[0][:100]}")
            continue
        for exporter in ("dynamo", "torchscript"):
            file = room / "model.onnx"
            for old in room.glob("model.onnx*"):
                old.unlink()
            try:
                out = room / "out"
                subprocess.run(["rm", "-rf", out])
                if exporter == "dynamo":
                    torch.onnx.export(model, (torch.from_numpy(x),), file, input_names=["image"], dynamo=True, verbose=False)
                else:
                    torch.onnx.export(model, (torch.from_numpy(x),), file, input_names=["image"], dynamo=False,
                                      dynamic_axes={"image": {0: "batch"}})
            except Exception as e:
                show(name, exporter, error=f"not exported: {type(e).__name__}")
                continue
            try:
                found, said = extract(heat, file, room / f"images{side}", out)
                show(name, exporter, found, want, said)
            except Exception as e:
                show(name, exporter, error=str(e).splitlines()[0][:160])


def of_keras(heat, only, room):
    import keras

    side = 96
    x = pictures(room / f"images{side}", side)
    last = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    exporters = ("dynamo",) if keras.backend.backend() == "torch" else ("tf2onnx", "keras")
    for name in "MobileNetV2 ResNet50 ResNet50V2 DenseNet121 EfficientNetB0 EfficientNetV2B0 NASNetMobile Xception VGG16 ConvNeXtTiny MobileNetV3Small".split():
        if not re.search(only, f"keras {name}"):
            continue
        try:
            keras.utils.set_random_seed(0)
            model = getattr(keras.applications, name)(weights=None, classes=10, input_shape=(side, side, 3))
            # Dense, or a convolution of one cell after the pooling; softmax may be a layer of its own.
            head = [layer for layer in model.layers if len(layer.get_weights()) == 2][-1]
            z = keras.ops.convert_to_numpy(keras.Model(model.inputs, head.input)(last)).reshape(N, -1)
            w, b = (np.asarray(v) for v in head.get_weights())
            w = w.reshape(-1, w.shape[-1])
            want = {"avg": z, "head.weight": w.T, "logits": z @ w + b}
        except Exception as e:
            show(f"keras {name}", "", error=f"framework: {str(e).splitlines()[0][:100]}")
            continue
        for exporter in exporters:
            file, out = room / "model.onnx", room / "out"
            subprocess.run(["rm", "-rf", out, room / "saved", *room.glob("model.onnx*")])
            try:
                if exporter == "tf2onnx":
                    # Through a SavedModel: constants of the preprocessing would else become inputs.
                    model.export(str(room / "saved"), verbose=False)
                    convert = ["-m", "tf2onnx.convert", "--saved-model", room / "saved", "--opset", "17", "--output", file]
                    subprocess.run([sys.executable, *convert], check=True, capture_output=True)
                elif exporter == "dynamo":
                    import torch

                    torch.onnx.export(model.eval(), (torch.from_numpy(last),), file, input_names=["image"], dynamo=True, verbose=False)
                else:
                    model.export(str(file), format="onnx", verbose=False)
            except Exception as e:
                show(f"keras {name}", exporter, error=f"not exported: {type(e).__name__}")
                continue
            try:
                show(f"keras {name}", exporter, *_order(extract(heat, file, room / f"images{side}", out), want))
            except Exception as e:
                show(f"keras {name}", exporter, error=str(e).splitlines()[0][:160])


def _order(made, want):
    found, said = made
    return found, want, said


def of_sklearn(heat, only, room):
    """A linear classifier of scikit-learn on the features of a network, as one graph."""
    import onnx
    import torch
    import torchvision
    from skl2onnx import to_onnx
    from sklearn.linear_model import LogisticRegression, SGDClassifier

    side = 64
    x = pictures(room / f"images{side}", side)
    torch.manual_seed(0)
    model = torchvision.models.resnet18()
    model.fc = torch.nn.Identity()
    model.eval()
    rng = np.random.default_rng(0)
    rows, labels = rng.normal(size=(60, 512)).astype(np.float32), np.arange(60) % 4
    with torch.no_grad():
        z = model(torch.from_numpy(x)).numpy()
    for kind in (LogisticRegression(), SGDClassifier(loss="log_loss", random_state=0)):
        name = f"resnet18 + {type(kind).__name__}"
        if not re.search(only, f"sklearn {name}"):
            continue
        kind.fit(rows, labels)
        file, out = room / "model.onnx", room / "out"
        subprocess.run(["rm", "-rf", out, *room.glob("model.onnx*")])
        try:
            torch.onnx.export(model, (torch.from_numpy(x),), file, input_names=["image"], output_names=["z"], dynamo=False,
                              opset_version=17, dynamic_axes={"image": {0: "n"}, "z": {0: "n"}})
            linear = to_onnx(kind, rows[:1], target_opset={"": 17, "ai.onnx.ml": 3}, options={"zipmap": False})
            first = onnx.load(file)
            linear.ir_version = first.ir_version
            linear = onnx.compose.add_prefix(linear, "sk_")
            whole = onnx.compose.merge_models(first, linear, io_map=[("z", linear.graph.input[0].name)])
            onnx.save(whole, file)
            want = {"avg": z, "head.weight": kind.coef_, "logits": z @ kind.coef_.T + kind.intercept_}
            found, said = extract(heat, file, room / f"images{side}", out)
            show(name, "skl2onnx", found, want, said)
        except Exception as e:
            show(name, "skl2onnx", error=str(e).splitlines()[0][:160])


def of_quantized(heat, only, room):
    import torch
    import torchvision
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_dynamic, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    # What VGG pools to 7×7 must be a multiple of it.
    side = 224
    x = pictures(room / f"images{side}", side)

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.rows = iter([{"image": x[i : i + 1]} for i in range(N)])

        def get_next(self):
            return next(self.rows, None)

    for name in ("resnet18", "mobilenet_v2", "vgg11_bn"):
        if not re.search(only, f"quantized {name}"):
            continue
        torch.manual_seed(0)
        model = getattr(torchvision.models, name)(num_classes=10).eval()
        want = hooked(model, x)
        plain, ready, file, out = room / "plain.onnx", room / "ready.onnx", room / "model.onnx", room / "out"
        torch.onnx.export(model, (torch.from_numpy(x),), plain, input_names=["image"], dynamo=False, dynamic_axes={"image": {0: "n"}})
        quant_pre_process(str(plain), str(ready))
        for exporter in ("QDQ", "QDQ per channel", "QOperator", "dynamic"):
            subprocess.run(["rm", "-rf", out, *room.glob("model.onnx*")])
            try:
                if exporter == "dynamic":
                    quantize_dynamic(str(ready), str(file), op_types_to_quantize=["MatMul", "Gemm"])
                else:
                    form = QuantFormat.QOperator if exporter == "QOperator" else QuantFormat.QDQ
                    quantize_static(str(ready), str(file), Reader(), quant_format=form, per_channel="channel" in exporter)
                found, said = extract(heat, file, room / f"images{side}", out)
                show(f"{name} (8 bits)", exporter, found, want, said, limits=(0.1, 0.02))
            except Exception as e:
                show(f"{name} (8 bits)", exporter, error=str(e).splitlines()[0][:160])


def of_paddle(heat, only, room):
    import paddle

    for name in ("resnet18", "mobilenet_v2", "vgg11", "densenet121", "shufflenet_v2_x1_0", "mobilenet_v3_small"):
        if not re.search(only, f"paddle {name}"):
            continue
        # Of a map smaller than the 7×7 that VGG pools to, the exporter makes a pooling with strides of 0: shape inference divides by them.
        side = 224 if name.startswith("vgg") else 64
        x = pictures(room / f"images{side}", side)
        paddle.seed(0)
        out = room / "out"
        subprocess.run(["rm", "-rf", out, *room.glob("model.onnx*")])
        try:
            model = getattr(paddle.vision.models, name)(num_classes=10)
            model.eval()
            calls, linear = [], [layer for layer in model.sublayers() if isinstance(layer, paddle.nn.Linear)]
            see = lambda m, i, o: calls.append((m, i[0].numpy(), o.numpy()))
            hooks = [layer.register_forward_post_hook(see) for layer in linear]
            y = model(paddle.to_tensor(x))
            for hook in hooks:
                hook.remove()
            want = {"avg": calls[-1][1], "head.weight": calls[-1][0].weight.numpy().T, "logits": y.numpy()}
            spec = paddle.static.InputSpec([None, 3, side, side], "float32", "image")
            paddle.onnx.export(model, str(room / "model"), input_spec=[spec], opset_version=17)
        except Exception as e:
            show(f"paddle {name}", "paddle2onnx", error=f"not exported: {type(e).__name__}")
            continue
        try:
            found, said = extract(heat, room / "model.onnx", room / f"images{side}", out)
            show(f"paddle {name}", "paddle2onnx", found, want, said)
        except Exception as e:
            show(f"paddle {name}", "paddle2onnx", error=str(e).splitlines()[0][:160])


FAMILIES = {
    "torch": (of_torch, ["torch", "torchvision", "timm", "onnxscript"]),
    "keras": (of_keras, ["tensorflow", "tf2onnx"]),
    "sklearn": (of_sklearn, ["skl2onnx", "sklearn"]),
    "quantized": (of_quantized, ["onnxruntime", "torchvision"]),
    "paddle": (of_paddle, ["paddle", "paddle2onnx"]),
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--heat", default="target/release/heat")
    parser.add_argument("--only", default="")
    parser.add_argument("--families", default=",".join(FAMILIES))
    args = parser.parse_args()
    print("| network | exporter | features | logits | head | written |\n|---|---|---|---|---|---|", flush=True, file=table)
    for family in args.families.split(","):
        run, needs = FAMILIES[family]
        absent = [name for name in needs if importlib.util.find_spec(name) is None]
        if absent:
            print(f"{family} left out: no {', '.join(absent)}", file=sys.stderr)
            continue
        with tempfile.TemporaryDirectory() as room:
            run(Path(args.heat).resolve(), args.only, Path(room))
    bad = [row for row in rows if "**" in row[-1]]
    print(f"\n{len(rows) - len(bad)} of {len(rows)} as in the framework.", file=table)
