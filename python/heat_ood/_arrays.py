"""Arrays of any framework as NumPy arrays that the extension reads where they lie."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import InputError

Array = NDArray[Any]

#: Kinds of numbers that are read as they are.
_KINDS = {np.dtype(np.float32): "f32", np.dtype(np.float64): "f64", np.dtype(np.float16): "f16"}


def _is_torch(x: Any) -> bool:
    return type(x).__module__.partition(".")[0] == "torch" and hasattr(x, "detach")


def _from_torch(x: Any, what: str) -> tuple[Array, str | None]:
    """A tensor's memory, without importing torch; bfloat16 as `uint16`."""
    torch = sys.modules["torch"]
    if x.is_meta:
        raise InputError(f"{what}: a meta tensor has no values")
    if x.layout != torch.strided or x.is_quantized:
        raise InputError(f"{what}: a sparse or quantised tensor; give `.to_dense()` or `.dequantize()`")
    x = x.detach().cpu().resolve_conj().resolve_neg()
    if x.dtype == torch.bfloat16:
        return x.view(torch.int16).numpy().view(np.uint16), "bf16"
    return x.numpy(), None


def to_numpy(x: Any, what: str) -> tuple[Array, str | None]:
    """`x` as an array, without a copy where there is one; and "bf16" where NumPy has no name for it."""
    if isinstance(x, np.ma.MaskedArray):
        raise InputError(f"{what}: a masked array; fill it or leave those rows out")
    if isinstance(x, np.ndarray):
        return x, None
    if _is_torch(x):
        return _from_torch(x, what)
    if hasattr(x, "nnz"):
        raise InputError(f"{what}: a sparse matrix; give `.toarray()`")
    if hasattr(x, "to_numpy"):
        return _from_frame(x, what), None
    if hasattr(x, "__dlpack__") and not hasattr(x, "__array__"):
        try:
            return np.from_dlpack(x), None
        except (BufferError, RuntimeError, TypeError) as error:
            raise InputError(f"{what}: {error}") from error
    try:
        return np.asarray(x), None
    except (ValueError, TypeError) as error:
        raise InputError(f"{what}: not a rectangular array of numbers ({error})") from error


def _from_frame(x: Any, what: str) -> Array:
    """A pandas or polars frame or series; a column that holds no numbers is named."""
    for column in getattr(x, "columns", []):
        kind = getattr(x[column], "dtype", None)
        if getattr(kind, "kind", "f") in "OUSM" or str(kind) in ("str", "string", "String", "category"):
            raise InputError(f"{what}: column {column!r} holds {kind}, not numbers; leave it out")
    return np.asarray(x.to_numpy())


def _check_numbers(x: Array, what: str) -> None:
    kind = x.dtype.kind
    if kind in "fiu":
        return
    words = {
        "b": "truth values",
        "c": "complex numbers",
        "O": "Python objects (rows of different lengths, or None?)",
        "U": "text",
        "S": "text",
        "V": "records",
        "M": "dates",
        "m": "durations",
    }
    raise InputError(f"{what}: holds {words.get(kind, str(x.dtype))}, expected numbers")


def matrix(x: Any, what: str) -> tuple[Array, str]:
    """`x` as a two-dimensional array, not yet contiguous, and its kind of number."""
    array, kind = to_numpy(x, what)
    if kind is None:
        _check_numbers(array, what)
    if array.ndim > 2 and all(n == 1 for n in array.shape[2:]):
        array = array.reshape(array.shape[:2])
    if array.ndim == 1:
        raise InputError(f"{what}: shape {array.shape}, expected [N, D]; one row is `x[None, :]`")
    if array.ndim != 2:
        raise InputError(
            f"{what}: shape {array.shape}, expected [N, D]; maps are pooled by `heat_ood.torch.pool`"
        )
    if array.shape[0] == 0 or array.shape[1] == 0:
        raise InputError(f"{what}: shape {array.shape}, there must be a row and a column")
    if kind is not None:
        return array, kind
    if array.dtype.kind in "iu" or array.dtype not in _KINDS:
        # Integers, long doubles, other byte orders.
        to = np.float64 if array.dtype.kind == "f" and array.dtype.itemsize > 4 else np.float32
        array = array.astype(to)
    return array, _KINDS[array.dtype]


def numbers(x: Any, what: str) -> Array:
    """`x` as an array of any shape whose numbers NumPy can reckon with: bfloat16 widened."""
    array, kind = to_numpy(x, what)
    if kind is not None:
        return (array.astype(np.uint32) << 16).view(np.float32)
    _check_numbers(array, what)
    return array


def contiguous(array: Array, kind: str) -> Array:
    """The array as the extension reads it: a copy only of other strides; halves as `uint16`."""
    if not (array.flags.c_contiguous and array.flags.aligned):
        array = np.ascontiguousarray(array)
        if not array.flags.aligned:
            array = array.copy()
    return array.view(np.uint16) if kind == "f16" else array


def vector(x: Any, what: str, dtype: Any) -> Array:
    """`x` as a contiguous array of one dimension."""
    array, kind = to_numpy(x, what)
    if kind is not None:
        raise InputError(f"{what}: bfloat16; give float32")
    _check_numbers(array, what)
    if array.ndim != 1:
        raise InputError(f"{what}: shape {array.shape}, expected one dimension")
    return np.ascontiguousarray(array, dtype=dtype)


def labels(y: Any, rows: int) -> tuple[Array, list[str] | None]:
    """Class numbers as `int64`, and the names of classes that were texts."""
    array, kind = to_numpy(y, "labels")
    if kind is not None:
        raise InputError("labels: bfloat16 cannot hold class numbers; give integers")
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or len(array) != rows:
        raise InputError(f"labels: shape {array.shape}, expected one label for each of {rows} rows")
    if array.dtype.kind == "O" and all(isinstance(v, (int, np.integer)) for v in array):
        array = array.astype(np.int64)
    if array.dtype.kind in "OUST" or array.dtype.name == "string":
        bad = next((i for i, v in enumerate(array) if not isinstance(v, (str, bytes))), None)
        if bad is not None:
            raise InputError(f"labels: row {bad} is {array[bad]!r}, expected a number or a text in every row")
        texts = [v.decode() if isinstance(v, bytes) else str(v) for v in array]
        names = sorted(set(texts))
        number = {name: i for i, name in enumerate(names)}
        return np.array([number[t] for t in texts], dtype=np.int64), names
    if array.dtype.kind == "b":
        return array.astype(np.int64), None
    _check_numbers(array, "labels")
    if array.dtype.kind == "f":
        bad_rows = np.flatnonzero(~(np.isfinite(array) & (array == np.floor(array))))
        if bad_rows.size:
            row = int(bad_rows[0])
            raise InputError(f"labels: row {row} is {array[row]}, expected whole numbers")
    if array.size and (array.max() >= 2**63 or array.min() < -(2**63)):
        raise InputError("labels: a number is beyond 64 bits")
    return np.ascontiguousarray(array, dtype=np.int64), None


def head(pair: Sequence[Any]) -> tuple[Array, Array]:
    """W and b of the last layer."""
    if len(pair) != 2:
        raise InputError("head: expected (W, b), W of shape [C, D] and b of shape [C]")
    weight, kind = matrix(pair[0], "head weight")
    if kind == "bf16":
        raise InputError("head weight: bfloat16; give float32")
    return np.ascontiguousarray(weight, dtype=np.float32), vector(pair[1], "head bias", np.float32)
