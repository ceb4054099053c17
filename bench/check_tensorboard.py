"""Trains briefly and reads the event file with the real tensorboard package.

    python bench/check_tensorboard.py target/debug/heat

Every scalar must be there, once an epoch, with the value of metrics.jsonl.
"""
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

DATA = Path(__file__).resolve().parent.parent / "crates/heat-cli/data/cifar10-densenet"
TAGS = {"train/loss": "loss", "train/cd_loss": "cd_loss", "train/l2_loss": "l2_loss", "train/lr": "lr",
        "energy_nn/real": "energy_nn_real", "energy_nn/generated": "energy_nn_generated",
        "energy_prior/real": "energy_prior_real", "energy_prior/generated": "energy_prior_generated",
        "energy/real": "energy_real", "energy/generated": "energy_generated"}


def train(out, epochs, *more):
    subprocess.run([sys.argv[1], "--quiet", "train", "ebm=quickstart_gmm", "ebm.model.hidden_dim=32",
                    "ebm.model.steps=2", f"n_epochs={epochs}", "--train", DATA / "train.safetensors",
                    "--out", out, *more], check=True)


with tempfile.TemporaryDirectory() as folder:
    out = Path(folder) / "run"
    train(out, 2)
    train(out, 3, "--resume")
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    events = EventAccumulator(str(out))
    events.Reload()
    assert sorted(events.Tags()["scalars"]) == sorted(TAGS), events.Tags()
    for tag, key in TAGS.items():
        scalars = events.Scalars(tag)
        assert [s.step for s in scalars] == [1, 2, 3], scalars
        assert [s.value for s in scalars] == [float(np.float32(r[key])) for r in rows], tag
    print(f"tensorboard read {len(TAGS)} scalars of {len(rows)} epochs")
