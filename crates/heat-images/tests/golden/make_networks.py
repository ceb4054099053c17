"""Makes networks/: small classifiers in further spellings, and what ONNX Runtime and numpy make of them.

    python make_networks.py    # numpy, onnx, onnxruntime, safetensors, Pillow
"""
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_dynamic, quantize_static
from PIL import Image
from safetensors.numpy import save_file

here = Path(__file__).parent
out = here / "networks"
out.mkdir(exist_ok=True)
rng = np.random.default_rng(1)
D, C = 8, 5
node = helper.make_node
pictures = np.stack([np.asarray(Image.open(here / f"cases/pictures/{i}.png").convert("RGB")) for i in range(3)])
pictures = pictures.transpose(0, 3, 1, 2).astype(np.float32) / 255
f = lambda *shape: rng.normal(0, 0.5, shape).astype(np.float32)
W, B, W2, B2 = f(C, D), f(C), f(C, D), f(C)
stored = {
    "wc": f(D, 3, 3, 3), "bc": f(D), "w": W, "wt": np.ascontiguousarray(W.T), "b": B, "w2": W2, "b2": B2,
    "axes": np.array([2, 3]), "one": np.array([1.0], np.float32), "minus": np.array([-1.0], np.float32), "count": np.array([C], np.float32), "half": np.array(0.5, np.float32), "k": W.reshape(C, D, 1, 1),
    "gain": np.abs(f(C)) + 0.5, "shift": f(C), "mean": f(C), "var": np.abs(f(C)) + 0.5, "low": f(D, 2), "high": f(2, C),
    "starts": np.array([1]), "ends": np.array([C]), "columns": np.array([1]), "first": np.array([0]), "eps": np.array(1e-12, np.float32),
    "shape": np.array([0, -1]), "n": np.array(1 / 1024, np.float32), "rows": np.array([3]), "cols": np.array([2]),
}
body = [node("Conv", ["x", "wc", "bc"], ["c"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]), node("Relu", ["c"], ["r"])]
pooled = [*body, node("GlobalAveragePool", ["r"], ["p"]), node("Flatten", ["p"], ["f"])]
gemm = node("Gemm", ["f", "w", "b"], ["l"], transB=1)
scale = stored["gain"] / np.sqrt(stored["var"] + np.float32(1e-5))
expected = {}


def features(name, nodes, opset):
    model = graph(nodes, [("r", None)], opset)
    r = onnxruntime.InferenceSession(model.SerializeToString()).run(["r"], {"x": pictures})[0].astype(np.float64)
    return r.mean((2, 3)), r.std((2, 3), ddof=1), r.max((2, 3))


def graph(nodes, outputs, opset, sides=("h", "w")):
    used = {i for n in nodes for i in n.input}
    initial = [numpy_helper.from_array(v, k) for k, v in stored.items() if k in used]
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, *sides])
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in outputs]
    return helper.make_model(helper.make_graph(nodes, "g", [image], results, initial),
                             opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def case(name, nodes, w=W, b=B, outputs=(("y", ["n", "k"]),), opset=17):
    """A network of the mean of the map and W, b."""
    onnx.save(graph(nodes, outputs, opset), out / f"{name}.onnx")
    avg, std, top = features(name, body, opset)
    expected.update({f"{name}.avg": avg, f"{name}.std": std, f"{name}.max": top, f"{name}.weight": w, f"{name}.bias": b,
                     f"{name}.logits": avg @ np.asarray(w, np.float64).T + b})


case("batch_normalisation", [*pooled, gemm, node("BatchNormalization", ["l", "gain", "shift", "mean", "var"], ["y"])],
     W * scale[:, None], B * scale + stored["shift"] - stored["mean"] * scale)
case("mean_of_two", [*pooled, gemm, node("Gemm", ["f", "w2", "b2"], ["m"], transB=1), node("Add", ["l", "m"], ["s"]), node("Mul", ["s", "half"], ["y"])],
     (W + W2) / 2, (B + B2) / 2)
case("mean_node", [*pooled, gemm, node("Gemm", ["f", "w2", "b2"], ["m"], transB=1), node("Mean", ["l", "m"], ["y"])], (W + W2) / 2, (B + B2) / 2)
case("mean_of_stack", [*pooled, gemm, node("Gemm", ["f", "w2", "b2"], ["m"], transB=1), node("Unsqueeze", ["l", "first"], ["l1"]),
                       node("Unsqueeze", ["m", "first"], ["m1"]), node("Concat", ["l1", "m1"], ["s"], axis=0),
                       node("ReduceMean", ["s", "first"], ["y"], keepdims=0)], (W + W2) / 2, (B + B2) / 2, opset=18)
case("convolution_before_pooling", [*body, node("Conv", ["r", "k", "b"], ["q"], kernel_shape=[1, 1]), node("GlobalAveragePool", ["q"], ["p"]),
                                    node("Flatten", ["p"], ["y"])])
case("low_rank", [*pooled, node("MatMul", ["low", "high"], ["wl"]), node("MatMul", ["f", "wl"], ["m"]), node("Add", ["m", "b"], ["y"])],
     (stored["low"] @ stored["high"]).T)
case("without_background", [*pooled, gemm, node("Slice", ["l", "starts", "ends", "columns"], ["y"])], W[1:], B[1:])
case("einsum", [*pooled, node("Einsum", ["f", "w"], ["m"], equation="nd,cd->nc"), node("Add", ["m", "b"], ["y"])])
case("log_softmax_in_parts", [*pooled, gemm, node("ReduceLogSumExp", ["l"], ["s"], axes=[1]), node("Sub", ["l", "s"], ["y"])])
case("logistic_in_parts", [*pooled, gemm, node("Neg", ["l"], ["m"]), node("Exp", ["m"], ["e"]), node("Add", ["e", "one"], ["d"]), node("Div", ["one", "d"], ["y"])])
# As skl2onnx writes SGDClassifier(loss="log_loss").
case("one_against_rest", [*pooled, gemm, node("Mul", ["l", "minus"], ["m"]), node("Exp", ["m"], ["e"]), node("Add", ["e", "one"], ["d"]),
                          node("Reciprocal", ["d"], ["q"]), node("ReduceSum", ["q", "columns"], ["s"]), node("Cast", ["s"], ["any"], to=9),
                          node("Not", ["any"], ["none"]), node("Cast", ["none"], ["guard"], to=1), node("Add", ["q", "guard"], ["above"]),
                          node("Mul", ["guard", "count"], ["more"]), node("Add", ["s", "more"], ["below"]), node("Div", ["above", "below"], ["y"])])
case("beta_and_columns", [*pooled, node("Gemm", ["f", "wt", "b"], ["y"], beta=0.5)], W, B / 2)
case("unpooled_norm_of_weights", [*pooled, node("ReduceL2", ["w"], ["s"], axes=[1]), node("Div", ["w", "s"], ["u"]), node("Transpose", ["u"], ["ut"], perm=[1, 0]),
                                  node("MatMul", ["f", "ut"], ["y"])], W / np.linalg.norm(W, axis=1, keepdims=True), np.zeros(C, np.float32))
case("mean_in_parts", [*body, node("ReduceSum", ["r", "axes"], ["s"], keepdims=0), node("Mul", ["s", "n"], ["f"]), gemm, node("Identity", ["l"], ["y"])])
case("rows_then_columns", [*body, node("ReduceMean", ["r", "rows"], ["s"], keepdims=0), node("ReduceMean", ["s", "cols"], ["f"], keepdims=0), gemm,
                           node("Identity", ["l"], ["y"])], opset=18)
case("named_logits", [*pooled, gemm, node("Gemm", ["f", "w2", "b2"], ["m"], transB=1), node("Identity", ["l"], ["logits"]), node("Identity", ["m"], ["z"])],
     outputs=(("logits", ["n", C]), ("z", ["n", C])))
# Two files of weights, with offsets.
model = graph([*pooled, gemm, node("Identity", ["l"], ["y"])], (("y", ["n", C]),), 17)
for i, name in enumerate(["one.bin", "two.bin"]):
    data = b"\0" * 64
    for t in [t for t in model.graph.initializer if (t.name in ("w", "b")) == (i == 0)]:
        t.data_location = TensorProto.EXTERNAL
        for key, value in (("location", name), ("offset", len(data)), ("length", len(t.raw_data))):
            t.external_data.add(key=key, value=str(value))
        data += t.raw_data + b"\0" * 12
        t.ClearField("raw_data")
    (out / name).write_bytes(data)
onnx.save(model, out / "two_files.onnx")
avg, std, top = features("two_files", body, 17)
expected |= {"two_files.avg": avg, "two_files.std": std, "two_files.max": top, "two_files.weight": W, "two_files.bias": B, "two_files.logits": avg @ W.T + B}
for name, location in (("leaves", "../one.bin"), ("absolute", "/one.bin")):
    model.graph.initializer[0].external_data[0].value = location
    onnx.save(model, out / f"{name}.onnx")


class Reader(CalibrationDataReader):
    def __init__(self):
        self.rows = iter([{"x": pictures[i : i + 1]} for i in range(3)])

    def get_next(self):
        return next(self.rows, None)


onnx.save(graph([*pooled, gemm, node("Identity", ["l"], ["y"])], (("y", ["n", C]),), 17, (32, 32)), out / "plain.onnx")
quantize_static(str(out / "plain.onnx"), str(out / "qdq.onnx"), Reader())
# The same numbers with scales inside the operators, one for each channel of the weights, and the older form of one for all.
for name, by_channel in (("qoperator", False), ("qoperator_channels", True)):
    quantize_static(str(out / "plain.onnx"), str(out / f"{name}.onnx"), Reader(), quant_format=QuantFormat.QOperator, per_channel=by_channel)
quantize_dynamic(str(out / "plain.onnx"), str(out / "dynamic.onnx"), op_types_to_quantize=["MatMul", "Gemm"])
(out / "plain.onnx").unlink()
for name in ("qdq", "qoperator", "qoperator_channels", "dynamic"):
    expected |= {f"{name}.{part}": expected[f"two_files.{part}"] for part in ("avg", "weight", "bias", "logits")}
save_file({k: np.ascontiguousarray(np.asarray(v, np.float32)) for k, v in expected.items()}, out / "expected.safetensors")
