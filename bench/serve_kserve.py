"""The same detector behind KServe's Python server, for comparison with `heat serve`.

    pip install kserve heat-ood
    taskset -c 0 python bench/serve_kserve.py gmm detector.safetensors 8081
    taskset -c 1 target/release/examples/load 127.0.0.1:8081 /v2/models/gmm/infer --rate 300
"""

import sys

import heat_ood
import kserve


class Detector(kserve.Model):
    def __init__(self, name: str, path: str):
        super().__init__(name)
        self.detector = heat_ood.load(path)
        self.ready = True

    async def predict(self, payload, headers=None, response_headers=None):
        rows = payload.inputs[0].as_numpy()
        found = self.detector.predict(heat_ood.FeatureSet(avg=rows))
        outputs = []
        for name, values, datatype in (
            ("score", found.score, "FP32"), ("p_value", found.p_value, "FP64"), ("is_ood", found.is_ood, "BOOL")
        ):
            output = kserve.InferOutput(name, list(values.shape), datatype)
            output.set_data_from_numpy(values, binary_data=True)
            outputs.append(output)
        return kserve.InferResponse(payload.id or "", self.name, outputs)


if __name__ == "__main__":
    name, path, port = sys.argv[1:]
    kserve.ModelServer(http_port=int(port), enable_grpc=False, workers=1, access_log_format=None).start([Detector(name, path)])
