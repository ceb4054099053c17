"""Langevin steps in PyTorch at the published shapes, as `crates/heat-gpu/examples/steps.rs` takes them.

Usage: python bench/gpu/baseline.py [cpu|cuda] [small]

Weights are frozen and the gradient is taken with respect to the rows alone; the prior's gradient is written
out with a shared factor (not the published [B, K, D] array). Four ways: eager in single precision, eager in
TF32, a captured graph in TF32, and compiled (max-autotune) in TF32. Prints a line of JSON each: medians of
twenty, in milliseconds, and the ceilings of this card (copy, products of 1024 and 4096).
"""

from __future__ import annotations

import json
import statistics
import sys
import time

import torch

DEVICE = sys.argv[1] if len(sys.argv) > 1 else "cuda"
SMALL = "small" in sys.argv


def milliseconds(run, repeats: int = 20) -> float:
    for _ in range(3):
        run()
    times = []
    for _ in range(repeats):
        if DEVICE == "cuda":
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            run()
            end.record()
            end.synchronize()
            times.append(begin.elapsed_time(end))
        else:
            start = time.perf_counter()
            run()
            times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def widths(dim: int, hidden: int, layers: int, tapered: bool) -> list[tuple[int, int]]:
    shapes = [(dim, hidden)]
    if not tapered:
        return shapes + [(hidden, hidden)] * layers + [(hidden, 1)]
    width = hidden
    for _ in range(layers):
        shapes += [(width, width), (width, width), (width, width // 2)]
        width //= 2
    return shapes + [(width, 1)]


class Steps(torch.nn.Module):
    """One step: z - step * grad(E_nn / T + E_prior / T_prior) - eps * noise, clipped and normalised."""

    def __init__(self, dim: int, hidden: int, layers: int, tapered: bool, classes: int):
        super().__init__()
        maps = [torch.nn.Linear(i, o) for i, o in widths(dim, hidden, layers, tapered)]
        if not tapered:  # The published network multiplies a list: its hidden layers are one.
            maps = maps[:1] + [maps[1]] * layers + maps[-1:]
        parts = []
        for linear in maps:
            parts += [linear, torch.nn.LeakyReLU(0.2)]
        self.net = torch.nn.Sequential(*parts[:-1]).requires_grad_(False)
        draw = torch.randn(dim, dim) / dim**0.5 + torch.eye(dim)
        self.register_buffer("whiten", torch.linalg.inv(torch.linalg.cholesky(draw @ draw.T)))
        self.register_buffer("means", torch.randn(classes, dim))
        self.register_buffer("offset", torch.randn(classes))

    def prior(self, z):
        # In single precision: in TF32 whitening would lose what the covariance's condition number takes.
        with full_precision():
            w = z @ self.whiten.T
            r = torch.softmax(w @ self.means.T + self.offset, dim=1)
            return (w - r @ self.means) @ self.whiten

    def forward(self, z):
        z = z.detach().requires_grad_(True)
        (grad,) = torch.autograd.grad(self.net(z).sum(), z)
        z = z.detach() - (0.01 * (grad + 1e-3 * self.prior(z.detach())) + 0.005 * torch.randn_like(z))
        return torch.nn.functional.normalize(torch.relu(z), dim=1)


class full_precision:
    """TF32 off within, where it is on: a flag of the process, which a captured graph keeps as it was."""

    def __enter__(self):
        self.before = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = False

    def __exit__(self, *_):
        torch.backends.cuda.matmul.allow_tf32 = self.before


def captured(step, z):
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step(z)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        z.copy_(step(z))
    return graph.replay


def main() -> None:
    shapes = {
        "CIFAR": (1024, 512, 1024, 4, False, 10),
        "ImageNet": (256, 2048, 1024, 6, True, 1000),
    }
    if SMALL:
        shapes = {"small": (128, 64, 128, 4, False, 10)}
    for name, (rows, *shape) in shapes.items():
        torch.manual_seed(0)
        step = Steps(*shape).to(DEVICE)
        z = torch.nn.functional.normalize(torch.rand(rows, shape[0], device=DEVICE), dim=1)

        def say(way: str, run) -> None:
            try:
                found = {"step_ms": round(milliseconds(run), 4)}
            except Exception as error:  # A way that a card or version does not take is said, and the next tried.
                found = {"failed": f"{type(error).__name__}: {error}"[:200]}
            print(json.dumps({"shape": name, "way": way, "torch": torch.__version__, **found}), flush=True)

        torch.backends.cuda.matmul.allow_tf32 = False
        say("eager f32", lambda: step(z))
        if DEVICE != "cuda":
            continue
        torch.backends.cuda.matmul.allow_tf32 = True
        say("eager tf32", lambda: step(z))
        try:
            say("captured tf32", captured(step, z.clone()))
        except RuntimeError as error:
            print(json.dumps({"shape": name, "way": "captured tf32", "failed": str(error)[:200]}))
        compiled = torch.compile(step, mode="max-autotune")
        say("compiled tf32", lambda: compiled(z))
    if DEVICE == "cuda":
        x = torch.empty(1 << 28, device=DEVICE)
        y = torch.empty_like(x)
        print(json.dumps({"copy_TB_s": round(8 * x.numel() / milliseconds(lambda: y.copy_(x)) / 1e9, 2)}))
        for n in (1024, 4096):
            a, b = (torch.randn(n, n, device=DEVICE) for _ in range(2))
            for tf32 in (False, True):
                torch.backends.cuda.matmul.allow_tf32 = tf32
                rate = 2 * n**3 / milliseconds(lambda: a @ b) / 1e9
                print(json.dumps({"product": n, "tf32": tf32, "TFLOP_s": round(rate, 1)}))


main()
