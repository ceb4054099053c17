"""Feature sets and heads."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _arrays, _heat_ood
from .errors import HeatWarning, InputError

__all__ = ["FeatureSet", "Head"]

StrPath = str | os.PathLike[str]

_LOG = logging.getLogger("heat_ood")
_UNTOLD = object()

_FIELDS = ("avg", "std", "max", "logits", "probs", "gram", "rankfeat", "nac", "graduncertainty")

#: Name of the head's file within a directory of features.
_HEAD = "head.safetensors"


class Head:
    """The classifier's last linear layer: logits = z·Wᵀ + b.

    `weight` has shape `[C, D]`, `bias` `[C]`; NumPy arrays, tensors (parameters too) or lists.

    >>> import numpy as np, heat_ood as ho
    >>> head = ho.Head(np.eye(3, 4), np.zeros(3))
    >>> head.weight.shape
    (3, 4)
    """

    def __init__(self, weight: Any, bias: Any) -> None:
        self._head = _heat_ood.Head(*_arrays.head((weight, bias)))

    @classmethod
    def _of(cls, inner: _heat_ood.Head) -> Head:
        head = cls.__new__(cls)
        head._head = inner
        return head

    @classmethod
    def open(cls, path: StrPath) -> Head:
        """Read `weight` and `bias` from a `.safetensors` or `.npz` file."""
        return cls._of(_heat_ood.Head.open(Path(path)))

    def save(self, path: StrPath) -> None:
        """Write them as a `.safetensors` file, whole or not at all."""
        self._head.save(Path(path))

    @property
    def weight(self) -> NDArray[np.float32]:
        """W, `[C, D]`."""
        weight: NDArray[np.float32] = self._head.weight
        return weight

    @property
    def bias(self) -> NDArray[np.float32]:
        """b, `[C]`."""
        bias: NDArray[np.float32] = self._head.bias
        return bias

    def __reduce__(self) -> tuple[Any, ...]:
        return Head, (self.weight, self.bias)

    def __repr__(self) -> str:
        c, d = self.weight.shape
        return f"Head({c} classes, D = {d})"


def as_head(head: Any) -> Head | None:
    """A head of whatever was given: one, `(W, b)`, a path, a linear layer of PyTorch, or nothing."""
    if head is None or isinstance(head, Head):
        return head
    if isinstance(head, (str, os.PathLike)):
        return Head.open(head)
    if hasattr(head, "weight") and hasattr(head, "bias"):
        bias = head.bias
        if bias is None:
            bias = np.zeros(len(head.weight), dtype=np.float32)
        return Head(head.weight, bias)
    if isinstance(head, Sequence) and not isinstance(head, (str, bytes)):
        return Head(*_check_pair(head))
    raise InputError(f"head: {type(head).__name__}; expected (W, b), a linear layer, a Head or a path")


def _check_pair(pair: Sequence[Any]) -> Sequence[Any]:
    if len(pair) != 2:
        raise InputError("head: expected (W, b), W of shape [C, D] and b of shape [C]")
    return pair


class FeatureSet:
    """N rows of features, with class labels or without.

    `avg`, `std`, `max`: a feature map pooled by mean, standard deviation, maximum, `[N, D]`;
    `logits` or `probs`: outputs of the classifier, `[N, C]`; `gram`, `rankfeat`, `nac`: what the scorers of these
    names read of maps (`heat_ood.maps`); `graduncertainty`: the root of the norm of the gradient of each weight,
    `[N, weights]`; `parts`: fields of further layers (`layer=NAME` of a scorer) and of other views of the inputs, by name,
    `{"mid": {"avg": …}, "dropout30": heat_ood.maps.passes(…)}`; `label`: one class a row, numbers or
    texts, −1 for none. Arrays of NumPy, tensors, anything with `__dlpack__` or `__array__`, frames
    and lists are taken; C-contiguous `float32`, `float64`, `float16` and bfloat16 in the CPU's
    memory are not copied: leave them unchanged while the set is used. `head` is the classifier's
    last layer: `(W, b)`, a linear layer of PyTorch, or a `Head`.

    >>> import numpy as np, heat_ood as ho
    >>> x = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    >>> train = ho.FeatureSet(x, label=[0, 1, 2, 0, 1, 2])
    >>> len(train), train.dims, train.classes
    (6, {'avg': 4}, 3)
    """

    def __init__(
        self,
        avg: Any = None,
        *,
        std: Any = None,
        max: Any = None,
        logits: Any = None,
        probs: Any = None,
        gram: Any = None,
        rankfeat: Any = None,
        nac: Any = None,
        graduncertainty: Any = None,
        parts: Mapping[str, Mapping[str, Any]] | None = None,
        label: Any = None,
        head: Any = None,
        name: str = "memory",
    ) -> None:
        values = (avg, std, max, logits, probs, gram, rankfeat, nac, graduncertainty)
        given = dict(zip(_FIELDS, values, strict=True))
        for part, of_part in (parts or {}).items():
            if not isinstance(of_part, Mapping):
                raise InputError(f"parts: {part!r} is no mapping of fields; give {{{part!r}: {{'avg': …}}}}")
            given.update({f"{part}.{field}": x for field, x in of_part.items()})
        fields = []
        rows = None
        for field, x in given.items():
            if x is None:
                continue
            array, kind = _arrays.matrix(x, field)
            if rows is not None and len(array) != rows:
                raise InputError(f"{field}: {len(array)} rows, and the field before it has {rows}")
            rows = len(array)
            fields.append((field, _arrays.contiguous(array, kind), kind))
        if rows is None:
            raise InputError("a feature set needs avg, std, max, logits or probs")
        labels, names = (None, None) if label is None else _arrays.labels(label, rows)
        self._set = _heat_ood.FeatureSet.from_arrays(name, fields, labels, names)
        self.head = as_head(head)

    @classmethod
    def _of(cls, inner: _heat_ood.FeatureSet, head: Head | None = None) -> FeatureSet:
        out = cls.__new__(cls)
        out._set = inner
        out.head = head
        return out

    @classmethod
    def open(
        cls,
        path: StrPath,
        *,
        labels: StrPath | None = None,
        head: Any = None,
        dim: int | None = None,
        label_column: str | None = None,
        mmap: bool = True,
    ) -> FeatureSet:
        """Open a file (`.safetensors`, `.npy`, `.npz`, `.csv`) or a directory of shards.

        The file is memory-mapped: keep it as it is while the set is used. With `mmap=False` it is read
        into memory, as it should be where it may be cut short meanwhile (network disks). The head that
        `extract` wrote into the directory is taken unless another is given.
        """
        path = Path(path)
        inner = _heat_ood.FeatureSet.open(path, None if labels is None else Path(labels), dim, label_column, not mmap)
        beside = path / _HEAD
        if head is None and beside.is_file():
            head = beside
        return cls._of(inner, as_head(head))

    #: For which head it was last told what is odd about it.
    _told: Any = _UNTOLD

    def _tell(self, head: Head | None) -> None:
        """Say what is worth knowing of rows and head, once: notes to the log, what is wrong as warnings."""
        if self._told is head:
            return
        self._told = head
        notes, problems = self._set.remarks(None if head is None else head._head)
        for note in notes:
            _LOG.info("%s", note)
        for problem in problems:
            warnings.warn(problem, HeatWarning, stacklevel=4)

    def __len__(self) -> int:
        return len(self._set)

    @property
    def name(self) -> str:
        """Where it came from."""
        return self._set.name

    @property
    def dims(self) -> dict[str, int]:
        """Columns of each field that is there."""
        return self._set.dims

    @property
    def labelled(self) -> bool:
        """Whether its rows have labels."""
        return self._set.labelled

    @property
    def classes(self) -> int:
        """Number of classes of the labels."""
        return self._set.classes()

    @property
    def class_names(self) -> list[str]:
        """Names of the classes by number, where labels were texts or not 0, 1, …."""
        return self._set.class_names

    @property
    def labels(self) -> NDArray[np.uint32]:
        """Labels by the numbers of their classes, `[N]`."""
        labels: NDArray[np.uint32] = self._set.labels()
        return labels

    def numpy(self, field: str = "avg") -> NDArray[np.float32]:
        """The rows of a field, `[N, D]`."""
        rows: NDArray[np.float32] = self._set.read(field, 0, len(self))
        return rows

    def __getitem__(self, rows: Any) -> FeatureSet:
        """Some rows, by a slice, numbers or a mask; nothing is copied."""
        chosen = np.arange(len(self), dtype=np.int64)[rows]
        return FeatureSet._of(self._set.select(np.atleast_1d(chosen)), self.head)

    def with_head(self, head: Any) -> FeatureSet:
        """The same rows with a head."""
        return FeatureSet._of(self._set, as_head(head))

    def __reduce__(self) -> tuple[Any, ...]:
        fields = {field: self.numpy(field) for field in self.dims}
        label = self.labels if self.labelled else None
        if label is not None and self.class_names:
            label = np.array(self.class_names)[label]
        return _restored, (fields, label, self.head, self.name)

    def __repr__(self) -> str:
        dims = ", ".join(f"{field} [{len(self)}, {d}]" for field, d in self.dims.items())
        labels = f", {self.classes} classes" if self.labelled else ""
        return f"FeatureSet({self.name!r}: {dims}{labels})"


def _restored(fields: dict[str, Any], label: Any, head: Head | None, name: str) -> FeatureSet:
    return FeatureSet(**fields, label=label, head=head, name=name)


def as_set(x: Any, name: str = "memory") -> FeatureSet:
    """A feature set of whatever was given: one, an array (`avg`), a mapping of fields, or a path."""
    if isinstance(x, FeatureSet):
        return x
    if isinstance(x, (str, os.PathLike)):
        return FeatureSet.open(x)
    if isinstance(x, Mapping):
        return FeatureSet(**x, name=name)
    return FeatureSet(x, name=name)
