"""`heat serve` as its real clients meet it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import importlib.util
import json
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
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


def heat(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "heat_ood", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60)


def until(what: str, found, seconds: float = 10):
    """What `found` gives once that is something."""
    end = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.05)
    return value


class Server:
    """`heat serve` in a process of its own, which says what it says in a file."""

    def __init__(self, directory: Path, *options: str, admin: str = "127.0.0.1:0"):
        self.log = directory / "log"
        train = heat_ood.FeatureSet(avg=features(500, 0), label=np.arange(500) % 5)
        self.detectors = {}
        for name in ("gmm", "knn"):
            scorer = {"gmm": heat_ood.Gmm(normalize=False), "knn": heat_ood.Knn()}[name]
            detector = scorer.fit(train).calibrate(heat_ood.FeatureSet(avg=features(300, 1)))
            detector.save(directory / f"{name}.safetensors")
            self.detectors[name] = detector
        command = [sys.executable, "-m", "heat_ood", "serve", "gmm.safetensors", "knn.safetensors"]
        ports = ["--listen", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--admin", admin]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*command, *ports, "--log", "json", *options], cwd=directory, stderr=log
            )

        def addresses():
            said = self.log.read_text()
            assert self.process.poll() is None, said
            found = dict(re.findall(r"^(listening|gRPC|page and metrics) on (\S+)\n", said, re.M))
            return found if len(found) == 3 else None

        found = until("addresses", addresses, 60)
        self.data, self.grpc, self.admin = found["listening"], found["gRPC"], found["page and metrics"]

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            assert self.process.wait(30) == 0, self.log.read_text()

    def reload(self) -> None:
        self.process.send_signal(signal.SIGHUP)

    def get(self, address: str, path: str, body: bytes | None = None) -> bytes:
        with urllib.request.urlopen(f"http://{address}{path}", body, timeout=20) as answer:
            return answer.read()

    def expected(self, name: str, rows: np.ndarray):
        return self.detectors[name].predict(heat_ood.FeatureSet(avg=rows))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Server(tmp_path_factory.mktemp("serve")) as running:
        yield running


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
        # Of a number, as Triton's tools want it.
        assert int(statistics["version"]) == int(client.get_model_metadata(name)["versions"][0], 16)
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
        config = client.get_model_config("knn").config
        assert (config.name, list(config.input[0].dims), config.input[0].data_type) == ("knn", [DIM], 11)
        assert [(o.name, list(o.dims), o.data_type) for o in config.output] == [("score", [], 11), ("p_value", [], 12), ("is_ood", [], 1)]
        assert config.max_batch_size >= ROWS
        statistics = client.get_inference_statistics("knn").model_stats
        assert len(statistics) == 1 and statistics[0].inference_count >= ROWS
        version = client.get_model_metadata("knn").versions[0]
        assert int(statistics[0].version) == int(version, 16)
        times = statistics[0].inference_stats
        assert times.success.count == times.compute_infer.count == times.compute_input.count >= 1
        assert times.success.ns == times.queue.ns + times.compute_infer.ns > 0
        assert len(client.get_inference_statistics().model_stats) >= 2
        with pytest.raises(grpc.InferenceServerException, match="NOT_FOUND"):
            client.get_model_config("nobody")
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


def serious(page) -> list[str]:
    """What the browser complained of, but that the page has no icon."""
    said = [e["message"] for e in page.get_log("browser") if e["level"] in ("SEVERE", "WARNING")]
    return [message for message in said if "favicon" not in message]


def state(page) -> str:
    return page.find_element("id", "state").text


@pytest.fixture
def page():
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
    with webdriver.Chrome(options=options, service=webdriver.ChromeService(driver)) as browser:
        yield browser


def test_the_page_in_a_browser(server, page):
    for i in range(100):
        rows = features(1, 1000 + i, 4.0)
        body = json.dumps({"inputs": [{"name": "avg", "shape": [1, DIM], "datatype": "FP32",
                                       "data": rows.tolist()}], "id": "<img src=x onerror=alert(1)>"})
        server.get(server.data, "/v2/models/gmm/infer", body.encode())
    page.get(f"http://{server.admin}/")

    def text_with(part: str) -> str:
        def found():
            text = page.find_element("tag name", "body").text
            return text if part in text else None

        return until(part, found)

    text = text_with("Latest requests")
    status = json.loads(server.get(server.admin, "/heat/v1/status"))
    model = next(m for m in status["models"] if m["name"] == "gmm")
    assert model["version"] in text and "<img src=x onerror=alert(1)>" in text
    # Rows from elsewhere: the alarm is there within seconds.
    assert "drifting" in text_with("are anomalous")
    for width in (380, 1280):
        page.set_window_size(width, 900)
        wide = page.execute_script("return document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, f"{wide} px too wide at {width}"
    assert not serious(page)
    asked = [json.loads(e["message"])["message"] for e in page.get_log("performance")]
    urls = [m["params"]["request"]["url"] for m in asked if m["method"] == "Network.requestWillBeSent"]
    assert urls and all(u.startswith((f"http://{server.admin}/", "data:", "chrome")) for u in urls), urls


# Luminance and contrast as WCAG 2.2 defines them; 4.5 is what it asks for.
COLOURS = """
const channels = (text) => text.match(/[\\d.]+/g).map(Number);
const linear = (c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
const light = ([r, g, b]) =>
  0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
const behind = (node) => {
  for (; node; node = node.parentElement) {
    const colour = channels(getComputedStyle(node).backgroundColor);
    if (colour.length < 4 || colour[3] > 0) return colour;
  }
  return [255, 255, 255];
};
const weak = [];
let seen = 0;
for (const node of document.querySelectorAll("body *")) {
  const written = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
  if (!written || node.localName === "title" || !node.checkVisibility()) continue;
  const style = getComputedStyle(node);
  const ink = light(channels(node instanceof SVGElement ? style.fill : style.color));
  const paper = light(behind(node));
  const contrast = (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
  seen += 1;
  if (contrast < 4.5) weak.push([node.localName, node.textContent, contrast]);
}
return { paper: light(channels(getComputedStyle(document.body).backgroundColor)), seen, weak };
"""


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_the_page_in_both_colour_schemes(server, page, scheme):
    preferred = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", preferred)
    page.get(f"http://{server.admin}/")
    until("ready", lambda: state(page).startswith("ready"))
    found = page.execute_script(COLOURS)
    assert found["paper"] < 0.1 if scheme == "dark" else found["paper"] > 0.9, found
    assert found["seen"] > 20 and not found["weak"], found
    assert not serious(page)


def test_the_page_when_the_server_is_gone(tmp_path, page):
    with Server(tmp_path) as server:
        page.get(f"http://{server.admin}/")
        until("ready", lambda: state(page).startswith("ready"))
        assert not serious(page)
        server.process.kill()
        server.process.wait(10)
        # It asks every two seconds.
        until("stale", lambda: state(page).startswith("stale"), 5)
        assert page.find_element("id", "state").get_attribute("class") == "bad"
    with Server(tmp_path, admin=server.admin):
        until("ready again", lambda: state(page).startswith("ready"))
    said = serious(page)
    assert said and all("/heat/v1/status" in message for message in said), said


def test_the_page_asks_for_a_token(tmp_path, page):
    admin, line = make_token("ops", "admin")
    with Server(tmp_path, "--tokens", token_file(tmp_path, line)) as server:
        page.get(f"http://{server.admin}/")
        entry = page.find_element("id", "token")
        until("a place for the token", entry.is_displayed)
        assert not page.find_element("id", "main").is_displayed()
        entry.send_keys("wrong\n")
        time.sleep(0.5)
        assert entry.is_displayed() and not page.find_element("id", "main").is_displayed()
        entry.clear()
        entry.send_keys(f"{admin}\n")
        until("ready", lambda: state(page).startswith("ready"))
        assert not entry.is_displayed()
        kept = "return [location.href, document.cookie, ...Object.values(localStorage), "
        kept += "...Object.values(sessionStorage), document.documentElement.outerHTML].join()"
        assert admin not in page.execute_script(kept)
        said = serious(page)
        assert said and all("401" in message for message in said), said


def test_bad_requests_leave_it_unharmed(server):
    for body in (b"", b"{", b"[" * 100_000, b"\xff\xfe", b'{"inputs": 3}'):
        with pytest.raises(urllib.error.HTTPError) as error:
            server.get(server.data, "/v2/models/gmm/infer", body)
        assert error.value.code in (400, 413) and "error" in json.loads(error.value.read())
    assert json.loads(server.get(server.data, "/v2/health/ready"))["ready"]


def make_token(name: str, scope: str) -> tuple[str, str]:
    """A token, and its line for the file."""
    made = heat("token", name, "--scope", scope)
    shown = re.search(r"^  (\S{40,})$", made.stderr, re.M)
    assert made.returncode == 0 and shown and shown[1] not in made.stdout, made.stderr
    return shown[1], made.stdout


def token_file(directory: Path, *lines: str) -> str:
    path = directory / "tokens"
    path.touch(0o600)
    path.write_text("".join(lines))
    return path.name


def ask(
    address: str,
    path: str,
    *,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
    token: str | None = None,
    context: ssl.SSLContext | None = None,
) -> tuple[int, str]:
    """One request on a connection of its own: the answer's status, and all that came."""
    with contextlib.closing(connect(address, context)) as connection:
        return send(connection, path, body=body, headers=headers, token=token)


def connect(address: str, context: ssl.SSLContext | None = None) -> http.client.HTTPConnection:
    if context is None:
        return http.client.HTTPConnection(address, timeout=20)
    return http.client.HTTPSConnection(address, timeout=20, context=context)


def send(connection, path, *, body=None, headers=None, token=None) -> tuple[int, str]:
    headers = dict(headers or {})
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    connection.request("GET" if body is None else "POST", path, body, headers)
    answer = connection.getresponse()
    return answer.status, f"{answer.headers}{answer.read().decode()}"


def rows_body(**more) -> bytes:
    tensor = {"name": "avg", "shape": [2, DIM], "datatype": "FP32", "data": features(2, 9).tolist()}
    return json.dumps({"inputs": [tensor], **more}).encode()


INFER = "/v2/models/gmm/infer"


def test_tokens_are_told_nowhere(tmp_path):
    """Not those that are right, nor wrong ones (typed badly, most often), nor those in a wrong
    place."""
    score, score_line = make_token("app", "score")
    admin, admin_line = make_token("ops", "admin")
    wrong = score[:-1] + ("A" if score[-1] != "A" else "B")
    tokens = token_file(tmp_path, score_line, admin_line)
    answers = []

    def said(status: int, *request, **more):
        got, text = ask(*request, **more)
        assert got == status, (request, more, text)
        answers.append(text)

    with Server(tmp_path, "--tokens", tokens) as server:
        data, operators = server.data, server.admin
        for right in (score, admin):
            said(200, data, INFER, body=rows_body(), token=right)
            said(400, data, INFER, body=b"{", token=right)
            said(404, data, "/v2/models/none", token=right)
        said(200, operators, "/metrics", token=admin)
        said(403, operators, "/heat/v1/status", token=score)
        said(401, data, INFER, body=rows_body(), token=wrong)
        said(401, operators, "/metrics", token=wrong)
        # Where it does not belong, alone and beside one that is right.
        for token in (score, admin, wrong):
            for scheme in (token, f"Token {token}", f"Bearer: {token}", f"Basic {token}",
                           "Basic " + base64.b64encode(f"app:{token}".encode()).decode()):
                said(401, data, INFER, body=rows_body(), headers={"Authorization": scheme})
            for beside in (None, score):
                status = 200 if beside else 401
                for key in ("token", "access_token", "api_key"):
                    said(status, data, f"{INFER}?{key}={token}", body=rows_body(), token=beside)
                for name in ("X-Api-Key", "Proxy-Authorization", "Cookie", "Referer", "User-Agent",
                             "X-Request-Id", "Triton-Request-Id", "X-Forwarded-For"):
                    headers = {name: token}
                    said(status, data, INFER, body=rows_body(), headers=headers, token=beside)
                    said(200, operators, "/", headers=headers, token=beside)
            said(401, operators, f"/metrics?token={token}")
            said(404, data, f"/none?token={token}", token=score)
        # An id is the client's own name for its request. Who is not known has none.
        said(401, data, INFER, body=rows_body(id=score))
        said(401, data, INFER, body=rows_body(id=wrong), token=wrong)
        asked_by_grpc(server, score, wrong)
        answers.append(ask(operators, "/heat/v1/status", token=admin)[1])
        answers.append(ask(operators, "/heat/v1/models/gmm/recent", token=admin)[1])
        answers.append(ask(operators, "/metrics", token=admin)[1])
        server.reload()
        until("tokens are read again", lambda: "the tokens were read again" in server.log.read_text())
        checked = heat("serve", "gmm.safetensors", "--tokens", tokens, "--check", cwd=tmp_path)
        assert checked.returncode == 0 and "tokens" in checked.stdout, checked.stderr
        command = Path(f"/proc/{server.process.pid}/cmdline")
        if command.exists():
            answers.append(command.read_text())
    answers += [checked.stdout, checked.stderr, server.log.read_text()]
    assert '"code":200' in answers[-1] and '"code":400' in answers[-1]
    for text in answers:
        for token in (score[1:-1], admin):
            assert token not in text, text


def asked_by_grpc(server: Server, right: str, wrong: str) -> None:
    grpc = pytest.importorskip("tritonclient.grpc")
    with grpc.InferenceServerClient(server.grpc) as client:
        inputs = [infer_input(grpc, features(1, 3))]
        client.infer("gmm", inputs, headers={"authorization": f"Bearer {right}"})
        for headers in ({}, {"authorization": f"Bearer {wrong}"}, {"authorization": right},
                        {"x-api-key": right}):
            with pytest.raises(grpc.InferenceServerException, match="UNAUTHENTICATED") as error:
                client.infer("gmm", inputs, headers=headers)
            assert right[1:-1] not in str(error.value)


def test_tokens_that_others_may_read(tmp_path):
    score, line = make_token("app", "score")
    tokens = token_file(tmp_path, line)
    with Server(tmp_path, "--tokens", tokens) as server:
        assert ask(server.data, "/v2/models", token=score)[0] == 200
        (tmp_path / tokens).chmod(0o644)
        for more in ([], ["--check"]):
            ports = ["--listen", "127.0.0.1:0", "--no-admin"]
            refused = heat("serve", "gmm.safetensors", "--tokens", tokens, *ports, *more, cwd=tmp_path)
            assert refused.returncode != 0 and "chmod 600" in refused.stderr, refused
        # One that runs keeps those that it has.
        server.reload()
        until("tokens stay", lambda: "the tokens before stay" in server.log.read_text())
        assert ask(server.data, "/v2/models", token=score)[0] == 200
        assert ask(server.data, "/v2/models")[0] == 401
        # A token whose line is gone opens nothing any more.
        (tmp_path / tokens).chmod(0o600)
        (tmp_path / tokens).write_text(make_token("other", "score")[1])
        server.reload()
        until("it is unknown", lambda: ask(server.data, "/v2/models", token=score)[0] == 401)


OPENSSL = """
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
[server]
subjectAltName = DNS:localhost, IP:127.0.0.1
extendedKeyUsage = serverAuth
authorityKeyIdentifier = keyid
[client]
extendedKeyUsage = clientAuth
authorityKeyIdentifier = keyid
"""


class Authority:
    """An authority of certificates, made with the command of OpenSSL."""

    def __init__(self, directory: Path, name: str):
        self.directory, self.name = directory, name
        (directory / "openssl.cnf").write_text(OPENSSL)
        self.certificate = directory / f"{name}.pem"
        made = ["-keyout", f"{name}.key", "-out", f"{name}.pem", "-days", "2"]
        self.request(name, "-x509", "-extensions", "authority", *made)

    def openssl(self, *arguments: str) -> None:
        done = subprocess.run(["openssl", *arguments], cwd=self.directory, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    def request(self, name: str, *more: str) -> None:
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        self.openssl("req", "-new", "-config", "openssl.cnf", "-subj", f"/CN={name}", *key, *more)

    def issue(self, name: str, kind: str) -> tuple[Path, Path]:
        """A certificate and its key."""
        self.request(name, "-keyout", f"{name}.key", "-out", f"{name}.csr")
        own = ["-CA", f"{self.name}.pem", "-CAkey", f"{self.name}.key", "-CAcreateserial"]
        extensions = ["-extfile", "openssl.cnf", "-extensions", kind]
        made = ["-in", f"{name}.csr", "-out", f"{name}.pem", "-days", "2"]
        self.openssl("x509", "-req", *own, *extensions, *made)
        return self.directory / f"{name}.pem", self.directory / f"{name}.key"


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    if shutil.which("openssl") is None:
        pytest.skip("the command openssl is not installed")
    return Authority(tmp_path_factory.mktemp("certificates"), "authority")


def knowing(authority: Authority, own: tuple[Path, Path] | None = None,
            version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """A client that knows that authority, perhaps with a certificate of its own."""
    context = ssl.create_default_context(cafile=authority.certificate)
    if own is not None:
        context.load_cert_chain(*own)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


def tls_options(certificate: Path, key: Path) -> list[str]:
    return ["--tls-cert", str(certificate), "--tls-key", str(key)]


VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
# Of the handshake, or, since TLS 1.3 says it after that, of the first thing that is read.
NO_ANSWER = (ssl.SSLError, ConnectionError, http.client.BadStatusLine)


@pytest.fixture(scope="module")
def secure(authority, tmp_path_factory):
    """With its certificate and tokens."""
    directory = tmp_path_factory.mktemp("secure")
    score, score_line = make_token("app", "score")
    admin, admin_line = make_token("ops", "admin")
    tokens = token_file(directory, score_line, admin_line)
    options = tls_options(*authority.issue("server", "server"))
    with Server(directory, *options, "--tokens", tokens) as server:
        server.score, server.ops = score, admin
        yield server


@pytest.mark.parametrize("version", VERSIONS)
def test_tls(secure, authority, version):
    context = knowing(authority, version=version)
    assert ask(secure.data, INFER, body=rows_body(), token=secure.score, context=context)[0] == 200
    assert ask(secure.admin, "/metrics", token=secure.ops, context=context)[0] == 200
    for token in (None, "wrong"):
        assert ask(secure.data, INFER, body=rows_body(), token=token, context=context)[0] == 401
    # By its name as well as by its address.
    with contextlib.closing(connect(secure.data.replace("127.0.0.1", "localhost"), context)) as named:
        assert send(named, "/v2")[0] == 200
        assert named.sock.version() == {"TLSv1_2": "TLSv1.2", "TLSv1_3": "TLSv1.3"}[version.name]


def test_clients_over_tls(secure, authority):
    grpc = pytest.importorskip("tritonclient.grpc")
    rows, headers = features(ROWS, 6), {"authorization": f"Bearer {secure.score}"}
    known = str(authority.certificate)
    options = {"ssl": True, "ssl_options": {"ca_certs": known}}
    with tritonhttp.InferenceServerClient(secure.data, **options) as client:
        # A copy: this client adds to them.
        found = client.infer("gmm", [infer_input(tritonhttp, rows)], headers=dict(headers))
    check(secure, "gmm", rows, *(found.as_numpy(o) for o in ("score", "p_value", "is_ood")))
    with grpc.InferenceServerClient(secure.grpc, ssl=True, root_certificates=known) as client:
        found = client.infer("gmm", [infer_input(grpc, rows)], headers=headers)
        with pytest.raises(grpc.InferenceServerException, match="UNAUTHENTICATED"):
            client.infer("gmm", [infer_input(grpc, rows)])
    check(secure, "gmm", rows, *(found.as_numpy(o) for o in ("score", "p_value", "is_ood")))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_old_versions_of_tls(secure, authority):
    context = knowing(authority)
    try:
        context.set_ciphers("DEFAULT@SECLEVEL=0")
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    except (ssl.SSLError, ValueError) as error:
        pytest.skip(f"this OpenSSL speaks no TLS 1.1: {error}")
    with pytest.raises(ssl.SSLError) as error:
        ask(secure.data, "/v2", context=context)
    if error.value.reason in ("NO_PROTOCOLS_AVAILABLE", "NO_CIPHERS_AVAILABLE"):
        pytest.skip("this OpenSSL speaks no TLS 1.1")
    # Said by the server, not by this side.
    assert "ALERT" in error.value.reason, error.value


def test_what_speaks_no_tls(secure, authority):
    """It has no answer in words, and is in nobody's way."""
    works = {"context": knowing(authority), "token": secure.score}
    host, port = secure.data.split(":")
    silent = [socket.create_connection((host, int(port))) for _ in range(20)]
    for sent in (b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                 b"\x16\x03\x01\xff\xff" + bytes(1000), b"\0" * 100_000):
        with socket.create_connection((host, int(port)), 20) as stream:
            # It may be closed already.
            with contextlib.suppress(OSError):
                stream.sendall(sent)
                stream.shutdown(socket.SHUT_WR)
            got = b""
            with contextlib.suppress(ConnectionError):
                while more := stream.recv(4096):
                    got += more
        # A record of TLS that says what is wrong, if anything.
        assert len(got) < 50 and got[:1] in (b"", b"\x15"), got
        assert ask(secure.data, INFER, body=rows_body(), **works)[0] == 200
    for stream in silent:
        stream.close()


def test_a_client_that_does_not_know_the_authority(secure, tmp_path):
    for context in (ssl.create_default_context(), knowing(Authority(tmp_path, "authority"))):
        with pytest.raises(ssl.SSLCertVerificationError):
            ask(secure.data, "/v2", token=secure.score, context=context)


@pytest.mark.parametrize("version", VERSIONS)
def test_certificates_of_clients(authority, tmp_path, version):
    other = Authority(tmp_path, "authority")
    known = authority.issue("client", "client")
    unknown = other.issue("client", "client")
    # One that is no client's.
    unfit = authority.issue("another", "server")
    options = [*tls_options(*authority.issue("guarded", "server")), "--tls-client-ca"]
    with Server(tmp_path, *options, str(authority.certificate)) as server:
        for address in (server.data, server.admin):
            path = INFER if address == server.data else "/heat/v1/status"
            body = rows_body() if address == server.data else None
            for own in (None, unknown, unfit):
                with pytest.raises(NO_ANSWER):
                    ask(address, path, body=body, context=knowing(authority, own, version))
            assert ask(address, path, body=body, context=knowing(authority, known, version))[0] == 200
        grpc = pytest.importorskip("tritonclient.grpc")
        chain, key = (str(path) for path in known)
        options = {"ssl": True, "root_certificates": str(authority.certificate)}
        with grpc.InferenceServerClient(server.grpc, **options) as client:
            with pytest.raises(grpc.InferenceServerException, match="UNAVAILABLE"):
                client.is_server_live(client_timeout=10)
        options |= {"certificate_chain": chain, "private_key": key}
        with grpc.InferenceServerClient(server.grpc, **options) as client:
            assert client.is_server_live()


def test_renewed_certificates(authority, tmp_path):
    """A new certificate is presented once it is read, the one before until then, and no request fails."""
    context = knowing(authority)
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"

    def write(issued: tuple[Path, Path]) -> bytes:
        for source, target in zip(issued, (chain, key), strict=True):
            shutil.copy(source, tmp_path / "fresh")
            (tmp_path / "fresh").rename(target)
        return ssl.PEM_cert_to_DER_cert(issued[0].read_text())

    def presented() -> bytes:
        with contextlib.closing(connect(server.data, context)) as connection:
            connection.connect()
            return connection.sock.getpeercert(binary_form=True)

    first = write(authority.issue("first", "server"))
    stop, answered, failed = threading.Event(), [0, 0], []

    def run(i: int) -> None:
        """Ask again and again, on a connection that is kept, or each time on another."""
        kept = connect(server.data, context)
        try:
            while not stop.is_set():
                status, text = (send(kept, INFER, body=rows_body()) if i == 0 else
                                ask(server.data, INFER, body=rows_body(), context=context))
                assert status == 200, text
                answered[i] += 1
        except Exception as error:
            failed.append(error)
        finally:
            kept.close()

    with Server(tmp_path, *tls_options(chain, key)) as server:
        assert presented() == first
        asking = [threading.Thread(target=run, args=(i,)) for i in range(2)]
        for thread in asking:
            thread.start()
        before = first
        for i in range(3):
            after = write(authority.issue(f"renewed{i}", "server"))
            assert presented() == before != after
            server.reload()
            until("the new certificate", lambda after=after: presented() == after)
            before = after
        # A key that does not go with it, and half a file: what is presented stays.
        good, third = chain.read_bytes(), authority.issue("third", "server")[0].read_bytes()
        for n, bad in enumerate((third, good[:len(good) // 2]), 1):
            chain.write_bytes(bad)
            server.reload()
            stay = "the certificates before stay"
            until(stay, lambda n=n: server.log.read_text().count(stay) == n)
            assert presented() == before
        then = list(answered)
        until("requests after it", lambda: all(now > n for now, n in zip(answered, then, strict=True)))
        stop.set()
        for thread in asking:
            thread.join()
    assert not failed and min(answered) > 10, (failed, answered)
