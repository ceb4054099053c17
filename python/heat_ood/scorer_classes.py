"""Every scorer as a class. Written by python/generate.py from docs/methods.md: change that.

Features `z` have shape `[N, D]`, logits `[N, C]`; where rows are read and steps before the formula
(`layer`, `pooling`, `react`, `normalize`, `pca`, `whiten`, `views`) are explained there. A default of None depends on the number of classes
or means that the step is left out.
"""

from __future__ import annotations

from typing import ClassVar

from ._scorer import Scorer, Setting

__all__ = [
    "Msp",
    "MaxLogit",
    "El",
    "JointEnergy",
    "Odin",
    "Klm",
    "Gen",
    "Entropy",
    "Temperature",
    "Openmax",
    "Gmm",
    "Ssd",
    "Maha",
    "MdsPp",
    "Rmds",
    "RmdsPp",
    "Mean",
    "Norm",
    "Knn",
    "Nnguide",
    "Cfood",
    "Relation",
    "Lid",
    "Dknn",
    "Trust",
    "Jtla",
    "Vim",
    "Residual",
    "Neco",
    "Kpca",
    "React",
    "Dice",
    "Cosine",
    "AshP",
    "AshB",
    "AshS",
    "Scale",
    "Lts",
    "Vra",
    "She",
    "Gradnorm",
    "Graduncertainty",
    "Nac",
    "Fdbd",
    "Nci",
    "Pnml",
    "Cadref",
    "Weiper",
    "Gram",
    "Rankfeat",
    "FeatureSqueezing",
    "AdascaleA",
    "AdascaleL",
    "Odds",
    "Mcd",
]


class Msp(Scorer):
    """`msp`: 1 − max p, as the sum of the other probabilities (files of format version 1 keep −max p).

    Fit: none; cost of a row: O(D·C).

    Hendrycks and Gimpel, ICLR 2017.
    """

    name = "msp"
    defaults: ClassVar[dict[str, Setting]] = {"normalize": None, "pca": None, "react": None, "views": None, "whiten": None}

    def __init__(
        self,
        *,
        normalize: bool | int | float | str | None = None,
        pca: int | None = None,
        react: float | None = None,
        views: str | None = None,
        whiten: bool | int | float | str | None = None,
    ) -> None:
        super().__init__(normalize=normalize, pca=pca, react=react, views=views, whiten=whiten)


class MaxLogit(Scorer):
    """`max_logit`: −max logits.

    Fit: none; cost of a row: O(D·C).

    Hendrycks et al., ICML 2022.
    """

    name = "max_logit"
    defaults: ClassVar[dict[str, Setting]] = {"normalize": None, "pca": None, "react": None, "views": None, "whiten": None}

    def __init__(
        self,
        *,
        normalize: bool | int | float | str | None = None,
        pca: int | None = None,
        react: float | None = None,
        views: str | None = None,
        whiten: bool | int | float | str | None = None,
    ) -> None:
        super().__init__(normalize=normalize, pca=pca, react=react, views=views, whiten=whiten)


class El(Scorer):
    """`el`: −logsumexp(logits).

    Fit: none; cost of a row: O(D·C).

    Liu et al., NeurIPS 2020.
    """

    name = "el"
    defaults: ClassVar[dict[str, Setting]] = {"normalize": None, "pca": None, "react": None, "views": None, "whiten": None}

    def __init__(
        self,
        *,
        normalize: bool | int | float | str | None = None,
        pca: int | None = None,
        react: float | None = None,
        views: str | None = None,
        whiten: bool | int | float | str | None = None,
    ) -> None:
        super().__init__(normalize=normalize, pca=pca, react=react, views=views, whiten=whiten)


class JointEnergy(Scorer):
    """`joint_energy`: −Σ_k log(1 + exp ℓ_k), ℓ the logits: for classes that do not exclude each other.

    Fit: none; cost of a row: O(D·C).

    Wang et al., NeurIPS 2021.
    """

    name = "joint_energy"
    defaults: ClassVar[dict[str, Setting]] = {"normalize": None, "pca": None, "react": None, "views": None, "whiten": None}

    def __init__(
        self,
        *,
        normalize: bool | int | float | str | None = None,
        pca: int | None = None,
        react: float | None = None,
        views: str | None = None,
        whiten: bool | int | float | str | None = None,
    ) -> None:
        super().__init__(normalize=normalize, pca=pca, react=react, views=views, whiten=whiten)


class Odin(Scorer):
    """`odin`: −max softmax(logits/T).

    Settings: `temperature=1000`; `epsilon=0` (from features; perturbed images: images.md, `heat
    run`).

    Fit: none; cost of a row: O(D·C).

    Liang et al., ICLR 2018.
    """

    name = "odin"
    defaults: ClassVar[dict[str, Setting]] = {"epsilon": 0.0, "temperature": 1000.0, "normalize": None, "pca": None, "react": None, "views": None, "whiten": None}

    def __init__(
        self,
        *,
        epsilon: float = 0.0,
        temperature: float | None = 1000.0,
        normalize: bool | int | float | str | None = None,
        pca: int | None = None,
        react: float | None = None,
        views: str | None = None,
        whiten: bool | int | float | str | None = None,
    ) -> None:
        super().__init__(epsilon=epsilon, temperature=temperature, normalize=normalize, pca=pca, react=react, views=views, whiten=whiten)


class Klm(Scorer):
    """`klm`: min_k KL(p ‖ t_k), t_k the mean p of training rows predicted as k; classes never
    predicted are left out, and named.

    Fit: O(N·C); cost of a row: O(D·C + C²).

    Hendrycks et al., ICML 2022.
    """

    name = "klm"
    defaults: ClassVar[dict[str, Setting]] = {"normalize": None, "pca": None, "react": None, "views": None, "whiten": None}

    def __init__(
        self,
        *,
        normalize: bool | int | float | str | None = None,
        pca: int | None = None,
        react: float | None = None,
        views: str | None = None,
        whiten: bool | int | float | str | None = None,
    ) -> None:
        super().__init__(normalize=normalize, pca=pca, react=react, views=views, whiten=whiten)


class Gen(Scorer):
    """`gen`: Σ p^γ (1−p)^γ over the M largest p.

    Settings: `gamma=0.1`; `m=100`.

    Fit: none; cost of a row: O(D·C).

    Liu et al., CVPR 2023.
    """

    name = "gen"
    defaults: ClassVar[dict[str, Setting]] = {"gamma": 0.1, "m": 100, "normalize": None, "pca": None, "react": None, "views": None, "whiten": None}

    def __init__(
        self,
        *,
        gamma: float | None = 0.1,
        m: int = 100,
        normalize: bool | int | float | str | None = None,
        pca: int | None = None,
        react: float | None = None,
        views: str | None = None,
        whiten: bool | int | float | str | None = None,
    ) -> None:
        super().__init__(gamma=gamma, m=m, normalize=normalize, pca=pca, react=react, views=views, whiten=whiten)


class Entropy(Scorer):
    """`entropy`: −Σ p log p.

    Fit: none; cost of a row: O(D·C).

    Chan et al., ICCV 2021.
    """

    name = "entropy"
    defaults: ClassVar[dict[str, Setting]] = {"normalize": None, "pca": None, "react": None, "views": None, "whiten": None}

    def __init__(
        self,
        *,
        normalize: bool | int | float | str | None = None,
        pca: int | None = None,
        react: float | None = None,
        views: str | None = None,
        whiten: bool | int | float | str | None = None,
    ) -> None:
        super().__init__(normalize=normalize, pca=pca, react=react, views=views, whiten=whiten)


class Temperature(Scorer):
    """`temperature`: 1 − max softmax(logits/T), T of the least negative log-likelihood of the training
    labels; 1, with a warning, where all rows are predicted correctly.

    Settings: `temperature=<T>` (not fitted).

    Fit: Newton's method, some ten times O(N·C); cost of a row: O(D·C).

    Guo et al., ICML 2017.
    """

    name = "temperature"
    defaults: ClassVar[dict[str, Setting]] = {"temperature": None, "normalize": None, "pca": None, "react": None, "views": None, "whiten": None}

    def __init__(
        self,
        *,
        temperature: float | None = None,
        normalize: bool | int | float | str | None = None,
        pca: int | None = None,
        react: float | None = None,
        views: str | None = None,
        whiten: bool | int | float | str | None = None,
    ) -> None:
        super().__init__(temperature=temperature, normalize=normalize, pca=pca, react=react, views=views, whiten=whiten)


class Openmax(Scorer):
    """`openmax`: log-odds of the unknown class: v₀ − logsumexp_k v_k(1 − ω_k·w_k), v₀ = Σ v_k·ω_k·w_k,
    v the logits, ω 1 … 1/α for the α largest, w_k the Weibull probability of the distance to class
    k's mean logits.

    Settings: `tailsize=20`, `alpha=10`, `euclid_weight=1` (the rest is the cosine's; 1/201: the
    authors' distance), `correct=true` (rows predicted wrongly left out).

    Fit: two passes, O(N·C); cost of a row: O(α·C).

    Bendale and Boult, CVPR 2016.
    """

    name = "openmax"
    defaults: ClassVar[dict[str, Setting]] = {"alpha": 10, "correct": True, "euclid_weight": 1.0, "tailsize": 20, "normalize": None, "pca": None, "react": None, "views": None, "whiten": None}

    def __init__(
        self,
        *,
        alpha: int = 10,
        correct: bool = True,
        euclid_weight: float = 1.0,
        tailsize: int = 20,
        normalize: bool | int | float | str | None = None,
        pca: int | None = None,
        react: float | None = None,
        views: str | None = None,
        whiten: bool | int | float | str | None = None,
    ) -> None:
        super().__init__(alpha=alpha, correct=correct, euclid_weight=euclid_weight, tailsize=tailsize, normalize=normalize, pca=pca, react=react, views=views, whiten=whiten)


class Gmm(Scorer):
    """`gmm`: −log Σ_k π_k N(z; μ_k, Σ), class means, one covariance plus 1e-12·I (of rows that are not
    normalised 1e-12 of their mean variance, so that units do not matter), class frequencies.

    Settings: `normalize=true`; `diagonal=false`; `kmeans=<k>` (clusters for classes, no labels
    needed), `kmeans_seed=0`; `shrinkage=none`.

    Fit: O(N·D²), in f64; cost of a row: O(D² + C·D).

    Lee et al., NeurIPS 2018; HEAT.
    """

    name = "gmm"
    defaults: ClassVar[dict[str, Setting]] = {"diagonal": False, "kmeans": None, "kmeans_seed": 0, "shrinkage": 'none', "layer": None, "normalize": True, "pca": None, "pooling": 'avg', "react": None, "views": None, "whiten": False}

    def __init__(
        self,
        *,
        diagonal: bool = False,
        kmeans: int | None = None,
        kmeans_seed: int = 0,
        shrinkage: float | str = 'none',
        layer: str | None = None,
        normalize: bool = True,
        pca: int | None = None,
        pooling: str = 'avg',
        react: float | None = None,
        views: str | None = None,
        whiten: bool = False,
    ) -> None:
        super().__init__(diagonal=diagonal, kmeans=kmeans, kmeans_seed=kmeans_seed, shrinkage=shrinkage, layer=layer, normalize=normalize, pca=pca, pooling=pooling, react=react, views=views, whiten=whiten)


class Ssd(Scorer):
    """`ssd`: min_k (z−μ_k)ᵀ Σ⁻¹ (z−μ_k).

    Settings: as `gmm`.

    Fit: as `gmm`; cost of a row: O(D² + C·D).

    Sehwag et al., ICLR 2021.
    """

    name = "ssd"
    defaults: ClassVar[dict[str, Setting]] = {"diagonal": False, "kmeans": None, "kmeans_seed": 0, "shrinkage": 'none', "layer": None, "normalize": True, "pca": None, "pooling": 'avg', "react": None, "views": None, "whiten": False}

    def __init__(
        self,
        *,
        diagonal: bool = False,
        kmeans: int | None = None,
        kmeans_seed: int = 0,
        shrinkage: float | str = 'none',
        layer: str | None = None,
        normalize: bool = True,
        pca: int | None = None,
        pooling: str = 'avg',
        react: float | None = None,
        views: str | None = None,
        whiten: bool = False,
    ) -> None:
        super().__init__(diagonal=diagonal, kmeans=kmeans, kmeans_seed=kmeans_seed, shrinkage=shrinkage, layer=layer, normalize=normalize, pca=pca, pooling=pooling, react=react, views=views, whiten=whiten)


class Maha(Scorer):
    """`maha`: the same, never normalised.

    Settings: as `gmm`.

    Fit: as `gmm`; cost of a row: O(D² + C·D).

    Lee et al., NeurIPS 2018.
    """

    name = "maha"
    defaults: ClassVar[dict[str, Setting]] = {"diagonal": False, "kmeans": None, "kmeans_seed": 0, "shrinkage": 'none', "layer": None, "normalize": False, "pca": None, "pooling": 'avg', "react": None, "views": None, "whiten": False}

    def __init__(
        self,
        *,
        diagonal: bool = False,
        kmeans: int | None = None,
        kmeans_seed: int = 0,
        shrinkage: float | str = 'none',
        layer: str | None = None,
        normalize: bool = False,
        pca: int | None = None,
        pooling: str = 'avg',
        react: float | None = None,
        views: str | None = None,
        whiten: bool = False,
    ) -> None:
        super().__init__(diagonal=diagonal, kmeans=kmeans, kmeans_seed=kmeans_seed, shrinkage=shrinkage, layer=layer, normalize=normalize, pca=pca, pooling=pooling, react=react, views=views, whiten=whiten)


class MdsPp(Scorer):
    """`mds_pp`: `ssd`, by its name in Mahalanobis++; always normalised.

    Settings: as `gmm`.

    Fit: as `gmm`; cost of a row: O(D² + C·D).

    Mueller and Hein, ICML 2025.
    """

    name = "mds_pp"
    defaults: ClassVar[dict[str, Setting]] = {"diagonal": False, "kmeans": None, "kmeans_seed": 0, "shrinkage": 'none', "layer": None, "normalize": True, "pca": None, "pooling": 'avg', "react": None, "views": None, "whiten": False}

    def __init__(
        self,
        *,
        diagonal: bool = False,
        kmeans: int | None = None,
        kmeans_seed: int = 0,
        shrinkage: float | str = 'none',
        layer: str | None = None,
        normalize: bool = True,
        pca: int | None = None,
        pooling: str = 'avg',
        react: float | None = None,
        views: str | None = None,
        whiten: bool = False,
    ) -> None:
        super().__init__(diagonal=diagonal, kmeans=kmeans, kmeans_seed=kmeans_seed, shrinkage=shrinkage, layer=layer, normalize=normalize, pca=pca, pooling=pooling, react=react, views=views, whiten=whiten)


class Rmds(Scorer):
    """`rmds`: min_k M_k − M_0, M_k = (z−μ_k)ᵀ Σ⁻¹ (z−μ_k), M_0 the same for one Gaussian of all rows;
    never normalised.

    Settings: as `gmm`.

    Fit: as `gmm`, whose sums it shares; cost of a row: O(C·D + C²).

    Ren et al., 2021.
    """

    name = "rmds"
    defaults: ClassVar[dict[str, Setting]] = {"diagonal": False, "kmeans": None, "kmeans_seed": 0, "shrinkage": 'none', "layer": None, "normalize": False, "pca": None, "pooling": 'avg', "react": None, "views": None, "whiten": False}

    def __init__(
        self,
        *,
        diagonal: bool = False,
        kmeans: int | None = None,
        kmeans_seed: int = 0,
        shrinkage: float | str = 'none',
        layer: str | None = None,
        normalize: bool = False,
        pca: int | None = None,
        pooling: str = 'avg',
        react: float | None = None,
        views: str | None = None,
        whiten: bool = False,
    ) -> None:
        super().__init__(diagonal=diagonal, kmeans=kmeans, kmeans_seed=kmeans_seed, shrinkage=shrinkage, layer=layer, normalize=normalize, pca=pca, pooling=pooling, react=react, views=views, whiten=whiten)


class RmdsPp(Scorer):
    """`rmds_pp`: the same, always normalised.

    Settings: as `gmm`.

    Fit: as `gmm`; cost of a row: O(C·D + C²).

    Mueller and Hein, ICML 2025.
    """

    name = "rmds_pp"
    defaults: ClassVar[dict[str, Setting]] = {"diagonal": False, "kmeans": None, "kmeans_seed": 0, "shrinkage": 'none', "layer": None, "normalize": True, "pca": None, "pooling": 'avg', "react": None, "views": None, "whiten": False}

    def __init__(
        self,
        *,
        diagonal: bool = False,
        kmeans: int | None = None,
        kmeans_seed: int = 0,
        shrinkage: float | str = 'none',
        layer: str | None = None,
        normalize: bool = True,
        pca: int | None = None,
        pooling: str = 'avg',
        react: float | None = None,
        views: str | None = None,
        whiten: bool = False,
    ) -> None:
        super().__init__(diagonal=diagonal, kmeans=kmeans, kmeans_seed=kmeans_seed, shrinkage=shrinkage, layer=layer, normalize=normalize, pca=pca, pooling=pooling, react=react, views=views, whiten=whiten)


class Mean(Scorer):
    """`mean`: −max_k z·m_k; z normalised, m_k the class mean, then normalised.

    Settings: `reduce=max|logsumexp`; `normalize_rows=false` (normalise rows before averaging).

    Fit: O(N·D); cost of a row: O(D·C).

    HEAT's published code.
    """

    name = "mean"
    defaults: ClassVar[dict[str, Setting]] = {"normalize_rows": False, "reduce": 'max', "layer": None, "normalize": False, "pca": None, "pooling": 'avg', "react": None, "views": None, "whiten": False}

    def __init__(
        self,
        *,
        normalize_rows: bool = False,
        reduce: str = 'max',
        layer: str | None = None,
        normalize: bool = False,
        pca: int | None = None,
        pooling: str = 'avg',
        react: float | None = None,
        views: str | None = None,
        whiten: bool = False,
    ) -> None:
        super().__init__(normalize_rows=normalize_rows, reduce=reduce, layer=layer, normalize=normalize, pca=pca, pooling=pooling, react=react, views=views, whiten=whiten)


class Norm(Scorer):
    """`norm`: ‖z‖₂.

    Fit: none; cost of a row: O(D).
    """

    name = "norm"
    defaults: ClassVar[dict[str, Setting]] = {"layer": None, "normalize": False, "pca": None, "pooling": 'avg', "react": None, "views": None, "whiten": False}

    def __init__(
        self,
        *,
        layer: str | None = None,
        normalize: bool = False,
        pca: int | None = None,
        pooling: str = 'avg',
        react: float | None = None,
        views: str | None = None,
        whiten: bool = False,
    ) -> None:
        super().__init__(layer=layer, normalize=normalize, pca=pca, pooling=pooling, react=react, views=views, whiten=whiten)


class Knn(Scorer):
    """`knn`: squared L2 distance to the k-th nearest training row, exact.

    Settings: `k=50/200/1000`, times the fraction of the rows if a subset is used; `normalize=true`.

    Fit: copies the rows, 5 bytes a value (8 without eight-bit products); cost of a row: O(N·D).

    Sun et al., ICML 2022.
    """

    name = "knn"
    defaults: ClassVar[dict[str, Setting]] = {"k": None, "layer": None, "normalize": True, "pca": None, "pooling": 'avg', "react": None, "views": None, "whiten": False}

    def __init__(
        self,
        *,
        k: int | None = None,
        layer: str | None = None,
        normalize: bool = True,
        pca: int | None = None,
        pooling: str = 'avg',
        react: float | None = None,
        views: str | None = None,
        whiten: bool = False,
    ) -> None:
        super().__init__(k=k, layer=layer, normalize=normalize, pca=pca, pooling=pooling, react=react, views=views, whiten=whiten)


class Nnguide(Scorer):
    """`nnguide`: −E(z)·mean of the k largest E(x)·cos(z, x) over training rows x, E =
    logsumexp(logits).

    Settings: `k=10`.

    Fit: as `knn`; cost of a row: O(N·D).

    Park et al., ICCV 2023.
    """

    name = "nnguide"
    defaults: ClassVar[dict[str, Setting]] = {"k": 10, "layer": None, "normalize": False, "pca": None, "pooling": 'avg', "react": None, "views": None, "whiten": False}

    def __init__(
        self,
        *,
        k: int | None = 10,
        layer: str | None = None,
        normalize: bool = False,
        pca: int | None = None,
        pooling: str = 'avg',
        react: float | None = None,
        views: str | None = None,
        whiten: bool = False,
    ) -> None:
        super().__init__(k=k, layer=layer, normalize=normalize, pca=pca, pooling=pooling, react=react, views=views, whiten=whiten)


class Cfood(Scorer):
    """`cfood`: smallest fraction f at which a proportion of at least k of n reference rows has its
    ⌊f·n⌋-th neighbour no nearer than z.

    Settings: `alpha=0.1` (fraction of the rows that are reference rows), `k=0.01`, `seed=0`;
    `normalize=true`.

    Fit: O(n²·D); cost of a row: O(n·D).

    OpenOOD v1.5.
    """

    name = "cfood"
    defaults: ClassVar[dict[str, Setting]] = {"alpha": 0.1, "k": 0.01, "seed": 0, "layer": None, "normalize": True, "pca": None, "pooling": 'avg', "react": None, "views": None, "whiten": False}

    def __init__(
        self,
        *,
        alpha: float = 0.1,
        k: float = 0.01,
        seed: int = 0,
        layer: str | None = None,
        normalize: bool = True,
        pca: int | None = None,
        pooling: str = 'avg',
        react: float | None = None,
        views: str | None = None,
        whiten: bool = False,
    ) -> None:
        super().__init__(alpha=alpha, k=k, seed=seed, layer=layer, normalize=normalize, pca=pca, pooling=pooling, react=react, views=views, whiten=whiten)


class Relation(Scorer):
    """`relation`: −Σ_x s(z, x)ᵗ where s > `threshold`, s = max(0, cos(z, x))·p(z)·p(x) over training
    rows x.

    Settings: `threshold=0.03`, `power=1` (t).

    Fit: copies rows and p; cost of a row: O(N·(D + C)).

    Kim et al., NeurIPS 2023.
    """

    name = "relation"
    defaults: ClassVar[dict[str, Setting]] = {"power": 1.0, "threshold": 0.03, "layer": None, "normalize": False, "pca": None, "pooling": 'avg', "react": None, "views": None, "whiten": False}

    def __init__(
        self,
        *,
        power: float = 1.0,
        threshold: float = 0.03,
        layer: str | None = None,
        normalize: bool = False,
        pca: int | None = None,
        pooling: str = 'avg',
        react: float | None = None,
        views: str | None = None,
        whiten: bool = False,
    ) -> None:
        super().__init__(power=power, threshold=threshold, layer=layer, normalize=normalize, pca=pca, pooling=pooling, react=react, views=views, whiten=whiten)


class Lid(Scorer):
    """`lid`: k / Σ_i log(r_k/r_i), r_i the distances to the k nearest training rows.

    Settings: `k=20`.

    Fit: as `knn`; cost of a row: O(N·D).

    Ma et al., ICLR 2018.
    """

    name = "lid"
    defaults: ClassVar[dict[str, Setting]] = {"k": 20, "layer": None, "normalize": False, "pca": None, "pooling": 'avg', "react": None, "views": None, "whiten": False}

    def __init__(
        self,
        *,
        k: int | None = 20,
        layer: str | None = None,
        normalize: bool = False,
        pca: int | None = None,
        pooling: str = 'avg',
        react: float | None = None,
        views: str | None = None,
        whiten: bool = False,
    ) -> None:
        super().__init__(k=k, layer=layer, normalize=normalize, pca=pca, pooling=pooling, react=react, views=views, whiten=whiten)


class Dknn(Scorer):
    """`dknn`: how many of the k nearest training rows have another label than the predicted class: 0 …
    k, with ties.

    Settings: `k=75`.

    Fit: as `knn`; cost of a row: O(N·D).

    Papernot and McDaniel, 2018.
    """

    name = "dknn"
    defaults: ClassVar[dict[str, Setting]] = {"k": 75, "layer": None, "normalize": False, "pca": None, "pooling": 'avg', "react": None, "views": None, "whiten": False}

    def __init__(
        self,
        *,
        k: int | None = 75,
        layer: str | None = None,
        normalize: bool = False,
        pca: int | None = None,
        pooling: str = 'avg',
        react: float | None = None,
        views: str | None = None,
        whiten: bool = False,
    ) -> None:
        super().__init__(k=k, layer=layer, normalize=normalize, pca=pca, pooling=pooling, react=react, views=views, whiten=whiten)


class Trust(Scorer):
    """`trust`: d_ŷ / min_{k≠ŷ} d_k, d_k the distance to the nearest training row of class k, ŷ the
    predicted class: the inverse of the authors' score.

    Settings: `alpha=0` (fraction of each class left out, farthest from its `k`-th neighbour first),
    `k=10`.

    Fit: an index a class; with `alpha` O(Σ n_k²·D); cost of a row: O(N·D).

    Jiang et al., NeurIPS 2018.
    """

    name = "trust"
    defaults: ClassVar[dict[str, Setting]] = {"alpha": 0.0, "k": 10, "layer": None, "normalize": False, "pca": None, "pooling": 'avg', "react": None, "views": None, "whiten": False}

    def __init__(
        self,
        *,
        alpha: float = 0.0,
        k: int | None = 10,
        layer: str | None = None,
        normalize: bool = False,
        pca: int | None = None,
        pooling: str = 'avg',
        react: float | None = None,
        views: str | None = None,
        whiten: bool = False,
    ) -> None:
        super().__init__(alpha=alpha, k=k, layer=layer, normalize=normalize, pca=pca, pooling=pooling, react=react, views=views, whiten=whiten)


class Jtla(Scorer):
    """`jtla`: Σ −ln p over layers and pairs of layers, p the fraction of training rows predicted as
    the same class whose t is no smaller (of a pair: in both), at least 10⁻¹⁶; t = Σ_c n_c
    ln(n_c/(k·π_c)), n the labels of the k nearest training rows, π their distribution for that
    class; of the layers that the training set has.

    Settings: `k=0` (N^0.4); `pairs=true`; `normalize=true`.

    Fit: as `knn` for each layer, and a search for each row; cost of a row: as `knn` for each layer.

    Raghuram et al., ICML 2021.
    """

    name = "jtla"
    defaults: ClassVar[dict[str, Setting]] = {"k": 0, "pairs": True, "layer": None, "normalize": True, "pca": None, "pooling": 'avg', "react": None, "views": None, "whiten": False}

    def __init__(
        self,
        *,
        k: int | None = 0,
        pairs: bool = True,
        layer: str | None = None,
        normalize: bool = True,
        pca: int | None = None,
        pooling: str = 'avg',
        react: float | None = None,
        views: str | None = None,
        whiten: bool = False,
    ) -> None:
        super().__init__(k=k, pairs=pairs, layer=layer, normalize=normalize, pca=pca, pooling=pooling, react=react, views=views, whiten=whiten)


class Vim(Scorer):
    """`vim`: α‖Rᵀ(z−o)‖ − logsumexp(Wz+b); o = −W⁺b, R all but the `principal_dim` directions of
    largest second moment about o, α = mean max logit ÷ mean residual norm.

    Settings: `center=origin` (the authors', OpenOOD's, pytorch-ood's; `mean`: HEAT's published
    code, directions of largest variance about the mean and logits of z−o; files that name none hold
    `mean`); `principal_dim=256/400/256`, at most D/2.

    Fit: two passes, O(N·D²) (α needs R); cost of a row: O(D·(min(p, D − p) + C)).

    Wang et al., CVPR 2022.
    """

    name = "vim"
    defaults: ClassVar[dict[str, Setting]] = {"center": 'origin', "principal_dim": None, "layer": None, "normalize": False, "pca": None, "pooling": 'avg', "react": None, "views": None, "whiten": False}

    def __init__(
        self,
        *,
        center: str = 'origin',
        principal_dim: int | None = None,
        layer: str | None = None,
        normalize: bool = False,
        pca: int | None = None,
        pooling: str = 'avg',
        react: float | None = None,
        views: str | None = None,
        whiten: bool = False,
    ) -> None:
        super().__init__(center=center, principal_dim=principal_dim, layer=layer, normalize=normalize, pca=pca, pooling=pooling, react=react, views=views, whiten=whiten)


class Residual(Scorer):
    """`residual`: ‖Rᵀ(z−o)‖, R and o as `vim`.

    Settings: `center`, `principal_dim` as `vim`; with `center=mean` no head is needed (then o is
    the mean).

    Fit: O(N·D²), shares the sums of `vim`; cost of a row: O(D·min(p, D − p)).

    Wang et al., CVPR 2022.
    """

    name = "residual"
    defaults: ClassVar[dict[str, Setting]] = {"center": 'origin', "principal_dim": None, "layer": None, "normalize": False, "pca": None, "pooling": 'avg', "react": None, "views": None, "whiten": False}

    def __init__(
        self,
        *,
        center: str = 'origin',
        principal_dim: int | None = None,
        layer: str | None = None,
        normalize: bool = False,
        pca: int | None = None,
        pooling: str = 'avg',
        react: float | None = None,
        views: str | None = None,
        whiten: bool = False,
    ) -> None:
        super().__init__(center=center, principal_dim=principal_dim, layer=layer, normalize=normalize, pca=pca, pooling=pooling, react=react, views=views, whiten=whiten)


class Neco(Scorer):
    """`neco`: −max logits · ‖Px‖/‖x‖, x the standardised row, P the directions of largest variance of
    x.

    Settings: `dim=C`, at most D/2; `standardize=true`; `max_logit=true` (`false`: the ratio alone).

    Fit: O(N·D²); cost of a row: O(D·(dim + C)).

    Ben Ammar et al., ICLR 2024.
    """

    name = "neco"
    defaults: ClassVar[dict[str, Setting]] = {"dim": None, "max_logit": True, "standardize": True, "layer": None, "normalize": False, "pca": None, "pooling": 'avg', "react": None, "views": None, "whiten": False}

    def __init__(
        self,
        *,
        dim: int | None = None,
        max_logit: bool = True,
        standardize: bool = True,
        layer: str | None = None,
        normalize: bool = False,
        pca: int | None = None,
        pooling: str = 'avg',
        react: float | None = None,
        views: str | None = None,
        whiten: bool = False,
    ) -> None:
        super().__init__(dim=dim, max_logit=max_logit, standardize=standardize, layer=layer, normalize=normalize, pca=pca, pooling=pooling, react=react, views=views, whiten=whiten)


class Kpca(Scorer):
    """`kpca`: ‖x − μ − P Pᵀ(x−μ)‖, x = z/‖z‖ or random Fourier features of it, P their principal
    directions.

    Settings: `kernel=cop|corp`; `explained=0.85/0.85/0.99` (`corp`: 0.8/0.8/0.5); `corp`:
    `gamma=2/2/3`, `features=2048/2048/4096` (M), `seed=0`.

    Fit: O(N·D²), or O(N·M²); cost of a row: O(D·p), or O(D·M + M·p).

    Fang et al., NeurIPS 2024.
    """

    name = "kpca"
    defaults: ClassVar[dict[str, Setting]] = {"explained": None, "features": None, "gamma": None, "kernel": 'cop', "seed": 0, "layer": None, "normalize": False, "pca": None, "pooling": 'avg', "react": None, "views": None, "whiten": False}

    def __init__(
        self,
        *,
        explained: float | None = None,
        features: bool | int | float | str | None = None,
        gamma: float | None = None,
        kernel: str = 'cop',
        seed: int = 0,
        layer: str | None = None,
        normalize: bool = False,
        pca: int | None = None,
        pooling: str = 'avg',
        react: float | None = None,
        views: str | None = None,
        whiten: bool = False,
    ) -> None:
        super().__init__(explained=explained, features=features, gamma=gamma, kernel=kernel, seed=seed, layer=layer, normalize=normalize, pca=pca, pooling=pooling, react=react, views=views, whiten=whiten)


class React(Scorer):
    """`react`: −logsumexp(W min(z, t) + b), t a quantile of all training coordinates: `el` with the
    step.

    Settings: `react=0.9`.

    Fit: as the step; cost of a row: O(D·C).

    Sun et al., NeurIPS 2021.
    """

    name = "react"
    defaults: ClassVar[dict[str, Setting]] = {"normalize": None, "pca": None, "react": 0.9, "views": None, "whiten": None}

    def __init__(
        self,
        *,
        normalize: bool | int | float | str | None = None,
        pca: int | None = None,
        react: float | None = 0.9,
        views: str | None = None,
        whiten: bool | int | float | str | None = None,
    ) -> None:
        super().__init__(normalize=normalize, pca=pca, react=react, views=views, whiten=whiten)


class Dice(Scorer):
    """`dice`: −logsumexp of the head, keeping the weights whose contribution W ⊙ mean(z) exceeds its
    percentile; z clipped at 10⁵.

    Settings: `percentile=90/5/70`.

    Fit: O(N·D); cost of a row: O(D·C).

    Sun and Li, ECCV 2022.
    """

    name = "dice"
    defaults: ClassVar[dict[str, Setting]] = {"percentile": None, "layer": None, "normalize": False, "pca": None, "pooling": 'avg', "react": None, "views": None, "whiten": False}

    def __init__(
        self,
        *,
        percentile: float | None = None,
        layer: str | None = None,
        normalize: bool = False,
        pca: int | None = None,
        pooling: str = 'avg',
        react: float | None = None,
        views: str | None = None,
        whiten: bool = False,
    ) -> None:
        super().__init__(percentile=percentile, layer=layer, normalize=normalize, pca=pca, pooling=pooling, react=react, views=views, whiten=whiten)


class Cosine(Scorer):
    """`cosine`: −logsumexp_c cos(z, W_c).

    Fit: none; cost of a row: O(D·C).

    Techapanurak et al., ACCV 2020.
    """

    name = "cosine"
    defaults: ClassVar[dict[str, Setting]] = {"layer": None, "normalize": False, "pca": None, "pooling": 'avg', "react": None, "views": None, "whiten": False}

    def __init__(
        self,
        *,
        layer: str | None = None,
        normalize: bool = False,
        pca: int | None = None,
        pooling: str = 'avg',
        react: float | None = None,
        views: str | None = None,
        whiten: bool = False,
    ) -> None:
        super().__init__(layer=layer, normalize=normalize, pca=pca, pooling=pooling, react=react, views=views, whiten=whiten)


class AshP(Scorer):
    """`ash_p`: −logsumexp(Wh + b), h the row with all but its k largest activations set to zero, k = D
    − round(D·`percentile`/100).

    Settings: `percentile=90`.

    Fit: none; cost of a row: O(D·C).

    Djurisic et al., ICLR 2023.
    """

    name = "ash_p"
    defaults: ClassVar[dict[str, Setting]] = {"percentile": None, "layer": None, "normalize": False, "pca": None, "pooling": 'avg', "react": None, "views": None, "whiten": False}

    def __init__(
        self,
        *,
        percentile: float | None = None,
        layer: str | None = None,
        normalize: bool = False,
        pca: int | None = None,
        pooling: str = 'avg',
        react: float | None = None,
        views: str | None = None,
        whiten: bool = False,
    ) -> None:
        super().__init__(percentile=percentile, layer=layer, normalize=normalize, pca=pca, pooling=pooling, react=react, views=views, whiten=whiten)


class AshB(Scorer):
    """`ash_b`: the same, the kept activations replaced by S/k, S the sum of the row.

    Settings: `percentile=90`.

    Fit: none; cost of a row: O(D·C).

    Djurisic et al., ICLR 2023.
    """

    name = "ash_b"
    defaults: ClassVar[dict[str, Setting]] = {"percentile": None, "layer": None, "normalize": False, "pca": None, "pooling": 'avg', "react": None, "views": None, "whiten": False}

    def __init__(
        self,
        *,
        percentile: float | None = None,
        layer: str | None = None,
        normalize: bool = False,
        pca: int | None = None,
        pooling: str = 'avg',
        react: float | None = None,
        views: str | None = None,
        whiten: bool = False,
    ) -> None:
        super().__init__(percentile=percentile, layer=layer, normalize=normalize, pca=pca, pooling=pooling, react=react, views=views, whiten=whiten)


class AshS(Scorer):
    """`ash_s`: `ash_p` with h times exp(S/S_k), S_k the sum of the k largest.

    Settings: `percentile=90`.

    Fit: none; cost of a row: O(D·C).

    Djurisic et al., ICLR 2023.
    """

    name = "ash_s"
    defaults: ClassVar[dict[str, Setting]] = {"percentile": None, "layer": None, "normalize": False, "pca": None, "pooling": 'avg', "react": None, "views": None, "whiten": False}

    def __init__(
        self,
        *,
        percentile: float | None = None,
        layer: str | None = None,
        normalize: bool = False,
        pca: int | None = None,
        pooling: str = 'avg',
        react: float | None = None,
        views: str | None = None,
        whiten: bool = False,
    ) -> None:
        super().__init__(percentile=percentile, layer=layer, normalize=normalize, pca=pca, pooling=pooling, react=react, views=views, whiten=whiten)


class Scale(Scorer):
    """`scale`: −logsumexp(Wz·exp(S/S_k) + b): nothing is pruned.

    Settings: `percentile=85`.

    Fit: none; cost of a row: O(D·C).

    Xu et al., ICLR 2024.
    """

    name = "scale"
    defaults: ClassVar[dict[str, Setting]] = {"percentile": None, "layer": None, "normalize": False, "pca": None, "pooling": 'avg', "react": None, "views": None, "whiten": False}

    def __init__(
        self,
        *,
        percentile: float | None = None,
        layer: str | None = None,
        normalize: bool = False,
        pca: int | None = None,
        pooling: str = 'avg',
        react: float | None = None,
        views: str | None = None,
        whiten: bool = False,
    ) -> None:
        super().__init__(percentile=percentile, layer=layer, normalize=normalize, pca=pca, pooling=pooling, react=react, views=views, whiten=whiten)


class Lts(Scorer):
    """`lts`: −logsumexp(logits·(S⁺/S⁺_k)²), sums of max(z, 0).

    Settings: `percentile=95`.

    Fit: none; cost of a row: O(D·C).

    Djurisic et al., 2024.
    """

    name = "lts"
    defaults: ClassVar[dict[str, Setting]] = {"percentile": None, "layer": None, "normalize": False, "pca": None, "pooling": 'avg', "react": None, "views": None, "whiten": False}

    def __init__(
        self,
        *,
        percentile: float | None = None,
        layer: str | None = None,
        normalize: bool = False,
        pca: int | None = None,
        pooling: str = 'avg',
        react: float | None = None,
        views: str | None = None,
        whiten: bool = False,
    ) -> None:
        super().__init__(percentile=percentile, layer=layer, normalize=normalize, pca=pca, pooling=pooling, react=react, views=views, whiten=whiten)


class Vra(Scorer):
    """`vra`: −logsumexp(W f(z) + b), f takes a coordinate below its column's low quantile to zero
    (`clip=true`: to that quantile), one above the high quantile to it.

    Settings: `low=0.6`; `high=0.9/0.95/0.95`; `clip=false`.

    Fit: two passes over f16 and bf16, else three; O(N·D); cost of a row: O(D·C).

    Xu et al., NeurIPS 2023.
    """

    name = "vra"
    defaults: ClassVar[dict[str, Setting]] = {"clip": False, "high": None, "low": 0.6, "layer": None, "normalize": False, "pca": None, "pooling": 'avg', "react": None, "views": None, "whiten": False}

    def __init__(
        self,
        *,
        clip: bool = False,
        high: float | None = None,
        low: float | None = 0.6,
        layer: str | None = None,
        normalize: bool = False,
        pca: int | None = None,
        pooling: str = 'avg',
        react: float | None = None,
        views: str | None = None,
        whiten: bool = False,
    ) -> None:
        super().__init__(clip=clip, high=high, low=low, layer=layer, normalize=normalize, pca=pca, pooling=pooling, react=react, views=views, whiten=whiten)


class She(Scorer):
    """`she`: −z·S_ŷ, S_k the mean of the rows of class k that are predicted correctly, ŷ the predicted
    class.

    Fit: O(N·D·C); cost of a row: O(D·C).

    Zhang et al., ICLR 2023.
    """

    name = "she"
    defaults: ClassVar[dict[str, Setting]] = {"layer": None, "normalize": False, "pca": None, "pooling": 'avg', "react": None, "views": None, "whiten": False}

    def __init__(
        self,
        *,
        layer: str | None = None,
        normalize: bool = False,
        pca: int | None = None,
        pooling: str = 'avg',
        react: float | None = None,
        views: str | None = None,
        whiten: bool = False,
    ) -> None:
        super().__init__(layer=layer, normalize=normalize, pca=pca, pooling=pooling, react=react, views=views, whiten=whiten)


class Gradnorm(Scorer):
    """`gradnorm`: −‖z‖₁ Σ|p − 1/C| / T, p = softmax(logits/T): the L1 norm of the gradient of
    KL(uniform ‖ p) by W.

    Settings: `temperature=1`.

    Fit: none; cost of a row: O(D·C).

    Huang et al., NeurIPS 2021.
    """

    name = "gradnorm"
    defaults: ClassVar[dict[str, Setting]] = {"temperature": 1.0, "layer": None, "normalize": False, "pca": None, "pooling": 'avg', "react": None, "views": None, "whiten": False}

    def __init__(
        self,
        *,
        temperature: float | None = 1.0,
        layer: str | None = None,
        normalize: bool = False,
        pca: int | None = None,
        pooling: str = 'avg',
        react: float | None = None,
        views: str | None = None,
        whiten: bool = False,
    ) -> None:
        super().__init__(temperature=temperature, layer=layer, normalize=normalize, pca=pca, pooling=pooling, react=react, views=views, whiten=whiten)


class Graduncertainty(Scorer):
    """`graduncertainty`: −(‖z‖² + 1)·Σ (C·p − 1)²: the squared L2 norm of the gradient of −Σ log p by
    W and b; with `parameters=all` by all weights of the network.

    Settings: `parameters=head|all`.

    Fit: none; cost of a row: O(D·C); the norms, when extracted.

    Lee and AlRegib, ICIP 2020.
    """

    name = "graduncertainty"
    defaults: ClassVar[dict[str, Setting]] = {"parameters": 'head', "layer": None, "normalize": False, "pca": None, "pooling": 'avg', "react": None, "views": None, "whiten": False}

    def __init__(
        self,
        *,
        parameters: str = 'head',
        layer: str | None = None,
        normalize: bool = False,
        pca: int | None = None,
        pooling: str = 'avg',
        react: float | None = None,
        views: str | None = None,
        whiten: bool = False,
    ) -> None:
        super().__init__(parameters=parameters, layer=layer, normalize=normalize, pca=pca, pooling=pooling, react=react, views=views, whiten=whiten)


class Nac(Scorer):
    """`nac`: −mean_i min(n_i/O, 1), n_i the rows, of 1,000 training rows, in the same of M − 1
    intervals as s_i = sigmoid(α·z_i·∂/∂z_i KL(uniform ‖ p)).

    Settings: `m=50`; `o=50/50/10`; `sig_alpha=100/50/3000`, of further layers 2 ÷ mean |z·∂KL/∂z|.

    Fit: O(N·C·D); cost of a row: O(C·D).

    Liu et al., ICLR 2024.
    """

    name = "nac"
    defaults: ClassVar[dict[str, Setting]] = {"m": 50, "o": None, "sig_alpha": None, "layer": None, "normalize": False, "pca": None, "pooling": 'avg', "react": None, "views": None, "whiten": False}

    def __init__(
        self,
        *,
        m: int = 50,
        o: float | None = None,
        sig_alpha: float | None = None,
        layer: str | None = None,
        normalize: bool = False,
        pca: int | None = None,
        pooling: str = 'avg',
        react: float | None = None,
        views: str | None = None,
        whiten: bool = False,
    ) -> None:
        super().__init__(m=m, o=o, sig_alpha=sig_alpha, layer=layer, normalize=normalize, pca=pca, pooling=pooling, react=react, views=views, whiten=whiten)


class Fdbd(Scorer):
    """`fdbd`: −mean_{c≠ŷ} (ℓ_ŷ − ℓ_c)/‖w_ŷ − w_c‖ over ‖z − μ‖, ℓ logits, w rows of W, μ the training
    mean.

    Settings: `normalizer=distance|norm|none` (over ‖z − μ‖, ‖z‖ or 1).

    Fit: O(N·D); cost of a row: O(D·C).

    Liu and Qin, ICML 2024.
    """

    name = "fdbd"
    defaults: ClassVar[dict[str, Setting]] = {"normalizer": 'distance', "layer": None, "normalize": False, "pca": None, "pooling": 'avg', "react": None, "views": None, "whiten": False}

    def __init__(
        self,
        *,
        normalizer: str = 'distance',
        layer: str | None = None,
        normalize: bool = False,
        pca: int | None = None,
        pooling: str = 'avg',
        react: float | None = None,
        views: str | None = None,
        whiten: bool = False,
    ) -> None:
        super().__init__(normalizer=normalizer, layer=layer, normalize=normalize, pca=pca, pooling=pooling, react=react, views=views, whiten=whiten)


class Nci(Scorer):
    """`nci`: −w_ŷ·(z − μ)/‖z − μ‖ − α‖z‖₁.

    Settings: `alpha=0.0001`.

    Fit: O(N·D); cost of a row: O(D·C).

    Liu and Qin, CVPR 2025.
    """

    name = "nci"
    defaults: ClassVar[dict[str, Setting]] = {"alpha": 0.0001, "layer": None, "normalize": False, "pca": None, "pooling": 'avg', "react": None, "views": None, "whiten": False}

    def __init__(
        self,
        *,
        alpha: float = 0.0001,
        layer: str | None = None,
        normalize: bool = False,
        pca: int | None = None,
        pooling: str = 'avg',
        react: float | None = None,
        views: str | None = None,
        whiten: bool = False,
    ) -> None:
        super().__init__(alpha=alpha, layer=layer, normalize=normalize, pca=pca, pooling=pooling, react=react, views=views, whiten=whiten)


class Pnml(Scorer):
    """`pnml`: log Σ p/(p + (1−p)p^g) / log C, g = x/(1+x), x = zᵀ(ZᵀZ)⁺z, Z the training rows.

    Settings: `normalize=true`.

    Fit: O(N·D²); cost of a row: O(D² + D·C).

    Bibas et al., NeurIPS 2021.
    """

    name = "pnml"
    defaults: ClassVar[dict[str, Setting]] = {"layer": None, "normalize": True, "pca": None, "pooling": 'avg', "react": None, "views": None, "whiten": False}

    def __init__(
        self,
        *,
        layer: str | None = None,
        normalize: bool = True,
        pca: int | None = None,
        pooling: str = 'avg',
        react: float | None = None,
        views: str | None = None,
        whiten: bool = False,
    ) -> None:
        super().__init__(layer=layer, normalize=normalize, pca=pca, pooling=pooling, react=react, views=views, whiten=whiten)


class Cadref(Scorer):
    """`cadref`: e⁺/E(z) + e⁻/mean E, e± = Σ_j max(0, ±(z−m_y)_j·sign W_yj) ÷ ‖z‖₁, y the predicted
    class, m_y the mean of rows predicted as y.

    Settings: `confidence=energy|msp|max_logit|gen` (E); `decoupled=true` (`false`, CARef: ‖z−m_y‖₁
    ÷ ‖z‖₁).

    Fit: O(N·C·D); cost of a row: O(C·D).

    Ling et al., CVPR 2025.
    """

    name = "cadref"
    defaults: ClassVar[dict[str, Setting]] = {"confidence": 'energy', "decoupled": True, "layer": None, "normalize": False, "pca": None, "pooling": 'avg', "react": None, "views": None, "whiten": False}

    def __init__(
        self,
        *,
        confidence: str = 'energy',
        decoupled: bool = True,
        layer: str | None = None,
        normalize: bool = False,
        pca: int | None = None,
        pooling: str = 'avg',
        react: float | None = None,
        views: str | None = None,
        whiten: bool = False,
    ) -> None:
        super().__init__(confidence=confidence, decoupled=decoupled, layer=layer, normalize=normalize, pca=pca, pooling=pooling, react=react, views=views, whiten=whiten)


class Weiper(Scorer):
    """`weiper`: KLD(z) + λ₁·KLD(W̃z + b) − λ₂·MSP(W̃z + b), W̃ r perturbed copies of W, KLD the
    symmetric divergence of a row's histogram of values from the training rows' mean.

    Settings: `repeats=100` (r), `distance=1.8/2.4/2.4`, `bins=100`, `lambda1=2.5/0.1/2.5`,
    `lambda2=0.1/1/0.25`, `smoothing=4/4/40`, `smoothing_perturbed=15/40/15`, `seed=0`.

    Fit: two passes, O(N·r·C·D); cost of a row: O(r·C·D).

    Granz et al., NeurIPS 2024.
    """

    name = "weiper"
    defaults: ClassVar[dict[str, Setting]] = {"bins": 100, "distance": None, "lambda1": None, "lambda2": None, "repeats": 100, "seed": 0, "smoothing": None, "smoothing_perturbed": None, "layer": None, "normalize": False, "pca": None, "pooling": 'avg', "react": None, "views": None, "whiten": False}

    def __init__(
        self,
        *,
        bins: int = 100,
        distance: bool | int | float | str | None = None,
        lambda1: bool | int | float | str | None = None,
        lambda2: bool | int | float | str | None = None,
        repeats: int = 100,
        seed: int = 0,
        smoothing: bool | int | float | str | None = None,
        smoothing_perturbed: bool | int | float | str | None = None,
        layer: str | None = None,
        normalize: bool = False,
        pca: int | None = None,
        pooling: str = 'avg',
        react: float | None = None,
        views: str | None = None,
        whiten: bool = False,
    ) -> None:
        super().__init__(bins=bins, distance=distance, lambda1=lambda1, lambda2=lambda2, repeats=repeats, seed=seed, smoothing=smoothing, smoothing_perturbed=smoothing_perturbed, layer=layer, normalize=normalize, pca=pca, pooling=pooling, react=react, views=views, whiten=whiten)


class Gram(Scorer):
    """`gram`: Σ over layers of δ/E, δ = Σ_{p,i} [max(0, m − g)/|m| + max(0, g − M)/|M|] ÷ max p, g the
    p-th root of the sum of row i of Fᵖ(Fᵖ)ᵀ, F the layer's map, m and M its least and greatest
    among the training rows that are predicted alike, E the mean δ of those held out.

    Settings: `powers=10` (p = 1 …); `validation=0.1` (fraction held out of each class);
    `confidence=true` (÷ max p).

    Fit: one pass, and those held out once more; cost of a row: O(powers · channels).

    Sastry and Oore, ICML 2020.
    """

    name = "gram"
    defaults: ClassVar[dict[str, Setting]] = {"confidence": True, "powers": 10, "validation": 0.1, "views": None}

    def __init__(
        self,
        *,
        confidence: bool = True,
        powers: int = 10,
        validation: float = 0.1,
        views: str | None = None,
    ) -> None:
        super().__init__(confidence=confidence, powers=powers, validation=validation, views=views)


class Rankfeat(Scorer):
    """`rankfeat`: −T·logsumexp((Wz′ + b)/T), z′ the mean over the last map without its first singular
    component.

    Settings: `temperature=1`.

    Fit: none; cost of a row: O(D·C).

    Song et al., NeurIPS 2022.
    """

    name = "rankfeat"
    defaults: ClassVar[dict[str, Setting]] = {"temperature": 1.0, "views": None}

    def __init__(
        self,
        *,
        temperature: float | None = 1.0,
        views: str | None = None,
    ) -> None:
        super().__init__(temperature=temperature, views=views)


class FeatureSqueezing(Scorer):
    """`feature_squeezing`: max over the views of ‖softmax(logits) − softmax(view's logits)‖; the views
    `bitsN` (each value rounded to 2ᴺ − 1 steps) and `medianN` (the median of N × N pixels) of the
    image.

    Settings: `bits=5`, `median=2` (0: without that view); `dist_norm=1` (order of the norm).

    Fit: none; cost of a row: O(D·C), and a pass of the network a view.

    Xu et al., NDSS 2018.
    """

    name = "feature_squeezing"
    defaults: ClassVar[dict[str, Setting]] = {"bits": 5, "dist_norm": 1.0, "median": 2, "normalize": None, "pca": None, "react": None, "views": None, "whiten": None}

    def __init__(
        self,
        *,
        bits: int = 5,
        dist_norm: float = 1.0,
        median: int = 2,
        normalize: bool | int | float | str | None = None,
        pca: int | None = None,
        react: float | None = None,
        views: str | None = None,
        whiten: bool | int | float | str | None = None,
    ) -> None:
        super().__init__(bits=bits, dist_norm=dist_norm, median=median, normalize=normalize, pca=pca, react=react, views=views, whiten=whiten)


class AdascaleA(Scorer):
    """`adascale_a`: −logsumexp(W(z·exp(S/S_k)) + b), S the sum of max(z, 0), S_k that of the k = D −
    round(D·p/100) largest; p = `max_percentile` − F(Q)·(`max_percentile` − `min_percentile`), F(Q)
    the fraction of training rows with no larger Q = Σ max(z′, 0) over the k₁ largest of z + λ·Σ |z
    − z′| over its k₂ largest, z′ of the image moved where it matters least (view `nudgedN`).

    Settings: `min_percentile=75`, `max_percentile=85`, `k1=5`, `k2=1` (percentages of D),
    `lmbda=10` (λ), `o=0.05` (fraction of the image moved), `num_samples=5000` (quantiles kept).

    Fit: O(N·D); cost of a row: O(D·C).

    Regmi, 2025.
    """

    name = "adascale_a"
    defaults: ClassVar[dict[str, Setting]] = {"k1": 5.0, "k2": 1.0, "lmbda": 10.0, "max_percentile": 85.0, "min_percentile": 75.0, "num_samples": 5000, "o": 0.05, "layer": None, "normalize": False, "pca": None, "pooling": 'avg', "react": None, "views": None, "whiten": False}

    def __init__(
        self,
        *,
        k1: float = 5.0,
        k2: float = 1.0,
        lmbda: float = 10.0,
        max_percentile: float = 85.0,
        min_percentile: float = 75.0,
        num_samples: int = 5000,
        o: float | None = 0.05,
        layer: str | None = None,
        normalize: bool = False,
        pca: int | None = None,
        pooling: str = 'avg',
        react: float | None = None,
        views: str | None = None,
        whiten: bool = False,
    ) -> None:
        super().__init__(k1=k1, k2=k2, lmbda=lmbda, max_percentile=max_percentile, min_percentile=min_percentile, num_samples=num_samples, o=o, layer=layer, normalize=normalize, pca=pca, pooling=pooling, react=react, views=views, whiten=whiten)


class AdascaleL(Scorer):
    """`adascale_l`: −logsumexp((Wz + b)·(S/S_k)²), the rest as `adascale_a`.

    Settings: as `adascale_a`.

    Fit: as `adascale_a`; cost of a row: O(D·C).

    Regmi, 2025.
    """

    name = "adascale_l"
    defaults: ClassVar[dict[str, Setting]] = {"k1": 5.0, "k2": 1.0, "lmbda": 10.0, "max_percentile": 85.0, "min_percentile": 75.0, "num_samples": 5000, "o": 0.05, "layer": None, "normalize": False, "pca": None, "pooling": 'avg', "react": None, "views": None, "whiten": False}

    def __init__(
        self,
        *,
        k1: float = 5.0,
        k2: float = 1.0,
        lmbda: float = 10.0,
        max_percentile: float = 85.0,
        min_percentile: float = 75.0,
        num_samples: int = 5000,
        o: float | None = 0.05,
        layer: str | None = None,
        normalize: bool = False,
        pca: int | None = None,
        pooling: str = 'avg',
        react: float | None = None,
        views: str | None = None,
        whiten: bool = False,
    ) -> None:
        super().__init__(k1=k1, k2=k2, lmbda=lmbda, max_percentile=max_percentile, min_percentile=min_percentile, num_samples=num_samples, o=o, layer=layer, normalize=normalize, pca=pca, pooling=pooling, react=react, views=views, whiten=whiten)


class Odds(Scorer):
    """`odds`: max_{z≠ŷ} (g_z − μ_ŷz)/σ_ŷz, g_z = (ℓ̄ − ℓ)_z − (ℓ̄ − ℓ)_ŷ, ℓ̄ the mean logits of noisy
    passes (view `noiseNxK`), ŷ the predicted class, μ and σ of the training rows predicted as it.

    Settings: `epsilon=0.008` (noise uniform within it, of normalised values), `noise_samples=256`
    (passes).

    Fit: O(N·C), C² sums; cost of a row: O(D·C).

    Roth et al., ICML 2019.
    """

    name = "odds"
    defaults: ClassVar[dict[str, Setting]] = {"epsilon": 0.008, "noise_samples": 256, "normalize": None, "pca": None, "react": None, "views": None, "whiten": None}

    def __init__(
        self,
        *,
        epsilon: float = 0.008,
        noise_samples: int = 256,
        normalize: bool | int | float | str | None = None,
        pca: int | None = None,
        react: float | None = None,
        views: str | None = None,
        whiten: bool | int | float | str | None = None,
    ) -> None:
        super().__init__(epsilon=epsilon, noise_samples=noise_samples, normalize=normalize, pca=pca, react=react, views=views, whiten=whiten)


class Mcd(Scorer):
    """`mcd`: of K passes with dropout (view `dropoutK`), p_k the probabilities of pass k: mean over
    the classes of the variance of p_k (`var`), 1 − max of their mean (`mean`), 1 − max softmax of
    the mean logits (`logits`).

    Settings: `mode=var`, `samples=30` (K).

    Fit: none; cost of a row: O(C), and K passes of what comes after the first dropout.

    Gal and Ghahramani, ICML 2016; Kendall et al., BMVC 2017.
    """

    name = "mcd"
    defaults: ClassVar[dict[str, Setting]] = {"mode": 'var', "samples": 30, "views": None}

    def __init__(
        self,
        *,
        mode: str = 'var',
        samples: int = 30,
        views: str | None = None,
    ) -> None:
        super().__init__(mode=mode, samples=samples, views=views)
