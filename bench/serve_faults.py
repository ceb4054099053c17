"""What `heat serve` does when things break: each fault fifty times and more.

    python bench/serve_faults.py target/dist/heat one.safetensors other.safetensors [--times 50] [--only kill,reload]

The two detectors are calibrated and read the same tensor; their scores of one row must differ. Every fault ends with an exception
if anything comes out but what is promised: an answer of either detector and no other, a refusal in JSON, a clean end in time.
The clock is stepped where libfaketime is installed (`--faketime FILE`). The panic of a scorer is a test in `queue.rs`.
"""

import argparse
import http.client
import json
import os
import random
import re
import resource
import shutil
import signal
import socket
import struct
import tempfile
import threading
import time
from pathlib import Path

from serving import Server

parser = argparse.ArgumentParser()
parser.add_argument("heat")
parser.add_argument("one")
parser.add_argument("other")
parser.add_argument("--times", type=int, default=50)
parser.add_argument("--only", default="")
parser.add_argument("--faketime", default="")
args = parser.parse_args()
rng = random.Random(0)


class Served(Server):
    """A server whose detector lies in a directory, with the state of its monitor."""

    def __init__(self, directory, *options, state=True, **more):
        self.directory = Path(directory)
        self.path = self.directory / "d.safetensors"
        if not self.path.exists():
            shutil.copy(args.one, self.path)
        if state:
            options = "--monitor-state", str(self.directory / "state"), *options
        super().__init__(args.heat, self.path, "--log", "json", *options, **more)

    def answer(self, *request, **more):
        status, text = self.ask(*request, **more)
        return status, json.loads(text)

    def body(self, rows=1):
        return self.rows(rows, [((i * 7919) % 1009) / 1009 for i in range(self.input[1])])

    def score(self, timeout=20):
        code, answer = self.answer("POST", "/v2/models/d/infer", self.body(), timeout=timeout)
        return code, answer["outputs"][0]["data"][0] if code == 200 else answer["error"]

    def load(self):
        return self.answer("POST", "/v2/repository/models/d/load", port=self.admin)

    def ready(self):
        return self.ask("GET", "/v2/health/ready")[0] == 200


def place(path, source):
    """As every command of `heat` writes: beside it, then renamed."""
    fresh = path.with_name(".fresh")
    shutil.copy(source, fresh)
    os.replace(fresh, path)


def known(directory):
    """What each of the two detectors says of the row."""
    server = Served(directory)
    found = [server.score()[1]]
    place(server.path, args.other)
    assert server.load()[0] == 200
    found.append(server.score()[1])
    assert found[0] != found[1]
    server.end()
    return found


def under_load(server, scores, work):
    """Ask without a pause from three clients while `work` runs; how many answers of each detector."""
    stop, seen, wrong = threading.Event(), [0, 0], []

    def client():
        while not stop.is_set():
            code, score = server.score()
            if code == 200 and score in scores:
                seen[scores.index(score)] += 1
            else:
                wrong.append((code, score))

    threads = [threading.Thread(target=client) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        work()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not wrong, wrong[:5]
    return seen


def reload(directory, scores):
    """Two detectors in turn, by rename, 20 times as often as other faults; each answer is of one of them."""
    server = Served(directory)

    def work():
        for i in range(20 * args.times):
            place(server.path, [args.one, args.other][i % 2])
            code, answer = server.load()
            assert code == 200, answer

    seen = under_load(server, scores, work)
    assert server.end()[0] == 0
    return f"{20 * args.times} reloads, answers {seen[0]} and {seen[1]}, failed 0"


def bad_files(directory, scores):
    """Overwritten in place, truncated, deleted, garbage, of a newer format: the one before is served on."""
    server = Served(directory)
    good = Path(args.one).read_bytes()
    size = struct.unpack("<Q", good[:8])[0]
    newer = re.sub(rb'("version":")(\d+)"', rb'\g<1>9"', good[8:8 + size], count=1)
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 1
    kinds = {
        "in place": bytes(flipped), "truncated": good[: len(good) // 3], "deleted": None, "garbage": os.urandom(5000),
        "newer": good[:8] + newer + good[8 + size:], "empty": b"",
    }

    def work():
        for _ in range(args.times):
            for kind, content in kinds.items():
                if content is None:
                    server.path.unlink()
                else:
                    # The same inode, where there is one: what is loaded must not be the file.
                    server.path.write_bytes(content)
                code, answer = server.load()
                assert code == 400 and "served on" in answer["error"], (kind, code, answer)
                assert server.ready()
            place(server.path, args.one)
            assert server.load()[0] == 200

    seen = under_load(server, scores, work)
    assert seen[1] == 0 and server.end()[0] == 0
    return f"{args.times} of each of {len(kinds)} kinds, {seen[0]} answers meanwhile, failed 0"


def kill(directory, scores):
    """SIGKILL while detectors are loaded, rows scored and the monitor's state kept."""
    kept = anew = 0
    for i in range(2 * args.times):
        server = Served(directory)
        problems = [line for line in server.said if "watched anew" in line and "another version" not in line]
        assert not problems and server.ready(), problems
        kept += any("from before the restart" in line for line in server.said)
        anew += any("watched anew" in line for line in server.said)
        code, score = server.score()
        assert code == 200 and score in scores
        stop = threading.Event()

        def work():
            while not stop.is_set():
                try:
                    place(server.path, rng.choice([args.one, args.other]))
                    server.load()
                    server.score()
                except OSError:
                    return

        thread = threading.Thread(target=work)
        thread.start()
        time.sleep(rng.random() * 0.1)
        if i % 2:
            # While what is known is being kept at the end.
            server.process.send_signal(signal.SIGTERM)
            time.sleep(rng.random() * 0.08)
        server.process.kill()
        server.process.wait()
        stop.set()
        thread.join()
        assert server.path.stat().st_size in {Path(p).stat().st_size for p in (args.one, args.other)}
    return f"{2 * args.times} kills; each restart ready; state from before {kept} times, anew {anew} (another detector), damaged 0"


def loads_at_once(directory, scores):
    server = Served(directory)
    codes = []
    for _ in range(args.times):
        threads = [threading.Thread(target=lambda: codes.append(server.load()[0])) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert set(codes) <= {200, 409}, codes
    assert codes.count(200) >= args.times and server.end()[0] == 0
    return f"{args.times} pairs: {codes.count(200)} loaded, {codes.count(409)} refused (409)"


def full_disk(directory, scores):
    """No file may grow: neither the log nor the state. Then there is room again."""
    def before():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    for i in range(args.times):
        server = Served(directory, before=before)
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        for _ in range(3):
            assert server.score()[1] in scores
        assert server.ask("POST", "/heat/v1/models/d/drift/reset", port=server.admin)[0] == 200
        assert server.ready()
        if i % 2:
            resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        state = directory / "state/d.monitor"
        written = state.stat().st_mtime_ns if state.exists() else 0
        code, took = server.end()
        assert code == 0 and took < 6, (code, took)
        now = state.stat().st_mtime_ns if state.exists() else 0
        assert (now > written) == bool(i % 2)
        assert not [p for p in (directory / "state").iterdir() if p.name not in ("d.monitor", ".lock")], "left over"
    return f"{args.times} servers that could write nothing: all answers given, clean end; half of them had room at the end and kept it"


def closed_output(directory, scores):
    """Nobody reads the log, or it cannot be written."""
    for i in range(args.times):
        server = Served(directory, state=False, listens=False)
        server.process.stderr.close()
        for _ in range(5):
            assert server.score()[1] in scores
        assert server.load()[0] == 200
        assert server.metric('heat_dropped_total{sink="log"}') >= 0
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(22) == 0
    return f"{args.times} servers whose log had no reader: all answers, clean ends"


def few_files(directory, scores):
    def before():
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

    server = Served(directory, before=before)
    server.body()
    for _ in range(args.times):
        streams = []
        for _ in range(100):
            streams.append(socket.create_connection(("127.0.0.1", server.data), timeout=5))
        for stream in streams:
            stream.close()
        end = time.monotonic() + 5
        while True:
            try:
                assert server.score(timeout=2)[1] in scores
                break
            except OSError:
                assert time.monotonic() < end
    assert server.end()[0] == 0
    return f"{args.times} times 100 connections with 64 files: it answers again after each"


def terminate(directory, scores):
    """All that was taken is answered, and the end comes in time, whatever a client does."""
    answered = refused = longest = 0
    for i in range(args.times):
        server = Served(directory, "--drain", "2s", state=False)
        body = server.body(200).encode()
        stuck = socket.create_connection(("127.0.0.1", server.data))
        stuck.sendall(b"POST /v2/models/d/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
        results = []

        def client():
            while True:
                try:
                    connection = http.client.HTTPConnection("127.0.0.1", server.data, timeout=20)
                    connection.connect()
                except OSError:
                    return
                try:
                    connection.request("POST", "/v2/models/d/infer", body)
                    results.append(connection.getresponse().status)
                except (OSError, http.client.HTTPException):
                    # Not taken: the connection lay in the system's queue.
                    results.append(None)
                    return

        threads = [threading.Thread(target=client) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.05 + rng.random() * 0.1)
        code, took = server.end()
        for thread in threads:
            thread.join()
        assert set(results) <= {200, 503, None}, results
        answered += results.count(200)
        refused += results.count(503)
        longest = max(longest, took)
        # The stuck client is cut off, which is said by the code.
        assert took <= 3 and code in (0, 1), (took, code)
        stuck.close()
    return f"{args.times} ends: {answered} answered, {refused} refused (503), longest {longest:.2f} s of 2 + 1"


def stopped(directory, scores):
    """Frozen for longer than a request may take: what is stale is dropped, and the next are answered."""
    server = Served(directory, "--request-timeout", "1s", state=False)
    server.body()
    late = 0
    for i in range(args.times + 1):
        found = []
        threads = [threading.Thread(target=lambda: found.append(server.score())) for _ in range(8)]
        # Some are taken before, some come while it is frozen.
        for thread in threads:
            thread.start()
        server.process.send_signal(signal.SIGSTOP)
        time.sleep(10 if i == 0 else 1.2)
        server.process.send_signal(signal.SIGCONT)
        for thread in threads:
            thread.join()
        assert all(code in (200, 504) for code, _ in found), found
        late += sum(code == 504 for code, _ in found)
        assert server.score()[1] in scores and server.ready()
    assert server.end()[0] == 0
    return f"once for 10 s, {args.times} times for 1.2 s: answered or 504 ({late}), then as before"


def clients_that_go(directory, scores):
    server = Served(directory, state=False)
    body = server.body(50).encode()
    head = f"POST /v2/models/d/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    threads = server.metric("process_threads")
    for _ in range(args.times):
        for kind in ("reset in the body", "half closed", "gone after sending"):
            stream = socket.create_connection(("127.0.0.1", server.data), timeout=10)
            if kind == "reset in the body":
                stream.sendall(head + body[: len(body) // 2])
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            elif kind == "half closed":
                stream.sendall(head + body)
                stream.shutdown(socket.SHUT_WR)
                got = stream.recv(100)
                assert not got or got.startswith(b"HTTP/1.1 200"), got
            else:
                stream.sendall(head + body)
            stream.close()
        assert server.score()[1] in scores
    time.sleep(0.5)
    assert server.metric("heat_memory_bytes") == 0 and server.metric("heat_queue_rows") == 0
    assert server.metric("process_threads") <= threads + 4
    assert server.end()[0] == 0
    return f"{args.times} of each of 3 kinds: no memory held, no rows left waiting"


def clock(directory, scores):
    if not args.faketime:
        return "not tried: no --faketime"
    told = directory / "time"
    told.write_text("+0")
    env = os.environ | {"LD_PRELOAD": args.faketime, "FAKETIME_TIMESTAMP_FILE": str(told), "FAKETIME_NO_CACHE": "1",
                        "DONT_FAKE_MONOTONIC": "1"}
    server = Served(directory, env=env)
    ahead = False
    for i in range(args.times):
        told.write_text(rng.choice(["+0", "-3600", "+86400", "-400d", "+10y"]))
        code, answer = server.answer("POST", "/v2/models/d/infer", server.body())
        assert code == 200 and answer["parameters"]["queue_us"] < 10**7, answer
        found = server.answer("GET", "/heat/v1/models/d/drift", port=server.admin)[1]
        assert found["rows"] >= 0 and len(found["minutes"]) <= 15 and len(found["hours"]) <= 48
        ahead |= any(part["start"] > time.time() + 9 * 365 * 86400 for part in found["hours"])
        assert server.metric("heat_request_seconds_sum") >= 0
    assert ahead, "the clock was not stepped"
    assert server.end()[0] == 0
    return f"{args.times} steps of the clock, from −400 days to +10 years: no wrong times, no growth"


FAULTS = [reload, bad_files, kill, loads_at_once, full_disk, closed_output, few_files, terminate, stopped, clients_that_go, clock]
print("| fault | what came of it | seconds |")
print("|---|---|---|")
with tempfile.TemporaryDirectory() as first:
    scores = known(first)
for fault in FAULTS:
    if args.only and fault.__name__ not in args.only.split(","):
        continue
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as made:
        result = fault(Path(made), scores)
    print(f"| {fault.__name__.replace('_', ' ')} | {result} | {time.monotonic() - began:.0f} |", flush=True)
