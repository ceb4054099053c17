"""Makes gradients/: a small network with every operator that a gradient goes back through (mixed.onnx), one with an
operator that none does (sigmoid.onnx), and what PyTorch computes (expected.safetensors): the input gradient; of layers
the signed root of the map's sum times the sum of the gradient of KL(uniform || softmax), as Liu et al. (NAC, 2024) have it;
for each image the norm of the gradient of -sum of log softmax with respect to each weight, as a root, in float64, as by
Lee & AlRegib (2020).

    python make_gradients.py        # torch, onnx, safetensors
"""
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file
from torch.nn import functional as F

out = Path(__file__).parent / "gradients"
out.mkdir(exist_ok=True)
torch.manual_seed(0)
r = torch.randn
N, SIDE, C = 3, 23, 5
w = {
    "stem": 0.3 * r(8, 3, 3, 3), "stem.bias": r(8),
    "gain": 1 + 0.2 * r(8), "shift": 0.2 * r(8), "mean": 0.2 * r(8), "variance": 0.5 + torch.rand(8),
    "grouped": 0.4 * r(8, 4, 3, 3), "dilated": 0.3 * r(6, 8, 3, 3), "point": 0.4 * r(6, 8, 1, 1), "tall": 0.3 * r(4, 20, 3, 2),
    "dense": 0.5 * r(4, 7), "dense.bias": r(7), "fc": r(C, 7), "fc.bias": r(C),
}
x = r(N, 3, SIDE, SIDE, requires_grad=True)
a = F.conv2d(x, w["stem"], w["stem.bias"], stride=2, padding=1)  # 12
b = F.relu(F.batch_norm(a, w["mean"], w["variance"], w["gain"], w["shift"], eps=1e-3))
c = F.max_pool2d(b, 3, 2, 1)  # 6, windows overlap
d = F.conv2d(c, w["grouped"], None, padding=1, groups=2)
e = F.relu(d + c)
f = F.conv2d(e, w["dilated"], None, padding=2, dilation=2)
g = F.conv2d(e, w["point"], None)
h = torch.cat([f, e, g], 1)  # 20 channels
i = F.avg_pool2d(h, 2, 2)  # 3
j = F.conv2d(i, w["tall"], None, padding=(1, 0), stride=(1, 1))  # 3 x 2
k = F.relu(j)
m = k.mean((2, 3))
p = m @ w["dense"] + w["dense.bias"]
logits = p @ w["fc"].T + w["fc.bias"]
seeds = {"features": r(N, 7), "logits": r(N, C)}
total = (seeds["features"] * p).sum() + (seeds["logits"] * logits).sum()
(gradient,) = torch.autograd.grad(total, x, retain_graph=True)
layers = {"b": b, "e": e, "h": h, "m": m}
kl = -torch.log_softmax(logits, 1).mean(1).sum()
products = {}
for (name, z), g_z in zip(layers.items(), torch.autograd.grad(kl, list(layers.values()))):
    places = tuple(range(2, z.dim()))
    product = z.sum(places) * g_z.sum(places) if places else z * g_z
    products[f"{name}.nac"] = (product.abs().sqrt() * product.sign()).detach()


def network(x, w):
    a = F.conv2d(x, w["stem"], w["stem.bias"], stride=2, padding=1)
    b = F.relu(F.batch_norm(a, w["mean"], w["variance"], w["gain"], w["shift"], eps=1e-3))
    c = F.max_pool2d(b, 3, 2, 1)
    e = F.relu(F.conv2d(c, w["grouped"], None, padding=1, groups=2) + c)
    h = torch.cat([F.conv2d(e, w["dilated"], None, padding=2, dilation=2), e, F.conv2d(e, w["point"], None)], 1)
    j = F.conv2d(F.avg_pool2d(h, 2, 2), w["tall"], None, padding=(1, 0))
    p = F.relu(j).mean((2, 3)) @ w["dense"] + w["dense.bias"]
    return p @ w["fc"].T + w["fc.bias"]


met = ["fc", "fc.bias", "dense.bias", "dense", "tall", "point", "dilated", "grouped", "gain", "shift", "stem", "stem.bias"]
wide = {name: v.detach().double().requires_grad_(name in met) for name, v in w.items()}
norms = []
for image in x.detach().double():
    loss = -torch.log_softmax(network(image[None], wide), 1).sum()
    norms.append(torch.stack([g.norm().sqrt() for g in torch.autograd.grad(loss, [wide[name] for name in met])]))
products["norms"] = torch.stack(norms).float()

node = helper.make_node
nodes = [
    node("Conv", ["image", "stem", "stem.bias"], ["a"], name="stem", strides=[2, 2], pads=[1, 1, 1, 1]),
    node("BatchNormalization", ["a", "gain", "shift", "mean", "variance"], ["bn"], name="bn", epsilon=1e-3),
    node("Relu", ["bn"], ["b"]),
    node("MaxPool", ["b"], ["c"], name="pool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
    node("Conv", ["c", "grouped"], ["d"], name="grouped", pads=[1, 1, 1, 1], group=2),
    node("Add", ["d", "c"], ["sum"]),
    node("Relu", ["sum"], ["e"]),
    node("Conv", ["e", "dilated"], ["f"], name="dilated", pads=[2, 2, 2, 2], dilations=[2, 2]),
    node("Conv", ["e", "point"], ["g"], name="point"),
    node("Concat", ["f", "e", "g"], ["h"], axis=1),
    node("AveragePool", ["h"], ["i"], name="average", kernel_shape=[2, 2], strides=[2, 2]),
    node("Conv", ["i", "tall"], ["j"], name="tall", pads=[1, 0, 1, 0]),
    node("Relu", ["j"], ["k"]),
    node("GlobalAveragePool", ["k"], ["pooled"]),
    node("Flatten", ["pooled"], ["m"]),
    node("Identity", ["m"], ["same"]),
    node("MatMul", ["same", "dense"], ["product"]),
    node("Add", ["product", "dense.bias"], ["p"]),
    node("Gemm", ["p", "fc", "fc.bias"], ["logits"], name="fc", transB=1),
]


def save(name, nodes, opset=17):
    used = {i for n in nodes for i in n.input}
    initial = [numpy_helper.from_array(v.numpy(), k) for k, v in w.items() if k in used]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])
    result = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", C])
    graph = helper.make_graph(nodes, "g", [image], [result], initial)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(model, out / f"{name}.onnx")


save("mixed", nodes)
save("old", nodes, opset=13)
save("sigmoid", [node("Sigmoid", n.input, n.output, name="gate") if n.op_type == "Relu" and n.output[0] == "e" else n for n in nodes])
expected = {"pictures": x.detach(), "avg": p.detach(), "logits": logits.detach(), "gradient": gradient} | {f"seed.{k}": v for k, v in seeds.items()} | products
save_file({k: v.contiguous() for k, v in expected.items()}, out / "expected.safetensors")
