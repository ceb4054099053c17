"""Memory of `heat serve` under clients that mean harm: silent connections, slow uploads, bombs.

    python bench/serve_attack.py target/dist/heat detector.safetensors

1,000 connections that say nothing, 500 uploads of 64 MiB that come byte by byte, gzip bombs of 1 GiB, requests of others
beside them. Prints the peak of resident memory against what was promised (idle + --memory + 64 MiB), and how long health
checks and scores of others took meanwhile.
"""

import gzip
import io
import json
import re
import resource
import socket
import subprocess
import sys
import threading
import time
import urllib.request

heat, detector = sys.argv[1:3]
resource.setrlimit(resource.RLIMIT_NOFILE, (8192, 8192))
MEMORY = 256
process = subprocess.Popen(
    [heat, "serve", f"d={detector}", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--max-connections", "4096",
     "--memory", f"{MEMORY}MiB", "--no-request-log"],
    stderr=subprocess.PIPE, text=True,
)
began = time.monotonic()
address = None
while address is None:
    found = re.match(r"listening on 127.0.0.1:(\d+)", process.stderr.readline())
    address = found and ("127.0.0.1", int(found[1]))
ready = time.monotonic() - began
threading.Thread(target=process.stderr.read, daemon=True).start()
base = f"http://127.0.0.1:{address[1]}"


def memory(key):
    text = open(f"/proc/{process.pid}/status").read()
    return int(re.search(rf"{key}:\s+(\d+)", text)[1]) / 1024


metadata = json.load(urllib.request.urlopen(f"{base}/v2/models/d"))
name, dim = metadata["inputs"][0]["name"], metadata["inputs"][0]["shape"][1]
row = json.dumps({"inputs": [{"name": name, "shape": [1, dim], "datatype": "FP32", "data": [0.5] * dim}]}).encode()
infer = f"{base}/v2/models/d/infer"
urllib.request.urlopen(infer, row).read()
idle = memory("VmRSS")

bomb = io.BytesIO()
with gzip.GzipFile(fileobj=bomb, mode="wb", compresslevel=9) as to:
    block = bytes(1 << 20)
    for _ in range(1024):
        to.write(block)
bomb = bomb.getvalue()
silent = [socket.create_connection(address) for _ in range(1000)]
head = b"POST /v2/models/d/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 67108864\r\n\r\n"
slow = []
for _ in range(500):
    stream = socket.create_connection(address)
    stream.sendall(head + b"{")
    slow.append(stream)
codes, times = {}, {"health": [], "score": []}


def ask(kind, url, body=None, headers={}):
    t = time.monotonic()
    try:
        code = urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=60).status
    except urllib.error.HTTPError as error:
        code = error.code
    except OSError:
        code = "closed"
    codes[kind, code] = codes.get((kind, code), 0) + 1
    if kind in times:
        times[kind].append(time.monotonic() - t)


end = time.monotonic() + 20


def bombs():
    while time.monotonic() < end:
        ask("bomb", infer, bomb, {"Content-Encoding": "gzip"})


def dribble():
    while time.monotonic() < end:
        for stream in slow:
            try:
                stream.sendall(b" " * 4096)
            except OSError:
                pass
        time.sleep(0.05)


threads = [threading.Thread(target=t) for t in (bombs, bombs, dribble)]
for thread in threads:
    thread.start()
while time.monotonic() < end:
    ask("health", f"{base}/v2/health/ready")
    ask("score", infer, row)
    time.sleep(0.02)
for thread in threads:
    thread.join()
peak = memory("VmHWM")
promised = idle + MEMORY + 64
for kind, all_ in times.items():
    all_.sort()
    print(f"{kind}: p50 {1e3 * all_[len(all_) // 2]:.1f} ms, p99 {1e3 * all_[int(len(all_) * 0.99)]:.1f} ms")
print(f"ready after {ready:.2f} s; idle {idle:.0f} MiB; peak {peak:.0f} MiB, promised {promised:.0f}", codes)
process.terminate()
process.wait()
sys.exit(peak > promised)
