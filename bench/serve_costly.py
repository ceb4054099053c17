"""`heat serve` given little that is made to cost much: bodies that grow when they are read, heads, answers that nobody takes,
connections that only say that they are alive.

    pip install h2
    python bench/serve_costly.py target/dist/heat detector.safetensors [PART]

Each case has a server of its own, with its default bounds unless it says otherwise; PART runs those alone whose name has it.
Prints what was sent, what came of it, how far resident memory rose above that of the idle server, and the processor time.
Exits with 1 if memory rose by more than `--memory` and 64 MiB, a case took more than ten seconds of processor, or others had
no answer.
"""

import gzip
import http.client
import json
import re
import socket
import struct
import sys
import threading
import time

from hpack import Encoder
from hyperframe import frame as h2
from serving import Server

heat, detector = sys.argv[1:3]
part = sys.argv[3] if len(sys.argv) > 3 else ""
MOST = 256 + 64  # MiB
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
failed = []


class Case(Server):
    """A server that is told of at the end."""

    def __init__(self, *options):
        super().__init__(heat, detector, *options)
        self.one = self.rows()
        self.ask("POST", "/v2/models/d/infer", self.one)
        self.idle, self.began = self.memory("VmRSS"), self.seconds()

    def ask(self, *request, timeout=120, **more):
        try:
            return super().ask(*request, timeout=timeout, **more)
        except (OSError, http.client.HTTPException) as error:
            return type(error).__name__, b""

    def tell(self, name, sent, came, others=True):
        rose, took = self.memory() - self.idle, self.seconds() - self.began
        print(f"{name}: sent {sent / 1024:,.0f} KiB; {came}; +{rose:.0f} MiB, {took:.1f} s of processor", flush=True)
        answered = self.ask("POST", "/v2/models/d/infer", self.one, timeout=10)[0] if others else 200
        if rose > MOST or took > 10 or answered != 200:
            failed.append(f"{name} (others then: {answered})")
        self.end()


def wanted(name):
    return part in name


def fill(before, unit, after, size):
    return (before + unit * ((size - len(before) - len(after)) // len(unit)) + after).encode()


def varint(n):
    out = b""
    while n > 127:
        out, n = out + bytes([n & 127 | 128]), n >> 7
    return out + bytes([n])


def field(number, value):
    return varint(number << 3 | 2) + varint(len(value)) + value


def connect(port, initial_window=65535):
    peer = socket.create_connection(("127.0.0.1", port), timeout=60)
    settings = h2.SettingsFrame(0, settings={h2.SettingsFrame.INITIAL_WINDOW_SIZE: initial_window})
    peer.sendall(PREFACE + settings.serialize() + h2.SettingsFrame(0, flags=["ACK"]).serialize())
    return peer


def head(path, *more):
    return [(":method", "POST"), (":scheme", "http"), (":authority", "x"), (":path", path), *more]


def call(port, message):
    """A gRPC call whose packed message fits the first window; the status of its answer."""
    packed = gzip.compress(message, 9)
    data = b"\1" + struct.pack(">I", len(packed)) + packed
    assert len(data) < 65536
    fields = head("/inference.GRPCInferenceService/ModelInfer", ("content-type", "application/grpc"), ("te", "trailers"),
                  ("grpc-encoding", "gzip"))
    peer = connect(port)
    frames = [h2.HeadersFrame(1, data=Encoder().encode(fields), flags=["END_HEADERS"]).serialize()]
    for at in range(0, len(data), 16384):
        flags = ["END_STREAM"] if at + 16384 >= len(data) else []
        frames.append(h2.DataFrame(1, data=data[at:at + 16384], flags=flags).serialize())
    peer.sendall(b"".join(frames))
    got = b""
    while b"message" not in got and (piece := peer.recv(65536)):
        got += piece
        if re.search(rb"\x01\x05\x00\x00\x00\x01|\x01\x04\x00\x00\x00\x01", got):  # HEADERS of the stream
            break
    peer.close()
    return len(data), "answered" if got else "closed"


server = Case("--max-connections", "4")
one = json.dumps(json.loads(server.one)["inputs"][0])
tensor, (name, dim) = one[:-1], server.input
server.end()
M = 1 << 20
bodies = {
    "numbers in a parameter": fill('{"inputs":[%s],"parameters":{"a":[0' % one, ",0", "]}}", 60 * M),
    "objects in a parameter": fill('{"inputs":[%s],"parameters":{"a":[{}' % one, ',{"":0}', "]}}", 60 * M),
    "numbers in a tensor's parameter": fill('{"inputs":[%s,"parameters":{"a":[0' % tensor, ",0", "]}}]}", 60 * M),
    "sides": fill('{"inputs":[{"name":"%s","datatype":"FP32","data":[1],"shape":[1' % name, ",1", "]}]}", 60 * M),
    "outputs": fill('{"inputs":[%s],"outputs":[{"name":""}' % one, ',{"name":""}', "]}", 60 * M),
    "empty strings": fill('{"inputs":[{"name":"%s","shape":[9000000],"datatype":"BYTES","data":[""' % name, ',""', "]}]}", 60 * M),
    "brackets": fill('{"inputs":[%s],"x":' % one, "[", "", 60 * M),
    "a string for inputs": fill('{"inputs":"', "\x7f", '"}', 60 * M),
    "an escaped id": fill('{"inputs":[%s],"id":"' % one, "\\u0041", '"}', 60 * M),
    "inputs": ('{"inputs":[' + ",".join(
        '{"name":"%06x","shape":[1],"datatype":"FP32","data":[1]}' % i for i in range(400_000)) + "]}").encode(),
}
for case, body in bodies.items():
    if wanted(case):
        server, packed = Case(), gzip.compress(body, 6)
        status, text = server.ask("POST", "/v2/models/d/infer", packed, {"Content-Encoding": "gzip"})
        server.tell(f"{case}, {len(body) / M:.0f} MiB of JSON", len(packed), f"{status} {text[:60].decode()}")

model, fp32 = field(1, b"d"), field(1, name.encode()) + field(2, b"FP32")
messages = {
    "gRPC inputs": model + b"\x2a\x00" * (16 * M),
    "gRPC inputs with contents": model + b"\x2a\x02\x2a\x00" * (8 * M),
    "gRPC outputs": model + b"\x32\x00" * (16 * M),
    "gRPC raw contents": model + b"\x3a\x00" * (16 * M),
    "gRPC sides": model + field(5, fp32 + field(3, b"\x01" * (32 * M))),
    "gRPC strings": model + field(5, field(1, b"x") + field(2, b"BYTES") + field(5, b"\x42\x00" * (8 * M))),
}
for case, message in messages.items():
    if wanted(case):
        server = Case()
        sent, came = call(server.grpc, message)
        server.tell(f"{case}, {len(message) / M:.0f} MiB", sent, came)

if wanted("one output"):
    server = Case()
    rows = 16384
    values = struct.pack(f"<{rows * dim}f", *[0.5] * (rows * dim))[: 60 * M // (4 * dim) * 4 * dim]
    rows = len(values) // (4 * dim)
    tensor = {"name": name, "shape": [rows, dim], "datatype": "FP32", "parameters": {"binary_data_size": len(values)}}
    text = json.dumps({"inputs": [tensor], "outputs": [{"name": "score"}] * 400}).encode()
    status, answer = server.ask("POST", "/v2/models/d/infer", text + values, {"Inference-Header-Content-Length": str(len(text))})
    server.tell(f"one output asked for 400 times, {rows} rows", len(text + values), f"{status} {answer[:60].decode()}")

if wanted("heads"):
    server = Case()
    encoder = Encoder()
    first = encoder.encode(head("/v2/models/d/infer", ("a", "b")))
    more = encoder.encode(head("/v2/models/d/infer", *[("a", "b")] * 450))
    heads = b"".join(
        h2.HeadersFrame(2 * i + 1, data=more if i else first, flags=["END_HEADERS"]).serialize() for i in range(100))
    peers = []
    for _ in range(100):
        peers.append(connect(server.data))
        try:
            peers[-1].sendall(heads)
        except OSError:
            pass
    began, times = time.monotonic(), []
    while time.monotonic() < began + 5:
        asked = time.monotonic()
        status = server.ask("POST", "/v2/models/d/infer", server.one, timeout=20)[0]
        times.append((time.monotonic() - asked, status))
    worst = max(times)
    [peer.close() for peer in peers]
    server.tell("100 HTTP/2 connections with 100 heads of 450 fields", 100 * len(heads),
                f"others waited {worst[0] * 1000:.0f} ms at most, {sorted({str(s) for _, s in times})}")

if wanted("answers that are not taken"):
    server = Case()
    rows = min(16384, 60 * M // (4 * dim))
    values = struct.pack(f"<{dim}f", *[0.5] * dim) * rows
    tensor = {"name": name, "shape": [rows, dim], "datatype": "FP32", "parameters": {"binary_data_size": len(values)}}
    text = json.dumps({"inputs": [tensor]}).encode()
    body, length, sent = text + values, str(len(text)), 0

    def stubborn():
        """Ask on one connection after another stream, take no answer, answer PINGs."""
        global sent
        peer = connect(server.data, 0)
        encoder = Encoder()
        windows, opened, answers = {0: 65535}, 65535, 0
        condition = threading.Condition()
        ended = False

        def read():
            nonlocal opened, answers, ended
            got = b""
            try:
                while piece := peer.recv(65536):
                    got += piece
                    while len(got) >= 9 and len(got) >= 9 + (size := int.from_bytes(got[:3], "big")):
                        kind, flags, stream = got[3], got[4], int.from_bytes(got[5:9], "big")
                        payload, got = got[9:9 + size], got[9 + size:]
                        with condition:
                            if kind == 8:
                                windows[stream] = windows.get(stream, 0) + int.from_bytes(payload, "big")
                            elif kind == 4 and not flags & 1:
                                for at in range(0, size, 6):
                                    if payload[at + 1] == 4:
                                        opened = int.from_bytes(payload[at + 2:at + 6], "big")
                            elif kind == 1:
                                answers += 1
                            condition.notify_all()
                        if kind == 6 and not flags & 1:
                            peer.sendall(h2.PingFrame(0, opaque_data=payload, flags=["ACK"]).serialize())
            except OSError:
                pass
            with condition:
                ended = True
                condition.notify_all()

        threading.Thread(target=read, daemon=True).start()
        for i in range(60):
            stream, at = 2 * i + 1, 0
            fields = head("/v2/models/d/infer", ("inference-header-content-length", length))
            try:
                peer.sendall(h2.HeadersFrame(stream, data=encoder.encode(fields), flags=["END_HEADERS"]).serialize())
                while at < len(body):
                    size = min(16384, len(body) - at)
                    with condition:
                        room = lambda: ended or windows[0] >= size and opened + windows.get(stream, 0) >= at + size
                        if not condition.wait_for(room, timeout=5) or ended:
                            return peer
                        windows[0] -= size
                    flags = ["END_STREAM"] if at + size == len(body) else []
                    peer.sendall(h2.DataFrame(stream, data=body[at:at + size], flags=flags).serialize())
                    at, sent = at + size, sent + size
            except OSError:
                return peer
            with condition:
                condition.wait_for(lambda: ended or answers > i, timeout=5)
        return peer

    threads = [threading.Thread(target=stubborn) for _ in range(6)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    held, began = server.memory("VmRSS") - server.idle, time.monotonic()
    while time.monotonic() < began + 200:
        if server.metric("heat_memory_bytes") < 1e6:
            break
        time.sleep(1)
    server.began = server.seconds()  # sixty large requests were scored
    server.tell(f"answers of {rows} rows that are not taken, six connections", sent,
                f"{held:.0f} MiB held when all was sent, let go {time.monotonic() - began:.0f} s later")

if wanted("pings"):
    server = Case("--max-connections", "50", "--idle-timeout", "6s", "--header-timeout", "3s")
    peers = [connect(server.data) for _ in range(50)]
    [peer.setblocking(False) for peer in peers]
    began, health, gone = time.monotonic(), [], None
    while time.monotonic() < began + 20 and gone is None:
        alive = 0
        for peer in peers:
            try:
                peer.sendall(h2.PingFrame(0, opaque_data=b"01234567").serialize())
                while peer.recv(65536):
                    pass
            except BlockingIOError:
                alive += 1
            except OSError:
                pass
        if not alive:
            gone = time.monotonic() - began
        asked = time.monotonic()
        health.append((server.ask("GET", "/v2/health/ready", timeout=3)[0], time.monotonic() - asked))
        time.sleep(0.5)
    slowest = max(took for _, took in health)
    codes = sorted({str(code) for code, _ in health})
    if gone is None or codes != ["200"]:
        failed.append("pings")
    server.tell("50 HTTP/2 connections that send a PING twice a second, --max-connections 50, --idle-timeout 6s", 50 * 40 * 17,
                f"all ended after {gone or -1:.1f} s; health {codes}, {slowest * 1000:.0f} ms at most")

for case in failed:
    print("FAILED:", case)
sys.exit(bool(failed))
