"""`heat serve` at fixed rates: the server on one core, the drivers on the other.

    cargo build --profile dist -p heat-cli --features serve
    cargo build --release -p heat-serve --example load
    python bench/serve_rates.py target/dist/heat target/release/examples/load --seconds 60 --runs 3
    python bench/serve_rates.py ... --only images --onnx model.onnx --images directory
    python bench/serve_rates.py ... --only peers --python venv/bin/python --mlserver other/bin/mlserver     # kserve, heat-ood; mlserver, heat-ood
    python bench/serve_rates.py ... --only oha --oha oha
    python bench/serve_rates.py ... --only analyzer --analyzer perf_analyzer

Detectors of 512 features in ten classes, made here: `gmm`, and HEAT by the recipe `heat_gmm_c10` (one epoch, which takes no
less to score). Loads are open: Poisson arrivals that wait for no answer, times from the intended arrival. A load of one row
beside others has the higher priority on the drivers' core, so that what is measured is the server's. Prints a line a load.
Needs numpy, safetensors; root for priorities; for `slow` slowhttptest.
"""

import argparse
import http.client
import json
import os
import re
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from serving import Server

parser = argparse.ArgumentParser()
parser.add_argument("heat")
parser.add_argument("load")
parser.add_argument("--seconds", type=float, default=15)
parser.add_argument("--runs", type=int, default=3)
parser.add_argument("--only", default="")
parser.add_argument("--onnx", default="")
parser.add_argument("--images", default="")
parser.add_argument("--python", default=sys.executable)
parser.add_argument("--mlserver", default="", help="of an environment of its own: it wants other versions than KServe")
parser.add_argument("--oha", default="")
parser.add_argument("--analyzer", default="", help="perf_analyzer, as in tritonclient 2.50's wheel (needs libb64 and libcudart)")
args = parser.parse_args()
SERVER, DRIVERS = 0, 1
PATH = "/v2/models/d/infer"
os.sched_setaffinity(0, {DRIVERS})


def run(*words, **more):
    found = subprocess.run([str(w) for w in words], text=True, capture_output=True, **more)
    if found.returncode:
        sys.exit(f"{' '.join(map(str, words))}: {found.stderr}")
    return found.stdout


def driver(port, *options, path=PATH, seconds=None, warm_up=3):
    words = ["taskset", "-c", DRIVERS, args.load, f"127.0.0.1:{port}", path, "--seconds", seconds or args.seconds,
             "--warm-up", warm_up, *options]
    return subprocess.Popen([str(w) for w in words], stdout=subprocess.PIPE, text=True)


def found(process):
    out, _ = process.communicate()
    return json.loads(out)


def load(port, *options, **more):
    return found(driver(port, *options, **more))


def tell(name, runs):
    """Of several runs the median rate, and each one's percentiles."""
    each = lambda key: ", ".join(f"{r[key]:.1f}" for r in runs)
    rate = statistics.median(r["achieved"] for r in runs)
    rows = statistics.median(r["rows_per_second"] for r in runs)
    print(f"{name}: offered {runs[0]['offered']:,.0f}, answered {rate:,.0f} ({rows:,.0f} rows) a second; p50 {each('p50')} ms; "
          f"p99 {each('p99')} ms; refused {sum(r['refused'] for r in runs)}, failed {sum(r['failed'] for r in runs)}", flush=True)
    return rate


def serve(detector, *options):
    return Server(args.heat, detector, *options, core=SERVER)


def repeated(name, detector, *options, server=(), runs=None):
    found = []
    for _ in range(runs or args.runs):
        s = serve(detector, *server)
        found.append(load(s.data, *options))
        s.end()
    return tell(name, found)


def steady(made):
    """Fixed rates below what is the most."""
    repeated("gmm, 1 row", made["gmm"], "--rate", 5000)
    repeated("HEAT, 1 row", made["heat"], "--rate", 2500)


def batching(made):
    """64 in flight: with batches and without."""
    options = ("--rate", 50000, "--connections", 64)
    batched = capacity(made["heat"], options)
    single = capacity(made["heat"], options, "--max-batch-rows", "1")
    print(f"HEAT, 1 row, 64 in flight: {batched:,.0f} a second, with --max-batch-rows 1 {single:,.0f}: {batched / single:.1f} times")


def capacity(detector, options, *server, key="achieved"):
    """Answers a second when more is offered, the median of the runs."""
    rates = []
    for _ in range(args.runs):
        s = serve(detector, *server)
        # The offered load ends long after the time, as few of it can be served: it is ended then.
        seconds = max(args.seconds / 3, 5)
        words = list(options)
        rate = words[words.index("--rate") + 1]
        probe = load(s.data, *words, seconds=seconds * 0.02, warm_up=0)["achieved"]
        words[words.index("--rate") + 1] = min(rate, probe * 1.3)
        rates.append(load(s.data, *words, seconds=seconds, warm_up=1)[key])
        s.end()
    return statistics.median(rates)


def wide(made):
    """Requests of 64 rows beside the command on the same rows, and as JSON."""
    began = time.monotonic()
    run("taskset", "-c", SERVER, args.heat, "score", made["heat"], made["many"], "-o", made["many"].with_name("scores.csv"),
        "--threads", 1)
    batch = made["rows"] / (time.monotonic() - began)
    rate = capacity(made["heat"], ("--rate", 1000, "--rows", 64), key="rows_per_second")
    print(f"HEAT, 64 rows: {rate:,.0f} rows a second, `heat score` from start to end {batch:,.0f}: {rate / batch:.2f}")
    repeated("HEAT, 64 rows at 70 %", made["heat"], "--rows", 64, "--rate", 0.7 * rate / 64)
    binary = capacity(made["gmm"], ("--rate", 3000, "--rows", 64), key="rows_per_second")
    text = capacity(made["gmm"], ("--rate", 3000, "--rows", 64, "--json"), key="rows_per_second")
    print(f"gmm, 64 rows: {binary:,.0f} rows a second, as JSON {text:,.0f}: {text / binary:.2f}")


def mixed(made):
    """One row at a time beside one sender of 16,384-row requests, one after the other."""
    for rows in (0, 16384):
        runs = []
        for _ in range(args.runs):
            s = serve(made["gmm"])
            large = rows and driver(s.data, "--rows", rows, "--rate", 1000, "--connections", 1, seconds=1000)
            if large:
                os.setpriority(os.PRIO_PROCESS, large.pid, 19)
                time.sleep(1)
            small = driver(s.data, "--rate", 300)
            os.setpriority(os.PRIO_PROCESS, small.pid, -20)
            runs.append(found(small))
            if large:
                large.kill()
                large.wait()
            s.end()
        tell(f"gmm, 1 row beside {rows:,} rows" if rows else "gmm, 1 row alone", runs)


def idle(made):
    """The first answer after a rest, and what of it is scoring."""
    for name in ("gmm", "heat"):
        s = serve(made[name])
        # Bytes over a socket: the time of a client that parses nothing.
        field, dim = s.input
        tensor = {"name": field, "shape": [1, dim], "datatype": "FP32", "parameters": {"binary_data_size": 4 * dim}}
        head, times = json.dumps({"inputs": [tensor]}), []
        request = (f"POST {PATH} HTTP/1.1\r\nHost: x\r\nInference-Header-Content-Length: {len(head)}\r\n"
                   f"Content-Length: {len(head) + 4 * dim}\r\n\r\n{head}").encode() + np.full(dim, 0.5, np.float32).tobytes()
        client = socket.create_connection(("127.0.0.1", s.data))
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for i in range(12):
            time.sleep(0.5 if i else 3)
            began = time.perf_counter()
            client.sendall(request)
            answer = client.recv(65536)
            times.append(((time.perf_counter() - began) * 1e3, int(re.search(rb'"score_us":(\d+)', answer)[1]) / 1e3))
        over = [whole - score for whole, score in times]
        print(f"{name}, first answer after 3 s: {times[0][0]:.2f} ms, of which scoring {times[0][1]:.2f}; of 11 after half a "
              f"second each {statistics.median(t for t, _ in times[1:]):.2f} ms, over scoring {statistics.median(over[1:]):.2f} ms; "
              f"ready after {s.started:.2f} s, {s.memory('VmRSS'):.0f} MiB resident", flush=True)
        s.end()


def overload(made):
    """Three times what can be served, with the default queue and with a small one."""
    knee = capacity(made["heat"], ("--rate", 2000, "--rows", 16, "--connections", 256))
    print(f"HEAT, 16 rows: at most {knee:,.0f} a second")
    for queue in ((), ("--queue-rows", "256")):
        s = serve(made["heat"], *queue)
        quiet = load(s.data, "--rate", 50, seconds=5)
        many = driver(s.data, "--rows", 16, "--rate", 3 * knee, "--connections", 1000)
        health, stop = [], threading.Event()

        def ask():
            while not stop.is_set():
                began = time.monotonic()
                assert s.ask("GET", "/v2/health/ready")[0] == 200
                health.append(time.monotonic() - began)
                time.sleep(0.05)

        thread = threading.Thread(target=ask)
        os.setpriority(os.PRIO_PROCESS, many.pid, 5)
        thread.start()
        result = found(many)
        stop.set()
        thread.join()
        time.sleep(2)
        after = load(s.data, "--rate", 50, seconds=5, warm_up=0)
        health.sort()
        print(f"HEAT, 16 rows, {3 * knee:,.0f} offered a second{', ' + ' '.join(queue) if queue else ''}: answered "
              f"{result['achieved']:,.0f} ({result['achieved'] / knee:.2f}), p99 {result['p99']:.0f} ms; refused "
              f"{result['refused']}, p99 {result['refused_p99']:.0f} ms; failed {result['failed']}; health p99 "
              f"{1e3 * health[int(len(health) * 0.99)]:.1f} ms; 1 row, p99 {quiet['p99']:.1f} ms before, two seconds after "
              f"{after['p99']:.1f}", flush=True)
        s.end()


def monitor(made):
    """Of the server's processor time under as much as it can serve, the part of the thread that watches for drift."""
    for name, options in (("gmm", ("--rate", 50000)), ("heat", ("--rate", 50000)), ("gmm", ("--rows", 64, "--rate", 3000))):
        rate = capacity(made[name], options)
        parts = []
        for _ in range(args.runs):
            s = serve(made[name])
            load(s.data, *options[:-1], 0.9 * rate, seconds=2, warm_up=0)
            before = s.threads()
            load(s.data, *options[:-1], 0.9 * rate)
            spent = {thread: now - before.get(thread, 0) for thread, now in s.threads().items()}
            parts.append(100 * spent["monitor"] / sum(spent.values()))
            s.end()
        rows = "64 rows" if "--rows" in options else "1 row"
        print(f"{name}, {rows}, {0.9 * rate:,.0f} requests a second: the monitor takes {statistics.median(parts):.2f} % of the "
              f"server's processor time (from {min(parts):.2f} to {max(parts):.2f})", flush=True)


def images(made):
    """Files of images through a network, beside `heat extract` of the same files on the same core."""
    files = sorted(p for p in Path(args.images).rglob("*") if p.suffix.lower() in (".png", ".jpg", ".jpeg"))[:2000]
    directory = made["gmm"].parent
    tree = directory / "images"
    tree.mkdir()
    for p in files:
        os.symlink(p.resolve(), tree / p.name)
    extract = [args.heat, "extract", tree, "--backbone", args.onnx, "--preset", "cifar10", "-o"]
    run(*extract, directory / "pictures")
    run(args.heat, "fit", "max_logit", "--train", directory / "pictures", "-o", directory / "pictures.safetensors")
    run(args.heat, "calibrate", directory / "pictures.safetensors", "--id", directory / "pictures", "--force",
        "-o", directory / "calibrated.safetensors")
    rates = {"extract": [], "serve": []}
    for i in range(args.runs):
        began = time.monotonic()
        run("taskset", "-c", SERVER, *extract, directory / f"again{i}", "--threads", 1)
        rates["extract"].append(len(files) / (time.monotonic() - began))
        s = serve(directory / "calibrated.safetensors", "--backbone", f"d={args.onnx}")
        parts = [files[at:at + 16] for at in range(0, len(files), 16)]
        turn, lock = iter(parts), threading.Lock()

        def client():
            connection = http.client.HTTPConnection("127.0.0.1", s.data, timeout=60)
            while True:
                with lock:
                    part = next(turn, None)
                if part is None:
                    return
                data = b"".join(struct.pack("<I", len(b := p.read_bytes())) + b for p in part)
                tensor = {"name": "image_bytes", "shape": [len(part)], "datatype": "BYTES",
                          "parameters": {"binary_data_size": len(data)}}
                head = json.dumps({"inputs": [tensor]}).encode()
                connection.request("POST", PATH, head + data, {"Inference-Header-Content-Length": str(len(head))})
                answer = connection.getresponse()
                text = answer.read()
                assert answer.status == 200, text[:200]

        threads = [threading.Thread(target=client) for _ in range(8)]
        began = time.monotonic()
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        rates["serve"].append(len(files) / (time.monotonic() - began))
        s.end()
    extracted, served = (statistics.median(rates[k]) for k in ("extract", "serve"))
    print(f"images, 16 a request, 8 clients: {served:.1f} a second, `heat extract` from start to end {extracted:.1f}: "
          f"{served / extracted:.2f}; of single runs {[round(b / a, 2) for a, b in zip(rates['extract'], rates['serve'])]}")


MLSERVER = '''
import heat_ood
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse

class Detector(MLModel):
    async def load(self):
        self.detector = heat_ood.load(self.settings.parameters.uri)
        return True

    async def predict(self, payload):
        found = self.detector.predict(heat_ood.FeatureSet(avg=self.decode(payload.inputs[0], default_codec=NumpyCodec)))
        outputs = [NumpyCodec.encode_output(n, v) for n, v in (("score", found.score), ("p_value", found.p_value))]
        return InferenceResponse(model_name=self.name, outputs=outputs)
'''


def peers(made):
    """The same detector behind KServe's and MLServer's Python servers: the highest rate at a p99 that this server keeps at 5,000."""
    port = 18081
    directory = made["gmm"].parent / "mlserver"
    directory.mkdir()
    (directory / "detector.py").write_text(MLSERVER)
    (directory / "model-settings.json").write_text(json.dumps(
        {"name": "d", "implementation": "detector.Detector", "parameters": {"uri": str(made["gmm"])}}))
    (directory / "settings.json").write_text(json.dumps(
        {"http_port": port + 1, "grpc_port": port + 2, "metrics_endpoint": None, "parallel_workers": 0, "debug": False}))
    commands = {
        "KServe": ([args.python, Path(__file__).with_name("serve_kserve.py"), "d", made["gmm"], port], port, PATH, []),
        "MLServer": ([args.mlserver or Path(args.python).with_name("mlserver"), "start", "."], port + 1, PATH, ["--json"]),
    }
    for name, (words, port, path, options) in commands.items():
        server = subprocess.Popen(["taskset", "-c", str(SERVER), *map(str, words)], cwd=directory if name == "MLServer" else None,
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 90
        while True:
            try:
                client = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                client.request("GET", "/v2/health/ready")
                if client.getresponse().status == 200:
                    break
            except OSError:
                pass
            if time.monotonic() > end or server.poll() is not None:
                print(f"{name}: did not start")
                break
            time.sleep(0.5)
        if server.poll() is None:
            for rate in (100, 200, 300, 400, 600):
                tell(f"{name}, gmm, 1 row", [load(port, "--rate", rate, *options, path=path, seconds=min(args.seconds, 10))])
            server.terminate()
            server.wait()
    for rate in (5000, 6000, 7000):
        repeated("heat serve, gmm, 1 row", made["gmm"], "--rate", rate, runs=1)
    for rate in (1000, 2000, 3000):
        repeated("heat serve, gmm, 1 row as JSON", made["gmm"], "--rate", rate, "--json", runs=1)


def oha(made):
    """The driver's percentiles beside those of oha, which corrects for waiting."""
    s = serve(made["gmm"])
    body = made["gmm"].with_name("body.json")
    body.write_text(s.rows())
    for rate in (500, 1000, 2000):
        out = run("taskset", "-c", DRIVERS, args.oha, "-z", f"{int(args.seconds)}s", "-q", rate, "-c", 64, "--latency-correction",
                  "--no-tui", "--output-format", "json", "-m", "POST", "-D", body, "-T", "application/json",
                  f"http://127.0.0.1:{s.data}{PATH}")
        theirs = json.loads(out)
        p = theirs["latencyPercentiles"]
        print(f"oha, {rate} a second: answered {theirs['summary']['requestsPerSec']:,.0f}, p50 {1e3 * p['p50']:.2f} ms, "
              f"p99 {1e3 * p['p99']:.2f} ms, {theirs['statusCodeDistribution']}")
        tell("as JSON", [load(s.data, "--rate", rate, "--json")])
    s.end()


def analyzer(made):
    """The same loads by Triton's own tool."""
    s = serve(made["gmm"])
    # Its own random bytes are not all numbers.
    rows = made["gmm"].with_name("rows.json")
    content = np.random.default_rng(1).random(512).astype(np.float32).tolist()
    rows.write_text(json.dumps({"data": [{s.input[0]: {"content": content, "shape": [512]}}]}))
    for protocol, port in (("http", s.data), ("grpc", s.grpc)):
        words = ["taskset", "-c", DRIVERS, args.analyzer, "-m", "d", "-u", f"127.0.0.1:{port}", "-i", protocol, "--input-data", rows,
                 "--request-rate-range", "500:2000:500", "--request-distribution", "poisson", "--percentile", 99,
                 "--measurement-interval", int(1000 * args.seconds), "--stability-percentage", 30]
        for line in run(*words).splitlines():
            if line.startswith("Request Rate:") and "throughput" in line:
                print(f"perf_analyzer, {protocol}: {line}", flush=True)
    s.end()


def slow(made):
    """Requests of others while slowhttptest sends heads, bodies and reads answers as slowly as it can."""
    s = serve(made["gmm"], "--max-connections", "4096")
    tell("alone", [load(s.data, "--rate", 1000)])
    for what, mode in (("heads", ("-H", "-i", 5)), ("bodies", ("-B", "-i", 5, "-s", 67108864, "-t", "POST")), ("reads", ("-X", "-w", 1, "-y", 16, "-z", 4, "-k", 3))):
        words = ["slowhttptest", *mode, "-c", 1000, "-r", 500, "-l", int(args.seconds) + 6, "-p", 3, "-u", f"http://127.0.0.1:{s.data}{PATH}"]
        attack = subprocess.Popen(["taskset", "-c", str(DRIVERS), *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        time.sleep(3)
        tell(f"beside slow {what}", [load(s.data, "--rate", 1000)])
        said = re.sub(r"\x1b\[[0-9;]*m", "", attack.communicate()[0])
        last = {k: v for k, v in re.findall(r"^(connected|closed|error|service available):\s+(\w+)", said, re.M)}
        print(f"slowhttptest, slow {what}: {last}; peak {s.memory():.0f} MiB", flush=True)
    s.end()


def make(directory):
    rng = np.random.default_rng(0)
    means = rng.normal(size=(10, 512))

    def some(n, name):
        label = rng.integers(0, 10, n)
        x = np.maximum(means[label] + rng.normal(size=(n, 512)), 0).astype(np.float32)
        save_file({"avg": x, "label": label}, directory / name)
        return directory / name

    train, held, many = some(10_000, "train.safetensors"), some(2_000, "held.safetensors"), some(60_000, "many.safetensors")
    made = {"many": many, "rows": 60_000}
    run(args.heat, "fit", "gmm", "--train", train, "-o", directory / "g.safetensors")
    run(args.heat, "train", "ebm=heat_gmm_c10", "n_epochs=1", "--train", train, "--out", directory / "run")
    for name, path in (("gmm", "g.safetensors"), ("heat", "run/detector.safetensors")):
        made[name] = directory / f"{name}.safetensors"
        run(args.heat, "calibrate", directory / path, "--id", held, "-o", made[name])
    return made


LOADS = [steady, batching, wide, mixed, idle, overload, monitor, images, peers, oha, analyzer, slow]
with tempfile.TemporaryDirectory() as directory:
    made = make(Path(directory))
    for what in LOADS:
        if args.only and what.__name__ not in args.only.split(","):
            continue
        if what is images and not args.onnx or what is oha and not args.oha or what is analyzer and not args.analyzer:
            print(f"{what.__name__}: not tried, no file given")
            continue
        what(made)
