"""Compiles the kernels for cards of three generations, without a card, and prints what each kernel takes.

    python bench/gpu/check_kernels.py [--nvrtc LIBRARY] [--arch sm_90 ...]

LIBRARY is libnvrtc; without it, that of an installed `nvidia-cuda-nvrtc` package, or of the system. Ends
with 1 if a kernel does not compile, or keeps values outside registers (a spill).
"""

import argparse
import ctypes
import ctypes.util
import re
import sys
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent.parent / "crates/heat-gpu/src/kernels/kernels.cu"
OPTIONS = ["-fmad=false", "--std=c++17", "--ptxas-options=-v"]
KERNEL = re.compile(r"Compiling entry function '(\w+)' for '(\w+)'")
SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
REGISTERS = re.compile(r"Used (\d+) registers")


def found():
    """Where libnvrtc is, the newest first."""
    try:
        import nvidia
        folders = [Path(p) for p in nvidia.__path__]
    except ImportError:
        folders = []
    files = [f for folder in folders for name in ["cu*/lib", "cuda_nvrtc/lib"]
             for f in folder.glob(f"{name}/libnvrtc.so*")]
    files = [str(f) for f in sorted(files, reverse=True)] or [ctypes.util.find_library("nvrtc")]
    if not files[0]:
        sys.exit("no libnvrtc: pip install nvidia-cuda-nvrtc, or name it with --nvrtc")
    return files[0]


class Nvrtc:
    """The few functions of libnvrtc that are needed."""

    def __init__(self, path):
        self.library = ctypes.CDLL(path)
        self.library.nvrtcGetErrorString.restype = ctypes.c_char_p

    def call(self, name, *args):
        code = getattr(self.library, name)(*args)
        if code:
            raise RuntimeError(f"{name}: {self.library.nvrtcGetErrorString(code).decode()}")

    def version(self):
        major, minor = ctypes.c_int(), ctypes.c_int()
        self.call("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
        return f"{major.value}.{minor.value}"

    def text(self, program, what):
        size = ctypes.c_size_t()
        self.call(f"nvrtcGet{what}Size", program, ctypes.byref(size))
        text = ctypes.create_string_buffer(size.value)
        self.call(f"nvrtcGet{what}", program, text)
        return text.raw[:size.value]

    def compiled(self, source, options):
        """Whether it compiles, what the compiler said, and the size of the code for the card."""
        program = ctypes.c_void_p()
        self.call("nvrtcCreateProgram", ctypes.byref(program), source, b"kernels.cu", 0, None, None)
        try:
            given = (ctypes.c_char_p * len(options))(*(o.encode() for o in options))
            code = self.library.nvrtcCompileProgram(program, len(options), given)
            log = self.text(program, "ProgramLog").rstrip(b"\0").decode()
            size = 0 if code else len(self.text(program, "CUBIN"))
            return code == 0, log, size
        finally:
            self.call("nvrtcDestroyProgram", ctypes.byref(program))


def kernels(log):
    """Name, registers, and bytes kept outside them, of each kernel in a log."""
    name = None
    for line in log.splitlines():
        if match := KERNEL.search(line):
            name, stack, spilled = match[1], 0, 0
        if match := SPILLS.search(line):
            stack, spilled = int(match[1]), int(match[2]) + int(match[3])
        if name and (match := REGISTERS.search(line)):
            yield name, int(match[1]), stack, spilled
            name = None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nvrtc", metavar="LIBRARY")
    parser.add_argument("--arch", nargs="+", default=["sm_80", "sm_90", "sm_120"])
    args = parser.parse_args()
    path = args.nvrtc or found()
    nvrtc = Nvrtc(path)
    source = SOURCE.read_bytes()
    names = re.findall(rb'extern "C" __global__ void (\w+)\(', source)
    print(f"NVRTC {nvrtc.version()}, {path}; {len(names)} kernels")
    bad = 0
    for arch in args.arch:
        done, log, size = nvrtc.compiled(source, [f"--gpu-architecture={arch}", *OPTIONS])
        if not done:
            print(f"{arch}: does not compile\n{log}")
            bad += 1
            continue
        rows = list(kernels(log))
        print(f"{arch}: {size} bytes\n  {'kernel':<18}{'registers':>10}{'stack':>8}{'spilled':>9}")
        for name, registers, stack, spilled in sorted(rows):
            print(f"  {name:<18}{registers:>10}{stack:>8}{spilled:>9}")
            bad += spilled > 0
        missing = {n.decode() for n in names} - {row[0] for row in rows}
        if missing:
            print(f"  nothing is said of {', '.join(sorted(missing))}:\n{log}")
            bad += 1
        warnings = [line for line in log.splitlines() if "warning" in line]
        print("".join(f"  {line}\n" for line in warnings), end="")
    sys.exit(bad > 0)


main()
