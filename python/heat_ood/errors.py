"""Exceptions of `heat_ood`.

All derive from `HeatError`. Those about what was given are `ValueError` too, so that code that
expects Python's own exceptions goes on to work. What the operating system refuses is an `OSError`
(`FileNotFoundError` and so on) with its `filename`.
"""

from __future__ import annotations

__all__ = [
    "HeatError",
    "InputError",
    "FormatError",
    "UnknownNameError",
    "ForeignFeaturesError",
    "FitError",
    "DivergedError",
    "HeatWarning",
]


class HeatError(Exception):
    """Whatever goes wrong in `heat_ood`."""


class InputError(HeatError, ValueError):
    """An array, a label or a setting that cannot work; the text says which and why."""


class FormatError(HeatError, ValueError):
    """A file that is not what its name or header says, or is damaged."""


class UnknownNameError(InputError):
    """There is no scorer, setting or recipe of that name; the nearest one is named."""


class ForeignFeaturesError(InputError):
    """Features of another network or transform than a detector was fitted on."""


class FitError(InputError):
    """Data that nothing can be fitted to."""


class DivergedError(HeatError, ArithmeticError):
    """Training produced values that are not finite."""


class HeatWarning(UserWarning):
    """Something unexpected that did not stop the work."""
