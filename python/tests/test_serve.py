"""`heat serve` as its real clients meet it."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest

import heat_ood

tritonhttp = pytest.importorskip("tritonclient.http")

ROWS, DIM = 40, 24


def features(n: int, seed: int, shift: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, DIM)) + shift).astype(np.float32)


class Server:
    def __init__(self, directory: Path):
        train = heat_ood.FeatureSet(avg=features(500, 0), label=np.arange(500) % 5)
        self.detectors = {}
        for name in ("gmm", "knn"):
            scorer = {"gmm": heat_ood.Gmm(normalize=False), "knn": heat_ood.Knn()}[name]
            detector = scorer.fit(train).calibrate(heat_ood.FeatureSet(avg=features(300, 1)))
            detector.save(directory / f"{name}.safetensors")
            self.detectors[name] = detector
        command = [sys.executable, "-m", "heat_ood", "serve", "gmm.safetensors", "knn.safetensors"]
        ports = ["--listen", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
        self.process = subprocess.Popen(
            [*command, *ports, "--log", "json"], cwd=directory, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stderr is not None
        self.log: list[str] = []
        found = {}
        while len(found) < 3:
            line = self.process.stderr.readline()
            assert line, self.log
            self.log.append(line)
            if match := re.match(r"(listening|gRPC|page and metrics) on (\S+)", line):
                found[match[1]] = match[2]
        self.data, self.grpc, self.admin = found["listening"], found["gRPC"], found["page and metrics"]

    def get(self, address: str, path: str, body: bytes | None = None) -> bytes:
        with urllib.request.urlopen(f"http://{address}{path}", body, timeout=20) as answer:
            return answer.read()

    def expected(self, name: str, rows: np.ndarray):
        return self.detectors[name].predict(heat_ood.FeatureSet(avg=rows))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    running = Server(tmp_path_factory.mktemp("serve"))
    yield running
    running.process.terminate()
    assert running.process.wait(30) == 0


def check(server: Server, name: str, rows: np.ndarray, score, p_value, is_ood):
    want = server.expected(name, rows)
    np.testing.assert_array_equal(score, want.score)
    np.testing.assert_array_equal(p_value, want.p_value)
    np.testing.assert_array_equal(is_ood, want.is_ood)


def infer_input(module, rows: np.ndarray, **options):
    tensor = module.InferInput("avg", list(rows.shape), "FP32")
    tensor.set_data_from_numpy(rows, **options)
    return tensor


@pytest.mark.parametrize("name", ["gmm", "knn"])
def test_triton_http(server, name):
    with tritonhttp.InferenceServerClient(server.data) as client:
        assert client.is_server_live() and client.is_server_ready() and client.is_model_ready(name)
        assert client.get_server_metadata()["name"] == "heat"
        metadata = client.get_model_metadata(name)
        assert metadata["inputs"] == [{"name": "avg", "datatype": "FP32", "shape": [-1, DIM]}]
        assert client.get_model_config(name)["input"][0]["dims"] == [DIM]
        rows = features(ROWS, 2, 1.0)
        for binary in (True, False):
            inputs = [infer_input(tritonhttp, rows, binary_data=binary)]
            for outputs in (None, [tritonhttp.InferRequestedOutput(o, binary_data=binary)
                                   for o in ("score", "p_value", "is_ood")]):
                found = client.infer(name, inputs, outputs=outputs, request_id="mine")
                check(server, name, rows, *(found.as_numpy(o) for o in ("score", "p_value", "is_ood")))
                assert found.get_response()["id"] == "mine"
        for algorithm in ("gzip", "deflate"):
            found = client.infer(name, [infer_input(tritonhttp, rows)],
                                 request_compression_algorithm=algorithm,
                                 response_compression_algorithm=algorithm)
            np.testing.assert_array_equal(found.as_numpy("score"), server.expected(name, rows).score)
        statistics = client.get_inference_statistics(name)["model_stats"][0]
        assert statistics["inference_count"] >= 6 * ROWS
        with pytest.raises(Exception, match="expected"):
            client.infer(name, [infer_input(tritonhttp, rows[:, :3].copy())])
        with pytest.raises(Exception, match="no model"):
            client.get_model_metadata("other")


def test_triton_http_with_asyncio(server):
    aio = pytest.importorskip("tritonclient.http.aio")

    async def run():
        async with aio.InferenceServerClient(server.data) as client:
            rows = [features(1 + i, 50 + i) for i in range(20)]
            found = await asyncio.gather(
                *(client.infer("gmm", [infer_input(aio, r)]) for r in rows)
            )
            return rows, found

    for rows, found in zip(*asyncio.run(run()), strict=True):
        check(server, "gmm", rows, *(found.as_numpy(o) for o in ("score", "p_value", "is_ood")))


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_triton_grpc(server, compression):
    grpc = pytest.importorskip("tritonclient.grpc")
    with grpc.InferenceServerClient(server.grpc) as client:
        assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("knn")
        assert client.get_server_metadata().name == "heat"
        assert list(client.get_model_metadata("knn").inputs[0].shape) == [-1, DIM]
        rows = features(ROWS, 3, 0.5)
        found = client.infer("knn", [infer_input(grpc, rows)], request_id="x",
                             compression_algorithm=compression, parameters={"alpha": 0.2})
        want = server.expected("knn", rows)
        np.testing.assert_array_equal(found.as_numpy("score"), want.score)
        np.testing.assert_array_equal(found.as_numpy("is_ood"), want.p_value <= 0.2)
        assert found.get_response().id == "x"
        with pytest.raises(grpc.InferenceServerException, match="INVALID_ARGUMENT.*expected"):
            client.infer("knn", [infer_input(grpc, rows[:, :3].copy())])
        with pytest.raises(grpc.InferenceServerException, match="NOT_FOUND"):
            client.infer("other", [infer_input(grpc, rows)])
        with pytest.raises(grpc.InferenceServerException, match="DEADLINE_EXCEEDED"):
            client.infer("knn", [infer_input(grpc, rows)], timeout=1)


def test_grpc_contents_and_health(server):
    grpc = pytest.importorskip("grpc")
    service = pytest.importorskip("tritonclient.grpc.service_pb2")
    stubs = pytest.importorskip("tritonclient.grpc.service_pb2_grpc")
    rows = features(3, 4)
    request = service.ModelInferRequest(model_name="gmm")
    tensor = request.inputs.add(name="avg", datatype="FP32", shape=rows.shape)
    tensor.contents.fp32_contents.extend(rows.ravel().tolist())
    with grpc.insecure_channel(server.grpc) as channel:
        stub = stubs.GRPCInferenceServiceStub(channel)
        answer = stub.ModelInfer(request)
        np.testing.assert_array_equal(
            np.frombuffer(answer.raw_output_contents[0], np.float32), server.expected("gmm", rows).score
        )
        for spoil in (
            lambda r: r.raw_input_contents.append(rows.tobytes()),
            lambda r: r.raw_input_contents.extend([b"", b""]),
            lambda r: r.inputs[0].contents.fp32_contents.pop(),
            lambda r: r.inputs[0].shape.append(1),
            lambda r: r.inputs.append(r.inputs[0]),
        ):
            bad = service.ModelInferRequest.FromString(request.SerializeToString())
            spoil(bad)
            with pytest.raises(grpc.RpcError) as error:
                stub.ModelInfer(bad)
            assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        # A message by hand: `service` is the field 1, the answer's `status` too.
        health = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert health(b"") == b"\x08\x01" and health(b"\x0a\x03gmm") == b"\x08\x01"
        with pytest.raises(grpc.RpcError) as error:
            health(b"\x0a\x01x")
        assert error.value.code() == grpc.StatusCode.NOT_FOUND
        with pytest.raises(grpc.RpcError) as error:
            channel.unary_unary("/inference.GRPCInferenceService/Other")(b"")
        assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED


KSERVE = """
import asyncio, sys
import kserve, numpy as np
from kserve.inference_client import RESTConfig

def request(rows, binary):
    tensor = kserve.InferInput("avg", list(rows.shape), "FP32")
    tensor.set_data_from_numpy(rows, binary_data=binary)
    return kserve.InferRequest(model_name="gmm", infer_inputs=[tensor])

async def run(base, rows):
    client = kserve.InferenceRESTClient(RESTConfig(protocol="v2"))
    assert await client.is_server_live(base) and await client.is_server_ready(base)
    assert await client.is_model_ready(base, "gmm")
    return [await client.infer(base, request(rows, binary), model_name="gmm") for binary in (False, True)]

base, given, made = sys.argv[1:]
found = asyncio.run(run(base, np.load(given)))
names = ("score", "p_value", "is_ood")
outputs = [{o.name: o.as_numpy() for o in answer.outputs} for answer in found]
np.savez(made, **{f"{n}{i}": o[n] for i, o in enumerate(outputs) for n in names})
"""


def test_kserve(server, tmp_path):
    """In a process of its own: its messages have the names of tritonclient's."""
    if importlib.util.find_spec("kserve") is None:
        pytest.skip("kserve is not installed")
    rows = features(ROWS, 5, 1.5)
    np.save(tmp_path / "rows.npy", rows)
    made = tmp_path / "made.npz"
    command = [sys.executable, "-c", KSERVE, f"http://{server.data}", tmp_path / "rows.npy", made]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = np.load(made)
    for i in range(2):
        check(server, "gmm", rows, *(found[f"{name}{i}"] for name in ("score", "p_value", "is_ood")))


def test_metrics_as_prometheus_reads_them(server):
    text = server.get(server.admin, "/metrics").decode()
    assert 'heat_model_info{model="gmm"' in text and "process_resident_memory_bytes" in text
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_page_in_a_browser(server):
    webdriver = pytest.importorskip("selenium.webdriver")
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (browser and driver):
        pytest.skip("chromium is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
                 "--disable-component-update", "--disable-sync", "--no-first-run", "--disable-quic"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    for i in range(100):
        rows = features(1, 1000 + i, 4.0)
        body = json.dumps({"inputs": [{"name": "avg", "shape": [1, DIM], "datatype": "FP32",
                                       "data": rows.tolist()}], "id": "<img src=x onerror=alert(1)>"})
        server.get(server.data, "/v2/models/gmm/infer", body.encode())
    with webdriver.Chrome(options=options, service=webdriver.ChromeService(driver)) as page:
        page.get(f"http://{server.admin}/")
        end = time.monotonic() + 10
        text = ""
        while "Latest requests" not in text and time.monotonic() < end:
            time.sleep(0.1)
            text = page.find_element("tag name", "body").text
        status = json.loads(server.get(server.admin, "/heat/v1/status"))
        model = next(m for m in status["models"] if m["name"] == "gmm")
        assert model["version"] in text and "<img src=x onerror=alert(1)>" in text
        # Rows from elsewhere: the alarm is there within five seconds.
        end = time.monotonic() + 5
        while "are anomalous" not in text and time.monotonic() < end:
            time.sleep(0.2)
            text = page.find_element("tag name", "body").text
        assert "drifting" in text and "are anomalous" in text, text
        for width in (380, 1280):
            page.set_window_size(width, 900)
            wide = page.execute_script("return document.documentElement.scrollWidth - innerWidth")
            assert wide <= 0, f"{wide} px too wide at {width}"
        serious = [e for e in page.get_log("browser") if e["level"] in ("SEVERE", "WARNING")]
        assert not [e for e in serious if "favicon" not in e["message"]], serious
        asked = [json.loads(e["message"])["message"] for e in page.get_log("performance")]
        urls = [m["params"]["request"]["url"] for m in asked if m["method"] == "Network.requestWillBeSent"]
        assert urls and all(u.startswith((f"http://{server.admin}/", "data:", "chrome")) for u in urls), urls


def test_bad_requests_leave_it_unharmed(server):
    for body in (b"", b"{", b"[" * 100_000, b"\xff\xfe", b'{"inputs": 3}'):
        with pytest.raises(urllib.error.HTTPError) as error:
            server.get(server.data, "/v2/models/gmm/infer", body)
        assert error.value.code in (400, 413) and "error" in json.loads(error.value.read())
    assert json.loads(server.get(server.data, "/v2/health/ready"))["ready"]
