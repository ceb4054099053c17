"""What `progress=` stands for."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from .errors import InputError

Event = dict[str, Any]
Progress = bool | Callable[[Event], None] | None


def callback(progress: Progress) -> Callable[[Event], None] | None:
    """The callable that gets events, if there is to be one."""
    if progress is None or progress is False:
        return None
    if progress is True:
        return _Bar()
    if callable(progress):
        return progress
    raise InputError(f"progress: {type(progress).__name__}; expected True or a callable of one event")


class _Bar:
    """A bar of tqdm where it is installed, else a line an epoch on standard error."""

    def __init__(self) -> None:
        try:
            from tqdm.auto import tqdm
        except ImportError:
            tqdm = None
        self._tqdm = tqdm
        self._bar: Any = None

    def __call__(self, event: Event) -> None:
        kind = event["event"]
        if kind == "begin" and self._tqdm is not None:
            self._close()
            self._bar = self._tqdm(total=event["total"], desc=event["task"], leave=False)
        elif kind == "advance" and self._bar is not None:
            self._bar.update(event["done"] - self._bar.n)
            if event["loss"] is not None:
                self._bar.set_postfix(loss=f"{event['loss']:.4g}", refresh=False)
        elif kind == "end":
            self._close()
        elif kind == "epoch":
            text = f"epoch {event['epoch']}: loss {event['loss']:.4g}, cd {event['cd_loss']:.4g}"
            if self._tqdm is not None:
                self._tqdm.write(text, file=sys.stderr)
            else:
                print(text, file=sys.stderr)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
