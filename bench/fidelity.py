"""Compares `heat` with the published implementation on a real feature set.

    python bench/fidelity.py FEATURES_FOLDER [--seeds 0 1 2] [--out runs/fidelity]

FEATURES_FOLDER holds train, test, head, ood_*.safetensors and expected.json:
what the published implementation obtained on the same files, with the
settings of its HEATs under `config`. Trains the three HEATs for every seed
with `heat train`, evaluates baselines, HEATs and their compositions with
`heat eval`, and prints the differences. Python's standard library is enough.
"""
import argparse
import json
import subprocess
from pathlib import Path

HEAT = Path(__file__).resolve().parent.parent / "target/release/heat"
BASELINES = {  # name in expected.json: scorer
    "msp": "msp", "el": "el", "knn": "knn(k=50)", "ssd": "ssd",
    "ssd_std": "ssd(pooling=std)", "maha": "maha",
}
RECIPES = {"heat_gmm": "heat_gmm_c10", "heat_gmm_std": "heat_gmm_std_c10", "heat_el": "heat_el_c10"}
BETAS = {"heat_sum": "0", "heat_min": "-inf", "heat_max": "inf", "heat_lse-1": "-1", "heat_lse1": "1"}


def heat(*args):
    """Runs the command and returns its standard output."""
    return subprocess.run([HEAT, "--quiet", *map(str, args)], check=True, text=True,
                          stdout=subprocess.PIPE).stdout


def evaluate(folder, *args):
    ood = [f"{p.stem[4:]}={p}" for p in sorted(folder.glob("ood_*.safetensors"))]
    text = heat("eval", "--train", folder / "train.safetensors", "--head", folder / "head.safetensors",
                "--id", folder / "test.safetensors", "--ood", *ood, "--format", "json", *args)
    return json.loads(text)["scorers"]


def settings(name, config, epochs):
    """The settings recorded in expected.json, as overrides of the published recipe."""
    c = config[name]
    return [f"ebm={RECIPES[name]}", f"pooling={c['pool']}", f"ebm.prior={c['prior']}",
            f"ebm.model.temperature_prior={c['Tp']}", f"ebm.model.steps={c['steps']}",
            f"ebm.model.step_size_start={c['ss']}", f"ebm.model.eps_start={c['eps']}",
            f"ebm.loss.l2_coef={c['l2']}", f"batch_size={c['bs']}",
            f"ebm.optimizer.opt.lr={c['lr']}", f"n_epochs={epochs}"]


def worst(got, want):
    """Largest difference over the OOD sets, and the set."""
    sets = list(got["ood"])
    auroc = max((abs(got["ood"][s]["auroc"] - want[s]["auroc"]), s) for s in sets)
    fpr = max(abs(got["ood"][s]["fpr95_id_positive"] - want[s]["fpr95"]) for s in sets)
    return auroc, fpr


def row(name, got, want):
    (auroc, where), fpr = worst(got, want)
    a, w = got["average"], want["average"]
    print(f"| {name} | {100 * w['auroc']:.2f} | {100 * a['auroc']:.2f} | {100 * w['fpr95']:.2f} "
          f"| {100 * a['fpr95_id_positive']:.2f} | {auroc:.4f} ({where}) | {fpr:.4f} |", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/fidelity"))
    args = parser.parse_args()
    expected = json.loads((args.folder / "expected.json").read_text())
    want = expected["results"]
    print("| scorer | AUROC published | AUROC here | FPR95 (ID+) published | here "
          "| largest AUROC difference | largest FPR95 difference |")
    print("|---|---|---|---|---|---|---|")
    got = evaluate(args.folder, "--scorers", ",".join(BASELINES.values()),
                   "--combine", "el,ssd,ssd(pooling=std)")
    for name, scorer in BASELINES.items():
        row(name, got[scorer], want[name])
    row("priors_sum", got["combine(el,ssd,ssd(pooling=std),beta=0)"], want["priors_sum"])
    for seed in args.seeds:
        detectors = []
        for name in RECIPES:
            out = args.out / f"{name}-{seed}"
            detectors.append(f"{name}={out / 'detector.safetensors'}")
            if not (out / "detector.safetensors").exists():
                heat("train", *settings(name, expected["config"], expected["epochs"]), f"seed={seed}",
                     "--train", args.folder / "train.safetensors",
                     "--head", args.folder / "head.safetensors", "--out", out, "--resume")
        for label, beta in BETAS.items():
            got = evaluate(args.folder, "--detectors", *detectors, "--combine", ",".join(RECIPES),
                           f"--beta={beta}")
            if label == "heat_sum":
                for name in RECIPES:
                    row(f"{name}, seed {seed}", got[name], want[name])
            row(f"{label}, seed {seed}", list(got.values())[-1], want[label])


if __name__ == "__main__":
    main()
