"""The published way of HEAT's hot paths, in PyTorch, faiss and scikit-learn.

    python bench/peers.py WHAT [key=value]...
    python bench/peers.py check crates/heat-ood/tests/golden/reference.safetensors

WHAT is one of `mlp sgld iteration fit knn metrics`; the keys are those of the Rust
example `timings`: `d k batch hidden steps draw rows queries neighbours reps
threads`. Prints one JSON object with the seconds of every repetition.

`check` compares these implementations with the golden values instead.
"""

import json
import os
import sys
import time

import numpy as np

N_HIDDEN = 4
TEMPERATURE, TEMPERATURE_PRIOR = 1.0, 1e3
STEP_SIZE, EPS = (1e-4, 1e-5), (5e-3, 5e-4)
L2_COEF, EPS_DATA, LR = 10.0, 1e-4, 1e-5
TOLERANCE = 1e-4


def features(n, d, k, seed=1):
    """Non-negative float32 rows around k means, and their labels."""
    rng = np.random.default_rng(seed)
    means = rng.random((k, d), dtype=np.float32)
    labels = np.arange(n) % k
    rows = rng.standard_normal((n, d), dtype=np.float32)
    return np.maximum(means[labels] + 0.3 * rows, 0), labels


def repeat(reps, f):
    """Seconds of each of `reps` calls, after one that is not counted."""
    f()
    seconds = []
    for _ in range(reps):
        start = time.perf_counter()
        f()
        seconds.append(time.perf_counter() - start)
    return seconds


# Network, prior, chains, training step.


def tied_mlp(d, hidden, n_hidden=N_HIDDEN):
    """Linear(d, h), one Linear(h, h) applied n_hidden times, Linear(h, 1)."""
    from torch import nn

    shared = nn.Linear(hidden, hidden)
    layers = [nn.Linear(d, hidden), nn.LeakyReLU(0.2)]
    for _ in range(n_hidden):
        layers += [shared, nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Linear(hidden, 1))


def mixture(probs, means, scale_tril):
    """Gaussians at means [K, D] that share scale_tril [D, D].

    `MultivariateNormal` broadcasts the shared factor over the classes itself:
    given already expanded to [K, D, D] it would be copied in every call.
    """
    from torch import distributions as D

    components = D.MultivariateNormal(means, scale_tril=scale_tril, validate_args=False)
    return D.MixtureSameFamily(D.Categorical(probs), components, validate_args=False)


def fit_mixture(rows, labels, k):
    """Class means and pooled biased covariance of normalised rows, in float64."""
    import torch
    from torch.nn.functional import normalize

    z = normalize(torch.from_numpy(rows).double(), dim=1)
    y = torch.from_numpy(labels)
    counts = torch.bincount(y, minlength=k).double()
    means = torch.zeros(k, z.shape[1], dtype=z.dtype).index_add_(0, y, z) / counts[:, None]
    centred = z - means[y]
    cov = centred.T @ centred / len(z) + 1e-12 * torch.eye(z.shape[1], dtype=z.dtype)
    tril = torch.linalg.cholesky(cov)
    return mixture((counts / len(z)).float(), means.float(), tril.float())


def energy(net, prior, z):
    """E(z) = E_nn(z)/T + E_prior(z)/T_prior, one value per row."""
    return net(z).squeeze(1) / TEMPERATURE - prior.log_prob(z) / TEMPERATURE_PRIOR


def input_gradient(f, z):
    """Gradient of the sum of f(z) with respect to z, by autograd."""
    import torch

    z = z.detach().requires_grad_()
    return torch.autograd.grad(f(z).sum(), z)[0]


def project(z):
    """ReLU, then divide by the L2 norm."""
    import torch.nn.functional as F

    return F.normalize(F.relu(z), dim=1)


def decay(ends, t, steps):
    """From ends[0] at t = 0 to ends[1] at t = steps, quadratically."""
    return (ends[0] - ends[1]) * (1 - t / steps) ** 2 + ends[1]


def sgld(net, prior, z, steps, step_size=STEP_SIZE, eps=EPS):
    """z <- project(z - step_size grad E(z) - eps noise), `steps` times, network frozen."""
    import torch

    net.requires_grad_(False)
    for t in range(steps):
        grad = input_gradient(lambda x: energy(net, prior, x), z)
        noise = torch.randn_like(z)
        z = project(z - decay(step_size, t, steps) * grad - decay(eps, t, steps) * noise)
    net.requires_grad_(True)
    return z


def apply_loss(net, optimizer, real, negatives, eps_data=EPS_DATA):
    """One optimiser step on the contrastive-divergence loss; returns the loss.

    mean E(real) - mean E(negatives) + l2 (mean E(real)^2 + mean E(negatives)^2),
    E the network's energy of the rows with a little noise added.
    """
    import torch

    rows = torch.cat([real, negatives])
    rows = rows + eps_data * torch.randn_like(rows)
    nn = net(rows).squeeze(1) / TEMPERATURE
    pos, neg = nn[: len(real)], nn[len(real) :]
    loss = pos.mean() - neg.mean() + L2_COEF * (pos.square().mean() + neg.square().mean())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def adam(net, lr=LR):
    import torch

    return torch.optim.Adam(net.parameters(), lr=lr, betas=(0.0, 0.999))


# Measurements: seconds of every repetition.


def time_mlp(a):
    """Energies and their input gradient, parameters frozen."""
    import torch

    net = tied_mlp(a["d"], a["hidden"]).requires_grad_(False)
    z = torch.rand(a["batch"], a["d"])
    return repeat(a["reps"], lambda: input_gradient(net, z))


def time_sgld(a):
    """Chains of `steps` steps, each started by a draw from the prior if `draw`; per step."""
    d, k, shape = a["d"], a["k"], (a["batch"],)
    prior = fit_mixture(*features(max(4 * k, 2 * d, 4096), d, k), k)
    net = tied_mlp(d, a["hidden"])
    start = None if a["draw"] else project(prior.sample(shape))

    def chain():
        z = project(prior.sample(shape)) if a["draw"] else start
        sgld(net, prior, z, a["steps"])

    return [s / a["steps"] for s in repeat(a["reps"], chain)]


def time_iteration(a):
    """Proposals, chains, loss gradient, Adam."""
    import torch
    from torch.nn.functional import normalize

    d, k, batch = a["d"], a["k"], a["batch"]
    rows, labels = features(20 * batch, d, k)
    prior = fit_mixture(rows, labels, k)
    rows = torch.from_numpy(rows)
    net = tied_mlp(d, a["hidden"])
    optimizer = adam(net)
    batches = iter(torch.randperm(len(rows)).split(batch))

    def iteration():
        real = normalize(rows[next(batches)], dim=1)
        initial = project(prior.sample((batch,)))
        final = sgld(net, prior, initial, a["steps"])
        apply_loss(net, optimizer, real, torch.cat([final, initial]))

    return repeat(min(a["reps"], 18), iteration)


def time_fit(a):
    """Class means and pooled covariance, in float32 (ours sums in float64)."""
    import torch

    rows, labels = features(a["rows"], a["d"], a["k"])
    x, y = torch.from_numpy(rows), torch.from_numpy(labels)

    def fit():
        counts = torch.bincount(y, minlength=a["k"]).float()
        means = torch.zeros(a["k"], a["d"]).index_add_(0, y, x) / counts[:, None]
        centred = x - means[y]
        return centred.T @ centred / len(x)

    return repeat(a["reps"], fit)


def time_knn(a):
    """Squared distance of normalised queries to their k-th nearest row, exact."""
    import faiss

    if a["threads"]:
        faiss.omp_set_num_threads(a["threads"])
    rows, queries = features(a["rows"], a["d"], 10)[0], features(a["queries"], a["d"], 10)[0]
    faiss.normalize_L2(rows)
    index = faiss.IndexFlatL2(a["d"])
    index.add(rows)

    def score():
        q = queries.copy()
        faiss.normalize_L2(q)
        return index.search(q, a["neighbours"])[0][:, -1]

    return repeat(a["reps"], score)


def metrics(in_dist, ood):
    """The six metrics the library reports; the ROC curve is taken once."""
    from sklearn.metrics import auc, average_precision_score, roc_curve

    y = np.repeat(np.array([0, 1], np.int8), [len(in_dist), len(ood)])
    s = np.concatenate([in_dist, ood])
    fpr, tpr, _ = roc_curve(y, s, drop_intermediate=False)
    return {
        "auroc": auc(fpr, tpr),
        "fpr95_id_positive": np.mean(ood < np.percentile(in_dist, 95)),
        "fpr95_ood_positive": fpr[np.argmax(tpr >= 0.95)],
        "aupr_out": average_precision_score(y, s),
        "aupr_in": average_precision_score(1 - y, -s),
        "detection_accuracy": np.max(tpr + 1 - fpr) / 2,
    }


def time_metrics(a):
    """All metrics of `rows` float32 scores, half of them out-of-distribution."""
    scores = np.random.default_rng(1).standard_normal(a["rows"], dtype=np.float32)
    in_dist, ood = np.split(scores, 2)
    ood += 1
    return repeat(a["reps"], lambda: metrics(in_dist, ood))


# Agreement with the golden values.


def below(tensors, prefix):
    """The entries whose names start with `prefix`, without it."""
    return {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}


def check(path):
    """Largest error of each quantity, relative to its largest value; True if all are small."""
    import torch
    from safetensors.torch import load_file

    golden = load_file(path)
    case = below(golden, "ebm_gmm_tied.")
    fitted = below(golden, "ssd_normalized.")
    prior = mixture(fitted["mixture_probs"], fitted["means"], fitted["scale_tril"])
    net = tied_mlp(golden["test.avg"].shape[1], 32, n_hidden=3)
    net.load_state_dict(below(case, "mlp."))
    z = torch.nn.functional.normalize(golden["test.avg"], dim=1)
    chain = {"steps": 6, "step_size": (1e-3, 1e-4), "eps": (0.0, 0.0)}

    def negatives(proposals):
        initial = project(proposals)
        return torch.cat([sgld(net, prior, initial, **chain), initial])

    pairs = {
        "energy": (energy(net, prior, z).detach(), case["energy"]),
        "energy_grad": (input_gradient(lambda x: energy(net, prior, x), z), case["energy_grad"]),
        "sgld_negatives": (negatives(case["sgld_init"]), case["sgld_negatives"]),
    }
    optimizer, losses = adam(net, lr=1e-3), []
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [6], 0.1)
    for _ in range(10):
        generated = negatives(case["train_proposals"])
        losses.append(apply_loss(net, optimizer, case["train_real"], generated, eps_data=0.0))
        schedule.step()
    pairs["loss of ten training steps"] = torch.tensor(losses), case["train_log"][:, 0]

    with open(os.path.join(os.path.dirname(path), "metrics.json")) as file:
        for i, m in enumerate(json.load(file)):
            ours = metrics(np.array(m["id"]), np.array(m["ood"]))
            pairs[f"metrics of pair {i}"] = (
                torch.tensor([float(v) for v in ours.values()]),
                torch.tensor([float(m[k]) for k in ours]),
            )

    agree = True
    for name, (got, want) in pairs.items():
        error = ((got - want).abs().max() / want.abs().max()).item()
        agree &= error <= TOLERANCE
        print(f"{name}: {error:.1e} {'ok' if error <= TOLERANCE else 'DIFFERS'}")
    return agree


DEFAULTS = {
    "mlp": {"reps": 15},
    "sgld": {"steps": 5, "reps": 15},
    "iteration": {"steps": 40, "reps": 7},
    "fit": {"d": 2048, "rows": 20_000, "k": 1000, "reps": 3},
    "knn": {"rows": 50_000, "reps": 5},
    "metrics": {"rows": 10_000_000, "reps": 3},
}
COMMON = {"d": 512, "k": 10, "batch": 1024, "hidden": 1024, "draw": 0}
COMMON |= {"queries": 5000, "neighbours": 50, "threads": 0}


def main(words):
    if len(words) == 2 and words[0] == "check":
        sys.exit(0 if check(words[1]) else 1)
    if not words or words[0] not in DEFAULTS:
        sys.exit(__doc__)
    what, given = words[0], dict(w.split("=", 1) for w in words[1:])
    args = {"steps": 1, "rows": 0} | COMMON | DEFAULTS[what]
    if unknown := given.keys() - args.keys():
        sys.exit(f"unknown keys: {', '.join(sorted(unknown))}")
    args |= {k: int(v) for k, v in given.items()}
    if what in ("mlp", "sgld", "iteration", "fit"):
        import torch

        torch.manual_seed(0)
        if args["threads"]:
            torch.set_num_threads(args["threads"])
    seconds = globals()[f"time_{what}"](args)
    print(json.dumps({"what": what, "seconds": seconds}))


if __name__ == "__main__":
    main(sys.argv[1:])
