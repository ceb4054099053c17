"""`heat serve` under abuse of HTTP/2: resets, endless heads, floods of control frames, answers that nobody takes.

    pip install h2
    python bench/serve_http2.py target/dist/heat detector.safetensors

Each kind is sent to the data plane (HTTP/2 with prior knowledge) and to the gRPC port, while another process asks for the
score of one row every 20 ms. Frames are written by hand: a client that keeps the rules would not send them. Prints a line a
kind: what it sent and how the server ended it, how far resident memory rose above what it was before the kind (which is
begun with the peak set back), processor time of the server meanwhile (others included) and in the second after it, and what
others had.
Exits with 1 if memory rose by more than 64 MiB, others had an error or less than half the answers that they had while nothing
was sent, or the server has not come to rest.
"""

import http.client
import json
import resource
import socket
import subprocess
import sys
import threading
import time

from hpack import Encoder
from hyperframe import frame as h2
from serving import Server

if sys.argv[1] == "--others":  # another process, so that this one's work is not in its times
    address, seconds, body = sys.argv[2], float(sys.argv[3]), sys.stdin.read()
    path, times, failed, kept = "/v2/models/d/infer", [], {}, None
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.monotonic()
        try:
            # In turn on a connection that is kept, and on a new one.
            fresh = kept is None or len(times) % 2
            client = http.client.HTTPConnection(address, timeout=10) if fresh else kept
            client.request("POST", path, body)
            answer = client.getresponse()
            answer.read()
            if answer.status == 200:
                times.append(time.monotonic() - began)
            else:
                failed[answer.status] = failed.get(answer.status, 0) + 1
            if kept is None:
                kept = client
            elif fresh:
                client.close()
        except (OSError, http.client.HTTPException) as error:
            failed[type(error).__name__] = failed.get(type(error).__name__, 0) + 1
            kept = None
        time.sleep(max(0, began + 0.02 - time.monotonic()))
    times.sort()
    print(json.dumps([len(times), times[len(times) // 2], times[int(len(times) * 0.99)], failed] if times else [0, 0, 0, failed]))
    sys.exit()

heat, detector = sys.argv[1:3]
resource.setrlimit(resource.RLIMIT_NOFILE, (8192, 8192))
MOST = 64  # MiB
SECONDS = 6  # that others are asked for beside each kind
server = Server(heat, detector, "--header-timeout", "5s", "--body-timeout", "5s")
process = server.process


def rows(n):
    return server.rows(n).encode()


class Client:
    """A connection whose frames are written as they are told."""

    def __init__(self, port, window=65535, reads=True):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.settimeout(5)
        self.ended, self.answers, self.encoder = None, 0, Encoder()
        self.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + self.settings(window))
        if reads:
            threading.Thread(target=self.read, daemon=True).start()

    @staticmethod
    def settings(window):
        frame = h2.SettingsFrame(0)
        frame.settings = {h2.SettingsFrame.INITIAL_WINDOW_SIZE: window}
        return frame.serialize()

    def write(self, data):
        """Whether it could be written."""
        try:
            self.socket.sendall(data)
            return True
        except OSError as error:
            self.ended = self.ended or f"no more is taken ({type(error).__name__})"
            return False

    def read(self):
        buffer = b""
        while True:
            try:
                piece = self.socket.recv(1 << 16)
            except TimeoutError:
                continue
            except OSError:
                piece = b""
            if not piece:
                self.ended = self.ended or "closed"
                return
            buffer += piece
            while len(buffer) >= 9:
                length = int.from_bytes(buffer[:3], "big")
                if len(buffer) < 9 + length:
                    break
                kind, flags, payload = buffer[3], buffer[4], buffer[9 : 9 + length]
                buffer = buffer[9 + length :]
                if kind == 4 and not flags & 1:
                    self.write(h2.SettingsFrame(0, flags=["ACK"]).serialize())
                elif kind == 6 and not flags & 1:
                    self.write(h2.PingFrame(0, opaque_data=payload, flags=["ACK"]).serialize())
                elif kind == 1:
                    self.answers += 1
                elif kind == 7:
                    code = int.from_bytes(payload[4:8], "big")
                    text = payload[8:].decode(errors="replace").replace("_", " ")
                    self.ended = f"GOAWAY {code} {text}".strip()

    def head(self, stream, headers, flags=("END_HEADERS",)):
        return h2.HeadersFrame(stream, data=self.encoder.encode(headers), flags=flags).serialize()

    def close(self):
        self.socket.close()


class Plane:
    """A port, and what is asked for there."""

    def __init__(self, port, path, more, body):
        self.port, self.body = port, body
        self.headers = [(":method", "POST"), (":scheme", "http"), (":authority", "x"), (":path", path), *more]

    def request(self, client, stream, body):
        body = h2.DataFrame(stream, data=body, flags=["END_STREAM"])
        return client.head(stream, self.headers) + body.serialize()


# In gRPC: what is ready, since its messages would need its encoder.
planes = {
    "data": Plane(server.data, "/v2/models/d/infer", [], rows(1)),
    "gRPC": Plane(server.grpc, "/inference.GRPCInferenceService/ServerReady",
                  [("content-type", "application/grpc"), ("te", "trailers")], bytes(5)),
}
RESET = 8


def reset(stream):
    return h2.RstStreamFrame(stream, error_code=RESET).serialize()


def many(client, pieces, at_once=100):
    """Write pieces until there are no more of them, or the server takes none."""
    sent, block = 0, []
    for piece in pieces:
        block.append(piece)
        if len(block) == at_once:
            if not client.write(b"".join(block)):
                return sent
            sent += len(block)
            block = []
    if client.write(b"".join(block)):
        sent += len(block)
    return sent


def nothing(plane):
    client = Client(plane.port)
    client.write(plane.request(client, 1, plane.body))
    time.sleep(0.5)
    return f"one request, {client.answers} frames of heads in answer", [client]


def rapid_reset(plane):
    client = Client(plane.port)
    each = (plane.request(client, 2 * i + 1, plane.body) + reset(2 * i + 1) for i in range(10_000))
    return f"{many(client, each)} streams opened and reset", [client]


def half_reset(plane):
    """Heads alone, which are reset before a body comes."""
    client = Client(plane.port)
    each = (client.head(2 * i + 1, plane.headers) + reset(2 * i + 1) for i in range(10_000))
    return f"{many(client, each)} heads reset", [client]


def made_to_reset(plane):
    """The server resets, since a window may not grow so far."""
    client = Client(plane.port)
    too_much = lambda stream: h2.WindowUpdateFrame(stream, window_increment=2**31 - 1).serialize()
    each = (plane.request(client, 2 * i + 1, plane.body) + too_much(2 * i + 1) for i in range(10_000))
    return f"{many(client, each)} streams that the server must reset", [client]


def continuation(size):
    def send(plane):
        client = Client(plane.port)
        first = client.head(1, plane.headers, flags=())
        # Literals without indexing: names and values of the same bytes.
        more = b"".join(b"\x00\x01x\x05value" for _ in range(size // 8))
        each = (h2.ContinuationFrame(1, data=more).serialize() for _ in range(10_000))
        client.write(first)
        return f"{many(client, each)} CONTINUATION frames of {len(more)} bytes", [client]

    return send


def flood(frame, what, reads):
    def send(plane):
        client = Client(plane.port, reads=reads)
        return f"{many(client, (frame for _ in range(200_000)), 1000)} {what}", [client]

    return send


def empty_data(plane):
    client = Client(plane.port)
    client.write(client.head(1, plane.headers))
    frame = h2.DataFrame(1, data=b"").serialize()
    return f"{many(client, (frame for _ in range(200_000)), 1000)} empty DATA frames", [client]


def zero_window(plane):
    """Answers are ready, and there is no window for them."""
    body = plane.body if plane is planes["gRPC"] else rows(256)
    client = Client(plane.port, window=0)
    for i in range(200):
        stream = 2 * i + 1
        client.write(client.head(stream, plane.headers))
        for at in range(0, len(body), 16384):
            end = ["END_STREAM"] if at + 16384 >= len(body) else []
            client.write(h2.DataFrame(stream, data=body[at : at + 16384], flags=end).serialize())
        time.sleep(0.005)
    time.sleep(2)
    return f"200 requests, {client.answers} heads of answers and no window for their bodies", [client]


def huge_heads(plane):
    """Requests of a thousand headers, each a byte on the wire, whose bodies never come."""
    encoder = Encoder()
    first = encoder.encode([*plane.headers, ("a", "b")])  # from here on (a, b) is known by its number
    more = encoder.encode([*plane.headers, *[("a", "b")] * 900])
    heads = [h2.HeadersFrame(2 * i + 1, data=more if i else first, flags=["END_HEADERS"]).serialize() for i in range(120)]
    clients = [Client(plane.port) for _ in range(32)]
    sent = sum(client.write(b"".join(heads)) for client in clients) * len(heads)
    time.sleep(1)
    return f"{sent} requests on 32 connections, each with 900 headers in {len(more)} bytes", clients


def long_heads(plane):
    client = Client(plane.port)
    large = [(f"x{i}", "y" * 1000) for i in range(1000)]
    encoded = Encoder().encode([*plane.headers, *large])
    pieces = [encoded[at : at + 16384] for at in range(0, len(encoded), 16384)]
    client.write(h2.HeadersFrame(1, data=pieces[0]).serialize())
    each = (h2.ContinuationFrame(1, data=p, flags=["END_HEADERS"] * (p is pieces[-1])).serialize() for p in pieces[1:])
    many(client, each)
    time.sleep(0.5)
    return f"a head of {len(encoded) >> 10} KiB", [client]


ping = h2.PingFrame(0, opaque_data=b"12345678").serialize()
window = h2.WindowUpdateFrame(0, window_increment=1).serialize()
priority = h2.PriorityFrame(1, depends_on=0, stream_weight=1).serialize()
kinds = {
    "nothing": nothing,
    "rapid reset": rapid_reset,
    "reset of heads": half_reset,
    "made to reset": made_to_reset,
    "CONTINUATION": continuation(1024),
    "empty CONTINUATION": continuation(0),
    "SETTINGS": flood(Client.settings(65535), "SETTINGS frames, no answer read", False),
    "SETTINGS, read": flood(Client.settings(65535), "SETTINGS frames", True),
    "PING": flood(ping, "PING frames, no answer read", False),
    "PING, read": flood(ping, "PING frames", True),
    "WINDOW_UPDATE": flood(window, "WINDOW_UPDATE frames", True),
    "PRIORITY": flood(priority, "PRIORITY frames", True),
    "empty DATA": empty_data,
    "no window": zero_window,
    "huge heads": huge_heads,
    "a long head": long_heads,
}
wrong = []
body = rows(1).decode()
for plane_name, plane in planes.items():
    for kind, send in kinds.items():
        time.sleep(0.5)
        with open(f"/proc/{process.pid}/clear_refs", "w") as peak:
            peak.write("5")
        before = server.memory("VmRSS")
        others = subprocess.Popen([sys.executable, __file__, "--others", f"127.0.0.1:{server.data}", str(SECONDS)],
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        others.stdin.write(body)
        others.stdin.close()
        time.sleep(0.3)
        began = time.monotonic()
        used = server.seconds()
        said, clients = send(plane)
        took = time.monotonic() - began
        answered, middle, slow, failed = json.loads(others.stdout.read())
        others.wait()
        used = server.seconds() - used
        ended = clients[0].ended or "still open"
        rose = server.memory() - before
        for client in clients:
            client.close()
        time.sleep(0.5)
        rest = server.seconds()
        time.sleep(1)
        rest = server.seconds() - rest
        print(f"{plane_name}, {kind}: {said} in {took:.1f} s, then {ended}; server's processor {used:.2f} s in all, after it "
              f"{rest:.2f}; memory +{rose:.0f} MiB; others {answered} answers, p50 {1e3 * middle:.1f} ms, p99 {1e3 * slow:.1f} ms, "
              f"failed {failed or 0}", flush=True)
        if kind == "nothing":
            quiet = answered
        if rose > MOST or failed or answered < quiet / 2 or rest > 0.2 or process.poll() is not None:
            wrong.append(f"{plane_name}, {kind}")
        if process.poll() is not None:
            sys.exit(f"the server ended by itself: {process.returncode}")
server.end()
print("not as promised: " + "; ".join(wrong) if wrong else "as promised")
sys.exit(bool(wrong))
