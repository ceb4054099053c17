"""`python -m heat_ood`: the command `heat`."""

from __future__ import annotations

import os
import signal
import sys

from . import _heat_ood
from .images import _runtime


def main() -> None:
    """Run the command with this process's arguments, and end with its exit code."""
    # The command answers Ctrl-C itself.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if "ORT_DYLIB_PATH" not in os.environ and (runtime := _runtime()) is not None:
        os.environ["ORT_DYLIB_PATH"] = str(runtime)
    program = [sys.executable, "-m", "heat_ood"]
    sys.exit(_heat_ood.command(program, ["heat", *sys.argv[1:]]))


if __name__ == "__main__":
    main()
