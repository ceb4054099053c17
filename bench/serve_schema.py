"""`heat serve` against what schemathesis makes of its own OpenAPI document: requests that the schema allows, and such that it does not.

    pip install schemathesis
    python bench/serve_schema.py target/release/heat detector.safetensors [--seconds 150] [--st st]

The names of detector and version are written into the document, so that requests reach them. OpenAPI cannot say what a binary
body is: such bodies are made here, a JSON head and rows behind it, right or with one thing wrong. Prints what schemathesis says,
and the statuses of binary bodies; exits with 1 if an answer is not what the document promises, if there is an error of the server
(5xx), if no binary body was scored, or if the server does not score a row afterwards.
"""

import argparse
import collections
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from serving import Server

HOOKS = '''
import hashlib, json, random, struct
import schemathesis

NAME, DIM = {input!r}


@schemathesis.hook
def before_call(context, case, kwargs):
    if not case.operation.path.endswith("/infer") or case.meta is None or not case.meta.generation.mode.is_positive:
        return
    chance = random.Random(hashlib.sha256(repr(case.body).encode()).digest())
    if case.media_type != "application/octet-stream" and chance.random() < 0.5:
        return
    case.media_type = "application/octet-stream"
    rows = chance.randint(0, 3)
    data = struct.pack(f"<{{rows * DIM}}f", *(chance.gauss(0, 1) for _ in range(rows * DIM)))
    wrong = chance.choice(["", chance.choice(["size", "shape", "type", "cut", "more", "length", "name", "values"])])
    data = data[:-1] if wrong == "cut" else data + b"?" * (wrong == "more")
    if wrong == "values":
        data = chance.randbytes(len(data))
    size = len(data) + chance.choice([-4, 1, 1 << 40]) * (wrong == "size")
    tensor = {{
        "name": "other" if wrong == "name" else NAME,
        "shape": [rows, DIM + 1] if wrong == "shape" else [rows, DIM],
        "datatype": chance.choice(["FP64", "BYTES", "BF16"]) if wrong == "type" else "FP32",
        "parameters": {{"binary_data_size": size}},
    }}
    head = json.dumps({{"inputs": [tensor]}}).encode()
    length = chance.choice([0, len(head) - 1, len(head) + 1, 1 << 40, "x", -1]) if wrong == "length" else len(head)
    case.body = head + data
    case.headers = {{**(case.headers or {{}}), "Inference-Header-Content-Length": str(length)}}


@schemathesis.hook
def after_call(context, case, response):
    if "Inference-Header-Content-Length" in (case.headers or {{}}):
        with open({seen!r}, "a") as file:
            print(response.status_code, file=file)
'''

parser = argparse.ArgumentParser()
parser.add_argument("heat")
parser.add_argument("detector")
parser.add_argument("--seconds", type=int, default=150)
parser.add_argument("--seed", type=int, default=1)
parser.add_argument("--st", default="st")
args = parser.parse_args()

server = Server(args.heat, args.detector)
document = json.loads(server.ask("GET", "/openapi.json")[1])
version = json.loads(server.ask("GET", "/v2/models/d")[1])["versions"][0]
for path in document["paths"].values():
    for operation in path.values():
        for parameter in operation.get("parameters", []):
            if known := {"model": "d", "version": version}.get(parameter["name"]):
                parameter["schema"] = {"type": "string", "enum": [known]}

with tempfile.TemporaryDirectory() as folder:
    folder = Path(folder)
    (folder / "openapi.json").write_text(json.dumps(document))
    (folder / "hooks.py").write_text(HOOKS.format(input=server.input, seen=str(folder / "seen")))
    (folder / "schemathesis.toml").write_text('hooks = "hooks.py"\n')
    # Which binary bodies are accepted is for the counts below to say.
    words = [args.st, "run", "openapi.json", "--url", f"http://127.0.0.1:{server.data}", "--max-time", args.seconds, "--seed", args.seed,
             "--exclude-checks", "positive_data_acceptance", "--continue-on-failure"]
    done = subprocess.run([str(w) for w in words], cwd=folder, text=True, stdout=subprocess.PIPE)
    print(done.stdout[-6000:])
    seen = folder / "seen"
    statuses = collections.Counter(seen.read_text().split()) if seen.exists() else {}
print("binary bodies:", dict(statuses))
status, _ = server.ask("POST", "/v2/models/d/infer", server.rows(), {"Content-Type": "application/json"})
print("a row afterwards:", status)
server.end()
sys.exit(done.returncode != 0 or not statuses.get("200") or any(s.startswith("5") for s in statuses) or status != 200)
