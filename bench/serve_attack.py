"""Memory of `heat serve` under clients that mean harm: silent connections, slow uploads, bombs.

    python bench/serve_attack.py target/dist/heat detector.safetensors

1,000 connections that say nothing, 500 uploads of 64 MiB that come byte by byte, gzip bombs of 1 GiB, requests of others
beside them. Prints the peak of resident memory against what was promised (idle + --memory + 64 MiB), and how long health
checks and scores of others took meanwhile.
"""

import gzip
import io
import resource
import socket
import sys
import threading
import time
import urllib.request

from serving import Server

heat, detector = sys.argv[1:3]
resource.setrlimit(resource.RLIMIT_NOFILE, (8192, 8192))
MEMORY = 256
server = Server(heat, detector, "--max-connections", "4096", "--memory", f"{MEMORY}MiB")
address, base = ("127.0.0.1", server.data), f"http://127.0.0.1:{server.data}"
row, infer = server.rows().encode(), f"{base}/v2/models/d/infer"
urllib.request.urlopen(infer, row).read()
idle = server.memory("VmRSS")

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
peak = server.memory()
promised = idle + MEMORY + 64
for kind, all_ in times.items():
    all_.sort()
    print(f"{kind}: p50 {1e3 * all_[len(all_) // 2]:.1f} ms, p99 {1e3 * all_[int(len(all_) * 0.99)]:.1f} ms")
print(f"ready after {server.started:.2f} s; idle {idle:.0f} MiB; peak {peak:.0f} MiB, promised {promised:.0f}", codes)
server.end()
sys.exit(peak > promised)
