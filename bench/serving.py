"""A `heat serve` of its own, for the scripts beside this one: started on free ports, asked, measured, ended."""

import http.client
import json
import os
import re
import signal
import subprocess
import threading
import time

PORTS = re.compile(r"(listening|gRPC|page)[^0-9]*127.0.0.1:(\d+)")


class Server:
    """A running server with one detector, `d`. Its ports are `data`, `grpc` and `admin`; what it logs is kept in `said`."""

    def __init__(self, heat, detector, *options, env=None, before=None, core=None, listens=True):
        words = [heat, "serve", f"d={detector}", "--listen", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--admin", "127.0.0.1:0",
                 "--no-request-log", *options]
        if core is not None:
            words = ["taskset", "-c", str(core), *words]
        began = time.monotonic()
        self.process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=env,
                                        preexec_fn=before)
        self.said, ports = [], {}
        while len(ports) < 3:
            line = self.process.stderr.readline()
            if not line:
                raise SystemExit(f"the server did not start: {''.join(self.said)}")
            self.said.append(line)
            if found := PORTS.match(line):
                ports[found[1]] = int(found[2])
        self.started = time.monotonic() - began
        self.data, self.grpc, self.admin = ports["listening"], ports["gRPC"], ports["page"]
        if listens:
            threading.Thread(target=lambda: self.said.extend(self.process.stderr), daemon=True).start()
        self._input = None

    def ask(self, method, path, body=None, headers={}, port=None, timeout=20):
        """Status and bytes of an answer, on a connection of its own."""
        client = http.client.HTTPConnection("127.0.0.1", port or self.data, timeout=timeout)
        try:
            client.request(method, path, body, headers)
            answer = client.getresponse()
            return answer.status, answer.read()
        finally:
            client.close()

    def threads(self):
        """Seconds of processor time that each of its threads has taken, by name."""
        spent = {}
        for task in os.listdir(f"/proc/{self.process.pid}/task"):
            with open(f"/proc/{self.process.pid}/task/{task}/schedstat") as stat, open(f"/proc/{self.process.pid}/task/{task}/comm") as name:
                key = name.read().strip()
                spent[key] = spent.get(key, 0) + int(stat.read().split()[0]) / 1e9
        return spent

    @property
    def input(self):
        """Name and columns of the tensor that the detector reads."""
        if self._input is None:
            found = json.loads(self.ask("GET", "/v2/models/d")[1])["inputs"][0]
            self._input = found["name"], found["shape"][1]
        return self._input

    def rows(self, n=1, row=None):
        """A request of n rows, as JSON."""
        name, dim = self.input
        tensor = {"name": name, "shape": [n, dim], "datatype": "FP32", "data": (row or [0.5] * dim) * n}
        return json.dumps({"inputs": [tensor]})

    def metric(self, name):
        """The sum of a metric over its labels."""
        text = self.ask("GET", "/metrics", port=self.admin)[1].decode()
        return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name))

    def memory(self, key="VmHWM"):
        """MiB: by the system's name, the peak or what is resident (VmRSS)."""
        return int(re.search(rf"{key}:\s+(\d+)", open(f"/proc/{self.process.pid}/status").read())[1]) / 1024

    def seconds(self):
        """Of processor, so far."""
        fields = open(f"/proc/{self.process.pid}/stat").read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self, within=22):
        """Ask it to end; its exit code, and how long it took."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(within), time.monotonic() - began
