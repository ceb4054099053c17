"""
HEAT's library, as the package `heat_ood` calls it.
"""

from _typeshed import Incomplete, SupportsGetItem
from os import PathLike
from pathlib import Path
from typing import Any, SupportsFloat, SupportsIndex, final

__all__ = ["Backbone", "Chains", "Detector", "Drift", "FeatureSet", "Head", "Results", "Statistics", "auto", "benjamini_hochberg", "command", "committee", "compose", "evaluate", "extract", "fit", "measure", "num_threads", "of_maps", "open_surrogates", "openood_aupr", "parse_spec", "resolve_recipe", "scorer_group", "scorer_list", "select", "set_num_threads", "spec_text", "train", "tune_on", "version"]

@final
class Backbone:
    """
    A classifier that makes features of images: an ONNX file, or the weights of a ResNet.
    """
    def __new__(cls, /, path: str | PathLike[str], library: str | PathLike[str] | None = None, tap: str | None = None, output: str | None = None, arch: str | None = None, prefix: str | None = None) -> Backbone: ...
    @property
    def head(self, /) -> Head | None:
        """
        The last linear layer, where there is one.
        """
    @property
    def notes(self, /) -> list[str]:
        """
        What was found in it, in words.
        """
    @property
    def sha256(self, /) -> str:
        """
        SHA-256 of the file.
        """

@final
class Chains:
    """
    A worker's side: runs chains of a model that was trained elsewhere.
    """
    def __new__(cls, /, model: bytes) -> Chains:
        """
        The chains of the model that `begin` of an engine is given.
        """
    def run(self, /, parameters: Incomplete, temperatures: tuple[SupportsFloat | SupportsIndex, SupportsFloat | SupportsIndex], projection: tuple[bool, bool, bool], chain: tuple[SupportsIndex, tuple[SupportsFloat | SupportsIndex, SupportsFloat | SupportsIndex], tuple[SupportsFloat | SupportsIndex, SupportsFloat | SupportsIndex], bool], key: tuple[SupportsIndex, SupportsIndex, SupportsIndex], rows: Incomplete, labels: Incomplete | None = None, threads: SupportsIndex = 1) -> Incomplete:
        """
        Run the chains of some rows to their ends: a pure function of what is given.
        """

@final
class Detector:
    """
    A fitted scorer, with what turns its scores into verdicts once it is calibrated.
    """
    def calibrate(self, /, set: FeatureSet, alpha: SupportsFloat | SupportsIndex, guarantee: str, delta: SupportsFloat | SupportsIndex, per_class: bool, head: Head | None = None, force: bool = False) -> Detector:
        """
        A calibrated copy.
        """
    def calibration_scores(self, /) -> Incomplete | None:
        """
        Scores of its calibration rows, ascending.
        """
    def components(self, /, set: FeatureSet) -> dict:
        """
        What makes up the score, by name: of HEAT the network's energy and the prior's.
        """
    @staticmethod
    def from_bytes(bytes: bytes) -> Detector:
        """
        A detector of the bytes of its file.
        """
    def info(self, /) -> str:
        """
        Where it comes from, and how it is calibrated, as JSON.
        """
    def of_any_origin(self, /) -> Detector:
        """
        A copy that takes features of another network or transform.
        """
    @staticmethod
    def open(path: str | PathLike[str]) -> Detector:
        """
        Open a detector's file.
        """
    def predict(self, /, set: FeatureSet, seed: SupportsIndex | None = None, progress: Any | None = None, threads: SupportsIndex | None = None) -> tuple[Incomplete, Incomplete | None, Incomplete | None, Incomplete | None]:
        """
        Scores with p-values, verdicts and predicted classes, where it is calibrated.
        """
    def save(self, /, path: str | PathLike[str]) -> None:
        """
        Write its file, whole or not at all.
        """
    def score(self, /, set: FeatureSet, threads: SupportsIndex | None = None, progress: Any | None = None) -> Incomplete:
        """
        One score a row; higher = more out-of-distribution.
        """
    @property
    def scorer(self, /) -> str:
        """
        Name of the method.
        """
    def to_bytes(self, /) -> bytes:
        """
        The bytes of its file.
        """
    def with_alpha(self, /, alpha: SupportsFloat | SupportsIndex) -> Detector:
        """
        A copy that decides at another rate.
        """
    def without_seen(self, /, set: FeatureSet, train: SupportsGetItem[int, FeatureSet]) -> tuple[FeatureSet, int]:
        """
        The ID rows that it has not seen, and how many it had; `train` are the sets it was fitted on.
        """

@final
class Drift:
    """
    A running test whether a stream still looks like the calibration rows.
    """
    def __new__(cls, /, reference: Incomplete, alpha: SupportsFloat | SupportsIndex, horizon: SupportsIndex, min_admixture: SupportsFloat | SupportsIndex, tests: str, two_sided: bool, seed: SupportsIndex) -> Drift: ...
    def push(self, /, scores: Incomplete) -> tuple[Incomplete, Incomplete | None, Incomplete | None, str]:
        """
        Take in the scores of the next rows.
        """
    @property
    def rows(self, /) -> int:
        """
        Rows seen.
        """

@final
class FeatureSet:
    """
    N rows of features. A clone shares the data.
    """
    def __len__(self, /) -> int: ...
    @property
    def class_names(self, /) -> list[str]:
        """
        Names of the classes by number, where labels were texts or not 0, 1, ….
        """
    def classes(self, /) -> int:
        """
        Number of classes of the labels.
        """
    @property
    def dims(self, /) -> dict:
        """
        Columns of each field that is there.
        """
    @property
    def files(self, /) -> list[Path]:
        """
        The files it was read from.
        """
    @staticmethod
    def from_arrays(name: str, fields: SupportsGetItem[int, tuple[str, Any, str]], labels: Incomplete | None = None, class_names: SupportsGetItem[int, str] | None = None) -> FeatureSet:
        """
        A set of C-contiguous arrays: `fields` by name, each with its kind of number.
        """
    @property
    def labelled(self, /) -> bool:
        """
        Whether rows have labels.
        """
    def labels(self, /) -> Incomplete:
        """
        Labels by the numbers of their classes.
        """
    @property
    def name(self, /) -> str:
        """
        Where it came from.
        """
    @staticmethod
    def open(path: str | PathLike[str], labels: str | PathLike[str] | None = None, dim: SupportsIndex | None = None, label_column: str | None = None, in_memory: bool = False) -> FeatureSet:
        """
        Open a file or a directory.
        """
    def read(self, /, name: str, start: SupportsIndex, stop: SupportsIndex) -> Incomplete:
        """
        Rows `start..stop` of a field, as `float32`.
        """
    def remarks(self, /, head: Head | None = None) -> tuple[list[str], list[str]]:
        """
        What is worth knowing about how it was read, its labels and its classifier; and what must
        be wrong.
        """
    def select(self, /, rows: Incomplete) -> FeatureSet:
        """
        Some rows, in the given order.
        """

@final
class Head:
    """
    The classifier's last linear layer.
    """
    def __new__(cls, /, weight: Incomplete, bias: Incomplete) -> Head: ...
    @property
    def bias(self, /) -> Incomplete:
        """
        b, `[C]`.
        """
    @staticmethod
    def open(path: str | PathLike[str]) -> Head:
        """
        Read `weight` and `bias` from a file.
        """
    def save(self, /, path: str | PathLike[str]) -> None:
        """
        Write them to a file.
        """
    @property
    def weight(self, /) -> Incomplete:
        """
        W, `[C, D]`.
        """

@final
class Results:
    """
    What an evaluation found, and what a report shows of it.
    """
    def html(self, /, title: str) -> str:
        """
        The page of `heat eval --report`.
        """
    def text(self, /, form: str) -> str:
        """
        As text: table, json, csv or markdown.
        """

@final
class Statistics:
    """
    What the fits of some scorers gather from a part of the rows.
    """
    def finish(self, /) -> list[tuple[str, Detector]] | None:
        """
        The detectors with the scorers as written; None where another round is needed.
        """
    @staticmethod
    def from_bytes(bytes: bytes) -> Statistics:
        """
        Statistics of such bytes.
        """
    def merged(self, /, others: SupportsGetItem[int, Statistics]) -> Statistics:
        """
        These with the rows of other parts, which follow.
        """
    @staticmethod
    def of(specs: SupportsGetItem[int, str], set: FeatureSet, head: Head | None = None, classes: SupportsIndex | None = None, after: Statistics | None = None, progress: Any | None = None) -> Statistics:
        """
        Gather them from a part, after those merged of the round before.
        """
    @staticmethod
    def open(path: str | PathLike[str]) -> Statistics:
        """
        Open its file.
        """
    @property
    def round(self, /) -> int:
        """
        Which round, from 1.
        """
    @property
    def rows(self, /) -> int:
        """
        Number of rows.
        """
    def save(self, /, path: str | PathLike[str]) -> None:
        """
        Write its file, whole or not at all.
        """
    @property
    def scorers(self, /) -> list[str]:
        """
        The scorers that they are for.
        """
    def to_bytes(self, /) -> bytes:
        """
        The bytes of its file.
        """

def auto(set: FeatureSet, head: Head | None = None, surrogates: SupportsGetItem[int, tuple[str, FeatureSet]] | None = None, id: FeatureSet | None = None, calibration: FeatureSet | None = None, residual: bool = True, views: bool = True, alpha: SupportsFloat | SupportsIndex = 0.05, rows: SupportsIndex = 20000, seed: SupportsIndex = 0, progress: Any | None = None) -> tuple[str, str, Detector]:
    """
    Make a detector, every choice taken by evidence; what was found as JSON, and as a text.
    """

def benjamini_hochberg(p_values: Incomplete, rate: SupportsFloat | SupportsIndex) -> list[bool]:
    """
    Which of many p-values are discoveries at a false discovery rate.
    """

def command(program: SupportsGetItem[int, str], arguments: SupportsGetItem[int, str]) -> int:
    """
    Run the command `heat` with these arguments, of which the first is its name.

    `program` starts it anew, as a sweep does for each of its runs.
    """

def committee(set: FeatureSet, head: Head | None = None, standardise: FeatureSet | None = None, progress: Any | None = None) -> tuple[Detector, list[str], list[tuple[str, str]]]:
    """
    The fixed committee of such data as one detector, its members, and who is left out and why.
    """

def compose(members: SupportsGetItem[int, tuple[str, Detector, SupportsFloat | SupportsIndex]], beta: SupportsFloat | SupportsIndex, set: FeatureSet, head: Head | None = None, against: SupportsGetItem[int, FeatureSet] | None = None, progress: Any | None = None) -> Detector:
    """
    Compose detectors; statistics of their scores are taken over the set: the training set, or, with
    `against`, rows held out of training, and the weights against these sets, where there are some.
    """

def evaluate(candidates: SupportsGetItem[int, tuple[str, Detector, SupportsFloat | SupportsIndex | None]], id: FeatureSet, ood: SupportsGetItem[int, tuple[str, FeatureSet]], near_far: tuple[SupportsGetItem[int, str], SupportsGetItem[int, str]] | None = None, level: SupportsFloat | SupportsIndex | None = None, compare: str | None = None, resamples: SupportsIndex | None = None, seed: SupportsIndex | None = None, train: FeatureSet | None = None, head: Head | None = None, force: bool = False, progress: Any | None = None) -> Results:
    """
    Score, measure, and find out what else is asked for.
    """

def extract(images: str | PathLike[str], network: Backbone, out: str | PathLike[str], transform_arguments: SupportsGetItem[int, str], format: str | None = None, split: str | None = None, root: str | PathLike[str] | None = None, batch_size: SupportsIndex = 64, shard_rows: SupportsIndex = 8192, dtype: str = "f16", skip_unreadable: bool = False, layers: SupportsGetItem[int, tuple[str, str]] = ..., found_layers: SupportsIndex | None = None, views: SupportsGetItem[int, str] = ..., maps: SupportsGetItem[int, str] = ..., perturb: Detector | None = None, epsilon: SupportsFloat | SupportsIndex | None = None, perturb_values: SupportsIndex | None = None, surrogates: SupportsGetItem[int, str] | None = None, surrogate_rows: SupportsIndex = 1500, seed: SupportsIndex = 0, exclude: SupportsGetItem[int, FeatureSet] | None = None, preview: str | PathLike[str] | None = None, device: str = "cpu", precision: str = "f32", progress: Any | None = None) -> tuple[int, int, list[str], str | None, list[str], list[int]]:
    """
    Extract images into a feature set; or sets of surrogates made of them.
    """

def fit(name: str, given: dict, set: FeatureSet, head: Head | None = None, classes: SupportsIndex | None = None, progress: Any | None = None) -> Detector:
    """
    Fit a scorer by its name.
    """

def measure(id: Incomplete, ood: Incomplete) -> str:
    """
    Every metric of ID against OOD scores, as JSON.
    """

def num_threads() -> int:
    """
    Threads that work in this process.
    """

def of_maps(name: str, maps: Incomplete) -> Incomplete:
    """
    What a scorer reads of maps `[N, C, cells]`: `gram` or `rankfeat`.
    """

def open_surrogates(directory: str | PathLike[str]) -> tuple[list[tuple[str, FeatureSet]], FeatureSet | None]:
    """
    The feature sets of a directory, one a kind, and that of ID rows.
    """

def openood_aupr(id: Incomplete, ood: Incomplete) -> tuple[float, float]:
    """
    OpenOOD's areas under precision and recall (trapezoid): ID and OOD positive.
    """

def parse_spec(text: str) -> tuple[str, str]:
    """
    Name and settings of a scorer written as the command does, settings as JSON.
    """

def resolve_recipe(arguments: SupportsGetItem[int, str], recipes: str | PathLike[str] | None = None) -> tuple[str, list[str]]:
    """
    A recipe resolved, as TOML.
    """

def scorer_group(word: str, set: FeatureSet | None = None, head: Head | None = None) -> list[str]:
    """
    Names of a group of scorers: all, logits, features, head, maps, unlabelled, committee (those for such
    training data, where they are given).
    """

def scorer_list() -> str:
    """
    All scorers with their settings and defaults, and what a fit needs, as JSON.
    """

def select(specs: SupportsGetItem[int, str], set: FeatureSet, head: Head | None = None, surrogates: SupportsGetItem[int, tuple[str, FeatureSet]] | None = None, id: FeatureSet | None = None, folds: SupportsIndex = 5, rows: SupportsIndex = 20000, members: SupportsIndex = 8, seed: SupportsIndex = 0, strict: bool = False, force: bool = False, kind_rows: SupportsIndex | None = None, progress: Any | None = None) -> tuple[str, Detector]:
    """
    Rank scorers and compose them without OOD data; what was found as JSON, and the composition.
    `surrogates` play OOD, told from the rows of `id`; without them what features alone allow.
    """

def set_num_threads(threads: SupportsIndex) -> None:
    """
    Threads that work in this process from now on.
    """

def spec_text(name: str, given: dict) -> str:
    """
    The settings of a scorer as the command writes them.
    """

def train(recipe: str, out: str | PathLike[str], set: FeatureSet, head: Head | None = None, resume: bool = False, progress: Any | None = None, engine: Any | None = None) -> Detector:
    """
    Train a recipe in a directory; another Ctrl-C or an exception of `progress` leaves a checkpoint.

    `engine`, where there is one, has the methods `begin(model, block_rows)` and `sample(job)`; the
    latter returns the rows to which it ran the job's chains, as `Chains.run` does.
    """

def tune_on(specs: SupportsGetItem[int, str], set: FeatureSet, id: FeatureSet, ood: SupportsGetItem[int, tuple[str, FeatureSet]], head: Head | None = None, strict: bool = False, progress: Any | None = None) -> tuple[str, Detector]:
    """
    Judge settings on validation sets; what was found as JSON, and the best one fitted.
    """

def version() -> str:
    """
    Version of the library.
    """
