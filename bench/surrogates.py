"""How well surrogates rank scorers: `heat select --surrogates` beside what OOD sets say.

    python bench/surrogates.py --train train.safetensors --head head.safetensors --surrogates DIR \
        --id test.safetensors --ood cifar100=… tin=…

Prints a Markdown table of all scorers, the rank correlation (Spearman) of each kind of surrogates and of
their value with the mean AUROC over the OOD sets, and what the composition that was chosen reaches there,
beside the fixed committee and the best scorer. Without --surrogates the same for what features alone allow.
"""

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path


def ranks(values):
    """From 1, the highest first; ties share their mean."""
    return [1 + sum(v > x for v in values) + (sum(v == x for v in values) - 1) / 2 for x in values]


def spearman(a, b):
    a, b = ranks(a), ranks(b)
    ma, mb = sum(a) / len(a), sum(b) / len(b)
    cov = sum((x - ma) * (y - mb) for x, y in zip(a, b, strict=True))
    scale = (sum((x - ma) ** 2 for x in a) * sum((y - mb) ** 2 for y in b)) ** 0.5
    return cov / scale if scale else 0.0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--heat", default="heat")
    parser.add_argument("--train", required=True)
    parser.add_argument("--head", required=True)
    parser.add_argument("--surrogates")
    parser.add_argument("--id", required=True, help="ID test rows")
    parser.add_argument("--ood", nargs="+", required=True, metavar="NAME=FEATURES")
    parser.add_argument("--scorers", default="all,committee")
    args = parser.parse_args()
    data = ["--train", args.train, "--head", args.head, "--scorers", args.scorers]

    def run(*words):
        found = subprocess.run([args.heat, "-q", *words], check=True, capture_output=True, text=True)
        return found.stdout

    with tempfile.TemporaryDirectory() as directory:
        chosen = Path(directory) / "chosen.safetensors"
        by = ["--surrogates", args.surrogates] if args.surrogates else []
        start = time.perf_counter()
        found = json.loads(run("select", *data, *by, "--format", "json", "-o", str(chosen)))
        seconds = time.perf_counter() - start
        tests = ["--id", args.id, "--ood", *args.ood, "--format", "json"]
        true = json.loads(run("eval", *data, *tests, "--detectors", f"chosen={chosen}"))["scorers"]
    auroc = {name: 100 * results["average"]["auroc"] for name, results in true.items()}
    ranking = [r for r in found["ranking"] if r["name"] in auroc]
    # Variants of a method that are in the committee are no methods of their own.
    methods = [r for r in ranking if "(" not in r["name"]]
    truth = [auroc[r["name"]] for r in methods]
    place = dict(zip([r["name"] for r in ranking], ranks([auroc[r["name"]] for r in ranking]), strict=True))

    groups = found["groups"] if len(found["groups"]) > 1 else []
    print("| rank | scorer | AUROC on surrogates |", *[f" {g} |" for g in groups], " true AUROC | true rank |", sep="")
    print("|---" * (5 + len(groups)), "|", sep="")
    for i, r in enumerate(ranking):
        columns = [f"{100 * v:.2f}" for v in [r["auroc"], *r.get("by_group", [])]]
        name = r["name"]
        print("|", i + 1, "|", name, "|", " | ".join(columns), "|", f"{auroc[name]:.2f} | {place[name]:g} |")
    print(f"\nSpearman with the true ranking of {len(methods)} methods: {spearman([r['auroc'] for r in methods], truth):.3f}")
    for i, kind in enumerate(found["kinds"]):
        print(f"  {kind}: {spearman([r['by_kind'][i] for r in methods], truth):.2f}")
    print(f"between the groups {found['agreement']:.2f}, between halves of the kinds {found['stability'] or 0:.2f}")
    best = max((auroc[r["name"]], r["name"]) for r in ranking)
    sets = list(true["chosen"]["ood"])
    print(f"\n| | mean | {' | '.join(sets)} |\n|---|---|{'---|' * len(sets)}")
    for name in [best[1], "committee", "chosen"]:
        if name in true:
            each = [f"{100 * true[name]['ood'][s]['auroc']:.2f}" for s in sets]
            print(f"| {name} | {auroc[name]:.2f} | {' | '.join(each)} |")
    print("\nchosen:", " + ".join(f"{w:.2f} {n}" for n, w in found["composition"]))
    evidence = found.get("evidence")
    if evidence:
        words = "taken" if evidence["suffices"] else "not taken"
        gain, error = 100 * evidence["mean"], 100 * evidence["standard_error"]
        print(f"gain on kinds left out of the choice: {gain:+.2f} ± {error:.2f}: {words}")
    print(f"{seconds:.1f} s for the choice")


if __name__ == "__main__":
    main()
