"""Makes onnx/: small classifiers of the shapes met in practice, and what numpy
and ONNX Runtime make of them (expected.safetensors).

    python make_onnx.py        # numpy, onnx, onnxruntime, safetensors
"""
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

out = Path(__file__).parent / "onnx"
out.mkdir(exist_ok=True)
rng = np.random.default_rng(0)
D, C, N, SIDE = 6, 4, 5, 8
weights = {
    "conv": rng.normal(0, 0.4, (D, 3, 3, 3)),
    "fc.weight": rng.normal(0, 1, (C, D)),
    "fc.bias": rng.normal(0, 1, C),
    "dense": rng.normal(0, 0.1, (3 * SIDE * SIDE, D)),
    "axes": np.array([2, 3]),
}
weights = {k: v.astype(np.int64 if k == "axes" else np.float32) for k, v in weights.items()}
weights["fc.columns"] = np.ascontiguousarray(weights["fc.weight"].T)
pictures = rng.normal(0, 1, (N, 3, SIDE, SIDE)).astype(np.float32)
node = helper.make_node
body = [node("Conv", ["image", "conv"], ["c"], name="conv1", pads=[1, 1, 1, 1]), node("Relu", ["c"], ["map"], name="relu1")]
average = [node("GlobalAveragePool", ["map"], ["g"]), node("Flatten", ["g"], ["flat"])]
gemm = node("Gemm", ["flat", "fc.weight", "fc.bias"], ["logits"], name="fc", transB=1)


def save(name, nodes, opset=17, batch="batch", output="logits", dims=("batch", C), side=SIDE, element=TensorProto.FLOAT):
    used = {i for n in nodes for i in n.input}
    initial = [numpy_helper.from_array(v, k) for k, v in weights.items() if k in used]
    image = helper.make_tensor_value_info("image", element, [batch, 3, side, side])
    result = helper.make_tensor_value_info(output, TensorProto.FLOAT, list(dims))
    graph = helper.make_graph(nodes, "g", [image], [result], initial)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(model, out / f"{name}.onnx")


save("plain", body + average + [gemm])
means = [node("ReduceMean", ["map", "axes"], ["flat"], keepdims=0)]
product = [node("MatMul", ["flat", "fc.columns"], ["p"]), node("Add", ["fc.bias", "p"], ["raw"], name="bias"), node("Softmax", ["raw"], ["logits"])]
save("matmul", body + means + product, opset=18)
save("vector", [node("Flatten", ["image"], ["x"]), node("MatMul", ["x", "dense"], ["h"]), node("Relu", ["h"], ["flat"]), gemm])
save("headless", body + average, output="flat", dims=("batch", D))
# A matrix of 768 TiB, by a node whose name would clear a terminal: fails when it runs.
columns = node("ConstantOfShape", ["shape"], ["w"], name="a\x1b[2J\x1b]0;b\x07")
flat = [node("Flatten", ["x"], ["f"]), columns, node("MatMul", ["f", "w"], ["y"], name="c\x1b[2Jd")]
ends = [helper.make_tensor_value_info(k, TensorProto.FLOAT, shape) for k, shape in (("x", ["n", 3, SIDE, SIDE]), ("y", None))]
shape = helper.make_tensor("shape", TensorProto.INT64, [2], [3 * SIDE * SIDE, 1 << 40])
loud = helper.make_graph(flat, "g", ends[:1], ends[1:], [shape])
onnx.save(helper.make_model(loud, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), out / "loud.onnx")
save("fixed", body + average + [gemm], batch=2, dims=(2, C))
save("anysize", body + average + [gemm], side=None)
save("future", body + average + [gemm], opset=99)
save("half", body + average + [gemm], element=TensorProto.FLOAT16)
model = onnx.load(out / "plain.onnx")
onnx.save(model, out / "external.onnx", save_as_external_data=True, location="external.bin", size_threshold=0)
(out / "external.bin").unlink()

session = onnxruntime.InferenceSession(str(out / "headless.onnx"))
cut = onnx.load(out / "headless.onnx")
cut.graph.output.append(helper.make_tensor_value_info("map", TensorProto.FLOAT, None))
fmap = onnxruntime.InferenceSession(cut.SerializeToString()).run(["map"], {"image": pictures})[0].astype(np.float64)
avg = fmap.mean((2, 3))
expected = {"pictures": pictures, "avg": avg, "std": fmap.std((2, 3), ddof=1), "max": fmap.max((2, 3))}
expected["logits"] = avg @ weights["fc.weight"].T.astype(np.float64) + weights["fc.bias"]
hidden = np.maximum(pictures.reshape(N, -1).astype(np.float64) @ weights["dense"], 0)
expected["vector"] = hidden
expected["weight"], expected["bias"] = weights["fc.weight"], weights["fc.bias"]
save_file({k: np.ascontiguousarray(v.astype(np.float32)) for k, v in expected.items()}, out / "expected.safetensors")

# What is made of maps, of `map` and of `c`, which has values below 0.
cut.graph.output.append(helper.make_tensor_value_info("c", TensorProto.FLOAT, None))
made = onnxruntime.InferenceSession(cut.SerializeToString()).run(["map", "c"], {"image": pictures})
of_maps = {}
for name, maps in zip(("", "c."), made, strict=True):
    flat = maps.astype(np.float64).reshape(N, D, -1)
    powers = []
    for p in range(1, 11):
        gram = (flat**p) @ (flat**p).swapaxes(1, 2)
        sums = gram.sum(2)
        powers.append(np.sign(sums) * np.abs(sums) ** (0.5 / p))
    of_maps[f"{name}gram"] = np.concatenate(powers, 1)
    u, s, v = np.linalg.svd(flat, full_matrices=False)
    left = flat - s[:, :1, None] * u[:, :, :1] @ v[:, :1]
    of_maps[f"{name}rankfeat"] = left.mean(2)
save_file({k: np.ascontiguousarray(v.astype(np.float32)) for k, v in of_maps.items()}, out / "of_maps.safetensors")

# The same network with a batch normalisation and dropout, as exported in training and in evaluation mode.
for k, v in {"gain": rng.uniform(0.5, 1.5, D), "shift": rng.normal(0, 0.2, D), "mean": rng.normal(0, 0.2, D), "variance": rng.uniform(0.5, 1.5, D)}.items():
    weights[k] = v.astype(np.float32)
weights["ratio"], weights["yes"] = np.array(0.5, np.float32), np.array(True)
statistics = ["gain", "shift", "mean", "variance"]
for name, training in (("training", True), ("evaluation", False)):
    norm = node("BatchNormalization", ["c", *statistics], ["n", "m", "v"] if training else ["n"], name="bn", **({"training_mode": 1} if training else {}))
    drop = [node("Dropout", ["flat", "ratio", "yes"], ["dropped", "mask"], name="drop")] if training else []
    last = node("Gemm", ["dropped" if training else "flat", "fc.weight", "fc.bias"], ["logits"], name="fc", transB=1)
    save(name, [body[0], norm, node("Relu", ["n"], ["map"], name="relu1"), *average, *drop, last])

# Dropout of a quarter of the map, by the attribute of older versions, and of half of its mean, by default: alone; beside a
# way for the images that goes past it; for a fixed number of images; in half precision. And what a million passes make of it.
def dropping(before=(), first="map", halves=False, new=False):
    drops = [node("Dropout", ["flat", "ratio"], ["kept"])] if new else [node("Dropout", ["flat"], ["kept"])]
    quarter = node("Dropout", [first, "quarter"], ["d"], name="drop1") if new else node("Dropout", [first], ["d"], name="drop1", ratio=0.25)
    pooled = [node("GlobalAveragePool", ["e" if before else "d"], ["g"]), node("Flatten", ["g"], ["flat"])]
    last = node("Gemm", ["kept", "fc.weight", "fc.bias"], ["half" if halves else "logits"], name="fc", transB=1)
    return [quarter, *before, *pooled, *drops, last]


weights["quarter"], weights["nil"] = np.array(0.25, np.float32), np.array(0, np.float32)
past = [node("Mul", ["c", "nil"], ["nothing"]), node("Add", ["d", "nothing"], ["e"])]
save("dropped", body + dropping(), opset=11)
save("dropped_beside", body + dropping(past), opset=11)
save("dropped_fixed", body + dropping(), opset=11, batch=2, dims=(2, C))
single = dict(weights)
weights.update({k: weights[k].astype(np.float16) for k in ("conv", "fc.weight", "fc.bias")})
to = {"to": TensorProto.FLOAT16}
small = [node("Cast", ["image"], ["narrow"], **to), node("Conv", ["narrow", "conv"], ["c"], pads=[1, 1, 1, 1]), body[1]]
wide = [node("Cast", ["half"], ["logits"], to=TensorProto.FLOAT)]
save("dropped_half", small + dropping(halves=True, new=True) + wide)
save("dropped_half_old", small + dropping(halves=True, new=True) + wide, opset=13)
weights.update(single)

COUNT = 1_000_000
rows, n = [], 0
flat = np.maximum(fmap, 0).reshape(N, D, -1)
sums = np.zeros((6, N, C))
while n < COUNT:
    few = 10_000
    # The sum over the cells of a channel, of which each is kept or not, one mask for all images.
    mean = np.stack([(rng.random((few, flat.shape[2])) >= 0.25) @ flat[:, d].T / 0.75 / flat.shape[2] for d in range(D)], 2)
    logits = (mean * (rng.random((few, 1, D)) >= 0.5) * 2) @ weights["fc.weight"].T.astype(np.float64) + weights["fc.bias"]
    p = np.exp(logits - logits.max(2, keepdims=True))
    p /= p.sum(2, keepdims=True)
    sums += np.stack([(logits**k).sum(0) for k in (1, 2)] + [(p**k).sum(0) for k in (1, 2, 3, 4)])
    n += few
logits, logits2, probs, p2, p3, p4 = sums / COUNT
spread = np.sqrt(p2 - probs**2)
# Of one pass the standard error of each: of a standard deviation that of the variance over twice itself.
fourth = p4 - 4 * probs * p3 + 6 * probs**2 * p2 - 3 * probs**4
error = {"logits": np.sqrt(logits2 - logits**2), "probs": spread, "spread": np.sqrt(fourth - spread**4) / (2 * spread)}
made = {"logits": logits, "probs": probs, "spread": spread, **{f"{k}.error": v for k, v in error.items()}}
save_file({k: np.ascontiguousarray(v.astype(np.float32)) for k, v in made.items()}, out / "dropped.safetensors")
