"""Compares every scorer with its authors' code, or OpenOOD's or pytorch-ood's, on the same features.

    python bench/reference.py FEATURES_FOLDER REFERENCES [--heat target/release/heat] [--only vim,ash_s] [--every 5]

FEATURES_FOLDER holds train, test, head and ood_*.safetensors. REFERENCES holds a
clone of each repository below as `owner+name`. Their code is read there and
run as it is, in double precision and without a GPU: whole modules of OpenOOD, and of
scripts the functions and classes asked for, or the lines between two marks.

Prints a line for each scorer and reference: the largest difference of an energy over
the standard deviation of the reference's, and the difference of the average AUROC.
`unit` says what the reference's score is multiplied by. Needs torch, scikit-learn,
faiss, pytorch-ood 0.4.0, safetensors.
"""

import argparse
import ast
import contextlib
import importlib.util
import io
import subprocess
import sys
import tempfile
import traceback
import types
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace as Space

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from sklearn.metrics import roc_auc_score

CLASSES = 10
OPENOOD, HEAT, NCI = "Jingkang50+OpenOOD", "MarcLafon+heatood", "litianliu+NCI-OOD"
SHAPING, MAHA = "andrijazz+lts", "mueller-mp+maha-norm"


def double_precision_without_gpu():
    """What references do with `.cuda()` and `.float()` becomes nothing and double precision."""
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(True)
    same = lambda self, *args, **kwargs: self
    torch.Tensor.cuda = torch.nn.Module.cuda = same
    torch.Tensor.float = lambda self: self.double()
    torch.Tensor.half = torch.Tensor.float
    to = torch.Tensor.to
    plain = lambda a: torch.float64 if a is torch.float32 else "cpu" if a == "cuda" else a
    torch.Tensor.to = lambda self, *a, **k: to(self, *map(plain, a), **{n: plain(v) for n, v in k.items()})
    ones = torch.ones
    torch.ones = lambda *a, device=None, **k: ones(*a, **k)
    zeros = torch.zeros
    torch.zeros = lambda *a, device=None, **k: zeros(*a, **k)
    torch.cuda.empty_cache = lambda: None


def namespace(**more):
    """What the code taken from scripts finds around it."""
    names = {"__name__": "reference", "np": np, "torch": torch, "nn": torch.nn, "F": torch.nn.functional}
    names |= {"tqdm": lambda x, *args, **kwargs: x, "Tensor": torch.Tensor, "os": import_module("os")}
    return names | more


def tree(repository, path):
    return ast.parse((REFERENCES / repository / path).read_text())


def run(nodes, repository, path, names):
    """Run statements; imports of what is not there, and what needs them, are passed over."""
    for node in nodes:
        code = compile(ast.Module([node], []), f"{repository}/{path}", "exec")
        try:
            exec(code, names)
        except (ImportError, NameError, AttributeError):
            continue
    return names


def is_alias(node):
    """Whether it names a type."""
    return isinstance(node, ast.Assign) and isinstance(node.value, (ast.Name, ast.Subscript, ast.Call)) and "Type" in ast.unparse(node.targets[0])


def take(repository, path, *wanted, **given):
    """The imports, and the functions and classes of these names."""
    nodes = [
        n
        for n in tree(repository, path).body
        if isinstance(n, (ast.Import, ast.ImportFrom)) or getattr(n, "name", None) in wanted or is_alias(n)
    ]
    names = run(nodes, repository, path, namespace(**given))
    names |= {"tqdm": lambda x, *args, **kwargs: x} | given
    return [names[w] for w in wanted] if len(wanted) > 1 else names[wanted[0]]


def between(repository, path, first, last, **given):
    """Run a script's statements from the one that starts with `first` up to the one with `last`."""
    source = (REFERENCES / repository / path).read_text()
    nodes = tree(repository, path).body
    starts = [(ast.get_source_segment(source, n) or "") for n in nodes]
    begin = next(i for i, s in enumerate(starts) if s.startswith(first))
    end = next(i for i, s in enumerate(starts) if i >= begin and s.startswith(last))
    return run(nodes[begin : end + 1], repository, path, namespace(**given))


class Net(torch.nn.Module):
    """A network whose images are features: the last layer alone."""

    def __init__(self, weight, bias):
        super().__init__()
        self.fc = torch.nn.Linear(*weight.shape[::-1])
        self.fc.weight.data, self.fc.bias.data = torch.tensor(weight), torch.tensor(bias)

    def forward(self, x, return_feature=False):
        return (self.fc(x), x) if return_feature else self.fc(x)

    def forward_threshold(self, x, threshold):
        return self.fc(x.clip(max=threshold))

    backbone = property(lambda self: self)
    get_feature = lambda self, x: (self.fc(x), x)
    get_fc_layer = lambda self: self.fc
    get_fc = lambda self: (self.fc.weight.detach().numpy(), self.fc.bias.detach().numpy())


class Data:
    """The rows in double precision: training, and those to score."""

    def __init__(self, folder, every):
        read = lambda name: load_file(folder / f"{name}.safetensors")
        train, head = read("train"), read("head")
        self.folder, self.every = folder, every
        self.sets = {"test": read("test")} | {p.stem[4:]: read(p.stem) for p in sorted(folder.glob("ood_*"))}
        parts = [s["avg"][::every] for s in self.sets.values()]
        self.probe16 = np.concatenate(parts)
        self.of = np.repeat(np.arange(len(parts)), [len(p) for p in parts])
        self.z, self.y = train["avg"].astype(np.float64), train["label"]
        self.x = self.probe16.astype(np.float64)
        self.test_label = self.sets["test"]["label"]
        self.w, self.b = head["weight"].astype(np.float64), head["bias"].astype(np.float64)
        self.net = Net(self.w, self.b).eval().requires_grad_(False)
        self.logits = lambda rows: rows @ self.w.T + self.b

    def loader(self, rows, labels, size=500):
        return Loader(
            [{"data": torch.tensor(rows[i : i + size]), "label": torch.tensor(labels[i : i + size])} for i in range(0, len(rows), size)],
            size,
            rows,
        )

    def auroc(self, energies):
        inside = energies[self.of == 0]
        areas = []
        for i in range(1, len(self.sets)):
            o = energies[self.of == i]
            areas.append(roc_auc_score(np.repeat([0, 1], [len(inside), len(o)]), np.concatenate([inside, o])))
        return np.mean(areas)


class DoubleOnly(np.ndarray):
    """Features that stay in double precision."""

    def astype(self, *args, **kwargs):
        return self


class Loader(list):
    def __init__(self, batches, size, rows):
        super().__init__(batches)
        self.batch_size, self.dataset = size, rows


# Each reference gives energies of `d.x`, fitted on `d.z`, from what it scores.


def openood(module, name, args=None, train=None, repository=OPENOOD, size=500):
    """A postprocessor of OpenOOD. What it fits on a validation set, it is given the training rows for."""

    def energies(d):
        root = REFERENCES / repository
        for part in [m for m in sys.modules if m.split(".")[0] == "openood"]:
            del sys.modules[part]
        for package in ("openood", "openood.postprocessors", "openood.preprocessors", "openood.utils"):
            sys.modules[package] = types.ModuleType(package)
            sys.modules[package].__path__ = [str(root / package.replace(".", "/"))]
        transform = types.ModuleType("openood.preprocessors.transform")
        transform.normalization_dict = {}
        sys.modules["openood.preprocessors.transform"] = transform
        comm = types.ModuleType("openood.utils.comm")
        sys.modules["openood.utils.comm"] = sys.modules["openood.utils"].comm = comm
        comm.is_main_process = lambda: True
        code = import_module(f"openood.postprocessors.{module}_postprocessor")
        config = Space(
            postprocessor=Space(postprocessor_args=Space(**(args or {})), postprocessor_sweep=None),
            dataset=Space(name="cifar10"),
        )
        p = getattr(code, name)(config)
        rows, labels = (d.z, d.y) if train is None else train(d)
        loader = d.loader(rows, labels, size)
        p.setup(d.net, {"train": loader, "val": loader, "test": loader}, None)
        parts = [p.postprocess(d.net, torch.tensor(x))[1] for x in np.split(d.x, range(size, len(d.x), size))]
        return -torch.cat([torch.as_tensor(s).detach() for s in parts]).numpy()

    return energies


def shaped(name, percentile):
    """ASH, SCALE: activations, then the head's energy."""

    def energies(d):
        f = take(SHAPING, "lts.py", name)
        logits = d.net(f(torch.tensor(d.x), percentile))
        return -torch.logsumexp(logits, 1).detach().numpy()

    return energies


def lts(d):
    scale = take(SHAPING, "lts.py", "lts")(torch.tensor(d.x), 95)
    return -torch.logsumexp(d.net(torch.tensor(d.x)) * scale, 1).detach().numpy()


def vra(d):
    f = take("zeroQiaoba+VRA", "quick_ood.py", "f")
    z = torch.tensor(d.z)
    f.__globals__["args"] = Space(featmin=torch.quantile(z, 0.6, dim=0), featmax=torch.quantile(z, 0.9, dim=0))
    return -torch.logsumexp(d.net(f(torch.tensor(d.x))), 1).detach().numpy()


def pytorch_vra(d):
    """Of pytorch-ood, on maps of one pixel."""
    maps = lambda rows: torch.tensor(rows, dtype=torch.float32)[:, :, None, None]
    head = torch.nn.Sequential(torch.nn.Flatten(), d.net.fc)
    p = import_module("pytorch_ood.detector").VRA(torch.nn.Identity(), head, 0.1, 0.9)
    p.fit(torch.utils.data.DataLoader(torch.utils.data.TensorDataset(maps(d.z), torch.tensor(d.y)), batch_size=5000))
    return p.predict(maps(d.x).double()).detach().numpy()


def dice(d):
    layer = take("deeplearning-wisc+dice", "models/route.py", "RouteDICE")
    layer = layer(d.w.shape[1], CLASSES, p=90, info=d.z.mean(0))
    layer.weight.data, layer.bias.data = torch.tensor(d.w), torch.tensor(d.b)
    return -torch.logsumexp(layer(torch.tensor(d.x)), 1).detach().numpy()


def gen(d):
    p = torch.softmax(torch.tensor(d.logits(d.x)), 1).numpy()
    return -take("XixiLiu95+GEN", "benchmark.py", "generalized_entropy")(p, 0.1, 100)


def pytorch_ood(name, *args, fit=None, on="logits", **settings):
    def energies(d):
        detector = getattr(import_module("pytorch_ood.detector"), name)(*[a(d) if callable(a) else a for a in args], **settings)
        what = (lambda rows: torch.tensor(d.logits(rows))) if on == "logits" else torch.tensor
        if fit:
            getattr(detector, f"fit_{on}")(what(d.z), torch.tensor(d.y))
        return getattr(detector, f"predict_{on}")(what(d.x)).detach().numpy()

    return energies


def maha(name):
    """Of Mahalanobis++; a thousand classes are written into it."""

    def energies(d):
        path = "NINCO/detection_methods.py"
        source = (REFERENCES / MAHA / path).read_text()
        module = ast.parse(source.replace("range(1000)", f"range({CLASSES})"))
        nodes = [n for n in module.body if isinstance(n, (ast.Import, ast.ImportFrom)) or getattr(n, "name", None) == name]
        names = run(nodes, MAHA, path, namespace())
        names["tqdm"] = lambda x, *args, **kwargs: x
        with tempfile.TemporaryDirectory() as cache:
            return -names[name](d.z, d.x, d.x[:1], d.y, cache)[0]

    return energies


def heat_scorer(path, name, attribute=None, **settings):
    """A scorer of HEAT's published code."""

    def energies(d):
        base = take(HEAT, "heat/scorers/abstract_scorer.py", "AbastractOODScorer")
        lib = Space(to_device=lambda x, *a: x, LOGGER=Space(info=lambda *a: None, warning=lambda *a: None))
        mixture = {}
        source = tree(HEAT, "heat/lib/distributions.py").body
        mixture = run(source, HEAT, "heat/lib/distributions.py", namespace())
        mixture = {k: mixture[k] for k in ("Categorical", "MultivariateNormal", "MixtureSameFamily") if k in mixture}
        cls = take(HEAT, f"heat/scorers/{path}.py", name, AbastractOODScorer=base, lib=lib, **mixture)
        scorer = cls(name="x", features_dataset=True, **settings)
        batches = [({"avg": b["data"]}, b["label"]) for b in d.loader(d.z, d.y)]
        # They are read in single precision.
        loader = Loader(batches, 500, Space(features=np.asarray(d.z).view(DoubleOnly), targets=d.y))
        scorer.fit(d.net, loader)
        if attribute:
            z = torch.tensor(d.x)
            z = torch.nn.functional.normalize(z, dim=1) if settings.get("normalize") else z
            return getattr(scorer, attribute)(z).detach().numpy()
        out = scorer.score_batch(d.net, {"avg": torch.tensor(d.x)}, features_dataset=True)
        return (out[0] if isinstance(out, tuple) else out).detach().numpy()

    return energies


def nnguide(d):
    """The authors' engine normalises the features before their detector sees them."""
    score = take("roomo7time+nnguide", "ood_detectors/assets.py", "knn_score")
    cls = take("roomo7time+nnguide", "ood_detectors/nnguide.py", "NNGuideOODDetector", OODDetector=object, knn_score=score)
    unit = lambda rows: torch.nn.functional.normalize(torch.tensor(rows), dim=1)
    outputs = lambda rows, labels: {"feas": unit(rows), "logits": torch.tensor(d.logits(rows)), "labels": labels}
    p = cls()
    p.setup(Space(detector={}), outputs(d.z, d.y))
    return -p.infer(outputs(d.x, None)).numpy()


def relation(d):
    names = take("snu-mllab+Neural-Relation-Graph", "relation.py", "kernel", "_init", "get_relation")
    unit = lambda rows: torch.nn.functional.normalize(torch.tensor(rows), dim=1)
    p = lambda rows: torch.softmax(torch.tensor(d.logits(rows)), 1)
    return -names[2](unit(d.x), unit(d.z), None, None, p(d.x), p(d.z), verbose=False)["score"].numpy()


def neco(d, architecture="vit"):
    """The authors' file, whose figures are asked of `utils`."""
    seen = []
    utils = Space(auc=lambda a, o: (seen.append(a), [0])[1], fpr_recall=lambda *a: (0, 0))
    f = take("drti+neco", "ood_methods/neco.py", "neco", utils=utils)
    f(d.z, d.x, d.x[:1], d.logits(d.x), d.logits(d.x[:1]), architecture, CLASSES)
    return -seen[0]


def pnml(d):
    """With the column of ones that the authors put before the features, as weight of which the bias stands in W."""
    path = "src/score_utils.py"
    softmax, ones, transform, matrices, regret, probs = take(
        "kobybibas+pnml_ood_detection", path,
        "softmax", "add_bias_term", "transform_features", "calc_projection_matrices", "calc_regret_on_set", "calc_probs",
    )
    rows = lambda z: transform(ones(z))
    parallel, orthogonal = matrices(rows(d.z))
    w = np.hstack([d.b[:, None], d.w])
    return regret(rows(d.x), probs(rows(d.x), w), parallel, orthogonal)[0]


def cadref(logit_method, coupled=False):
    def energies(d):
        repository = "LingAndZero+CADRef"
        file = "CARef" if coupled else "CADRef"
        names = ["maxLogits", "gen", "energy", "msp"]
        given = {} if coupled else dict(zip(names, take(repository, "ood_methods/CADRef.py", *names)))
        given["get_linear_layer_mapping"] = lambda *a: d.net.fc
        cls = take(repository, f"ood_methods/{file}.py", file, **given)
        args = Space(logit_method=logit_method, model="", ind_dataset="", num_classes=CLASSES)
        p = cls(d.net, args, "cpu")
        predicted = d.logits(d.z).argmax(1)
        features = [torch.tensor(d.z[predicted == c]) for c in range(CLASSES)]
        logits = [torch.tensor(d.logits(d.z[predicted == c])) for c in range(CLASSES)]
        if coupled:
            p.set_state(p.get_mean_feature(features))
        else:
            p.set_state(*p.get_state(features, logits))
        return -p.eval([(torch.tensor(d.x), None)])

    return energies


def kpca(method, ratio, gamma=None, features=None):
    """Their random frequencies are ours, which are kept in turns: two generators draw different ones."""

    def energies(d, fitted):
        numpy = types.ModuleType("np")
        numpy.__dict__.update(np.__dict__)
        if method == "CoRP":
            normal = fitted["frequencies"].astype(np.float64) * 2 * np.pi / np.sqrt(2 * gamma)
            numpy.random = Space(normal=lambda size: normal, rand=lambda n: fitted["phases"].astype(np.float64))
        names = between(
            "fanghenshaometeor+ood-kernel-pca", "CoP_CoRP_c10.py", "normalizer = ", "scores_in = ",
            np=numpy, feat_log=d.z, feat_log_val=d.x, ood_feat_log_all={},
            args=Space(method=method, exp_var_ratio=ratio, gamma=gamma, M=features, out_datasets=[]),
        )
        return -names["scores_in"]

    energies.fitted = True
    return energies


def weiper(d, fitted):
    """Their functions with our perturbed head; the published call draws another one for every batch."""
    path = "Weiper/OpenOOD/openood/postprocessors/weiper_kldiv/utils.py"
    spec = importlib.util.spec_from_file_location("weiper_utils", REFERENCES / "mgranz+weiper" / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    score = module.calculate_WeiPerKLDiv_score
    perturbed = torch.nn.Linear(d.w.shape[1], len(fitted["perturbed"]))
    perturbed.weight.data = torch.tensor(fitted["perturbed"].astype(np.float64))
    perturbed.bias.data = torch.tensor(np.tile(d.b, len(fitted["perturbed"]) // CLASSES))
    z = torch.tensor(d.z)
    projected = torch.cat([perturbed(part).detach() for part in z.split(1000)])
    extremes = (z.min(), z.max()), (projected.min(), projected.max())
    settings = dict(n_bins=100, n_repeats=100, smoothing=4, smoothing_perturbed=15, lambda_1=2.5, lambda_2=0.1, perturbed_fc=perturbed)
    parts = [score(d.net, part, train_min_max=extremes, **settings)[:2] for part in z.split(1000)]
    densities = [torch.stack(p).mean(0) for p in zip(*parts)]
    parts = [score(d.net, part, train_min_max=extremes, train_densities=densities, **settings) for part in torch.tensor(d.x).split(100)]
    return -torch.cat(parts).numpy()


weiper.fitted = True
some = lambda d: (d.z[:2000], d.y[:2000])
seen = lambda d: (d.sets["test"]["avg"].astype(np.float64), d.test_label)
C = CLASSES

# Scorer, repository, what is run, energies, unit of the reference, on which rows we fit.
CASES = [
    ("msp", OPENOOD, "base_postprocessor.py", openood("base", "BasePostprocessor"), lambda e: e + 1, None),
    ("max_logit", OPENOOD, "maxlogit_postprocessor.py", openood("maxlogit", "MaxLogitPostprocessor"), None, None),
    ("el", OPENOOD, "ebo_postprocessor.py", openood("ebo", "EBOPostprocessor", {"temperature": 1}), None, None),
    ("odin", OPENOOD, "odin_postprocessor.py, noise 0", openood("odin", "ODINPostprocessor", {"temperature": 1000, "noise": 0}), None, None),
    ("klm", OPENOOD, "kl_matching_postprocessor.py on the training rows", openood("kl_matching", "KLMatchingPostprocessor"), None, None),
    ("gen", "XixiLiu95+GEN", "benchmark.py: generalized_entropy", gen, None, None),
    ("entropy", "pytorch-ood", "Entropy", pytorch_ood("Entropy", None), None, None),
    ("temperature", OPENOOD, "temp_scaling_postprocessor.py, fitted on the test rows", openood("temp_scaling", "TemperatureScalingPostprocessor", train=seen), lambda e: e + 1, "test"),
    ("gmm", HEAT, "ssd_scorer.py: energy", heat_scorer("ssd_scorer", "SSDScorer", "energy", num_classes=C, normalize=True, use_gpu=False), None, None),
    ("ssd", MAHA, "detection_methods.py: Mahalanobis_norm", maha("evaluate_Mahalanobis_norm"), None, None),
    ("mds_pp", MAHA, "detection_methods.py: Mahalanobis_norm", maha("evaluate_Mahalanobis_norm"), None, None),
    ("maha", MAHA, "detection_methods.py: Mahalanobis", maha("evaluate_Mahalanobis"), None, None),
    ("maha", OPENOOD, "mds_postprocessor.py", openood("mds", "MDSPostprocessor"), None, None),
    ("rmds", MAHA, "detection_methods.py: Relative_Mahalanobis", maha("evaluate_Relative_Mahalanobis"), None, None),
    ("rmds", OPENOOD, "rmds_postprocessor.py", openood("rmds", "RMDSPostprocessor"), None, None),
    ("rmds_pp", MAHA, "detection_methods.py: Relative_Mahalanobis_norm", maha("evaluate_Relative_Mahalanobis_norm"), None, None),
    ("mean", HEAT, "mean_scorer.py", heat_scorer("mean_scorer", "MeanScorer", num_classes=C, normalize=True), None, None),
    ("cosine", HEAT, "cosine_similarity_scorer.py", heat_scorer("cosine_similarity_scorer", "CosineSimilarityScorer"), None, None),
    ("norm", "PyTorch", "Tensor.norm", lambda d: torch.tensor(d.x).norm(dim=1).numpy(), None, None),
    ("knn", OPENOOD, "knn_postprocessor.py, K = 50", openood("knn", "KNNPostprocessor", {"K": 50}), None, None),
    ("nnguide", "roomo7time+nnguide", "nnguide.py, all rows in the bank", nnguide, None, None),
    ("cfood(alpha=1)", OPENOOD, "cfood_postprocessor.py, alpha 1, 2,000 rows", openood("cfood", "CFOODPostprocessor", {"alpha": 1.0, "k": 0.01}, train=some), None, "some"),
    ("relation", "snu-mllab+Neural-Relation-Graph", "relation.py: get_relation", relation, None, None),
    ("vim(principal_dim=128)", OPENOOD, "vim_postprocessor.py, dim 128", openood("vim", "VIMPostprocessor", {"dim": 128}), None, None),
    ("vim(principal_dim=128,center=mean)", HEAT, "vim_scorer.py", heat_scorer("vim_scorer", "VIMScorer", num_classes=C, principal_dim=128), None, None),
    ("residual(principal_dim=128)", OPENOOD, "residual_postprocessor.py on the training rows", openood("residual", "ResidualPostprocessor", {"dim": 128}), None, None),
    ("kpca", "fanghenshaometeor+ood-kernel-pca", "CoP_CoRP_c10.py, CoP", kpca("CoP", 0.85), None, None),
    ("kpca(kernel=corp)", "fanghenshaometeor+ood-kernel-pca", "CoP_CoRP_c10.py, CoRP, our frequencies", kpca("CoRP", 0.8, 2.0, 2048), None, None),
    ("neco", "drti+neco", "neco.py, 10 directions", neco, None, None),
    ("neco(max_logit=false)", "drti+neco", "neco.py, resnet", lambda d: neco(d, "resnet"), None, None),
    ("neco(standardize=false)", "drti+neco", "neco.py, swin", lambda d: neco(d, "swin"), None, None),
    ("pnml", "kobybibas+pnml_ood_detection", "score_utils.py", pnml, None, None),
    ("pnml", "pytorch-ood", "PNML", pytorch_ood("PNML", None, lambda d: d.net.fc, fit=True, on="features"), None, None),
    ("react", OPENOOD, "react_postprocessor.py on the training rows", openood("react", "ReactPostprocessor", {"percentile": 90}), None, None),
    ("dice", "deeplearning-wisc+dice", "route.py, p = 90", dice, None, None),
    ("ash_p", SHAPING, "lts.py: ash_p@90", shaped("ash_p", 90), None, None),
    ("ash_b", SHAPING, "lts.py: ash_b@90", shaped("ash_b", 90), None, None),
    ("ash_s", SHAPING, "lts.py: ash_s@90", shaped("ash_s", 90), None, None),
    ("scale", SHAPING, "lts.py: scale@85", shaped("scale", 85), None, None),
    ("lts", SHAPING, "lts.py: lts@95", lts, None, None),
    ("vra", "zeroQiaoba+VRA", "quick_ood.py, q1 0.6, q2 0.9", vra, None, None),
    ("vra(low=0.1,high=0.9,clip=true)", "pytorch-ood", "VRA", pytorch_vra, None, None),
    ("vra(low=0.1,high=0.9,clip=true)", OPENOOD, "vra_postprocessor.py on the training rows", openood("vra", "VRAPostprocessor", {"percentile_high": 90, "percentile_low": 10}), None, None),
    ("gradnorm", OPENOOD, "gradnorm_postprocessor.py", openood("gradnorm", "GradNormPostprocessor"), lambda e: e / C, None),
    ("fdbd", OPENOOD, "fdbd_postprocessor.py", openood("fdbd", "fDBDPostprocessor", {"distance_as_normalizer": True}), lambda e: e / (C - 1), None),
    ("fdbd(normalizer=norm)", OPENOOD, "fdbd_postprocessor.py, norm", openood("fdbd", "fDBDPostprocessor", {"distance_as_normalizer": False}), lambda e: e / (C - 1), None),
    ("nci", NCI, "nci_postprocessor.py", openood("nci", "NCIPostprocessor", {"alpha": 1e-4}, repository=NCI), None, None),
    ("she", OPENOOD, "she_postprocessor.py", openood("she", "SHEPostprocessor", {"metric": "inner_product"}), None, None),
    ("cadref", "LingAndZero+CADRef", "CADRef.py, Energy", cadref("Energy"), None, None),
    ("cadref(confidence=gen)", "LingAndZero+CADRef", "CADRef.py, GEN", cadref("GEN"), None, None),
    ("cadref(decoupled=false)", "LingAndZero+CADRef", "CARef.py", cadref("Energy", coupled=True), None, None),
    ("weiper", "mgranz+weiper", "weiper_kldiv/utils.py, our perturbed head", weiper, None, None),
]


def ours(d, spec, fit_on, scratch, heat):
    """Our energies of the same rows, and the detector's tensors."""
    train = d.folder / "train.safetensors"
    if fit_on == "test":
        train = d.folder / "test.safetensors"
    elif fit_on == "some":
        train = scratch / "some.safetensors"
        save_file({"avg": np.ascontiguousarray(load_file(d.folder / "train.safetensors")["avg"][:2000]), "label": d.y[:2000]}, train)
    name, _, settings = spec.rstrip(")").partition("(")
    words = settings.split(",") if settings else []
    detector, scores, rows = scratch / "detector.safetensors", scratch / "scores.npy", scratch / "rows.safetensors"
    if not rows.exists():
        save_file({"avg": d.probe16}, rows)
    quiet = dict(check=True, capture_output=True)
    subprocess.run([heat, "fit", "-q", name, *words, "--train", train, "--head", d.folder / "head.safetensors", "-o", detector], **quiet)
    subprocess.run([heat, "score", "-q", detector, rows, "-o", scores], **quiet)
    return np.load(scores).astype(np.float64).ravel(), load_file(detector)


def main():
    global REFERENCES
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("references", type=Path)
    parser.add_argument("--heat", default=Path(__file__).resolve().parent.parent / "target/release/heat")
    parser.add_argument("--only", default="", help="scorers, by name")
    parser.add_argument("--every", type=int, default=5, help="score every so many-th row of each set")
    args = parser.parse_args()
    REFERENCES = args.references
    double_precision_without_gpu()
    d = Data(args.folder, args.every)
    only = set(filter(None, args.only.split(",")))
    print("| scorer | reference | largest difference ÷ spread | AUROC here | AUROC reference |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        for spec, repository, what, energies, unit, fit_on in CASES:
            if only and spec.split("(")[0] not in only:
                continue
            try:
                here, fitted = ours(d, spec, fit_on, Path(scratch), args.heat)
                with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                    there = np.asarray(energies(d, fitted) if getattr(energies, "fitted", False) else energies(d), np.float64)
            except Exception:
                problem = traceback.format_exc().strip()
                print(f"{spec} beside {repository}: {problem}", file=sys.stderr, flush=True)
                continue
            there = there.ravel() if unit is None else unit(there.ravel())
            difference = np.abs(here - there).max() / there.std()
            a, b = d.auroc(here), d.auroc(there)
            source = f"{repository.replace('+', '/')}: {what}"
            print(f"| `{spec}` | {source} | {difference:.1e} | {100 * a:.3f} | {100 * b:.3f} |", flush=True)


if __name__ == "__main__":
    main()
